"""Learn a byte-level BPE vocabulary from text, in the form of GPT-2's.

The library tokenizers takes about the same time (1 024 entries from 1.8 MB of text: 3 seconds). With ours, the alphabet
decides between equally frequent pairs, so that the texts alone fix the vocabulary, and the end of text is the last
token, as in GPT-2's.
"""

import collections
import heapq
from typing import Dict, Iterable, Iterator, List, Tuple

from lm_human_preferences.language.encodings import END_OF_TEXT, WORD_PATTERN, byte_symbols

Pair = Tuple[str, str]


def train_bpe(texts: Iterable[str], n_vocab: int) -> Tuple[Dict[str, int], List[Pair]]:
    """Learn a vocabulary of `n_vocab` entries.

    The entries are the 256 bytes in GPT-2's order, then one for each merge, then the end of text. Each merge joins the
    pair of neighbouring symbols that is most frequent within the words so far. Of equally frequent pairs it joins the
    alphabetically first.

    Returns:
      the encoder {symbol: token id}, and the merges in order.

    Raises:
      ValueError: the texts are too few for that many entries.
    """
    symbols = byte_symbols()
    if n_vocab <= len(symbols):
        raise ValueError(f'n_vocab is {n_vocab}: a byte-level vocabulary has at least {len(symbols) + 1} entries')
    counts = collections.Counter(word for text in texts for word in WORD_PATTERN.findall(text))
    words = [[symbols[byte] for byte in word.encode('utf-8', errors='replace')] for word in counts]
    entries = {symbol: token for token, symbol in enumerate(symbols.values())}
    merges = []
    for pair in _most_frequent_pairs(words, list(counts.values())):
        if len(entries) == n_vocab - 1:
            break
        merges.append(pair)
        # Two merges can give the same symbol ('aa' + 'a', 'a' + 'aa'), which is one entry.
        entries.setdefault(''.join(pair), len(entries))
    if len(entries) < n_vocab - 1:
        raise ValueError(f'n_vocab is {n_vocab}: the texts are enough for {len(entries) + 1} only')
    entries[END_OF_TEXT] = n_vocab - 1
    return entries, merges


def _most_frequent_pairs(words: List[List[str]], counts: List[int]) -> Iterator[Pair]:
    """Yield the most frequent pair, then merge it wherever it occurs. Repeat until no pair is left.

    The symbols of all words are in one list. Each knows its neighbours in its word, and each pair its places. So a
    merge takes time for its own places alone, however long a word is.

    Args:
      words: for each different word its symbols.
      counts: how often each word occurs.
    """
    symbols, weights = [], []  # a symbol is None once it is merged into the one before; its weight is its word's count
    preceding, following = [], []  # places of the neighbours; -1: none
    for word, count in zip(words, counts):
        first, last = len(symbols), len(symbols) + len(word) - 1
        symbols += word
        weights += [count] * len(word)
        preceding += [-1, *range(first, last)]
        following += [*range(first + 1, last + 1), -1]
    pair_counts = collections.Counter()
    places_of = collections.defaultdict(list)
    changed = set()

    def count_pair(place: int, second: int, sign: int) -> None:
        if place >= 0 and second >= 0:
            pair = symbols[place], symbols[second]
            pair_counts[pair] += sign * weights[place]
            changed.add(pair)
            if sign > 0:
                places_of[pair].append(place)

    for place, second in enumerate(following):
        count_pair(place, second, 1)
    # A pair is in the heap once for each count that it ever had. Only the entry with its current count is valid.
    heap = []
    while heap or changed:
        for pair in changed:
            heapq.heappush(heap, (-pair_counts[pair], pair))
        changed.clear()
        count, pair = heapq.heappop(heap)
        if count == 0 or -count != pair_counts[pair]:
            continue
        yield pair
        for place in sorted(places_of.pop(pair)):
            second = following[place]
            if second < 0 or (symbols[place], symbols[second]) != pair:
                continue  # one of the two was merged with another symbol
            before, after = preceding[place], following[second]
            for ends in ((before, place), (place, second), (second, after)):
                count_pair(*ends, -1)
            symbols[place] += symbols[second]
            symbols[second] = None
            following[place] = after
            if after >= 0:
                preceding[after] = place
            count_pair(before, place, 1)
            count_pair(place, after, 1)
