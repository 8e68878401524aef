"""Read JSON files that people and other programs wrote, or refuse them in one line.

`json.load` silently takes the last value of a key that is given twice, and its errors do not name the file. Ours do,
and say where in the content the key is. This costs no time: 0.06 s for 5000 labels, where `json.load` takes 0.07
(`python benchmarks/startup.py --libraries`).
"""

import json
from typing import Any, List, Optional, Tuple

from lm_human_preferences.utils.files import read_text


def read_json(path: str) -> Any:
    """Return the content of a JSON file in UTF-8.

    OSError if the file cannot be read. ValueError, with the file and the place in it, if it is empty, not UTF-8, not
    JSON or nested too deeply, or if an object has a key twice.
    """
    text = read_text(path)
    if not text.strip():
        raise ValueError(f'{path}: not JSON: the file is empty')
    repeated = []  # objects that have a key twice, with that key

    def to_dict(pairs: List[Tuple[str, Any]]) -> dict:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append((content, next(key for key in keys if keys.count(key) > 1)))
        return content

    try:
        content = json.loads(text, object_pairs_hook=to_dict)
        for twice, key in repeated:
            place = _place(content, twice)
            if place is not None:  # otherwise it is no part of the result, because a later key replaced it
                raise ValueError(f'{place}field {key!r} is given twice')
    except json.JSONDecodeError as error:
        raise ValueError(f'{path}: not JSON: {error}') from None
    except RecursionError:
        raise ValueError(f'{path}: this JSON is nested too deeply') from None
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from None
    return content


def _place(content: Any, wanted: dict, place: str = '') -> Optional[str]:
    """Return where in `content` the object `wanted` itself is, as 'entry 3: ' or 'ppo: '; None if it is not there."""
    if content is wanted:
        return place
    if isinstance(content, dict):
        parts = ((f'{place}{key}: ', value) for key, value in content.items())
    elif isinstance(content, list):
        parts = ((f'{place}entry {number}: ', value) for number, value in enumerate(content))
    else:
        return None
    found = (_place(value, wanted, longer) for longer, value in parts)
    return next((longer for longer in found if longer is not None), None)
