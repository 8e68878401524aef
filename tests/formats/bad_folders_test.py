"""Hugging Face folders that `convert` refuses in one line, and odd ones that it converts with a note."""

import json
import os
import shutil

import numpy as np
import pytest
from refusals import assert_line, refusal
from repository import TESTS
from safetensors.numpy import load_file, save_file
from small_models import SIZES, save_model

from lm_human_preferences.formats import huggingface
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language import huggingface_models
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.runs.checkpoints import CheckpointWriter
from lm_human_preferences.utils.json_files import read_json

SAVED = os.path.join(TESTS, 'huggingface')  # vocabulary of 257, n_ctx 16, n_embd 12, 2 layers
WEIGHTS, HEADS = 'model.safetensors', 'heads.safetensors'


@pytest.fixture
def folder(tmp_path):
    """A folder that can be converted, to be spoiled."""
    shutil.copytree(SAVED, str(tmp_path / 'model'))
    for name in ('logits.npy', 'make.py'):
        os.unlink(str(tmp_path / 'model' / name))
    return tmp_path / 'model'


def tensors(file=WEIGHTS, remove=(), **changes):
    """A change of a file's tensors: `h__0__x=array` sets h.0.x of the transformer."""

    def change(folder):
        path = str(folder / file)
        found = load_file(path) if os.path.exists(path) else {}
        found.update({name.replace('__', '.'): np.array(value) for name, value in changes.items()})
        save_file({name: np.ascontiguousarray(v) for name, v in found.items() if name not in remove}, path)

    return change


def heads(metadata=None, **arrays):
    """A file of heads, with slashes for `__`."""
    named = {name.replace('__', '/'): np.array(value) for name, value in arrays.items()}
    return lambda folder: save_file(named, str(folder / HEADS), metadata)


def text(file, content):
    content = content if isinstance(content, (str, bytes)) else json.dumps(content)
    content = content if isinstance(content, bytes) else content.encode('utf-8')
    return lambda folder: (folder / file).write_bytes(content)


def config(**fields):
    def change(folder):
        content = json.loads((folder / 'config.json').read_text())
        content.update(fields)
        (folder / 'config.json').write_text(json.dumps({name: v for name, v in content.items() if v != 'missing'}))

    return change


def cut(file, size):
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size])


def shards(*names, index=None, total=2):
    """Divide the weights into `total` files, and keep those `names`."""

    def change(folder):
        whole = load_file(str(folder / WEIGHTS))
        files = [f'model-{number:05}-of-{total:05}.safetensors' for number in range(1, total + 1)]
        place = {name: files[i % total] for i, name in enumerate(sorted(whole))}
        for file in names:
            save_file({name: whole[name] for name in whole if place[name] == file}, str(folder / file))
        if index is not None:
            content = {'weight_map': dict(place, **index)} if isinstance(index, dict) else index
            (folder / 'model.safetensors.index.json').write_text(json.dumps(content))
        os.unlink(str(folder / WEIGHTS))

    return change


ONE, TWO = 'model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'
F = np.float32
NORM = 'transformer__h__0__ln_1__weight'
HEAD = dict(model__heads__reward__w=np.ones(12, F), model__heads__reward__b=F(0))
SCALES = dict(reward_norm__gain=F(1), reward_norm__bias=F(0))


def bf16(folder):
    header = {'x': {'dtype': 'BF16', 'shape': [1], 'data_offsets': [0, 2]}}
    data = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(data).to_bytes(8, 'little') + data + b'\0\0')


@pytest.mark.parametrize(
    'change, expected',
    [
        # Tensors that do not fit
        (config(n_layer=1), f'{WEIGHTS}: the weights have 2 layers, but n_layer in config.json is 1'),
        (config(n_layer=3), f'{WEIGHTS}: the weights have 2 layers, but n_layer in config.json is 3'),
        (config(n_layer=10**6), 'config.json: n_layer must be at most 1000, not 1000000'),
        (
            config(n_embd=24),
            f'{WEIGHTS}: wpe.weight has shape [16, 12], but the GPT-2 of config.json asks for [16, 24]',
        ),
        (config(n_positions=8), f'{WEIGHTS}: wpe.weight has shape [16, 12], but … asks for [8, 12]'),
        (tensors(**{NORM: np.ones(13, F)}), f'{WEIGHTS}: h.0.ln_1.weight has shape [13], but … asks for [12]'),
        (tensors(**{NORM: np.ones((1, 12), F)}), f'{WEIGHTS}: h.0.ln_1.weight has shape [1, 12], but …'),
        (tensors(**{NORM: np.ones(12, np.int32)}), f'{WEIGHTS}: h.0.ln_1.weight is int32, and only float16, …'),
        (tensors(**{NORM: np.full(12, np.nan, F)}), f'{WEIGHTS}: h.0.ln_1.weight has a value that is not finite …'),
        (tensors(**{NORM: np.full(12, np.inf, F)}), f'{WEIGHTS}: h.0.ln_1.weight has a value that is not finite …'),
        (tensors(**{NORM: np.full(12, 1e300)}), f'{WEIGHTS}: h.0.ln_1.weight has a value that is not finite …'),
        (tensors(remove=['transformer.wpe.weight']), f'{WEIGHTS}: no tensor wpe.weight'),
        (
            tensors(transformer__h__0__attn__c_attn__lora_A=np.ones((2, 12), F)),
            f"{WEIGHTS}: the tensor 'h.0.attn.c_attn.lora_A' has no place in the GPT-2 of config.json",
        ),
        (tensors(h__0__ln_1__weight=np.ones(12, F)), f'{WEIGHTS}: h.0.ln_1.weight is given twice, also in DIR/…'),
        (tensors(lm_head__weight=np.ones((257, 12), F)), f'{WEIGHTS}: lm_head.weight differs from wte.weight: …'),
        (bf16, f"{WEIGHTS}: 'x' is BF16, which cannot be read: save the model in float32"),
        # Heads
        (
            heads(**{'model__h0__ln_1__g': np.ones(12, F)}),
            f"{HEADS}: the tensor 'model/h0/ln_1/g' has no place in a file of heads",
        ),
        (heads(model__wte=np.ones((257, 12), F), **HEAD), f"{HEADS}: the tensor 'model/wte' has no place …"),
        (
            heads(**dict(HEAD, model__heads__reward__w=np.ones(12, np.int64))),
            f'{HEADS}: model/heads/reward/w is int64…',
        ),
        (heads(**dict(HEAD, model__heads__reward__b=np.int32(0))), f'{HEADS}: model/heads/reward/b is int32, …'),
        (heads(**dict(HEAD, model__heads__reward__w=np.ones(11, F))), f'{HEADS}: model/heads/reward/w has shape [11]…'),
        (heads(**dict(HEAD, model__heads__reward__b=np.ones(1, F))), f'{HEADS}: model/heads/reward/b has shape [1], …'),
        (heads(**dict(HEAD, model__heads__reward__b=F(np.nan))), f'{HEADS}: model/heads/reward/b has a value that …'),
        (heads(model__heads__reward__w=np.ones(12, F)), f'{HEADS}: no tensor model/heads/reward/b'),
        (heads(reward_norm__gain=F(1), **HEAD), f'{HEADS}: no tensor reward_norm/bias'),
        (heads(reward_norm__scale=F(1), **SCALES), f"{HEADS}: the tensor 'reward_norm/scale' has no place …"),
        (
            heads(model__heads__reward__gain=F(1), **HEAD),
            f"{HEADS}: the tensor 'model/heads/reward/gain' has no place …",
        ),
        (heads({'savescope': 'a b'}, **HEAD), f"{HEADS}: its savescope 'a b' cannot be a scope"),
        (text(HEADS, b'{}'), f'{HEADS}: cannot be read: not a safetensors file'),
        # Files
        (cut(WEIGHTS, 20000), f'{WEIGHTS}: cut off: it has 20000 bytes of …: fetch it again'),
        (cut(WEIGHTS, 1000), f'{WEIGHTS}: cut off after 1000 bytes, in its header: fetch it again'),
        (cut(WEIGHTS, 0), f'{WEIGHTS}: cannot be read: not a safetensors file'),
        (
            text(WEIGHTS, 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'),
            f'{WEIGHTS}: a git-lfs pointer, not the weights: run `git lfs pull` in that folder',
        ),
        (text(WEIGHTS, '<!DOCTYPE html>'), f'{WEIGHTS}: cannot be read: not a safetensors file'),
        (text(WEIGHTS, b'\x02' + bytes(7) + b'{}'), ': the weights have 0 layers, …'),
        (text(WEIGHTS, b'\x09' + bytes(7) + b'{"a": []}'), f'{WEIGHTS}: cannot be read: its header is not that of …'),
        (lambda folder: os.unlink(str(folder / WEIGHTS)), ': no model.safetensors: save the model with safe_…'),
        (shards(ONE, index={}), f': {TWO} is missing, one of 2 files by model.safetensors.index.json: fetch it'),
        (shards(TWO), f': {ONE} is missing, one of 2 files by the name of the others: fetch it'),
        (
            shards(ONE, TWO, index={'x': '../y'}),
            "model.safetensors.index.json: '../y' is no name of a file in the folder",
        ),
        (shards(ONE, TWO, index=[]), 'model.safetensors.index.json: should hold an object weight_map, …'),
        (shards(ONE, TWO, index={'x': 3}), 'model.safetensors.index.json: should hold an object weight_map, …'),
        # Settings
        (text('config.json', '[]'), 'config.json should hold a JSON object, not list'),
        (text('config.json', ''), 'config.json: not JSON: the file is empty'),
        (config(n_embd='12'), "config.json: n_embd should be int, not str ('12')"),
        (config(n_embd={}), 'config.json: n_embd …'),
        (config(n_head=5), 'config.json: n_embd (12) must be a multiple of n_head (5): …'),
        (config(vocab_size='missing'), 'config.json: vocab_size is not set…'),
        (config(attn_pdrop='0.1'), "config.json: attn_pdrop should be float, not str ('0.1')"),
        (config(n_inner=[48]), 'config.json: n_inner is [48], and only 4 * n_embd is read'),
        (config(model_type=['gpt2']), "config.json: model_type is ['gpt2'], and only 'gpt2' is read"),
    ],
)
def test_broken_models(change, expected, folder, tmp_path, capsys):
    change(folder)
    line = refusal(capsys, ['convert', str(folder), str(tmp_path / 'ours')])
    assert_line(line, f'{folder}{expected}' if expected.startswith(':') else f'{folder}/{expected}', str(folder))
    assert os.listdir(str(tmp_path)) == ['model']  # neither a target nor a part of one


VOCAB = read_json(os.path.join(SAVED, 'vocab.json'))
END = '<|endoftext|>'


def tokenizer(drop=(), vocab=VOCAB, added=((END, 256),), **fields):
    """The tokenizer in one file, as newer versions of `transformers` save it."""
    content = {
        'model': dict({'type': 'BPE', 'vocab': vocab, 'merges': []}, **fields.pop('model', {})),
        'added_tokens': [{'content': token, 'id': number} for token, number in added],
        'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': False, 'use_regex': True},
        'normalizer': None,
    }
    content.update(fields)

    def change(folder):
        (folder / 'tokenizer.json').write_text(json.dumps({name: v for name, v in content.items() if name not in drop}))
        os.unlink(str(folder / 'vocab.json'))

    return change


ODD = 'tokenizer.json: not a byte-level BPE tokenizer such as GPT-2 has'


@pytest.mark.parametrize(
    'change, expected',
    [
        (text('vocab.json', '{"a": 0'), 'vocab.json: not JSON: …'),
        (text('vocab.json', '[]'), 'vocab.json: should hold an object of symbols and their ids, not []'),
        (text('vocab.json', dict(VOCAB, xy=300)), "vocab.json: the id of 'xy' should be an integer from 0 to 257, …"),
        (text('merges.txt', 'a b c\n'), "merges.txt: line 1: 'a b c' is not two symbols with a space between"),
        (text('merges.txt', 'a b\n'), "merges.txt: line 1: the merge 'a b' is not in vocab.json"),
        (text('added_tokens.json', '[]'), 'added_tokens.json: should hold an object of tokens and their ids, not []'),
        (text('added_tokens.json', {'[PAD]': '257'}), "vocab.json: the id of the added token '[PAD]' should be 0 or …"),
        (text('added_tokens.json', {'a': 257}), "vocab.json: the added token 'a' has two ids, 257 and …"),
        (text('encoding', '"gpt3"'), 'encoding: unknown encoding \'gpt3\': must be "main", "own" or "test"'),
        (text('encoding', '[1]'), 'encoding: unknown encoding [1]: must be "main", "own" or "test"'),
        (tokenizer(drop=['model']), ODD),
        (tokenizer(model={'merges': None}), ODD),
        (
            tokenizer(model={'vocab': [['a', 0.5]], 'type': 'Unigram'}),
            "tokenizer.json: type is 'Unigram', and GPT-2 has …",
        ),
        (tokenizer(model={'vocab': 3}), ODD),
        (tokenizer(pre_tokenizer=None), ODD),
        (tokenizer(pre_tokenizer={'type': 'Sequence', 'pretokenizers': []}), ODD),
        (tokenizer(pre_tokenizer={'type': 'ByteLevel', 'use_regex': False}), ODD),
        (tokenizer(normalizer={'type': 'NFC'}), "tokenizer.json: normalizer is {'type': 'NFC'}, and GPT-2 has None"),
        (tokenizer(model={'ignore_merges': True}), 'tokenizer.json: ignore_merges is True, and GPT-2 has False'),
        (tokenizer(model={'merges': ['a b c']}), "tokenizer.json: merge 0: ('a', 'b', 'c') is not two symbols"),
        (tokenizer(model={'merges': [['a', 1]]}), "tokenizer.json: merge 0: ('a', 1) is not two symbols"),
        (tokenizer(model={'merges': [['a', 'b']]}), "tokenizer.json: merge 0: 'ab' is not in the vocabulary"),
        (tokenizer(added=[(END, 7)]), f"tokenizer.json: the added token '{END}' has two ids, 7 and 256"),
        (
            tokenizer(vocab={'a': 0, 'b': 2}, added=[]),
            "tokenizer.json: the id of 'b' should be an integer from 0 to 1, …",
        ),
        (text('tokenizer.json', '['), None),  # vocab.json and merges.txt are read
        (lambda folder: os.unlink(str(folder / 'merges.txt')), ': no tokenizer: neither …'),
    ],
)
def test_broken_tokenizers(change, expected, folder, tmp_path, capsys):
    change(folder)
    arguments = ['convert', str(folder), str(tmp_path / 'ours')]
    if expected is None:
        main(arguments)
        return
    line = refusal(capsys, arguments)
    assert_line(line, f'{folder}{expected}' if expected.startswith(':') else f'{folder}/{expected}', str(folder))
    assert os.listdir(str(tmp_path)) == ['model']


def more_rows(folder, rows):
    """Embeddings with `rows` more rows, whose logits would be the highest."""
    path = str(folder / WEIGHTS)
    found = load_file(path)
    wte = np.concatenate([found['transformer.wte.weight'], np.full((rows, 12), 9, F)])
    save_file(dict(found, **{'transformer.wte.weight': wte, 'lm_head.weight': wte}), path)
    config(vocab_size=257 + rows)(folder)


PAD_IN_ONE_FILE = tokenizer(added=((END, 256), ('[PAD]', 257)))
PAD_BESIDE = text('added_tokens.json', {'[PAD]': 257})
END_BESIDE = dict(vocab={symbol: token for symbol, token in VOCAB.items() if symbol != END})


@pytest.mark.parametrize(
    'change, rows, cut_rows',
    [
        (
            PAD_IN_ONE_FILE,
            1,
            "the last row of the embeddings left out: beyond the vocabulary of 257 ('[PAD]'), so never",
        ),
        (
            PAD_BESIDE,
            1,
            "the last row of the embeddings left out: beyond the vocabulary of 257 ('[PAD]'), so never sampled",
        ),
        (
            PAD_BESIDE,
            63,
            "the last 63 rows of the embeddings left out: beyond the vocabulary of 257 ('[PAD]'), so never",
        ),
        (
            lambda folder: None,
            63,
            'the last 63 rows of the embeddings left out: beyond the vocabulary of 257, so never',
        ),
        (PAD_IN_ONE_FILE, 0, None),  # the tokenizer has [PAD], but the model has no row for it
        (tokenizer(added=[(END, 256)], **END_BESIDE), 63, 'beyond the vocabulary of 257, so never sampled'),
    ],
)
def test_embeddings_beyond_the_vocabulary_are_cut_and_named(change, rows, cut_rows, folder, tmp_path, capsys):
    if rows:
        more_rows(folder, rows)
    change(folder)
    main(['convert', str(folder), str(tmp_path / 'ours')])
    out = capsys.readouterr().out
    assert (f'note: {folder}: ' in out and cut_rows in out) if cut_rows else 'note' not in out
    trained, good = find_model(str(tmp_path / 'ours')), huggingface_models.load(SAVED)
    assert trained.hparams.n_vocab == 257 and trained.encoding().padding_token == 259
    assert trained.encoding().eot_token == 256 and trained.encoding().same_tokens(good.encoding)
    np.testing.assert_array_equal(trained.arrays()['model/wte'], good.arrays['model/wte'])


def test_a_token_before_the_end_of_text_stays(folder, tmp_path):
    more_rows(folder, 2)
    tokenizer(added=[('<s>', 256), (END, 257), ('[PAD]', 258)], **END_BESIDE)(folder)
    main(['convert', str(folder), str(tmp_path / 'ours')])
    trained = find_model(str(tmp_path / 'ours'))
    assert (trained.hparams.n_vocab, trained.encoding().eot_token) == (258, 257)


def test_a_tokenizer_of_another_model(folder, tmp_path, capsys):
    more_rows(folder, huggingface_models.MOST_PADDING + 1)
    line = refusal(capsys, ['convert', str(folder), str(tmp_path / 'ours')])
    assert line == f'{folder}: config.json has vocab_size 1282, but the tokenizer 257 tokens'
    config(vocab_size=256)(folder)
    tensors(transformer__wte__weight=np.ones((256, 12), F), remove=['lm_head.weight'])(folder)
    line = refusal(capsys, ['convert', str(folder), str(tmp_path / 'ours')])
    assert line == f'{folder}: config.json has vocab_size 256, but the tokenizer 257 tokens'


@pytest.mark.parametrize(
    'extra, note, use',
    [
        ({}, None, 'a model for --task.policy.initial_model'),
        ({'score__weight': np.ones((1, 12), F)}, 'score.weight left out', 'a model for --task.policy.initial_model'),
        (
            {'v_head__summary__weight': np.ones((1, 12), F), 'v_head__summary__bias': np.ones(1, F)},
            'v_head.summary.bias, v_head.summary.weight left out',
            'a model for --task.policy.initial_model',
        ),
        (
            {'transformer__h__1__attn__bias': np.ones((1, 1, 16, 16), F)},
            None,
            'a model for --task.policy.initial_model',
        ),
    ],
)
def test_what_is_left_out_is_named(extra, note, use, folder, tmp_path, capsys):
    tensors(**extra)(folder)
    main(['convert', str(folder), str(tmp_path / 'ours')])
    *notes, last = capsys.readouterr().out.splitlines()
    assert last == f'{tmp_path}/ours: {use}'
    if note is None:
        assert not notes
    else:
        assert len(notes) == 1 and notes[0].startswith(f'note: {folder}/{WEIGHTS}: ') and 'left out' in notes[0]
        assert set(note.replace(' left out', '').split(', ')) == set(
            notes[0].split(f'{WEIGHTS}: ')[1].split(' left out')[0].split(', ')
        )


@pytest.mark.parametrize(
    'scope, arrays, use',
    [
        ('', dict(HEAD, **SCALES), 'a model for --task.policy.initial_model or --rewards.trained_model'),
        ('reward_model', dict(HEAD, **SCALES), 'a model for --rewards.trained_model'),
        ('policy', HEAD, 'a model for --task.policy.initial_model'),
        ('ref_policy', HEAD, 'a model folder, with the scope ref_policy'),
    ],
)
def test_the_last_line_says_what_the_model_is_for(scope, arrays, use, folder, tmp_path, capsys):
    heads({'savescope': scope}, **arrays)(folder)
    main(['convert', str(folder), str(tmp_path / 'ours')])
    assert capsys.readouterr().out == f'{tmp_path}/ours: {use}\n'


@pytest.mark.parametrize('is_there', [False, True])
def test_an_error_while_writing_leaves_no_target(is_there, folder, tmp_path, capsys, monkeypatch):
    target = tmp_path / 'new' / 'ours'
    if is_there:
        target.mkdir(parents=True)

    def fail(*_):
        raise OSError(28, 'No space left on device', 'somewhere')

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointWriter, 'save', fail)
        assert 'No space left' in refusal(capsys, ['convert', str(folder), str(target)])
    assert os.listdir(str(target.parent)) == (['ours'] if is_there else [])
    main(['convert', str(folder), str(target)])
    assert os.listdir(str(target.parent)) == ['ours']
    assert find_model(str(target)).arrays() and target.stat().st_mode == target.parent.stat().st_mode
    with monkeypatch.context() as patch:
        patch.setattr(huggingface, 'write_json', fail)
        assert 'No space left' in refusal(capsys, ['convert', str(target), str(tmp_path / 'theirs')])
    assert sorted(os.listdir(str(tmp_path))) == ['model', 'new']


def save_array(folder, name, value):
    """Change one variable of a model folder, without any check."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        reader = tf.train.load_checkpoint(os.path.join(folder, 'checkpoints'))
        arrays = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
        arrays[name] = value
        variables = [tf.get_variable(key, initializer=tf.constant(array)) for key, array in arrays.items()]
        session.run(tf.global_variables_initializer())
        path = os.path.join(folder, 'checkpoints', 'model.ckpt-1')
        tf.train.Saver(variables).save(session, path, write_meta_graph=False)
    os.unlink(os.path.join(folder, 'checkpoints', 'state-1.json'))


@pytest.mark.parametrize(
    'name, value, expected',
    [
        ('model/ln_f/g', np.full(6, np.nan, F), '…: model/ln_f/g has a value that is not finite: the model in this …'),
        ('model/ln_f/g', np.ones(6, np.int32), '…: model/ln_f/g is int32: a variable of a model is float32'),
        ('model/ln_f/g', np.ones(7, F), 'DIR/model: model/ln_f/g has shape [7], but a model of … asks for [6]'),
        ('model/h0/extra/w', np.ones(6, F), "DIR/model: the tensor 'model/h0/extra/w' has no place in a model of …"),
        ('model/h1/ln_1/g', np.ones(6, F), 'DIR/model: the weights have 2 layers, but n_layer is 1'),
        ('model/heads/value/w', np.ones(6, F), 'DIR/model: no tensor model/heads/value/b'),
    ],
)
def test_broken_models_of_ours(name, value, expected, tmp_path, capsys):
    save_model(str(tmp_path / 'model'), sizes=SIZES)
    save_array(str(tmp_path / 'model'), name, value)
    line = refusal(capsys, ['convert', str(tmp_path / 'model'), str(tmp_path / 'theirs')])
    assert_line(line, expected, str(tmp_path))
    assert os.listdir(str(tmp_path)) == ['model']
