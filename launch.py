#!/usr/bin/env python3
from lm_human_preferences.__main__ import main

if __name__ == '__main__':
    main()
