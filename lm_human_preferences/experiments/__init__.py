"""Experiments: definition files in YAML, one an experiment, and the trials they describe.

A file has the sections `run` and `task` (shared by the commands), and one for each command that it defines,
with the hyperparameters of that command's tree. `train_policy` trains a new reward model from `task` and
`train_reward`, unless its section says otherwise. In a command's section
`sweep: {ppo.lr: [1e-5, 2e-5], run.seed: [1, 2]}` binds fields to several values: each combination is a trial.
"""

import itertools
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lm_human_preferences.hyperparameters import TREES, EvaluateHParams, RunHParams, TaskHParams
from lm_human_preferences.utils import files
from lm_human_preferences.utils.errors import UserError, did_you_mean, short
from lm_human_preferences.utils.hyperparams import HParams

TRAIN_COMMANDS = ['train_reward', 'train_policy', 'train_lm']
_SHARED = {'run': RunHParams, 'task': TaskHParams}
_AFTER = {'evaluate': EvaluateHParams}  # what follows train_policy
_NEW_MODEL = 'rewards.train_new_model'
MOST_TRIALS = 1000  # of a sweep; more are a mistake


class Trial(NamedTuple):
    """One run of a command; the descriptor tells it from the other trials of a sweep ('' without one)."""

    descriptor: str
    hparams: HParams


def names() -> List[str]:
    """The experiments of this package."""
    entries = os.listdir(os.path.dirname(__file__))
    return sorted(entry[: -len('.yaml')] for entry in entries if entry.endswith('.yaml'))


def load(name_or_path: str) -> 'Experiment':
    """Read an experiment of this package by name, or a definition file of the user's own by path.

    A path has a '/' or ends in '.yaml'. Raises UserError for an unknown name and for what is wrong in a file.
    """
    if '/' in name_or_path or name_or_path.endswith('.yaml'):
        path = name_or_path
    elif name_or_path in names():
        path = os.path.join(os.path.dirname(__file__), name_or_path + '.yaml')
    else:
        known = ', '.join(names())
        raise UserError(f'no experiment {name_or_path!r}: give one of {known}, or the path of a .yaml file')
    return Experiment(name_or_path, _read_extended(path))


class Experiment:
    """The sections of a definition file, as trees of hyperparameters."""

    def __init__(self, name: str, sections: Dict[str, Any]):
        """`sections`: the file's content. Raises UserError naming file and key for what is wrong in it."""
        self.name = name
        self.description = sections.get('description', '')
        self._sections = {key: value for key, value in sections.items() if key != 'description'}
        for key, value in self._sections.items():
            if key not in TRAIN_COMMANDS and key not in _SHARED and key not in _AFTER:
                near = did_you_mean(str(key), [*TRAIN_COMMANDS, *_SHARED, *_AFTER, 'description', 'extends'])
                raise UserError(f'{name}: unknown section {short(key)}: did you mean {near!r}?')
            if not isinstance(value, dict):
                raise UserError(f'{name}: section {key!r} should hold hyperparameters, not {short(value)}')
        for key in [*_SHARED, *_AFTER, *TRAIN_COMMANDS]:
            try:
                self._check_section(key)
            except (AttributeError, TypeError, ValueError) as error:
                raise UserError(f'{name}: {key}: {error}') from error

    def trials(self, command: str, overrides: Dict[str, str]) -> List[Trial]:
        """The trials of a command, its hyperparameters overridden by flags (dotted name → text).

        A flag takes its field out of the sweep. Where a new reward model is trained, `task.X` also sets the
        reward model's. Raises UserError without a section for the command, and what HParams raise for a flag.
        """
        if command not in self._sections:
            known = ', '.join(key for key in self._sections if key in TRAIN_COMMANDS) or 'no command'
            raise UserError(f'experiment {self.name} does not define {command}: it defines {known}')
        sweep = {name: values for name, values in self._sweep(command).items() if name not in overrides}
        combinations = itertools.product(*sweep.values())
        points = [dict(zip(sweep, values)) for values in itertools.islice(combinations, MOST_TRIALS + 1)]
        if len(points) > MOST_TRIALS:
            raise UserError(f'{self.name}: {command}: sweep: the values make more than {MOST_TRIALS} trials')
        return [
            Trial(descriptor, self._hparams(command, point, overrides))
            for descriptor, point in zip(_descriptors(points), points)
        ]

    def evaluation(self, run: str) -> Optional[EvaluateHParams]:
        """What to measure when the run of `train_policy` in the folder `run` is finished; None: nothing.

        Raises ValueError where the section `evaluate` of the file does not fit together.
        """
        if 'evaluate' not in self._sections:
            return None
        hparams = EvaluateHParams()
        hparams.override_from_nested_dict(self._sections['evaluate'])
        hparams.run = run
        if not hparams.policies:  # with labels, the command measures policies only where it is asked to
            hparams.policies = ['initial', run]
        hparams.validate()
        return hparams

    def _check_section(self, key: str) -> None:
        groups = {**_SHARED, **_AFTER}
        if key in groups:
            shared = groups[key]()
            shared.override_from_nested_dict(self._sections.get(key, {}))
            shared.check_types()
        elif key in self._sections:
            self._defaults(key).check_types()
            for name, values in self._sweep(key).items():
                if not isinstance(values, list) or not values:
                    raise ValueError(f'sweep: {name} should have a list of values, not {short(values)}')
                for value in values:
                    point = self._defaults(key)
                    point.override_from_dict({name: value})
                    point.check_types()

    def _sweep(self, command: str) -> Dict[str, Any]:
        sweep = self._sections[command].get('sweep', {})
        if not isinstance(sweep, dict):
            raise ValueError(f'sweep should hold field: [value, ...], not {short(sweep)}')
        return sweep

    def _defaults(self, command: str) -> HParams:
        """The tree of a command as the file has it, without its sweep."""
        hparams = TREES[command]()
        shared = {key: self._sections.get(key, {}) for key in _SHARED if key in hparams.tree()}
        own = {key: value for key, value in self._sections[command].items() if key != 'sweep'}
        hparams.override_from_nested_dict(shared)
        hparams.override_from_nested_dict(own)
        may_train_new = command == 'train_policy' and 'train_reward' in self._sections
        if may_train_new and hparams.rewards.trained_model is None:
            hparams.rewards.train_new_model = self._defaults('train_reward')
            hparams.override_from_nested_dict(own)  # it may change the new model, or switch it off
        return hparams

    def _hparams(self, command: str, point: Dict[str, Any], overrides: Dict[str, str]) -> HParams:
        hparams = self._defaults(command)
        given = {**point, **overrides}
        switched = any((name + '.').startswith(_NEW_MODEL + '.') for name in given)
        may_train_new = command == 'train_policy' and 'train_reward' in self._sections
        if may_train_new and switched and hparams.rewards.train_new_model is None:
            # Off in the file, and a flag may switch it on.
            hparams.rewards.train_new_model = self._defaults('train_reward')
        hparams.override_from_dict(point)
        hparams.override_from_str_dict(overrides)
        if command == 'train_policy' and hparams.rewards.train_new_model is not None:
            follow = {n for n in given if n.startswith('task.') and f'{_NEW_MODEL}.{n}' not in given}
            new_model = hparams.rewards.train_new_model
            new_model.override_from_dict({n: value for n, value in point.items() if n in follow})
            new_model.override_from_str_dict({n: text for n, text in overrides.items() if n in follow})
        return hparams


def _read_extended(path: str, extending: Tuple[str, ...] = ()) -> Dict[str, Any]:
    """The sections of a file, with those of the experiment that it extends where it says nothing of its own."""
    sections = _read(path)
    base = sections.pop('extends', None)
    if base is None:
        return sections
    if not isinstance(base, str):
        raise UserError(f'{path}: extends should be the name or the path of an experiment, not {short(base)}')
    if base in names():
        base_path = os.path.join(os.path.dirname(__file__), base + '.yaml')
    elif '/' in base or base.endswith('.yaml'):
        base_path = os.path.join(os.path.dirname(path), os.path.expanduser(base))
    else:
        raise UserError(f'{path}: extends: no experiment {short(base)}: give one of {", ".join(names())}, or a path')
    chain = (*extending, os.path.realpath(path))
    if os.path.realpath(base_path) in chain:
        raise UserError(f'{path}: extends: {base} extends this file in turn')
    if not os.path.isfile(base_path):
        raise UserError(f'{path}: extends: {base_path} not found')
    inherited = _read_extended(base_path, chain)
    inherited.pop('description', None)
    return _merged(inherited, sections)


def _merged(base: Dict[str, Any], own: Dict[str, Any]) -> Dict[str, Any]:
    """`base` with the values of `own`: groups are merged field by field, anything else is replaced."""
    merged = dict(base)
    for key, value in own.items():
        both_groups = isinstance(value, dict) and isinstance(base.get(key), dict) and key != 'sweep'
        merged[key] = _merged(base[key], value) if both_groups else value
    return merged


def _read(path: str) -> Dict[str, Any]:
    try:
        text = files.read_text(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    try:
        sections = YAML(typ='safe', pure=True).load(text)
    except YAMLError as error:
        mark, problem = getattr(error, 'problem_mark', None), getattr(error, 'problem', None)
        where = f'{path}: line {mark.line + 1}' if mark else path
        reason = ' '.join(str(problem or error).split())
        raise UserError(f'{where}: not YAML: {reason}') from error
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(f'{path}: not YAML: {error}') from error  # what the parser itself stumbles over
    if not isinstance(sections, dict):
        raise UserError(f'{path}: an experiment should hold sections, not {type(sections).__name__}')
    return sections


def _descriptors(points: List[Dict[str, Any]]) -> List[str]:
    """A short name for each point of a sweep, unique and safe as a file name: 'lr1e-05-seed2'."""
    labels = {name: _suffix(name, list(points[0])) for name in points[0]}
    texts = ['-'.join(labels[name] + _safe(value) for name, value in point.items())[:100] for point in points]
    if len({text.lower() for text in texts}) < len(texts):
        texts = [f'{text}-{number}' for number, text in enumerate(texts, start=1)]
    return texts


def _suffix(name: str, swept: List[str]) -> str:
    """The shortest end of a dotted name that no other swept name has: 'ppo.lr' → 'lr'."""
    parts = name.split('.')
    suffixes = ['.'.join(parts[start:]) for start in reversed(range(len(parts)))]
    unique = [s for s in suffixes if sum(other == s or other.endswith('.' + s) for other in swept) == 1]
    return unique[0] if unique else name


def _safe(value: Any) -> str:
    return re.sub(r'[^A-Za-z0-9._-]', '_', str(value))[-24:]
