"""Do updates on given batches, each rank on its share. The first rank saves the outcome. ranks_test.py runs this.

python rank_script.py OUTPUT.npz BACKEND …
"""

import os
import sys

import numpy as np

from lm_human_preferences.graph import variables
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.method.label_types import label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.ppo import Rollouts
from lm_human_preferences.method.ppo_trainer import PPOTrainer
from lm_human_preferences.method.reward_trainer import RewardTrainer
from lm_human_preferences.mpi import collectives, ranks
from lm_human_preferences.mpi.collectives import initialize_variables

TASK = {
    'task.query_length': 2,
    'task.response_length': 3,
    'task.query_dataset': 'test',
    'task.policy.initial_model': 'test',
}
BATCH = 32
UPDATES = 3


def main(output, backends):
    me = ranks.Ranks()
    variables.CHUNK_BYTES = 700  # many chunks, and tensors that are larger than one
    ranks._SMALL_BYTES, ranks._BLOCK_BYTES = 100, 64  # tensors that travel together, and in blocks
    outcome = {}
    for backend in backends:
        os.environ[collectives.CHOICE_VARIABLE] = backend
        outcome[f'{backend}/described'] = collectives.describe(me)
        for case, build in CASES.items():
            if backend == 'horovod' and case not in HOROVOD_CASES:
                continue
            with tf.Graph().as_default() as graph, new_session(graph, me.threads()) as session:
                tf.set_random_seed(1 + me.rank)  # so that ranks agree only because of the broadcast
                trained, update = build(session, me)
                before = session.run(trained)
                for _ in range(UPDATES):
                    stats = update()
                after = session.run(trained)
            for name in trained:
                np.testing.assert_array_equal(me.broadcast(after[name]), after[name], f'{case}: {name}')
                outcome[f'{backend}/{case}/before/{name}'] = before[name]
                outcome[f'{backend}/{case}/after/{name}'] = after[name]
            for name, value in me.mean_stats(stats).items():
                outcome[f'{backend}/{case}/stats/{name}'] = value
    if me.is_first:
        np.savez(output, **outcome)


def episodes() -> Rollouts:
    """Return a batch whose shares differ in mean and variance."""
    random = np.random.RandomState(0)
    level = np.arange(BATCH)[:, np.newaxis] % 4
    return Rollouts(
        queries=random.randint(0, 27, [BATCH, 2]),
        responses=random.randint(0, 27, [BATCH, 3]),
        logprobs=np.log(1 / 27) + 0.1 * random.randn(BATCH, 3),
        values=level + random.randn(BATCH, 3),
        rewards=level + random.randn(BATCH, 3) * (1 + level),
    )


def ppo(whiten_rewards):
    def build(session, me):
        hparams = TrainPolicyHParams()
        hparams.override_from_dict(dict(TASK, **{'ppo.batch_size': BATCH, 'ppo.whiten_rewards': whiten_rewards}))
        hparams.rewards.trained_model = 'test'
        hparams.validate(num_ranks=me.size)
        source = find_model('test')
        task = Task(hparams.task, source.encoding())
        trainer = PPOTrainer(hparams, task, source.hparams, source.hparams, me)
        loaded = trainer.reward_model.load(session, find_reward_model('test')) if me.is_first else []
        initialize_variables(session, loaded, me)
        share = Rollouts(*(array[me.rank :: me.size] for array in episodes()))
        return trainer.policy.model.variables, lambda: trainer.update(share, 1e-3)

    return build


def reward(label_type):
    def build(session, me):
        hparams = TrainRewardHParams()
        hparams.override_from_dict(dict(TASK, batch_size=BATCH))
        hparams.override_from_dict({'labels.type': label_type, 'labels.num_train': BATCH, 'labels.source': 'test'})
        hparams.validate(num_ranks=me.size)
        source = find_model('test')
        trainer = RewardTrainer(hparams, Task(hparams.task, source.encoding()), source.hparams, me)
        initialize_variables(session, source.load(session, trainer.reward_model.model) if me.is_first else [], me)
        random = np.random.RandomState(0)
        labels = {}
        for name, (dtype, shape) in sorted(label_schema(trainer.label_type, 2, 3).items()):
            shape = (BATCH,) + shape
            tokens = 4 if name == 'best' else 27  # with four tokens many samples would be equal
            labels[name] = random.randn(*shape) if dtype == np.float32 else random.randint(0, tokens, shape)
        share = {name: values[me.rank :: me.size] for name, values in labels.items()}
        trained = {variable.name: variable for variable in trainer.trained_variables}
        return trained, lambda: trainer.step(share, 1e-3)

    return build


CASES = {
    'ppo': ppo(whiten_rewards=False),
    'whitened ppo': ppo(whiten_rewards=True),
    'best_of_4': reward('best_of_4'),
    'scalar_rating': reward('scalar_rating'),
}
HOROVOD_CASES = ['ppo']  # the others differ only in collectives that always use mpi4py

if __name__ == '__main__':
    main(sys.argv[1], sys.argv[2:])
