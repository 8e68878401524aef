"""A small disk, for the tests of runs that fill it."""

import os
import subprocess

import pytest


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 256 KB, and how to make that larger."""
    folder = str(tmp_path / 'disk')
    os.mkdir(folder)
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', folder], stderr=subprocess.PIPE)
    if mounted.returncode:
        pytest.skip(f'needs the right to mount a tmpfs: {mounted.stderr.decode().strip()}')
    yield folder, lambda: subprocess.run(['mount', '-o', 'remount,size=64m', folder], check=True)
    subprocess.run(['umount', '--lazy', folder], check=True)  # a failed writer may still have its file open
