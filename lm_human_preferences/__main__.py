"""`python -m lm_human_preferences`, `launch.py` and the installed command: the command line, or one line without it."""

import sys

from lm_human_preferences.utils.errors import user_message


def main() -> None:
    """Run the command line. If a package is missing, end with status 2 and one line that says how to install it."""
    try:
        from lm_human_preferences.launcher import command_line
    except ModuleNotFoundError as error:
        message = user_message(error)
        if message is None:
            raise
        print(f'error: {message}', file=sys.stderr)
        sys.exit(2)
    command_line.main()


if __name__ == '__main__':
    main()
