"""Models in Hugging Face folders, local and on the hub, used as they are."""

import json
import os
import shutil

import numpy as np
import pytest
from loopback import folder_files
from refusals import assert_line, refusal
from repository import TESTS
from safetensors.numpy import load_file, save_file
from small_models import save_small, write_gpt2
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences import load_policy
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.remote import hub as hub_files

SAVED = os.path.join(TESTS, 'huggingface')  # written by transformers, see its make.py
TOKENS = [[1, 256, 5, 9, 9, 100, 31, 2, 7], [80, 81, 82, 83, 84, 85, 86, 87, 88]]  # those of make.py
WEIGHTS = 'model.safetensors'


def logits(trained, tokens=TOKENS):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(trained.hparams, scope='other')
        values = model.logits(model(tf.constant(tokens, tf.int32)).hidden)
        trained.load(session, model)
        return session.run(values)


def saved_files(without=(), **changes):
    """Return the files of SAVED as the hub holds them. `changes` are fields of its config.json."""
    files = folder_files(SAVED)
    files = {name: files[name] for name in files if name not in ('logits.npy', 'make.py', *without)}
    files['config.json'] = json.dumps(dict(json.loads(files['config.json'].decode()), **changes)).encode()
    return files


def sharded(tmp_path, files):
    """Return `files` with the weights in two files and their index."""
    whole = load_file(os.path.join(SAVED, WEIGHTS))
    names = sorted(whole)
    index = {}
    for number, chosen in enumerate((names[::2], names[1::2]), start=1):
        shard = f'model-0000{number}-of-00002.safetensors'
        save_file({name: whole[name] for name in chosen}, str(tmp_path / shard))
        files[shard] = (tmp_path / shard).read_bytes()
        index.update(dict.fromkeys(chosen, shard))
    files['model.safetensors.index.json'] = json.dumps({'weight_map': index}).encode()
    del files[WEIGHTS]
    return files


@pytest.mark.parametrize('place', ['local', 'hub', 'shards'])
def test_a_model_of_transformers_is_used_as_it_is(hub, tmp_path, place):
    name = SAVED
    if place != 'local':
        name = 'hf://someone/gpt2'
        hub.put('someone/gpt2', sharded(tmp_path, saved_files()) if place == 'shards' else saved_files())
    trained = find_model(name)
    assert (trained.hparams.n_vocab, trained.hparams.n_ctx, trained.hparams.n_head) == (257, 16, 3)
    if place != 'local':
        assert not hub.asked('safetensors')  # the weights are fetched when they are needed
    np.testing.assert_allclose(logits(trained), np.load(os.path.join(SAVED, 'logits.npy')), rtol=1e-4, atol=1e-4)
    assert trained.encoding().decode(trained.encoding().encode('naïve\n')) == 'naïve\n'
    with tf.Graph().as_default(), pytest.raises(ValueError, match='has no variable model/heads/reward/w'):
        find_reward_model(name).load(None, Model(trained.hparams, scope='x', heads=['reward']), ['reward'])


def test_a_model_on_the_hub_from_python(hub):
    hub.put('someone/gpt2', saved_files())
    with load_policy('hf://someone/gpt2', response_length=3) as policy, load_policy(SAVED, response_length=3) as local:
        one, other = (p.respond(['ab', 'c'], seed=1) for p in (policy, local))
    assert one.texts == other.texts and len(one.texts) == 2


def test_a_model_of_a_branch(hub):
    model = hub.put('someone/gpt2', {'README.md': 'nothing here'})
    model.commit(saved_files(), 'float32')
    assert find_model('hf://someone/gpt2@float32').hparams.n_embd == 12
    with pytest.raises(FileNotFoundError, match='no model in hf://someone/gpt2, nor in policy or model there'):
        find_model('hf://someone/gpt2')


def test_padded_embeddings_and_added_tokens(hub, tmp_path, capsys):
    whole = load_file(os.path.join(SAVED, WEIGHTS))
    wte = whole['transformer.wte.weight']
    whole['transformer.wte.weight'] = np.concatenate([wte, np.full((63, 12), 9, np.float32)])
    save_file(whole, str(tmp_path / WEIGHTS))
    files = saved_files(vocab_size=320)
    files[WEIGHTS] = (tmp_path / WEIGHTS).read_bytes()
    files['added_tokens.json'] = json.dumps({'[PAD]': 257}).encode()
    hub.put('someone/padded', files)
    trained = find_model('hf://someone/padded')
    assert trained.hparams.n_vocab == trained.encoding().n_vocab == 257 and trained.encoding().padding_token == 259
    for _ in range(2):
        np.testing.assert_allclose(logits(trained), np.load(os.path.join(SAVED, 'logits.npy')), rtol=1e-4, atol=1e-4)
    notes = capsys.readouterr().err
    assert notes.count("the last 63 rows of the embeddings left out: beyond the vocabulary of 257 ('[PAD]')") == 1


@pytest.mark.parametrize(
    'changes, expected',
    [
        (dict(model_type='opt'), "model_type is 'opt', and only 'gpt2' is read"),
        (dict(activation_function='gelu'), "activation_function is 'gelu', and only 'gelu_new' is read"),
        (dict(scale_attn_by_inverse_layer_idx=True), 'scale_attn_by_inverse_layer_idx is True, and only False is read'),
        (dict(reorder_and_upcast_attn=True), 'reorder_and_upcast_attn is True, and only False is read'),
        (dict(scale_attn_weights=False), 'scale_attn_weights is False, and only True is read'),
        (dict(tie_word_embeddings=False), 'tie_word_embeddings is False, and only True is read'),
        (dict(add_cross_attention=True), 'add_cross_attention is True, and only False is read'),
        (dict(layer_norm_epsilon=1e-6), 'layer_norm_epsilon is 1e-06, and only 1e-05 is read'),
        (dict(n_inner=100), 'n_inner is 100, and only 4 * n_embd is read'),
    ],
)
def test_what_is_no_gpt2_as_ours_is_refused_by_name(hub, tmp_path, capsys, changes, expected):
    hub.put('someone/other', saved_files(**changes))
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    flags = ['--task.policy.initial_model=hf://someone/other', f'--save_dir={tmp_path}', '--mpi=1']
    line = refusal(capsys, ['train_policy', str(tmp_path / 'tiny.yaml'), 'run', *flags])
    assert_line(line, f'…config.json: {expected}')
    assert not hub.asked('safetensors')


def test_an_untied_head_is_refused(hub, tmp_path):
    whole = load_file(os.path.join(SAVED, WEIGHTS))
    whole['lm_head.weight'] = whole['transformer.wte.weight'] + 1
    save_file(whole, str(tmp_path / WEIGHTS))
    hub.put('someone/untied', dict(saved_files(), **{WEIGHTS: (tmp_path / WEIGHTS).read_bytes()}))
    with pytest.raises(ValueError, match='lm_head.weight differs from wte.weight: only tied'):
        find_model('hf://someone/untied').arrays()


def test_weights_in_another_format(hub, tmp_path):
    hub.put('someone/old', dict(saved_files(without=[WEIGHTS]), **{'pytorch_model.bin': b'pickle'}))
    with pytest.raises(FileNotFoundError, match='hf://someone/old: no model.safetensors: pytorch_model.bin is not'):
        find_model('hf://someone/old').arrays()
    assert not hub.asked('resolve/.*/pytorch_model.bin')
    shutil.copytree(SAVED, str(tmp_path / 'old'))
    os.rename(str(tmp_path / 'old' / WEIGHTS), str(tmp_path / 'old' / 'pytorch_model.bin'))
    with pytest.raises(FileNotFoundError, match=r'no model.safetensors: pytorch_model.bin .*save_pretrained\(FOLDER\)'):
        find_model(str(tmp_path / 'old')).arrays()


def test_a_part_of_the_weights_is_missing(hub, tmp_path):
    files = sharded(tmp_path, saved_files())
    del files['model-00002-of-00002.safetensors']
    hub.put('someone/part', files)
    with pytest.raises(FileNotFoundError, match='/model-00002-of-00002.safetensors: the repository has no such file'):
        find_model('hf://someone/part').arrays()


def test_a_tokenizer_in_one_file(hub):
    files = saved_files(without=['vocab.json', 'merges.txt'])
    vocab = json.loads(saved_files()['vocab.json'].decode())
    end = vocab.pop('<|endoftext|>')
    tokenizer = {
        'model': {'vocab': vocab, 'merges': []},
        'added_tokens': [{'id': end, 'content': '<|endoftext|>'}],
        'pre_tokenizer': {'type': 'ByteLevel'},
    }
    hub.put('someone/new', dict(files, **{'tokenizer.json': json.dumps(tokenizer).encode()}))
    assert find_model('hf://someone/new').encoding().same_tokens(find_model(SAVED).encoding())


def test_a_model_that_was_fetched_needs_no_hub(hub, monkeypatch):
    hub.put('someone/gpt2', saved_files())
    expected = logits(find_model('hf://someone/gpt2'))
    hub_files.forget()
    library = hub_files.load_library()
    monkeypatch.setattr(library.constants, 'HF_HUB_OFFLINE', True)
    getattr(library.utils, 'reset_sessions', int)()  # one of them may be online
    asked = len(hub.requests)
    np.testing.assert_array_equal(logits(find_model('hf://someone/gpt2')), expected)
    assert len(hub.requests) == asked
    getattr(library.utils, 'reset_sessions', int)()


def test_a_model_that_may_not_be_read_is_one_line(hub, capsys):
    hub.put('someone/gpt2', saved_files(), gated=True)
    line = refusal(capsys, ['sample', '--policies=hf://someone/gpt2', '--prompt=x', '--nsamples=1', '--mpi=1'])
    assert line.startswith('cannot fetch hf://someone/gpt2/') and 'the repository is gated (401)' in line


# The published models.


def test_a_published_model_comes_from_the_hub_if_its_bucket_does_not_have_it(hub, mirror, capsys):
    hub.put('openai-community/gpt2-medium', saved_files())
    trained = find_model('355M')
    np.testing.assert_allclose(logits(trained), np.load(os.path.join(SAVED, 'logits.npy')), rtol=1e-4, atol=1e-4)
    assert 'note: 355M: read from hf://openai-community/gpt2-medium, as its place of 2019' in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match='gs://gpt-2/models/774M/.* The copy on the hub: .*gpt2-large'):
        find_model('774M')


def test_a_published_model_comes_from_its_bucket(hub, mirror, tmp_path):
    hub.put('openai-community/gpt2', saved_files())
    write_gpt2(str(tmp_path), n_vocab=259, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    mirror.files.update({f'/gpt-2/models/124M/{name}': data for name, data in folder_files(tmp_path).items()})
    assert find_model('124M').hparams.n_vocab == 259 and not hub.requests


def test_the_vocabulary_of_gpt2_comes_from_the_hub_if_its_bucket_does_not_have_it(hub, mirror, tmp_path):
    encoding = Encoding('own', *train_bpe(['the cat'], 259))
    encoding.save(str(tmp_path))
    files = folder_files(tmp_path)
    hub.put('openai-community/gpt2', {'vocab.json': files['encoder.json'], 'merges.txt': files['vocab.bpe']})
    write_gpt2(str(tmp_path), n_vocab=259, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    mirror.files.update({f'/gpt-2/models/124M/{name}': data for name, data in folder_files(tmp_path).items()})
    for name in ('encoder.json', 'vocab.bpe', 'encoding'):
        mirror.files.pop(f'/gpt-2/models/124M/{name}', None)
    found = find_model('124M').encoding()
    assert found.same_tokens(encoding) and found.name == 'main'


# Runs.


@pytest.mark.slow
def test_runs_on_the_hub(hub, tiny_run, tmp_path, capsys):
    """A run is sampled from, its reward model scores, and its policy goes on, all from the hub."""
    files = {name: data for name, data in folder_files(tiny_run.folder).items() if not name.startswith('tb/')}
    hub.put('someone/tiny', files)
    printed = []
    for run in (tiny_run.folder, 'hf://someone/tiny@main'):
        capsys.readouterr()
        main(['sample', '--save_dir', run, '--nsamples=2', '--seed=1', '--mpi=1', '--scores'])
        printed.append(capsys.readouterr().out)
    assert printed[0].count('▸') == 2 and len(set(printed)) == 1
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    flags = ['--rewards.trained_model=hf://someone/tiny', '--rewards.train_new_model=off']
    flags += ['--task.policy.initial_model=hf://someone/tiny', f'--save_dir={tmp_path}']
    main(['train_policy', str(tmp_path / 'tiny.yaml'), 'next', *flags, '--mpi=1'])
    assert (tmp_path / 'next' / 'policy' / 'hparams.json').exists()
    main(['evaluate', 'hf://someone/tiny', '--num_queries=8', f'--out={tmp_path / "out"}'])
    assert (tmp_path / 'out' / 'evaluation.json').exists()


def test_a_model_folder_on_the_hub(hub, tmp_path):
    save_small(str(tmp_path))
    hub.put('someone/small', {f'deep/er/{name}': data for name, data in folder_files(tmp_path).items()})
    trained = find_model('hf://someone/small/deep/er')
    assert trained.hparams.n_embd == 6 and trained.arrays()['model/heads/value/w'].tolist() == list(range(6))
