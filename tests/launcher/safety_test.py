"""Safety: no input is executed, files are written only where they should be, and other users cannot change them."""

import ast
import glob
import gzip
import importlib.util
import io
import os
import stat
import subprocess
import sys
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from refusals import EXPERIMENT, Case, arguments, assert_line, good_labels, refusal, write_files
from repository import LAUNCH, ROOT

from lm_human_preferences import experiments
from lm_human_preferences.demo import snippets
from lm_human_preferences.experiments.definitions import parse
from lm_human_preferences.launcher import save_dirs
from lm_human_preferences.utils.files import write_json, written_whole

MODULES = {
    'pickle',
    'cPickle',
    'dill',
    'cloudpickle',
    'joblib',
    'marshal',
    'shelve',
    'multiprocessing',
    'xml',
    'commands',
}
FUNCTIONS = {'eval', 'exec', 'compile', '__import__', 'execfile'}
METHODS = {
    'os': {'system', 'popen', 'spawnl', 'spawnv', 'execl', 'execv', 'startfile', 'tempnam', 'tmpnam'},
    'subprocess': {'getoutput', 'getstatusoutput'},
    'tempfile': {'mktemp'},
    'yaml': {'load', 'unsafe_load', 'full_load'},
    'shutil': {'unpack_archive'},
    'tf': {'py_function'},
}
ANY_OBJECT = {
    *('extractall', 'extract'),  # of archives: the archive chooses the names of the files
    *('import_meta_graph', 'import_graph_def'),  # a graph can read and write files
    *('bcast', 'send', 'recv', 'isend', 'irecv', 'gather', 'allgather', 'scatter', 'allreduce', 'reduce', 'alltoall'),
}  # the last line: mpi4py's methods for objects, which use pickle; its methods for buffers begin with capitals

TENSORS = ('functools', 'horovod', 'np', 'tf')  # their functions with these names work on arrays


def sources():
    files = glob.glob(os.path.join(ROOT, 'lm_human_preferences', '**', '*.py'), recursive=True)
    files += [LAUNCH, *glob.glob(os.path.join(ROOT, 'tools', '*.py'))]
    return [os.path.relpath(file, ROOT) for file in files]


def dangers(text):
    """Yield the calls and imports of a source that could execute input, or write files in wrong places."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or '']
            yield from (name for name in names if name.split('.')[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in FUNCTIONS:
            yield function.id
        if isinstance(function, ast.Attribute):
            owner = function.value.id if isinstance(function.value, ast.Name) else None
            if function.attr in METHODS.get(owner, ()) or (function.attr in ANY_OBJECT and owner not in TENSORS):
                yield f'{owner or "…"}.{function.attr}'
        for keyword in node.keywords:
            value = keyword.value
            constant = getattr(value, 'value', getattr(value, 's', getattr(value, 'n', None)))
            if keyword.arg in ('shell', 'allow_pickle') and constant is not False:
                yield keyword.arg
            if keyword.arg == 'typ' and constant != 'safe':  # of ruamel.yaml
                yield 'typ'
        modes = [getattr(argument, 'n', getattr(argument, 'value', 0)) for argument in node.args]
        if isinstance(function, ast.Attribute) and function.attr in (
            'chmod',
            'fchmod',
        ):  # other calls respect the umask
            yield from (oct(mode) for mode in modes if type(mode) is int and mode & 0o002)


@pytest.mark.parametrize('source', sources())
def test_no_source_runs_what_it_reads(source):
    with open(os.path.join(ROOT, source), encoding='utf-8') as file:
        assert list(dangers(file.read())) == []


@pytest.mark.parametrize(
    'text, danger',
    [
        ('import pickle', 'pickle'),
        ('from multiprocessing import Pool', 'multiprocessing'),
        ('eval(x)', 'eval'),
        ('import os\nos.system("ls")', 'os.system'),
        ('subprocess.run("ls", shell=True)', 'shell'),
        ('np.load(path, allow_pickle=True)', 'allow_pickle'),
        ('YAML(typ="unsafe")', 'typ'),
        ('self._comm.bcast(x)', '….bcast'),
        ('archive.extractall()', 'archive.extractall'),
        ('tf.train.import_meta_graph(path)', '….import_meta_graph'),
        ('os.chmod(path, 0o666)', '0o666'),
        ('tempfile.mktemp()', 'tempfile.mktemp'),
    ],
)
def test_the_walk_sees_dangers(text, danger):
    assert list(dangers(text)) == [danger]
    assert list(dangers('self._comm.Bcast(x); YAML(typ="safe"); os.makedirs(path, exist_ok=True); open(path)')) == []


# Where runs write


@pytest.mark.parametrize(
    'name',
    [
        '..',
        '../x',
        '/x',
        './x',
        'a/../../x',
        'a//x',
        'a/',
        'a/.',
        '~',
        '~root',
        'a\\..\\x',
        'a b',
        'a\n',
        '$HOME',
        'é',
        '',
    ],
)
def test_names_stay_inside_save_dir(name, tmp_path, capsys):
    line = refusal(capsys, ['train_reward', 'demo', name, f'--save_dir={tmp_path}'])
    assert line.startswith('NAME ') and os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize('name', ['link', 'link/x', 'group/link', 'group/link/x'])
def test_links_do_not_lead_out_of_save_dir(name, tmp_path, capsys):
    save, outside = tmp_path / 'save', tmp_path / 'outside'
    (save / 'group').mkdir(parents=True)
    outside.mkdir()
    for link in (save / 'link', save / 'group' / 'link'):
        link.symlink_to(outside)
    line = refusal(capsys, ['train_reward', 'demo', name, f'--save_dir={save}'])
    end = '/x' if name.endswith('/x') else ''
    assert_line(line, f'{save}/{name} is a link out of --save_dir, to {outside}{end}: give another NAME or --save_dir')
    assert os.listdir(str(outside)) == []


def test_links_inside_save_dir_and_to_it_are_the_users(tmp_path):
    (tmp_path / 'real' / 'a').mkdir(parents=True)
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    (tmp_path / 'real' / 'b').symlink_to('a')
    save_dirs.check_run_folder(f'{tmp_path}/link/a', f'{tmp_path}/link')
    save_dirs.check_run_folder(f'{tmp_path}/link/b/new', f'{tmp_path}/link')


@settings(deadline=None, derandomize=True, database=None)
@given(values=some.lists(some.text(max_size=40) | some.floats() | some.none(), min_size=1, max_size=3))
def test_sweeps_stay_inside_save_dir(values):
    sections = {'train_lm': {'dataset': 'test', 'sweep': {'dataset': list(map(str, values))}}}
    try:
        trials = experiments.Experiment('mine', parse('mine', sections)).trials('train_lm', {})
    except ValueError:  # such as a zero byte in the text
        return
    names = [trial.descriptor for trial in trials]
    assert len({name.lower() for name in names}) == len(values)
    assert all(name.startswith('dataset') and not set(name) & set('/\0\n ~') and len(name) < 150 for name in names)


@pytest.fixture
def default(tmp_path, monkeypatch):
    """Move the default folder of runs from /tmp into the test's folder, and return it."""
    folder = tmp_path / 'save'
    monkeypatch.setattr(save_dirs, 'DEFAULT_SAVE_DIR', str(folder))
    return folder


def check_default(folder):
    save_dirs.check_run_folder(f'{folder}/train_lm/x', f'{folder}/train_lm')


def test_the_default_folder_is_ours_alone(default, tmp_path):
    check_default(default)  # it does not exist yet
    (default / 'train_lm' / 'x').mkdir(parents=True)
    check_default(default)
    for folder in (default, default / 'train_lm', default / 'train_lm' / 'x'):
        folder.chmod(0o777)
        with pytest.raises(ValueError, match=f'{folder} can be changed by every user: chmod o-w {folder}, or give'):
            check_default(default)
        folder.chmod(0o755)
    save_dirs.check_run_folder(str(tmp_path / 'other'), str(tmp_path))  # the user's choice


def test_the_default_folder_is_no_link(default, tmp_path):
    (tmp_path / 'theirs').mkdir()
    default.symlink_to(tmp_path / 'theirs')
    with pytest.raises(ValueError, match=f'{default} belongs to another user or is a link: give a folder of your own'):
        check_default(default)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can give a folder away')
def test_the_default_folder_is_not_anothers(default):
    (default / 'train_lm').mkdir(parents=True)
    os.chown(str(default), 65534, 65534)
    with pytest.raises(ValueError, match=f'{default} belongs to another user'):
        check_default(default)


# Who can read and write


def modes(folder):
    """Return the permissions of all files and folders in a folder, by path."""
    paths = [os.path.join(place, name) for place, folders, files in os.walk(str(folder)) for name in folders + files]
    return {path: stat.S_IMODE(os.lstat(path).st_mode) for path in paths if not os.path.islink(path)}


needs_mpi = pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')


@pytest.mark.parametrize(
    'ranks',
    [1, pytest.param(2, marks=[pytest.mark.slow, needs_mpi])],
)
def test_files_of_a_run_are_not_open_to_everybody(ranks, tmp_path):
    """This holds even with umask 0. Temporary files are in a folder that only the user can enter, and are removed."""
    folder, temporary = str(tmp_path), tmp_path / 'temporary'
    temporary.mkdir()
    write_files(folder, {'tiny.yaml': EXPERIMENT, 'labels.json': good_labels()})
    argv = [word for word in arguments(Case('', ''), folder) if word != '--mpi=1']
    process = subprocess.Popen(
        [sys.executable, LAUNCH, *argv, f'--mpi={ranks}'],
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='', TMPDIR=str(temporary)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.umask(0),
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    made = modes(tmp_path / 'save')
    assert any(path.endswith('.index') for path in made) and any('hparams.json' in path for path in made)
    assert {path: oct(mode) for path, mode in made.items() if mode & stat.S_IWOTH} == {}
    assert os.listdir(str(temporary)) == []


def test_partial_files_are_private(tmp_path):
    mask = os.umask(0)
    try:
        with written_whole(str(tmp_path / 'file')) as file:
            (mode,) = modes(tmp_path).values()
            assert mode == 0o600
            file.write('secret')
        save_dirs.forbid_world_writable_files()
        write_json(str(tmp_path / 'file'), {})
        assert modes(tmp_path) == {str(tmp_path / 'file'): 0o664}
    finally:
        os.umask(mask)


# Archives


def archive(*members):
    """Return a gzipped archive with the members (name, content or TarInfo)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def special(kind, target='', size=0):
    info = tarfile.TarInfo()
    info.type, info.linkname, info.size = kind, target, size
    return info


RATINGS = {name: b'1\t2.5\ta good film %d\n' % i for i, name in enumerate(snippets.FILES.values())}
INNER = archive(*[(f'deep/{name}', content) for name, content in RATINGS.items()])


def bomb(size):
    """Return an archive with only the header of a huge member: reading the member would exhaust the memory."""
    header = special(tarfile.REGTYPE, size=size)
    header.name = snippets.INNER_ARCHIVE
    return gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b'\0' * 1024)


@pytest.mark.parametrize(
    'content, fault',
    [
        (archive((snippets.INNER_ARCHIVE, special(tarfile.SYMTYPE, '/etc/passwd'))), 'is no file of at most'),
        (archive((snippets.INNER_ARCHIVE, special(tarfile.LNKTYPE, '../../etc/passwd'))), 'is no file of at most'),
        (archive((snippets.INNER_ARCHIVE, special(tarfile.DIRTYPE))), 'is no file of at most'),
        (archive((snippets.INNER_ARCHIVE, special(tarfile.FIFOTYPE))), 'is no file of at most'),
        (archive((snippets.INNER_ARCHIVE, special(tarfile.CHRTYPE))), 'is no file of at most'),
        (bomb(1 << 40), 'is no file of at most'),
        (bomb(1 << 20), 'not an archive that can be read'),  # the archive ends inside the member
        (archive(('x', b'')), 'is not in it'),
        (archive((snippets.INNER_ARCHIVE, b'no archive')), 'not an archive that can be read'),
        (archive((snippets.INNER_ARCHIVE, archive(('x', b'')))), 'movieReviewSnippets_GroundTruth.txt is not in it'),
        (archive((snippets.INNER_ARCHIVE, INNER))[:200], 'not an archive that can be read'),
        (b'no archive', 'not an archive that can be read'),
        (b'', 'not an archive that can be read'),
    ],
)
def test_hostile_archives_are_refused(content, fault, cache, tmp_path):
    with pytest.raises(ValueError, match=f'{snippets.ARCHIVE}: .*{fault}') as caught:
        cache(content)
    assert '\n' not in str(caught.value)
    assert os.listdir(str(tmp_path)) == ['inside'], 'something was written'


@pytest.mark.parametrize('prefix', ['', '/', '/tmp/', '../', '../../../', 'deep/../../', './'])
def test_archives_write_nothing(prefix, cache, tmp_path):
    """Members are read in memory, whatever their names are."""
    inner = archive(*[(prefix + name, content) for name, content in RATINGS.items()])
    outer = archive(
        (prefix + 'evil', b'x'),
        ('link', special(tarfile.SYMTYPE, '..')),
        ('link/evil', b'x'),
        (snippets.INNER_ARCHIVE, inner),
    )
    assert sorted(snippet.text for snippet in cache(outer)) == [f'a good film {i}' for i in range(4)]
    assert os.listdir(str(tmp_path)) == ['inside']
    assert sorted(modes(tmp_path / 'inside')) == [
        f'{tmp_path}/inside/demo',
        f'{tmp_path}/inside/demo/{snippets.ARCHIVE}',
    ]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return a function that reads an archive from the cache folder `inside`, in place of the published archive."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'inside'))
    monkeypatch.chdir(tmp_path)

    def read(content):
        import hashlib

        monkeypatch.setattr(snippets, 'ARCHIVE_SHA256', hashlib.sha256(content).hexdigest())
        path = tmp_path / 'inside' / 'demo' / snippets.ARCHIVE
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        snippets.load_snippets.cache_clear()
        return snippets.load_snippets()

    yield read
    snippets.load_snippets.cache_clear()
