"""A library that needs a CUDA library loads with the stand-in for it."""

import os
import shutil
import subprocess
import sys

import pytest
from repository import ROOT

sys.path.insert(0, os.path.join(ROOT, 'tools'))

import cuda_stand_ins  # noqa: E402

pytestmark = pytest.mark.skipif(
    not (shutil.which('gcc') and shutil.which('readelf')), reason='needs the programs gcc and readelf'
)
LIBRARIES = {'libcublas.so.10.0': {'cublasCreate_v2', 'cublasSgemm_v2'}, 'libcuda.so.1': {'cuInit'}}


def test_a_library_loads_without_cuda(tmp_path):
    original, user = tmp_path / 'cuda', tmp_path / 'libuser.so'
    for name, symbols in LIBRARIES.items():
        cuda_stand_ins.write(str(original), name, symbols | {'cuNobodyNeedsThis'})
    calls = [f'long {name}(void);' for names in LIBRARIES.values() for name in sorted(names)]
    source = tmp_path / 'user.c'
    source.write_text(
        '\n'.join(calls) + '\nlong ask(void) { return cuInit() + cublasCreate_v2() + cublasSgemm_v2(); }\n'
    )
    command = ['gcc', '-shared', '-fPIC', '-o', str(user), str(source), '-Wl,--no-as-needed']
    subprocess.run([*command, *(str(original / name) for name in LIBRARIES)], check=True)
    found = cuda_stand_ins.undefined([str(user)])
    assert found == LIBRARIES

    shutil.rmtree(str(original))
    ask = [sys.executable, '-c', f'import ctypes; print(ctypes.CDLL({str(user)!r}).ask())']
    bare = {name: value for name, value in os.environ.items() if name != 'LD_LIBRARY_PATH'}
    assert subprocess.run(ask, env=bare, stderr=subprocess.DEVNULL).returncode == 1
    for name, symbols in found.items():
        cuda_stand_ins.write(str(tmp_path / 'stand-ins'), name, symbols)
    assert sorted(os.listdir(str(tmp_path / 'stand-ins'))) == sorted(LIBRARIES)
    answer = subprocess.check_output(ask, env=dict(bare, LD_LIBRARY_PATH=str(tmp_path / 'stand-ins')))
    assert int(answer) == 3 * cuda_stand_ins.NO_DEVICE


def test_a_cpu_build_needs_none():
    script = os.path.join(ROOT, 'tools', 'cuda_stand_ins.py')
    done = subprocess.run([sys.executable, script, '--help'], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b'usage: python tools/cuda_stand_ins.py FOLDER\n')
