"""Time what happens before the first PPO step: imports, building the graph, setting the weights, and the first step.

    python benchmarks/startup.py                      # the demo, and a run of the size 124M
    python benchmarks/startup.py --against CHECKOUT   # compare with another checkout of this repository
    python benchmarks/startup.py --libraries          # compare our modules with libraries for the same task

Each case runs in its own process. Each line is a part of the start with its median seconds; `total` counts from the
start of the process. With --against there are two columns: the other checkout, then this one. The demo's reward model
is not trained: it has random weights.
"""

import argparse
import json
import statistics
import time

START = time.time()
CASES = ('demo', '124M')


def case(name: str) -> None:
    """Run one case up to its first PPO step, and print the seconds of each part as JSON."""
    parts, before = {}, [time.time()]
    parts['python'] = before[0] - START

    def done(part):
        now = time.time()
        parts[part] = now - before[0]
        before[0] = now

    import measuring  # noqa: F401  puts the checkout to measure on the path

    from lm_human_preferences.graph.tf_versions import new_session, tf

    done('import tensorflow')
    import numpy as np

    from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams, TrainPolicyHParams
    from lm_human_preferences.language.encodings import test_encoding
    from lm_human_preferences.language.trained_models import find_model
    from lm_human_preferences.method.lm_tasks import Task
    from lm_human_preferences.method.ppo import Rollouts
    from lm_human_preferences.method.ppo_trainer import PPOTrainer
    from lm_human_preferences.mpi.collectives import initialize_variables
    from lm_human_preferences.mpi.ranks import Ranks

    hparams = TrainPolicyHParams(task=TaskHParams(query_length=64, response_length=24))
    hparams.ppo.batch_size = 8
    demo = find_model('demo') if name == 'demo' else None
    model = demo.hparams if demo else ModelHParams()
    task = Task(hparams.task, demo.encoding() if demo else test_encoding())
    done('import and read the rest')
    ranks = Ranks()
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        trainer = PPOTrainer(hparams, task, model, model, ranks)
        done('build the graph')
        loaded = []
        if demo:
            loaded += demo.load(session, trainer.policy.model) + demo.load(session, trainer.ref_policy.model)
        initialize_variables(session, loaded, ranks)
        done('set the weights')
        random = np.random.RandomState(0)
        queries = random.randint(0, model.n_vocab, [8, 64])
        rollout = trainer.rollout(queries, random.random_sample([8, 24]))
        done('first rollout')
        episodes = [rollout[key] for key in ('queries', 'responses', 'logprobs', 'values', 'ref_logprobs')]
        trainer.train_on(Rollouts(*episodes), 1e-6, random)
        done('first updates')
    parts['total'] = time.time() - START
    print(json.dumps(parts))


def libraries() -> None:
    """Print the seconds of libraries and of our modules for the same tasks at the size 124M, the best of three."""
    import os
    import tempfile

    import measuring  # noqa: F401  finds the package that is measured
    import numpy as np

    from lm_human_preferences.graph.gradients import with_gradient
    from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
    from lm_human_preferences.graph.optimizer import minimize
    from lm_human_preferences.graph.tf_versions import tf
    from lm_human_preferences.utils.gc_pause import gc_paused
    from lm_human_preferences.utils.json_files import read_json

    shapes = [[1, 768, 2304], [2304], [1, 768, 768], [768], [1, 768, 3072], [3072], [1, 3072, 768]] + [[768]] * 5
    specs = {f'v{number}': VariableSpec(shape, stddev=0.02) for number, shape in enumerate(36 * shapes)}

    def get_variables():
        initializer = tf.random_normal_initializer(stddev=0.02)
        return [tf.get_variable(name, spec.shape, None, initializer, use_resource=True) for name, spec in specs.items()]

    def steps_of_adam(apply):
        variables = list(create_variables(specs).values())[:148]
        loss = tf.add_n([tf.reduce_sum(variable) for variable in variables])
        start = time.time()
        apply(loss, variables)
        return time.time() - start

    def functions(decorate):
        create_variables(specs)
        start = time.time()
        x = tf.constant(1.0)
        for _ in range(187):
            x = decorate(lambda x: (2 * x, lambda dy: 2 * dy))(x)
        return time.time() - start

    def best_of_three(action):
        seconds = []
        for _ in range(3):
            with tf.Graph().as_default(), gc_paused():
                start = time.time()
                timed = action()
                seconds.append(timed if isinstance(timed, float) else time.time() - start)
        return min(seconds)

    adam = tf.train.AdamOptimizer(1e-5, epsilon=1e-5)
    random = np.random.RandomState(0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'labels.json')
        samples = {f'sample{i}': random.randint(0, 50257, 24).tolist() for i in range(4)}
        label = dict(samples, query=random.randint(0, 50257, 64).tolist(), best=1)
        with open(path, 'w') as file:
            json.dump([label] * 5000, file)

        def plain_json():
            with open(path, encoding='utf-8') as file:
                json.load(file)

        rows = {
            '432 variables: tf.get_variable, create_variables': (get_variables, lambda: create_variables(specs)),
            '187 functions: tf.custom_gradient, with_gradient': [
                lambda decorate=decorate: functions(decorate) for decorate in (tf.custom_gradient, with_gradient)
            ],
            'Adam on 148 variables: AdamOptimizer, minimize': [
                lambda: steps_of_adam(lambda loss, variables: adam.minimize(loss, var_list=variables)),
                lambda: steps_of_adam(lambda loss, variables: minimize(loss, variables, tf.constant(1e-5), 'adam')),
            ],
            '5000 labels: json.load, read_json': (plain_json, lambda: read_json(path)),
        }
        for title, (theirs, ours) in rows.items():
            print(f'{title:52}{best_of_three(theirs):8.2f}{best_of_three(ours):8.2f} s', flush=True)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument('--case', choices=CASES, help='run only this case, in this process')
    flags.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    flags.add_argument('--against', help='folder of another checkout')
    flags.add_argument('--libraries', action='store_true', help='compare our modules with libraries for the same task')
    flags.add_argument('--repeats', type=int, default=3)
    flags = flags.parse_args()
    if flags.libraries:
        libraries()
        return
    if flags.case:
        case(flags.case)
        return
    from measuring import ROOT, figures_of

    checkouts = [flags.against, ROOT] if flags.against else [ROOT]
    for name in flags.cases:
        runs = [
            [figures_of('startup.py', f'--case={name}', checkout=checkout) for checkout in checkouts]
            for _ in range(flags.repeats)
        ]
        print(f'\n{name}: seconds' + (f', of {flags.against} and of this checkout' if flags.against else ''))
        for part in runs[0][0]:
            medians = [statistics.median(pair[i][part] for pair in runs) for i in range(len(checkouts))]
            print(f'  {part:26}' + ''.join(f'{seconds:8.2f}' for seconds in medians), flush=True)


if __name__ == '__main__':
    main()
