"""Rules that values of hyperparameters must satisfy."""

import functools
import math
import re
from typing import Any, Callable, Optional, Tuple

from lm_human_preferences.utils.hyperparams import HParams

_SMALLEST_FLOAT32, _LARGEST_FLOAT32 = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # without denormal ones, which become 0

Rule = Tuple[Callable[[Any], bool], str]  # whether a value satisfies it, and what the value must be
POSITIVE: Rule = (lambda value: 0 < value < math.inf, 'above 0')
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, '0 or above')
UNIT_INTERVAL: Rule = (lambda value: 0 <= value <= 1, 'between 0 and 1')
DROPOUT_RATE: Rule = (lambda value: 0 <= value < 1, '0 or above and below 1')
TWO_OR_MORE: Rule = (lambda value: value >= 2, '2 or more')
NOT_EMPTY: Rule = (lambda value: bool(value.strip()), 'a name or path')
PORT: Rule = (lambda value: 0 <= value < 65536, 'between 0 and 65535')
SPLIT: Rule = (('train', 'valid', 'test').__contains__, 'train, valid or test')
# Logits divided by less could pass the −1e10 of tokens that top_k and top_p leave out. Divided by more, float32 hardly
# tells them apart.
TEMPERATURE: Rule = (lambda value: 1e-6 <= value <= 1e6, 'between 0.000001 and 1000000')
TEMPERATURE_OR_0: Rule = (lambda value: value == 0 or TEMPERATURE[0](value), f'0 or {TEMPERATURE[1]}')
SEED: Rule = (lambda value: 0 <= value < 2**31, 'between 0 and 2147483647')


def check(group: HParams, prefix: str, names: str, rule: Rule) -> None:
    """Raise ValueError if a field of a group breaks a rule. Spaces separate the names; a field that is None passes."""
    holds, wanted = rule
    for name in names.split():
        value = getattr(group, name)
        if value is not None and not holds(value):
            raise ValueError(f'{prefix}{name} must be {wanted}, not {value!r}')


def check_float32(group: HParams, prefix: str) -> None:
    """Raise ValueError if a float below a group is too large for float32, or so small that it becomes 0 there."""
    for name, field in group.tree().items():
        owner = functools.reduce(lambda below, part: getattr(below, part, None), name.split('.')[:-1], group)
        value = getattr(owner, name.split('.')[-1], None)
        if field.kind is not float or field.many or not value:
            continue
        if not _SMALLEST_FLOAT32 <= abs(value) <= _LARGEST_FLOAT32:
            size = 'large' if abs(value) > 1 else 'close to 0'
            raise ValueError(f'{prefix}{name} is too {size} for 32-bit numbers: {value!r}')


def check_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """Raise ValueError if a value is no multiple of a divisor; the message names the nearest multiples."""
    if value % divisor:
        below = value // divisor * divisor
        nearest = f'the nearest are {below} and {below + divisor}' if below else f'the nearest is {divisor}'
        raise ValueError(f'{name} ({value}) must be a multiple of {divisor_name} ({divisor}): {nearest}')


def best_of(label_type: str) -> Optional[int]:
    """Return the N of a label type `best_of_N`, which is at least 2; None for any other name."""
    match = re.match(r'best_of_([1-9][0-9]{0,8})\Z', label_type)
    number = int(match.group(1)) if match else 0
    return number if number >= 2 else None
