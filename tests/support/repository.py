"""Where this repository and its tests are."""

import os

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
LAUNCH = os.path.join(ROOT, 'launch.py')
