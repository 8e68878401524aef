"""Learning a byte-level BPE vocabulary from text, in GPT-2's file format."""

import collections
import heapq
from typing import Dict, Iterable, Iterator, List, Tuple

from lm_human_preferences.language.encodings import END_OF_TEXT, WORD_PATTERN, byte_symbols, merge_pair

Pair = Tuple[str, str]


def train_bpe(texts: Iterable[str], n_vocab: int) -> Tuple[Dict[str, int], List[Pair]]:
    """Learn a vocabulary of `n_vocab` entries: (encoder {symbols: id}, merges best first).

    Entries are the 256 bytes in GPT-2's order, then one for each merge, then the end of text. Each merge
    joins the pair most frequent inside the words so far, the alphabetically first of equals. ValueError if
    the texts are too few for so many entries.
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
        # Two merges may lead to the same string ('aa'+'a', 'a'+'aa'): one entry.
        entries.setdefault(''.join(pair), len(entries))
    if len(entries) < n_vocab - 1:
        raise ValueError(f'n_vocab is {n_vocab}: the texts are enough for {len(entries) + 1} only')
    entries[END_OF_TEXT] = n_vocab - 1
    return entries, merges


def _most_frequent_pairs(words: List[List[str]], counts: List[int]) -> Iterator[Pair]:
    """Yield the most frequent pair, then merge it in `words` (in place), until no pair is left.

    After a merge only the words that hold the pair are counted anew.
    """
    pair_counts = collections.Counter()
    words_of = collections.defaultdict(set)
    for i, word in enumerate(words):
        for pair in zip(word, word[1:]):
            pair_counts[pair] += counts[i]
            words_of[pair].add(i)
    # Counts in the heap may be outdated; each change of a count pushes the right one.
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)
    while heap:
        count, pair = heapq.heappop(heap)
        if count == 0 or -count != pair_counts[pair]:
            continue
        yield pair
        changed = set()
        for i in words_of.pop(pair):
            before, words[i] = words[i], merge_pair(words[i], pair)
            for neighbours in zip(before, before[1:]):
                pair_counts[neighbours] -= counts[i]
                changed.add(neighbours)
            for neighbours in zip(words[i], words[i][1:]):
                pair_counts[neighbours] += counts[i]
                changed.add(neighbours)
                words_of[neighbours].add(i)
        for neighbours in changed:
            heapq.heappush(heap, (-pair_counts[neighbours], neighbours))
