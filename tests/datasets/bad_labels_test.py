"""Labels that do not fit: one line that names the file, the entry and the field."""

import bz2
import gzip
import json
import lzma
import time

import numpy as np
import pytest
from refusals import (
    EXPERIMENT,
    FOLDER,
    Case,
    arguments,
    check,
    good_labels,
    labels_with,
    refusal,
    table,
    write_files,
)

from lm_human_preferences.datasets.labels import check_teaches

LABELS = 'DIR/labels.json'
PAIRS = [{'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}] * 8
HALF = {'chosen': 'b', 'rejected': 'c'}
NO_LABELS = 'pairs of chosen and rejected texts are no labels: '
CONVERT = './launch.py convert PAIRS.jsonl labels.json makes labels of them'
JSON_LINES = f'{LABELS}: one label on each line (JSON Lines), but labels are one JSON list: jq -s . makes it'
PAIR = ['--labels.type=best_of_2']
BEST_OF_2 = 'pairs of chosen and rejected texts need --labels.type=best_of_2'
RATING = ['--labels.type=scalar_rating']
COMPARE = ['--labels.type=scalar_compare']


def lines(entries):
    return ''.join(json.dumps(entry) + '\n' for entry in entries)


def equal_samples(**answers):
    """Labels whose samples are equal within each label, but not between labels."""
    samples = [{f'sample{k}': [i, 1, 26] for k in range(4)} for i in range(8)]
    return [dict(label, **sample) for label, sample in zip(good_labels(**answers), samples)]


def teaches_nothing(name, content, fault, flags=()):
    return label_case(name, content, f'--labels.source {LABELS}: {fault}', flags)


def label_case(name, content, expected, flags=()):
    return Case(name, expected, {'labels.json': content}, flags)


def field_case(name, field, value, fault):
    return label_case(name, labels_with(**{field: value}), f"{LABELS}: entry 5: field '{field}': {fault}")


def score_case(name, score, fault):
    content = json.dumps(good_labels(score=0.5)).replace('0.5', score)
    return label_case(name, content, f"{LABELS}: entry 0: field 'score': {fault}", RATING)


def twice(name):
    """The text of labels in which entry 5 gives a field twice."""
    text = json.dumps(labels_with(best=-77))
    return text.replace('"best": -77', f'"best": 1, "{name}": 2, "{name}": 3')


@table(
    label_case('not_json', '[{"query": [1, 2}', f'{LABELS}: not JSON: …'),
    label_case('two_objects', '{"best": 1}\n{"best": 2}\n', f'{LABELS}: not JSON: Extra data: …'),
    label_case('json_lines', lines(good_labels()), JSON_LINES),
    label_case('one_json_line', lines(good_labels()[:1]), JSON_LINES),
    label_case('json_lines_with_a_blank_line', '\n' + lines(good_labels()), JSON_LINES),
    label_case('gzip', gzip.compress(lines(good_labels()).encode()), f'{LABELS}: compressed by gzip: …gunzip'),
    label_case('bzip2', bz2.compress(b'[]'), f'{LABELS}: compressed by bzip2: …bunzip2'),
    label_case('xz', lzma.compress(b'[]'), f'{LABELS}: compressed by xz: …unxz'),
    label_case('zip', b'PK\x03\x04\x14', f'{LABELS}: a zip archive: …unzip'),
    label_case('parquet', b'PAR1\x15\x04', f'{LABELS}: {BEST_OF_2}'),
    label_case(
        'git_lfs', 'version https://git-lfs.github.com/spec/v1\noid sha256:0\n', f'{LABELS}: a pointer of git-lfs: …'
    ),
    label_case('web_page', '\n<!doctype html><title>404</title>', f'{LABELS}: a web page: download the file itself'),
    label_case('pairs', PAIRS, f'{LABELS}: {NO_LABELS}write one on each line of a file PAIRS.jsonl, then {CONVERT}'),
    label_case('lines_of_pairs', lines(PAIRS), f'{LABELS}: {BEST_OF_2}'),
    label_case('one_pair', lines(PAIRS[:1]), f'{LABELS}: {BEST_OF_2}'),
    label_case('too_few_pairs', lines(PAIRS[:7]), f'{LABELS}: 7 labels are fewer than labels.num_train, 8', PAIR),
    label_case(
        'pairs_without_prompt',
        lines([HALF]),
        f'{LABELS}: line 1: prompt, chosen and rejected should be texts',
        PAIR,
    ),
    label_case(
        'pairs_of_messages',
        lines([dict(PAIRS[0], chosen=[{'role': 'assistant', 'content': 'b'}])]),
        f'{LABELS}: line 1: prompt, chosen and rejected should be texts',
        PAIR,
    ),
    label_case(
        'a_long_prompt',
        lines([*PAIRS[:4], dict(PAIRS[0], prompt='abc')]),
        f'{LABELS}: line 5: its prompt has 3 tokens, but task.query_length is 2: raise it, or cut the texts with …',
        PAIR,
    ),
    label_case(
        'a_long_response',
        lines([dict(PAIRS[0], rejected='abcd'), *PAIRS]),
        f'{LABELS}: line 1: its rejected has 4 tokens, but task.response_length is 3: raise it, or …',
        PAIR,
    ),
    label_case('an_empty_response', lines([dict(PAIRS[0], chosen='')]), f'{LABELS}: line 1: chosen and …', PAIR),
    label_case('parquet_that_ends_early', b'PAR1\x15\x04', f'{LABELS}: not a Parquet file that can be read: …', PAIR),
    Case('no_such_pattern', 'DIR/no*.jsonl: no file matches this', {}, [*PAIR, '--labels.source=DIR/no*.jsonl']),
    label_case('empty_file', '', f'{LABELS}: not JSON: the file is empty'),
    label_case('blank_file', ' \n', f'{LABELS}: not JSON: the file is empty'),
    label_case('not_utf8', b'[{"query": "\xff"}]', f'{LABELS}: not UTF-8 text: byte 12 of the file'),
    label_case('utf16', '[]'.encode('utf-16'), f'{LABELS}: not UTF-8 text: byte 0 of the file'),
    label_case('byte_order_mark', b'\xef\xbb\xbf[]', f'{LABELS}: no labels'),
    label_case('byte_order_mark_alone', b'\xef\xbb\xbf\r\n', f'{LABELS}: not JSON: the file is empty'),
    label_case('nested_too_deeply', '[' * 200000, f'{LABELS}: this JSON is nested too deeply'),
    label_case('number_of_5000_digits', '[' + '9' * 5000 + ']', f'{LABELS}: …'),
    label_case('an_object', {'labels': []}, f'{LABELS}: not a list of labels'),
    label_case('a_string', '"labels"', f'{LABELS}: not a list of labels'),
    label_case('empty_list', [], f'{LABELS}: no labels'),
    label_case('too_few', good_labels()[:7], f'{LABELS}: 7 labels are fewer than labels.num_train, 8'),
    label_case(
        'an_entry_is_a_number', [*good_labels()[:7], 3], f"{LABELS}: entry 7: field 'query': the entry is not an object"
    ),
    label_case(
        'an_entry_is_null', [None, *good_labels()], f"{LABELS}: entry 0: field 'query': the entry is not an object"
    ),
    label_case('no_query', labels_with(without='query'), f"{LABELS}: entry 5: field 'query': missing"),
    label_case('no_sample', labels_with(without='sample2'), f"{LABELS}: entry 5: field 'sample2': missing"),
    label_case('no_best', labels_with(without='best'), f"{LABELS}: entry 5: field 'best': missing"),
    label_case('a_field_twice', twice('best'), f"{LABELS}: entry 5: field 'best' is given twice"),
    label_case('another_field_twice', twice('who'), f"{LABELS}: entry 5: field 'who' is given twice"),
    label_case(
        'a_field_of_a_field_twice',
        json.dumps(good_labels()).replace('"best": 3', '"best": 3, "who": {"age": 1, "age": 2}', 1),
        f"{LABELS}: entry 3: who: field 'age' is given twice",
    ),
)
def test_files(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@table(
    field_case('query_too_short', 'query', [1], 'a list of 1 where a list of 2 numbers is expected'),
    field_case('query_too_long', 'query', [1, 2, 3], 'a list of 3 where a list of 2 numbers is expected'),
    field_case('query_empty', 'query', [], 'a list of 0 where a list of 2 numbers is expected'),
    field_case('query_is_a_number', 'query', 7, 'a number where a list of 2 numbers is expected'),
    field_case('query_is_text', 'query', 'the cat', "'the cat' is not an integer of type int32"),
    field_case('sample_too_short', 'sample0', [1, 2], 'a list of 2 where a list of 3 numbers is expected'),
    field_case('token_is_text', 'sample3', [1, '2', 3], "'2' is not an integer of type int32"),
    field_case('token_is_a_fraction', 'sample1', [1, 2.5, 3], '2.5 is not an integer of type int32'),
    field_case('token_is_a_float', 'sample1', [1, 2.0, 3], '2.0 is not an integer of type int32'),
    field_case('token_is_true', 'sample1', [True, 2, 3], 'True is not an integer of type int32'),
    field_case('token_is_null', 'query', [1, None], 'None is not an integer of type int32'),
    field_case('token_is_a_list', 'query', [1, [2]], '[2] is not an integer of type int32'),
    field_case('token_negative', 'query', [-1, 2], '-1 is no token of the vocabulary of 27'),
    field_case('token_beyond_vocabulary', 'sample2', [1, 28, 2], '28 is no token of the vocabulary of 27'),
    field_case('token_beyond_int32', 'query', [1, 2**31], '2147483648 is not an integer of type int32'),
    field_case(
        'token_of_100_digits', 'query', [1, 10**99], '1000000000000000000000000…000 is not an integer of type int32'
    ),
    field_case('best_beyond_samples', 'best', 4, '4 is none of the 4 samples'),
    field_case('best_negative', 'best', -1, '-1 is none of the 4 samples'),
    field_case('best_is_a_float', 'best', 1.0, '1.0 is not an integer of type int32'),
    field_case('best_is_a_list', 'best', [1], 'a list of 1 where a number is expected'),
    field_case('best_is_text', 'best', '1', "'1' is not an integer of type int32"),
    field_case('best_is_null', 'best', None, 'None is not an integer of type int32'),
    field_case('best_is_an_object', 'best', {'is': 1}, "{'is': 1} is not an integer of type int32"),
)
def test_fields(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@table(
    score_case('nan', 'NaN', 'nan is not a finite number of type float32'),
    score_case('infinity', 'Infinity', 'inf is not a finite number of type float32'),
    score_case('minus_infinity', '-Infinity', '-inf is not a finite number of type float32'),
    score_case('beyond_float64', '1e999', 'inf is not a finite number of type float32'),
    score_case('beyond_float32', '1e39', '1e+39 is not a finite number of type float32'),
    score_case('integer_beyond_float64', '1' + '0' * 400, '1000…000 is not a finite number of type float32'),
    score_case('text', '"good"', "'good' is not a finite number of type float32"),
    score_case('true', 'true', 'True is not a finite number of type float32'),
    score_case('a_list', '[1]', 'a list of 1 where a number is expected'),
    label_case('none', good_labels(), f"{LABELS}: entry 0: field 'score': missing", RATING),
    label_case(
        'difference_is_nan',
        good_labels(difference=float('nan')),
        f"{LABELS}: entry 0: field 'difference': nan is not a finite number of type float32",
        COMPARE,
    ),
    label_case('no_difference', good_labels(), f"{LABELS}: entry 0: field 'difference': missing", COMPARE),
    label_case(
        'best_of_more_than_there_are',
        good_labels(),
        f"{LABELS}: entry 0: field 'sample4': missing",
        ['--labels.type=best_of_5'],
    ),
)
def test_answers(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@table(
    Case(
        'no_such_file',
        '--labels.source: no label file DIR/none.json',
        flags=['--labels.source=DIR/none.json'],
    ),
    Case(
        'a_folder_without_labels',
        'DIR/empty: no label file (*.json) in this folder',
        {'empty': FOLDER},
        ['--labels.source=DIR/empty'],
    ),
    Case(
        'a_folder_of_other_files',
        'DIR/lines: no label file (*.json) in this folder; a.json.gz is not read',
        {'lines/b.jsonl': '{}', 'lines/a.json.gz': 'x', 'lines/.json': '[]'},
        ['--labels.source=DIR/lines'],
    ),
    Case(
        'a_bad_file_of_a_folder',
        "DIR/many/b.json: entry 5: field 'best': 9 is none of the 4 samples",
        {'many/a.json': good_labels(), 'many/b.json': labels_with(best=9)},
        ['--labels.source=DIR/many', '--labels.num_train=16'],
    ),
    Case(
        'more_than_memory',
        'out of memory: …',
        flags=['--labels.source=test', f'--labels.num_train={2**46}'],
    ),
)
def test_sources(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


SAME_SAMPLES = 'in all 8 labels, the samples of each label are equal to each other: no reward model can learn from them'
NO_DIFFERENCE = 'in all 8 labels, each difference is 0: no reward model can learn from them'
NO_SPREAD = ': normalize_before needs a standard deviation above 0: set it to false, or give other labels'
NORMALIZE = ['--normalize_before=true', '--normalize_samples=16']


@table(
    teaches_nothing('equal_samples', equal_samples(), SAME_SAMPLES),
    teaches_nothing('equal_pairs', equal_samples(best=1), SAME_SAMPLES, ['--labels.type=best_of_2']),
    teaches_nothing('equal_pairs_that_differ', equal_samples(difference=1), SAME_SAMPLES, COMPARE),
    teaches_nothing('no_difference', good_labels(difference=0), NO_DIFFERENCE, COMPARE),
    teaches_nothing('no_difference_as_floats', good_labels(difference=-0.0), NO_DIFFERENCE, COMPARE),
    teaches_nothing('one_score', good_labels(score=3), f'each score is 3{NO_SPREAD}', [*RATING, *NORMALIZE]),
    teaches_nothing('one_score_of_0', good_labels(score=0), f'each score is 0{NO_SPREAD}', [*RATING, *NORMALIZE]),
    teaches_nothing(
        'one_difference', good_labels(difference=-0.5), f'each difference is -0.5{NO_SPREAD}', [*COMPARE, *NORMALIZE]
    ),
)
def test_labels_that_teach_nothing(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@pytest.mark.parametrize(
    'fields, spread',
    [
        (dict(sample0=[[1], [2]], sample1=[[1], [3]], best=[0, 0]), True),
        (dict(sample0=[[1], [2]], sample1=[[1], [3]], difference=[0, 1]), True),
        (dict(sample0=[[1], [2]], sample1=[[3], [3]], difference=[1, 1]), False),
        (dict(sample=[[1], [1]], score=[3, 3]), False),
        (dict(sample=[[1], [1]], score=[3, 4]), True),
    ],
)
def test_labels_that_teach_little_are_accepted(fields, spread):
    labels = {name: np.array(values) for name, values in fields.items()}
    check_teaches('labels.json', dict(labels, query=np.zeros((2, 1))), needs_spread=spread)


def test_initial_labels_of_an_online_run_must_teach_something(tmp_path, capsys):
    files = {'tiny.yaml': EXPERIMENT, 'labels.json': equal_samples()}
    write_files(str(tmp_path), files)
    flags = ['--rewards.train_new_model.labels.schedule.num_initial=8', '--labeler=time:time', '--mpi=1']
    argv = ['train_policy', f'{tmp_path}/tiny.yaml', 'run', f'--save_dir={tmp_path}/save', *flags]
    assert refusal(capsys, argv) == f'--labels.source {tmp_path}/labels.json: {SAME_SAMPLES}'


@pytest.mark.parametrize(
    'name', ['labels/sentiment/offline_5k', 'labels/sentiment/ofline_5k.json', 'labels/x.json', 'labels/mine']
)
def test_a_mistyped_published_file_asks_no_server(name, tmp_path, capsys, web, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', web.url)
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'cache'))
    started = time.time()
    case = Case(
        '',
        f'--labels.source: no label file {name} or DIR/cache/{name}; the published files are '
        'labels/sentiment/offline_5k.json, labels/descriptiveness/offline_5k.json, labels/cnndm/offline_60k.json, '
        'labels/cnndm/online_45k.json, labels/tldr/offline_60k.json, labels/tldr/online_45k.json',
        flags=[f'--labels.source={name}'],
    )
    check(case, tmp_path, capsys)
    assert web.requests == [] and time.time() - started < 10


@pytest.mark.parametrize('fault', ['[', '[{"query": [1, 2], "sample0": [1, 2, 3]}]'])
def test_a_traceback_on_request(fault, tmp_path, capsys):
    from lm_human_preferences.launcher import command_line

    write_files(str(tmp_path), {'tiny.yaml': EXPERIMENT, 'labels.json': fault})
    with pytest.raises(SystemExit) as end:
        command_line.main([*arguments(Case('', ''), str(tmp_path)), '--traceback'])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and lines[0].startswith('Traceback') and lines[-1].startswith('error: ')
    assert any('read_json' in line or 'load_labels' in line for line in lines)
