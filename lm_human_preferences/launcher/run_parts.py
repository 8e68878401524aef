"""The parts of a run of `train_policy`, with a rough measure of their work for the bar of the whole run.

The unit of work is one token's pass through the model. It need not be right: as soon as a part runs, its own pace
counts, and the pace of the parts before it corrects those that are still to come.
"""

from typing import Dict, Optional

from lm_human_preferences.hyperparameters import EvaluateHParams, TrainPolicyHParams, TrainRewardHParams, best_of

EVALUATION, REPORT = 'evaluation', 'report'  # the other names are the titles of the loops that train
BACKWARD = 3  # passes of a training step: forward, and twice as much backward
SAMPLING = 3  # a sampled token takes as long as so many tokens that are known in advance
POLICIES = 2  # that an evaluation compares
REPORT_SHARE = 0.01  # of all other work


def parts_of(hparams: TrainPolicyHParams, evaluation: Optional[EvaluateHParams]) -> Dict[str, float]:
    """Return the work of each part of a run by name, in order. `evaluation` follows the training, if it is given."""
    task, ppo, reward = hparams.task, hparams.ppo, hparams.rewards.train_new_model
    episode = task.query_length + task.response_length
    found = {} if reward is None else _reward_model(reward)
    # Each episode is sampled, read by the initial policy and the reward model, and trained on.
    found['ppo'] = ppo.total_episodes * episode * (SAMPLING + 2 + BACKWARD * ppo.noptepochs)
    if evaluation is not None:
        found[EVALUATION] = POLICIES * evaluation.num_queries * episode * (SAMPLING + 2)
        if evaluation.labels is not None and reward is not None:
            found[EVALUATION] += evaluation.num_labels * _label_length(reward) * (1 + evaluation.num_checkpoints)
    found[REPORT] = REPORT_SHARE * sum(found.values())
    return found


def _reward_model(hparams: TrainRewardHParams) -> Dict[str, float]:
    episode = hparams.task.query_length + hparams.task.response_length
    measured = hparams.normalize_samples * episode * (SAMPLING + 1)
    found = {'normalize before': measured} if hparams.normalize_before else {}
    found['reward model'] = hparams.labels.num_train * _label_length(hparams) * BACKWARD
    return dict(found, **({'normalize after': measured} if hparams.normalize_after else {}))


def _label_length(hparams: TrainRewardHParams) -> int:
    """Return the tokens of one label: its query, and its samples."""
    samples = best_of(hparams.labels.type) or (2 if hparams.labels.type == 'scalar_compare' else 1)
    return hparams.task.query_length + samples * hparams.task.response_length
