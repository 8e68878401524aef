"""Train a reward model on human choices between texts (section 2 of the paper).

The model starts from the language model that will be fine-tuned. It sees every label once, in random order. It is
normalized so that its rewards on that language model's own samples have mean 0 and standard deviation 1.
"""

from typing import Dict

import numpy as np

from lm_human_preferences.datasets.labels import check_teaches, load_labels
from lm_human_preferences.graph.memory import memory_given_back
from lm_human_preferences.hyperparameters import TrainRewardHParams as HParams
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.reward_trainer import Normalizer, RewardTrainer
from lm_human_preferences.runs.divergence import check_finite
from lm_human_preferences.runs.run_folder import REWARD_MODEL
from lm_human_preferences.training_stage import Stage, Trained

FIGURES_SHOWN = ('loss', 'accuracy', 'corr')


@memory_given_back()
def train(hparams: HParams) -> Trained:
    """Train a reward model as `hparams` say and save it under `run.save_dir`/reward_model.

    Return where that is, and the statistics of the last step.
    """
    stage = Stage(hparams, REWARD_MODEL, events='reward_model')
    if hparams.labels.schedule is not None:
        raise ValueError('labels.schedule collects labels while a policy trains: give it to train_policy')
    if stage.checkpoints.finished:
        stage.say(f'the reward model in {hparams.run.save_dir} is finished: {stage.step} steps')
        return stage.outcome(stage.step)
    initial_model = find_model(hparams.task.policy.initial_model)
    task = Task(hparams.task, initial_model.encoding())
    task.check_fits(initial_model.hparams.n_ctx, task.context_length)
    labels = stage.ranks.arrays_of_first(lambda: read_labels(hparams, task))
    queries = task.query_stream('train', stage.seed, stage.ranks, stage.checkpoints.position)
    stage.count_texts(hparams.task.query_dataset, queries.num_texts)
    if hparams.normalize_before or hparams.normalize_after:
        queries.check()

    def build():
        return RewardTrainer(hparams, task, initial_model.hparams, stage.ranks)

    def load(trainer):
        return trainer.load(initial_model, stage.is_new)

    def is_saved(variable):
        return not variable.name.startswith('ref_policy/')

    with stage.session(build, load, initial_model.hparams, task.encoding, is_saved) as trainer:
        normalizer = Normalizer(trainer, queries, stage.seed, stage.ranks)
        if hparams.normalize_before and stage.is_new:
            target_mean, target_std = trainer.label_type.target_moments(labels) or (0.0, 1.0)
            normalizer.normalize(target_mean, target_std, 'normalize before', step=0)

        # One pass in an order that all ranks share; each rank takes its stride of every batch.
        order = np.random.RandomState(stage.seed).permutation(hparams.labels.num_train)
        num_steps = hparams.labels.num_train // hparams.batch_size
        for step in stage.steps(num_steps, 'reward model'):
            batch = order[step * hparams.batch_size : (step + 1) * hparams.batch_size]
            share = batch[stage.ranks.rank :: stage.ranks.size]
            lr = hparams.lr * (1 - step / num_steps)
            stats = trainer.step({name: values[share] for name, values in labels.items()}, lr)
            check_finite(stats, step + 1)
            stats = stage.ranks.mean_stats(stats)
            stage.summaries.write(dict(stats, lr=lr), step)
            figures = stage.show(stats, FIGURES_SHOWN)
            if stage.is_logged(step, num_steps):
                stage.say(f'reward model step {step + 1}/{num_steps}  {figures}')
            if step + 1 < num_steps:
                stage.after_step(step + 1, queries.position)

        if hparams.normalize_after:
            normalizer.normalize(0.0, 1.0, 'normalize after', step=num_steps)
        stage.finish(num_steps, queries.position)
    stage.ranks.wait_for_all()  # a rank that reads the model next must find it whole
    return stage.outcome(num_steps)


def read_labels(hparams: HParams, task: Task) -> Dict[str, np.ndarray]:
    """Read the labels of a run: {field: [num_train, …]}. ValueError naming the entry for a label that does not fit."""
    label_type = get_label_type(hparams.labels.type)
    schema = label_schema(label_type, hparams.task.query_length, hparams.task.response_length)
    labels = load_labels(hparams.labels.source, schema, hparams.labels.num_train, task.encoding)
    check_teaches(hparams.labels.source, labels, needs_spread=hparams.normalize_before)
    return labels
