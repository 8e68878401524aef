"""A tree of hyperparameters: nested dataclasses whose fields are set, checked and printed by dotted name.

`lr: float = hparam(1e-4, 'Learning rate.')` declares a field with its default and its description. A field whose type
is an HParams class is a group, set through names such as 'ppo.lr'. An Optional group can be off (None). A field without
a sensible default has the default None, and `validate` asks for a value.

A field may have aliases: older names that still set it, as flags and in files. `RETIRED` names fields that a class had
once. Files may still hold them; they have no effect.
"""

import dataclasses
import functools
import sys
import typing
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, FrozenSet, Iterator, List, Optional, Sequence, TextIO, Tuple

from lm_human_preferences.utils.errors import did_you_mean, short
from lm_human_preferences.utils.hyperparams.values import (
    LIST_SEPARATOR,
    UNSET,
    Field,
    as_float,
    check_usable,
    holds,
    parse,
    shown,
    switch,
    whole_number,
)
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.text import same_source, shared

__all__ = ['LIST_SEPARATOR', 'UNSET', 'Field', 'HParams', 'hparam', 'whole_number']

_OFF = object()  # the value of a group that is off, in a flat view


def hparam(default: Any, description: str, aliases: Sequence[str] = ()) -> Any:
    """Return a dataclass field with a description and aliases.

    A default that is a class (a group, or `list`) is called for each new tree.
    """
    metadata = {'description': description, 'aliases': tuple(aliases)}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class UnsetError(TypeError):
    """A hyperparameter has no value, and needs one. The message asks for its flag."""

    def __init__(self, name: str, kind: str):
        super().__init__(f'{name} is not set: give --{name}=VALUE ({kind})')
        self.name = name
        self.kind = kind

    def in_file(self) -> str:
        """Return the message for a file of hyperparameters, which takes no flags."""
        return f'{self.name} is not set: the file must give it ({self.kind})'


@dataclass
class HParams:
    """Base class of groups. Fields are bool, int, float, str, another group, Optional of these, or a List of str."""

    RETIRED: ClassVar[Tuple[str, ...]] = ()

    @classmethod
    def tree(cls) -> Dict[str, Field]:
        """Return every field below this class by its dotted name; groups are entries too."""
        return dict(_tree(cls))

    @classmethod
    def renamed(cls, values: Dict[str, Any]) -> Dict[str, Any]:
        """Return values by dotted name with every alias replaced by the field's current name.

        Unknown names stay. Raises ValueError if a field is set by two names.
        """
        names, renamed, given = _names(cls), {}, {}
        for name, value in values.items():
            current = names.get(name, name)
            if current in renamed:
                raise ValueError(f'{current} is set twice: as {given[current]} and as {name}')
            renamed[current], given[current] = value, name
        return renamed

    @classmethod
    def flattened(cls, nested: Dict[str, Any]) -> Dict[str, Any]:
        """Return values by dotted name from nested dictionaries; a group that has a dictionary becomes True.

        Aliases become current names, and retired fields are left out. Raises ValueError for a field that is set twice.
        """
        return _flatten(nested, cls)

    def override_from_dict(self, values: Dict[str, Any], exact: bool = False) -> None:
        """Set fields from typed values by dotted name. If one value is refused, none is set.

        An optional group takes True/'on' and False/'off'/None. A child of it switches it on, in any order. The texts
        '', 'none', 'None' and 'null' leave an optional field without a value, unless the values are `exact`: those of
        another tree.
        Raises AttributeError for an unknown name. Raises ValueError for a group set to something else, for a group
        that is switched off and given a child at once, and for a field that is set by two names. `validate` checks the
        types of other values.
        """
        tree = _tree(type(self))
        settings = {}
        for name, value in self.renamed(values).items():
            if name not in tree:
                near = did_you_mean(str(name), tree, {n: field.description for n, field in tree.items()})
                raise AttributeError(f'no hyperparameter {shown(name)}: did you mean {near}?')
            field = tree[name]
            if field.is_group:
                value = switch(name, field, value)
            elif field.optional and isinstance(value, str) and value in UNSET and not exact:
                value = None
            settings[name] = value
            if tree[name].kind is float and type(value) is int:
                settings[name] = as_float(name, value)
        for name in settings:
            for group in _groups_around(name):
                if settings.get(group) is False:
                    raise ValueError(f'{group} is off and {name} is set: give one of them')
        for name in sorted(settings):  # a group comes before its children
            self._set(name, settings[name])

    def override_from_str_dict(self, texts: Dict[str, str]) -> None:
        """Set fields from text by dotted name. Raises ValueError also for text that does not parse."""
        tree = _tree(type(self))
        texts = self.renamed(texts)
        self.override_from_dict(
            {name: parse(name, tree[name], text) if name in tree else text for name, text in texts.items()}
        )

    def override_from_str(self, text: str) -> None:
        """Set fields from one line of text such as 'a.b=1,c=on'; a value cannot hold a comma."""
        texts = {}
        for item in text.split(',') if text else []:
            name, equals, value = item.partition('=')
            if not equals:
                raise ValueError(f'{short(item)} in {short(text)} is not name=value')
            if name in texts:
                raise ValueError(f'{shown(name)} is set twice')
            texts[name] = value
        self.override_from_str_dict(texts)

    def override_from_nested_dict(self, nested: Dict[str, Any], exact: bool = False) -> None:
        """Set fields from dictionaries nested like the groups; a dictionary switches its group on, None off.

        `exact` is that of `override_from_dict`.
        """
        self.override_from_dict(self.flattened(nested), exact)

    def override_from_json_file(
        self, path: str, amend: Callable[[Dict[str, Any]], Dict[str, Any]] = lambda nested: nested
    ) -> Dict[str, Any]:
        """Set fields from a JSON file that holds a result of `to_nested_dict`; errors name the file.

        `amend` may set other values than the file holds. Returns what the file holds.
        """
        nested = read_json(path)
        if not isinstance(nested, dict):
            raise ValueError(f'{path} should hold a JSON object, not {type(nested).__name__}')
        try:
            self.override_from_nested_dict(amend(nested))
        except (AttributeError, ValueError) as error:
            raise type(error)(f'{path}: {error}') from None
        return nested

    @classmethod
    def from_json_file(
        cls,
        path: str,
        required: Sequence[str] = (),
        amend: typing.Callable[['HParams'], None] = lambda hparams: None,
        pass_over: Optional[Callable[[str], None]] = None,
    ) -> 'HParams':
        """Return the validated tree that a JSON file holds.

        Args:
          required: fields that the file must set, even if they have defaults.
          amend: may change the tree after it is read and before it is validated.
          pass_over: is called with the name of each unknown field that holds a scalar. The field has no effect. None:
            unknown fields are refused. Unknown groups always are.

        Raises OSError for a file that cannot be read, and ValueError naming file and field for a mistake in it.
        """
        hparams = cls()
        for name in required:
            setattr(hparams, name, None)
        try:
            hparams.override_from_json_file(
                path, lambda nested: _known(nested, cls, pass_over) if pass_over else nested
            )
        except AttributeError as error:
            raise ValueError(str(error)) from None
        amend(hparams)
        try:
            hparams.validate()
        except UnsetError as error:
            raise ValueError(f'{path}: {error.in_file()}') from None
        except (TypeError, ValueError) as error:
            raise ValueError(f'{path}: {error}') from None
        return hparams

    def to_nested_dict(self) -> Dict[str, Any]:
        """Return the values as nested dictionaries; a group that is off is None."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {k: v.to_nested_dict() if isinstance(v, HParams) else v for k, v in values.items()}

    def to_shared_dict(self) -> Dict[str, Any]:
        """Return the result of `to_nested_dict` for files that others may read: URLs are without their secrets."""
        return shared(self.to_nested_dict())

    def secrets(self) -> Dict[str, str]:
        """Return the texts that `to_shared_dict` cuts, in full, by dotted name."""
        return {
            name: value for name, value in self._values().items() if isinstance(value, str) and shared(value) != value
        }

    def restore(self, secrets: Dict[str, Any]) -> None:
        """Set the fields to their values in `secrets`, a result of `secrets`, where their shared parts are equal."""
        values = self._values()
        self.override_from_dict(
            {name: value for name, value in secrets.items() if name in values and shared(value) == values[name]}
        )

    def differences(self, other: 'HParams') -> List[str]:
        """Return the dotted names whose values differ between two trees of one class, sorted.

        URLs that differ only in their secrets, such as a signature, do not differ.
        """
        mine, others = self._values(), other._values()

        def same(name: str) -> bool:
            if name not in mine or name not in others:
                return False
            return repr(mine[name]) == repr(others[name]) or same_source(mine[name], others[name])

        return sorted(name for name in set(mine) | set(others) if not same(name))

    def validate(self, prefix: str = '') -> None:
        """Check the type of every field below; messages put `prefix` (such as 'ppo.') before the names.

        Raises TypeError for a field that is unset or of the wrong type, and ValueError for not-a-number. An int in a
        float field becomes a float. Groups with rules of their own extend this method.
        """
        self.check_types(prefix)
        for name, field in _tree(type(self)).items():
            value, full_name = getattr(self, name, None), prefix + name
            if '.' in name or field.optional and value is None:
                continue
            if value is None:
                raise UnsetError(full_name, str(field))
            if field.is_group:
                value.validate(prefix=full_name + '.')
            elif field.kind is float and not field.many:
                setattr(self, name, float(value))

    def check_types(self, prefix: str = '') -> None:
        """Check the type of every field below that is set, like `validate`; unset fields pass."""
        for name, field in _tree(type(self)).items():
            value, full_name = getattr(self, name, None), prefix + name
            if '.' in name or value is None:
                continue
            if not holds(field, value):
                raise TypeError(f'{full_name} should be {field}, not {type(value).__name__} ({short(value)})')
            if field.is_group:
                value.check_types(prefix=full_name + '.')
            else:
                for item in value if field.many else [value]:
                    check_usable(full_name, field.kind, item)

    def dump(self, name: str = 'hparams', out: Optional[TextIO] = None) -> None:
        """Print the tree to `out` (default: standard output), one field a line, sorted by dotted name.

        URLs are printed without their secrets.
        """
        out = sys.stdout if out is None else out
        print(f'{name}:', file=out)
        for field_name, value in sorted(self._values().items()):
            text = 'off' if value is _OFF else repr(shared(value))
            print(f'  {field_name} = {text}', file=out)

    def _values(self) -> Dict[str, Any]:
        """Return the value of every field below by dotted name; a group that is off is one entry, _OFF."""
        values = {}
        for name, field in _tree(type(self)).items():
            if '.' in name:
                continue
            value = getattr(self, name)
            if isinstance(value, HParams):
                values.update({f'{name}.{child}': below for child, below in value._values().items()})
            else:
                values[name] = _OFF if field.is_group and value is None else value
        return values

    def _set(self, name: str, value: Any) -> None:
        first, _, rest = name.partition('.')
        field = _tree(type(self))[first]
        if field.is_group and value is False and not rest:
            setattr(self, first, None)
        elif field.is_group:
            if getattr(self, first) is None:
                setattr(self, first, field.kind())
            if rest:
                getattr(self, first)._set(rest, value)
        else:
            setattr(self, first, value)


@functools.lru_cache(maxsize=None)
def _tree(cls: type) -> Dict[str, Field]:
    tree = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, optional = hints[field.name], False
        if getattr(kind, '__origin__', None) is typing.Union:
            (kind,), optional = [arg for arg in kind.__args__ if arg is not type(None)], True
        many = getattr(kind, '__origin__', None) is list
        kind = kind.__args__[0] if many else kind
        is_group = issubclass(kind, HParams)
        default = None if is_group or field.default is dataclasses.MISSING else field.default
        if many and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        about, aliases = field.metadata.get('description', ''), field.metadata.get('aliases', ())
        tree[field.name] = Field(kind, optional, many, default, about, aliases)
        if is_group:
            tree.update({f'{field.name}.{child}': below for child, below in _tree(kind).items()})
    return tree


@functools.lru_cache(maxsize=None)
def _names(cls: type) -> Dict[str, str]:
    """Return every name that sets a field below a class, aliases included, with the field's current dotted name."""
    names = {}
    for name, field in _tree(cls).items():
        if '.' in name:
            continue
        for spelling in (name, *field.aliases):
            names[spelling] = name
            if field.is_group:
                children = _names(field.kind).items()
                names.update({f'{spelling}.{child}': f'{name}.{current}' for child, current in children})
    return names


@functools.lru_cache(maxsize=None)
def _retired(cls: type) -> FrozenSet[str]:
    """Return the dotted names of the retired fields below a class."""
    groups = {name: field.kind for name, field in _tree(cls).items() if field.is_group}
    below = (f'{name}.{retired}' for name, kind in groups.items() for retired in kind.RETIRED)
    return frozenset([*cls.RETIRED, *below])


def _known(nested: Dict[str, Any], cls: type, pass_over: Callable[[str], None], prefix: str = '') -> Dict[str, Any]:
    """Return nested values without the scalars whose names are unknown; `pass_over` is called with these names."""
    tree, names, kept = _tree(cls), _names(cls), {}
    for key, value in nested.items():
        name = names.get(f'{prefix}{key}', f'{prefix}{key}')
        if isinstance(value, dict) and name in tree and tree[name].is_group:
            kept[key] = _known(value, cls, pass_over, name + '.')
        elif name in tree or name in _retired(cls) or isinstance(value, (dict, list)):
            kept[key] = value
        else:
            pass_over(shown(name))
    return kept


def _groups_around(name: str) -> Iterator[str]:
    """Yield the names of the groups that hold a field: 'a.b.c' → 'a', 'a.b'."""
    parts = name.split('.')
    return ('.'.join(parts[:end]) for end in range(1, len(parts)))


def _flatten(nested: Dict[str, Any], cls: type, prefix: str = '') -> Dict[str, Any]:
    tree, names, flat = _tree(cls), _names(cls), {}
    for key, value in nested.items():
        name = names.get(f'{prefix}{key}', f'{prefix}{key}')
        if name in _retired(cls):
            continue
        items = {name: value}
        if isinstance(value, dict) and name in tree and tree[name].is_group:
            items = {name: True, **_flatten(value, cls, prefix=name + '.')}
        for item in items:
            if item in flat and not (item in tree and tree[item].is_group):
                raise ValueError(f'{shown(item)} is set twice')
        flat.update(items)
    return flat
