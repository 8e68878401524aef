"""Hyperparameters that training commands share: the run and the task."""

from dataclasses import dataclass
from typing import Optional

from lm_human_preferences.hyperparameters.rules import NOT_EMPTY, NOT_NEGATIVE, POSITIVE, SEED, check
from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class RunHParams(HParams):
    """How a run is seeded, logged and saved."""

    seed: Optional[int] = hparam(None, 'Seed of all random numbers. None: a seed drawn at the start and then kept.')
    log_interval: int = hparam(10, 'Steps between two reports of statistics.')
    save_interval: int = hparam(50, 'Steps between two checkpoints. 0: one checkpoint, at the end.')
    save_dir: Optional[str] = hparam(
        None, 'Folder of the run. The command line sets it to SAVE_DIR/NAME. None: nothing is saved.'
    )
    dtype: str = hparam(
        'float32', 'Type of matrix products: float32 or bfloat16. Weights, softmax and losses stay float32.'
    )
    tf32: bool = hparam(
        False, 'Compute float32 products in TensorFloat-32, on GPUs from Ampere on: faster, with 10 bits of precision.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'seed', SEED)
        check(self, prefix, 'log_interval', POSITIVE)
        check(self, prefix, 'save_interval', NOT_NEGATIVE)
        check(self, prefix, 'save_dir', NOT_EMPTY)
        check(self, prefix, 'dtype', (('float32', 'bfloat16').__contains__, 'float32 or bfloat16'))


@dataclass
class PolicyHParams(HParams):
    """The language model that responds."""

    temperature: float = hparam(1.0, 'Sampling temperature of the policy.')
    initial_model: str = hparam(
        None,
        'Language model to start from: a name such as 124M or demo, a run, or a model folder, also of Hugging Face.',
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'temperature', POSITIVE)
        check(self, prefix, 'initial_model', NOT_EMPTY)


@dataclass
class TaskHParams(HParams):
    """The task: queries from a data set, and responses of a fixed length (both in tokens)."""

    query_length: int = hparam(None, 'Length of a query, in tokens. Longer queries are cut, shorter ones padded.')
    query_dataset: str = hparam(
        None, 'Data set of the queries: a name such as books, or text:PATH, jsonl:PATH, parquet:PATH#COLUMN.'
    )
    query_prefix: str = hparam('', 'Text before each query in the context.')
    query_suffix: str = hparam('', 'Text after each query in the context.')
    start_text: Optional[str] = hparam(
        '.', "A query starts after the text's first token equal to this text. None: it starts with the text."
    )
    end_text: Optional[str] = hparam(
        None, 'A query ends with its last token equal to this text. None: it ends at query_length.'
    )
    response_length: int = hparam(None, 'Length of a response, in tokens.')
    truncate_token: Optional[int] = hparam(
        None, 'Token that ends a response before it is scored. None: the whole response is scored.'
    )
    truncate_after: int = hparam(0, 'Number of first tokens of a response among which truncate_token is ignored.')
    penalty_reward_value: int = hparam(-1, 'Score of a response without truncate_token.')
    policy: PolicyHParams = hparam(PolicyHParams, 'The language model that responds.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'query_length response_length', POSITIVE)
        check(self, prefix, 'truncate_token truncate_after', NOT_NEGATIVE)
        check(self, prefix, 'query_dataset', NOT_EMPTY)
