"""GPT-2 as a TensorFlow graph: tokens in, hidden states out, and the heads that read them.

    model = Model(hparams, scope='policy/model', heads=['value'])
    states = model(tokens, padding_token)         # hidden [batch, sequence, n_embd]
    logits = model.logits(states.hidden)          # [batch, sequence, n_vocab]
    values = model.scalar_head('value', states.hidden)  # [batch, sequence]

The heads are apart from the transformer so that they run only where somebody reads them: the policy at the positions of
the response, the reward model at the last one. Variables bear the names of OpenAI's checkpoints (`h0/attn/c_attn/w` …).
"""

import copy
import math
from typing import Callable, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import IS_TF1, empty_array, tf, uses_onednn, write_in_place
from lm_human_preferences.hyperparameters import ModelHParams

Dropout = Callable[[tf.Tensor, float], tf.Tensor]  # of activations at a rate

PANEL = {'float32': 32, 'bfloat16': 64}  # columns: the fastest of those tried, see benchmarks/README.md
PANEL_ROWS = 16  # of more rows, the arithmetic takes longer than reading the matrix


class Past(NamedTuple):
    """What attention needs of the tokens already read, perhaps with room for tokens to come."""

    keys_values: Sequence[Tuple[tf.Tensor, tf.Tensor]]  # of each layer, [batch, n_head, size, head_dim]
    real: tf.Tensor  # [batch, size] bool: False where the token was padding
    length: tf.Tensor  # int32: the positions in use; later ones are room

    def with_room(self, tokens: int) -> 'Past':
        """A copy with room for so many real tokens, to be written into where it lies by the calls that read them."""
        batch, n_head, length, head_dim = _shape(self.keys_values[0][0])
        shape = [batch, n_head, length + tokens, head_dim]
        rows = _rows_of_past(shape, 0, length)
        keys_values = tuple(
            tuple(_write(empty_array(shape, old.dtype), rows, old) for old in layer) for layer in self.keys_values
        )
        real = tf.pad(self.real, [[0, 0], [0, tokens]], constant_values=True)
        return Past(keys_values, real, self.length)


class States(NamedTuple):
    """The transformer's output for a batch of token sequences."""

    hidden: tf.Tensor  # [batch, sequence, n_embd], after the final layer norm
    past: Past  # of these tokens and all before them


class Model:
    """The GPT-2 transformer with a tied language-model head and named scalar heads.

    The constructor makes the variables under `scope`; every call adds operations on those same variables.
    """

    def __init__(self, hparams: ModelHParams, scope: str = 'model', heads: Sequence[str] = (), dtype: str = 'float32'):
        """
        Args:
          heads: names of the scalar heads.
          dtype: of the blocks' matrix products and of those in the gradient of the logits, `float32` or `bfloat16`.
            Variables, hidden states, normalization, softmax and the heads are float32 either way.
        """
        if dtype == 'bfloat16' and IS_TF1:
            raise ValueError('run.dtype=bfloat16 needs TensorFlow 2: TensorFlow 1.13 has no fast bfloat16 products')
        self.hparams = hparams
        self.scope = scope
        self.heads = tuple(heads)
        self.dtype = dtype
        specs = self._variable_specs()
        created = create_variables({f'{scope}/{name}': spec for name, spec in specs.items()})
        self.variables = dict(zip(specs, created.values()))  # name within the scope (`h0/ln_1/g`) -> variable
        # Read, and cast, once for all calls, and outside their loops.
        graph = tf.get_default_graph()
        self.weights = {name: graph.as_graph_element(variable) for name, variable in self.variables.items()}
        for name, weight in self.weights.items():
            if '/attn/' in name or '/mlp/' in name:  # the matrices are saved as [1, n_in, n_out]
                weight = tf.squeeze(weight, axis=0) if name.endswith('/w') else weight
                self.weights[name] = tf.cast(weight, dtype)
        self._unembedding = None  # parts of the output head's matrix, where it is not the token embedding as it lies

    def _variable_specs(self):
        """The variables by their names within the scope."""
        width, layers = self.hparams.n_embd, self.hparams.n_layer
        specs = {}

        def add_layer_norm(name):
            specs[name + '/g'] = VariableSpec([width], start=1.0)
            specs[name + '/b'] = VariableSpec([width])

        def add_linear(name, n_in, n_out, stddev):
            specs[name + '/w'] = VariableSpec([1, n_in, n_out], stddev=stddev)
            specs[name + '/b'] = VariableSpec([n_out])

        specs['wpe'] = VariableSpec([self.hparams.n_ctx, width], stddev=0.01)
        specs['wte'] = VariableSpec([self.hparams.n_vocab, width], stddev=0.02)
        for layer in range(layers):
            block = f'h{layer}/'
            add_layer_norm(block + 'ln_1')
            add_linear(block + 'attn/c_attn', width, 3 * width, 1 / math.sqrt(width))
            add_linear(block + 'attn/c_proj', width, width, 1 / math.sqrt(width * layers))
            add_layer_norm(block + 'ln_2')
            add_linear(block + 'mlp/c_fc', width, 4 * width, 1 / math.sqrt(width))
            add_linear(block + 'mlp/c_proj', 4 * width, width, 1 / math.sqrt(4 * width * layers))
        add_layer_norm('ln_f')
        for head in self.heads:
            # A value starts at zero (no opinion); any other scalar starts random, or all its inputs would look alike.
            specs[f'heads/{head}/w'] = VariableSpec(
                [width], stddev=0.0 if head == 'value' else 1 / math.sqrt(width + 1)
            )
            specs[f'heads/{head}/b'] = VariableSpec([])
        return specs

    def __call__(
        self,
        tokens: tf.Tensor,
        padding_token: Optional[int] = None,
        past: Optional[Past] = None,
        attend: Optional[np.ndarray] = None,
        read: Optional[Sequence[int]] = None,
        dropout: Optional[Dropout] = None,
    ) -> States:
        """Run the transformer.

        Args:
          tokens: [batch, sequence] int32.
          padding_token: the id that marks padding. A padded position is not attended to, does not advance positions,
            and its output is that of the last real token at or before it. None: every token is real.
          past: of a call on the tokens before these, which are then all real; with room for them.
          attend: [sequence, sequence] bool, which positions may look at which, in a call without past. None: each at
            itself and at all before it. A text that branches into several continuations is read in one go with
            `branching(…)`.
          read: the positions whose output is wanted, in a call without past: `hidden` is [batch, len(read), n_embd].
            The last block is computed for these alone. None: all.
          dropout: drops at the rates of the hyperparameters (supervised language-model training only).
        """
        with tf.name_scope(self.scope.replace('/', '_')):
            if padding_token is None:
                real = tf.ones_like(tokens, tf.bool)
            else:
                real = tf.not_equal(tokens, padding_token)
                tokens = tf.where(real, tokens, tf.zeros_like(tokens))
            start = 0 if past is None else past.length
            all_real = real if past is None else past.real
            sequence = _length(tokens)
            visible = _visible(all_real, start, sequence, attend)  # [batch, sequence, size of the past]
            positions = tf.reduce_sum(tf.cast(visible, tf.int32), axis=-1) - tf.cast(real, tf.int32)
            if past is not None:
                past_rows = _rows_of_past(_shape(past.keys_values[0][0]), start, sequence)

            # Activations are matrices, one row for each position of each sequence: [batch * sequence, n_embd].
            x = tf.gather(self.weights['wte'], tf.reshape(tokens, [-1]))
            x += tf.gather(self.weights['wpe'], tf.reshape(positions, [-1]))
            x = self._drop(x, self.hparams.embd_pdrop, dropout)
            # Added to the attention scores; so large that float32 keeps nothing of the score beside it.
            hide = tf.cast(tf.logical_not(visible), x.dtype)[:, tf.newaxis] * -1e10
            rows = None if past is not None else _rows_to_read(visible, sequence, read, padding_token)
            keys_values = []
            for layer in range(self.hparams.n_layer):
                x, layer_keys_values = self._block(
                    f'h{layer}/',
                    x,
                    sequence,
                    hide,
                    past=None if past is None else (past.keys_values[layer], past_rows),
                    rows=rows if read is not None and layer == self.hparams.n_layer - 1 else None,
                    dropout=dropout,
                )
                keys_values.append(layer_keys_values)
            hidden = self._named_layer_norm('ln_f', x)
            if rows is not None and read is None:
                hidden = _take(hidden, rows)
            hidden = tf.reshape(hidden, [-1, sequence if read is None else len(read), self.hparams.n_embd])
            return States(hidden, Past(tuple(keys_values), all_real, start + sequence))

    def for_decoding(self, batch: Optional[int]) -> 'Model':
        """The same model with its weights as they are read fastest by calls on one token of each of `batch` sequences.

        A product of so few rows takes as long as reading the matrix does.
        """
        model = copy.copy(self)
        if batch is None or batch > PANEL_ROWS or not uses_onednn():
            model._unembedding = [tf.transpose(self.weights['wte'])]
            return model
        model.weights = {
            name: _panels(weight) if name.endswith('/w') and weight.shape.ndims == 2 else weight
            for name, weight in self.weights.items()
        }
        width = PANEL['float32']
        panels = self.hparams.n_vocab // width
        embedding, rest = tf.split(self.weights['wte'], [panels * width, self.hparams.n_vocab % width])
        embedding = tf.reshape(embedding, [panels, width, self.hparams.n_embd])
        model._unembedding = [tf.matrix_transpose(embedding), tf.transpose(rest)]
        return model

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Next-token logits [..., n_vocab] of hidden states [..., n_embd], by the transposed token embedding."""
        width, vocabulary = self.hparams.n_embd, self.hparams.n_vocab
        rows = tf.reshape(hidden, [-1, width])
        if self._unembedding is None:
            logits = _transposed_product(rows, self.weights['wte'], self.dtype)
        else:
            logits = tf.concat([_product(rows, part) for part in self._unembedding], axis=-1)
        return tf.reshape(logits, _shape(hidden)[:-1] + [vocabulary])

    def scalar_head(self, name: str, hidden: tf.Tensor) -> tf.Tensor:
        """One number [...] for each hidden state [..., n_embd]."""
        weights, bias = self.weights[f'heads/{name}/w'], self.weights[f'heads/{name}/b']
        return tf.reduce_sum(hidden * weights, axis=-1) + bias

    def _block(self, block, x, sequence, hide, past, rows, dropout):
        """One transformer block for x [batch * sequence, n_embd]; its output at `rows` only, unless that is None."""
        h = self._named_layer_norm(block + 'ln_1', x)
        queries, keys, values = self._project(block + 'attn/c_attn', h, sequence, rows)
        if past is not None:
            keys, values = (_write(old, past[1], new) for old, new in zip(past[0], (keys, values)))
        if rows is not None:
            x = _take(x, rows)
            hide = tf.gather(tf.reshape(hide, [-1, _length(hide)]), rows)[:, tf.newaxis]
        attended = self._named_linear(block + 'attn/c_proj', self._attend(queries, keys, values, hide, dropout))
        x += self._drop(tf.cast(attended, x.dtype), self.hparams.resid_pdrop, dropout)
        h = _gelu(self._named_linear(block + 'mlp/c_fc', self._named_layer_norm(block + 'ln_2', x)))
        h = tf.cast(self._named_linear(block + 'mlp/c_proj', h), x.dtype)
        x += self._drop(h, self.hparams.resid_pdrop, dropout)
        return x, (keys, values)

    def _project(self, name, x, sequence, rows):
        """Queries (at `rows`), keys and values of every head: each [batch, n_head, positions, head_dim]."""
        if rows is None:
            return self._heads(self._named_linear(name, x), 3, sequence)
        width = self.hparams.n_embd
        weights = tf.split(self.weights[name + '/w'], [width, 2 * width], axis=-1)
        biases = tf.split(self.weights[name + '/b'], [width, 2 * width])
        queries = self._heads(_linear(_take(x, rows), weights[0], biases[0]), 1, _length(rows))
        return queries + self._heads(_linear(x, weights[1], biases[1]), 2, sequence)

    def _heads(self, x, parts, positions):
        """The `parts` of x [batch * positions, parts * n_embd], each [batch, n_head, positions, head_dim]."""
        heads, head_dim = self.hparams.n_head, self.hparams.n_embd // self.hparams.n_head
        return tf.unstack(tf.transpose(tf.reshape(x, [-1, positions, parts, heads, head_dim]), [2, 0, 3, 1, 4]))

    def _attend(self, queries, keys, values, hide, dropout):
        """Scaled dot-product attention, the heads put together: [batch * queries, n_embd]."""
        scores = tf.matmul(queries * (1 / math.sqrt(_length(queries))), keys, transpose_b=True)
        weights = _attention_weights(tf.cast(scores, hide.dtype), hide)
        weights = self._drop(tf.cast(weights, values.dtype), self.hparams.attn_pdrop, dropout)
        mixed = tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3])
        return tf.reshape(mixed, [-1, self.hparams.n_embd])

    def _named_linear(self, name, x):
        return _linear(x, self.weights[name + '/w'], self.weights[name + '/b'])

    def _named_layer_norm(self, name, x):
        return _layer_norm(x, self.weights[name + '/g'], self.weights[name + '/b'])

    @staticmethod
    def _drop(x, rate, dropout):
        return dropout(x, rate) if dropout and rate > 0 else x


def branching(stem: int, branches: int, length: int) -> np.ndarray:
    """What attends to what when `branches` continuations, each of `length`, follow one stem: `attend` of the model.

    Every position sees the stem and what is before it in its own branch; the branches do not see each other.
    """
    total = stem + branches * length
    branch = np.maximum((np.arange(total) - stem) // length, -1)  # -1: the stem
    earlier = np.tri(total, dtype=bool)
    return earlier & ((branch == -1) | (branch == branch[:, np.newaxis]))


def _visible(all_real, start, sequence, attend):
    """[batch, sequence, size] bool: which of `size` real tokens each position from `start` on attends to."""
    if attend is None:
        attend = tf.range(_length(all_real)) <= start + tf.range(sequence)[:, tf.newaxis]
    return tf.logical_and(all_real[:, tf.newaxis, :], attend)


def _rows_to_read(visible, sequence, read, padding_token):
    """[batch, n] int32: the rows of hidden states [batch * sequence, n_embd] that are the output of the positions to
    read; None: each its own.

    A padded position bears the output of the last real token that it sees.
    """
    if padding_token is None and read is None:
        return None
    last = tf.reduce_max(tf.cast(visible, tf.int32) * tf.range(_length(visible)), axis=-1)
    if read is not None:
        last = tf.gather(last, list(read), axis=1)
    return last + sequence * tf.range(_shape(last)[0])[:, tf.newaxis]


def _rows_of_past(shape, start, tokens):
    """Indices of so many positions from `start` on in keys or values of `shape`, seen as rows of head_dim numbers."""
    batch, n_head, size, _ = shape
    heads = tf.range(batch * n_head)[:, tf.newaxis]
    return tf.reshape(heads * size + start + tf.range(tokens), [-1])


def _write(array, rows, values):
    """Write `values` into `array`, keys or values of the past, at `rows` of head_dim numbers."""
    head_dim = _length(array)
    written = write_in_place(tf.reshape(array, [-1, head_dim]), rows, tf.reshape(values, [-1, head_dim]))
    return tf.reshape(written, _shape(array))


def _take(x, rows):
    """The `rows` [batch, n] of a matrix x: [batch * n, …]."""
    return tf.gather(x, tf.reshape(rows, [-1]))


def _linear(x, weights, bias):
    """x [rows, n_in] times weights [n_in, n_out] or their panels, plus bias."""
    return tf.nn.bias_add(_product(tf.cast(x, weights.dtype), weights), bias)


def _panels(matrix):
    """A matrix [n_in, n_out] as panels of columns that each lie in one piece: [n_out / width, n_in, width].

    A matrix of another number of columns stays as it is.
    """
    n_in, n_out = matrix.shape.as_list()
    width = PANEL[matrix.dtype.name]
    return matrix if n_out % width else tf.transpose(tf.reshape(matrix, [n_in, -1, width]), [1, 0, 2])


def _product(x, matrix):
    """x [rows, n_in] times a matrix [n_in, n_out], or times its panels."""
    if matrix.shape.ndims == 2:
        return tf.matmul(x, matrix)
    panels, _, width = matrix.shape.as_list()
    rows = x.shape.as_list()[0]
    pieces = tf.reshape(tf.matmul(x, matrix), [-1, width])  # of the results, panel by panel
    in_order = np.arange(panels * rows).reshape([panels, rows]).T.ravel()
    return tf.reshape(tf.gather(pieces, in_order), [rows, panels * width])  # quicker than a transposition


def _transposed_product(x, matrix, dtype):
    """x [rows, n] times the transpose of a float32 matrix [m, n], in float32; its gradient by products in `dtype`."""
    if dtype == 'float32':
        return tf.matmul(x, matrix, transpose_b=True)

    @with_gradient
    def product(x, matrix):
        def gradient(dy):
            dy = tf.cast(dy, dtype)
            to_x = tf.matmul(dy, tf.cast(matrix, dtype))
            to_matrix = tf.matmul(dy, tf.cast(x, dtype), transpose_a=True)
            return tf.cast(to_x, tf.float32), tf.cast(to_matrix, tf.float32)

        return tf.matmul(x, matrix, transpose_b=True), gradient

    return product(x, matrix)


@with_gradient
def _layer_norm(x, gain, bias):
    """The rows of x brought to mean 0 and variance 1, times `gain` plus `bias`, both [n_embd].

    The gradient needs no more of the way forward than the rows so brought and their scales.
    """
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    scale = tf.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + 1e-5)
    y = centred * scale

    def gradient(dy):
        to_y = dy * gain
        along = tf.reduce_mean(to_y * y, axis=-1, keepdims=True)
        to_x = (to_y - tf.reduce_mean(to_y, axis=-1, keepdims=True) - y * along) * scale
        return to_x, tf.reduce_sum(dy * y, axis=0), tf.reduce_sum(dy, axis=0)

    return y * gain + bias, gradient


@with_gradient
def _attention_weights(scores, hide):
    """Softmax of scores [batch, n_head, queries, keys], to which `hide` is added: constant to the gradient."""
    weights = tf.nn.softmax(scores + hide)

    def gradient(dy):
        return weights * (dy - tf.reduce_sum(dy * weights, axis=-1, keepdims=True)), None

    return weights, gradient


@with_gradient
def _gelu(x):
    """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), written as x · sigmoid(…): fewer passes over memory each way."""
    slope, cubic = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
    gate = tf.sigmoid(x * (slope + cubic * tf.square(x)))
    y = x * gate

    def gradient(dy):
        return dy * (gate + (y - y * gate) * (slope + 3 * cubic * tf.square(x)))

    return y, gradient


def _shape(x):
    """The shape of `x` as a list: numbers where they are known while the graph is built, tensors elsewhere."""
    known = x.shape.as_list()
    dynamic = tf.shape(x) if None in known else known
    return [dynamic[i] if size is None else size for i, size in enumerate(known)]


def _length(x):
    return _shape(x)[-1]
