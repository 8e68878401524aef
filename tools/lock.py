"""Write Pipfile.lock from Pipfile: `make lock`.

The versions of the lock stay where they fit; `make lock UPGRADE=--upgrade` takes the newest ones.

`pipenv lock` resolves for the one Python it runs on, so its lock lacks what the other Pythons need. Here uv
resolves each section for every Python and platform that the section serves; the answer is written in pipenv's
format. No index and no host is written: any index that holds the same files (the hashes say so) will do.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict

from pipenv.vendor import tomlkit
from pipenv.vendor.plette import Pipfile

# The oldest Python that a section serves: its versions are chosen to run there and on later ones.
OLDEST_PYTHON = {
    'packages': '3.9',
    'cuda': '3.9',
    'py312': '3.12',
    'py312-cuda': '3.12',
    'py37': '3.7',
    'py37-gpu': '3.7',
}

TENSORFLOW_BUILDS = {'tensorflow', 'tensorflow-cpu', 'tensorflow-cpu-aws', 'tensorflow-gpu'}

PIN = re.compile(
    r'(?P<name>[\w.-]+)(\[(?P<extras>[\w,-]+)\])?(?P<version>==[^\s;]+)'
    r'(\s*;\s*(?P<markers>.+?))?(?P<hashes>(\s+--hash=\S+)+)\s*'
)


def requirement(name: str, wanted: Any) -> str:
    """A Pipfile entry in pip's form: `numpy = "*"` -> `numpy`, with extras `tensorflow[and-cuda]==2.15.1`."""
    options = wanted if isinstance(wanted, dict) else {'version': wanted}
    extras = f'[{",".join(options["extras"])}]' if 'extras' in options else ''
    markers = f' ; {options["markers"]}' if 'markers' in options else ''
    return name + extras + options.get('version', '*').replace('*', '') + markers


def merged(base: Dict[str, Any], section: Dict[str, Any]) -> Dict[str, Any]:
    """`base` with the entries of `section` in place of its own; there is one build of TensorFlow."""
    return {**{name: wanted for name, wanted in base.items() if name not in TENSORFLOW_BUILDS}, **section}


def resolve(wanted: Dict[str, Any], oldest_python: str, locked: Dict[str, Dict[str, Any]]) -> Dict[str, Dict[str, Any]]:
    """All that the entries `wanted` need on `oldest_python` and later: name -> entry of the lock.

    The versions that are `locked` are kept where they still fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked = Path(folder, 'requirements.in')
        asked.write_text('\n'.join(requirement(*entry) for entry in wanted.items()))
        answer = Path(folder, 'requirements.txt')  # uv prefers the versions that it finds there
        answer.write_text('\n'.join(name + entry['version'] for name, entry in locked.items()))
        compile_command = [sys.executable, '-m', 'uv', 'pip', 'compile', '--quiet', '--no-config']
        compile_command += ['--universal', '--python-version', oldest_python, '--fork-strategy', 'fewest']
        compile_command += ['--no-header', '--no-annotate', '--no-strip-extras', '--generate-hashes']
        compile_command += ['--no-python-downloads', str(asked), '--output-file', str(answer)]
        subprocess.run(compile_command, stdout=subprocess.DEVNULL, check=True)
        resolved = answer.read_text()
    entries = {}
    for line in resolved.replace('\\\n', '').splitlines():
        pin = PIN.fullmatch(line)
        if pin is None:
            raise ValueError(f'uv answered a line of another form: {line[:100]}')
        if pin['name'] in entries:
            raise ValueError(f'{pin["name"]} has two versions from Python {oldest_python} on: pin one')
        entry = {'hashes': sorted(pin['hashes'].replace('--hash=', '').split()), 'version': pin['version']}
        if pin['extras']:
            entry['extras'] = pin['extras'].split(',')
        if pin['markers']:
            entry['markers'] = pin['markers']
        entries[pin['name']] = entry
    return entries


def lock(pipfile: Path, before: Dict[str, Any]) -> Dict[str, Any]:
    """The contents of Pipfile.lock for `pipfile`; what the lock was `before` keeps its versions where they fit."""
    sections = tomlkit.parse(pipfile.read_text()).unwrap()
    packages = sections.pop('packages')
    everything = {**packages, **sections.pop('dev-packages')}
    with pipfile.open() as file:
        digest = Pipfile.load(file).get_hash().value
    locked = {**before.get('default', {}), **before.get('develop', {})}
    run_time = resolve(packages, OLDEST_PYTHON['packages'], locked)
    with_tests = resolve(everything, OLDEST_PYTHON['packages'], locked)
    for name, entry in run_time.items():
        if with_tests[name]['version'] != entry['version']:
            raise ValueError(f'the test tools need another version of {name} than the program: pin one')
    return {
        '_meta': {'hash': {'sha256': digest}, 'pipfile-spec': 6, 'requires': {}, 'sources': []},
        'default': {name: with_tests[name] for name in run_time},  # markers that serve the test tools, too
        'develop': {name: entry for name, entry in with_tests.items() if name not in run_time},
        **{
            name: resolve(merged(everything, section), OLDEST_PYTHON[name], before.get(name, {}))
            for name, section in sections.items()
        },
    }


if __name__ == '__main__':
    path = Path('Pipfile.lock')
    before = {} if '--upgrade' in sys.argv else json.loads(path.read_text())
    path.write_text(json.dumps(lock(Path('Pipfile'), before), indent=4, sort_keys=True) + '\n')
