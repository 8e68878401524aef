"""Every hyperparameter of the project, its default, and the rules between them.

`validate(num_ranks=N)` of a top class (one for each command) also checks what N ranks must share out evenly.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Callable, List, Optional, Tuple

from lm_human_preferences.utils.hyperparams import HParams

Rule = Tuple[Callable[[Any], bool], str]
POSITIVE: Rule = (lambda value: 0 < value < math.inf, 'above 0')
NOT_NEGATIVE: Rule = (lambda value: 0 <= value < math.inf, '0 or above')
UNIT_INTERVAL: Rule = (lambda value: 0 <= value <= 1, 'between 0 and 1')
DROPOUT_RATE: Rule = (lambda value: 0 <= value < 1, '0 or above and below 1')
NOT_EMPTY: Rule = (lambda value: bool(value.strip()), 'a name or path')
PORT: Rule = (lambda value: 0 <= value < 65536, 'between 0 and 65535')
PART: Rule = (('train', 'valid', 'test').__contains__, 'train, valid or test')
SEED: Rule = (lambda value: 0 <= value < 2**31, 'between 0 and 2147483647')


def _check(group: HParams, prefix: str, names: str, rule: Rule) -> None:
    """Check a rule on the named fields of a group (names apart by spaces); a field that is None passes."""
    holds, wanted = rule
    for name in names.split():
        value = getattr(group, name)
        if value is not None and not holds(value):
            raise ValueError(f'{prefix}{name} must be {wanted}, not {value!r}')


def _check_divides(name: str, value: int, divisor_name: str, divisor: int) -> None:
    if value % divisor:
        below = value // divisor * divisor
        nearest = f'{below} and {below + divisor}' if below else str(divisor)
        by = f'{divisor_name} ({divisor})'
        raise ValueError(f'{name} ({value}) does not divide by {by}: nearest would be {nearest}')


@dataclass
class RunHParams(HParams):
    """How a run is seeded, logged and saved. Intervals are in training steps."""

    seed: Optional[int] = None
    log_interval: int = 10
    save_interval: int = 50  # 0: only at the end
    save_dir: Optional[str] = None
    dtype: str = 'float32'  # or bfloat16: of matrix products; weights, softmax, logits and losses stay float32

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'seed', SEED)
        _check(self, prefix, 'log_interval', POSITIVE)
        _check(self, prefix, 'save_interval', NOT_NEGATIVE)
        _check(self, prefix, 'save_dir', NOT_EMPTY)
        _check(self, prefix, 'dtype', (('float32', 'bfloat16').__contains__, 'float32 or bfloat16'))


@dataclass
class PolicyHParams(HParams):
    """The language model that responds."""

    temperature: float = 1.0
    initial_model: str = None

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'temperature', POSITIVE)
        _check(self, prefix, 'initial_model', NOT_EMPTY)


@dataclass
class TaskHParams(HParams):
    """What is asked of the policy: queries from a data set, responses of a fixed length (both in tokens)."""

    query_length: int = None
    query_dataset: str = None
    query_prefix: str = ''
    query_suffix: str = ''
    start_text: Optional[str] = '.'
    end_text: Optional[str] = None
    response_length: int = None
    truncate_token: Optional[int] = None
    truncate_after: int = 0
    penalty_reward_value: int = -1
    policy: PolicyHParams = field(default_factory=PolicyHParams)

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'query_length response_length', POSITIVE)
        _check(self, prefix, 'truncate_token truncate_after', NOT_NEGATIVE)
        _check(self, prefix, 'query_dataset', NOT_EMPTY)


@dataclass
class LabelScheduleHParams(HParams):
    """Buying labels on the policy's samples while it trains (section 2.3 of the paper)."""

    initial: int = None  # labels before the first episode: of labels.source, or with the source `labeler` bought too
    labeler: str = 'page'  # who answers: people on the label page, or MODULE:FUNCTION
    retrainings: int = 19  # of the reward model, after the first training
    ahead: int = 1000  # questions that wait for people, so that they need not wait
    overlap: float = 0.0  # the share of questions that several people answer
    people: int = 5  # how many of them
    instructions: Optional[str] = None  # for people: a name or a file
    port: int = 0  # of the label page; 0: any that is free

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'initial', POSITIVE)
        _check(self, prefix, 'retrainings ahead', NOT_NEGATIVE)
        _check(self, prefix, 'instructions', NOT_EMPTY)
        _check(self, prefix, 'overlap', UNIT_INTERVAL)
        _check(self, prefix, 'people', (lambda value: value >= 2, '2 or more'))
        _check(self, prefix, 'port', PORT)
        if self.labeler != 'page' and not re.match(r'[A-Za-z_][\w.]*:[A-Za-z_]\w*\Z', self.labeler):
            raise ValueError(f'{prefix}labeler must be page or MODULE:FUNCTION, not {self.labeler!r}')


@dataclass
class LabelHParams(HParams):
    """The human judgements a reward model learns from."""

    type: str = None
    num_train: int = None
    source: str = None
    schedule: Optional[LabelScheduleHParams] = None  # off: all labels are there before the policy trains

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        best_of = re.match(r'best_of_([0-9]+)\Z', self.type)
        if not (int(best_of.group(1)) >= 2 if best_of else self.type in ('scalar_rating', 'scalar_compare')):
            known = 'best_of_N (N at least 2), scalar_rating or scalar_compare'
            raise ValueError(f'{prefix}type must be {known}, not {self.type!r}')
        _check(self, prefix, 'num_train', POSITIVE)
        _check(self, prefix, 'source', NOT_EMPTY)


@dataclass
class TrainRewardHParams(HParams):
    """Training a reward model: one pass over the labels."""

    run: RunHParams = field(default_factory=RunHParams)
    task: TaskHParams = field(default_factory=TaskHParams)
    labels: LabelHParams = field(default_factory=LabelHParams)
    batch_size: int = 40  # over all ranks
    lr: float = 5e-5
    rollout_batch_size: int = 64
    normalize_samples: int = 0
    debug_normalize: int = 0
    normalize_before: bool = False
    normalize_after: bool = False

    def validate(self, prefix: str = '', num_ranks: int = 1) -> None:
        super().validate(prefix)
        _check(self, prefix, 'batch_size rollout_batch_size', POSITIVE)
        _check(self, prefix, 'lr normalize_samples debug_normalize', NOT_NEGATIVE)
        if (self.normalize_before or self.normalize_after) and not self.normalize_samples:
            raise ValueError(f'{prefix}normalize_samples must be above 0 with normalize_before or _after')
        num_train, batch_size = f'{prefix}labels.num_train', f'{prefix}batch_size'
        _check_divides(num_train, self.labels.num_train, batch_size, self.batch_size)
        _check_divides(batch_size, self.batch_size, 'the number of ranks', num_ranks)
        schedule = self.labels.schedule
        if schedule is not None and not self.batch_size <= schedule.initial <= self.labels.num_train:
            raise ValueError(
                f'{prefix}labels.schedule.initial ({schedule.initial}) must be at least {batch_size} '
                f'({self.batch_size}) and at most {num_train} ({self.labels.num_train})'
            )
        if self.labels.source == 'labeler' and schedule is None:
            raise ValueError(f'{prefix}labels.source labeler needs {prefix}labels.schedule=on')


@dataclass
class AdaptiveKLHParams(HParams):
    """Steering of the KL coefficient towards a target."""

    target: float = None  # nats per response
    horizon: int = 10000  # episodes

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'target horizon', POSITIVE)


@dataclass
class RewardHParams(HParams):
    """What PPO maximises: the reward model's score less kl_coef times the KL from the initial policy."""

    kl_coef: float = 0.2
    adaptive_kl: Optional[AdaptiveKLHParams] = None
    trained_model: Optional[str] = None
    train_new_model: Optional[TrainRewardHParams] = None

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'kl_coef', NOT_NEGATIVE)
        _check(self, prefix, 'trained_model', NOT_EMPTY)
        trained, new = f'{prefix}trained_model', f'{prefix}train_new_model'
        if self.trained_model is not None and self.train_new_model is not None:
            raise ValueError(f'{trained} and {new} are both set: add --{new} off to use the trained model')
        if self.trained_model is None and self.train_new_model is None:
            raise ValueError(f'neither {trained} nor {new} is set: give --{trained}=DIR or --{new}=on')


@dataclass
class PpoHParams(HParams):
    """Proximal policy optimisation."""

    total_episodes: int = 2000000
    batch_size: int = 64  # over all ranks
    nminibatches: int = 1
    noptepochs: int = 4
    lr: float = 5e-6
    vf_coef: float = 0.1
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    gamma: float = 1.0
    lam: float = 0.95
    whiten_rewards: bool = True
    rollout_batch_size: int = 64  # episodes that a rank samples and scores at a time, at most
    microbatch_size: int = 0  # episodes of a rank whose gradient is taken at a time; 0: its whole minibatch

    def validate(self, prefix: str = '', num_ranks: int = 1) -> None:
        super().validate(prefix)
        _check(self, prefix, 'total_episodes batch_size nminibatches noptepochs rollout_batch_size', POSITIVE)
        _check(self, prefix, 'cliprange cliprange_value', POSITIVE)
        _check(self, prefix, 'lr vf_coef microbatch_size', NOT_NEGATIVE)
        _check(self, prefix, 'gamma lam', UNIT_INTERVAL)
        shares = self.nminibatches * num_ranks
        _check_divides(f'{prefix}batch_size', self.batch_size, f'{prefix}nminibatches times ranks', shares)
        if self.microbatch_size:
            minibatch = self.batch_size // shares
            _check_divides("a rank's minibatch", minibatch, f'{prefix}microbatch_size', self.microbatch_size)
        if self.whiten_rewards and self.batch_size < 8 * shares:
            raise ValueError(
                f'{prefix}batch_size must be at least {8 * shares}, not {self.batch_size}: '
                f"with {prefix}whiten_rewards a rank's minibatch needs 8 episodes"
            )


@dataclass
class TrainPolicyHParams(HParams):
    """Fine-tuning a policy against a reward model, which is trained first with `rewards.train_new_model`."""

    run: RunHParams = field(default_factory=RunHParams)
    task: TaskHParams = field(default_factory=TaskHParams)
    rewards: RewardHParams = field(default_factory=RewardHParams)
    ppo: PpoHParams = field(default_factory=PpoHParams)

    def validate(self, prefix: str = '', num_ranks: int = 1) -> None:
        super().validate(prefix)
        self.ppo.validate(f'{prefix}ppo.', num_ranks)
        new_model = self.rewards.train_new_model
        if new_model is not None:
            new_prefix = f'{prefix}rewards.train_new_model.'
            new_model.validate(new_prefix, num_ranks)
            differing = self.task.differences(new_model.task)
            if differing:
                names = ', '.join(f'task.{name}' for name in differing)
                raise ValueError(f'{new_prefix}task must equal {prefix}task; they differ in {names}')


@dataclass
class ModelHParams(HParams):
    """The size of a GPT-2: what a model folder's hparams.json holds."""

    n_vocab: int = 50257
    n_ctx: int = 1024
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    head_pdrop: float = 0.1

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'n_vocab n_ctx n_embd n_head n_layer', POSITIVE)
        _check(self, prefix, 'n_vocab n_ctx n_embd n_layer', (lambda value: value <= 10**6, 'at most 1000000'))
        _check(self, prefix, 'embd_pdrop attn_pdrop resid_pdrop head_pdrop', DROPOUT_RATE)
        _check_divides(f'{prefix}n_embd', self.n_embd, f'{prefix}n_head', self.n_head)


@dataclass
class TrainLmHParams(HParams):
    """Supervised training of a language model by next-token loss."""

    run: RunHParams = field(default_factory=RunHParams)
    dataset: str = None
    initial_model: Optional[str] = None  # None: a new model of the size below, from scratch
    model: ModelHParams = field(default_factory=ModelHParams)
    sequence_length: int = 128
    batch_size: int = 32  # over all ranks
    epochs: int = 1
    lr: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.0
    dropout: float = 0.0
    patience: int = 0  # epochs without a better held-out loss before training stops; 0: it never does

    def validate(self, prefix: str = '', num_ranks: int = 1) -> None:
        super().validate(prefix)
        _check(self, prefix, 'dataset initial_model', NOT_EMPTY)
        _check(self, prefix, 'sequence_length batch_size epochs', POSITIVE)
        _check(self, prefix, 'lr warmup_steps weight_decay patience', NOT_NEGATIVE)
        _check(self, prefix, 'dropout', DROPOUT_RATE)
        _check_divides(f'{prefix}batch_size', self.batch_size, 'the number of ranks', num_ranks)
        if self.initial_model is None and self.sequence_length > self.model.n_ctx:
            length, n_ctx = self.sequence_length, self.model.n_ctx
            raise ValueError(f'{prefix}sequence_length ({length}) must be at most {prefix}model.n_ctx ({n_ctx})')


@dataclass
class SampleHParams(HParams):
    """Printing what trained policies make of queries."""

    save_dir: Optional[str] = None  # the run whose policy responds
    savescope: str = 'policy'
    policies: List[str] = field(default_factory=list)  # several, side by side: runs, models, `initial`
    prompt: Optional[str] = None  # '-': standard input
    prompt_file: Optional[str] = None  # one prompt, or of a .jsonl file one a line
    temperature: float = 1.0
    top_k: int = 0  # 0: all tokens
    top_p: float = 1.0
    seed: Optional[int] = None
    batch_size: int = 4  # over all ranks
    nsamples: int = 0  # 0: for ever, or each prompt once
    scores: bool = False  # by the run's reward model
    jsonl: bool = False

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'save_dir savescope prompt_file', NOT_EMPTY)
        _check(self, prefix, 'prompt', (bool, 'a text'))
        _check(self, prefix, 'temperature batch_size', POSITIVE)
        _check(self, prefix, 'nsamples top_k', NOT_NEGATIVE)
        _check(self, prefix, 'top_p', (lambda value: 0 < value <= 1, 'above 0 and at most 1'))
        _check(self, prefix, 'seed', SEED)
        if self.save_dir is None and not self.policies:
            raise ValueError(f'{prefix}save_dir is not set: give --{prefix}save_dir=RUN, or --{prefix}policies RUN …')
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError(f'{prefix}prompt and {prefix}prompt_file are both set: give one of them')


@dataclass
class EvaluateHParams(HParams):
    """Measuring policies on held-out queries, and a reward model on labels."""

    run: Optional[str] = None  # whose task and reward model are used; None: the first of the policies
    policies: List[str] = field(default_factory=list)  # runs, models, `initial`; none: the run's and `initial`
    labels: Optional[str] = None  # a label file on which to measure the reward model
    label_type: Optional[str] = None  # None: the type the run was trained on
    num_labels: int = 0  # 0: all of the file
    reward_model: Optional[str] = None  # None: the run's
    checkpoints: int = 8  # of those kept while the reward model was trained, how many are measured too
    queries: int = 512
    batch_size: int = 64
    temperature: Optional[float] = None  # None: the task's
    query_dataset: Optional[str] = None  # None: the task's
    part: str = 'test'  # of the data set
    seed: int = 20190918
    out: Optional[str] = None  # folder for the figures; None: the run's, if it is local

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'run labels label_type reward_model query_dataset out', NOT_EMPTY)
        _check(self, prefix, 'queries batch_size temperature', POSITIVE)
        _check(self, prefix, 'num_labels checkpoints', NOT_NEGATIVE)
        _check(self, prefix, 'seed', SEED)
        if self.run is None and not self.policies and (self.reward_model is None or self.labels is None):
            raise ValueError(f'{prefix}run is not set: give RUN, or --{prefix}policies RUN …')
        _check(self, prefix, 'part', PART)


@dataclass
class ReportHParams(HParams):
    """Writing what runs show as one HTML page."""

    runs: List[str] = field(default_factory=list)
    out: Optional[str] = None  # None: report.html in the run's folder, or here for several runs

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'out', NOT_EMPTY)
        if not self.runs:
            raise ValueError(f'{prefix}runs is not set: give RUN, the folder of a run, or several')


@dataclass
class ConvertHParams(HParams):
    """Exchanging models and labels with other programs."""

    source: str = None
    target: str = None
    savescope: Optional[str] = None  # which model of a run: policy, ref_policy or reward_model
    model: Optional[str] = None  # whose vocabulary labels are in; None: GPT-2's
    query_length: Optional[int] = None  # of labels, in tokens
    response_length: Optional[int] = None

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'source target savescope model', NOT_EMPTY)
        _check(self, prefix, 'query_length response_length', POSITIVE)


@dataclass
class LabelPageHParams(HParams):
    """Collecting labels from people on a local web page."""

    policy: str = None  # whose continuations are judged: a run folder, a model folder or the name of a model
    out: str = None
    savescope: str = 'policy'
    experiment: Optional[str] = None  # whose task it is, where the policy is not of a run
    type: Optional[str] = None  # None: that of the run's or experiment's labels
    num: int = 1000  # questions
    overlap: float = 0.0  # the share of questions that several people answer
    people: int = 5  # how many of them, for each of those questions
    queries: Optional[str] = None  # a data set; None: the task's
    mode: str = 'train'
    temperature: Optional[float] = None  # None: the task's
    scale: int = 5  # the best rating of scalar_rating
    instructions: Optional[str] = None
    seed: int = 0
    batch_size: int = 4  # queries at a time
    port: int = 0  # 0: any that is free

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        _check(self, prefix, 'policy out savescope experiment type queries instructions', NOT_EMPTY)
        _check(self, prefix, 'num temperature batch_size', POSITIVE)
        _check(self, prefix, 'overlap', UNIT_INTERVAL)
        _check(self, prefix, 'people', (lambda value: value >= 2, '2 or more'))
        _check(self, prefix, 'mode', PART)
        _check(self, prefix, 'scale', (lambda value: 2 <= value <= 9, 'between 2 and 9'))
        _check(self, prefix, 'seed', SEED)
        _check(self, prefix, 'port', PORT)


TREES = {  # of each command
    'train_reward': TrainRewardHParams,
    'train_policy': TrainPolicyHParams,
    'train_lm': TrainLmHParams,
    'sample': SampleHParams,
    'evaluate': EvaluateHParams,
    'report': ReportHParams,
    'convert': ConvertHParams,
    'label': LabelPageHParams,
}
