"""Fine-tuning language models from human preferences: a reward model learnt from choices, then PPO.

`load_policy` and `load_reward_model` use trained models from Python. They load TensorFlow; importing this package does
not.
"""

import importlib
from typing import Any, List

__version__ = '0.1.0'
__all__ = ['load_policy', 'load_reward_model']


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f'{__name__}.api'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> List[str]:
    return sorted([*globals(), *__all__])
