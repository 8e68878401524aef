"""Stop a run when a statistic becomes NaN or infinite, before it saves anything of that step."""

import math
from typing import Dict, NoReturn

from lm_human_preferences.utils.errors import UserError

GRADIENT_NORM = 'gradient_norm'


def check_finite(stats: Dict[str, float], step: int) -> None:
    """Stop (UserError) after training step `step` if one of its statistics is NaN or infinite.

    Call this before saving anything of the step, so that the last checkpoint is a good one. `stats` should have the
    norm of the gradient: it may overflow while the loss is finite.
    """
    wrong = [f'{tag} is {value}' for tag, value in stats.items() if not math.isfinite(value)]
    if wrong:
        others = f' (and so are {len(wrong) - 1} other statistics)' if len(wrong) > 1 else ''
        raise UserError(
            f'step {step}: {wrong[0]}{others}: training diverged and stops; nothing of this step was saved: '
            'lower the learning rate, or look for extreme labels or rewards'
        )


def refuse_variable(name: str, step: int) -> NoReturn:
    """Refuse to save (UserError) the variables of training step `step`, because one of them is not finite."""
    raise UserError(
        f'step {step}: {name} is not finite: training diverged and stops; nothing of this step was saved: '
        'lower the learning rate'
    )
