"""What the folder of a run holds: its hyperparameters, its policies and its reward model."""

import os
from typing import List, NamedTuple, Optional, Sequence, Tuple, Union

from lm_human_preferences.hyperparameters import TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.language.trained_models import TrainedModel, find_model, find_reward_model
from lm_human_preferences.utils import storage

INITIAL = 'initial'  # names the policy that a run's fine-tuning started from
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

    def policy(self, savescope: str = 'policy') -> TrainedModel:
        """The policy of the run, or with `ref_policy` the one that it started from."""
        if not self.has_policy:
            raise FileNotFoundError(f'{self.path}: not the folder of a policy: there is no train_policy_hparams.json')
        return find_model(storage.join(self.path, 'policy'), savescope)

    def reward_model(self) -> TrainedModel:
        """The reward model that the run trained, or was given: the one in its folder, if there is one."""
        given = self.hparams.rewards.trained_model if self.has_policy else None
        try:
            return find_reward_model(storage.join(self.path, 'reward_model'))
        except storage.NOT_THERE:
            if given is None:
                raise
        return find_reward_model(given)


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


class NamedPolicy(NamedTuple):
    """A policy by the name that tables show."""

    name: str
    trained: TrainedModel


def find_policies(names: Sequence[str], run: RunFolder, savescope: str = 'policy') -> List[NamedPolicy]:
    """The policies called `names`: run folders, names or folders of models, or `initial` for that of `run`.

    ValueError if they do not all read the same tokens.
    """
    policies = [
        NamedPolicy(short, run.policy('ref_policy') if name == INITIAL else find_policy(name, savescope))
        for short, name in zip(short_names(names), names)
    ]
    for policy in policies[1:]:
        if not policy.trained.encoding().same_tokens(policies[0].trained.encoding()):
            raise ValueError(f'the policies {names[0]} and {policy.name} have different vocabularies')
    return policies


def find_policy(name: str, savescope: str = 'policy') -> TrainedModel:
    """The policy of the run folder `name`, or the language model called so."""
    try:
        run = RunFolder(name)
    except FileNotFoundError:
        return find_model(name, savescope)
    return run.policy(savescope)


def short_names(paths: Sequence[str]) -> List[str]:
    """The shortest ends of paths that still tell them apart: runs/a/x, runs/b/x → a/x, b/x."""
    parts = [os.path.normpath(path).split(os.sep) for path in paths]
    longest = max(len(part) for part in parts)
    for count in range(1, longest + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)
