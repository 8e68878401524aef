"""A run of the version before checkpoints had checksums resumes."""

import json
import os
import shutil

import numpy as np
import pytest
from make_old_run import EXPERIMENT, FOLDER, NAME
from resumed_runs import variables

from lm_human_preferences.launcher.command_line import main

# What that version has after the last step, if it is not killed.
KL_COEF = 0.1961905892421704
POSITIONS = [96]
VALUE_HEAD = [-0.06084905564785004, 0.09616145491600037, 0.046871986240148544, -0.022556666284799576]


def test_a_run_of_the_version_before_resumes(tmp_path, capsys):
    shutil.copytree(FOLDER, str(tmp_path / NAME))
    (tmp_path / 'tiny.yaml').write_text(EXPERIMENT)
    main(['train_policy', str(tmp_path / 'tiny.yaml'), NAME, f'--save_dir={tmp_path}', '--mpi=1', '--threads=1'])
    output = capsys.readouterr().out
    name = 'rewards.train_new_model.normalize_truncated'
    assert f'run was begun before {name} existed: it goes on with True\n' in output
    assert 'resuming after step 4\n' in output and 'step 6/6' in output and 'passed over' not in output
    place = str(tmp_path / NAME / 'policy' / 'checkpoints')
    with open(os.path.join(place, 'state-6.json')) as file:
        state = json.load(file)
    assert (state['step'], state['positions'], state['finished']) == (6, POSITIONS, True)
    assert state['kl_coef'] == pytest.approx(KL_COEF, rel=1e-5)
    head = variables(str(tmp_path / NAME / 'policy'))['policy/model/heads/value/w']
    np.testing.assert_allclose(np.ravel(head)[:4], VALUE_HEAD, rtol=1e-3)
    assert set(state['files']['model.ckpt-6.index']) == {'size', 'crc32c'}
    assert sorted(name for name in os.listdir(place) if name.startswith('state')) == [
        'state-4.json',
        'state-5.json',
        'state-6.json',
    ]
