"""GPT-2 as a TensorFlow graph: tokens in, hidden states out, and the heads on top of them.

    model = Model(hparams, scope='policy/model', heads=['value'])
    states = model(tokens, padding_token)         # hidden [batch, sequence, n_embd]
    logits = model.logits(states.hidden)          # [batch, sequence, n_vocab]
    values = model.scalar_head('value', states.hidden)  # [batch, sequence]

The heads are separate from the transformer, so that they are computed only where they are needed: the policy's at the
positions of the response, the reward model's at the last position. Variables have the names of OpenAI's checkpoints
(`h0/attn/c_attn/w` …).
"""

import copy
import math
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import check_available, tf, uses_onednn
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language import layers
from lm_human_preferences.language.layouts import Packed, Whole
from lm_human_preferences.language.past import Past
from lm_human_preferences.language.shapes import last_size, shape_of

Dropout = Callable[[tf.Tensor, float], tf.Tensor]  # (activations, rate) -> activations


class States(NamedTuple):
    """The transformer's output for a batch of token sequences."""

    hidden: tf.Tensor  # [batch, sequence, n_embd], after the final layer norm
    past: Past  # keys and values of these tokens and of all tokens before them


class Model:
    """The GPT-2 transformer with a tied language-model head and named scalar heads.

    The constructor creates the variables under `scope`. Every call adds operations that use these variables.
    """

    def __init__(self, hparams: ModelHParams, scope: str = 'model', heads: Sequence[str] = (), dtype: str = 'float32'):
        """
        Args:
          heads: names of the scalar heads.
          dtype: `float32` or `bfloat16`, for the matrix products of the blocks, for those in the gradient of the
            logits, and for the logits that tokens are sampled from (`for_decoding`). Variables, hidden states,
            normalization, softmax and the other logits and heads are always float32.
        """
        check_available(dtype)
        self.hparams = hparams
        self.scope = scope
        self.heads = tuple(heads)
        self.dtype = dtype
        specs = _variable_specs(hparams, self.heads)
        created = create_variables({f'{scope}/{name}': spec for name, spec in specs.items()})
        self.variables = dict(zip(specs, created.values()))  # name within the scope (`h0/ln_1/g`) -> variable
        # Read and cast each variable once for all calls, outside of their loops.
        graph = tf.get_default_graph()
        self.weights = {name: graph.as_graph_element(variable) for name, variable in self.variables.items()}
        for name, weight in self.weights.items():
            if '/attn/' in name or '/mlp/' in name:  # the matrices are saved as [1, n_in, n_out]
                weight = tf.squeeze(weight, axis=0) if name.endswith('/w') else weight
                self.weights[name] = tf.cast(weight, dtype)
        self._unembed = None  # `for_decoding` sets it: the output head, hidden states [rows, n_embd] -> logits

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
          padding_token: the id of padding. A padded position is not attended to, does not advance positions, and takes
            no arithmetic. Its output is that of the last real token that it would attend to. None: every token is real.
          past: from a call on the tokens before these, with space for these (`Past.with_room`). These tokens must be
            real.
          attend: [sequence, sequence] bool, which position attends to which, in a call without `past`. None: each to
            itself and to all before it. For a text that branches into several continuations, see `branching`.
          read: positions whose output is wanted, in a call without `past`. Then `hidden` is [batch, len(read), n_embd],
            and the last block is computed for these positions only. None: all positions.
          dropout: applied at the rates of the hyperparameters (only in training of a language model).
        """
        with tf.name_scope(self.scope.replace('/', '_')):
            heads, last_layer = self.hparams.n_head, self.hparams.n_layer - 1
            ids = tf.cast(tokens, tf.int64)
            if padding_token is None or past is not None:
                layout = Whole(ids, heads, attend, past)
            else:
                layout = Packed(ids, heads, padding_token, attend)
            rows = layout.rows_of(read)
            queries = None if read is None else (rows, layout.mask_of(rows, read))
            x = self._embed(layout, dropout)
            keys_values = []
            for layer in range(self.hparams.n_layer):
                only = queries if layer == last_layer else None
                x, layer_keys_values = self._block(layer, x, layout, past, only, dropout)
                keys_values.append(layer_keys_values)
            hidden = self._layer_norm('ln_f', x)
            if read is None and rows is not None:
                hidden = layers.take_rows(hidden, rows)
            outputs = last_size(tokens) if read is None else len(read)
            hidden = tf.reshape(hidden, [-1, outputs, self.hparams.n_embd])
            first_rows = None if past is None else past.first_rows
            return States(hidden, Past(tuple(keys_values), layout.order, layout.length, first_rows))

    def _embed(self, layout, dropout):
        """Return the sum of token and position embeddings: [rows, n_embd]. All activations are such matrices."""
        x = tf.gather(self.weights['wte'], layout.tokens) + tf.gather(self.weights['wpe'], layout.positions)
        return self._drop(x, self.hparams.embd_pdrop, dropout)

    def _block(self, layer, x, layout, past, only, dropout):
        """Return a block's output for x [rows, n_embd], and its keys and values.

        Args:
          only: in the last block, the rows of x whose output is wanted, [batch, n], and their mask; None: all.
        """
        block = f'h{layer}/'
        h = self._layer_norm(block + 'ln_1', x)
        rows, mask = only or (None, layout.mask)
        queries, keys, values = self._queries_keys_values(block + 'attn/c_attn', h, layout, rows)
        if past is not None:
            keys, values = past.write(layer, keys, values)
        if rows is not None:
            x = layers.take_rows(x, rows)
        attended = self._attend(queries, keys, values, mask, dropout)
        attended = layout.join_heads(attended) if rows is None else layers.join_heads(attended)
        attended = self._linear(block + 'attn/c_proj', attended)
        x += self._drop(tf.cast(attended, x.dtype), self.hparams.resid_pdrop, dropout)
        h = layers.gelu(self._linear(block + 'mlp/c_fc', self._layer_norm(block + 'ln_2', x)))
        h = tf.cast(self._linear(block + 'mlp/c_proj', h), x.dtype)
        x += self._drop(h, self.hparams.resid_pdrop, dropout)
        return x, (keys, values)

    def _queries_keys_values(self, name, x, layout, rows):
        """Return queries (of `rows` only), keys and values of every head: each [batch, n_head, slots, head_dim]."""
        if rows is None:
            return layout.split_heads(self._linear(name, x), 3)
        width = self.hparams.n_embd
        weights = tf.split(self.weights[name + '/w'], [width, 2 * width], axis=-1)
        biases = tf.split(self.weights[name + '/b'], [width, 2 * width])
        wanted = layers.linear(layers.take_rows(x, rows), weights[0], biases[0])
        queries = layers.split_heads(wanted, 1, self.hparams.n_head, last_size(rows))
        return queries + layout.split_heads(layers.linear(x, weights[1], biases[1]), 2)

    def _attend(self, queries, keys, values, mask, dropout):
        """Return scaled dot-product attention of every head: [batch, n_head, queries, head_dim]."""
        scores = tf.matmul(queries * (1 / math.sqrt(last_size(queries))), keys, transpose_b=True)
        weights = layers.attention_weights(tf.cast(scores, mask.dtype), mask)
        weights = self._drop(tf.cast(weights, values.dtype), self.hparams.attn_pdrop, dropout)
        return tf.matmul(weights, values)

    def _linear(self, name, x):
        return layers.linear(x, self.weights[name + '/w'], self.weights[name + '/b'])

    def _layer_norm(self, name, x):
        return layers.layer_norm(x, self.weights[name + '/g'], self.weights[name + '/b'])

    @staticmethod
    def _drop(x, rate, dropout):
        return dropout(x, rate) if dropout and rate > 0 else x

    def logits(self, hidden: tf.Tensor) -> tf.Tensor:
        """Return next-token logits [..., n_vocab] of hidden states [..., n_embd], by the transposed token embedding.

        Those of a model for decoding in bfloat16 differ from these by a number that all tokens share: they have the
        same distribution.
        """
        rows = tf.reshape(hidden, [-1, self.hparams.n_embd])
        if self._unembed is None:
            logits = layers.transposed_product(rows, self.weights['wte'], self.dtype)
        else:
            logits = self._unembed(rows)
        return tf.reshape(logits, shape_of(hidden)[:-1] + [self.hparams.n_vocab])

    def scalar_head(self, name: str, hidden: tf.Tensor) -> tf.Tensor:
        """Return one number [...] for each hidden state [..., n_embd]."""
        weights, bias = self.weights[f'heads/{name}/w'], self.weights[f'heads/{name}/b']
        return tf.reduce_sum(hidden * weights, axis=-1) + bias

    def for_decoding(self, batch: Optional[int]) -> 'Model':
        """Return the same model with its weights stored so that calls on one token of each sequence read them fastest.

        Args:
          batch: the number of sequences; None: unknown. Up to MAX_PANEL_ROWS, oneDNN is fastest with panels.
        """
        model = copy.copy(self)
        in_panels = batch is not None and batch <= layers.MAX_PANEL_ROWS and uses_onednn()
        if in_panels:
            model.weights = {
                name: layers.in_panels(weight) if name.endswith('/w') and weight.shape.ndims == 2 else weight
                for name, weight in self.weights.items()
            }
        if self.dtype == 'bfloat16':
            model._unembed = self._rounded_output_head()
        else:
            model._unembed = self._output_head_in_panels() if in_panels else self._output_head()
        return model

    def _output_head(self):
        matrix = tf.transpose(self.weights['wte'])
        return lambda rows: layers.product(rows, matrix)

    def _output_head_in_panels(self):
        width = layers.PANEL_WIDTH['float32']
        panels = self.hparams.n_vocab // width
        embedding, rest = tf.split(self.weights['wte'], [panels * width, self.hparams.n_vocab % width])
        embedding = tf.reshape(embedding, [panels, width, self.hparams.n_embd])
        pieces = [tf.matrix_transpose(embedding), tf.transpose(rest)]
        return lambda rows: tf.concat([layers.product(rows, piece) for piece in pieces], axis=-1)

    def _rounded_output_head(self):
        """Return the output head with a matrix in `dtype`, less the mean of the token embeddings.

        A product in bfloat16 rounds its results to 8 bits. All logits of a state may be near -100, as in the published
        models. Without the mean they are near 0, and their rounding errors are small.
        """
        matrix = tf.cast(layers.centred(self.weights['wte']), self.dtype)
        # This product is about as fast as one in panels, and needs no transposed copy of the matrix.
        return lambda rows: tf.cast(tf.matmul(tf.cast(rows, self.dtype), matrix, transpose_b=True), tf.float32)


def _variable_specs(hparams, heads):
    """Return the specification of each variable by its name within the scope."""
    width, num_layers = hparams.n_embd, hparams.n_layer
    specs = {}

    def add_layer_norm(name):
        specs[name + '/g'] = VariableSpec([width], start=1.0)
        specs[name + '/b'] = VariableSpec([width])

    def add_linear(name, n_in, n_out, stddev):
        specs[name + '/w'] = VariableSpec([1, n_in, n_out], stddev=stddev)
        specs[name + '/b'] = VariableSpec([n_out])

    specs['wpe'] = VariableSpec([hparams.n_ctx, width], stddev=0.01)
    specs['wte'] = VariableSpec([hparams.n_vocab, width], stddev=0.02)
    for layer in range(num_layers):
        block = f'h{layer}/'
        add_layer_norm(block + 'ln_1')
        add_linear(block + 'attn/c_attn', width, 3 * width, 1 / math.sqrt(width))
        add_linear(block + 'attn/c_proj', width, width, 1 / math.sqrt(width * num_layers))
        add_layer_norm(block + 'ln_2')
        add_linear(block + 'mlp/c_fc', width, 4 * width, 1 / math.sqrt(width))
        add_linear(block + 'mlp/c_proj', 4 * width, width, 1 / math.sqrt(4 * width * num_layers))
    add_layer_norm('ln_f')
    for head in heads:
        # A value starts at zero (no opinion). Other heads start random: from zero, all their inputs would look alike.
        specs[f'heads/{head}/w'] = VariableSpec([width], stddev=0.0 if head == 'value' else 1 / math.sqrt(width + 1))
        specs[f'heads/{head}/b'] = VariableSpec([])
    return specs


def variable_shapes(hparams: ModelHParams, heads: Sequence[str] = ()) -> Dict[str, List[int]]:
    """Return the shape of each variable of a model by its name within the scope: {'h0/ln_1/g': [n_embd], …}."""
    return {name: list(spec.shape) for name, spec in _variable_specs(hparams, heads).items()}


def branching(stem: int, branches: int, length: int) -> np.ndarray:
    """Return `attend` for a text of `stem` tokens and `branches` continuations of it, each of `length` tokens.

    Every position attends to the stem and to what is before it in its own branch. The branches do not see each other.

    Returns:
      [stem + branches * length, stem + branches * length] bool.
    """
    total = stem + branches * length
    branch = np.maximum((np.arange(total) - stem) // length, -1)  # -1: the stem
    earlier = np.tri(total, dtype=bool)
    return earlier & ((branch == -1) | (branch == branch[:, np.newaxis]))
