#!/usr/bin/env python3
from lm_human_preferences.launcher.command_line import main

if __name__ == '__main__':
    main()
