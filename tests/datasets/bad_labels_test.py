"""Labels that do not fit: one line that names the file, the entry and the field."""

import json

import pytest
from refusals import FOLDER, Case, check, good_labels, labels_with, table

LABELS = 'DIR/labels.json'
RATING = ['--labels.type=scalar_rating']
COMPARE = ['--labels.type=scalar_compare']


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
    label_case('json_lines', '{"best": 1}\n{"best": 2}\n', f'{LABELS}: not JSON: Extra data: …'),
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


@pytest.mark.parametrize('fault', ['[', '[{"query": [1, 2], "sample0": [1, 2, 3]}]'])
def test_a_traceback_on_request(fault, tmp_path, capsys):
    from refusals import EXPERIMENT, arguments, write_files

    from lm_human_preferences.launcher import command_line

    write_files(str(tmp_path), {'tiny.yaml': EXPERIMENT, 'labels.json': fault})
    with pytest.raises(SystemExit) as end:
        command_line.main([*arguments(Case('', ''), str(tmp_path)), '--traceback'])
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and lines[0].startswith('Traceback') and lines[-1].startswith('error: ')
    assert any('read_json' in line or 'load_labels' in line for line in lines)
