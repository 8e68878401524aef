"""Byte-level byte-pair encoding (BPE), as GPT-2 uses it: from text to token ids and back.

A fixed pattern cuts the text into words. Each UTF-8 byte of a word is written as one printable character. Then pairs of
neighbouring symbols are merged, one pair after another, in the order in which the merges were learned. Each symbol that
remains is a token.

The libraries tiktoken and tokenizers do the same in Rust, and give the same tokens. Ours encodes 0.4 to 1.1 million
tokens of new text a second on one core: 0.2 to 0.4 times the rate of tiktoken, about twice that of tokenizers, and at
least 7 times what one GPU needs (benchmarks/encoding.py). Ours has a padding token, names file and line of a bad
vocabulary, joins the surrogate pairs of broken JSON (tokenizers does not), and runs on Python 3.7 (tiktoken does not).
"""

import functools
import hashlib
import heapq
import json
import os
import string
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import regex

from lm_human_preferences.remote import storage
from lm_human_preferences.remote.failures import RemoteError
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.files import text_lines, write_json, written_whole
from lm_human_preferences.utils.json_files import read_json

END_OF_TEXT = '<|endoftext|>'
ENCODER_FILE = 'encoder.json'
MERGES_FILE = 'vocab.bpe'
VOCABULARY_FILES = {ENCODER_FILE: 'vocab.json', MERGES_FILE: 'merges.txt'}  # our name -> that of Hugging Face
HUB_COPY = 'hf://openai-community/gpt2'
MAIN_VOCABULARY = 50257  # tokens of GPT-2's vocabulary; the last one is the end of text

WORD_PATTERN = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
_SURROGATE = regex.compile('[\ud800-\udfff]')


class Encoding:
    """A vocabulary: it encodes text as token ids, and decodes token ids.

    Attributes:
      name: 'main' for GPT-2's vocabulary, 'own' for another one, 'test' for the built-in letters.
      n_vocab: the number of tokens.
      padding_token: an id that is never sampled and decodes to nothing.
      eot_token: the end of a text; None if the vocabulary has no such token.
    """

    def __init__(
        self,
        name: str,
        encoder: Dict[str, int],
        merges: Sequence[Tuple[str, str]],
        padding_token: Optional[int] = None,
    ):
        """
        Args:
          encoder: {symbol: token id}.
          merges: pairs of symbols, in the order in which they are merged.
          padding_token: None: n_vocab + 2.
        """
        self.name = name
        self.n_vocab = len(encoder)
        self.padding_token = self.n_vocab + 2 if padding_token is None else padding_token
        self.eot_token = encoder.get(END_OF_TEXT)
        self._encoder = encoder
        self._decoder = {token: symbol for symbol, token in encoder.items()}
        self._merges = list(map(tuple, merges))
        self._ranks = {pair: rank for rank, pair in enumerate(self._merges)}
        self._symbols = byte_symbols()
        self._bytes = {symbol: byte for byte, symbol in self._symbols.items()}
        # Merging is the slow part, and words repeat.
        self._word_tokens = functools.lru_cache(maxsize=1 << 16)(self._encode_word)

    @classmethod
    def from_files(cls, name: str, encoder_json: str, vocab_bpe: str) -> 'Encoding':
        """Read a vocabulary in GPT-2's file format: {symbol: id}, and one merge on each line in order.

        ValueError naming file and line if one of the files is not in that format.
        """
        encoder = read_json(encoder_json)
        check_encoder(encoder_json, encoder)
        return cls(name, encoder, read_merges(vocab_bpe, encoder, ENCODER_FILE))

    def encode(self, text: str) -> List[int]:
        """Return the token ids of `text`. ValueError for a character that the vocabulary cannot encode.

        Half of a surrogate pair, as in broken JSON, has no UTF-8 and is read as U+FFFD. Both halves are one character.
        """
        if _SURROGATE.search(text):
            text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
        tokens = []
        for word in WORD_PATTERN.findall(text):
            tokens.extend(self._word_tokens(word))
        return tokens

    def _encode_word(self, word: str) -> Tuple[int, ...]:
        """Return the token ids of one word: merge its first learned pair, and repeat until no pair is a learned one."""
        symbols = [self._symbols[byte] for byte in word.encode('utf-8')]
        try:
            return tuple(self._encoder[symbol] for symbol in merge_learned(symbols, self._ranks))
        except KeyError:
            raise ValueError(f'the vocabulary {self.name!r} cannot encode {word!r}') from None

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of token ids. Padding is dropped. Bytes that are not UTF-8 become U+FFFD."""
        try:
            symbols = ''.join(self._decoder[int(token)] for token in tokens if token != self.padding_token)
        except KeyError as e:
            raise ValueError(f'{e} is no token of the vocabulary of {self.n_vocab}') from None
        # A character that stands for no byte becomes 0xFF, which is not UTF-8, and so U+FFFD.
        return bytes(self._bytes.get(symbol, 0xFF) for symbol in symbols).decode('utf-8', errors='replace')

    def pad(self, tokens: List[int], length: int) -> List[int]:
        """Return `tokens` with padding on the right, up to `length` in all."""
        return tokens + [self.padding_token] * (length - len(tokens))

    def same_tokens(self, other: 'Encoding') -> bool:
        """Return whether every token id means the same text in both encodings."""
        return (self._encoder, self.padding_token) == (other._encoder, other.padding_token)

    def content(self) -> Dict[str, Any]:
        """Return the arguments of `Encoding` that give this encoding, as content of JSON."""
        return dict(name=self.name, encoder=self._encoder, merges=self._merges, padding_token=self.padding_token)

    def checksum(self) -> str:
        """Return a checksum of the vocabulary: with the same one, a text has the same tokens."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()

    def save(self, folder: str) -> None:
        """Write the files from which `load_encoding` restores this encoding."""
        os.makedirs(folder, exist_ok=True)
        if self.name != 'test':
            write_vocabulary(folder, self._encoder, self._merges)
        write_json(os.path.join(folder, 'encoding'), self.name)


@functools.lru_cache(maxsize=1)
def byte_symbols() -> Dict[int, str]:
    """Return GPT-2's printable character for each byte, in the order of GPT-2's vocabulary.

    The printable Latin-1 bytes come first and stand for themselves. The other bytes (spaces, control characters) would
    get lost in a text file. They are written as the characters from code point 256 on.
    """
    printable = [b for first, last in ('!~', '¡¬', '®ÿ') for b in range(ord(first), ord(last) + 1)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable}
    symbols.update((b, chr(256 + i)) for i, b in enumerate(others))
    return symbols


def merge_learned(symbols: Sequence[str], ranks: Dict[Tuple[str, str], int]) -> List[str]:
    """Merge the pair of the lowest rank wherever it occurs, from left to right. Repeat until no pair has a rank.

    A heap holds the pairs by rank and place, so that n symbols take time n log n.
    """
    parts: List[Optional[str]] = list(symbols)  # None: merged into the part before
    end = len(parts)
    following, preceding = list(range(1, end + 1)), list(range(-1, end - 1))
    heap = [(ranks[pair], place) for place, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]
    heapq.heapify(heap)
    while heap:
        rank = heap[0][0]
        merged = []
        while heap and heap[0][0] == rank:
            place = heapq.heappop(heap)[1]
            second = following[place]
            if second == end or ranks.get((parts[place], parts[second])) != rank:
                continue  # one of the two was merged with another part
            parts[place] += parts[second]
            parts[second] = None
            following[place] = following[second]
            if following[second] < end:
                preceding[following[second]] = place
            merged.append(place)
        # New pairs wait until the whole pair is merged, even if their rank is lower.
        for place in merged:
            for first in (preceding[place], place):
                second = following[first] if first >= 0 else end
                new_rank = ranks.get((parts[first], parts[second])) if second < end else None
                if new_rank is not None:
                    heapq.heappush(heap, (new_rank, first))
    return [part for part in parts if part is not None]


def load_encoding(folder: str, default: Optional[str] = None) -> Encoding:
    """Load the encoding of a model folder.

    The folder's file `encoding` holds "main", "test" or "own". If there is no such file, as in OpenAI's model folders,
    the vocabulary files of the folder are used. If these are missing too, the encoding is `default`.

    Args:
      default: 'main' or None.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file is not in its format.
    """
    path = os.path.join(folder, 'encoding')
    has_vocabulary = all(os.path.exists(os.path.join(folder, name)) for name in (ENCODER_FILE, MERGES_FILE))
    if not os.path.exists(path):
        if has_vocabulary:
            return _from_folder(None, folder)
        if default == 'main':
            return main_encoding()
        raise FileNotFoundError(f'{folder}: no encoding: neither {path} nor {ENCODER_FILE} and {MERGES_FILE} there')
    name = read_json(path)
    if name == 'test':
        return test_encoding()
    if name == 'main':
        return _from_folder('main', folder) if has_vocabulary else main_encoding()
    if name != 'own':
        raise ValueError(f'{path}: unknown encoding {short(name)}: must be "main", "own" or "test"')
    if not has_vocabulary:
        raise FileNotFoundError(f'{folder}: {ENCODER_FILE} or {MERGES_FILE} is missing beside {path}')
    return _from_folder('own', folder)


def main_encoding() -> Encoding:
    """Return GPT-2's encoding (50 257 tokens). Its files are fetched if they are not there, also from the hub's copy.

    RemoteError that names all places if none of them has the files.
    """
    bucket = storage.join(storage.MODELS, 'encodings', 'main')
    try:
        files = [storage.local_file(storage.join(bucket, name)) for name in VOCABULARY_FILES]
    except RemoteError as error:
        files = [
            storage.copy_on_hub(storage.join(HUB_COPY, name), error, 'the vocabulary of GPT-2')
            for name in VOCABULARY_FILES.values()
        ]
    return Encoding.from_files('main', *files)


def test_encoding() -> Encoding:
    """Return the built-in encoding for trials without files: a–z and '.', one token for each character."""
    characters = string.ascii_lowercase + '.'
    encoder = {character: token for token, character in enumerate(characters)}
    return Encoding('test', encoder, [], padding_token=len(encoder))


def _from_folder(name: Optional[str], folder: str) -> Encoding:
    encoding = Encoding.from_files('own', os.path.join(folder, ENCODER_FILE), os.path.join(folder, MERGES_FILE))
    encoding.name = name or name_of_vocabulary(encoding)
    return encoding


def name_of_vocabulary(encoding: Encoding) -> str:
    """Return 'main' if the vocabulary is GPT-2's, by its size and its last token, else 'own'."""
    return 'main' if (encoding.n_vocab, encoding.eot_token) == (MAIN_VOCABULARY, MAIN_VOCABULARY - 1) else 'own'


def read_merges(path: str, encoder: Dict[str, int], encoder_file: str) -> List[Tuple[str, str]]:
    """Read a file of merges, one a line in order. `encoder_file` is the name of the encoder's file, for messages.

    ValueError naming file and line if it is not in that format.
    """
    merges = []
    for number, _, _, line in text_lines(path):
        if not line or (number == 1 and line.startswith('#version')):
            continue
        merge = tuple(line.split(' '))
        if len(merge) != 2 or not all(merge):
            raise ValueError(f'{path}: line {number}: {short(line)} is not two symbols with a space between')
        if ''.join(merge) not in encoder:
            raise ValueError(f'{path}: line {number}: the merge {short(line)} is not in {encoder_file}')
        merges.append(merge)
    return merges


def check_encoder(path: str, encoder: Any) -> None:
    """Raise ValueError unless `encoder`, the content of the file `path`, is {symbol: id} with each id 0 … n−1 once."""
    if not isinstance(encoder, dict) or not encoder:
        raise ValueError(f'{path}: should hold an object of symbols and their ids, not {short(encoder)}')
    symbol_of = {}
    for symbol, token in encoder.items():
        if type(token) is not int or not 0 <= token < len(encoder):
            wanted = f'an integer from 0 to {len(encoder) - 1}, as there are {len(encoder)} entries'
            raise ValueError(f'{path}: the id of {short(symbol)} should be {wanted}, not {short(token)}')
        if token in symbol_of:
            raise ValueError(f'{path}: {short(symbol_of[token])} and {short(symbol)} have the same id {token}')
        symbol_of[token] = symbol


def write_vocabulary(folder: str, encoder: Dict[str, int], merges: Sequence[Tuple[str, str]]) -> None:
    """Write encoder.json and vocab.bpe in GPT-2's file format."""
    write_json(os.path.join(folder, ENCODER_FILE), encoder, indent=None)
    with written_whole(os.path.join(folder, MERGES_FILE)) as f:
        f.write('#version: 0.2\n')
        f.writelines(f'{first} {second}\n' for first, second in merges)
