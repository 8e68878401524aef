"""Read the tokenizer of a Hugging Face folder as an encoding."""

import os
from typing import Any, Dict, List, NamedTuple, Tuple

from lm_human_preferences.language.encodings import (
    END_OF_TEXT,
    VOCABULARY_FILES,
    Encoding,
    check_encoder,
    name_of_vocabulary,
    read_merges,
)
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.json_files import read_json

ADDED_FILE = 'added_tokens.json'
TOKENIZER_FILE = 'tokenizer.json'
# Settings of tokenizer.json that change the tokens, with the values of GPT-2's tokenizer.
_FIXED = {
    'type': ['BPE'],
    'dropout': [None, 0, 0.0],
    'continuing_subword_prefix': ['', None],
    'end_of_word_suffix': ['', None],
    'byte_fallback': [False],
    'ignore_merges': [False],
}


class Tokenizer(NamedTuple):
    """An encoding, and the tokens of its tokenizer that are left out of it."""

    encoding: Encoding
    left_out: List[str]  # added tokens behind the vocabulary, such as [PAD], in the order of their ids


def read_tokenizer(folder: str) -> Tokenizer:
    """Read the tokenizer: vocab.json and merges.txt, or tokenizer.json, the only file in newer folders.

    FileNotFoundError if there is none. ValueError naming the file if it is not a tokenizer such as GPT-2 has.
    """
    name_file = os.path.join(folder, 'encoding')  # if our `convert` wrote the folder
    name = read_json(name_file) if os.path.exists(name_file) else None
    if name not in (None, 'main', 'own', 'test'):
        raise ValueError(f'{name_file}: unknown encoding {short(name)}: must be "main", "own" or "test"')
    if name == 'test':
        return Tokenizer(letters(), [])
    vocab, merges = (os.path.join(folder, file) for file in VOCABULARY_FILES.values())
    whole = os.path.join(folder, TOKENIZER_FILE)
    if os.path.exists(vocab) and os.path.exists(merges):
        tokenizer = _from_two_files(vocab, merges, os.path.join(folder, ADDED_FILE))
    elif os.path.exists(whole):
        tokenizer = _from_one_file(whole)
    else:
        raise FileNotFoundError(f'{folder}: no tokenizer: neither vocab.json and merges.txt nor tokenizer.json')
    tokenizer.encoding.name = name or name_of_vocabulary(tokenizer.encoding)
    return tokenizer


def _from_two_files(vocab: str, merges: str, added: str) -> Tokenizer:
    encoder, added_tokens = read_json(vocab), {}
    if os.path.exists(added):
        added_tokens = read_json(added)
        if not isinstance(added_tokens, dict):
            raise ValueError(f'{added}: should hold an object of tokens and their ids, not {short(added_tokens)}')
    if not isinstance(encoder, dict):
        check_encoder(vocab, encoder)
    encoder, left_out = _with_added(vocab, encoder, added_tokens)
    return Tokenizer(Encoding('own', encoder, read_merges(merges, encoder, os.path.basename(vocab))), left_out)


def _from_one_file(path: str) -> Tokenizer:
    content = read_json(path)
    odd = ValueError(f'{path}: not a byte-level BPE tokenizer such as GPT-2 has')
    try:
        bpe, before, normalizer = content['model'], content['pre_tokenizer'], content.get('normalizer')
        added = {token['content']: token['id'] for token in content.get('added_tokens') or []}
        merges = [tuple(pair.split(' ')) if isinstance(pair, str) else tuple(pair) for pair in bpe['merges']]
        encoder = dict(bpe['vocab'])
        settings = {name: bpe.get(name, allowed[0]) for name, allowed in _FIXED.items()}
        kind, uses_pattern = before['type'], before.get('use_regex', True)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise odd from None
    if kind != 'ByteLevel' or uses_pattern is not True:
        raise odd
    for name, value in dict(settings, normalizer=normalizer).items():
        allowed = _FIXED.get(name, [None])
        if value not in allowed:
            raise ValueError(f'{path}: {name} is {short(value)}, and GPT-2 has {allowed[0]!r}')
    encoder, left_out = _with_added(path, encoder, added)
    for number, merge in enumerate(merges):
        if len(merge) != 2 or not all(isinstance(symbol, str) for symbol in merge):
            raise ValueError(f'{path}: merge {number}: {short(merge)} is not two symbols')
        if ''.join(merge) not in encoder:
            raise ValueError(f'{path}: merge {number}: {short("".join(merge))} is not in the vocabulary')
    return Tokenizer(Encoding('own', encoder, merges), left_out)


def _with_added(path: str, encoder: Dict[str, Any], added: Dict[str, Any]) -> Tuple[Dict[str, int], List[str]]:
    """Return the vocabulary with its end of text, and the added tokens behind both, which are left out.

    Text never becomes an added token in our encoding. A model must not sample one, either.

    Args:
      encoder: {symbol: id}, the vocabulary of the file `path`.
      added: {token: id}, the tokens that were added to it.
    """
    for token, number in added.items():
        if type(number) is not int or number < 0:
            raise ValueError(
                f'{path}: the id of the added token {short(token)} should be 0 or above, not {short(number)}'
            )
        if encoder.get(token, number) != number:
            raise ValueError(
                f'{path}: the added token {short(token)} has two ids, {number} and {short(encoder[token])}'
            )
    last = max(
        [number for number in encoder.values() if type(number) is int] + [added.get(END_OF_TEXT, -1)], default=-1
    )
    kept = {token: number for token, number in added.items() if number <= last}
    whole = dict(encoder, **kept)
    check_encoder(path, whole)
    return whole, sorted((token for token in added if token not in whole), key=added.get)
