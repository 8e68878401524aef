import collections
import random
import time

import pytest
from reference_encoders import merge_pair

from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import WORD_PATTERN, Encoding, byte_symbols

TEXTS = ['low low low low low lower lower newest newest newest newest newest newest widest widest widest\n']


def slow_merges(texts, n_merges):
    """The definition of BPE, counting all pairs anew for each merge."""
    counts = collections.Counter(word for text in texts for word in WORD_PATTERN.findall(text))
    words = {word: [byte_symbols()[byte] for byte in word.encode('utf-8')] for word in counts}
    merges = []
    for _ in range(n_merges):
        pairs = collections.Counter()
        for word, symbols in words.items():
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += counts[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = {word: merge_pair(symbols, best) for word, symbols in words.items()}
    return merges


def test_incremental_counts_equal_the_definition():
    text = [
        'a rose is a rose is a rosette, aaaaaa aaaaa aaa; élan élan!\n\n',
        'banana bandana cabana ' * 3,
    ] + TEXTS
    encoder, merges = train_bpe(text, 257 + 40)
    assert merges == slow_merges(text, 40)
    assert len(encoder) == 297


def test_a_very_long_word_takes_no_long_time():
    word = ''.join(random.Random(0).choices('abcdefgh', k=40000))
    start = time.process_time()
    encoder, merges = train_bpe([word, 'a b a b'], 1000)
    assert time.process_time() - start < 5
    assert merges[:20] == slow_merges([word, 'a b a b'], 20) and len(encoder) == 1000


def test_order_of_entries():
    encoder, merges = train_bpe(TEXTS, 260)
    assert merges == slow_merges(TEXTS, 3)
    assert encoder['.'] == 13 and encoder['Ċ'] == 198
    assert [encoder[first + second] for first, second in merges] == [256, 257, 258]
    assert encoder['<|endoftext|>'] == 259
    assert sorted(encoder.values()) == list(range(260))


def test_frequent_word_becomes_one_token():
    encoding = Encoding('own', *train_bpe(TEXTS, 271))
    assert len(encoding.encode(' newest')) == 1
    assert encoding.decode(encoding.encode(' widest unseen')) == ' widest unseen'


@pytest.mark.parametrize('n_vocab, message', [(256, 'at least 257'), (1000, 'enough for')])
def test_impossible_sizes(n_vocab, message):
    with pytest.raises(ValueError, match=message):
        train_bpe(TEXTS, n_vocab)
