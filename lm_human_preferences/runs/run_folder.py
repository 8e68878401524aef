"""The folder of a finished or running run: which command wrote it, and its hyperparameters."""

import os
from typing import List, Optional, Sequence, Tuple, Union

from lm_human_preferences.hyperparameters import TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.remote import storage

HPARAMS_FILES = {
    'train_policy_hparams.json': TrainPolicyHParams,
    'train_reward_hparams.json': TrainRewardHParams,
}


class RunFolder:
    """The folder of a run of `train_policy` or `train_reward`: a path, gs://… or https://…."""

    def __init__(self, path: str):
        """FileNotFoundError for a folder that is none of a run."""
        self.path = storage.expanded(path)
        name, file = _hparams_file(self.path)
        self.hparams: Union[TrainPolicyHParams, TrainRewardHParams] = HPARAMS_FILES[name].from_json_file(
            file, amend=_name_one_reward_model
        )

    @property
    def name(self) -> str:
        return os.path.basename(os.path.normpath(self.path))

    @property
    def has_policy(self) -> bool:
        return isinstance(self.hparams, TrainPolicyHParams)

    @property
    def task(self) -> TaskHParams:
        """The task the run was trained on."""
        return self.hparams.task

    @property
    def reward_hparams(self) -> Optional[TrainRewardHParams]:
        """How the run trained its reward model; None where it was given one."""
        return self.hparams.rewards.train_new_model if self.has_policy else self.hparams


def _name_one_reward_model(hparams: Union[TrainPolicyHParams, TrainRewardHParams]) -> None:
    """The code of 2019 wrote down both how it had trained a new reward model and where it had put that."""
    if isinstance(hparams, TrainPolicyHParams) and hparams.rewards.train_new_model is not None:
        hparams.rewards.trained_model = None


def _hparams_file(path: str) -> Tuple[str, str]:
    """Which of HPARAMS_FILES the folder of a run holds, and the local path of that file."""
    for name in HPARAMS_FILES:
        try:
            return name, storage.local_file(storage.join(path, name))
        except storage.NOT_THERE as error:
            reason = f' ({error})' if storage.is_remote(path) else ''
    raise FileNotFoundError(f'{path}: not the folder of a run: there is no {" or ".join(HPARAMS_FILES)}{reason}')


def short_names(paths: Sequence[str]) -> List[str]:
    """The shortest ends of paths that still tell them apart: runs/a/x, runs/b/x → a/x, b/x."""
    parts = [os.path.normpath(path).split(os.sep) for path in paths]
    longest = max(len(part) for part in parts)
    for count in range(1, longest + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)
