"""The demo from the command line, cut short: a few labels, one PPO step, the whole evaluation."""

import json
import os
import re

import pytest
from launching import launch


@pytest.mark.slow
def test_a_short_demo_ends_with_its_table(tmp_path):
    flags = [
        '--rewards.train_new_model.labels.num_train=320',
        '--rewards.train_new_model.normalize_samples=64',
        '--ppo.total_episodes=64',
        '--ppo.batch_size=64',
        '--ppo.lr=1e-5',
    ]
    status, output, errors = launch('train_policy', 'demo', 'short', f'--save_dir={tmp_path}', *flags)
    assert (status, errors) == (0, '')
    run = str(tmp_path / 'short')
    assert sorted(os.listdir(run)) == [
        'evaluation.json',
        'evaluation_samples.jsonl',
        'policy',
        'report.html',
        'reward_model',
        'samples.jsonl',
        'tb',
        'train_policy_hparams.json',
        'train_reward_hparams.json',
    ]
    for title in (
        'Samples before fine-tuning:',
        'Samples after fine-tuning:',
        'better than initial: VADER',
        'better than initial: ridge',
    ):
        assert title in output
    with open(os.path.join(run, 'evaluation.json')) as f:
        results = json.load(f)
    reward = results['reward_model']
    accuracy = float(re.search(r'agrees with people +([0-9.]+)%', output).group(1)) / 100
    assert abs(accuracy - reward['accuracy']) < 1e-3
    assert reward['interval'][0] < accuracy < reward['interval'][1]
    # After ten steps, a model of English knows something of sentiment: over 3 standard errors better than 25 %.
    assert accuracy > 0.3
    assert 0.4 < reward['judges']['VADER'] < 0.6  # people's choices agree with an independent judge
    # One small step of PPO hardly changes the policy: neither policy is better than the other.
    initial, tuned = results['policies']['policies']['initial'], results['policies']['policies']['short']
    assert abs(tuned['kl']) < 1 and abs(initial['kl']) < 1e-3
    assert set(tuned['wins']) == set(initial['judges']) and 0.3 < tuned['wins']['score']['share'] < 0.7
    # A second evaluation uses the same judges.
    status, output, errors = launch('evaluate', run, '--num_queries=8')
    assert (status, errors) == (0, '') and 'better than initial: ridge' in output and 'Policies on 8 ' in output
    # The vocabulary travels with the models, so the run folder can be sampled anywhere.
    status, output, errors = launch('sample', f'--save_dir={run}', '--nsamples=2', '--temperature=0.7', '--seed=1')
    assert (status, errors, output.count('▸')) == (0, '', 2)
