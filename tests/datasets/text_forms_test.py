"""Every file that people write may begin with a byte order mark and end its lines with CRLF; no file may be a FIFO."""

import hashlib
import io
import json
import os

import numpy as np
import pytest
from refusals import EXPERIMENT, assert_line, good_labels, refusal, write_files

from lm_human_preferences import experiments, sample
from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.datasets.pairs import read_pairs
from lm_human_preferences.datasets.registry import get_lm_texts, get_references, get_texts
from lm_human_preferences.hyperparameters import ModelHParams, SampleHParams
from lm_human_preferences.labeling.forms import read_instructions
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.launcher import command_line
from lm_human_preferences.launcher.hosts import read_hostfile
from lm_human_preferences.utils.json_files import read_json

MARK = '\ufeff'
LABELS = json.dumps(good_labels(), indent=1) + '\n'
LINES = 'a.bcd efgh\nzwölf\n\n' * 15
JSON_LINES = '"first"\n{"text": "zwölf", "reference": "x"}\n'
SCHEMA = {'query': (np.int32, (2,)), **{f'sample{k}': (np.int32, (3,)) for k in range(4)}, 'best': (np.int32, ())}


def read_labels(path):
    found = load_labels(path, SCHEMA, 8, letters())
    return {name: values.tolist() for name, values in found.items()}


def read_experiment(path):
    return [str(trial.hparams.to_nested_dict()) for trial in experiments.load(path).trials('train_reward', {})]


def read_base(path):
    with open(os.path.join(os.path.dirname(path), 'mine.yaml'), 'w') as file:
        file.write(f'extends: {path}\n')
    return read_experiment(file.name)


def read_merges(path):
    encoder = os.path.join(os.path.dirname(path), 'encoder.json')
    with open(encoder, 'w') as file:
        json.dump({'a': 0, 'b': 1, 'ab': 2, 'abab': 3}, file)
    return Encoding.from_files('own', encoder, path).encode('ababa')


def read_encoder(path):
    merges = os.path.join(os.path.dirname(path), 'vocab.bpe')
    with open(merges, 'w') as file:
        file.write('a b\n')
    return Encoding.from_files('own', path, merges).encode('aba')


def read_prompts(path):
    return sample._prompts(SampleHParams(prompt_file=path))


def texts_of(kind, read=get_texts):
    return lambda path: list(read(f'{kind}:{path}', 'train'))


def published(name):
    return lambda path: list(get_texts(name, 'train'))


# {name: (file, content, function that reads it)}
KINDS = {
    'labels': ('labels.json', LABELS, read_labels),
    'hyperparameters': ('hparams.json', '{"n_vocab": 28,\n "n_layer": 3}\n', ModelHParams.from_json_file),
    'json': ('some.json', '{"a": [1,\n "é"]}\n', read_json),
    'experiment': ('tiny.yaml', EXPERIMENT, read_experiment),
    'base': ('tiny.yaml', EXPERIMENT, read_base),
    'merges': ('vocab.bpe', '#version: 0.2\na b\nab ab\n', read_merges),
    'encoder': ('encoder.json', '{"a": 0, "b": 1,\n "ab": 2}\n', read_encoder),
    'hostfile': ('hosts', 'one:2\n# none\ntwo slots=3\n', read_hostfile),
    'pairs': ('pairs.jsonl', '{"prompt": "é", "chosen": "b", "rejected": "c"}\n' * 2, lambda p: list(read_pairs(p))),
    'prompt': ('prompt.txt', 'one\ntwo\n\n', read_prompts),
    'prompts': ('prompts.jsonl', JSON_LINES, read_prompts),
    'text': ('texts.txt', LINES, texts_of('text')),
    'jsonl': ('texts.jsonl', JSON_LINES, texts_of('jsonl')),
    'references': ('texts.jsonl', JSON_LINES, texts_of('jsonl', get_references)),
    'language_model': ('texts.txt', LINES, texts_of('text', get_lm_texts)),
    'instructions': ('mine.txt', 'Choose.\nThe best.\n\nThink.\n', read_instructions),
    'books': ('datasets/book_passages/train.jsonl', JSON_LINES, published('books')),
    'tldr': ('tldr/train-subset.json', '[{"content": "a"},\n {"content": "é"}]\n', published('tldr')),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request, tmp_path, monkeypatch):
    """A kind of file: its path, its content, and the function that reads it."""
    name, content, read = KINDS[request.param]
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path), content.replace('DIR', str(tmp_path)), read


def test_a_byte_order_mark_and_crlf_change_nothing(kind):
    path, content, read = kind
    found = []
    for form in (content, MARK + content, content.replace('\n', '\r\n'), MARK + content.replace('\n', '\r\n')):
        with open(path, 'wb') as file:
            file.write(form.encode('utf-8'))
        found.append(read(path))
    assert found[0] and all(other == found[0] for other in found[1:])
    assert MARK not in str(found[0]) and '\r' not in str(found[0])


def test_a_fifo_is_refused_without_waiting(kind):
    path, _, read = kind
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f'{path}: this is a FIFO: give a regular file'):
        read(path)


def test_standard_input_has_the_same_rules(monkeypatch):
    for given, expected in (('ab\n', 'ab'), (f'{MARK}a\r\n\r\nb\r\n', 'a\n\nb')):
        monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO(given.encode('utf-8'))))
        assert command_line._standard_input() == expected


def test_joined_files_have_a_mark_within(tmp_path):
    (tmp_path / 'all.jsonl').write_bytes(f'{MARK}"a"\r\n{MARK}"b"\n'.encode())
    assert list(get_texts(f'jsonl:{tmp_path}/all.jsonl', 'train')) == ['a', 'b']


def test_urls_of_stories(cache, mirror):
    """The name of a story is the hash of its URL, without the mark."""
    url = 'http://web.archive.org/cnn.com/1'
    bucket = '/lm-human-preferences/datasets/cnndm'
    mirror.files[f'{bucket}/url_lists/all_train.txt'] = f'{MARK}{url}\r\n'.encode()
    name = hashlib.sha1(url.encode()).hexdigest()
    mirror.files[f'{bucket}/cache_train/cnn/stories/{name}.story'] = f'{MARK}It rained.\r\n'.encode()
    assert list(get_texts('cnndm', 'train')) == ['It rained.']


@pytest.mark.parametrize(
    'make, flags, expected',
    [
        ('labels.json', [], 'DIR/labels.json: this is a FIFO: give a regular file'),
        ('tiny.yaml', [], 'DIR/tiny.yaml: this is a FIFO: give a regular file'),
        ('x.txt', ['--task.query_dataset=text:DIR/x.txt'], 'DIR/x.txt: this is a FIFO: give a regular file'),
        ('hosts', ['--hostfile=DIR/hosts'], 'DIR/hosts: this is a FIFO: give a regular file'),
        (None, ['--labels.source=/dev/zero'], '/dev/zero: this is a device: give a regular file'),
        (None, ['--task.query_dataset=jsonl:/dev/zero'], '/dev/zero: this is a device: give a regular file'),
        (None, ['--hostfile=/dev/zero'], '/dev/zero: this is a device: give a regular file'),
    ],
)
def test_the_command_line_refuses_them_in_one_line(make, flags, expected, tmp_path, capsys):
    folder = str(tmp_path)
    write_files(folder, {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels()})
    if make:
        path = os.path.join(folder, make)
        if os.path.exists(path):
            os.remove(path)
        os.mkfifo(path)
    flags = [flag.replace('DIR', folder) for flag in flags]
    line = refusal(capsys, ['train_reward', f'{folder}/tiny.yaml', 'run', f'--save_dir={folder}/save', *flags])
    assert_line(line, expected, folder)
