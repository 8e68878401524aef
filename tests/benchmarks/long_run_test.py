"""Nothing grows with the number of steps; `benchmarks/soak.py` says it of memory and time too."""

import pytest

from benchmarks import soak
from lm_human_preferences import train_policy


@pytest.mark.slow
def test_neither_graph_nor_open_files_grow(monkeypatch, tmp_path):
    monkeypatch.setattr(train_policy, 'PPOTrainer', soak.WatchedTrainer)
    monkeypatch.setattr(soak.WatchedTrainer, 'measured', [])
    hparams = soak.hyperparameters(200, 1, str(tmp_path))
    hparams.override_from_dict({'run.save_interval': 5, 'run.log_interval': 1})
    train_policy.train(hparams)
    measured = soak.WatchedTrainer.measured
    assert len(measured) == 200
    assert len({nodes for *_, nodes in measured}) == 1
    files = [files for _, _, files, _ in measured]
    assert max(files[20:]) <= max(files[:20])
    kept = [name for name in (tmp_path / 'policy' / 'checkpoints').iterdir() if name.suffix == '.index']
    assert len(kept) == 20
