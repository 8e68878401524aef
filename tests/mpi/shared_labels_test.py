"""On two ranks, the first one alone reads the label file. Both have its arrays, or the same error."""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
from launching import launch
from refusals import EXPERIMENT, good_labels, write_files

from lm_human_preferences.launcher import mpiexec

pytestmark = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='mpi4py is not installed')

SCRIPT = """
import os, sys
import numpy as np
from lm_human_preferences.hyperparameters import TrainRewardHParams
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.train_reward import read_labels
from lm_human_preferences.utils.errors import user_message

folder, ranks = sys.argv[1], Ranks()
os.environ['LM_HUMAN_PREFERENCES_CACHE'] = os.path.join(folder, str(ranks.rank))  # that of rank 1 has no files
hparams = TrainRewardHParams()
hparams.override_from_dict({
    'task.query_length': 2, 'task.response_length': 3, 'task.query_dataset': 'test',
    'task.policy.initial_model': 'test', 'labels.type': 'best_of_4', 'labels.num_train': 8,
})
task = Task(hparams.task, find_model('test').encoding())
found = {}
for name in ('good', 'bad', 'missing', 'good'):
    hparams.labels.source = name + '.json'
    try:
        found.update(ranks.arrays_of_first(lambda: read_labels(hparams, task)))
    except Exception as error:
        found[name] = user_message(error)
np.savez(os.path.join(folder, f'rank-{ranks.rank}.npz'), **found)
"""


def test_one_rank_reads_for_both(tmp_path):
    labels = good_labels()
    labels[3]['best'] = 9
    (tmp_path / '0').mkdir()
    (tmp_path / '0' / 'good.json').write_text(json.dumps(good_labels()))
    (tmp_path / '0' / 'bad.json').write_text(json.dumps(labels))
    with mpiexec.session() as environment:
        command = [*mpiexec.ranks_of(2), sys.executable, '-c', SCRIPT, str(tmp_path)]
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=600)
    ranks = []
    for rank in range(2):
        with np.load(str(tmp_path / f'rank-{rank}.npz'), allow_pickle=False) as arrays:
            ranks.append({name: arrays[name] for name in arrays})
    for name in ('query', 'sample0', 'sample3', 'best'):
        expected = [label[name] for label in good_labels()]
        for arrays in ranks:
            assert arrays[name].dtype == np.int32 and arrays[name].tolist() == expected
    path = tmp_path / '0'
    for name, line in (
        ('bad', f"{path / 'bad.json'}: entry 3: field 'best': 9 is none of the 4 samples"),
        ('missing', f'--labels.source: no label file missing.json or {path / "missing.json"}'),
    ):
        assert [str(arrays[name]) for arrays in ranks] == [line, line]


@pytest.mark.slow
def test_bad_labels_end_a_run_of_two_ranks_in_one_line(tmp_path):
    folder = str(tmp_path)
    write_files(folder, {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels()[:7]})
    status, _, errors = launch('train_reward', f'{folder}/tiny.yaml', 'run', f'--save_dir={folder}/save', '--mpi=2')
    expected = f'error: {folder}/labels.json: 7 labels are fewer than labels.num_train, 8\n'
    assert (status, errors) == (2, expected)
