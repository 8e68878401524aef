"""No checkpoint is lost and no wrong one is used, whatever happens to the files beside TensorFlow's."""

import json
import os
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from killed_saves import STATE, save

from lm_human_preferences.runs.checkpoint_files import last_state, latest_checkpoint, recover, resume_at
from lm_human_preferences.utils.errors import UserError

REMOVED = object()
EARLIER = {'model.ckpt-8.data-00000-of-00001': 10, 'model.ckpt-8.index': 10}  # as versions without checksums wrote them


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A model folder with whole checkpoints of steps 6, 7 and 8."""
    folder = str(tmp_path_factory.mktemp('saved') / 'policy')
    for step in (6, 7, 8):
        save(folder, step)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, str(tmp_path / 'policy'))


def path_of(folder, name):
    return os.path.join(folder, 'checkpoints', name)


def content(folder):
    """Return every file of the checkpoints, without the `checkpoint` file, which is written anew."""
    names = set(os.listdir(path_of(folder, ''))) - {'checkpoint'}
    files = {}
    for name in sorted(names):
        with open(path_of(folder, name), 'rb') as file:
            files[name] = file.read()
    return files


def write(path, text):
    if os.path.lexists(path):
        os.unlink(path)
    if text is not REMOVED:
        with open(path, 'wb') as file:
            file.write(text if isinstance(text, bytes) else text.encode())


def start(folder):
    """Do what a run does when it starts; return the step at which it resumes."""
    step = recover(folder)['step']
    resume_at(folder, step)
    return step


POINTERS = {
    'removed': REMOVED,
    'empty': '',
    'not UTF-8': b'\xff',
    'bytes at random': b'\x00\x13\xfe' * 50,
    'another key': 'model_checkpoint_bath: "model.ckpt-8"\n',
    'cut off': 'model_checkpoint_path: "model.ck',
    'names nothing': 'model_checkpoint_path: ""\n',
    'names an older one': 'model_checkpoint_path: "model.ckpt-6"\n',
    'names one that never was': 'model_checkpoint_path: "model.ckpt-9"\n',
    'names a path': 'model_checkpoint_path: "/etc/passwd"\n',
    'JSON': '{"model_checkpoint_path": "model.ckpt-8"}',
}


@pytest.mark.parametrize('pointer', POINTERS.values(), ids=POINTERS)
def test_checkpoints_are_found_without_the_checkpoint_file(folder, capsys, pointer):
    before = content(folder)
    write(path_of(folder, 'checkpoint'), pointer)
    assert last_state(folder)['step'] == 8
    assert start(folder) == 8
    place = path_of(folder, '')[:-1]
    line = f'{place}: model.ckpt-8 is used; the file `checkpoint` does not name it as the last\n'
    assert capsys.readouterr().out == line
    assert content(folder) == before
    assert latest_checkpoint(folder) == path_of(folder, 'model.ckpt-8')  # it is named again
    assert start(folder) == 8 and capsys.readouterr().out == ''


def test_a_folder_in_place_of_the_checkpoint_file(folder):
    before = content(folder)
    os.unlink(path_of(folder, 'checkpoint'))
    os.mkdir(path_of(folder, 'checkpoint'))
    assert recover(folder)['step'] == 8
    assert latest_checkpoint(folder).endswith('model.ckpt-8')
    os.rmdir(path_of(folder, 'checkpoint'))
    assert content(folder) == before


def edited(folder, change, step=8):
    """Change what a manifest holds, and leave its checksum."""
    path = path_of(folder, f'state-{step}.json')
    with open(path) as file:
        manifest = json.load(file)
    changed = change(manifest)
    with open(path, 'w') as file:
        json.dump(manifest if changed is None else changed, file)


def fields(**values):
    return lambda manifest: manifest.update(values)


MANIFESTS = {
    'a negative step': (fields(step=-5), 'step is -5'),
    'the step before': (fields(step=7), 'step is 7'),
    'the step after': (fields(step=9), 'step is 9'),
    'no step': (lambda manifest: {k: v for k, v in manifest.items() if k != 'step'}, 'step is None'),
    'a step as text': (fields(step='8'), "step is '8'"),
    'a step as a fraction': (fields(step=8.0), 'step is 8.0'),
    'a true step': (fields(step=True), 'step is True'),
    'a list': (lambda manifest: [], 'it should be a JSON object, not list'),
    'nothing': (lambda manifest: {}, 'step is None'),
    'another seed': (fields(seed=8), 'seed is 8, but run.seed is 7'),
    'another position': (fields(positions=[4]), 'its checksum is wrong'),
    'another number of positions': (fields(positions=[3, 3]), '2 positions for 1 rank(s)'),
    'a position as text': (fields(positions=['3']), "positions is ['3']"),
    'a negative position': (fields(positions=[-3]), 'positions is [-3]'),
    'ranks as text': (fields(ranks='1'), "ranks is '1'"),
    'no ranks': (fields(ranks=0), 'ranks is 0'),
    'an infinite coefficient': (fields(kl_coef=float('inf')), 'kl_coef is inf'),
    'seconds as text': (fields(seconds='7'), "seconds is '7'"),
    'finished as a number': (fields(finished=1), 'finished is 1'),
    'finished': (fields(finished=True), 'its checksum is wrong'),
    'hparams as a list': (fields(hparams=[]), 'hparams is []'),
    'other hparams': (fields(hparams={}), 'its checksum is wrong'),
    'an unknown field': (fields(sead=7), "unknown field 'sead'"),
    'no seed': (lambda manifest: {k: v for k, v in manifest.items() if k != 'seed'}, 'seed is missing'),
    'no checksum': (lambda manifest: {k: v for k, v in manifest.items() if k != 'checksum'}, 'its checksum is wrong'),
    'another checksum': (fields(checksum='0' * 64), 'its checksum is wrong'),
    'no files': (fields(files={}), 'files is {}'),
    'files as a list': (fields(files=[]), 'files is []'),
    'files of another step': (fields(files={name.replace('8', '7'): 10 for name in EARLIER}), 'files has other names'),
    'a file elsewhere': (fields(files={**EARLIER, '../../x': 1}), 'files has other names'),
    'a size as text': (fields(files=dict.fromkeys(EARLIER, '10')), "model.ckpt-8.data-00000-of-00001 is '10'"),
}


@pytest.mark.parametrize('change, fault', MANIFESTS.values(), ids=MANIFESTS)
def test_a_bad_manifest_is_passed_over(folder, capsys, change, fault):
    edited(folder, change)
    before = content(folder)
    assert last_state(folder)['step'] == 7 and capsys.readouterr().out == ''
    assert start(folder) == 7
    (line,) = capsys.readouterr().out.splitlines()
    assert 'checkpoints: model.ckpt-7 is used, and newer ones are passed over: model.ckpt-8 (state-8.json: ' in line
    assert fault in line
    assert content(folder) == before
    assert latest_checkpoint(folder) == path_of(folder, 'model.ckpt-7')


def test_a_manifest_of_the_version_before_has_no_checksums(folder, capsys):
    def as_before(manifest):
        del manifest['checksum']
        manifest['files'] = EARLIER if manifest['step'] == 8 else manifest['files']

    edited(folder, as_before)
    assert start(folder) == 8 and capsys.readouterr().out == ''
    for change in (fields(step=7), fields(seed=8), fields(ranks='1'), fields(more=1)):
        edited(folder, change)
        assert start(folder) == 7


FILES = {
    'no manifest': ('state-8.json', REMOVED, 'state-8.json is missing'),
    'an empty manifest': ('state-8.json', '', 'state-8.json: not JSON: the file is empty'),
    'a manifest that is not UTF-8': ('state-8.json', b'\xff', 'state-8.json: not UTF-8 text: byte 0 of the file'),
    'a key given twice': ('state-8.json', '{"step": 8, "step": 8}', "field 'step' is given twice"),
    'deep nesting': ('state-8.json', '[' * 100000, 'nested too deeply'),
    'a long number': ('state-8.json', '9' * 5000, 'state-8.json: '),
    'no index': ('model.ckpt-8.index', REMOVED, 'model.ckpt-8.index is missing'),
    'no data': ('model.ckpt-8.data-00000-of-00001', REMOVED, 'model.ckpt-8.data-00000-of-00001 is missing'),
    'short data': ('model.ckpt-8.data-00000-of-00001', '8' * 9, 'has 9 bytes, not 10'),
    'data of another step': ('model.ckpt-8.data-00000-of-00001', '7' * 10, 'has another content than was saved'),
    'an index of another step': ('model.ckpt-8.index', '7' * 10, 'has another content than was saved'),
}


@pytest.mark.parametrize('name, text, fault', FILES.values(), ids=FILES)
def test_a_checkpoint_with_a_bad_file_is_passed_over(folder, capsys, name, text, fault):
    write(path_of(folder, name), text)
    before = content(folder)
    assert start(folder) == 7
    (line,) = capsys.readouterr().out.splitlines()
    assert fault in line
    assert content(folder) == before


def test_a_manifest_that_is_no_file(folder):
    os.unlink(path_of(folder, 'state-8.json'))
    os.mkfifo(path_of(folder, 'state-8.json'))  # reading it would wait for ever
    assert start(folder) == 7
    os.unlink(path_of(folder, 'state-8.json'))
    os.symlink('/dev/zero', path_of(folder, 'state-8.json'))
    assert start(folder) == 7


def test_if_no_checkpoint_is_whole_the_run_is_refused_and_nothing_is_touched(folder, capsys):
    for step in (6, 7, 8):
        edited(folder, fields(step=-5), step)
    before = content(folder)
    for attempt in (last_state, recover):
        with pytest.raises(UserError) as error:
            attempt(folder)
        line = str(error.value)
        assert 'model.ckpt-8 (state-8.json: step is -5), model.ckpt-7 (' in line and '--resume=overwrite' in line
        assert content(folder) == before


@pytest.mark.parametrize('left', ['checkpoint', 'model.ckpt-7.index', 'state-6.json', 'model.ckpt.index'])
def test_leftovers_of_checkpoints_are_no_new_run(folder, left):
    for name in os.listdir(path_of(folder, '')):
        if name != left:
            os.unlink(path_of(folder, name))
    write(path_of(folder, left), 'x')
    with pytest.raises(UserError, match='no run can resume from these checkpoints'):
        recover(folder)
    assert os.listdir(path_of(folder, '')) == [left]


def test_the_last_whole_checkpoints_are_kept_beside_bad_ones(folder):
    edited(folder, fields(step=-5))
    assert start(folder) == 7
    save(folder, 9)
    steps = {int(name.split('.')[0].split('-')[1]) for name in content(folder) if name.startswith('state-')}
    assert steps == {6, 7, 8, 9} and last_state(folder)['step'] == 9
    save(folder, 10)
    save(folder, 11)
    assert sorted(name for name in content(folder) if name.startswith('state-')) == [
        f'state-{step}.json' for step in (10, 11, 9)
    ]


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(),
    lambda children: some.lists(children) | some.dictionaries(some.text() | some.sampled_from(list(STATE)), children),
    max_leaves=10,
)


def used_with(folder, name, data):
    """Return the state with which a run resumes if a file has other bytes; put the file back."""
    path = path_of(folder, name)
    with open(path, 'rb') as file:
        before = file.read()
    write(path, data)
    try:
        return last_state(folder)
    finally:
        write(path, before)


@settings(deadline=None, derandomize=True, database=None)
@given(values=some.dictionaries(some.sampled_from(['step', 'files', 'checksum', 'kl_coef', *STATE]), JSON) | JSON)
def test_any_json_in_place_of_a_manifest(saved, values):
    assert used_with(saved, 'state-8.json', json.dumps(values).encode())['step'] == 7


@settings(deadline=None, derandomize=True, database=None)
@given(values=some.dictionaries(some.sampled_from(['step', 'files', 'checksum', 'kl_coef', *STATE]), JSON, min_size=1))
def test_any_json_in_place_of_a_field(saved, values):
    whole = last_state(saved)
    used = used_with(saved, 'state-8.json', json.dumps({**whole, **values}).encode())
    assert used['step'] == 7 or used == whole


@settings(deadline=None, derandomize=True, database=None, max_examples=300)
@given(
    name=some.sampled_from(['state-8.json', 'model.ckpt-8.index', 'model.ckpt-8.data-00000-of-00001']),
    place=some.floats(0, 1, exclude_max=True),
    byte=some.integers(1, 255),
)
def test_any_byte_flipped(saved, name, place, byte):
    whole = last_state(saved)
    with open(path_of(saved, name), 'rb') as file:
        data = bytearray(file.read())
    data[int(place * len(data))] ^= byte
    used = used_with(saved, name, bytes(data))
    assert used['step'] == 7 or used == whole and name == 'state-8.json'  # one space for another in the JSON
