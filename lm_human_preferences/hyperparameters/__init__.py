"""Every hyperparameter of the project: its default, its description, and the rules between them.

There is one tree of hyperparameters for each command. `validate()` checks what a saved run must satisfy to be read.
`validate(num_ranks=N)` of a training command's tree also checks what a run on N ranks needs to start.
"""

from lm_human_preferences.hyperparameters.language_models import ModelHParams, TrainLmHParams
from lm_human_preferences.hyperparameters.policies import (
    AdaptiveKLHParams,
    PpoHParams,
    RewardHParams,
    TrainPolicyHParams,
)
from lm_human_preferences.hyperparameters.reward_models import LabelHParams, LabelScheduleHParams, TrainRewardHParams
from lm_human_preferences.hyperparameters.rules import best_of
from lm_human_preferences.hyperparameters.tasks import PolicyHParams, RunHParams, TaskHParams
from lm_human_preferences.hyperparameters.tools import (
    ConvertHParams,
    EvaluateHParams,
    LabelPageHParams,
    ReportHParams,
    SampleHParams,
)

__all__ = [
    'TREES',
    'AdaptiveKLHParams',
    'ConvertHParams',
    'EvaluateHParams',
    'LabelHParams',
    'LabelPageHParams',
    'LabelScheduleHParams',
    'ModelHParams',
    'PolicyHParams',
    'PpoHParams',
    'ReportHParams',
    'RewardHParams',
    'RunHParams',
    'SampleHParams',
    'TaskHParams',
    'TrainLmHParams',
    'TrainPolicyHParams',
    'TrainRewardHParams',
    'best_of',
]

TREES = {  # the tree of each command
    'train_reward': TrainRewardHParams,
    'train_policy': TrainPolicyHParams,
    'train_lm': TrainLmHParams,
    'sample': SampleHParams,
    'evaluate': EvaluateHParams,
    'report': ReportHParams,
    'convert': ConvertHParams,
    'label': LabelPageHParams,
}
