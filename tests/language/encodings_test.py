import json
import os
import time

import numpy as np
import pytest
from reference_encoders import merge_pair

from lm_human_preferences.language import encodings
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import (
    Encoding,
    byte_symbols,
    load_encoding,
    main_encoding,
    merge_learned,
    write_vocabulary,
)
from lm_human_preferences.language.trained_models import find_model


@pytest.fixture(scope='module')
def golden(golden_dir):
    return Encoding.from_files('own', os.path.join(golden_dir, 'encoder.json'), os.path.join(golden_dir, 'vocab.bpe'))


@pytest.fixture(scope='module')
def own():
    return Encoding('own', *train_bpe(['the cat and the dog', "it's the café"], 270))


def test_golden_cases(golden, golden_dir):
    with open(os.path.join(golden_dir, 'encoding_cases.json'), encoding='utf-8') as f:
        cases = json.load(f)
    assert golden.n_vocab == cases['n_vocab']
    assert golden.padding_token == cases['padding_token']
    for text, tokens in zip(cases['texts'], cases['tokens']):
        assert golden.encode(text) == tokens
        assert golden.decode(tokens) == text


def merged_slowly(symbols, ranks):
    """The definition: merge the first learned pair wherever it occurs, and repeat."""
    while len(symbols) > 1:
        best = min(set(zip(symbols, symbols[1:])), key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        symbols = merge_pair(symbols, best)
    return symbols


@pytest.mark.parametrize('seed', range(4))
def test_any_merges_in_any_order_are_those_of_the_definition(seed):
    """Learned merges come before those of their result; here they come in any order."""
    random = np.random.RandomState(seed)
    for _ in range(500):
        symbols = list('abc'[: random.randint(1, 4)])
        word = [symbols[i] for i in random.randint(0, len(symbols), random.randint(1, 30))]
        pairs = []
        for _ in range(random.randint(0, 14)):
            pairs.append((symbols[random.randint(len(symbols))], symbols[random.randint(len(symbols))]))
            symbols.append(''.join(pairs[-1]))
        pairs = list(dict.fromkeys(pairs))
        ranks = {pairs[i]: rank for rank, i in enumerate(random.permutation(len(pairs)))}
        assert merge_learned(word, ranks) == merged_slowly(word, ranks), (word, ranks)


@pytest.mark.parametrize('word', ['a' * 40000, 'the cat and the dog'.replace(' ', '') * 2700])
def test_a_very_long_word_takes_no_long_time(own, word):
    start = time.process_time()
    tokens = own.encode(word)
    assert time.process_time() - start < 5
    assert own.decode(tokens) == word and len(tokens) < len(word) or set(word) == {'a'}


def test_byte_symbols_are_in_gpt2s_order():
    symbols = list(byte_symbols().values())
    assert len(set(symbols)) == 256
    assert symbols.index('.') == 13
    assert symbols.index(byte_symbols()[ord('\n')]) == 198
    assert byte_symbols()[ord(' ')] == 'Ġ' and byte_symbols()[ord('\n')] == 'Ċ'


@pytest.mark.parametrize(
    'text',
    ['', ' ', "the cat's\n\n  end \t", 'naïve 😀 \x00\x85\u2028 日本', '\r\nold\r', "I'LL don't 3rd"],
)
def test_decode_restores_the_text(own, text):
    assert own.decode(own.encode(text)) == text


def test_decode_of_arrays_padding_and_broken_utf8(own):
    tokens = np.array(own.encode('the dog') + [own.padding_token] * 2, dtype=np.int32)
    assert own.decode(tokens) == 'the dog'
    half = own.encode('😀')[:2]
    assert own.decode(half) == '\ufffd'
    assert own.decode([own.eot_token]) == '<|endoftext|>'
    with pytest.raises(ValueError, match='271 is no token'):
        own.decode([own.n_vocab + 1])


def test_lone_surrogate_encodes(own):
    assert own.decode(own.encode('a\ud83d b')) == 'a\ufffd b'
    assert own.decode(own.encode('a\ud83d\ude00 b')) == 'a😀 b'


def test_test_encoding():
    encoding = encodings.test_encoding()
    assert (encoding.n_vocab, encoding.padding_token, encoding.eot_token) == (27, 27, None)
    assert encoding.encode('az.') == [0, 25, 26]
    assert encoding.decode([1, 27, 26]) == 'b.'
    with pytest.raises(ValueError, match='cannot encode'):
        encoding.encode('a b')


def test_save_and_load(own, tmp_path):
    own.save(str(tmp_path / 'own'))
    loaded = load_encoding(str(tmp_path / 'own'))
    assert json.loads((tmp_path / 'own' / 'encoding').read_text()) == 'own'
    assert loaded.name == 'own' and loaded.n_vocab == 270 and loaded.eot_token == 269
    text = 'the cat and the café\n'
    assert loaded.encode(text) == own.encode(text)
    assert len(own.encode(text)) < len(text.encode('utf-8'))

    encodings.test_encoding().save(str(tmp_path / 'test'))
    assert load_encoding(str(tmp_path / 'test')).padding_token == 27
    assert os.listdir(str(tmp_path / 'test')) == ['encoding']


def test_published_folder_has_no_encoding_file(own, tmp_path):
    own.save(str(tmp_path))
    os.remove(str(tmp_path / 'encoding'))
    assert load_encoding(str(tmp_path)).encode('the cat') == own.encode('the cat')


def test_main_comes_from_the_cache(own, tmp_path, cache, mirror):
    model = tmp_path / 'model'
    model.mkdir()
    (model / 'encoding').write_text('"main"')
    with pytest.raises(FileNotFoundError, match='encodings/main/encoder.json: not found'):
        load_encoding(str(model))
    folder = cache / 'encodings' / 'main'
    own.save(str(folder))
    loaded = load_encoding(str(model))
    assert loaded.name == main_encoding().name == 'main'
    assert loaded.encode('the dog') == own.encode('the dog')


def test_symbols_that_look_like_line_ends_stay_in_merges(tmp_path):
    """U+0085 is a printable-range neighbour that str.splitlines would cut at."""
    encoder = {symbol: i for i, symbol in enumerate(byte_symbols().values())}
    merges = [('Ġ', '\x85'), ('a', 'b')]
    encoder.update({'Ġ\x85': 256, 'ab': 257})
    write_vocabulary(str(tmp_path), encoder, merges)
    loaded = load_encoding(str(tmp_path))
    assert loaded.encode('ab') == [257]


@pytest.mark.parametrize(
    'files, message',
    [
        ({}, 'no encoding'),
        ({'encoding': '"other"'}, "unknown encoding 'other'"),
        ({'encoding': 'main'}, 'encoding: not JSON: Expecting value'),
        ({'encoding': '"own"'}, 'encoder.json or vocab.bpe is missing'),
        ({'encoder.json': '{"a": 0}', 'vocab.bpe': '#version: 0.2\na b\n'}, "merge 'a b'"),
        ({'encoder.json': '{"a": 5}', 'vocab.bpe': '#version: 0.2\n'}, "id of 'a' should be an integer from 0 to 0"),
        ({'encoder.json': '{"a": ', 'vocab.bpe': ''}, 'encoder.json: not JSON'),
    ],
)
def test_bad_folders_give_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        load_encoding(str(tmp_path))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('n_vocab', [50257, 50256, 28])
def test_a_model_folder_without_a_vocabulary(n_vocab, cache, tmp_path):
    """It has GPT-2's if it is of that size, as a folder that OpenAI published."""
    symbols = [chr(0x4E00 + i) for i in range(50256)] + [encodings.END_OF_TEXT]
    main = cache / 'encodings' / 'main'
    main.mkdir(parents=True)
    (main / 'encoder.json').write_text(json.dumps({symbol: i for i, symbol in enumerate(symbols)}))
    (main / 'vocab.bpe').write_text('#version: 0.2\n')
    sizes = dict(n_vocab=n_vocab, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'hparams.json').write_text(json.dumps(sizes))
    trained = find_model(str(tmp_path / 'model'))
    if n_vocab == 50257:
        assert (trained.encoding().name, trained.encoding().padding_token) == ('main', 50259)
        assert trained.encoding() is trained.encoding()  # read once
    else:
        with pytest.raises(FileNotFoundError, match='model: no encoding: neither'):
            trained.encoding()
