"""The PPO step in TensorFlow, written as plainly as the method allows: the row `plain` of `peers.py`.

Logits at every position, keys and values that grow by concatenation, one softmax for log-probabilities and another for
entropies, TensorFlow's own gradients and Adam. It was written after the paper and is not the code of 2019. Run it by
`peers.py`; alone it prints one line of JSON (see `rows.py`).
"""

import math

import numpy as np
from measuring import SIZES, model_size
from rows import row_parser, time_phases

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import PpoHParams
from lm_human_preferences.language.model import Model
from lm_human_preferences.method.ppo import Rollouts, ppo_loss, ppo_targets, token_rewards

LEARNING_RATE, KL_COEF = 1e-6, 0.1


class PlainModel:
    """GPT-2 on the variables of one of our models; no token is padding."""

    def __init__(self, hparams, scope, head):
        self.hparams, self.head = hparams, head
        self.model = Model(hparams, scope, heads=[head])
        self.variables = self.model.variables

    def __call__(self, tokens, past=None):
        """Return hidden states [batch, sequence, n_embd] of tokens after `past`, and keys and values of all layers."""
        start = 0 if past is None else tf.shape(past[0][0])[2]
        length = tf.shape(tokens)[1]
        positions = start + tf.range(length)
        x = tf.gather(self.variables['wte'], tokens) + tf.gather(self.variables['wpe'], positions)
        hide = tf.cast(tf.range(start + length) > positions[:, tf.newaxis], tf.float32) * -1e10
        caches = []
        for layer in range(self.hparams.n_layer):
            block = f'h{layer}/'
            h = self.linear(block + 'attn/c_attn', self.norm(block + 'ln_1', x))
            queries, keys, values = map(self.heads, tf.split(h, 3, axis=2))
            if past is not None:
                keys, values = (tf.concat(pair, axis=2) for pair in zip(past[layer], (keys, values)))
            caches.append((keys, values))
            scores = tf.matmul(queries, keys, transpose_b=True) / math.sqrt(queries.shape.as_list()[-1]) + hide
            mixed = tf.transpose(tf.matmul(tf.nn.softmax(scores), values), [0, 2, 1, 3])
            x += self.linear(block + 'attn/c_proj', tf.reshape(mixed, tf.shape(x)))
            h = self.linear(block + 'mlp/c_fc', self.norm(block + 'ln_2', x))
            h = 0.5 * h * (1 + tf.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * tf.pow(h, 3))))
            x += self.linear(block + 'mlp/c_proj', h)
        return self.norm('ln_f', x), caches

    def logits(self, hidden):
        rows = tf.matmul(tf.reshape(hidden, [-1, self.hparams.n_embd]), self.variables['wte'], transpose_b=True)
        return tf.reshape(rows, tf.concat([tf.shape(hidden)[:2], [self.hparams.n_vocab]], axis=0))

    def scalars(self, hidden):
        name = f'heads/{self.head}/'
        return tf.reduce_sum(hidden * self.variables[name + 'w'], axis=-1) + self.variables[name + 'b']

    def heads(self, x):
        shape = [tf.shape(x)[0], -1, self.hparams.n_head, self.hparams.n_embd // self.hparams.n_head]
        return tf.transpose(tf.reshape(x, shape), [0, 2, 1, 3])

    def linear(self, name, x):
        weights = tf.squeeze(self.variables[name + '/w'], axis=0)
        rows = tf.matmul(tf.reshape(x, [-1, weights.shape.as_list()[0]]), weights) + self.variables[name + '/b']
        return tf.reshape(rows, tf.concat([tf.shape(x)[:2], tf.shape(weights)[1:]], axis=0))

    def norm(self, name, x):
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.rsqrt(variance + 1e-5) * self.variables[name + '/g'] + self.variables[name + '/b']


class PlainStep:
    """The phases of a step with random weights and queries."""

    def __init__(self, flags, session):
        self.session, self.flags = session, flags
        hparams, ppo = model_size(flags.model), PpoHParams()
        policy = PlainModel(hparams, 'policy/model', 'value')
        reference = PlainModel(hparams, 'ref_policy/model', 'value')
        reward = PlainModel(hparams, 'reward_model/model', 'reward')
        self.queries = tf.placeholder(tf.int32, [flags.batch, flags.query])
        self.responses = tf.placeholder(tf.int32, [flags.batch, flags.response])
        whole = tf.concat([self.queries, self.responses], axis=1)
        self.sampled = self.sample_responses(policy)
        self.ref_logprobs = self.look(reference, whole)[0]
        self.scores = reward.scalars(reward(whole)[0])[:, -1]
        per_token = [tf.placeholder(tf.float32, self.responses.shape) for _ in range(3)]
        self.episodes = Rollouts(self.queries, self.responses, *per_token)
        targets, _ = ppo_targets(ppo, self.episodes)
        loss, _ = ppo_loss(ppo, self.episodes, targets, *self.look(policy, whole))
        self.update = tf.train.AdamOptimizer(LEARNING_RATE, epsilon=1e-5).minimize(
            loss, var_list=list(policy.variables.values())
        )
        session.run(tf.global_variables_initializer())
        self.random_queries = np.random.RandomState(0).randint(0, hparams.n_vocab, [flags.batch, flags.query])

    def sample_responses(self, policy):
        """Return responses, their log-probabilities and values, each [batch, response]."""

        def next_token(tokens, past):
            hidden, new = policy(tokens, past)
            logits = policy.logits(hidden)[:, -1]
            token = tf.multinomial(logits, 1, output_dtype=tf.int32)
            logprob = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=token[:, 0], logits=logits)
            return token, logprob[:, tf.newaxis], policy.scalars(hidden)[:, -1:], new

        def body(tokens, logprobs, values, past):
            token, logprob, value, new = next_token(tokens[:, -1:], past)
            old = (tokens, logprobs, values)
            return [tf.concat(pair, axis=1) for pair in zip(old, (token, logprob, value))] + [new]

        first = list(next_token(self.queries, None))
        batch, caches = self.flags.batch, first.pop()
        grows = [tf.TensorShape([batch, None])] * 3
        of_cache = tf.TensorShape([batch, policy.hparams.n_head, None, policy.hparams.n_embd // policy.hparams.n_head])
        *sampled, _ = tf.while_loop(
            cond=lambda tokens, *_: tf.shape(tokens)[1] < self.flags.response,
            body=body,
            loop_vars=first + [caches],
            shape_invariants=grows + [[(of_cache, of_cache)] * len(caches)],
            back_prop=False,
        )
        return sampled

    def look(self, model, tokens):
        """Return log-probabilities, entropies and values of the response, each [batch, response]."""
        hidden, _ = model(tokens)
        logits, first = model.logits(hidden), self.flags.query - 1
        logits, values = logits[:, first:-1], model.scalars(hidden)[:, first:-1]
        logprobs = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, first + 1 :], logits=logits)
        entropies = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_sum(tf.nn.softmax(logits) * logits, axis=-1)
        return logprobs, entropies, values

    def sample(self):
        drawn = self.session.run(self.sampled, {self.queries: self.random_queries})
        self.drawn, self.logprobs, self.values = drawn
        self.given = {self.queries: self.random_queries, self.responses: self.drawn}

    def reference(self):
        self.reference_logprobs = self.session.run(self.ref_logprobs, self.given)

    def score(self):
        self.rewards = self.session.run(self.scores, self.given)

    def train(self):
        rewards, _ = token_rewards(self.logprobs, self.reference_logprobs, self.rewards, KL_COEF)
        feed = dict(zip(self.episodes, (self.random_queries, self.drawn, self.logprobs, self.values, rewards)))
        for _ in range(self.flags.epochs):
            self.session.run(self.update, feed)


def main() -> None:
    flags = row_parser(__doc__, SIZES).parse_args()
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        step = PlainStep(flags, session)
        phases = dict(sample=step.sample, reference=step.reference, score=step.score, train=step.train)
        time_phases(phases, flags)


if __name__ == '__main__':
    main()
