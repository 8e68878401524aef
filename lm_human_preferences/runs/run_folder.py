"""The folder of a run: the names of its files, and the hyperparameters of its command.

    train_COMMAND_hparams.json      hyperparameters; a run of train_policy may hold those of its new reward model, too
    policy/, reward_model/          trained models, each with its checkpoints
    training/, model/               train_lm: the model in training with its checkpoints, and the finished model
    tb/{ppo,reward_model,lm}/       statistics for TensorBoard, and as JSON in statistics.jsonl
    samples.jsonl                   responses before and after training
    evaluation.json, evaluation_samples.jsonl, report.html
    .secrets.json                   what the URLs in the files above lack: passwords and signatures; never copied
    online/                         labels collected while the policy trains, and the reward model trainings on them

Every file name of a run is defined here. The files in a folder of checkpoints are described in `checkpoint_files`.
"""

import functools
import os
import re
import sys
from typing import Dict, List, Optional, Sequence, Union

from lm_human_preferences.hyperparameters import TREES, TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.text import shared

POLICY = 'policy'
REWARD_MODEL = 'reward_model'
LM_TRAINING = 'training'
LM = 'model'
# The models that each command trains, in order. Each folder holds the checkpoints from which the command resumes.
STAGES = {'train_reward': [REWARD_MODEL], 'train_policy': [REWARD_MODEL, POLICY], 'train_lm': [LM_TRAINING]}
CHECKPOINTS = 'checkpoints'  # in the folder of a model

EVENTS = 'tb'
EVENT_FOLDERS = ('ppo', 'reward_model', 'lm')  # in EVENTS, one for each kind of training
STATISTICS_FILE = 'statistics.jsonl'  # in each of these
TRACKERS_FILE = 'trackers.json'  # beside it: what the trackers know the training by

SAMPLES_FILE = 'samples.jsonl'  # of training: responses to the queries of the first batch
HELD_OUT_SAMPLES_FILE = 'evaluation_samples.jsonl'  # of an evaluation: responses to held-out queries
RESULTS_FILE = 'evaluation.json'
REPORT_FILE = 'report.html'
_SECRETS_FILE = '.secrets.json'

ONLINE = 'online'
ONLINE_LABELS = os.path.join(ONLINE, 'labels')
PEOPLES_LABELS = os.path.join(ONLINE_LABELS, '1-people.json')

_WRITTEN_BY_RUNS = re.compile(
    '|'.join(
        re.escape(name)
        for name in (POLICY, REWARD_MODEL, LM_TRAINING, LM, EVENTS, ONLINE)
        + (SAMPLES_FILE, HELD_OUT_SAMPLES_FILE, RESULTS_FILE, REPORT_FILE)
    )
    + r'|train_[a-z]+_hparams\.json|\.secrets\.json|\..*\.partial'
)


MEND_HPARAMS = 'mend this file, or remove it and give the command of this run again, which writes it'


def is_written_by_runs(name: str) -> bool:
    """Return whether a run writes a file or folder of this name into its folder."""
    return _WRITTEN_BY_RUNS.fullmatch(name) is not None


def hparams_file(folder: str, command: str) -> str:
    """Return the path of the hyperparameters of a command in the folder of a run."""
    return storage.join(folder, f'{command}_hparams.json')


def command_of(folder: str) -> Optional[str]:
    """Return the command whose run is in a local folder, or None.

    A run of train_policy may hold the hyperparameters of train_reward, too: those of its new reward model. A model that
    only one command trains tells this command, even if its hyperparameters were removed.
    """
    signs = {'train_policy': POLICY, 'train_lm': LM_TRAINING}
    for command in ('train_policy', 'train_lm', 'train_reward'):
        if os.path.exists(hparams_file(folder, command)):
            return command
        if command in signs and os.path.exists(os.path.join(folder, signs[command], CHECKPOINTS)):
            return command
    return None


def save_hparams(folder: str, hparams: HParams) -> None:
    """Write the hyperparameters of a run into its folder; the secrets in URLs into a file that only its owner reads."""
    command = next(name for name, tree in TREES.items() if type(hparams) is tree)
    write_json(hparams_file(folder, command), hparams.to_shared_dict())
    before = _read_secrets(folder)
    secrets = {**before, command: hparams.secrets()}
    secrets = {command: values for command, values in secrets.items() if values}
    if secrets != before:
        write_json(os.path.join(folder, _SECRETS_FILE), secrets, private=True)


def restore_secrets(folder: str, hparams: HParams) -> None:
    """Complete the URLs in the hyperparameters of a run, read from its folder, by the secrets that it was given.

    A remote folder, and one that was copied without them, has no secrets.
    """
    command = next(name for name, tree in TREES.items() if type(hparams) is tree)
    if not storage.is_remote(folder):
        hparams.restore(_read_secrets(folder).get(command, {}))


def _read_secrets(folder: str) -> Dict[str, Dict[str, str]]:
    """Return secrets by command and dotted name. ValueError if the file is damaged."""
    path = os.path.join(folder, _SECRETS_FILE)
    if not os.path.exists(path):
        return {}
    secrets = read_json(path)
    values = secrets.values() if isinstance(secrets, dict) else [None]
    if not all(isinstance(value, dict) and all(isinstance(text, str) for text in value.values()) for value in values):
        raise ValueError(f'{path} is damaged: remove it, and give its URLs on the command line again')
    return secrets


class RunFolder:
    """The folder of a run of `train_policy` or `train_reward`: a path, gs://… or https://…."""

    def __init__(self, path: str):
        """Read the hyperparameters. FileNotFoundError if `path` is not the folder of such a run."""
        self.path = storage.expanded(path)
        self.hparams: Union[TrainPolicyHParams, TrainRewardHParams] = _read_hparams(self.path)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(os.path.normpath(shared(self.path)))

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
            if not reason and command_of(folder) == command:
                lost = hparams_file(folder, command)
                raise FileNotFoundError(f'{lost} is missing: the command of this run writes it again') from None
        else:
            try:
                hparams = TREES[command].from_json_file(
                    file,
                    amend=_name_one_reward_model,
                    pass_over=functools.partial(_note_unknown, hparams_file(folder, command)),
                )
            except ValueError as error:
                raise ValueError(f'{error}: {MEND_HPARAMS}') from None
            restore_secrets(folder, hparams)
            return hparams
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
    paths = shared(paths)
    parts = [os.path.normpath(path).split(os.sep) for path in paths]
    longest = max(len(part) for part in parts)
    for count in range(1, longest + 1):
        names = ['/'.join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(paths)):
            return names
    return list(paths)
