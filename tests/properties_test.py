"""Property tests: for any input, a reader returns its values or raises its own error in one line."""

import json
import os
import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from lm_human_preferences import experiments
from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.hyperparameters import TREES, ModelHParams, TrainPolicyHParams
from lm_human_preferences.language.encodings import Encoding, load_encoding, write_vocabulary
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.utils.errors import UserError, did_you_mean, short
from lm_human_preferences.utils.json_files import read_json

quick = settings(
    max_examples=100, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

SCHEMA = {
    'query': (np.int32, (2,)),
    'sample0': (np.int32, (1,)),
    'sample1': (np.int32, (1,)),
    'best': (np.int32, ()),
    'score': (np.float32, ()),
}
NAMES = sorted(TrainPolicyHParams.tree())
numbers = some.integers() | some.floats() | some.sampled_from([0, 1, 26, 27, 28, 2**31, 2**63, 10**400, -1, True])
scalars = some.none() | some.booleans() | numbers | some.text(max_size=20)
contents = some.recursive(
    scalars,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
texts = (
    some.text(max_size=30)
    | numbers.map(str)
    | some.sampled_from(['on', 'off', 'None', 'true', '', '1e999', 'nan', '1_0'])
)


def check_line(error):
    """Check that an error for the user is one line of readable length."""
    message = str(error)
    assert message and len(message.splitlines()) == 1 and len(message) < 3000, message


@pytest.fixture(scope='module')
def folder():
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def written(folder, name, content):
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
        file.write(content)
    return path


# Labels

tokens = some.lists(some.integers(-1, 30), max_size=3)
answers = some.integers(-1, 3) | contents
labels = some.lists(
    some.fixed_dictionaries(
        {'query': tokens | contents, 'sample0': tokens, 'sample1': tokens, 'best': answers, 'score': answers}
    )
    | contents,
    max_size=4,
)


def load(path, num=2):
    try:
        return load_labels(path, SCHEMA, num, letters())
    except ValueError as error:
        assert str(error).startswith(path), error
        check_line(error)


@quick
@given(content=labels | contents)
def test_labels_of_any_json(folder, content):
    found = load(written(folder, 'labels.json', json.dumps(content).encode()))
    if found is not None:
        assert {name: array.shape for name, array in found.items()} == {
            n: (2,) + shape for n, (_, shape) in SCHEMA.items()
        }
        for name, array in found.items():
            assert np.isfinite(array).all()
            assert array.tolist() == pytest.approx([entry[name] for entry in content[:2]], rel=1e-6)
        assert set(found['best']) <= {0, 1} and found['query'].min() >= 0 and found['query'].max() <= 27


@quick
@given(content=some.binary(max_size=60))
@example(b'[' * 10**5)
@example(b'{"a":' * 10**5)
@example(b'[' + b'9' * 5000 + b']')
@example(b'[{"a": 1, "a": 2}]')
@example(b'[{"a": {"b": 1, "b": 2}, "a": 3}]')
@example(b'\xff\xfe[\x00]\x00')
def test_labels_of_any_bytes(folder, content):
    assert load(written(folder, 'labels.json', content)) is None


@quick
@given(data=some.data())
def test_labels_with_any_damage(folder, data):
    """A valid file in which a part is removed or changed."""
    entry = {'query': [1, 2], 'sample0': [3], 'sample1': [4], 'best': 1, 'score': 0.5}
    good = json.dumps([entry] * 2).encode()
    start = data.draw(some.integers(0, len(good)))
    end = data.draw(some.integers(start, min(len(good), start + 10)))
    load(written(folder, 'labels.json', good[:start] + data.draw(some.binary(max_size=4)) + good[end:]))


# Hyperparameters

names = some.sampled_from(NAMES) | some.text(max_size=12) | some.sampled_from(NAMES).map(lambda name: name + 'x')


@quick
@given(values=some.dictionaries(names | some.integers(), contents, max_size=5))
@example({'ppo.lr': 10**400})
@example({5: 1})
@example({'ppo': {'lr': 1}})
def test_hyperparameters_of_any_values(values):
    hparams = TrainPolicyHParams()
    before = hparams.to_nested_dict()
    try:
        hparams.override_from_dict(values)
    except (AttributeError, ValueError) as error:
        check_line(error)
        assert hparams.to_nested_dict() == before  # all or nothing
        return
    check_validation(hparams)


def check_validation(hparams):
    try:
        hparams.validate()
    except (TypeError, ValueError) as error:
        check_line(error)


@quick
@given(values=some.dictionaries(names, texts, max_size=5))
def test_hyperparameters_of_any_text(values):
    hparams = TrainPolicyHParams()
    before = hparams.to_nested_dict()
    try:
        hparams.override_from_str_dict(values)
    except (AttributeError, ValueError) as error:
        check_line(error)
        assert hparams.to_nested_dict() == before
        return
    check_validation(hparams)


@quick
@given(text=some.text(max_size=60) | some.lists(some.tuples(names, texts).map('='.join), max_size=4).map(','.join))
def test_hyperparameters_of_any_line(text):
    try:
        TrainPolicyHParams().override_from_str(text)
    except (AttributeError, ValueError) as error:
        check_line(error)


groups = some.sampled_from(sorted({part for name in NAMES for part in name.split('.')}))
nested = some.recursive(
    scalars, lambda inner: some.dictionaries(groups | some.text(max_size=5) | names, inner, max_size=4), max_leaves=10
)


@quick
@given(values=some.dictionaries(groups | names, nested, max_size=5))
@example({'ppo': {'lr': 1}, 'ppo.lr': 2})
@example({'rewards': {'train_new_model': {'task': {'policy': None}}}})
def test_hyperparameters_of_any_nesting(values):
    try:
        hparams = TrainPolicyHParams()
        hparams.override_from_nested_dict(values)
    except (AttributeError, ValueError) as error:
        check_line(error)
        return
    check_validation(hparams)


@quick
@given(content=some.binary(max_size=60) | some.dictionaries(groups, nested, max_size=4).map(json.dumps).map(str.encode))
@example(b'[' * 10**5)
@example(b'{"n_ctx": 1, "n_ctx": 2}')
@example(b'{"n_ctx": ' + b'9' * 5000 + b'}')
def test_hyperparameters_of_any_file(folder, content):
    path = written(folder, 'hparams.json', content)
    for tree in (ModelHParams, TrainPolicyHParams):
        try:
            tree.from_json_file(path)
        except ValueError as error:
            assert str(error).startswith(path), error
            check_line(error)
        try:
            tree().override_from_json_file(path)
        except (AttributeError, ValueError) as error:
            check_line(error)


@quick
@given(data=some.data(), command=some.sampled_from(['sample', 'train_lm', 'train_policy', 'train_reward']))
def test_set_values_survive_json(folder, data, command):
    """Text → tree → JSON → the same tree."""
    tree = TREES[command].tree()
    kinds = {int: some.integers(-(2**63), 2**63 - 1), float: some.floats(allow_nan=False), bool: some.booleans()}
    scalar = [name for name in sorted(tree) if tree[name].kind in kinds and not tree[name].many]
    name = data.draw(some.sampled_from(scalar))
    value = data.draw(kinds[tree[name].kind])
    hparams = TREES[command]()
    hparams.override_from_str_dict({name: str(value)})
    copy = TREES[command]()
    copy.override_from_json_file(written(folder, 'tree.json', json.dumps(hparams.to_nested_dict()).encode()))
    assert copy == hparams
    for part in name.split('.'):
        copy = getattr(copy, part)
    assert copy == value and type(copy) is tree[name].kind


# Experiments

yaml_bits = some.sampled_from(
    [
        'run',
        'task',
        'train_policy',
        'sweep',
        'ppo.lr',
        ': ',
        '{',
        '}',
        '[',
        ']',
        ', ',
        '- ',
        '\n',
        '  ',
        '\t',
        '&a ',
        '*a',
        '<<',
    ]
    + [
        '!!int ',
        '!!binary ',
        '!!timestamp ',
        '!!python/object:os.system ',
        '2001-99-99',
        '0x',
        '1e999',
        '.nan',
        '~',
        '"',
        "'",
    ]
    + ['"\\ud800"', '\0', '\x85', '|', '>', '%YAML 1.1\n', '---\n', '? ', '#', '!!set ', '!!omap ', '1:30', '=', '_']
)


@quick
@given(content=some.lists(yaml_bits, max_size=12).map(lambda bits: ''.join(bits).encode()) | some.binary(max_size=40))
@example(b'run: ' + b'[' * 10**4)
@example(b'run: {seed: 2001-99-99}')
@example(b'run: {seed: !!int x}')
@example(b'{[]: 1}')
def test_experiments_of_any_text(folder, content):
    path = written(folder, 'mine.yaml', content)
    try:
        experiments.load(path).trials('train_policy', {})
    except UserError as error:
        check_line(error)


# Vocabularies

symbols = some.text('abc', min_size=1, max_size=3)
merges = some.lists(
    some.sampled_from(['a b', 'b c', 'ab', 'a  b', '', ' ', 'a b c', '#version: 0.2', 'Ã ©', '\r', '\x85 a']),
    max_size=5,
)


@quick
@given(
    encoder=some.dictionaries(symbols | some.text(max_size=3), some.integers(-1, 6) | scalars, max_size=6) | contents,
    lines=merges,
    raw=some.none() | some.binary(max_size=20),
)
def test_vocabularies_of_any_content(folder, encoder, lines, raw):
    written(folder, 'encoder.json', json.dumps(encoder).encode())
    written(folder, 'vocab.bpe', '\n'.join(lines).encode() if raw is None else raw)
    try:
        encoding = load_encoding(folder)
    except ValueError as error:
        assert str(error).startswith(folder), error
        check_line(error)
        return
    assert sorted(encoder.values()) == list(range(encoding.n_vocab))
    encoding.decode(range(encoding.n_vocab))
    try:
        encoding.encode('abcab é')
    except ValueError as error:
        check_line(error)


@quick
@given(text=some.text(max_size=30))
def test_encoding_and_decoding_any_text(folder, text):
    from lm_human_preferences.language.encodings import byte_symbols

    ids = {symbol: token for token, symbol in enumerate(byte_symbols().values())}
    write_vocabulary(folder, dict(ids, ab=256), [('a', 'b')])
    encoding = Encoding.from_files('own', f'{folder}/encoder.json', f'{folder}/vocab.bpe')
    assert encoding.decode(encoding.encode(text)) == text


# Parts of messages


@quick
@given(value=contents | some.binary(max_size=400) | some.integers().map(lambda n: [[[[n] * 50] * 50] * 50] * 50))
@example('\n' * 1000)
def test_values_are_shown_in_short(value):
    assert len(short(value)) < 2500 and '\n' not in short(value)


def test_an_integer_too_long_for_python_to_write():
    assert short(10**10000) in ('a very long int', '1' + '0' * 27 + '...' + '0' * 29)


@quick
@given(name=some.text())
def test_there_is_always_a_nearest_name(name):
    assert did_you_mean(name, NAMES) in NAMES


@quick
@given(content=contents)
def test_valid_json_is_read_as_written(folder, content):
    text = json.dumps(content)
    if 'NaN' not in text:
        assert read_json(written(folder, 'any.json', text.encode() or b'null')) == content
