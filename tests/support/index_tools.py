"""Tools of the package index that no environment of the lock contains, for slow tests."""

import os
import subprocess
import sys

import pytest


def installed(folder: str, requirement: str) -> str:
    """Install a tool into a new environment in `folder`, and return the environment's Python; skip without an index."""
    subprocess.run([sys.executable, '-m', 'venv', folder], check=True)
    python = os.path.join(folder, 'bin', 'python')
    command = [python, '-m', 'pip', 'install', '--quiet', requirement]
    if subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        pytest.skip('no index of packages answers pip here')
    return python
