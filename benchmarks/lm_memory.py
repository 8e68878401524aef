"""Run `train_lm` on a text and on one four times as long: does its memory grow with the text?

    python benchmarks/lm_memory.py [--tokens=5000000]

Each run is a process of its own, with an empty cache folder. It tokenizes the text and trains a tiny model for one
epoch. Columns: `tokens` to train on, and how many `texts` they are; `token files, MB`; `own, MB`, the largest memory
that belongs to the process alone; `peak, MB`, its largest resident memory, which includes the pages of mapped files
that the system may drop at any time; and processor seconds.
"""

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import Dict, Iterator, List

import numpy as np
from measuring import figures_of, json_line, peak_gigabytes, table
from rows import Parser
from stages import save_random_model

from lm_human_preferences import train_lm
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.remote.cache import VARIABLE, cache_folder

TIMES = (1, 4)
MODEL = ModelHParams(n_vocab=300, n_ctx=128, n_embd=16, n_head=1, n_layer=1)
LINE = 249  # characters of a text; each is a token in the vocabulary of random models
SECONDS_BETWEEN_LOOKS = 0.02
MEGABYTE = 2**20


def write_texts(path: str, tokens: int) -> None:
    """Write lines of random words, of which about `tokens` belong to the split `train`."""
    random = np.random.RandomState(0)
    words = [bytes(random.randint(97, 123, length)).decode() for length in random.randint(2, 9, 500)]
    with open(path, 'w') as file:
        for _ in range(round(tokens / 0.9 / LINE)):
            file.write(' '.join(words[i] for i in random.randint(0, 500, 50))[:LINE] + '\n')


@contextlib.contextmanager
def looking(found: List[int]) -> Iterator[None]:
    """Append to `found` the bytes of memory that this process shares with no file, again and again in the block."""
    over = threading.Event()

    def look():
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            with open('/proc/self/status') as file:
                found.extend(int(line.split()[1]) << 10 for line in file if line.startswith('RssAnon'))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measure(flags, folder: str) -> Dict[str, float]:
    """Train on a text of `flags.tokens` tokens in `folder`; return the figures of a row."""
    text, initial = os.path.join(folder, 'text.txt'), os.path.join(folder, 'initial')
    write_texts(text, flags.tokens)
    save_random_model(initial, MODEL)
    hparams = train_lm.HParams()
    hparams.override_from_dict(
        {
            'run.seed': 1,
            'run.save_dir': os.path.join(folder, 'run'),
            'run.save_interval': 10**6,
            'run.log_interval': 1000,
            'dataset': f'text:{text}',
            'initial_model': initial,
            'sequence_length': MODEL.n_ctx - 1,
            'batch_size': 128,
        }
    )
    os.environ[VARIABLE] = os.path.join(folder, 'cache')
    found, streams = [], []
    make_stream = train_lm.TokenStream
    train_lm.TokenStream = lambda tokens, *others: streams.append(tokens) or make_stream(tokens, *others)
    start = time.process_time()
    with looking(found), contextlib.redirect_stdout(sys.stderr):
        train_lm.train(hparams)
    token_files = cache_folder('tokens')
    return {
        'tokens': streams[0].num_tokens,
        'texts': streams[0].num_texts,
        'token files, MB': sum(file.stat().st_size for file in os.scandir(token_files)) / MEGABYTE,
        'own, MB': max(found) / MEGABYTE,
        'peak, MB': peak_gigabytes() * 1024,
        'processor s': time.process_time() - start,
    }


def main() -> None:
    flags = Parser(description=__doc__.splitlines()[0])
    flags.add_argument('--tokens', type=int, default=5 * 10**6, help='of the shorter text')
    flags.add_argument('--alone', action='store_true', help='only that text')
    flags.add_argument('--json', action='store_true', help='print one JSON line after the table')
    given = flags.parse_args()
    if given.alone:
        folder = tempfile.mkdtemp()
        try:
            json_line(measure(given, folder))
        finally:
            shutil.rmtree(folder)
        return
    rows = [figures_of('lm_memory.py', '--alone', f'--tokens={given.tokens * times}') for times in TIMES]
    columns = ['tokens', 'texts', 'token files, MB', 'own, MB', 'peak, MB', 'processor s']
    table(columns, [[row[column] for column in columns] for row in rows])
    if given.json:
        json_line({str(times): row for times, row in zip(TIMES, rows)})


if __name__ == '__main__':
    main()
