"""Model folders, vocabularies and runs that are broken or do not fit: one line that names file and field."""

import json
import os
import shutil

import numpy as np
import pytest
from refusals import EXPERIMENT, FOLDER, Case, arguments, assert_line, check, refusal, table, write_files
from small_models import ENCODER, SIZES, save_model

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import find_model

MODEL = ['--task.policy.initial_model=DIR/model', '--labels.source=test']
HPARAMS = 'DIR/model/hparams.json'
CHECKPOINT = 'DIR/model/checkpoints/model.ckpt-1'


@pytest.fixture(scope='session')
def good_models(tmp_path_factory):
    """A folder with a language model and a reward model that can be trained on."""
    folder = tmp_path_factory.mktemp('models')
    save_model(str(folder / 'model'))
    save_model(str(folder / 'reward' / 'reward_model'), ['reward_model/'], ['reward'])
    return str(folder)


def with_sizes(**changes):
    return {'model/hparams.json': {**SIZES, **changes}}


def hparams_case(name, expected, content, flags=()):
    return Case(name, f'{HPARAMS}{expected}', {'model/hparams.json': content}, [*MODEL, *flags])


def vocabulary_case(name, expected, **files):
    files = {'model/' + key.replace('__', '.'): content for key, content in files.items()}
    return Case(name, f'DIR/model/{expected}', files, MODEL)


@table(
    Case('no_folder', 'no model at DIR/none: …hparams.json…', flags=['--task.policy.initial_model=DIR/none']),
    Case('a_folder_without_model', 'no model at DIR: …', flags=['--task.policy.initial_model=DIR']),
    Case('hparams_are_a_folder', 'DIR/model/hparams.json: Is a directory', {'model/hparams.json': FOLDER}, MODEL),
    hparams_case('not_json', ': not JSON: …', '{"n_vocab": 28'),
    hparams_case('empty', ': not JSON: the file is empty', ''),
    hparams_case('not_utf8', ': not UTF-8 text: byte 2 of the file', b'{"\xff": 1}'),
    hparams_case('a_list', ' should hold a JSON object, not list', '[28]'),
    hparams_case('unknown_field', ': no hyperparameter n_heads: did you mean n_head?', dict(SIZES, n_heads=2)),
    hparams_case('a_field_twice', ": field 'n_head' is given twice", json.dumps(SIZES)[:-1] + ', "n_head": 3}'),
    hparams_case('nested', ': no hyperparameter model: did you mean …?', {'model': SIZES}),
    hparams_case('no_n_embd', ': n_embd is not set: the file must give it (int)', dict(n_vocab=28, n_ctx=8)),
    hparams_case('no_n_layer', ': n_layer is not set…', {name: SIZES[name] for name in SIZES if name != 'n_layer'}),
    hparams_case('no_n_head', ': n_head is not set…', {name: SIZES[name] for name in SIZES if name != 'n_head'}),
    hparams_case('text_for_int', ": n_embd should be int, not str ('6')", dict(SIZES, n_embd='6')),
    hparams_case('float_for_int', ': n_embd should be int, not float (6.0)', dict(SIZES, n_embd=6.0)),
    hparams_case('null_for_int', ': n_embd is not set…', dict(SIZES, n_embd=None)),
    hparams_case('zero_layers', ': n_layer must be above 0, not 0', dict(SIZES, n_layer=0)),
    hparams_case('negative_n_ctx', ': n_ctx must be above 0, not -8', dict(SIZES, n_ctx=-8)),
    hparams_case('layers_beyond_sense', ': n_layer must be at most 1000, not 100000', dict(SIZES, n_layer=10**5)),
    hparams_case('n_vocab_beyond_int64', ': n_vocab is too large: 1000…', dict(SIZES, n_vocab=10**30)),
    hparams_case(
        'heads_do_not_divide',
        ': n_embd (6) must be a multiple of n_head (4): the nearest are 4 and 8',
        dict(SIZES, n_head=4),
    ),
    hparams_case(
        'dropout_above_one', ': attn_pdrop must be 0 or above and below 1, not 1.5', dict(SIZES, attn_pdrop=1.5)
    ),
    hparams_case('dropout_nan', ': attn_pdrop is not a number', dict(SIZES, attn_pdrop=float('nan'))),
    hparams_case(
        'other_n_vocab', ': n_vocab is 29, but the vocabulary of the model has 28 tokens', dict(SIZES, n_vocab=29)
    ),
)
def test_hparams(case, good_models, tmp_path, capsys):
    if case.files.get('model/hparams.json') is not FOLDER and case.files:
        shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    check(case, tmp_path, capsys)


@table(
    vocabulary_case('encoder_not_json', 'encoder.json: not JSON: …', encoder__json='{"a": 0,'),
    vocabulary_case(
        'encoder_not_utf8', 'encoder.json: not UTF-8 text: byte 2 of the file', encoder__json=b'{"\xff": 0}'
    ),
    vocabulary_case(
        'encoder_a_list',
        "encoder.json: should hold an object of symbols and their ids, not ['a', 'b']",
        encoder__json=['a', 'b'],
    ),
    vocabulary_case(
        'encoder_empty', 'encoder.json: should hold an object of symbols and their ids, not {}', encoder__json={}
    ),
    vocabulary_case('symbol_twice', "encoder.json: field 'a' is given twice", encoder__json='{"a": 0, "a": 1}'),
    vocabulary_case('id_twice', "encoder.json: 'b' and 'ab' have the same id 1", encoder__json=dict(ENCODER, ab=1)),
    vocabulary_case(
        'id_beyond',
        "encoder.json: the id of 'ab' should be an integer from 0 to 27, as there are 28 entries, not 28",
        encoder__json=dict(ENCODER, ab=28),
    ),
    vocabulary_case(
        'id_negative',
        "encoder.json: the id of 'a' should be an integer from 0 to 27, as there are 28 entries, not -1",
        encoder__json=dict(ENCODER, a=-1),
    ),
    vocabulary_case(
        'id_text',
        "encoder.json: the id of 'a' should be an integer from 0 to 27, as there are 28 entries, not '0'",
        encoder__json=dict(ENCODER, a='0'),
    ),
    vocabulary_case(
        'id_float',
        "encoder.json: the id of 'a' should be an integer from 0 to 27, as there are 28 entries, not 0.0",
        encoder__json=dict(ENCODER, a=0.0),
    ),
    vocabulary_case(
        'id_false',
        "encoder.json: the id of 'a' should be an integer from 0 to 27, as there are 28 entries, not False",
        encoder__json=dict(ENCODER, a=False),
    ),
    vocabulary_case(
        'id_null',
        "encoder.json: the id of 'a' should be an integer from 0 to 27, as there are 28 entries, not None",
        encoder__json=dict(ENCODER, a=None),
    ),
    vocabulary_case(
        'merge_of_one',
        "vocab.bpe: line 2: 'ab' is not two symbols with a space between",
        vocab__bpe='#version: 0.2\nab\n',
    ),
    vocabulary_case(
        'merge_of_three',
        "vocab.bpe: line 3: 'a b c' is not two symbols with a space between",
        vocab__bpe='#version: 0.2\na b\na b c\n',
    ),
    vocabulary_case(
        'merge_of_nothing', "vocab.bpe: line 1: ' ' is not two symbols with a space between", vocab__bpe=' \n'
    ),
    vocabulary_case(
        'merge_of_unknown', "vocab.bpe: line 2: the merge 'x y' is not in encoder.json", vocab__bpe='a b\nx y\n'
    ),
    vocabulary_case('merges_not_utf8', 'vocab.bpe: line 1: not UTF-8 text: byte 2 of the line', vocab__bpe=b'a \xff\n'),
    vocabulary_case(
        'encoding_unknown', 'encoding: unknown encoding \'gpt3\': must be "main", "own" or "test"', encoding='"gpt3"'
    ),
    vocabulary_case('encoding_a_number', 'encoding: unknown encoding 3: must be "main", "own" or "test"', encoding='3'),
    vocabulary_case('encoding_not_json', 'encoding: not JSON: …', encoding='own'),
    vocabulary_case(
        'of_another_size',
        'hparams.json: n_vocab is 28, but the vocabulary of the model has 27 tokens',
        encoding='"test"',
    ),
)
def test_vocabularies(case, good_models, tmp_path, capsys):
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    check(case, tmp_path, capsys)


def test_a_vocabulary_that_is_missing(good_models, tmp_path, capsys):
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    os.unlink(str(tmp_path / 'model' / 'vocab.bpe'))
    check(Case('', 'DIR/model: …vocab.bpe is missing beside DIR/model/encoding', {}, MODEL), tmp_path, capsys)
    os.unlink(str(tmp_path / 'model' / 'encoding'))
    check(Case('', 'DIR/model: no encoding: neither …', {}, MODEL), tmp_path, capsys)


@table(
    Case(
        'n_ctx',
        f'{CHECKPOINT}: model/wpe has shape [8, 6], but hparams.json asks for [9, 6]',
        with_sizes(n_ctx=9),
        MODEL,
    ),
    Case(
        'n_embd',
        f'{CHECKPOINT}: model/wpe has shape [8, 6], but hparams.json asks for [8, 4]',
        with_sizes(n_embd=4),
        MODEL,
    ),
    Case('more_layers', f'{CHECKPOINT}: the checkpoint has no variable model/h1/ln_1/g', with_sizes(n_layer=2), MODEL),
    Case(
        'no_reward_head',
        f'{CHECKPOINT}: the checkpoint has no variable model/heads/reward/w',
        {},
        [*MODEL[:1], '--rewards.train_new_model=off', '--rewards.trained_model=DIR/model'],
        'train_policy',
    ),
)
def test_checkpoints_of_other_models(case, good_models, tmp_path, capsys):
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    check(case, tmp_path, capsys)


def test_a_checkpoint_with_more_layers(tmp_path, capsys):
    save_model(str(tmp_path / 'model'), sizes=dict(SIZES, n_layer=2))
    expected = f'{CHECKPOINT}: the checkpoint has a layer model/h1/, but n_layer is 1'
    check(Case('', expected, with_sizes(), MODEL), tmp_path, capsys)


def test_a_model_that_is_not_finite(tmp_path, capsys):
    """The model is named, not the learning rate."""
    save_model(str(tmp_path / 'model'), finite=False)
    expected = f'{CHECKPOINT}: model/ln_f/g has a value that is not finite: the model in this checkpoint is broken'
    check(Case('', expected, {}, MODEL), tmp_path, capsys)
    assert_line(refusal(capsys, ['convert', f'{tmp_path}/model', f'{tmp_path}/out']), expected, str(tmp_path))


@pytest.mark.parametrize('dtype', [tf.float16, tf.bfloat16])
def test_a_model_in_half_precision(dtype, good_models, tmp_path):
    """It is read as float32, and trains as the model of these rounded values in float32 does."""
    folder = str(tmp_path / 'half')
    shutil.copytree(f'{good_models}/model', folder)
    values = find_model(folder).arrays()
    save_checkpoint(folder, values, dtype)
    found = find_model(folder)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        rounded = session.run({name: tf.cast(tf.cast(value, dtype), tf.float32) for name, value in values.items()})
        model = Model(found.hparams, scope='model')
        found.load(session, model)
        loaded = session.run({f'model/{name}': variable for name, variable in model.variables.items()})
    arrays = found.arrays()
    assert 0 < max(np.abs(rounded[name] - values[name]).max() for name in values) < 0.002
    for name, value in rounded.items():
        assert arrays[name].dtype == np.float32 and (arrays[name] == value).all()
        assert loaded[name].dtype == np.float32 and (loaded[name] == value).all()


def save_checkpoint(folder, values, dtype):
    """Save a checkpoint of one model folder anew, with the variables in another type."""
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        variables = [tf.Variable(tf.cast(value, dtype), name=name) for name, value in values.items()]
        session.run(tf.global_variables_initializer())
        shutil.rmtree(f'{folder}/checkpoints')
        os.makedirs(f'{folder}/checkpoints')
        tf.train.Saver(variables, save_relative_paths=True).save(
            session, f'{folder}/checkpoints/model.ckpt-1', write_meta_graph=False
        )


def cut(path, size):
    with open(path, 'r+b') as file:
        file.truncate(size)


def overwrite(path, content):
    with open(path, 'r+b') as file:
        file.seek(40)
        file.write(content)


DATA, INDEX = 'model.ckpt-1.data-00000-of-00001', 'model.ckpt-1.index'
DAMAGED = f'{CHECKPOINT}: the checkpoint is damaged or incomplete: …'
NONE = 'DIR/model: no TensorFlow checkpoint there'
INCOMPLETE = f'{NONE}: a file of model.ckpt-1 is missing or cut off'


@pytest.mark.parametrize(
    'name, change, expected, without_sizes',
    [
        (DATA, os.unlink, INCOMPLETE, INCOMPLETE),
        (INDEX, os.unlink, INCOMPLETE, INCOMPLETE),
        (DATA, lambda path: cut(path, 100), INCOMPLETE, DAMAGED),
        (INDEX, lambda path: cut(path, 100), INCOMPLETE, DAMAGED),
        (INDEX, lambda path: cut(path, 0), INCOMPLETE, DAMAGED),
        (INDEX, lambda path: overwrite(path, b'\xff' * 20), DAMAGED, DAMAGED),
        (DATA, lambda path: overwrite(path, b'\xff' * 4), DAMAGED, DAMAGED),
    ],
)
def test_damaged_checkpoints(name, change, expected, without_sizes, good_models, tmp_path, capsys):
    """With a file of the sizes beside the checkpoint, as our runs save it, and without."""
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    folder = tmp_path / 'model' / 'checkpoints'
    change(str(folder / name))
    convert = ['convert', f'{tmp_path}/model', f'{tmp_path}/out']  # reads all variables without a graph
    assert_line(refusal(capsys, convert), expected, str(tmp_path))
    os.unlink(str(folder / 'state-1.json'))
    assert_line(refusal(capsys, convert), without_sizes, str(tmp_path))


@pytest.mark.parametrize('change', [os.unlink, lambda path: overwrite(path, b'\xff' * 4), lambda path: cut(path, 0)])
@pytest.mark.parametrize('has_state', [True, False])
def test_a_model_whose_last_checkpoint_is_not_named(change, has_state, good_models, tmp_path):
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    change(str(tmp_path / 'model' / 'checkpoints' / 'checkpoint'))
    if not has_state:
        os.unlink(str(tmp_path / 'model' / 'checkpoints' / 'state-1.json'))
    found, good = find_model(str(tmp_path / 'model')).arrays(), find_model(f'{good_models}/model').arrays()
    assert list(found) == list(good) and all((found[name] == good[name]).all() for name in good)


def test_a_damaged_checkpoint_is_not_trained_on(good_models, tmp_path, capsys):
    shutil.copytree(f'{good_models}/model', str(tmp_path / 'model'))
    os.unlink(str(tmp_path / 'model' / 'checkpoints' / 'state-1.json'))
    cut(str(tmp_path / 'model' / 'checkpoints' / DATA), 100)
    check(Case('', DAMAGED, {}, MODEL), tmp_path, capsys)


# The experiment has the size of a new model.
START_FROM_MODEL = ['--initial_model=DIR/model', *(f'--model.{name}={size}' for name, size in SIZES.items())]
LM = '--task.policy.initial_model=DIR/model'
POLICY = [LM, '--rewards.train_new_model=off', '--rewards.trained_model=DIR/reward']


@table(
    Case(
        'context_beyond_n_ctx',
        'a context of 2 tokens and a response of 7 are 9, but the model of task.policy.initial_model reads at most 8 '
        '(n_ctx): lower task.query_length or task.response_length',
        flags=['--task.response_length=7'],
    ),
    Case(
        'prefix_beyond_n_ctx',
        'a context of 6 tokens and a response of 3 are 9, but …',
        flags=['--task.query_prefix=abcd'],
    ),
    Case('lengths_beyond_memory', 'a context of 1099511627776 tokens and …', flags=[f'--task.query_length={2**40}']),
    Case(
        'truncate_token_not_in_vocabulary',
        'task.truncate_token 198 is no token of the vocabulary of 27',
        flags=['--task.truncate_token=198'],
    ),
    Case('prefix_not_in_vocabulary', "the vocabulary 'test' cannot encode 'é'", flags=['--task.query_prefix=é']),
    Case(
        'reward_model_beyond_n_ctx',
        'a context of 2 tokens and a response of 3 are 5, but the model of rewards.trained_model reads at most 4 …',
        {'reward/reward_model/hparams.json': dict(SIZES, n_ctx=4)},
        POLICY,
        'train_policy',
    ),
    Case(
        'other_vocabulary',
        'rewards.trained_model DIR/reward reads another vocabulary than task.policy.initial_model test: use models …',
        flags=['--task.policy.initial_model=test', *POLICY[1:]],
        command='train_policy',
    ),
    Case(
        'order_of_the_vocabulary',
        'rewards.trained_model DIR/reward reads another vocabulary than task.policy.initial_model DIR/model: use …',
        {'reward/reward_model/encoder.json': dict(ENCODER, a=1, b=0)},
        POLICY,
        'train_policy',
    ),
    Case(
        'no_reward_model',
        'no model at DIR/none: …',
        flags=[*POLICY[:2], '--rewards.trained_model=DIR/none'],
        command='train_policy',
    ),
    Case(
        'sequence_beyond_n_ctx',
        'sequence_length 9 exceeds what the model reads: 8',
        {'texts.txt': 'a.\n' * 200},
        [*START_FROM_MODEL, '--sequence_length=9'],
        'train_lm',
    ),
    Case(
        'another_size_than_the_initial_model',
        'model.n_embd is 8, but initial_model DIR/model has n_embd 6: leave out model, which is the size of a new …',
        {'texts.txt': 'a.\n' * 200},
        [*START_FROM_MODEL, '--model.n_embd=8'],
        'train_lm',
    ),
)
def test_models_and_tasks_that_do_not_fit(case, good_models, tmp_path, capsys):
    for name in ('model', 'reward'):
        shutil.copytree(f'{good_models}/{name}', str(tmp_path / name))
    check(case, tmp_path, capsys)


@pytest.mark.parametrize(
    'content, expected',
    [
        ('{"task": ', ': not JSON: …'),
        ('[]', ' should hold a JSON object, not list'),
        ({'task': {'polcy': {}}}, ': no hyperparameter task.polcy: did you mean task.policy?'),
        ({'task': {'query_length': '2'}}, ": task.query_length should be int, not str ('2')"),
        ({'task': 3}, ': task is a group of hyperparameters: it takes on or off, not 3'),
        ({'task': {}}, ': … is not set…'),
    ],
)
def test_samples_of_a_damaged_run(content, expected, tmp_path, capsys):
    write_files(str(tmp_path), {'run/train_policy_hparams.json': content})
    line = refusal(capsys, ['sample', f'--save_dir={tmp_path}/run', '--nsamples=1', '--mpi=1'])
    fix = ': mend this file, or remove it and give the command of this run again, which writes it'
    assert_line(line, f'{tmp_path}/run/train_policy_hparams.json{expected}{fix}')


def test_a_good_model_is_no_bad_input(good_models, tmp_path):
    """The folders that these tests damage can be trained on."""
    from lm_human_preferences.launcher import command_line

    write_files(str(tmp_path), {'tiny.yaml': EXPERIMENT})
    flags = [flag.replace('DIR', good_models) for flag in POLICY]
    case = Case('', '', flags=[*flags, '--ppo.total_episodes=16'], command='train_policy')
    command_line.main(arguments(case, str(tmp_path)))
    assert os.path.exists(str(tmp_path / 'save' / 'run' / 'policy' / 'checkpoints' / 'checkpoint'))
