"""Whether a command may resume the run in a folder: only with the hyperparameters and ranks that the run began with."""

import functools
import os
import re
from typing import Any, Dict, List, Optional

from lm_human_preferences.runs.checkpoint_files import last_state
from lm_human_preferences.runs.run_folder import MEND_HPARAMS, STAGES, hparams_file, restore_secrets
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.progress import say

RESUME = ('on', 'off', 'overwrite')
# A resumed run may change these hyperparameters: its length, how often it reports and saves, and how many episodes go
# through the models at a time. (That is memory against time; the outcome is the same but for the rounding of sums.)
_LENGTH = re.compile(r'(ppo\.total_episodes|epochs)\Z')
_MAY_CHANGE = re.compile(
    _LENGTH.pattern
    + r'|ppo\.(rollout_batch_size|microbatch_size)'
    + r'|(.*\.)?(run\.(log_interval|save_interval|save_dir)|labels\.schedule\.(num_ahead|instructions|port))\Z'
)


def is_finished(command: str, hparams: HParams, num_ranks: int) -> bool:
    """Return whether the run in `hparams.run.save_dir` has nothing left to do.

    A run that was begun before a hyperparameter existed goes on as it began: `hparams` gets the value of that time.
    UserError if another run is there, so that this one cannot resume.
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
            held = saved.override_from_json_file(begun_with, amend=_with_older_values)
            restore_secrets(folder, saved)
            adopted = _adopt_older_values(saved, hparams, held)
        except (AttributeError, ValueError) as error:
            raise UserError(f'{error}: {MEND_HPARAMS}') from error
        for name in adopted:
            say(f'{folder} was begun before {name} existed: it goes on with {_value(hparams, name)}')
        _refuse_other_values(saved, hparams)
    if not states[-1]:
        return False
    # The file may describe a longer run that was killed before its first save. So the checkpoint says how far it is.
    last = check_same_run(states[-1]['hparams'], hparams)
    lengths = filter(_LENGTH.match, last.differences(hparams))
    return states[-1]['finished'] and not any(_value(hparams, name) > _value(last, name) for name in lengths)


def _value(hparams: HParams, name: str) -> Any:
    return functools.reduce(getattr, name.split('.'), hparams)


def check_same_run(saved: Dict[str, Any], now: HParams) -> HParams:
    """Return the hyperparameters that a run saved; `saved` is the result of `to_nested_dict` at that time.

    Hyperparameters that did not exist then are set in `now` to what the run did. UserError that names the values of
    `now` with which the run cannot resume.
    """
    begun = type(now)()
    try:
        begun.override_from_nested_dict(_with_older_values(saved))
        begun.check_types()
        _adopt_older_values(begun, now, saved)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f'{now.run.save_dir} holds a run of another kind ({error}): give another NAME') from error
    _refuse_other_values(begun, now)
    return begun


def _with_older_values(saved: Dict[str, Any]) -> Dict[str, Any]:
    """Return saved hyperparameters with what runs did before a field existed, where they lack that field."""
    values = {key: _with_older_values(value) if isinstance(value, dict) else value for key, value in saved.items()}
    if 'normalize_samples' in values:
        values.setdefault('normalize_truncated', True)
    return values


def _adopt_older_values(begun: HParams, now: HParams, saved: Dict[str, Any]) -> List[str]:
    """Set in `now` what `_with_older_values` adds to `saved`, which `begun` has; return the names that this changes."""
    added = set(now.flattened(_with_older_values(saved))) - set(now.flattened(saved))
    names = sorted(added.intersection(begun.differences(now)))
    now.override_from_dict({name: _value(begun, name) for name in names})
    return names


def _refuse_other_values(begun: HParams, now: HParams) -> None:
    refused = [name for name in begun.differences(now) if not _MAY_CHANGE.match(name)]
    if refused:
        raise UserError(
            f'{now.run.save_dir} holds a run with other values of {", ".join(refused)}: '
            'give the same values to resume it, or give another NAME'
        )


def check_same_ranks(begun: int, now: int, folder: Optional[str]) -> None:
    """Refuse (UserError) to resume on another number of ranks: each rank has its share of queries and labels."""
    if begun != now:
        raise UserError(f'{folder} holds a run on {begun} rank(s), not {now}: give --mpi={begun} to resume it')
