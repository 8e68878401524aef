"""Write stand-ins for the CUDA libraries that a GPU build of TensorFlow 1 needs, so that it loads without CUDA.

    python tools/cuda_stand_ins.py FOLDER
    LD_LIBRARY_PATH=FOLDER python -m pytest tests/method/golden_test.py tests/language/sampling_test.py

This serves to run tensorflow-gpu 1.13.1, the package of 2019, on a machine without a GPU: it then computes on the CPU.
Run it with the Python of the environment that has this package. Each stand-in has the name, the version and the symbols
that the package's libraries leave undefined. Each of its functions returns 100, the driver's code for "no device". It
needs gcc and readelf.
"""

import importlib.util
import os
import re
import subprocess
import sys
from typing import Dict, List, Set

NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_CUDA = re.compile(r'lib(cu|nccl|nv)[\w-]*\.so[\d.]*\Z')
_NEEDED = re.compile(r'\(NEEDED\).*\[(\S+)\]')
_UNDEFINED = re.compile(r'\sUND (\w+)(?:@(\S+))?')
_DRIVER = 'libcuda.so.1'  # the only one whose symbols have no version


def undefined(libraries: List[str]) -> Dict[str, Set[str]]:
    """Return the symbols of each CUDA library that the given libraries need."""
    found: Dict[str, Set[str]] = {}
    for path in libraries:
        needed = filter(_CUDA.match, _NEEDED.findall(_readelf('--dynamic', path)))
        for name in needed:
            found.setdefault(name, set())
        for symbol, version in _UNDEFINED.findall(_readelf('--dyn-syms', path)):
            if version and _CUDA.match(version):
                found.setdefault(version, set()).add(symbol)
            elif not version and re.match('cu[A-Z]', symbol):
                found.setdefault(_DRIVER, set()).add(symbol)
    return found


def write(folder: str, name: str, symbols: Set[str]) -> None:
    """Write the stand-in for one library."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    source, versions = path + '.c', path + '.map'
    with open(source, 'w') as file:
        file.writelines(f'long {symbol}(void) {{ return {NO_DEVICE}; }}\n' for symbol in sorted(symbols))
    with open(versions, 'w') as file:
        file.write(f'{"" if name == _DRIVER else name} {{ global: *; }};\n')
    command = ['gcc', '-shared', '-fPIC', '-w', '-o', path, source, f'-Wl,-soname,{name}']
    subprocess.run([*command, f'-Wl,--version-script={versions}'], check=True)
    os.remove(source)
    os.remove(versions)


def libraries_of(package: str) -> List[str]:
    """Return the shared objects of an installed package, which need not load."""
    (root,) = importlib.util.find_spec(package).submodule_search_locations
    return [
        os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if re.search(r'\.so\b', name)
    ]


def _readelf(what: str, path: str) -> str:
    return subprocess.run(
        ['readelf', '-W', what, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    ).stdout.decode()


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith('-'):
        sys.exit('usage: python tools/cuda_stand_ins.py FOLDER')
    found = undefined(libraries_of('tensorflow'))
    if not found:
        sys.exit('error: this TensorFlow needs no CUDA libraries to load')
    for name, symbols in sorted(found.items()):
        write(sys.argv[1], name, symbols)
        print(f'{name}: {len(symbols)} symbols')
    print(f'LD_LIBRARY_PATH={os.path.abspath(sys.argv[1])}')


if __name__ == '__main__':
    main()
