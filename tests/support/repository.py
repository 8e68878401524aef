"""Paths of this repository, of its tests and of launch.py."""

import os

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ROOT = os.path.dirname(TESTS)
LAUNCH = os.path.join(ROOT, 'launch.py')
