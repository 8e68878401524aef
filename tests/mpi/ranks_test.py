"""Real ranks on given batches: four ranks, with either backend, compute what one process computes."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from rank_script import CASES, HOROVOD_CASES, episodes
from repository import TESTS

from lm_human_preferences.launcher import mpiexec

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')
SCRIPT = os.path.join(TESTS, 'support', 'rank_script.py')
HAS_HOROVOD = importlib.util.find_spec('horovod') is not None
BACKENDS = ['mpi4py', 'horovod'] if HAS_HOROVOD else ['mpi4py']
NO_HOROVOD = pytest.mark.skipif(not HAS_HOROVOD, reason='Horovod is not installed: make horovod')


@pytest.fixture(scope='module')
def outcomes(tmp_path_factory):
    """What rank_script.py saved, by the number of ranks."""
    found = {}
    for size in (1, 4):
        path = str(tmp_path_factory.mktemp('outcome') / f'{size}.npz')
        command = [*(mpiexec.ranks_of(size) if size > 1 else []), sys.executable, SCRIPT, path]
        command += BACKENDS if size > 1 else BACKENDS[:1]
        with mpiexec.session() as environment:
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=600)
        with np.load(path, allow_pickle=False) as arrays:
            found[size] = {name: arrays[name] for name in arrays}
    return found


# Averages arrays of several sizes over two ranks, and compares the means with sums computed here.
MEANS = """
import sys
import numpy as np
from lm_human_preferences.mpi.ranks import Ranks

ranks = Ranks()
shapes = [(), (3, 5), (0, 4), (1200, 1000), (7,), (128, 128), (2 ** 19 + 1,)]
of_rank = [[np.array(np.random.RandomState(rank).randn(*shape), np.float32) for shape in shapes] for rank in (0, 1)]
mine = [np.array(array) for array in of_rank[ranks.rank]]
means = ranks.mean_buffers(*mine)
for mean, one, two, array in zip(means, *of_rank, mine):
    np.testing.assert_array_equal(mean, (one + two) / np.float32(2))  # to the bit
    np.testing.assert_array_equal(array, (one, two)[ranks.rank])
    assert mean.shape == one.shape and mean.dtype == np.float32
    assert mean.size == 0 or mean.ctypes.data % 64 == 0  # so that TensorFlow does not copy it
    assert not np.shares_memory(mean, array)
(double,) = ranks.mean_buffers(np.array([ranks.rank, 1e300]))
assert double.tolist() == [0.5, 1e300] and ranks.mean(ranks.rank) == 0.5
sys.stdout.write(f'{ranks.rank} of {ranks.size} is right\\n')
"""


def test_means_over_ranks_are_exact_and_aligned():
    with mpiexec.session() as environment:
        said = subprocess.run(
            [*mpiexec.ranks_of(2), sys.executable, '-c', MEANS],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            check=True,
            timeout=120,
        ).stdout.decode()
    assert sorted(said.splitlines()) == ['0 of 2 is right', '1 of 2 is right']


def part(outcome, prefix):
    return {name[len(prefix) :]: value for name, value in outcome.items() if name.startswith(prefix)}


@pytest.mark.slow
@pytest.mark.parametrize(
    'backend, case',
    [('mpi4py', case) for case in CASES] + [pytest.param('horovod', case, marks=NO_HOROVOD) for case in HOROVOD_CASES],
)
def test_ranks_compute_what_one_process_computes(outcomes, case, backend):
    one, many = part(outcomes[1], f'mpi4py/{case}/'), part(outcomes[4], f'{backend}/{case}/')
    assert set(one) == set(many)
    after = [name for name in one if name.startswith('after/')]
    assert max(np.abs(one[name] - one[name.replace('after', 'before', 1)]).max() for name in after) > 1e-3
    for name in one:
        np.testing.assert_allclose(many[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('size', [1, 4])
def test_statistics_are_of_the_whole_batch(outcomes, size):
    stats = part(outcomes[size], 'mpi4py/ppo/stats/')
    batch = episodes()
    deltas = batch.rewards - batch.values
    deltas[:, :-1] += batch.values[:, 1:]
    advantages = [sum(0.95 ** (later - t) * deltas[:, later] for later in range(t, 3)) for t in range(3)]
    for name, values in [('val', batch.values), ('returns', np.stack(advantages, axis=1) + batch.values)]:
        assert stats[f'{name}/mean'] == pytest.approx(values.mean(), rel=1e-5)
        assert stats[f'{name}/var'] == pytest.approx(values.var(), rel=1e-5)
        # The mean of the variances of the shares would be another number.
        assert np.mean([values[i::4].var() for i in range(4)]) < 0.95 * values.var()


def test_the_leftovers_of_a_killed_mpiexec_do_not_disturb_another(tmp_path):
    """Open MPI names a file by the process number of mpiexec, and does not start if the file exists."""
    with mpiexec.session() as environment:
        process = subprocess.Popen(
            ['sh', '-c', 'read line; exec "$@"', 'sh', *mpiexec.ranks_of(2), 'true'],
            env=dict(environment, TMPDIR=str(tmp_path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        folder = tmp_path / f'ompi.{process.pid}'
        folder.mkdir()
        (folder / f'pmix.vm.tool.{process.pid}').write_text('left behind')
        said, _ = process.communicate(b'\n')
    assert (process.returncode, said) == (0, b'')


@pytest.mark.slow
def test_the_backend_is_described(outcomes):
    for backend in BACKENDS:
        described = str(outcomes[4][f'{backend}/described'])
        assert described.lower().startswith(f'4 ranks, gradients averaged by {backend} ')
