"""Models, runs and labels in a bucket and on a web server: which files are fetched, and how runs use them."""

import json
import os
import re

import numpy as np
import pytest
from launching import launch
from loopback import folder_files
from small_models import SMALL, save_small, write_gpt2
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import find_model, find_reward_model
from lm_human_preferences.runs.checkpoints import CheckpointWriter


def serve_folder(web, prefix, folder):
    """Put the files of a folder onto the web server."""
    web.files.update({f'{prefix}/{path}': content for path, content in folder_files(folder).items()})


def head(trained):
    """The weights of the value head that `save_small` wrote."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(trained.hparams, scope='other', heads=['value'])
        trained.load(session, model, heads=['value'])
        return session.run(model.variables['heads/value/w']).tolist()


@pytest.mark.parametrize('place', ['web', 'cloud'])
def test_the_model_in_a_remote_run(cache, web, cloud, tmp_path, place):
    save_small(str(tmp_path / 'run' / 'policy'))
    if place == 'web':
        serve_folder(web, '/run', tmp_path / 'run')
        url = web.url + '/run'
    else:
        cloud.put_folder('models/run', tmp_path / 'run')
        url = 'gs://bucket/models/run'
    for name in (url, url + '/policy'):
        trained = find_model(name)
        assert trained.encoding().name == 'test' and head(trained) == list(range(6))
    if place == 'web':
        wanted = ['checkpoint', 'encoding', 'hparams.json', 'model.ckpt-7.data-00000-of-00001', 'model.ckpt-7.index']
        assert sorted(map(os.path.basename, web.bodies)) == wanted and set(web.bodies.values()) == {1}
    with pytest.raises(
        FileNotFoundError, match=f'no model in {re.escape(url)}, nor in reward_model there: .*not found'
    ):
        find_reward_model(url)


def test_a_remote_run_that_is_going_on(cache, web, tmp_path):
    """Its checkpoints have two data files: the second one is shared with other checkpoints."""
    folder = str(tmp_path / 'run' / 'policy')
    save_small(folder)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        models = [Model(SMALL, scope=f'{scope}/model', heads=['value']) for scope in ('policy', 'ref_policy')]
        session.run(tf.global_variables_initializer())
        for number, model in enumerate(models):
            model.variables['heads/value/w'].load(np.full(6, number), session)
        writer = CheckpointWriter(folder, tf.global_variables(), unchanging=lambda v: v.name.startswith('ref_policy/'))
        for step in (8, 9):
            writer.save(session, step)
    serve_folder(web, '/run', tmp_path / 'run')
    for savescope, number in (('policy', 0), ('ref_policy', 1)):
        assert head(find_model(f'{web.url}/run/policy', savescope)) == [number] * 6
    assert {name for name in web.bodies if 'data' in name} == {
        f'/run/policy/checkpoints/model.ckpt-9.data-0000{number}-of-00002' for number in (0, 1)
    }


def test_a_remote_model_with_a_vocabulary_of_its_own(cache, web, tmp_path):
    encoding = Encoding('own', *train_bpe(['the cat'], 259))
    write_gpt2(str(tmp_path), n_vocab=259, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    encoding.save(str(tmp_path))
    for named in (True, False):  # with a file `encoding` as ours, and without as OpenAI's
        serve_folder(web, f'/{named}', tmp_path)
        if not named:
            del web.files['/False/encoding']
        trained = find_model(f'{web.url}/{named}')
        assert trained.encoding().encode('the cat') == encoding.encode('the cat')
        with tf.Graph().as_default() as graph, new_session(graph) as session:
            assert len(trained.load(session, Model(trained.hparams, scope='x'))) == 16


@pytest.mark.parametrize('own_vocabulary', [False, True])
def test_a_published_model(cache, mirror, tmp_path, own_vocabulary):
    encoding = Encoding('own', *train_bpe(['the cat'], 259))
    write_gpt2(str(tmp_path), n_vocab=259, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    serve_folder(mirror, '/gpt-2/models/124M', tmp_path)
    encoding.save(str(tmp_path / 'main'))
    if own_vocabulary:  # put there by hand
        encoding.save(str(cache / 'models' / '124M'))
    else:
        serve_folder(mirror, '/gpt-2/encodings/main', tmp_path / 'main')
    for _ in range(2):
        trained = find_model('124M')
        assert trained.encoding().encode('the cat') == encoding.encode('the cat')
        with tf.Graph().as_default() as graph, new_session(graph) as session:
            assert len(trained.load(session, Model(trained.hparams, scope='x'))) == 16
    assert set(mirror.bodies.values()) == {1} and len(mirror.bodies) == (4 if own_vocabulary else 6)
    files = {'checkpoint', 'hparams.json', 'model.ckpt.data-00000-of-00001', 'model.ckpt.index'}
    assert set(os.listdir(str(cache / 'models' / '124M'))) >= files


def test_a_published_model_put_there_by_hand_needs_no_network(cache, tmp_path, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', 'http://127.0.0.1:9')
    folder = cache / 'models' / '124M'
    folder.mkdir(parents=True)
    write_gpt2(str(folder), n_vocab=259, n_ctx=8, n_embd=6, n_head=2, n_layer=1)
    Encoding('own', *train_bpe(['the cat'], 259)).save(str(folder))
    trained = find_model('124M')
    assert trained.encoding().n_vocab == 259
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        trained.load(session, Model(trained.hparams, scope='x'))


def test_runs_from_everywhere(cache, web, cloud, tmp_path):
    """Train on two ranks with labels from a bucket and a model from the web. Then sample the policy from both."""
    save_small(str(tmp_path / 'initial'))
    serve_folder(web, '/initial', tmp_path / 'initial')
    random = np.random.RandomState(0)
    labels = []
    for _ in range(16):
        label = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    cloud.put('labels/mine.json', json.dumps(labels))
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    flags = [f'--task.policy.initial_model={web.url}/initial', f'--save_dir={tmp_path}']
    from_bucket = '--labels.source=gs://bucket/labels/mine.json'
    status, _, errors = launch('train_reward', tmp_path / 'tiny.yaml', 'reward', *flags, from_bucket, '--mpi=2')
    assert status == 0, errors
    assert set(web.bodies.values()) == {1}  # for both ranks

    cloud.put_folder('runs/reward', tmp_path / 'reward')
    reward = ['--rewards.trained_model=gs://bucket/runs/reward', '--rewards.train_new_model=off']
    status, _, errors = launch('train_policy', tmp_path / 'tiny.yaml', 'policy', *flags, *reward)
    assert (status, errors) == (0, '')

    cloud.put_folder('runs/policy', tmp_path / 'policy')
    serve_folder(web, '/policy', tmp_path / 'policy')
    printed = []
    for run in (tmp_path / 'policy', 'gs://bucket/runs/policy', f'{web.url}/policy'):
        status, output, errors = launch('sample', '--save_dir', run, '--nsamples=2', '--seed=1', '--mpi=1')
        assert (status, errors, output.count('▸')) == (0, '', 2)
        printed.append(output)
    assert len(set(printed)) == 1


@pytest.mark.parametrize('ranks', [1, 2])
def test_what_is_not_there_is_one_line(cache, web, cloud, ranks):
    status, _, errors = launch('sample', f'--save_dir={web.url}/none', '--nsamples=2', f'--mpi={ranks}')
    assert status == 2 and len(errors.splitlines()) == 1
    assert 'not the folder of a run' in errors and 'not found (404)' in errors and 'put the file at' in errors
