"""The values of hyperparameters: what a field may hold, how text becomes a value, and which values cannot be used."""

import math
import re
from typing import Any, NamedTuple, Tuple, Union

from lm_human_preferences.utils.errors import short

_SCALARS = (bool, int, float, str)
_BOOLS = {'t': True, 'true': True, 'True': True, 'f': False, 'false': False, 'False': False}
UNSET = ('', 'none', 'None', 'null')  # the texts that leave an optional field without a value
_SWITCHES = {**_BOOLS, 'on': True, 'off': False, **dict.fromkeys(UNSET, False)}
LIST_SEPARATOR = '\1'  # before each item of a list whose items were separate words; otherwise commas separate them
_LARGEST_INT = 2**63 - 1  # the largest integer of arrays and of TensorFlow


class Field(NamedTuple):
    """What a dotted name may hold."""

    kind: type  # bool, int, float, str, or the class of a group
    optional: bool  # whether it may be None: a scalar without a value, or a group that is off
    many: bool = False  # whether it holds a list of such values
    default: Any = None  # None for a group
    description: str = ''
    aliases: Tuple[str, ...] = ()  # the older names of the field in its own group

    @property
    def is_group(self) -> bool:
        return self.kind not in _SCALARS

    def __str__(self) -> str:
        name = 'on/off' if self.is_group else self.kind.__name__
        if self.many:
            return f'list of {name}'
        return f'{name} or None' if self.optional and not self.is_group else name


def shown(name: Any) -> str:
    """Return a name as it was given if it is a word, otherwise its shortened repr."""
    return name if isinstance(name, str) and re.match(r'[\w.-]{1,100}\Z', name) else short(name)


def holds(field: Field, value: Any) -> bool:
    """Return whether a value has the type of a field. An int is a float, too; a bool is neither."""
    if field.many:
        return isinstance(value, list) and all(holds(Field(field.kind, False), item) for item in value)
    kind = field.kind
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def switch(name: str, field: Field, value: Any) -> bool:
    """Return whether a value switches a group on or off. Raises ValueError for any other value."""
    on = _SWITCHES.get(value) if isinstance(value, str) else False if value is None else value
    if not isinstance(on, bool):
        raise ValueError(f'{name} is a group of hyperparameters: it takes on or off, not {short(value)}')
    if not on and not field.optional:
        raise ValueError(f'{name} cannot be off: only its fields can be set')
    return on


def parse(name: str, field: Field, text: str) -> Any:
    """Return the value of a field from text; the text of a group is for `switch`.

    Raises ValueError for text that does not parse.
    """
    if field.is_group:
        return text
    if field.optional and text in UNSET:
        return None
    if field.many:
        if text.startswith(LIST_SEPARATOR):
            return text[1:].split(LIST_SEPARATOR)
        return text.split(',') if text else []
    if field.kind is str:
        return text
    try:
        if field.kind is bool:
            return _BOOLS[text]
        if field.kind is int:
            return whole_number(text)
        if field.kind is float and not math.isnan(float(text)):
            return float(text)
    except (KeyError, ValueError):
        pass
    raise ValueError(f'{name} should be {field}, not {short(text)}')


def whole_number(text: str) -> int:
    """Return the int of a text such as 16, 1_000_000, 1e6 or 2.5e6. Raises ValueError for any other text."""
    match = re.match(r'([+-]?[0-9]+(?:_[0-9]+)*)(?:\.([0-9]+))?(?:[eE]\+?([0-9]{1,3}))?\Z', text)
    if not match:
        raise ValueError(f'{short(text)} is not a whole number')
    digits, decimals, exponent = match.group(1), match.group(2) or '', int(match.group(3) or 0)
    if match.group(2) is not None and match.group(3) is None or decimals[exponent:].strip('0'):
        raise ValueError(f'{short(text)} is not a whole number')
    return int(digits + decimals[:exponent]) * 10 ** max(0, exponent - len(decimals))


def check_usable(name: str, kind: type, value: Any) -> None:
    """Raise ValueError for a scalar that has the right type and still cannot be used."""
    if kind is float and math.isnan(as_float(name, value)):
        raise ValueError(f'{name} is not a number')
    if kind is int and abs(value) > _LARGEST_INT:
        raise ValueError(f'{name} is too large: {short(value)}')
    if kind is str and re.search('[\0\ud800-\udfff]', value):
        raise ValueError(f'{name} should be UTF-8 text without zero bytes, not {short(value)}')


def as_float(name: str, value: Union[int, float]) -> float:
    """Return a number as a float. Raises ValueError for an int that no float can hold."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f'{name} is too large: {short(value)}') from None
