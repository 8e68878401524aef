"""Reading of definition files: their sections are checked, and merged with those of the experiment they extend."""

import math
import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode, Node

from lm_human_preferences.hyperparameters import TREES, EvaluateHParams, RunHParams, TaskHParams
from lm_human_preferences.utils import files
from lm_human_preferences.utils.errors import UserError, did_you_mean, short, user_message
from lm_human_preferences.utils.hyperparams import UNSET, Field, whole_number

TRAIN_COMMANDS = ['train_reward', 'train_policy', 'train_lm']
SHARED = ['run', 'task']
_EVALUATE = 'evaluate'
_TREES = {
    'run': RunHParams,
    'task': TaskHParams,
    _EVALUATE: EvaluateHParams,
    **{command: TREES[command] for command in TRAIN_COMMANDS},
}
LARGEST_FILE = 1 << 17  # bytes; the parser reads about 100 kB a second
MOST_VALUES = 20000  # of a file, with each alias (*name) and merge (<<) counted as often as it is used
_OFF = (None, False, 'off', 'f', 'false', 'False', *UNSET)  # the values that switch a group off

Values = Dict[str, Any]  # dotted name → value, as `HParams.flattened` gives it


class Definition(NamedTuple):
    """The content of a definition file."""

    description: str
    values: Dict[str, Optional[Values]]  # of each section; None: `evaluate` is switched off
    sweeps: Dict[str, Dict[str, List[Any]]]  # of each command's section: dotted name → values


def names() -> List[str]:
    """Return the names of this package's experiments."""
    entries = os.listdir(os.path.dirname(__file__))
    return sorted(entry[: -len('.yaml')] for entry in entries if entry.endswith('.yaml'))


def find(name_or_path: str) -> str:
    """Return the path of an experiment's file; UserError for an unknown name."""
    if _is_path(name_or_path):
        return name_or_path
    if name_or_path in names():
        return _path_of(name_or_path)
    known = ', '.join(names())
    raise UserError(f'no experiment {name_or_path!r}: give one of {known}, or the path of a .yaml file')


def read(name: str, path: str, extending: Tuple[str, ...] = ()) -> Definition:
    """Read a file and the experiments that it extends. UserError for a mistake, naming file and key.

    Args:
      name: of the experiment, for messages.
      extending: the files that extend this one, directly or through others.
    """
    sections = _read_yaml(path)
    base = sections.pop('extends', None)
    own = parse(name, sections)
    if base is None:
        return own
    base_name, base_path = _find_base(base, path)
    chain = (*extending, os.path.realpath(path))
    if os.path.realpath(base_path) in chain:
        raise UserError(f'{path}: extends: {base} extends this file, too')
    try:
        files.check_regular(base_path)
    except (OSError, ValueError) as error:
        reason = f'{base_path} not found' if isinstance(error, FileNotFoundError) else user_message(error)
        raise UserError(f'{path}: extends: {reason}') from error
    return _merged(read(base_name, base_path, chain), own)


def parse(name: str, sections: Dict[Any, Any]) -> Definition:
    """Check the sections of a file, and return them as values by dotted name."""
    values: Dict[str, Optional[Values]] = {}
    sweeps: Dict[str, Dict[str, List[Any]]] = {}
    for key, section in sections.items():
        if key == 'description':
            continue
        if key not in _TREES:
            near = did_you_mean(str(key), [*TRAIN_COMMANDS, *SHARED, _EVALUATE, 'description', 'extends'])
            raise UserError(f'{name}: unknown section {short(key)}: did you mean {near!r}?')
        if key == _EVALUATE and section is None:
            values[key] = None
            continue
        if not isinstance(section, dict):
            raise UserError(f'{name}: section {key!r} should hold hyperparameters, not {short(section)}')
        try:
            own = {field: value for field, value in section.items() if field != 'sweep' or key not in TRAIN_COMMANDS}
            values[key] = _checked(key, own)
            if 'sweep' in section and key in TRAIN_COMMANDS:
                sweeps[key] = _checked_sweep(key, values[key], section['sweep'])
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f'{name}: {key}: {error}') from error
    return Definition(sections.get('description', ''), values, sweeps)


def _checked(key: str, nested: Dict[str, Any]) -> Values:
    """Return the values of a section by dotted name; the errors of HParams for unknown fields and wrong types."""
    tree = _TREES[key].tree()
    values = {name: _of_field(tree.get(name), value) for name, value in _TREES[key].flattened(nested).items()}
    hparams = _TREES[key]()
    hparams.override_from_dict(values)
    hparams.check_types()
    if key == _EVALUATE and 'run' in values:
        raise ValueError('run cannot be set: the run is always the one that was trained')
    return values


def _checked_sweep(key: str, values: Values, sweep: Any) -> Dict[str, List[Any]]:
    if sweep is None:
        return {}
    if not isinstance(sweep, dict):
        raise ValueError(f'sweep should hold field: [value, ...], not {short(sweep)}')
    sweep = _TREES[key].renamed(sweep)
    tree = _TREES[key].tree()
    for name, choices in sweep.items():
        if isinstance(choices, list):
            choices = sweep[name] = [_of_field(tree.get(name), choice) for choice in choices]
        if not isinstance(choices, list) or not choices:
            raise ValueError(f'sweep: {name} should have a list of values, not {short(choices)}')
        for choice in choices:
            point = _TREES[key]()
            point.override_from_dict(values)
            point.override_from_dict({name: choice})
            point.check_types()
    return sweep


def _find_base(base: Any, path: str) -> Tuple[str, str]:
    """Return name and path of the experiment that the file at `path` extends."""
    if not isinstance(base, str):
        raise UserError(f'{path}: extends should be the name or the path of an experiment, not {short(base)}')
    if base in names():
        return base, _path_of(base)
    if not _is_path(base):
        raise UserError(f'{path}: extends: no experiment {short(base)}: give one of {", ".join(names())}, or a path')
    base_path = os.path.join(os.path.dirname(path), os.path.expanduser(base))
    return base_path, base_path


def _merged(base: Definition, own: Definition) -> Definition:
    """Return a definition with the values of `own`, and those of `base` that `own` does not replace."""
    values = dict(base.values)
    for key, section in own.values.items():
        inherited = base.values.get(key)
        if section is not None and inherited is not None:
            section = _merged_values(inherited, section, _TREES[key].tree())
        values[key] = section
    return Definition(own.description, values, {**base.sweeps, **own.sweeps})


def _merged_values(base: Values, own: Values, tree: Dict[str, Field]) -> Values:
    def is_off(values: Values, name: str) -> bool:
        return tree[name].is_group and values[name] in _OFF

    switched_off = [f'{name}.' for name in own if is_off(own, name)]
    kept = {}
    for name, value in base.items():
        switched_on = is_off(base, name) and any(other.startswith(f'{name}.') for other in own)
        if not switched_on and not name.startswith(tuple(switched_off)):
            kept[name] = value
    return {**kept, **own}


class _TooManyValues(Exception):
    """A file has more values than MOST_VALUES."""


class _WithExponent(float):
    """A float that the file writes as a whole number with an exponent, such as 1e6."""


class _Constructor(SafeConstructor):
    """Makes values of a file only if they are few. A file of 300 bytes can have millions, by aliases of aliases.

    Keeps in mind which numbers were written as 1e6.
    """

    def construct_document(self, node: Node) -> Any:
        if _num_values(node, {}) > MOST_VALUES:
            raise _TooManyValues()
        return super().construct_document(node)

    def construct_number(self, node: Node) -> float:
        number = self.construct_yaml_float(node)
        try:
            whole_number(node.value)
        except ValueError:
            return number
        return _WithExponent(number)


_Constructor.add_constructor('tag:yaml.org,2002:float', _Constructor.construct_number)


def _num_values(node: Node, known: Dict[Node, float]) -> float:
    """Return the number of values below a node. It is infinite if an alias stands for what it is itself in.

    Args:
      known: the numbers of the nodes that were counted.
    """
    if not isinstance(node, CollectionNode):
        return 1
    if node not in known:
        known[node] = math.inf  # for an alias below
        children = [child for entry in node.value for child in (entry if isinstance(entry, tuple) else [entry])]
        known[node] = 1 + sum(_num_values(child, known) for child in children)
    return known[node]


def _read_yaml(path: str) -> Dict[Any, Any]:
    try:
        text = files.read_text(path, LARGEST_FILE)
    except ValueError as error:
        raise UserError(str(error)) from error
    parser = YAML(typ='safe', pure=True)
    parser.Constructor = _Constructor
    try:
        sections = parser.load(text)
    except _TooManyValues:
        raise UserError(f'{path}: more than {MOST_VALUES} values, with its aliases (*name) written out') from None
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
        raise UserError(f'{path}: not YAML: {error}') from error  # the parser itself raises these for some texts
    if not isinstance(sections, dict):
        raise UserError(f'{path}: an experiment should hold sections, not {type(sections).__name__}')
    return sections


def _of_field(field: Optional[Field], value: Any) -> Any:
    """Return a file's value for a field: 1e6 is an int for a field that holds ints, and a float for others."""
    if isinstance(value, list):
        return [_of_field(field, item) for item in value]
    if isinstance(value, _WithExponent):
        return int(value) if field is not None and field.kind is int else float(value)
    return value


def _is_path(name_or_path: str) -> bool:
    return '/' in name_or_path or name_or_path.endswith('.yaml')


def _path_of(name: str) -> str:
    return os.path.join(os.path.dirname(__file__), f'{name}.yaml')
