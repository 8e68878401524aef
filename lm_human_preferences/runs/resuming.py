"""The folder of a run: owned by one process at a time, gone on with by the same run, begun anew only on demand."""

import contextlib
import functools
import os
import re
import shutil
from typing import Any, Dict, Iterator, Optional

from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.remote import mirror
from lm_human_preferences.remote.storage import is_remote
from lm_human_preferences.runs.checkpoint_files import last_state
from lm_human_preferences.runs.journal import journal_path
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.locks import locked

# The folders that each command saves checkpoints in from which to go on, in the order in which it fills them.
STAGES = {'train_reward': ['reward_model'], 'train_policy': ['reward_model', 'policy'], 'train_lm': ['training']}
REPORT_FILE = 'report.html'
ONLINE_FOLDER = 'online'  # labels collected while the policy trains, and the reward model trainings on them
PEOPLES_LABELS = os.path.join(ONLINE_FOLDER, 'labels', '1-people.json')
RESUME = ('on', 'off', 'overwrite')
# What a run may be given anew when it goes on: how long it is, and how often it reports and saves.
_LENGTH = re.compile(r'(ppo\.total_episodes|epochs)\Z')
_MAY_CHANGE = re.compile(
    _LENGTH.pattern
    + r'|(.*\.)?(run\.(log_interval|save_interval|save_dir)|labels\.schedule\.(num_ahead|instructions|port))\Z'
)
# All that a run writes, for --resume=overwrite: nothing else in the folder is ours to remove.
_CONTENTS = re.compile(
    r'(policy|reward_model|model|training|online|tb|(evaluation_)?samples\.jsonl|evaluation\.json|report\.html|'
    r'train_[a-z]+_hparams\.json|\..*\.partial)\Z'
)


@contextlib.contextmanager
def claimed(folder: str) -> Iterator[None]:
    """Hold a run's folder, made if need be, for this process; the claim ends with it, however it ends.

    UserError where another process has it, or where it cannot be written.
    """
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            stack.enter_context(locked(os.path.join(folder, 'run'), wait=False))
        except BlockingIOError:
            raise UserError(f'{folder}: this run is going on in another process: give another NAME') from None
        except OSError as error:
            raise UserError(f'cannot write to {folder}: {error.strerror}; give another --save_dir') from error
        yield


def hparams_file(folder: str, command: str) -> str:
    """Where the folder of a run keeps the hyperparameters of a command."""
    return os.path.join(folder, f'{command}_hparams.json')


def command_of(folder: str) -> Optional[str]:
    """The command whose run a folder holds, if any; a policy's holds that of its new reward model, too."""
    commands = ('train_policy', 'train_reward', 'train_lm')
    return next((command for command in commands if os.path.exists(hparams_file(folder, command))), None)


def save_hparams(folder: str, hparams: HParams) -> None:
    """Write the hyperparameters of a run into its folder."""
    command = next(name for name, tree in TREES.items() if type(hparams) is tree)
    write_json(hparams_file(folder, command), hparams.to_nested_dict())


def check_owner(command: str, folder: str) -> None:
    """Refuse (UserError) a folder that holds a run of another command, or that lies within the folder of a run."""
    owner = command_of(folder)
    if owner not in (None, command):
        raise UserError(f'{folder} holds a run of {owner}: give another NAME')
    parent = os.path.dirname(os.path.abspath(folder))
    while parent != os.path.dirname(parent):
        if command_of(parent):
            raise UserError(f'{folder} lies within the run {parent}: give another NAME or --save_dir')
        parent = os.path.dirname(parent)


def unused_name(save_dir: str, name: str) -> str:
    """`name`, or the first of NAME-2, NAME-3 … that has no run in `save_dir`."""
    number, candidate = 1, name
    while _is_used(os.path.join(save_dir, candidate)):
        number += 1
        candidate = f'{name}-{number}'
    return candidate


def clear(folder: str) -> None:
    """Remove what a run wrote to its folder; UserError if people's labels are there, which no run can make again."""
    journal = os.path.join(folder, journal_path(PEOPLES_LABELS))
    if os.path.exists(journal):
        with open(journal, encoding='utf-8') as file:
            if '"kind": "answer"' in file.read():
                raise UserError(f'{journal} holds labels that people gave: move it away first, or give another NAME')
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if _CONTENTS.match(name):
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)


def is_finished(command: str, hparams: HParams, num_ranks: int) -> bool:
    """Whether the run in `hparams.run.save_dir` has nothing left to do.

    UserError where a run is there that is not this one, so that it cannot go on.
    """
    folder = hparams.run.save_dir
    states = [last_state(os.path.join(folder, stage)) for stage in STAGES[command]]
    begun = [state for state in states if state]
    if not begun:
        return False
    check_same_ranks(begun[-1]['ranks'], num_ranks, folder)
    begun_with = hparams_file(folder, command)
    if os.path.exists(begun_with):
        saved = type(hparams)()
        try:
            saved.override_from_json_file(begun_with)
        except AttributeError as error:
            raise UserError(str(error)) from error
        _refuse_other_values(saved, hparams)
    if not states[-1]:
        return False
    # The file may be of a longer run that was killed before it saved a step: the checkpoint tells how far it is.
    last = check_same_run(states[-1]['hparams'], hparams)
    lengths = filter(_LENGTH.match, last.differences(hparams))
    return states[-1]['finished'] and not any(_value(hparams, name) > _value(last, name) for name in lengths)


def _value(hparams: HParams, name: str) -> int:
    return functools.reduce(getattr, name.split('.'), hparams)


def check_same_run(saved: Dict[str, Any], now: HParams) -> HParams:
    """The tree of hyperparameters that a run saved, `saved` being what `to_nested_dict` gave then.

    UserError that names those of `now` with which it cannot go on.
    """
    begun = type(now)()
    try:
        begun.override_from_nested_dict(saved)
    except (AttributeError, ValueError) as error:
        raise UserError(f'{now.run.save_dir} holds a run of another kind ({error}): give another NAME') from error
    _refuse_other_values(begun, now)
    return begun


def _refuse_other_values(begun: HParams, now: HParams) -> None:
    refused = [name for name in begun.differences(now) if not _MAY_CHANGE.match(name)]
    if refused:
        raise UserError(
            f'{now.run.save_dir} holds a run with other values of {", ".join(refused)}: '
            'give the same to go on with it, or another NAME'
        )


def check_same_ranks(begun: int, now: int, folder: Optional[str]) -> None:
    """Refuse to go on with a run on another number of ranks, each of which has a share of queries and labels."""
    if begun != now:
        raise UserError(f'{folder} holds a run on {begun} rank(s), not {now}: give --mpi={begun} to go on with it')


def _is_used(folder: str) -> bool:
    if is_remote(folder):
        return mirror.is_used(folder)
    return os.path.isdir(folder) and any(not name.startswith('.') for name in os.listdir(folder))
