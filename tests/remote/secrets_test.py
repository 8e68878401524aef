"""Passwords and signatures in URLs: never printed, and stored only where nobody but the owner reads them."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as some
from launching import launch
from small_models import save_small
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.hyperparameters import TrainRewardHParams
from lm_human_preferences.utils.text import same_source, shared, without_secrets

SECRETS = ('pa55word', 'us3r', 's1gn', 'n3w')


@pytest.mark.parametrize(
    'text, expected',
    [
        ('https://us3r:pa55word@host/x?sig=s1gn', 'https://host/x'),
        ('https://us3r@host:80/x#s1gn', 'https://host:80/x'),
        ('https://host/@scope/x@1', 'https://host/@scope/x@1'),
        ('http://127.0.0.1:80/x?mail=a@b', 'http://127.0.0.1:80/x'),
        ('https://[::1]:8/x?s1gn', 'https://[::1]:8/x'),
        ('HTTPS://us3r:pa55word@host', 'HTTPS://host'),
        ('socks5h://us3r:pa55word@host:1', 'socks5h://host:1'),
        ('https://us3r:pa55/word@host/x', 'https://…'),
        ('https://us3r:pa55?word@host/x', 'https://…'),
        ('https://us3r:pa55#word@host/x', 'https://…'),
        ('https://us3r:pa@55@host/x', 'https://host/x'),
        ('https:///:pa55@host/x', 'https://…'),
        ('https://us3r/:pa55@host/x', 'https://…'),
        ('https://a@us3r/b:pa55@host/x', 'https://…'),
        ('https://host/x:y/z', 'https://host/x:y/z'),
        (
            "no https://host/x?sig=s1gn: gone; 'gs://a/b?c' (http://u:p@h)",
            "no https://host/x: gone; 'gs://a/b' (http://h)",
        ),
        ('http://host:80: refused', 'http://host:80: refused'),
        ('no URL: a://, ? and @', 'no URL: a://, ? and @'),
    ],
)
def test_texts_without_secrets(text, expected):
    assert without_secrets(text) == expected
    assert without_secrets(without_secrets(text)) == expected


def test_values_without_secrets():
    value = {'a': ['text:https://us3r:pa55word@host/x y?sig=s1 gn', 3, None], 'https://h/x?sig=s1gn': True}
    assert shared(value) == {'a': ['text:https://host/x y', 3, None], 'https://h/x': True}


@given(some.text(min_size=1, max_size=8), some.text(max_size=8), some.sampled_from(['@', '?sig=', '?a=b&sig=', '#']))
@example('0', '/', '@')
@example('0', 'a@b/c', '@')
def test_no_secret_is_left(secret, name, place):
    url = f'https://{name}:KEY{secret}@host/x' if place == '@' else f'https://host/x{place}KEY{secret}'
    assert 'KEY' not in shared(url) and 'KEY' not in shared('text:' + url)


@pytest.mark.parametrize(
    'one, other, same',
    [
        ('https://h/x?sig=a&se=1&f=1', 'https://h/x?f=1&sig=b&se=2', True),
        ('https://h/x?X-Amz-Signature=a', 'https://u:p@h/x?X-Amz-Signature=b&X-Amz-Date=c', True),
        ('https://h/x', 'https://h/x?sig=b', True),
        ('https://h/x?f=1&sig=a', 'https://h/x?f=2&sig=a', False),
        ('https://h/x?sig=a', 'https://h/y?sig=a', False),
        ('https://h/x?sigma=1', 'https://h/x?sigma=2', False),
        ('1', 1, False),
    ],
)
def test_the_same_source(one, other, same):
    assert same_source(one, other) is same and same_source(other, one) is same


def test_hyperparameters(capsys):
    one, other = TrainRewardHParams(), TrainRewardHParams()
    one.override_from_dict({'labels.source': 'https://us3r:pa55word@h/x?sig=s1gn', 'task.query_dataset': 'books'})
    other.override_from_dict({'labels.source': 'https://h/x?sig=n3w', 'task.query_dataset': 'books'})
    assert one.differences(other) == []
    one.dump()
    assert "labels.source = 'https://h/x'" in capsys.readouterr().out
    assert one.to_shared_dict()['labels']['source'] == 'https://h/x'
    assert one.secrets() == {'labels.source': 'https://us3r:pa55word@h/x?sig=s1gn'}
    saved = TrainRewardHParams()
    saved.override_from_nested_dict(one.to_shared_dict())
    saved.restore(one.secrets())
    assert saved == one
    saved.labels.source = 'https://h/another'
    saved.restore({**one.secrets(), 'gone': 'x'})
    assert saved.labels.source == 'https://h/another'
    other.labels.source = 'https://h/y?sig=s1gn'
    assert one.differences(other) == ['labels.source']


@pytest.fixture
def private_web(cache, web, tmp_path):
    """Return a web server with labels and an initial model, which needs the signature `s1gn`."""
    random = np.random.RandomState(0)
    labels = []
    for _ in range(16):
        label = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    web.files['/labels.json'] = json.dumps(labels).encode()
    save_small(str(tmp_path / 'initial'))
    for parent, _, names in os.walk(str(tmp_path / 'initial')):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, 'rb') as file:
                web.files[f'/initial/{os.path.relpath(path, str(tmp_path / "initial"))}'] = file.read()
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    web.signature = 'sig=s1gn'
    return web


def private_url(web, name, signature='s1gn'):
    return f'http://us3r:pa55word@127.0.0.1:{web.server_port}/{name}?sig={signature}'


def leaks(folder):
    """Return the files below a folder that hold a secret."""
    found = []
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            with open(os.path.join(parent, name), 'rb') as file:
                content = name.encode() + file.read()
            if any(secret.encode() in content for secret in SECRETS):
                found.append(name)
    return found


def assert_no_secret(*texts):
    for text in texts:
        assert not any(secret in text for secret in SECRETS), text


@pytest.mark.slow
@pytest.mark.parametrize('ranks', [1, 2])
def test_a_run_with_secrets(private_web, tmp_path, ranks):
    def train(*more, signature='s1gn'):
        source = f'--rewards.train_new_model.labels.source={private_url(private_web, "labels.json", signature)}'
        initial = f'--task.policy.initial_model={private_url(private_web, "initial", signature)}'
        return launch(
            'train_policy',
            tmp_path / 'tiny.yaml',
            'run',
            source,
            initial,
            f'--save_dir={tmp_path}/save',
            f'--mpi={ranks}',
            *more,
        )

    run = tmp_path / 'save' / 'run'
    status, output, errors = train('--dry_run')
    assert status == 0 and f"'http://127.0.0.1:{private_web.server_port}/labels.json'" in output
    assert_no_secret(output, errors)
    status, output, errors = train()
    assert (status, errors) == (0, ''), errors
    assert_no_secret(output)
    assert leaks(run) == ['.secrets.json']
    assert stat.S_IMODE(os.stat(str(run / '.secrets.json')).st_mode) == 0o600
    assert f'127.0.0.1:{private_web.server_port}/labels.json' in (run / 'report.html').read_text()

    status, output, errors = train()
    assert (status, errors) == (0, '') and 'this run is finished' in output
    private_web.signature = 'sig=n3w'  # as if the first had expired
    status, output, errors = train('--ppo.total_episodes=48', signature='n3w')
    assert status == 0 and 'resuming after step 2' in output, errors
    assert_no_secret(output, errors)
    assert leaks(run) == ['.secrets.json']

    shutil.rmtree(os.environ['LM_HUMAN_PREFERENCES_CACHE'])
    labels = private_url(private_web, 'labels.json', 'n3w')
    status, output, errors = launch('evaluate', run, f'--labels={labels}', '--num_labels=16')
    assert status == 0 and f'Reward model on http://127.0.0.1:{private_web.server_port}/labels.json' in output, errors
    assert_no_secret(output, errors)
    assert leaks(run) == ['.secrets.json']


@pytest.mark.parametrize('ranks', [1, 2])
def test_errors_without_secrets(private_web, tmp_path, ranks):
    source = f'--labels.source={private_url(private_web, "labels.json", "wrong-n3w")}'
    flags = [source, f'--save_dir={tmp_path}/save', f'--mpi={ranks}', '--traceback']
    status, output, errors = launch('train_reward', tmp_path / 'tiny.yaml', 'run', *flags)
    assert status == 2 and f'http://127.0.0.1:{private_web.server_port}/labels.json: no permission (403)' in errors
    assert 'Traceback' in errors
    assert_no_secret(output, errors)
    assert set(leaks(tmp_path / 'save')) <= {'.secrets.json'}


def test_an_older_run_is_reported_without_secrets(tiny_run, tmp_path):
    """Its hyperparameters still hold them."""
    run = tmp_path / 'run'
    shutil.copytree(tiny_run.folder, str(run))
    path = run / 'train_policy_hparams.json'
    path.write_text(path.read_text().replace(tiny_run.labels, 'https://us3r:pa55word@host/labels.json?sig=s1gn'))
    status, output, errors = launch('report', run)
    assert (status, errors) == (0, '')
    report = (run / 'report.html').read_text()
    assert 'https://host/labels.json' in report
    assert_no_secret(output, report)


def test_damaged_secrets_are_one_line(tiny_run, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(tiny_run.folder, str(run))
    for content in ('[]', '{"train_policy": 3}', '{"train_policy": {"labels.source": 3}}', '{'):
        (run / '.secrets.json').write_text(content)
        status, _, errors = launch('sample', f'--save_dir={run}', '--nsamples=1', '--mpi=1')
        assert status == 2 and '.secrets.json' in errors and len(errors.splitlines()) == 1
