"""Hyperparameters of the commands that do not train: sample, evaluate, report, convert and label."""

from dataclasses import dataclass
from typing import List, Optional

from lm_human_preferences.hyperparameters.rules import (
    NOT_EMPTY,
    NOT_NEGATIVE,
    PORT,
    POSITIVE,
    SEED,
    SPLIT,
    TEMPERATURE,
    TEMPERATURE_OR_0,
    TWO_OR_MORE,
    UNIT_INTERVAL,
    check,
    check_float32,
)
from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class SampleHParams(HParams):
    """Printing of responses that trained policies give to queries."""

    save_dir: Optional[str] = hparam(None, 'Folder of the run whose policy responds: a path, gs://, https:// or hf://.')
    savescope: str = hparam('policy', 'Model of the run: policy, or ref_policy for the initial policy.')
    policies: List[str] = hparam(
        list, 'Policies to compare on the same queries: runs, models, or `initial`, the initial policy of the run.'
    )
    prompt: Optional[str] = hparam(None, "A query of your own. '-' reads it from standard input.")
    prompt_file: Optional[str] = hparam(None, 'File with a query of your own; a .jsonl file has one on each line.')
    temperature: float = hparam(1.0, 'Sampling temperature. 0: always the most likely token.')
    top_k: int = hparam(0, 'Sample only from the K most likely tokens. 0: from all.')
    top_p: float = hparam(1.0, 'Sample only from the most likely tokens whose probabilities add up to this share.')
    seed: Optional[int] = hparam(None, 'Seed of queries and samples. None: a new one each time.')
    batch_size: int = hparam(4, 'Queries at a time, over all ranks.')
    nsamples: int = hparam(0, 'Number of queries. 0: no end, or each prompt once.')
    scores: bool = hparam(False, "Print the score of the run's reward model, too.")
    jsonl: bool = hparam(False, 'Print one JSON object on a line for each response.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check_float32(self, prefix)
        check(self, prefix, 'save_dir savescope prompt_file', NOT_EMPTY)
        check(self, prefix, 'prompt', (bool, 'a text'))
        check(self, prefix, 'batch_size', POSITIVE)
        check(self, prefix, 'temperature', TEMPERATURE_OR_0)
        check(self, prefix, 'nsamples top_k', NOT_NEGATIVE)
        check(self, prefix, 'top_p', (lambda value: 0 < value <= 1, 'above 0 and at most 1'))
        check(self, prefix, 'seed', SEED)
        if self.save_dir is None and not self.policies:
            raise ValueError(f'{prefix}save_dir is not set: give --{prefix}save_dir=RUN, or --{prefix}policies RUN …')
        if self.prompt is not None and self.prompt_file is not None:
            raise ValueError(f'{prefix}prompt and {prefix}prompt_file are both set: give one of them')


@dataclass
class EvaluateHParams(HParams):
    """Measuring policies on held-out queries, and a reward model on labels."""

    run: Optional[str] = hparam(
        None, 'Folder of the run whose task and reward model are used. None: the first of the policies.'
    )
    policies: List[str] = hparam(
        list, 'Policies to measure: runs, models, or `initial`. None given: `initial` and the policy of the run.'
    )
    labels: Optional[str] = hparam(None, 'Label file, or data set with labels, on which the reward model is measured.')
    label_type: Optional[str] = hparam(
        None, 'Type of these labels. None: the type that the reward model was trained on.'
    )
    num_labels: int = hparam(0, 'Number of labels to use. 0: all.')
    reward_model: Optional[str] = hparam(None, 'Folder of a run whose reward model scores. None: that of the run.')
    num_checkpoints: int = hparam(
        8, 'Number of earlier checkpoints of the reward model to measure, too.', aliases=['checkpoints']
    )
    num_queries: int = hparam(512, 'Number of held-out queries.', aliases=['queries'])
    batch_size: int = hparam(64, 'Queries or labels at a time.')
    temperature: Optional[float] = hparam(None, 'Sampling temperature. None: that of the task.')
    query_dataset: Optional[str] = hparam(None, 'Data set of the queries. None: that of the task.')
    split: str = hparam('test', 'Split of the data set: train, valid or test.', aliases=['part'])
    seed: int = hparam(20190918, 'Seed of queries, samples and labels.')
    out: Optional[str] = hparam(None, 'Folder for the figures. None: that of the run, if it is local.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check_float32(self, prefix)
        check(self, prefix, 'run labels label_type reward_model query_dataset out', NOT_EMPTY)
        check(self, prefix, 'num_queries batch_size', POSITIVE)
        check(self, prefix, 'temperature', TEMPERATURE)
        check(self, prefix, 'num_labels num_checkpoints', NOT_NEGATIVE)
        check(self, prefix, 'seed', SEED)
        if self.run is None and not self.policies and (self.reward_model is None or self.labels is None):
            raise ValueError(f'{prefix}run is not set: give RUN, or --{prefix}policies RUN …')
        check(self, prefix, 'split', SPLIT)


@dataclass
class ReportHParams(HParams):
    """Writing of one HTML page about runs."""

    runs: List[str] = hparam(list, 'Folders of runs, or folders that hold runs.')
    out: Optional[str] = hparam(
        None, 'File to write. None: report.html in the folder of the run, or here for several runs.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'out', NOT_EMPTY)
        if not self.runs:
            raise ValueError(f'{prefix}runs is not set: give RUN, the folder of a run, or several')


@dataclass
class ConvertHParams(HParams):
    """Exchange of models and labels with other programs."""

    source: str = hparam(None, 'Model or label file to read.')
    target: Optional[str] = hparam(None, 'Folder or file to write; it must not exist. None: only `push` is done.')
    push: Optional[str] = hparam(
        None, 'Upload the model for transformers, with a model card: hf://OWNER/NAME, perhaps with @BRANCH.'
    )
    private: bool = hparam(False, 'If `push` makes a new repository, make it private.')
    savescope: Optional[str] = hparam(None, 'Model of a run: policy, ref_policy or reward_model. None: the policy.')
    model: Optional[str] = hparam(None, "Model or run with the vocabulary of the labels. None: GPT-2's vocabulary.")
    query_length: Optional[int] = hparam(None, 'Length of the queries of labels, in tokens. None: from `model`.')
    response_length: Optional[int] = hparam(None, 'Length of the responses of labels, in tokens. None: from `model`.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'source target savescope model', NOT_EMPTY)
        check(self, prefix, 'query_length response_length', POSITIVE)
        if self.target is None and self.push is None:
            raise ValueError(f'{prefix}target is not set: give TARGET, a folder or file to write, or --{prefix}push')
        if self.push is not None and not self.push.startswith('hf://'):
            raise ValueError(f'{prefix}push must be hf://OWNER/NAME, not {self.push!r}')


@dataclass
class LabelPageHParams(HParams):
    """Collecting labels from people on a local web page (section 2.4 of the paper)."""

    policy: str = hparam(None, 'Policy whose responses people judge: a run, a model folder, or the name of a model.')
    out: str = hparam(None, 'Label file to write.')
    savescope: str = hparam('policy', 'Model of the run: policy, or ref_policy for the initial policy.')
    experiment: Optional[str] = hparam(None, 'Experiment that gives the task. None: the task of the run.')
    type: Optional[str] = hparam(
        None, 'Type of the labels: best_of_N, scalar_rating or scalar_compare. None: that of the run or experiment.'
    )
    num_questions: int = hparam(1000, 'Number of questions.', aliases=['num'])
    overlap: float = hparam(0.0, 'Share of the questions that several people answer, 0 to 1 (section 2.4).')
    num_people: int = hparam(5, 'Number of people who answer each of these shared questions.', aliases=['people'])
    query_dataset: Optional[str] = hparam(None, 'Data set of the queries. None: that of the task.', aliases=['queries'])
    split: str = hparam('train', 'Split of the data set: train, valid or test.', aliases=['mode'])
    temperature: Optional[float] = hparam(None, 'Sampling temperature. None: that of the task.')
    scale: int = hparam(5, 'Best rating of scalar_rating, 2 to 9; the worst is 1.')
    instructions: Optional[str] = hparam(
        None, 'Instructions for people: a name or a text file. None: those of the experiment or the data set.'
    )
    seed: int = hparam(0, 'Seed of queries and samples.')
    batch_size: int = hparam(4, 'Queries at a time.')
    port: int = hparam(0, 'Port of the label page. 0: any free port.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'policy out savescope experiment type query_dataset instructions', NOT_EMPTY)
        check(self, prefix, 'num_questions batch_size', POSITIVE)
        check(self, prefix, 'temperature', TEMPERATURE)
        check(self, prefix, 'overlap', UNIT_INTERVAL)
        check(self, prefix, 'num_people', TWO_OR_MORE)
        check(self, prefix, 'split', SPLIT)
        check(self, prefix, 'scale', (lambda value: 2 <= value <= 9, 'between 2 and 9'))
        check(self, prefix, 'seed', SEED)
        check(self, prefix, 'port', PORT)
        if self.type not in (None, 'scalar_rating') and self.scale != type(self).scale:
            raise ValueError(f'{prefix}scale is for scalar_rating, and {prefix}type is {self.type}: leave it out')
