"""The few places where TensorFlow 1.13 and TensorFlow 2 differ for this code.

Everything else is written once against `tensorflow.compat.v1`: graphs, sessions and placeholders. Importing this
module switches a TensorFlow 2 to that behaviour.
"""

import contextlib
import os
import warnings
from typing import Iterator

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # its errors reach us as exceptions


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep what TensorFlow 2.21 says on being loaded, before it heeds the log level, off standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with warnings.catch_warnings(), _without_remarks():
    warnings.simplefilter('ignore')  # TensorFlow 1.13 spells numpy types in a way newer numpys announce to drop
    import tensorflow.compat.v1 as tf

IS_TF1 = tf.__version__.startswith('1.')

tf.logging.set_verbosity(tf.logging.ERROR)
if not IS_TF1:
    tf.disable_v2_behavior()


def new_session(graph: tf.Graph, threads: int = 0) -> tf.Session:
    """A session on `graph` that takes GPU memory as it needs it; `threads` 0 leaves the choice to TensorFlow."""
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    config.gpu_options.allow_growth = True
    return tf.Session(graph=graph, config=config)
