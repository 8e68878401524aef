"""Byte-level byte-pair encoding (BPE), as GPT-2 uses it.

A text is cut into words by a fixed pattern; the UTF-8 bytes of a word, each written as one printable
character, are merged pair by pair in the order in which the merges were learned.
"""

import functools
import os
import string
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import regex

from lm_human_preferences.remote import storage
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.files import read_text, write_json, written_whole
from lm_human_preferences.utils.json_files import read_json

END_OF_TEXT = '<|endoftext|>'
ENCODER_FILE = 'encoder.json'
MERGES_FILE = 'vocab.bpe'

WORD_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_SURROGATE = regex.compile('[\ud800-\udfff]')


@functools.lru_cache(maxsize=1)
def byte_symbols() -> Dict[int, str]:
    """Return GPT-2's printable character for each byte, in the order of GPT-2's vocabulary.

    Printable Latin-1 bytes stand for themselves and come first; the others, which would be lost in a text
    file (spaces, control characters), are shifted to the code points from 256 on.
    """
    printable = [b for first, last in ('!~', '¡¬', '®ÿ') for b in range(ord(first), ord(last) + 1)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable}
    symbols.update((b, chr(256 + i)) for i, b in enumerate(others))
    return symbols


class Encoding:
    """Text ↔ token ids.

    Attributes: `name` ('main' for GPT-2's vocabulary, 'own' for another, 'test' for the built-in letters),
    `n_vocab`, `padding_token` (an id that is never sampled and decodes to nothing), `eot_token` (the end of
    a text, None where the vocabulary has none).
    """

    def __init__(
        self,
        name: str,
        encoder: Dict[str, int],
        merges: Sequence[Tuple[str, str]],
        padding_token: Optional[int] = None,
    ):
        self.name = name
        self.n_vocab = len(encoder)
        self.padding_token = self.n_vocab + 2 if padding_token is None else padding_token
        self.eot_token = encoder.get(END_OF_TEXT)
        self._encoder = encoder
        self._decoder = {token: symbols for symbols, token in encoder.items()}
        self._merges = list(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self._merges)}
        self._symbols = byte_symbols()
        self._bytes = {symbol: byte for byte, symbol in self._symbols.items()}
        # Words repeat, and their merging is the slow part.
        self._word_tokens = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    @classmethod
    def from_files(cls, name: str, encoder_json: str, vocab_bpe: str) -> 'Encoding':
        """Read a vocabulary in GPT-2's file format: {symbols: id} and one merge a line, best first."""
        encoder = read_json(encoder_json)
        check_encoder(encoder_json, encoder)
        # Only '\n' ends a line: some symbols count as line ends elsewhere.
        lines = read_text(vocab_bpe, newline='\n').split('\n')
        merges = []
        for number, line in enumerate((line.rstrip('\r') for line in lines), start=1):
            if not line or (number == 1 and line.startswith('#version')):
                continue
            merge = tuple(line.split(' '))
            if len(merge) != 2 or not all(merge):
                raise ValueError(f'{vocab_bpe}: line {number}: {short(line)} is not two symbols with a space between')
            if ''.join(merge) not in encoder:
                raise ValueError(f'{vocab_bpe}: line {number}: the merge {short(line)} is not in {ENCODER_FILE}')
            merges.append(merge)
        return cls(name, encoder, merges)

    def encode(self, text: str) -> List[int]:
        """Return the token ids of `text`. ValueError for a character the vocabulary cannot write.

        Half of a surrogate pair, as in broken JSON, has no UTF-8 and counts as U+FFFD; both halves are a character.
        """
        if _SURROGATE.search(text):
            text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
        tokens = []
        for word in WORD_PATTERN.findall(text):
            tokens.extend(self._word_tokens(word))
        return tokens

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of token ids; padding is dropped, bytes that are no UTF-8 become U+FFFD."""
        try:
            symbols = ''.join(self._decoder[int(token)] for token in tokens if token != self.padding_token)
        except KeyError as e:
            raise ValueError(f'{e} is no token of the vocabulary of {self.n_vocab}') from None
        # 0xFF is no UTF-8: a character that stands for no byte is shown as broken.
        return bytes(self._bytes.get(symbol, 0xFF) for symbol in symbols).decode('utf-8', errors='replace')

    def same_tokens(self, other: 'Encoding') -> bool:
        """Whether a token id means the same text in both."""
        return (self._encoder, self.padding_token) == (other._encoder, other.padding_token)

    def save(self, folder: str) -> None:
        """Write the files from which `load_encoding` restores this encoding."""
        os.makedirs(folder, exist_ok=True)
        if self.name != 'test':
            write_vocabulary(folder, self._encoder, self._merges)
        write_json(os.path.join(folder, 'encoding'), self.name)

    def _encode_word(self, word: str) -> Tuple[int, ...]:
        symbols = [self._symbols[byte] for byte in word.encode('utf-8')]
        while len(symbols) > 1:
            pairs = set(zip(symbols, symbols[1:]))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            symbols = merge_pair(symbols, best)
        try:
            return tuple(self._encoder[symbol] for symbol in symbols)
        except KeyError:
            raise ValueError(f'the vocabulary {self.name!r} cannot encode {word!r}') from None


def merge_pair(symbols: Sequence[str], pair: Tuple[str, str]) -> List[str]:
    """Join each occurrence of `pair` in `symbols`, from the left."""
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


def write_vocabulary(folder: str, encoder: Dict[str, int], merges: Sequence[Tuple[str, str]]) -> None:
    """Write encoder.json and vocab.bpe in GPT-2's file format."""
    write_json(os.path.join(folder, ENCODER_FILE), encoder, indent=None)
    with written_whole(os.path.join(folder, MERGES_FILE)) as f:
        f.write('#version: 0.2\n')
        f.writelines(f'{first} {second}\n' for first, second in merges)


def test_encoding() -> Encoding:
    """Return the built-in encoding for trials without files: a–z and '.', one character a token."""
    characters = string.ascii_lowercase + '.'
    encoder = {character: token for token, character in enumerate(characters)}
    return Encoding('test', encoder, [], padding_token=len(encoder))


def main_encoding() -> Encoding:
    """Return GPT-2's encoding (50 257 tokens), fetched into encodings/main of the cache folder if it is not there."""
    for name in (ENCODER_FILE, MERGES_FILE):
        folder = os.path.dirname(storage.local_file(storage.join(storage.MODELS, 'encodings', 'main', name)))
    return _from_folder('main', folder)


def load_encoding(folder: str, default: Optional[str] = None) -> Encoding:
    """Load the encoding of a model folder.

    The file `encoding` there holds "main", "test" or "own"; without it the folder's own vocabulary files
    are taken, as in OpenAI's model folders, or if these are missing too, the encoding called `default`.
    """
    path = os.path.join(folder, 'encoding')
    beside = _has_vocabulary(folder)
    if not os.path.exists(path):
        if beside:
            return _from_folder(None, folder)
        if default == 'main':
            return main_encoding()
        raise FileNotFoundError(f'{folder}: no encoding: neither {path} nor {ENCODER_FILE} and {MERGES_FILE} there')
    name = read_json(path)
    if name == 'test':
        return test_encoding()
    if name == 'main':
        return _from_folder('main', folder) if beside else main_encoding()
    if name != 'own':
        raise ValueError(f'{path}: unknown encoding {short(name)}: must be "main", "own" or "test"')
    if not beside:
        raise FileNotFoundError(f'{folder}: {ENCODER_FILE} or {MERGES_FILE} is missing beside {path}')
    return _from_folder('own', folder)


def check_encoder(path: str, encoder: Any) -> None:
    """ValueError unless `encoder` is {symbols: id} with the ids 0 … n−1, each once."""
    if not isinstance(encoder, dict) or not encoder:
        raise ValueError(f'{path}: should hold an object of symbols and their ids, not {short(encoder)}')
    holders = {}
    for symbols, token in encoder.items():
        if type(token) is not int or not 0 <= token < len(encoder):
            wanted = f'an integer from 0 to {len(encoder) - 1}, as there are {len(encoder)} entries'
            raise ValueError(f'{path}: the id of {short(symbols)} should be {wanted}, not {short(token)}')
        if token in holders:
            raise ValueError(f'{path}: {short(holders[token])} and {short(symbols)} have the same id {token}')
        holders[token] = symbols


def _has_vocabulary(folder: str) -> bool:
    return all(os.path.exists(os.path.join(folder, name)) for name in (ENCODER_FILE, MERGES_FILE))


def _from_folder(name: Optional[str], folder: str) -> Encoding:
    encoding = Encoding.from_files('own', os.path.join(folder, ENCODER_FILE), os.path.join(folder, MERGES_FILE))
    is_gpt2s = (encoding.n_vocab, encoding.eot_token) == (50257, 50256)
    encoding.name = name or ('main' if is_gpt2s else 'own')
    return encoding
