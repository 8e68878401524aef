"""`convert`: models to and from Hugging Face folders, labels to and from pairs of texts."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from repository import TESTS

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.encodings import load_encoding
from lm_human_preferences.language.huggingface_models import load
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.run_models import run_policy
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.launcher.command_line import main
from lm_human_preferences.method.inference import Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.runs.run_folder import RunFolder

SAVED = os.path.join(TESTS, 'huggingface')  # written by transformers, see its make.py
TOKENS = [[1, 256, 5, 9, 9, 100, 31, 2, 7], [80, 81, 82, 83, 84, 85, 86, 87, 88]]  # those of make.py


def convert(*arguments):
    main(['convert', *map(str, arguments)])


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        convert(*arguments)
    errors = capsys.readouterr().err
    assert exit.value.code == 2 and errors.count('\n') == 1, errors
    return errors


def our_logits(trained, tokens=TOKENS):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(trained.hparams)
        logits = model.logits(model(tf.constant(tokens, tf.int32)).hidden)
        trained.load(session, model)
        return session.run(logits)


def assert_same_arrays(one, two):
    assert list(one) == list(two)
    for name in one:
        assert (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape), name
        assert one[name].tobytes() == two[name].tobytes(), name


@pytest.fixture
def imported(tmp_path):
    """The model saved by transformers, converted to a folder of ours."""
    convert(SAVED, tmp_path / 'ours')
    return tmp_path / 'ours'


def test_a_model_of_transformers_computes_its_logits(imported):
    trained = find_model(str(imported))
    assert (trained.hparams.n_vocab, trained.hparams.n_ctx, trained.hparams.n_head) == (257, 16, 3)
    expected = np.load(os.path.join(SAVED, 'logits.npy'))
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(our_logits(trained), expected, rtol=1e-4, atol=1e-4)
    encoding = trained.encoding()
    assert (encoding.name, encoding.eot_token) == ('own', 256)
    assert encoding.decode(encoding.encode('naïve\n')) == 'naïve\n'


def test_there_and_back_is_bit_exact(imported, tmp_path):
    convert(imported, tmp_path / 'theirs')
    ours, theirs = load(str(tmp_path / 'theirs')), load(SAVED)
    assert_same_arrays(ours.arrays, theirs.arrays)
    assert ours.hparams == theirs.hparams and ours.encoding.same_tokens(theirs.encoding)
    assert not os.path.exists(str(tmp_path / 'theirs' / 'heads.safetensors'))


@pytest.mark.parametrize('savescope', ['policy', 'ref_policy', 'reward_model'])
def test_models_of_a_run_keep_their_heads(tiny_run, tmp_path, savescope):
    convert(tiny_run.folder, tmp_path / 'theirs', f'--savescope={savescope}')
    convert(tmp_path / 'theirs', tmp_path / 'ours')
    if savescope == 'reward_model':
        before, after = find_reward_model(tiny_run.folder), find_reward_model(str(tmp_path / 'ours'))
        assert 'reward_norm/gain' in after.arrays() and 'model/heads/reward/w' in after.arrays()
        queries, responses = np.array([[1, 2], [3, 4]], np.int32), np.array([[5, 6, 7], [7, 6, 5]], np.int32)
        scores = []
        for trained in (before, after):
            with Scorer(trained, Task(RunFolder(tiny_run.folder).task, trained.encoding()), 2) as scorer:
                scores.append(scorer.scores(queries, responses))
        np.testing.assert_array_equal(*scores)
    else:
        before = run_policy(RunFolder(tiny_run.folder), savescope)
        after = find_model(str(tmp_path / 'ours'), savescope)
        assert 'model/heads/value/b' in after.arrays()
    assert_same_arrays(before.arrays(), after.arrays())
    assert before.hparams == after.hparams and before.encoding().same_tokens(after.encoding())


def test_a_sharded_folder_and_a_tokenizer_in_one_file(tmp_path):
    folder = tmp_path / 'sharded'
    shutil.copytree(SAVED, str(folder))
    from safetensors.numpy import load_file, save_file

    whole = load_file(str(folder / 'model.safetensors'))
    names = sorted(whole)
    for number, chosen in enumerate((names[:9], names[9:]), start=1):
        shard = folder / f'model-0000{number}-of-00002.safetensors'
        # Old folders have no prefix, and hold the attention masks.
        renamed = {name.replace('transformer.', ''): whole[name] for name in chosen}
        save_file(dict(renamed, **{f'h.{number - 1}.attn.bias': np.ones((1, 1, 4, 4), np.uint8)}), str(shard))
    os.unlink(str(folder / 'model.safetensors'))
    vocab = json.loads((folder / 'vocab.json').read_text(encoding='utf-8'))
    end = vocab.pop('<|endoftext|>')
    tokenizer = {
        'model': {'vocab': vocab, 'merges': []},
        'added_tokens': [{'id': end, 'content': '<|endoftext|>'}],
        'pre_tokenizer': {'type': 'ByteLevel'},
    }
    (folder / 'tokenizer.json').write_text(json.dumps(tokenizer))
    os.unlink(str(folder / 'vocab.json'))
    one, two = load(str(folder)), load(SAVED)
    assert_same_arrays(one.arrays, two.arrays)
    assert one.encoding.same_tokens(two.encoding)


def change(folder, **fields):
    path = os.path.join(str(folder), 'config.json')
    with open(path) as f:
        config = dict(json.load(f), **fields)
    with open(path, 'w') as f:
        json.dump(config, f)


@pytest.mark.parametrize(
    'fields, message',
    [
        (dict(model_type='llama'), "config.json: model_type is 'llama', and only 'gpt2' is read"),
        (dict(activation_function='relu'), "activation_function is 'relu'"),
        (dict(n_inner=7), 'n_inner is 7'),
        (dict(vocab_size=300), 'wte.weight has shape [257, 12], but the GPT-2 of config.json asks for [300, 12]'),
        (dict(n_layer=3), 'the weights have 2 layers, but n_layer in config.json is 3'),
        (dict(n_layer=None), 'n_layer is not set'),
    ],
)
def test_what_is_not_our_gpt2_is_refused(fields, message, tmp_path, capsys):
    shutil.copytree(SAVED, str(tmp_path / 'model'))
    change(tmp_path / 'model', **fields)
    assert message in refused(capsys, tmp_path / 'model', tmp_path / 'ours')
    assert not (tmp_path / 'ours').exists()


def test_other_faults_give_one_line(tmp_path, capsys):
    shutil.copytree(SAVED, str(tmp_path / 'model'))
    assert 'exists: give another TARGET' in refused(capsys, SAVED, tmp_path / 'model')
    os.unlink(str(tmp_path / 'model' / 'model.safetensors'))
    assert 'no model.safetensors' in refused(capsys, tmp_path / 'model', tmp_path / 'ours')
    (tmp_path / 'model' / 'model.safetensors').write_bytes(b'nonsense')
    assert 'cannot be read' in refused(capsys, tmp_path / 'model', tmp_path / 'ours')
    assert 'no model at' in refused(capsys, tmp_path / 'nowhere', tmp_path / 'ours')
    assert 'the model test has no files' in refused(capsys, 'test', tmp_path / 'ours')
    assert "unexpected argument 'c'" in refused(capsys, 'a', 'b', 'c')


def transformers_python():
    """An interpreter with transformers and torch: TRANSFORMERS_PYTHON, else this one if it has them."""
    if os.environ.get('TRANSFORMERS_PYTHON'):
        return os.environ['TRANSFORMERS_PYTHON']
    has = all(importlib.util.find_spec(name) is not None for name in ('transformers', 'torch'))
    return sys.executable if has else None


@pytest.mark.skipif(transformers_python() is None, reason='needs transformers and torch: set TRANSFORMERS_PYTHON')
def test_transformers_computes_our_logits(imported, tmp_path):
    """Both ways with the library: transformers reads the demo's model, and we read a model that it writes now."""
    script = os.path.join(SAVED, 'make.py')
    convert('demo', tmp_path / 'demo')
    subprocess.check_call([transformers_python(), script, str(tmp_path / 'demo'), str(tmp_path / 'demo.npy')])
    np.testing.assert_allclose(
        np.load(str(tmp_path / 'demo.npy')), our_logits(find_model('demo')), atol=1e-4, rtol=1e-4
    )
    (tmp_path / 'theirs').mkdir()
    subprocess.check_call([transformers_python(), script, str(tmp_path / 'theirs')])
    convert(tmp_path / 'theirs', tmp_path / 'back')
    for folder in ('theirs', 'back'):  # as it is, and converted
        logits = our_logits(find_model(str(tmp_path / folder)))
        np.testing.assert_allclose(np.load(str(tmp_path / 'theirs' / 'logits.npy')), logits, atol=1e-4, rtol=1e-4)


PAIRS = [
    dict(prompt='abc.', chosen='xy', rejected='z'),
    dict(prompt='d', chosen='abcdef.', rejected='.'),
    dict(prompt='', chosen='a', rejected='b'),
]


def write_pairs(path, pairs):
    path.write_text('\n'.join(json.dumps(pair) for pair in pairs) + '\n\n')
    return path


def test_pairs_become_labels(tiny_run, tmp_path, capsys):
    source = write_pairs(tmp_path / 'pairs.jsonl', PAIRS)
    convert(source, tmp_path / 'labels.json', '--model', tiny_run.folder)
    assert (
        '3 labels of type best_of_2; 1 prompts lost their beginning, 1 responses their end' in capsys.readouterr().out
    )
    labels = json.loads((tmp_path / 'labels.json').read_text())
    pad = 27
    assert labels == [
        dict(query=[2, 26], sample0=[23, 24, pad], sample1=[25, pad, pad], best=0),
        dict(query=[3, pad], sample0=[26, pad, pad], sample1=[0, 1, 2], best=1),
        dict(query=[pad, pad], sample0=[0, pad, pad], sample1=[1, pad, pad], best=0),
    ]
    # A reward model can be trained and evaluated on these labels.
    flags = ['--label_type=best_of_2', f'--labels={tmp_path / "labels.json"}']
    main(['evaluate', tiny_run.folder, *flags])
    assert 'agrees with people' in capsys.readouterr().out


def test_labels_become_pairs(tiny_run, tmp_path, capsys):
    convert(tiny_run.labels, tmp_path / 'pairs.jsonl', '--model', tiny_run.folder)
    assert '192 pairs' in capsys.readouterr().out
    pairs = [json.loads(line) for line in (tmp_path / 'pairs.jsonl').read_text().splitlines()]
    with open(tiny_run.labels) as f:
        first = json.load(f)[0]
    decode = load_encoding(os.path.join(tiny_run.folder, 'policy')).decode
    assert [pair['chosen'] for pair in pairs[:3]] == [decode(first[f'sample{first["best"]}'])] * 3
    others = [decode(first[f'sample{i}']) for i in range(4) if i != first['best']]
    assert [pair['rejected'] for pair in pairs[:3]] == others and pairs[0]['prompt'] == decode(first['query'])


def test_pairs_there_and_back(tiny_run, tmp_path):
    source = write_pairs(tmp_path / 'pairs.jsonl', [dict(prompt='ab', chosen='c', rejected='de.')] * 2)
    convert(source, tmp_path / 'labels.json', '--model', tiny_run.folder)
    convert(tmp_path / 'labels.json', tmp_path / 'back.jsonl', '--model', tiny_run.folder)
    assert (tmp_path / 'back.jsonl').read_text() == source.read_text()[:-1]


def test_comparisons_become_pairs_and_ratings_do_not(tiny_run, tmp_path, capsys):
    label = dict(query=[1, 2], sample0=[3, 4, 27], sample1=[5, 27, 27])
    labels = [dict(label, difference=difference) for difference in (0.5, 0.0, -2)]
    (tmp_path / 'compare.json').write_text(json.dumps(labels))
    convert(tmp_path / 'compare.json', tmp_path / 'pairs.jsonl', '--model', tiny_run.folder)
    pairs = [json.loads(line) for line in (tmp_path / 'pairs.jsonl').read_text().splitlines()]
    assert [(pair['chosen'], pair['rejected']) for pair in pairs] == [('f', 'de'), ('de', 'f')]
    (tmp_path / 'rating.json').write_text(json.dumps([dict(query=[1, 2], sample=[3, 4, 27], score=1)]))
    assert 'ratings of single samples make no pairs' in refused(
        capsys, tmp_path / 'rating.json', tmp_path / 'x.jsonl', '--model', tiny_run.folder
    )
    assert not (tmp_path / 'x.jsonl').exists()


@pytest.mark.parametrize(
    'line, message',
    [
        ('{', 'line 1: not JSON'),
        ('{"prompt": "a", "chosen": "b"}', 'line 1: prompt, chosen and rejected should be texts'),
        ('{"prompt": "a", "chosen": [], "rejected": "b"}', 'should be texts'),
        ('{"prompt": "a", "chosen": "b", "rejected": ""}', 'should not be empty'),
        ('', 'no pairs there'),
    ],
)
def test_bad_pairs_give_one_line(tiny_run, tmp_path, capsys, line, message):
    (tmp_path / 'pairs.jsonl').write_text(line + '\n')
    assert message in refused(capsys, tmp_path / 'pairs.jsonl', tmp_path / 'labels.json', '--model', tiny_run.folder)
    assert 'give --query_length and --response_length' in refused(capsys, tmp_path / 'pairs.jsonl', tmp_path / 'l.json')
