"""The PPO step in TensorFlow, written as plainly as the method allows: the row `plain` of `peers.py`.

Logits at every position, keys and values that grow by concatenation, one softmax for log-probabilities and another for
entropies, TensorFlow's own gradients and Adam. Padding, on the left of queries and on the right of responses that are
scored, is masked but computed. It was written after the paper and is not the code of 2019. Run it by `peers.py`; alone
it prints one line of JSON (see `rows.py`).
"""

import math

import ragged
from measuring import model_size
from rows import row_parser, time_phases

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import PpoHParams
from lm_human_preferences.language.model import Model
from lm_human_preferences.method.ppo import Rollouts, ppo_loss, ppo_targets, token_rewards

LEARNING_RATE, KL_COEF = 1e-6, 0.1


class PlainModel:
    """GPT-2 on the variables of one of our models."""

    def __init__(self, hparams, scope, head):
        self.hparams, self.head = hparams, head
        self.model = Model(hparams, scope, heads=[head])
        self.variables = self.model.variables

    def __call__(self, tokens, real, past=None):
        """Return hidden states [batch, sequence, n_embd] of tokens after `past`, and keys and values of all layers.

        Args:
          real: [batch, size] bool, which tokens, from the first one of `past` on, are not padding.
        """
        start = 0 if past is None else tf.shape(past[0][0])[2]
        positions = tf.cumsum(tf.cast(real, tf.int32), axis=1, exclusive=True)[:, start:]
        tokens = tf.where(real[:, start:], tokens, tf.zeros_like(tokens))
        x = tf.gather(self.variables['wte'], tokens) + tf.gather(self.variables['wpe'], positions)
        places = tf.range(start + tf.shape(tokens)[1])
        seen = tf.logical_and(places <= places[start:, tf.newaxis], real[:, tf.newaxis])
        hide = tf.cast(tf.logical_not(seen), tf.float32)[:, tf.newaxis] * -1e10
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
    """The phases of a step with random weights."""

    def __init__(self, flags, session):
        self.session, self.flags = session, flags
        hparams, ppo = model_size(flags.model), PpoHParams()
        policy = PlainModel(hparams, 'policy/model', 'value')
        reference = PlainModel(hparams, 'ref_policy/model', 'value')
        reward = PlainModel(hparams, 'reward_model/model', 'reward')
        self.batch = ragged.episodes(flags, flags.batch, hparams.n_vocab)
        self.queries = tf.placeholder(tf.int32, [flags.batch, flags.query])
        self.responses = tf.placeholder(tf.int32, [flags.batch, flags.response])
        whole = tf.concat([self.queries, self.responses], axis=1)
        self.sampled = self.sample_responses(policy)
        self.ref_logprobs = self.look(reference, whole)[0]
        self.scores = self.score_responses(reward)
        per_token = [tf.placeholder(tf.float32, self.responses.shape) for _ in range(3)]
        self.episodes = Rollouts(self.queries, self.responses, *per_token)
        targets, _ = ppo_targets(ppo, self.episodes)
        loss, _ = ppo_loss(ppo, self.episodes, targets, *self.look(policy, whole))
        self.update = tf.train.AdamOptimizer(LEARNING_RATE, epsilon=1e-5).minimize(
            loss, var_list=list(policy.variables.values())
        )
        session.run(tf.global_variables_initializer())
        self.padded = ragged.padded_on_the_left(self.batch.queries, self.batch.padding)

    def real(self, tokens):
        return tf.not_equal(tokens, self.batch.padding)

    def sample_responses(self, policy):
        """Return responses, their log-probabilities and values, each [batch, response]."""

        def next_token(tokens, real, past):
            hidden, new = policy(tokens, real, past)
            logits = policy.logits(hidden)[:, -1]
            token = tf.multinomial(logits, 1, output_dtype=tf.int32)
            logprob = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=token[:, 0], logits=logits)
            return token, logprob[:, tf.newaxis], policy.scalars(hidden)[:, -1:], new

        def body(tokens, logprobs, values, past):
            real = tf.concat([self.real(self.queries), self.real(tokens)], axis=1)
            token, logprob, value, new = next_token(tokens[:, -1:], real, past)
            old = (tokens, logprobs, values)
            return [tf.concat(pair, axis=1) for pair in zip(old, (token, logprob, value))] + [new]

        first = list(next_token(self.queries, self.real(self.queries), None))
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
        hidden, _ = model(tokens, self.real(tokens))
        logits, first = model.logits(hidden), self.flags.query - 1
        logits, values = logits[:, first:-1], model.scalars(hidden)[:, first:-1]
        logprobs = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens[:, first + 1 :], logits=logits)
        entropies = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_sum(tf.nn.softmax(logits) * logits, axis=-1)
        return logprobs, entropies, values

    def score_responses(self, model):
        """Return the scores [batch] of the responses up to their ends."""
        scored, (batch, length) = self.batch.scored_lengths, self.responses.shape.as_list()
        padding = tf.fill([batch, length], self.batch.padding)
        tokens = tf.concat([self.queries, tf.where(tf.sequence_mask(scored, length), self.responses, padding)], axis=1)
        last = [[row, self.flags.query + end - 1] for row, end in enumerate(scored)]
        return model.scalars(tf.gather_nd(model(tokens, self.real(tokens))[0], last))

    def sample(self):
        drawn = self.session.run(self.sampled, {self.queries: self.padded})
        self.drawn, self.logprobs, self.values = drawn
        self.given = {self.queries: self.padded, self.responses: self.drawn}

    def reference(self):
        self.reference_logprobs = self.session.run(self.ref_logprobs, self.given)

    def score(self):
        self.rewards = self.session.run(self.scores, self.given)

    def train(self):
        rewards, _ = token_rewards(self.logprobs, self.reference_logprobs, self.rewards, KL_COEF)
        feed = dict(zip(self.episodes, (self.padded, self.drawn, self.logprobs, self.values, rewards)))
        for _ in range(self.flags.epochs):
            self.session.run(self.update, feed)


def main() -> None:
    flags = row_parser(__doc__).parse_args()
    ragged.check(flags)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        step = PlainStep(flags, session)
        phases = dict(sample=step.sample, reference=step.reference, score=step.score, train=step.train)
        time_phases(phases, flags, step.batch.checksum())


if __name__ == '__main__':
    main()
