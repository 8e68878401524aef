"""Measure how fast this machine multiplies the matrices of a training pass: the limit for the other benchmarks.

    python benchmarks/limits.py --model 124M --batch 8

Each row is a matrix product of a forward or backward pass: the weight matrices of one block, and the token embedding as
output head, each with the two products of its gradient. Columns: `product`, `shape` (rows × inner × columns), and the
rate in GFLOP/s for each type. TensorFlow multiplies operands that are already in memory. The last row is the rate of a
whole pass. With several ranks, each rank has its share of the batch and of the cores; the rates are those of one rank.
"""

from typing import List, NamedTuple

from measuring import json_line, model_size, parser, seconds, start_ranks, table

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.mpi.ranks import Ranks


class Product(NamedTuple):
    """One matrix product [rows, inner] × [inner, columns]."""

    name: str
    rows: int
    inner: int
    columns: int
    transpose_a: bool = False
    transpose_b: bool = False
    times: int = 1  # how often it occurs in a pass

    @property
    def flops(self) -> float:
        return 2.0 * self.rows * self.inner * self.columns


def products(hparams: ModelHParams, tokens: int, logits: int) -> List[Product]:
    """Return the products of one forward and backward pass over `tokens` tokens, with logits at `logits` of them."""
    width, found = hparams.n_embd, []
    sizes = [('c_attn', width, 3 * width), ('attn/c_proj', width, width)]
    sizes += [('c_fc', width, 4 * width), ('mlp/c_proj', 4 * width, width)]
    for name, n_in, n_out in sizes:
        found.append(Product(name, tokens, n_in, n_out, times=hparams.n_layer))
        found.append(Product(name + ', to input', tokens, n_out, n_in, transpose_b=True, times=hparams.n_layer))
        found.append(Product(name + ', to weights', n_in, tokens, n_out, transpose_a=True, times=hparams.n_layer))
    vocabulary = hparams.n_vocab
    found.append(Product('logits', logits, width, vocabulary, transpose_b=True))
    found.append(Product('logits, to input', logits, vocabulary, width))
    found.append(Product('logits, to embedding', vocabulary, logits, width, transpose_a=True))
    return found


def time_products(found: List[Product], dtype: str, repeats: int, ranks: Ranks) -> List[float]:
    """Return the seconds of each product, run by all ranks at the same time."""
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        operations = []
        for product in found:
            left = [product.inner, product.rows] if product.transpose_a else [product.rows, product.inner]
            right = [product.columns, product.inner] if product.transpose_b else [product.inner, product.columns]
            operands = [
                tf.Variable(tf.cast(tf.random_normal(shape), dtype), use_resource=True) for shape in (left, right)
            ]
            result = tf.matmul(*operands, transpose_a=product.transpose_a, transpose_b=product.transpose_b)
            operations.append((operands, result.op))
        times = []
        for operands, operation in operations:
            session.run([operand.initializer for operand in operands])
            times.append(seconds(lambda operation=operation: session.run(operation), repeats, warm_up=2, ranks=ranks))
        return times


def matmul_rate(hparams: ModelHParams, tokens: int, logits: int, dtype: str, ranks: Ranks, repeats: int = 3) -> float:
    """Return the operations per second of a rank over all products of a forward and backward pass."""
    found = products(hparams, tokens, logits)
    times = time_products(found, dtype, repeats, ranks)
    return sum(p.flops * p.times for p in found) / sum(t * p.times for t, p in zip(times, found))


def read_rate(repeats: int = 5) -> float:
    """Return the bytes per second at which TensorFlow sums an array of half a gigabyte, larger than any cache."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        array = tf.Variable(tf.zeros([2**27]), use_resource=True)
        session.run(array.initializer)
        total = tf.reduce_sum(array).op
        return 2**29 / seconds(lambda: session.run(total), repeats)


def main() -> None:
    flags = parser(__doc__, repeats=5, ranks=1).parse_args()
    ranks = start_ranks(flags.ranks)
    hparams, batch = model_size(flags.model), ranks.share(flags.batch)
    found = products(hparams, batch * (flags.query + flags.response), batch * flags.response)
    dtypes = ['float32', 'bfloat16'] if flags.dtype == 'float32' else [flags.dtype]
    times = {dtype: time_products(found, dtype, flags.repeats, ranks) for dtype in dtypes}
    rows, figures = [], {}
    for i, product in enumerate(found):
        shape = f'{product.rows} × {product.inner} × {product.columns}'
        rows.append([product.name, shape] + [product.flops / times[dtype][i] / 1e9 for dtype in dtypes])
    for dtype in dtypes:
        total = sum(t * p.times for t, p in zip(times[dtype], found))
        figures[dtype] = sum(p.flops * p.times for p in found) / total / 1e9
    rows.append(['all of a pass', ''] + [figures[dtype] for dtype in dtypes])
    table(['product', 'shape'] + [f'{dtype}, GFLOP/s' for dtype in dtypes], rows)
    if flags.json:
        json_line({'model': flags.model, 'batch': flags.batch, 'ranks': ranks.size, 'gflops': figures})


if __name__ == '__main__':
    main()
