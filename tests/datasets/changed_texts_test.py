"""A data set that has another number of texts when a run resumes: the run goes on, and says so in one line."""

import contextlib

import pytest

from lm_human_preferences import train_lm, train_policy
from lm_human_preferences.runs import preemption

POLICY = {
    'task.query_length': 2,
    'task.response_length': 3,
    'task.policy.initial_model': 'test',
    'rewards.trained_model': 'test',
    'ppo.batch_size': 8,
    'ppo.total_episodes': 24,
    'run.seed': 1,
}
LANGUAGE_MODEL = {
    'model.n_vocab': 260,
    'model.n_ctx': 12,
    'model.n_embd': 8,
    'model.n_head': 2,
    'model.n_layer': 1,
    'sequence_length': 4,
    'batch_size': 2,
    'epochs': 1,
    'run.seed': 1,
}


@pytest.fixture
def train_until(monkeypatch):
    """Return a function that trains a stage for one step and is then asked to end, or to the end."""

    def run(stage, hparams, ends):
        with monkeypatch.context() as asked, contextlib.suppress(preemption.Preempted):
            asked.setattr(preemption, 'requested', lambda: not ends)
            stage.train(hparams)

    return run


@pytest.mark.parametrize(
    'stage, values, name, added',
    [(train_policy, POLICY, 'task.query_dataset', 20), (train_lm, LANGUAGE_MODEL, 'dataset', -20)],
)
def test_another_number_of_texts_is_said_once(stage, values, name, added, tmp_path, train_until, capsys):
    texts = tmp_path / 'texts.txt'
    texts.write_text('ab.cd.ef\n' * 100)
    hparams = stage.HParams()
    hparams.override_from_dict({**values, name: f'text:{texts}', 'run.save_dir': str(tmp_path / 'run')})
    train_until(stage, hparams, ends=False)
    assert 'saved after step 1 ' in capsys.readouterr().out
    texts.write_text('ab.cd.ef\n' * (100 + added))
    line = (
        f"the data set 'text:{texts}' has {90 + added * 9 // 10} texts, and had 90 when step 1 was saved: "
        'from here on the texts come in another order'
    )
    for ends, expected in ((False, [line]), (True, [])):
        train_until(stage, hparams, ends)
        printed = capsys.readouterr().out
        assert 'resuming after step' in printed
        assert [line for line in printed.splitlines() if line.startswith('the data set')] == expected


def test_a_resumed_language_model_keeps_its_vocabulary(tmp_path, train_until, capsys):
    """Other texts would give another one. It is that of the run, even if its initial model is gone."""
    texts, run = tmp_path / 'texts.txt', tmp_path / 'run'
    texts.write_text('ab.cd.ef\n' * 100)
    hparams = train_lm.HParams()
    hparams.override_from_dict({**LANGUAGE_MODEL, 'dataset': f'text:{texts}', 'run.save_dir': str(run)})
    train_until(train_lm, hparams, ends=False)
    saved = {name: (run / 'model' / name).read_text() for name in ('encoder.json', 'vocab.bpe', 'hparams.json')}
    texts.write_text('xy?zz?xy\n' * 100)
    capsys.readouterr()
    train_until(train_lm, hparams, ends=True)
    assert 'resuming after step 1' in capsys.readouterr().out
    assert saved == {name: (run / 'model' / name).read_text() for name in saved}
    from_it = train_lm.HParams()
    values = {'dataset': f'text:{texts}', 'run.seed': 1, 'initial_model': str(run), 'sequence_length': 4}
    from_it.override_from_dict({**values, 'batch_size': 2, 'run.save_dir': str(tmp_path / 'second')})
    train_until(train_lm, from_it, ends=False)
    run.rename(tmp_path / 'moved')
    train_until(train_lm, from_it, ends=True)
    assert 'resuming after step 1' in capsys.readouterr().out
    assert saved['encoder.json'] == (tmp_path / 'second' / 'model' / 'encoder.json').read_text()


def test_a_run_without_its_vocabulary_learns_no_other(tmp_path, train_until):
    texts, run = tmp_path / 'texts.txt', tmp_path / 'run'
    texts.write_text('ab.cd.ef\n' * 100)
    hparams = train_lm.HParams()
    hparams.override_from_dict({**LANGUAGE_MODEL, 'dataset': f'text:{texts}', 'run.save_dir': str(run)})
    train_until(train_lm, hparams, ends=False)
    (run / 'model' / 'vocab.bpe').unlink()
    with pytest.raises(FileNotFoundError, match='vocab.bpe is missing'):
        train_lm.train(hparams)
