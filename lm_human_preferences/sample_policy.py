"""Print queries and what a trained policy makes of them."""

import os
from typing import Optional

from lm_human_preferences.hyperparameters import TaskHParams, TrainPolicyHParams
from lm_human_preferences.language.trained_models import TrainedModel, find_model, initialize
from lm_human_preferences.lm_tasks import Task
from lm_human_preferences.policy import Policy
from lm_human_preferences.utils.ranks import Ranks
from lm_human_preferences.utils.seeds import shared_seed, uniform_generator
from lm_human_preferences.utils.tf_versions import new_session, tf

HPARAMS_FILE = 'train_policy_hparams.json'


def sample(
    save_dir: str,
    savescope: str = 'policy',
    temperature: float = 1.0,
    seed: Optional[int] = None,
    batch_size: int = 4,
    nsamples: int = 0,
) -> None:
    """Print samples of the policy in the run folder `save_dir`, for ever when `nsamples` is 0.

    Args:
      savescope: whose weights to use, of those in the checkpoint: `policy`, or `ref_policy` for the initial model.
      temperature: replaces the one the policy was trained at.
      batch_size, nsamples: over all ranks; each rank prints its own share.
    """
    ranks = Ranks()
    seed = shared_seed(seed, ranks)
    task_hparams = load_task_hparams(save_dir)
    task_hparams.policy.temperature = temperature
    trained = find_model(os.path.join(save_dir, 'policy'), savescope)
    task = Task(task_hparams, trained.encoding())
    batch = ranks.share(batch_size)
    queries = task.query_stream('test', seed, ranks)
    uniforms = uniform_generator(seed, ranks)
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        sampler = Sampler(session, trained, task, batch, ranks)
        remaining = ranks.share(nsamples) if nsamples else None
        while remaining is None or remaining > 0:
            batch_queries = queries.next_batch(batch)
            responses = sampler.respond(batch_queries, uniforms(batch, task_hparams.response_length))
            for query, response in list(zip(batch_queries, responses))[:remaining]:
                print(f'{one_line(task, query)}\n  ▸ {one_line(task, response)}', flush=True)
            remaining = None if remaining is None else remaining - batch


class Sampler:
    """A trained policy in a session, responding to batches of one size."""

    def __init__(self, session: tf.Session, trained: TrainedModel, task: Task, batch: int, ranks: Ranks):
        self._session = session
        policy = Policy(trained.hparams, task, scope='policy')
        self._queries = tf.placeholder(tf.int32, [batch, task.hparams.query_length])
        self._uniforms = tf.placeholder(tf.float32, [batch, task.hparams.response_length])
        self._responses, _ = task.truncate(policy.respond(self._queries, self._uniforms)['responses'])
        initialize(session, trained.load(session, policy.model) if ranks.is_first else [], ranks)

    def respond(self, queries, uniforms):
        """Responses [batch, response_length], truncated as they are scored, to queries [batch, query_length]."""
        return self._session.run(self._responses, {self._queries: queries, self._uniforms: uniforms})


def one_line(task: Task, tokens) -> str:
    """The text of tokens with its newlines shown as ⏎."""
    return task.encoding.decode(tokens).replace('\n', '⏎')


def load_task_hparams(save_dir: str) -> TaskHParams:
    """The task that the policy in a run folder was trained on."""
    path = os.path.join(save_dir, HPARAMS_FILE)
    if not os.path.exists(path):
        raise FileNotFoundError(f'{save_dir}: not the folder of a policy: there is no {HPARAMS_FILE}')
    hparams = TrainPolicyHParams()
    hparams.override_from_json_file(path)
    return hparams.task
