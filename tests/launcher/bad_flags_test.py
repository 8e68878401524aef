"""Bad hyperparameters, as flags and in an experiment's file: each gives one line that names the field."""

import os

import pytest
from refusals import EXPERIMENT, FOLDER, Case, assert_line, check, refusal, table

NEW = 'rewards.train_new_model'
LONG = '9' * 300


def flag(name, expected, *flags, command='train_policy'):
    return Case(name, expected, flags=flags, command=command)


def lm(name, expected, *flags):
    return flag(name, expected, *flags, command='train_lm')


@table(
    flag('unknown', 'no flag --ppo.lrr: did you mean --ppo.lr?', '--ppo.lrr=1'),
    flag('unknown_group', 'no flag --pppo.lr: did you mean --ppo.lr?', '--pppo.lr=1'),
    flag(
        'unknown_in_new_model',
        f'no flag --{NEW}.lables.num_train: did you mean --{NEW}.labels.num_train?',
        f'--{NEW}.lables.num_train=8',
    ),
    flag('of_another_command', 'no flag --warmup_steps: did you mean …', '--warmup_steps=3'),
    flag('unknown_launch_flag', 'no flag --dryrun: did you mean --dry_run?', '--dryrun'),
    flag('without_value', '--ppo.lr needs a value: --ppo.lr=VALUE', '--ppo.lr'),
    flag('own_save_dir', '--run.save_dir is SAVE_DIR/NAME: give --save_dir and NAME', '--run.save_dir=x'),
    flag('text_for_float', "ppo.lr should be float, not 'fast'", '--ppo.lr=fast'),
    flag('nothing_for_float', "ppo.lr should be float, not ''", '--ppo.lr='),
    flag('nan_for_float', "ppo.lr should be float, not 'nan'", '--ppo.lr=nan'),
    flag('infinite_lr', 'ppo.lr must be 0 or above, not inf', '--ppo.lr=inf'),
    flag('float_beyond_range', 'ppo.lr must be 0 or above, not inf', '--ppo.lr=1e999'),
    flag('minus_infinity', 'rewards.kl_coef must be 0 or above, not -inf', '--rewards.kl_coef=-inf'),
    flag('infinite_cliprange', 'ppo.cliprange must be above 0, not inf', '--ppo.cliprange=inf'),
    flag('infinite_temperature', 'task.policy.temperature must be above 0, not inf', '--task.policy.temperature=inf'),
    flag('float_for_int', "ppo.batch_size should be int, not '16.0'", '--ppo.batch_size=16.0'),
    flag('negative_exponent_for_int', "ppo.total_episodes should be int, not '1e-6'", '--ppo.total_episodes=1e-6'),
    flag('underscores_at_the_end', "ppo.total_episodes should be int, not '1_000_'", '--ppo.total_episodes=1_000_'),
    flag('none_for_int', "ppo.batch_size should be int, not 'None'", '--ppo.batch_size=None'),
    flag('int_of_300_digits', f'ppo.total_episodes is too large: {"9" * 28}…', f'--ppo.total_episodes={LONG}'),
    flag('int_beyond_int64', f'run.log_interval is too large: {2**63}', f'--run.log_interval={2**63}'),
    flag('text_for_bool', "ppo.whiten_rewards should be bool, not 'yes'", '--ppo.whiten_rewards=yes'),
    flag('number_for_bool', "ppo.whiten_rewards should be bool, not '1'", '--ppo.whiten_rewards=1'),
    flag(
        'text_for_group',
        "rewards.adaptive_kl is a group of hyperparameters: it takes on or off, not 'maybe'",
        '--rewards.adaptive_kl=maybe',
    ),
    flag('group_that_cannot_be_off', 'ppo cannot be off: only its fields can be set', '--ppo=off'),
    flag(
        'off_and_a_child',
        'rewards.adaptive_kl is off and rewards.adaptive_kl.target is set: give one of them',
        '--rewards.adaptive_kl=off',
        '--rewards.adaptive_kl.target=6',
    ),
    flag(
        'on_without_target',
        'rewards.adaptive_kl.target is not set: give --rewards.adaptive_kl.target=VALUE (float)',
        '--rewards.adaptive_kl=on',
    ),
    flag(
        'half_a_character',
        "task.query_prefix should be UTF-8 text without zero bytes, not '\\udcff'",
        '--task.query_prefix=\udcff',
    ),
    flag('log_interval_zero', 'run.log_interval must be above 0, not 0', '--run.log_interval=0'),
    flag('save_interval_negative', 'run.save_interval must be 0 or above, not -1', '--run.save_interval=-1'),
    flag('seed_negative', 'run.seed must be between 0 and 2147483647, not -1', '--run.seed=-1'),
    flag('seed_too_large', 'run.seed must be between 0 and 2147483647, not 2147483648', '--run.seed=2147483648'),
    flag('query_length_zero', 'task.query_length must be above 0, not 0', '--task.query_length=0'),
    flag('response_length_negative', 'task.response_length must be above 0, not -3', '--task.response_length=-3'),
    flag('truncate_token_negative', 'task.truncate_token must be 0 or above, not -1', '--task.truncate_token=-1'),
    flag('temperature_zero', 'task.policy.temperature must be above 0, not 0.0', '--task.policy.temperature=0'),
    flag(
        'no_initial_model', "task.policy.initial_model must be a name or path, not ''", '--task.policy.initial_model='
    ),
    flag('no_data_set', "task.query_dataset must be a name or path, not ' '", '--task.query_dataset= '),
    flag('gamma_above_one', 'ppo.gamma must be between 0 and 1, not 1.01', '--ppo.gamma=1.01'),
    flag('lam_negative', 'ppo.lam must be between 0 and 1, not -0.5', '--ppo.lam=-.5'),
    flag('noptepochs_zero', 'ppo.noptepochs must be above 0, not 0', '--ppo.noptepochs=0'),
    flag('total_episodes_zero', 'ppo.total_episodes must be above 0, not 0', '--ppo.total_episodes=0'),
    flag('kl_target_zero', 'rewards.adaptive_kl.target must be above 0, not 0.0', '--rewards.adaptive_kl.target=0'),
    flag(
        'label_type',
        f"{NEW}.labels.type must be best_of_N (N at least 2), scalar_rating or scalar_compare, not 'best_of_1'",
        f'--{NEW}.labels.type=best_of_1',
    ),
    flag('num_train_zero', f'{NEW}.labels.num_train must be above 0, not 0', f'--{NEW}.labels.num_train=0'),
    flag(
        'both_reward_models',
        f'rewards.trained_model and {NEW} are both set: add --{NEW} off to use the trained model',
        '--rewards.trained_model=test',
    ),
    flag(
        'no_reward_model',
        f'neither rewards.trained_model nor {NEW} is set: give --rewards.trained_model=DIR or --{NEW}=on',
        f'--{NEW}=off',
    ),
    flag(
        'tasks_differ', f'{NEW}.task must equal task; they differ in task.query_length', f'--{NEW}.task.query_length=1'
    ),
    flag('mpi_zero', 'mpi must be 1 or more, not 0', '--mpi=0'),
    flag('mode', "mode must be local, not 'cloud'", '--mode=cloud'),
    flag(
        'minibatches',
        'ppo.batch_size (16) must be a multiple of ppo.nminibatches times ranks (3): the nearest are 15 and 18',
        '--ppo.nminibatches=3',
    ),
    flag(
        'ranks',
        'ppo.batch_size (16) must be a multiple of ppo.nminibatches times ranks (3): the nearest are 15 and 18',
        '--mpi=3',
    ),
    flag(
        'small_minibatches',
        'ppo.batch_size must be at least 32, not 16: with ppo.whiten_rewards a minibatch needs 8 episodes',
        '--ppo.nminibatches=4',
    ),
    flag(
        'truncation_beyond_the_response',
        'task.truncate_after (3) must be below task.response_length (3): '
        'otherwise every response gets task.penalty_reward_value',
        '--task.truncate_token=1',
        '--task.truncate_after=3',
    ),
    flag(
        'less_than_a_batch',
        'ppo.total_episodes (15) must be at least ppo.batch_size (16)',
        '--ppo.total_episodes=15',
    ),
    flag(
        'reward_batch',
        'labels.num_train (8) must be a multiple of batch_size (3): the nearest are 6 and 9',
        '--batch_size=3',
        command='train_reward',
    ),
    flag(
        'reward_ranks',
        'batch_size (8) must be a multiple of the number of ranks (3): the nearest are 6 and 9',
        '--mpi=3',
        command='train_reward',
    ),
    flag(
        'normalize_without_samples',
        'normalize_samples must be above 0 with normalize_before or _after',
        '--normalize_after',
        command='train_reward',
    ),
    lm(
        'n_head', 'model.n_embd (8) must be a multiple of model.n_head (3): the nearest are 6 and 9', '--model.n_head=3'
    ),
    lm('sequence_beyond_n_ctx', 'sequence_length (13) must be at most model.n_ctx (12)', '--sequence_length=13'),
    lm('dropout_one', 'dropout must be 0 or above and below 1, not 1.0', '--dropout=1'),
    lm('layers_beyond_sense', 'model.n_layer must be at most 1000, not 1000000000', '--model.n_layer=1000000000'),
    lm('lm_ranks', 'batch_size (2) must be a multiple of the number of ranks (3): the nearest is 3', '--mpi=3'),
)
def test_flags(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


def file(name, expected, old, new, command='train_policy'):
    """Return a case in which `new` replaces `old` in EXPERIMENT."""
    assert EXPERIMENT.count(old) == 1
    return Case(name, 'DIR/tiny.yaml: ' + expected, {'tiny.yaml': EXPERIMENT.replace(old, new)}, command=command)


TOO_MANY = 'more than 20000 values, with its aliases (*name) written out'


def merges(wide, deep):
    """A YAML file whose mappings are merged from `wide` mappings each, over `deep` levels."""
    lines = ['a0: &a0 {seed: 1}']
    lines += [f'a{i}: &a{i} {{<<: [{", ".join([f"*a{i - 1}"] * wide)}]}}' for i in range(1, deep + 1)]
    return '\n'.join([*lines, f'run: *a{deep}']) + '\n'


def whole_file(name, expected, content):
    return Case(name, expected, {'tiny.yaml': content})


PPO = 'ppo: {batch_size: 16, total_episodes: 48}'


@table(
    file(
        'unknown_section',
        "unknown section 'train_polcy': did you mean 'train_policy'?",
        'train_policy:',
        'train_polcy:',
    ),
    file('section_is_a_number', "section 'run' should hold hyperparameters, not 3", '{seed: 1, log_interval: 1}', '3'),
    file('section_is_empty', "section 'run' should hold hyperparameters, not None", '{seed: 1, log_interval: 1}', ''),
    file(
        'section_is_a_list',
        "section 'run' should hold hyperparameters, not ['seed']",
        '{seed: 1, log_interval: 1}',
        '[seed]',
    ),
    file('section_number', 'unknown section 5: did you mean …?', 'train_lm:', '5:'),
    file(
        'unknown_field',
        'train_policy: no hyperparameter ppo.batchsize: did you mean ppo.batch_size?',
        'batch_size: 16',
        'batchsize: 16',
    ),
    file(
        'unknown_shared_field',
        'task: no hyperparameter query_lenght: did you mean query_length?',
        'query_length',
        'query_lenght',
    ),
    file('field_is_a_number', 'train_policy: no hyperparameter ppo.7: did you mean …', 'batch_size: 16', '7: 16'),
    file(
        'wrong_type',
        "train_policy: ppo.batch_size should be int, not str ('many')",
        'batch_size: 16',
        'batch_size: many',
    ),
    file(
        'float_for_int',
        'train_policy: ppo.batch_size should be int, not float (16.0)',
        'batch_size: 16',
        'batch_size: 16.0',
    ),
    file(
        'half_for_int',
        'train_policy: ppo.batch_size should be int, not float (0.016)',
        'batch_size: 16',
        'batch_size: 16e-3',
    ),
    file(
        'bool_for_int',
        'train_policy: ppo.batch_size should be int, not bool (True)',
        'batch_size: 16',
        'batch_size: true',
    ),
    file(
        'list_for_int',
        'train_policy: ppo.batch_size should be int, not list ([16])',
        'batch_size: 16',
        'batch_size: [16]',
    ),
    file(
        'date_for_text',
        'task: query_dataset should be str, not date (…)',
        'query_dataset: test',
        'query_dataset: 2019-09-18',
    ),
    file('nan', 'train_policy: ppo.lr is not a number', 'batch_size: 16', 'lr: .nan'),
    file('infinity', 'ppo.lr must be 0 or above, not inf', 'batch_size: 16', 'lr: .inf'),
    file(
        'int_for_float_beyond_range', 'train_policy: ppo.lr is too large: 9999…', 'batch_size: 16', 'lr: 9' + '9' * 400
    ),
    file(
        'int_beyond_int64',
        'train_policy: ppo.batch_size is too large: 9223372036854775808',
        'batch_size: 16',
        f'batch_size: {2**63}',
    ),
    file(
        'zero_byte',
        "task: query_dataset should be UTF-8 text without zero bytes, not 'te\\x00st'",
        'query_dataset: test',
        r'query_dataset: "te\0st"',
    ),
    file(
        'number_for_group', 'train_policy: ppo is a group of hyperparameters: it takes on or off, not 3', PPO, 'ppo: 3'
    ),
    file('off_for_a_required_group', 'train_policy: ppo cannot be off: only its fields can be set', PPO, 'ppo: off'),
    file('set_twice', 'train_policy: ppo.lr is set twice', PPO, PPO[:-1] + ', lr: 1}\n  ppo.lr: 2'),
    file('key_twice', 'line …: not YAML: found duplicate key "lr" …', 'batch_size: 16', 'lr: 1, lr: 2, batch_size: 16'),
    file('section_twice', 'line …: not YAML: found duplicate key "run" …', 'train_lm:', 'run: {}\ntrain_lm:'),
    file('invalid_value', 'ppo.gamma must be between 0 and 1, not 2.0', 'batch_size: 16', 'gamma: 2'),
    file(
        'value_missing', 'task.query_length is not set: give --task.query_length=VALUE (int)', 'query_length: 2, ', ''
    ),
    file(
        'does_not_divide',
        'ppo.batch_size (16) must be a multiple of ppo.nminibatches times ranks (5): the nearest are 15 and 20',
        'batch_size: 16',
        'batch_size: 16, nminibatches: 5',
    ),
    file(
        'python_tag',
        'line …: not YAML: could not determine a constructor for the tag …',
        '{seed: 1, log_interval: 1}',
        '!!python/object/apply:os.system [id]',
    ),
    file('unknown_alias', 'line …: not YAML: found undefined alias …', '{seed: 1, log_interval: 1}', '*here'),
    file('tab', 'line …: not YAML: found character …', 'run: {', '\trun: {'),
    file('unclosed', 'line …: not YAML: …', '{seed: 1, log_interval: 1}', '{seed: 1'),
    file('date_that_is_none', 'not YAML: month must be in 1..12', 'seed: 1', 'seed: 2019-13-01'),
    file('nested_too_deeply', '…', '{seed: 1, log_interval: 1}', '[' * 3000),
    file('sweep_is_a_list', 'train_policy: sweep should hold field: [value, ...], not [1]', PPO, 'sweep: [1]'),
    file(
        'sweep_of_no_list', 'train_policy: sweep: ppo.lr should have a list of values, not 1', PPO, 'sweep: {ppo.lr: 1}'
    ),
    file(
        'sweep_of_nothing',
        'train_policy: sweep: ppo.lr should have a list of values, not []',
        PPO,
        'sweep: {ppo.lr: []}',
    ),
    file(
        'sweep_of_unknown',
        'train_policy: no hyperparameter ppo.lrr: did you mean ppo.lr?',
        PPO,
        'sweep: {ppo.lrr: [1]}',
    ),
    file('sweep_of_a_number', 'train_policy: no hyperparameter 5: did you mean …?', PPO, 'sweep: {5: [1]}'),
    file(
        'sweep_of_wrong_type',
        "train_policy: ppo.lr should be float, not str ('fast')",
        PPO,
        'sweep: {ppo.lr: [1, fast]}',
    ),
    file('sweep_of_invalid_value', 'ppo.gamma must be between 0 and 1, not 2.0', PPO, 'sweep: {ppo.gamma: [1, 2]}'),
    file(
        'sweep_without_end',
        'train_policy: sweep: the values make more than 1000 trials',
        PPO,
        f'sweep: {{ppo.lr: &a {list(range(99))}, ppo.lam: *a, ppo.gamma: *a}}',
    ),
    file(
        'command_missing',
        'does not define train_lm: it defines train_reward, train_policy',
        EXPERIMENT[EXPERIMENT.index('train_lm:') :],
        '',
        'train_lm',
    )._replace(expected='experiment DIR/tiny.yaml does not define train_lm: it defines train_reward, train_policy'),
    whole_file('empty', 'DIR/tiny.yaml: an experiment should hold sections, not NoneType', ''),
    whole_file('a_list', 'DIR/tiny.yaml: an experiment should hold sections, not list', '- run\n'),
    whole_file('not_utf8', 'DIR/tiny.yaml: not UTF-8 text: byte 17 of the file', b'run: {seed: 1} # \xff\n'),
    whole_file('too_large', 'DIR/tiny.yaml: too large: more than 131072 bytes', '# a comment\n' * 20000),
    whole_file('merges_that_multiply', f'DIR/tiny.yaml: {TOO_MANY}', merges(wide=9, deep=7)),
    whole_file('an_alias_of_what_it_is_in', f'DIR/tiny.yaml: {TOO_MANY}', 'run: &a {seed: 1, more: *a}\n'),
    whole_file('zero_bytes', 'DIR/tiny.yaml: not YAML: unacceptable character …', 'run: \0'),
    whole_file(
        'two_documents', 'DIR/tiny.yaml: line 2: not YAML: but found another document', 'run: {}\n---\n---\nrun: {}\n'
    ),
    whole_file('a_folder', 'DIR/tiny.yaml: Is a directory', FOLDER),
)
def test_experiments(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


def test_aliases_that_multiply_are_refused(tmp_path, capsys):
    """Nested YAML aliases: a few hundred bytes in memory, but a gigabyte when written out."""
    lines = ['description:', '  - &b0 [x, x, x, x, x, x, x, x, x]']
    lines += [f'  - &b{i} [{", ".join([f"*b{i - 1}"] * 9)}]' for i in range(1, 10)]
    (tmp_path / 'bomb.yaml').write_text('\n'.join([*lines, 'run: *b9']) + '\n')
    line = refusal(capsys, ['train_lm', f'{tmp_path}/bomb.yaml', 'x'])
    assert_line(line, f'{tmp_path}/bomb.yaml: {TOO_MANY}')


@pytest.mark.parametrize(
    'argv, expected',
    [
        (['train_reward', 'none.yaml', 'x'], 'none.yaml: No such file or directory'),
        (['train_reward', 'sentimentl', 'x'], "no experiment 'sentimentl': give one of …"),
        (['train_reward', 'demo', 'x', '--save_dir='], "save_dir must be a local folder or gs://BUCKET/PATH, not ''"),
        (
            ['train_reward', 'demo', 'x', '--save_dir=s3://b'],
            "save_dir must be a local folder or gs://BUCKET/PATH, not 's3://b'",
        ),
        (
            ['train_reward', 'demo', 'x' * 300, '--save_dir=DIR'],
            'cannot write to DIR/xxx…: File name too long; give another --save_dir',
        ),
        (
            ['train_reward', 'demo', 'x', '--save_dir=DIR/file'],
            'cannot write to DIR/file/x: Not a directory; give another --save_dir',
        ),
        (['sample', '--save_dir=DIR/none'], '…DIR/none…'),
        (['sample', '--save_dir=DIR', '--batch_size=0'], 'batch_size must be above 0, not 0'),
        (['sample', '--save_dir=DIR', '--nsamples=-1'], 'nsamples must be 0 or above, not -1'),
    ],
)
def test_command_lines(argv, expected, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    assert_line(refusal(capsys, [word.replace('DIR', str(tmp_path)) for word in argv]), expected, str(tmp_path))
    assert os.listdir(str(tmp_path)) == ['file']
