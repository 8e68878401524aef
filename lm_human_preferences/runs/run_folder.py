"""The folder of a run: the names of its files, and the hyperparameters of its command.

    train_COMMAND_hparams.json      hyperparameters; a run of train_policy may hold those of its new reward model, too
    policy/, reward_model/          trained models, each with its checkpoints
    training/, model/               train_lm: the model in training with its checkpoints, and the finished model
    tb/{ppo,reward_model,lm}/       statistics for TensorBoard
    samples.jsonl                   responses before and after training
    evaluation.json, evaluation_samples.jsonl, report.html
    online/                         labels collected while the policy trains, and the reward model trainings on them

Every file name of a run is defined here. The files in a folder of checkpoints are described in `checkpoint_files`.
"""

import functools
import os
import re
import sys
from typing import List, Optional, Sequence, Union

from lm_human_preferences.hyperparameters import TREES, TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.hyperparams import HParams

POLICY = 'policy'
REWARD_MODEL = 'reward_model'
LM_TRAINING = 'training'
LM = 'model'
# The models that each command trains, in order. Each folder holds the checkpoints from which the command resumes.
STAGES = {'train_reward': [REWARD_MODEL], 'train_policy': [REWARD_MODEL, POLICY], 'train_lm': [LM_TRAINING]}
CHECKPOINTS = 'checkpoints'  # in the folder of a model

EVENTS = 'tb'
EVENT_FOLDERS = ('ppo', 'reward_model', 'lm')  # in EVENTS, one for each kind of training

SAMPLES_FILE = 'samples.jsonl'  # of training: responses to the queries of the first batch
HELD_OUT_SAMPLES_FILE = 'evaluation_samples.jsonl'  # of an evaluation: responses to held-out queries
RESULTS_FILE = 'evaluation.json'
REPORT_FILE = 'report.html'

ONLINE = 'online'
ONLINE_LABELS = os.path.join(ONLINE, 'labels')
PEOPLES_LABELS = os.path.join(ONLINE_LABELS, '1-people.json')

_WRITTEN_BY_RUNS = re.compile(
    '|'.join(
        re.escape(name)
        for name in (POLICY, REWARD_MODEL, LM_TRAINING, LM, EVENTS, ONLINE)
        + (SAMPLES_FILE, HELD_OUT_SAMPLES_FILE, RESULTS_FILE, REPORT_FILE)
    )
    + r'|train_[a-z]+_hparams\.json|\..*\.partial'
)


def is_written_by_runs(name: str) -> bool:
    """Return whether a run writes a file or folder of this name into its folder."""
    return _WRITTEN_BY_RUNS.fullmatch(name) is not None


def hparams_file(folder: str, command: str) -> str:
    """Return the path of the hyperparameters of a command in the folder of a run."""
    return storage.join(folder, f'{command}_hparams.json')


def command_of(folder: str) -> Optional[str]:
    """Return the command whose run is in a local folder, or None.

    A run of train_policy may hold the hyperparameters of train_reward, too: those of its new reward model.
    """
    commands = ('train_policy', 'train_reward', 'train_lm')
    return next((command for command in commands if os.path.exists(hparams_file(folder, command))), None)


def save_hparams(folder: str, hparams: HParams) -> None:
    """Write the hyperparameters of a run into its folder."""
    command = next(name for name, tree in TREES.items() if type(hparams) is tree)
    write_json(hparams_file(folder, command), hparams.to_nested_dict())


class RunFolder:
    """The folder of a run of `train_policy` or `train_reward`: a path, gs://… or https://…."""

    def __init__(self, path: str):
        """Read the hyperparameters. FileNotFoundError if `path` is not the folder of such a run."""
        self.path = storage.expanded(path)
        self.hparams: Union[TrainPolicyHParams, TrainRewardHParams] = _read_hparams(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(os.path.normpath(self.path))

    @property
    def has_policy(self) -> bool:
        """Whether the run trained a policy."""
        return isinstance(self.hparams, TrainPolicyHParams)

    @property
    def task(self) -> TaskHParams:
        """The task of the run."""
        return self.hparams.task

    @property
    def reward_hparams(self) -> Optional[TrainRewardHParams]:
        """How the run trained its reward model; None if it was given a trained one."""
        return self.hparams.rewards.train_new_model if self.has_policy else self.hparams


def _read_hparams(folder: str) -> Union[TrainPolicyHParams, TrainRewardHParams]:
    commands = ('train_policy', 'train_reward')
    for command in commands:
        try:
            file = storage.local_file(hparams_file(folder, command))
        except storage.NOT_THERE as error:
            reason = f' ({error})' if storage.is_remote(folder) else ''
        else:
            return TREES[command].from_json_file(
                file,
                amend=_name_one_reward_model,
                pass_over=functools.partial(_note_unknown, hparams_file(folder, command)),
            )
    names = ' or '.join(hparams_file('', command) for command in commands)
    raise FileNotFoundError(f'{folder}: not the folder of a run: there is no {names}{reason}')


@functools.lru_cache(maxsize=None)  # one note, however often a command reads the file
def _note_unknown(path: str, name: str) -> None:
    print(f'note: {path}: {name} is unknown and has no effect', file=sys.stderr)


def _name_one_reward_model(hparams: Union[TrainPolicyHParams, TrainRewardHParams]) -> None:
    """Drop the path of a new reward model: the code of 2019 saved both how it was trained and where it was put."""
    if isinstance(hparams, TrainPolicyHParams) and hparams.rewards.train_new_model is not None:
        hparams.rewards.trained_model = None


def short_names(paths: Sequence[str]) -> List[str]:
    """Return the shortest ends of paths that distinguish them: runs/a/x, runs/b/x → a/x, b/x."""
    parts = [os.path.normpath(path).split(os.sep) for path in paths]
    longest = max(len(part) for part in parts)
    for count in range(1, longest + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)
