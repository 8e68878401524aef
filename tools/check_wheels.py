"""Ask the index whether all of Pipfile.lock can be had for every machine and Python that it serves: `make wheels`.

For each of them, uv resolves a section as it would to install it there, with the lock's hashes and the metadata of the
wheels for that machine; nothing is downloaded or installed. It is an error where a package has no wheel, or where a
wheel needs a package that the lock lacks. Exit status: 0, all is there; 1, something is missing; 2, no index answers.
"""

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

# uv's names: glibc 2.28 or later, macOS 13 or later.
PLATFORMS = {
    'Linux x86_64': 'x86_64-manylinux_2_28',
    'Linux aarch64': 'aarch64-manylinux_2_28',
    'macOS arm64': 'aarch64-apple-darwin',
    'macOS x86_64': 'x86_64-apple-darwin',
}

# What is published without wheels. Only regex and mpi4py hold C code: Python 3.7 needs a compiler.
SOURCES = {'future', 'rouge-score'}
SOURCES_2019 = SOURCES | {'fire', 'gast', 'mpi4py', 'regex'}


class Environment(NamedTuple):
    """The sections of the lock that make one environment, and where it can be installed."""

    sections: str
    pythons: List[str]
    machines: List[str]
    sources: set = SOURCES


ENVIRONMENTS = [
    Environment('default,develop', ['3.9', '3.10', '3.11'], list(PLATFORMS)),
    Environment('py312', ['3.12', '3.13'], ['Linux x86_64', 'Linux aarch64', 'macOS arm64']),
    Environment('py37', ['3.7'], ['Linux x86_64', 'macOS x86_64'], SOURCES_2019),
    Environment('cuda', ['3.9', '3.10', '3.11'], ['Linux x86_64']),
    Environment('py312-cuda', ['3.12', '3.13'], ['Linux x86_64']),
    Environment('py37-gpu', ['3.7'], ['Linux x86_64'], SOURCES_2019),
]


def requirements(lock: Dict[str, Any], sections: str) -> Dict[str, str]:
    """The lines of a requirements file for the comma-separated `sections`: name -> line."""
    lines = {}
    for section in sections.split(','):
        for name, entry in lock[section].items():
            extras = f'[{",".join(entry["extras"])}]' if 'extras' in entry else ''
            markers = f' ; {entry["markers"]}' if 'markers' in entry else ''
            hashes = ''.join(f' --hash={digest}' for digest in entry['hashes'])
            lines[name] = name + extras + entry['version'] + markers + hashes
    return lines


def _dry_run(python: str, folder: str, *options: str) -> 'subprocess.CompletedProcess[bytes]':
    command = [python, '-m', 'uv', 'pip', 'install', '--no-config', '--quiet', '--dry-run', '--target', folder]
    return subprocess.run([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def missing(lock: Dict[str, Any], environment: Environment, version: str, machine: str, python: str) -> str:
    """What keeps the `environment` from being installed on `machine` under Python `version`; '' where nothing does.

    `python` has uv. Give `machine` as in PLATFORMS.
    """
    lines = requirements(lock, environment.sections)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'requirements.txt')
        file.write_text('\n'.join(lines.values()))
        options = ['--require-hashes', '--python-version', version, '--python-platform', PLATFORMS[machine]]
        for name in sorted(set(lines) - environment.sources):
            options += ['--only-binary', name]
        done = _dry_run(python, folder, *options, '-r', str(file))
    return done.stdout.decode().strip() if done.returncode else ''


def index_answers(python: str) -> bool:
    """Whether uv can ask an index at all."""
    with tempfile.TemporaryDirectory() as folder:
        return _dry_run(python, folder, '--no-deps', '--refresh', 'pip').returncode == 0


def main() -> int:
    lock = json.loads(Path('Pipfile.lock').read_text())
    if not index_answers(sys.executable):
        print('No index of packages answers: nothing was checked.')
        return 2
    checks = [(e, version, machine) for e in ENVIRONMENTS for version in e.pythons for machine in e.machines]
    with ThreadPoolExecutor(4) as pool:  # they mostly wait for the index
        faults = list(pool.map(lambda check: missing(lock, *check, sys.executable), checks))
    for (environment, version, machine), fault in zip(checks, faults):
        print(f'{environment.sections:16}Python {version:6}{machine:15}{fault or "all there"}')
    return 1 if any(faults) else 0


if __name__ == '__main__':
    sys.exit(main())
