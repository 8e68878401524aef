import os
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)


@pytest.fixture(scope='session')
def golden_dir():
    """Folder of the numbers recorded from the reference; GOLDEN_DIR names another of the same form."""
    return os.environ.get('GOLDEN_DIR') or os.path.join(ROOT, 'tests', 'golden')
