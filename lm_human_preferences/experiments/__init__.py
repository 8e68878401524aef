"""Experiments: definition files in YAML, and the trials that they describe.

A file has these sections. All but one command are optional.

    description: one line for --help
    extends: sentiment               # a name, or a path relative to this file
    run: {seed: 1}                   # shared by the commands
    task: {query_length: 64, …}      # shared by the commands
    train_reward: {batch_size: 32, …}
    train_policy: {ppo: {lr: 1e-5}, …}
    train_lm: {dataset: books, …}
    evaluate: {num_queries: 512, …}  # what to measure when train_policy is finished

The section of a command holds hyperparameters of that command's tree. `train_policy` trains a new reward model from
`task` and `train_reward`, unless its section says otherwise.

`sweep: {ppo.lr: [1e-5, 2e-5], run.seed: [1, 2]}` in the section of a command gives fields several values. Each
combination is a trial.

`extends` takes all sections of another experiment and changes what this file sets, field by field. null switches off a
group of hyperparameters, or the section `evaluate`. A sweep is replaced as a whole.

`evaluate` holds hyperparameters of the command `evaluate`, without `run`. It measures the run's policy and its initial
policy, unless `policies` names others. The run is finished even if it cannot be measured.
"""

from typing import Any, Dict, List, NamedTuple, Optional

from lm_human_preferences.experiments.definitions import SHARED, TRAIN_COMMANDS, Definition, find, names, read
from lm_human_preferences.experiments.sweeps import descriptors, points_of
from lm_human_preferences.hyperparameters import TREES, EvaluateHParams
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.hyperparams import HParams

__all__ = ['Experiment', 'Trial', 'load', 'names']

_NEW_MODEL = 'rewards.train_new_model'


class Trial(NamedTuple):
    """One run of a command. Its descriptor differs from those of the sweep's other trials; '' without a sweep."""

    descriptor: str
    hparams: HParams


def load(name_or_path: str) -> 'Experiment':
    """Read an experiment of this package by its name, or a user's definition file by its path.

    A path has a '/' or ends in '.yaml'. Raises UserError for an unknown name and for a mistake in a file.
    """
    return Experiment(name_or_path, read(name_or_path, find(name_or_path)))


class Experiment:
    """A definition, and the trees of hyperparameters that it gives."""

    def __init__(self, name: str, definition: Definition):
        self.name = name
        self.description = definition.description
        self._values = definition.values
        self._sweeps = definition.sweeps

    def trials(self, command: str, overrides: Dict[str, str]) -> List[Trial]:
        """Return the trials of a command, with its hyperparameters overridden by flags (dotted name → text).

        A flag takes its field out of the sweep. If a new reward model is trained, `task.X` also sets the task of that
        model. Raises UserError if the file has no section for the command, and the errors of HParams for a flag.
        """
        if command not in self._values:
            known = ', '.join(key for key in self._values if key in TRAIN_COMMANDS) or 'no command'
            raise UserError(f'experiment {self.name} does not define {command}: it defines {known}')
        overrides = TREES[command].renamed(overrides)
        swept = self._sweeps.get(command, {})
        try:
            points = points_of({name: values for name, values in swept.items() if name not in overrides})
        except ValueError as error:
            raise UserError(f'{self.name}: {command}: {error}') from error
        return [
            Trial(descriptor, self._hparams(command, point, overrides))
            for descriptor, point in zip(descriptors(points), points)
        ]

    def evaluation(self, run: str) -> Optional[EvaluateHParams]:
        """Return what to measure when the run of `train_policy` in the folder `run` is finished; None: nothing.

        Raises UserError if the values of the section `evaluate` do not fit together.
        """
        if self._values.get('evaluate') is None:
            return None
        hparams = EvaluateHParams()
        hparams.override_from_dict(self._values['evaluate'])
        hparams.run = run
        if not hparams.policies:  # given labels alone, the command `evaluate` measures no policies
            hparams.policies = ['initial', run]
        try:
            hparams.validate()
        except (TypeError, ValueError) as error:
            raise UserError(f'{self.name}: evaluate: {error}') from error
        return hparams

    def _may_train_new_model(self, command: str) -> bool:
        return command == 'train_policy' and 'train_reward' in self._values

    def _defaults(self, command: str) -> HParams:
        """Return the tree of a command as the file has it, without its sweep."""
        hparams = TREES[command]()
        for group in SHARED:
            if group in hparams.tree():
                hparams.override_from_nested_dict({group: self._values.get(group, {})})
        hparams.override_from_dict(self._values[command])
        if self._may_train_new_model(command) and hparams.rewards.trained_model is None:
            hparams.rewards.train_new_model = self._defaults('train_reward')
            hparams.override_from_dict(self._values[command])  # which may change the new model, or switch it off
        return hparams

    def _hparams(self, command: str, point: Dict[str, Any], overrides: Dict[str, str]) -> HParams:
        """Return the tree of one trial: the file's values, then those of the sweep, then the flags'."""
        hparams = self._defaults(command)
        given = {**point, **overrides}
        mentioned = any((name + '.').startswith(_NEW_MODEL + '.') for name in given)
        if self._may_train_new_model(command) and mentioned and hparams.rewards.train_new_model is None:
            # It is off in the file. If it is switched on now, it has the values of `train_reward`.
            hparams.rewards.train_new_model = self._defaults('train_reward')
        hparams.override_from_dict(point)
        hparams.override_from_str_dict(overrides)
        if command == 'train_policy' and hparams.rewards.train_new_model is not None:
            follow = {n for n in given if n.startswith('task.') and f'{_NEW_MODEL}.{n}' not in given}
            new_model = hparams.rewards.train_new_model
            new_model.override_from_dict({n: value for n, value in point.items() if n in follow})
            new_model.override_from_str_dict({n: text for n, text in overrides.items() if n in follow})
        return hparams
