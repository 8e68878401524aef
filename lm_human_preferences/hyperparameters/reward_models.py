"""Hyperparameters of `train_reward`: the labels and the training of a reward model."""

import re
from dataclasses import dataclass
from typing import Optional

from lm_human_preferences.hyperparameters.rules import (
    NOT_EMPTY,
    NOT_NEGATIVE,
    PORT,
    POSITIVE,
    TWO_OR_MORE,
    UNIT_INTERVAL,
    best_of,
    check,
    check_multiple,
)
from lm_human_preferences.hyperparameters.starting import check_reward_training, check_shared, check_task
from lm_human_preferences.hyperparameters.tasks import RunHParams, TaskHParams
from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class LabelScheduleHParams(HParams):
    """Collecting labels on the policy's samples while it trains (section 2.3 of the paper)."""

    num_initial: int = hparam(
        None,
        'Labels before the first episode. They come from labels.source; the source `labeler` collects them, too.',
        aliases=['initial'],
    )
    labeler: str = hparam('page', 'Who labels: page (people on the label page) or a function, as MODULE:FUNCTION.')
    num_retrainings: int = hparam(
        19, 'Times that the reward model is trained again, after its first training.', aliases=['retrainings']
    )
    num_ahead: int = hparam(
        1000, 'Questions that are ready before people need them, so that people do not wait.', aliases=['ahead']
    )
    overlap: float = hparam(0.0, 'Share of the questions that several people answer, 0 to 1.')
    num_people: int = hparam(5, 'Number of people who answer each of these shared questions.', aliases=['people'])
    instructions: Optional[str] = hparam(
        None, "Instructions for people: a name or a text file. None: those of the task's data set."
    )
    port: int = hparam(0, 'Port of the label page. 0: any free port.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'num_initial', POSITIVE)
        check(self, prefix, 'num_retrainings num_ahead', NOT_NEGATIVE)
        check(self, prefix, 'instructions', NOT_EMPTY)
        check(self, prefix, 'overlap', UNIT_INTERVAL)
        check(self, prefix, 'num_people', TWO_OR_MORE)
        check(self, prefix, 'port', PORT)
        if self.labeler != 'page' and not re.match(r'[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z', self.labeler):
            raise ValueError(f'{prefix}labeler must be page or MODULE:FUNCTION, not {self.labeler!r}')


@dataclass
class LabelHParams(HParams):
    """The human labels that a reward model learns from."""

    type: str = hparam(
        None, 'Type of a label: best_of_N (the best of N samples), scalar_rating or scalar_compare (section 2).'
    )
    num_train: int = hparam(None, 'Number of labels to train on; a multiple of batch_size.')
    source: str = hparam(
        None,
        'Label file (a path, gs://, https:// or hf://), demo or test; or labeler, to collect all labels in the run.',
    )
    schedule: Optional[LabelScheduleHParams] = hparam(
        None, 'Collect labels while the policy trains (section 2.3). Off: all labels exist before.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        if best_of(self.type) is None and self.type not in ('scalar_rating', 'scalar_compare'):
            known = 'best_of_N (N at least 2), scalar_rating or scalar_compare'
            raise ValueError(f'{prefix}type must be {known}, not {self.type!r}')
        check(self, prefix, 'num_train', POSITIVE)
        check(self, prefix, 'source', NOT_EMPTY)


@dataclass
class TrainRewardHParams(HParams):
    """Training of a reward model: one pass over the labels (section 2.2 of the paper)."""

    run: RunHParams = hparam(RunHParams, 'How the run is seeded, logged and saved.')
    task: TaskHParams = hparam(TaskHParams, 'The task whose responses the model scores.')
    labels: LabelHParams = hparam(LabelHParams, 'The labels to learn from.')
    batch_size: int = hparam(40, 'Labels of a step, over all ranks.')
    lr: float = hparam(5e-5, 'Learning rate of the first step. It falls linearly to 0.')
    rollout_batch_size: int = hparam(64, 'Responses sampled at a time for normalization, over all ranks.')
    normalize_samples: int = hparam(
        0, "Samples that measure the rewards' mean and std (section 2), rounded up to whole rollout batches."
    )
    normalize_truncated: bool = hparam(
        False, 'Measure rewards of truncated samples, as PPO scores them. Off: of whole samples, as in 2019.'
    )
    debug_normalize: int = hparam(0, 'Samples that measure the rewards again after normalization. 0: none.')
    normalize_before: bool = hparam(
        False, "Normalize before training, to the labels' mean and standard deviation, or to 0 and 1."
    )
    normalize_after: bool = hparam(False, 'Normalize after training, to mean 0 and standard deviation 1 (section 2).')

    def validate(self, prefix: str = '', num_ranks: Optional[int] = None) -> None:
        super().validate(prefix)
        check(self, prefix, 'batch_size rollout_batch_size', POSITIVE)
        check(self, prefix, 'lr normalize_samples debug_normalize', NOT_NEGATIVE)
        if (self.normalize_before or self.normalize_after) and not self.normalize_samples:
            raise ValueError(f'{prefix}normalize_samples must be above 0 with normalize_before or _after')
        num_train, batch_size = f'{prefix}labels.num_train', f'{prefix}batch_size'
        check_multiple(num_train, self.labels.num_train, batch_size, self.batch_size)
        check_multiple(batch_size, self.batch_size, 'the number of ranks', num_ranks or 1)
        schedule = self.labels.schedule
        if schedule is not None and not self.batch_size <= schedule.num_initial <= self.labels.num_train:
            raise ValueError(
                f'{prefix}labels.schedule.num_initial ({schedule.num_initial}) must be at least {batch_size} '
                f'({self.batch_size}) and at most {num_train} ({self.labels.num_train})'
            )
        if self.labels.source == 'labeler' and schedule is None:
            raise ValueError(f'{prefix}labels.source labeler needs {prefix}labels.schedule=on')
        if num_ranks is not None:
            check_shared(self, prefix)
            check_task(self.task, f'{prefix}task.')
            check_reward_training(self, num_ranks, prefix)
