"""What the demo achieved, on snippets and queries that took no part in training.

python -m lm_human_preferences.demo.evaluation RUN_DIR
"""

import os
import sys
from typing import Dict, List, NamedTuple

import numpy as np

from lm_human_preferences.demo import data
from lm_human_preferences.demo.judges import RidgeJudge, choice_accuracy, choices_of, vader_score
from lm_human_preferences.language.datasets import QueryStream
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.lm_tasks import Task
from lm_human_preferences.policy import Policy
from lm_human_preferences.rewards import RewardModel
from lm_human_preferences.run_folder import RunFolder
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.progress import progress
from lm_human_preferences.utils.tf_versions import new_session, tf

CHOICES = 800
QUERIES = 512
BATCH = 64
SEED = 20190918  # of the evaluation alone: every run is asked the same
RESULTS_FILE = 'evaluation.json'


class Continuations(NamedTuple):
    """One policy's responses to the held-out queries."""

    texts: List[str]
    scores: np.ndarray  # of the reward model, [queries]
    valid: np.ndarray  # whether the response ended in time, [queries]
    kl: np.ndarray  # log-probability over the initial model's, summed over the response (nats), [queries]


class Evaluator:
    """The models of a finished run, in one session."""

    def __init__(self, run_dir: str):
        self.run_dir = run_dir
        policy_folder = os.path.join(run_dir, 'policy')
        trained, initial = find_model(policy_folder, 'policy'), find_model(policy_folder, 'ref_policy')
        reward_source = find_reward_model(run_dir)
        self.task = Task(RunFolder(run_dir).task, trained.encoding())
        self.encoding: Encoding = self.task.encoding
        hparams = self.task.hparams
        graph = tf.Graph()
        with graph.as_default():
            self._session = new_session(graph)
            policy = Policy(trained.hparams, self.task, 'policy')
            reference = Policy(initial.hparams, self.task, 'ref_policy')
            reward_model = RewardModel(reward_source.hparams, self.task)
            self._queries = tf.placeholder(tf.int32, [BATCH, hparams.query_length])
            self._given = tf.placeholder(tf.int32, [BATCH, hparams.response_length])
            self._uniforms = tf.placeholder(tf.float32, [BATCH, hparams.response_length])
            self._rewards = reward_model.rewards(self._queries, self._given)
            self._continuations = {}
            for name, model in (('initial', reference), ('fine-tuned', policy)):
                response = model.respond(self._queries, self._uniforms)
                truncated, valid = self.task.truncate(response['responses'])
                logprobs = reference.analyze_responses(self._queries, response['responses'])['logprobs']
                self._continuations[name] = dict(
                    responses=truncated,
                    valid=valid,
                    scores=reward_model.rewards(self._queries, truncated),
                    kl=tf.reduce_sum(response['logprobs'] - logprobs, axis=1),
                )
            trained.load(self._session, policy.model)
            initial.load(self._session, reference.model)
            reward_model.load(self._session, reward_source)
            graph.finalize()

    def reward(self, queries: np.ndarray, responses: np.ndarray) -> np.ndarray:
        """Rewards [n] of responses [n, response_length] to queries [n, query_length]."""
        rewards = []
        for start in range(0, len(queries), BATCH):
            # The last batch is filled up with its own first rows again.
            rows = np.arange(start, start + BATCH) % len(queries)
            rewards.append(
                self._session.run(self._rewards, {self._queries: queries[rows], self._given: responses[rows]})
            )
        return np.concatenate(rewards)[: len(queries)]

    def reward_accuracy(self, labels: Dict[str, np.ndarray]) -> float:
        """How often the sample with the highest reward is the one that people rated highest."""
        rewards = [self.reward(labels['query'], labels[f'sample{i}']) for i in range(4)]
        return float(np.mean(np.argmax(rewards, axis=0) == labels['best']))

    def continuations(self) -> Dict[str, Continuations]:
        """Both policies' responses to the same held-out queries, by the same random numbers."""
        hparams = self.task.hparams
        stream = QueryStream.of_task(hparams, 'test', self.encoding, SEED)
        random = np.random.RandomState(SEED)
        batches = []
        for _ in progress(range(QUERIES // BATCH), 'evaluation'):
            uniforms = random.random_sample((BATCH, hparams.response_length))
            batches.append(
                self._session.run(
                    self._continuations, {self._queries: stream.next_batch(BATCH), self._uniforms: uniforms}
                )
            )
        found = {}
        for name in ('initial', 'fine-tuned'):
            parts = {key: np.concatenate([batch[name][key] for batch in batches]) for key in batches[0][name]}
            texts = [self.encoding.decode(tokens).strip() for tokens in parts.pop('responses')]
            found[name] = Continuations(texts=texts, **parts)
        return found


def evaluate(run_dir: str) -> Dict[str, float]:
    """Measure a finished run of the demo, write `evaluation.json` beside it, and return the figures."""
    evaluator = Evaluator(run_dir)
    hparams = evaluator.task.hparams
    labels = data.best_of_4_labels(
        'test', CHOICES, evaluator.encoding, hparams.query_length, hparams.response_length, SEED
    )
    figures = {
        'reward_accuracy': evaluator.reward_accuracy(labels),
        'vader_accuracy': choice_accuracy(vader_score, choices_of(labels, evaluator.encoding)),
        'choices': CHOICES,
        'queries': QUERIES,
    }
    continuations = evaluator.continuations()
    ridge = RidgeJudge.of_people()
    judged = {}
    for name, responses in continuations.items():
        judged[name] = {
            'score': responses.scores,
            'vader': np.array([vader_score(text) for text in responses.texts]),
            'ridge': ridge.scores(responses.texts),
        }
        figures.update({f'{name}/{judge}': float(scores.mean()) for judge, scores in judged[name].items()})
        figures[f'{name}/valid'] = float(responses.valid.mean())
        figures[f'{name}/kl'] = float(responses.kl.mean())
        words = [word for text in responses.texts for word in text.split()]
        figures[f'{name}/distinct_words'] = len(set(words)) / max(1, len(words))
    for judge in judged['initial']:
        before, after = judged['initial'][judge], judged['fine-tuned'][judge]
        figures[f'more_positive/{judge}'] = float(np.mean(after > before))
        figures[f'as_positive/{judge}'] = float(np.mean(after == before))
    write_json(os.path.join(run_dir, RESULTS_FILE), figures)
    return figures


def table(figures: Dict[str, float]) -> str:
    """The figures as a person reads them."""
    interval = 1.96 * np.sqrt(figures['reward_accuracy'] * (1 - figures['reward_accuracy']) / figures['choices'])
    lines = [
        f'Reward model on {figures["choices"]} held-out human choices of the best of 4',
        f'  {"picks what people rated highest":38}{figures["reward_accuracy"]:8.1%} ± {interval:.1%}',
        f'  {"VADER’s lexicon":38}{figures["vader_accuracy"]:8.1%}',
        f'  {"picking at random":38}{0.25:8.1%}',
        '',
        f'{"Policy on " + str(figures["queries"]) + " held-out queries":40}{"initial":>10}{"fine-tuned":>12}',
    ]
    rows = [
        ('mean score of the reward model', 'score', '.2f'),
        ('KL from the initial model (nats)', 'kl', '.1f'),
        ('VADER (−1 to 1)', 'vader', '.2f'),
        ('ridge regression on ratings (−4 to 4)', 'ridge', '.2f'),
        ('responses that end in time', 'valid', '.0%'),
        ('distinct words', 'distinct_words', '.0%'),
    ]
    for title, key, form in rows:
        lines.append(f'  {title:38}{figures["initial/" + key]:>10{form}}{figures["fine-tuned/" + key]:>12{form}}')
    lines += ['', f'{"Continuation more positive than the initial model’s":52}{"more":>6}{"as much":>10}']
    judges = [('score', 'reward model (trained against)'), ('vader', 'VADER'), ('ridge', 'ridge regression')]
    for judge, title in judges:
        more, equal = figures[f'more_positive/{judge}'], figures[f'as_positive/{judge}']
        lines.append(f'  judged by {title:40}{more:>6.0%}{equal:>10.0%}')
    return '\n'.join(lines)


def report(run_dir: str) -> None:
    """Evaluate a finished run and print the table."""
    print(f'\n{table(evaluate(run_dir))}\n', flush=True)


if __name__ == '__main__':
    report(sys.argv[1])
