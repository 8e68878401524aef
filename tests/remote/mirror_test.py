"""Save runs to a bucket."""

import os
import re
import shutil
import time

import pytest
from launching import launch
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.remote import failures, mirror, storage, transports
from lm_human_preferences.remote.mirror import Mirror, mirrored
from lm_human_preferences.runs.ownership import clear
from lm_human_preferences.utils.errors import UserError


def write(folder, name, content):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as f:
        f.write(content)


def read(folder, name):
    with open(os.path.join(folder, name)) as f:
        return f.read()


def visible(objects, prefix):
    names = {name[len(prefix) + 1 :]: content.decode() for name, content in objects.items()}
    return {name: content for name, content in names.items() if not name.startswith('.')}


def test_a_local_folder_is_not_mirrored(tmp_path):
    with mirrored(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    assert os.listdir(str(tmp_path)) == []


def test_the_bucket_follows(cache, cloud):
    copy = Mirror('gs://bucket/follow/run')
    copy.open()
    write(copy.local, 'a/b.json', 'one')
    write(copy.local, 'c', 'stays')
    for unfinished in ('.x.json.1.partial', 'a/.saving/model.ckpt-1.index', 'model.ckpt-1.data-0.tempstate12'):
        write(copy.local, unfinished, 'half')
    copy.copy()
    assert visible(cloud.objects('follow/run'), 'follow/run') == {'a/b.json': 'one', 'c': 'stays'}
    before = {blob.name: blob.generation for blob in cloud.blobs('follow/run')}
    write(copy.local, 'a/b.json', 'second')
    write(copy.local, 'd', 'new')
    copy.copy()
    objects = cloud.objects('follow/run')
    assert visible(objects, 'follow/run') == {'a/b.json': 'second', 'c': 'stays', 'd': 'new'}
    after = {blob.name: blob.generation for blob in cloud.blobs('follow/run')}
    assert after['follow/run/c'] == before['follow/run/c']  # not uploaded again
    os.unlink(os.path.join(copy.local, 'd'))
    copy.copy()
    assert visible(cloud.objects('follow/run'), 'follow/run') == {'a/b.json': 'second', 'c': 'stays'}


def test_a_checkpoint_is_copied_before_its_pointer(cache, cloud, monkeypatch):
    copy = Mirror('gs://bucket/order/run')
    copy.open()
    for name in ('checkpoint', 'model.ckpt-2.index', 'model.ckpt-2.data-00000-of-00001', 'state-2.json'):
        write(copy.local, f'policy/checkpoints/{name}', name)
    order = []
    put = Mirror._put

    def noted(self, name, content):
        order.append(name)
        if len(order) == 1:  # meanwhile the next checkpoint is saved
            write(copy.local, 'policy/checkpoints/checkpoint', 'names model.ckpt-3')
        return put(self, name, content)

    monkeypatch.setattr(Mirror, '_put', noted)
    copy.copy()
    assert len(order) == 4 and order[-1] == 'policy/checkpoints/checkpoint'
    assert cloud.objects('order/run/policy')['order/run/policy/checkpoints/checkpoint'] == b'checkpoint'
    copy.copy()
    assert cloud.objects('order/run/policy')['order/run/policy/checkpoints/checkpoint'] == b'names model.ckpt-3'


def test_another_machine_takes_over(tmp_path, cloud, monkeypatch):
    """Two cache folders act as two machines."""
    url, place = 'gs://bucket/over/run', 'policy/checkpoints'
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'first'))
    with mirrored(url) as first:
        for step in (1, 2):
            write(first, f'{place}/model.ckpt-{step}.index', f'index {step}')
            write(first, f'{place}/state-{step}.json', '{}')
        pointer = 'model_checkpoint_path: "model.ckpt-2"\nall_model_checkpoint_paths: "model.ckpt-1"\n'
        write(first, f'{place}/checkpoint', pointer)
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'second'))
    with mirrored(url) as second:
        assert second != first
        assert sorted(os.listdir(os.path.join(second, place))) == [
            'checkpoint',
            'model.ckpt-2.index',
            'state-1.json',
            'state-2.json',
        ]
        write(second, 'more', 'from the second')
        os.unlink(os.path.join(second, place, 'state-1.json'))
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'first'))
    with mirrored(url) as first:
        assert read(first, 'more') == 'from the second' and read(first, f'{place}/model.ckpt-1.index') == 'index 1'
        assert not os.path.exists(os.path.join(first, place, 'state-1.json'))


def test_without_the_name_of_the_last_checkpoint_all_are_fetched(tmp_path, cloud, monkeypatch):
    url, place = 'gs://bucket/unnamed/run', 'policy/checkpoints'
    for number, pointer in enumerate(['', 'model_checkpoint_bath: "model.ckpt-2"', None]):
        monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / f'first-{number}'))
        with mirrored(f'{url}-{number}') as first:
            for step in (1, 2):
                write(first, f'{place}/model.ckpt-{step}.index', f'index {step}')
            if pointer is not None:
                write(first, f'{place}/checkpoint', pointer)
        monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / f'second-{number}'))
        with mirrored(f'{url}-{number}') as second:
            names = sorted(set(os.listdir(os.path.join(second, place))) - {'checkpoint'})
            assert names == ['model.ckpt-1.index', 'model.ckpt-2.index']


def test_a_local_folder_that_is_gone_removes_nothing_from_the_bucket(cache, cloud):
    copy = Mirror('gs://bucket/gone/run')
    copy.open()
    write(copy.local, 'a/b.json', 'one')
    copy.copy()
    os.rename(copy.local, f'{copy.local}-moved')
    with pytest.raises(FileNotFoundError, match='cannot copy the run from .*/gone/run to gs://bucket/gone/run: '):
        copy.copy()
    assert visible(cloud.objects('gone/run'), 'gone/run') == {'a/b.json': 'one'}


def test_a_folder_in_the_run_that_is_moved_away_stays_in_the_bucket(cache, cloud):
    copy = Mirror('gs://bucket/part/run')
    copy.open()
    for name in ('policy/checkpoints/a', 'policy/b', 'c', 'd'):
        write(copy.local, name, name)
    copy.copy()
    whole = visible(cloud.objects('part/run'), 'part/run')
    assert len(whole) == 4
    os.rename(os.path.join(copy.local, 'policy'), os.path.join(copy.local, '..', 'moved'))
    os.unlink(os.path.join(copy.local, 'd'))
    copy.copy()
    del whole['d']
    assert visible(cloud.objects('part/run'), 'part/run') == whole
    # The next start fetches it, if it was not moved back.
    again = Mirror('gs://bucket/part/run')
    again.open()
    assert read(again.local, 'policy/checkpoints/a') == 'policy/checkpoints/a'
    again.copy()
    assert visible(cloud.objects('part/run'), 'part/run') == whole
    # What is removed on purpose (`--resume=overwrite`) is removed there, too, even by the process after the next.
    clear(again.local)
    assert not os.path.exists(os.path.join(again.local, 'policy'))
    last = Mirror('gs://bucket/part/run')
    last.open()
    last.copy()
    assert visible(cloud.objects('part/run'), 'part/run') == {'c': 'c'}
    assert not os.path.exists(os.path.join(last.local, '.cleared'))


@pytest.mark.parametrize('text', ['', '{', '[]', '{"a": 1}'])
def test_a_damaged_record_of_what_was_copied(cache, cloud, text):
    local = Mirror('gs://bucket/record/run').local
    write(local, '.copied.json', text)
    with pytest.raises(
        UserError, match=rf'{local}/\.copied\.json: .*: move {local} away, and the same command fetches'
    ):
        Mirror('gs://bucket/record/run')
    os.unlink(os.path.join(local, '.copied.json'))


def test_one_process_of_a_host_writes(cache, cloud):
    refused = pytest.raises(UserError, match='another process is writing this run')
    with mirrored('gs://bucket/owned/run'), refused, mirrored('gs://bucket/owned/run'):
        raise AssertionError


def test_a_bucket_that_cannot_be_written(cache, cloud):
    with pytest.raises(FileNotFoundError, match=r'cannot save to gs://nobodys/run: not found \(404\)'), mirrored(
        'gs://nobodys/run'
    ):
        raise AssertionError


def test_local_files_stay_if_copying_fails(cache, cloud, monkeypatch):
    failed = pytest.raises(ConnectionError, match='cannot copy the run from .*/bucket/stays/run to gs://bucket/stays')
    with failed, mirrored('gs://bucket/stays/run') as folder:
        write(folder, 'kept', 'here')
        monkeypatch.setattr(storage, 'FIRST_PAUSE', 0)
        monkeypatch.setattr(Mirror, '_put', lambda *_: mirror._again(lost_line))
    assert read(folder, 'kept') == 'here'


def test_pauses_of_a_save_are_bounded_and_said(monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(storage.time, 'sleep', slept.append)

    def busy():
        raise failures.Temporary('the server answers 503', 1e9)

    with pytest.raises(ConnectionError, match='the server answers 503'):
        mirror._again(busy)
    assert slept == [storage.LONGEST_PAUSE] * (storage.ATTEMPTS - 1)
    line = 'the bucket: the server answers 503, and asks to wait: trying again in 120 seconds\n'
    assert capsys.readouterr().err == line * 4


def test_a_bucket_that_does_not_answer(web, monkeypatch):
    """It is given as long as a web server, for metadata, too."""
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', web.url)
    monkeypatch.setattr(failures, 'STALL_SECONDS', 0.3)
    transports.gs_client.cache_clear()
    web.faults = {f'/storage/v1/b/{bucket}/o/x': [lambda _: time.sleep(3) or (200, {})] for bucket in ('bucket',)}
    try:
        with pytest.raises(failures.Temporary, match='no (answer|data) for 0.3 seconds'):
            transports.open_object('gs://bucket/x')
    finally:
        transports.gs_client.cache_clear()


def lost_line():
    import requests

    raise requests.exceptions.ConnectionError('the line is dead')


@pytest.mark.slow
def test_training_saves_to_the_bucket(cache, cloud, tmp_path):
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    url = 'gs://bucket/trained'
    flags = ['--rewards.trained_model=test', '--rewards.train_new_model=off', f'--save_dir={url}', '--mpi=2']
    status, output, errors = launch('train_policy', tmp_path / 'tiny.yaml', 'run', *flags)
    assert status == 0, errors
    objects = cloud.objects('trained/run/')
    names = {name.split('/', 2)[2] for name in objects}
    names = {re.sub(r'events\.out.*', 'events', name) for name in names if not name.startswith('.')}
    assert {'train_policy_hparams.json', 'policy/hparams.json', 'policy/encoding', 'tb/ppo/events'} <= names
    assert {'policy/checkpoints/checkpoint', 'policy/checkpoints/model.ckpt-2.index'} <= names
    assert not [name for name in names if 'temp' in name or 'partial' in name or 'saving' in name]
    status, output, errors = launch('sample', f'--save_dir={url}/run', '--nsamples=2', '--mpi=1')
    assert (status, errors, output.count('▸')) == (0, '', 2)
    shutil.rmtree(str(cache))  # as on another machine
    status, output, errors = launch('train_policy', tmp_path / 'tiny.yaml', 'run', *flags)
    assert (status, errors) == (0, '') and 'this run is finished' in output
    _, output, errors = launch('train_policy', tmp_path / 'tiny.yaml', 'run', *flags, '--resume=off', '--dry_run')
    assert 'gs://bucket/trained/run-2' in output, errors
