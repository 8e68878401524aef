"""Stopping a run whose numbers are no numbers any more, before it saves them."""

import math
from typing import Dict, NoReturn

from lm_human_preferences.utils.errors import UserError

GRADIENT_NORM = 'gradient_norm'


def check_finite(stats: Dict[str, float], step: int) -> None:
    """Refuse to go on (UserError) after training step `step` if one of its statistics is NaN or infinite.

    To be called before anything of the step is saved: the last checkpoint is then a good one. The norm of the gradient
    is there for this check alone and is taken out of `stats`.
    """
    wrong = [f'{tag} is {value}' for tag, value in stats.items() if not math.isfinite(value)]
    if wrong:
        others = f' (and so are {len(wrong) - 1} other statistics)' if len(wrong) > 1 else ''
        raise UserError(
            f'step {step}: {wrong[0]}{others}: training diverged and stops; nothing of this step was saved: '
            'lower the learning rate, or look for extreme labels or rewards'
        )
    for tag in [tag for tag in stats if tag.endswith(GRADIENT_NORM)]:
        del stats[tag]


def refuse_variable(name: str, step: int) -> NoReturn:
    """Refuse to save (UserError) the variables of training step `step`, of which one is not finite."""
    raise UserError(
        f'step {step}: {name} is not finite: training diverged and stops; nothing of this step was saved: '
        'lower the learning rate'
    )
