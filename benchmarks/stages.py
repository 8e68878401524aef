"""Run `train_policy` for a few steps: the memory of each of its stages, and what a save costs.

    python benchmarks/stages.py                      # 124M, reward training and then PPO
    python benchmarks/stages.py --stages policy      # PPO alone, against a trained reward model

Weights are random, labels are zero, queries are letters. Columns: `stage`; `peak GB` and `GB at its end` of resident
memory; `steps` and the median seconds of one, with `processor s` of all threads; `saves`, with the seconds, processor
seconds and bytes that the median save writes to disk; `of 50 steps`, its share of the time of the 50 steps to the next
save. `first GB` and `last GB` are those of the stage's first save and of the one at its end; the others are medians of
those between. The run itself prints to standard error.
"""

import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from typing import Callable, Dict, Iterator, List, Sequence, Set

from measuring import json_line, model_size, parser, table

from lm_human_preferences import train_policy, train_reward
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import Encoding, byte_symbols
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import save_model_folder
from lm_human_preferences.runs.checkpoints import CheckpointWriter

INTERVAL = 50  # steps between two saves of a run, by default
SECONDS_BETWEEN_LOOKS = 0.02


def resident_gigabytes() -> float:
    """Return the resident memory of this process now, in 2³⁰ bytes."""
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**30


class Watch:
    """What was measured of each stage of the run in this process."""

    def __init__(self):
        self.stages: Dict[str, Dict[str, List[Sequence[float]]]] = {}
        self._name = None

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Follow the resident memory inside the block."""
        over = threading.Event()

        def look():
            while not over.wait(SECONDS_BETWEEN_LOOKS):
                if self._name:
                    self.note('gigabytes', resident_gigabytes())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def note(self, what: str, *figures: float) -> None:
        """Add a measurement, a row of figures, to the stage that runs now."""
        self.stages[self._name].setdefault(what, []).append(figures)

    def stage(self, name: str, function: Callable) -> Callable:
        """Return `function`, which runs a stage, so that what happens in it counts to `name`."""

        def wrapped(*arguments):
            self.stages[name], self._name = {}, name
            try:
                return function(*arguments)
            finally:
                self.note('gigabytes', resident_gigabytes())
                self._name = None

        return wrapped

    def timed(self, what: str, function: Callable) -> Callable:
        """Return `function` so that its seconds and processor seconds are noted."""

        def wrapped(*arguments, **named):
            start, processor = time.perf_counter(), time.process_time()
            result = function(*arguments, **named)
            self.note(what, time.perf_counter() - start, time.process_time() - processor)
            return result

        return wrapped


def bytes_written(folder: str, seen: Set[int]) -> int:
    """Return the bytes of the files below a folder whose inodes are not in `seen`, and add them there."""
    new = 0
    for parent, _, names in os.walk(folder):
        for status in (os.stat(os.path.join(parent, name)) for name in names):
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                new += status.st_size
    return new


def save_random_model(folder: str, hparams: ModelHParams, reward: bool = False) -> None:
    """Save a model with random weights, whose vocabulary is letters and words without meaning."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        model = Model(hparams, scope='reward_model/model' if reward else 'model', heads=['reward'] if reward else [])
        variables = list(model.variables.values())
        if reward:
            names = [f'reward_model/reward_norm/{name}' for name in ('gain', 'bias')]
            variables += [tf.get_variable(name, [], use_resource=True) for name in names]
        session.run(tf.variables_initializer(variables))
        symbols = list(byte_symbols().values())
        encoder = {symbol: token for token, symbol in enumerate(symbols)}
        for first in symbols:
            for second in symbols:
                if len(encoder) < hparams.n_vocab:
                    encoder[first + second] = len(encoder)
        save_model_folder(folder, hparams, Encoding('own', encoder, []))
        CheckpointWriter(folder, variables).save(session, 0)


def hyperparameters(flags, folder: str) -> train_policy.HParams:
    """Return the hyperparameters of a run of a few steps, which saves after every step."""
    hparams = train_policy.HParams()
    hparams.override_from_dict(
        {
            'run.seed': 1,
            'run.save_dir': os.path.join(folder, 'run'),
            'run.save_interval': 1,
            'run.dtype': flags.dtype,
            'task.query_length': flags.query,
            'task.response_length': flags.response,
            'task.query_dataset': 'test',
            'task.policy.initial_model': os.path.join(folder, 'initial'),
            'ppo.batch_size': flags.batch,
            'ppo.total_episodes': flags.batch * flags.steps,
        }
    )
    if flags.stages == 'policy':
        hparams.rewards.trained_model = os.path.join(folder, 'reward_model')
        return hparams
    hparams.override_from_dict(
        {
            'rewards.train_new_model': 'on',
            'rewards.train_new_model.run.seed': 1,
            'rewards.train_new_model.run.save_interval': 1,
            'rewards.train_new_model.run.dtype': flags.dtype,
            'rewards.train_new_model.batch_size': flags.labels,
            'rewards.train_new_model.labels.num_train': flags.labels * flags.steps,
            'rewards.train_new_model.labels.type': 'best_of_4',
            'rewards.train_new_model.labels.source': 'test',
        }
    )
    hparams.rewards.train_new_model.task = hparams.task
    return hparams


def measure(flags, folder: str) -> Watch:
    """Run the stages in `folder`, and return what was measured."""
    size = model_size(flags.model)
    save_random_model(os.path.join(folder, 'initial'), size)
    if flags.stages == 'policy':
        save_random_model(os.path.join(folder, 'reward_model'), size, reward=True)
    watch = Watch()
    run, seen = os.path.join(folder, 'run'), set()
    save = watch.timed('saves', CheckpointWriter.save)

    def noted_save(*arguments, **named):
        seen.clear()
        bytes_written(run, seen)  # an inode of a removed file can come again
        save(*arguments, **named)
        watch.note('bytes', bytes_written(run, seen))

    CheckpointWriter.save = noted_save
    train_policy.ppo_step = watch.timed('steps', train_policy.ppo_step)
    train_reward.RewardTrainer.step = watch.timed('steps', train_reward.RewardTrainer.step)
    train_policy.train_new_reward_model = watch.stage('reward model', train_policy.train_new_reward_model)
    train_policy.fine_tune = watch.stage('policy', train_policy.fine_tune)
    with watch.looking(), contextlib.redirect_stdout(sys.stderr):
        train_policy.train(hyperparameters(flags, folder))
    return watch


def summary(stage: Dict[str, List[Sequence[float]]]) -> Dict[str, object]:
    """Return the figures of one stage by their columns."""

    def median(what, column):
        rows = stage[what]
        return statistics.median(row[column] for row in (rows[1:-1] or rows))

    save = median('saves', 0)
    return {
        'peak GB': max(stage['gigabytes'])[0],
        'GB at its end': stage['gigabytes'][-1][0],
        'steps': len(stage['steps']),
        's a step': median('steps', 0),
        'processor s': median('steps', 1),
        'saves': len(stage['saves']),
        's a save': save,
        'its processor s': median('saves', 1),
        'its GB': median('bytes', 0) / 2**30,
        'first GB': stage['bytes'][0][0] / 2**30,
        'last GB': stage['bytes'][-1][0] / 2**30,
        f'of {INTERVAL} steps': f'{save / (INTERVAL * median("steps", 0)):.2%}',
    }


def main() -> None:
    flags = parser(__doc__)
    flags.add_argument('--labels', type=int, default=32, help='labels in a batch of reward training')
    flags.add_argument('--steps', type=int, default=4, help='steps of each stage')
    flags.add_argument('--stages', default='both', choices=['both', 'policy'])
    given = flags.parse_args()
    folder = tempfile.mkdtemp()
    try:
        watch = measure(given, folder)
    finally:
        shutil.rmtree(folder)
    figures = {name: summary(stage) for name, stage in watch.stages.items()}
    table(['stage', *next(iter(figures.values()))], [[name, *row.values()] for name, row in figures.items()])
    print(f'TensorFlow {tf.__version__}, {given.dtype}, {given.model}')
    if given.json:
        json_line(figures)


if __name__ == '__main__':
    main()
