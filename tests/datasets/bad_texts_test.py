"""Texts without queries, and files that are no text: one line names the file and the place in it."""

import pytest
from refusals import FOLDER, Case, check, table

LINES = 'a.bcd efgh\n'.replace(' ', '') * 40
JSON_LINES = '{"text": "a.b"}\n' * 40
READ = ['--labels.source=test', '--normalize_before', '--normalize_samples=4']  # flags with which a run reads queries
ALL = "36 texts in a row of the data set 'text:DIR/texts.txt' have no query: "


def text(name, expected, content, *flags, kind='text'):
    flags = [f'--task.query_dataset={kind}:DIR/texts.txt', '--labels.source=test', *flags]
    return Case(name, expected, {'texts.txt': content}, flags)


def lm(name, expected, content, *flags):
    return Case(name, expected, {'texts.txt': content}, flags, 'train_lm')


@table(
    text('not_utf8', 'DIR/texts.txt: line 41: not UTF-8 text: byte 2 of the line', LINES.encode() + b'ab\xff.c\n'),
    text('latin1', 'DIR/texts.txt: line 1: not UTF-8 text: byte 3 of the line', 'café.\n'.encode('latin-1') * 40),
    text('utf16', 'DIR/texts.txt: line 1: not UTF-8 text: byte 0 of the line', LINES.encode('utf-16')),
    text(
        'cut_in_a_character',
        'DIR/texts.txt: line 41: not UTF-8 text: byte 0 of the line',
        LINES.encode() + 'é'.encode()[:1],
    ),
    text('empty', "DIR/texts.txt has 0 texts, too few for the split 'train': give 20 or more", ''),
    text('blank', "DIR/texts.txt has 0 texts, too few for the split 'train': give 20 or more", '\n \n' * 40),
    text(
        'no_file',
        'DIR/none.txt not found: give a file with one text on each line, or a folder of such files',
        LINES,
        '--task.query_dataset=text:DIR/none.txt',
    ),
    Case(
        'no_split',
        'DIR/texts/train.txt not found: the folder needs train, valid and test.txt',
        {'texts': FOLDER},
        ['--task.query_dataset=text:DIR/texts', '--labels.source=test'],
    ),
    Case(
        'empty_split',
        "the data set 'text:DIR/texts' has no text in the split 'train'",
        {'texts/train.txt': ''},
        ['--task.query_dataset=text:DIR/texts', '--labels.source=test'],
    ),
    Case(
        'split_not_utf8',
        'DIR/texts/train.txt: line 2: not UTF-8 text: byte 0 of the line',
        {'texts/train.txt': b'a.b\n\xff'},
        ['--task.query_dataset=text:DIR/texts', '--labels.source=test'],
    ),
    text('unknown', "unknown data set 'bookz': …", LINES, '--task.query_dataset=bookz'),
    text('no_path', "unknown data set 'text:': …", LINES, '--task.query_dataset=text:'),
    text(
        'start_of_two_tokens',
        "task.start_text 'ab' is 2 tokens of the vocabulary: it must be one",
        LINES,
        '--task.start_text=ab',
    ),
    text(
        'end_of_two_tokens',
        "task.end_text 'a.' is 2 tokens of the vocabulary: it must be one",
        LINES,
        '--task.end_text=a.',
    ),
    text('end_not_in_vocabulary', "the vocabulary 'test' cannot encode '!'", LINES, '--task.end_text=!'),
)
def test_files(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@table(
    text('no_start', f"{ALL}the token of task.start_text '.' is missing", 'abcd\n' * 40, *READ),
    text(
        'no_end',
        f"{ALL}the token of task.end_text 'x' is missing from the first 2 tokens after task.start_text '.'",
        LINES,
        '--task.end_text=x',
        *READ,
    ),
    text('json_broken', 'DIR/texts.txt: line 1: not JSON', '{"text": \n' * 40, *READ, kind='jsonl'),
    text(
        'json_without_text',
        'DIR/texts.txt: line 1: neither a string nor an object with a string "text"',
        '{"txt": "a.b"}\n' * 40,
        *READ,
        kind='jsonl',
    ),
    text('json_too_deep', 'DIR/texts.txt: line 1: not JSON', ('[' * 100000 + '\n') * 20, *READ, kind='jsonl'),
    text('json_cut_in_the_last', 'DIR/texts.txt: line 41: not JSON', JSON_LINES + '{"text": "a.b', kind='jsonl'),
    text(
        'json_null',
        'DIR/texts.txt: line 42: neither a string nor an object with a string "text"',
        JSON_LINES + '\n{"text": null}\n' + JSON_LINES,
        kind='jsonl',
    ),
    text(
        'json_reference_is_a_number',
        'DIR/texts.txt: line 41: "reference" is not a string',
        JSON_LINES + '{"text": "a.b", "reference": 3}\n',
        kind='jsonl',
    ),
    text('characters_not_in_vocabulary', "…the vocabulary 'test' cannot encode …", 'A!\n' * 40, *READ),
)
def test_texts(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@table(
    lm(
        'only_too_short',
        'text:DIR/texts.txt: its split valid has 1 tokens: too few for one batch of 2 sequences of 4; '
        'give more text, or lower batch_size or sequence_length',
        'a\n' * 20,
        '--initial_model=test',
        *(f'--model.{name}={size}' for name, size in dict(n_vocab=27, n_ctx=8, n_embd=7, n_head=1, n_layer=2).items()),
    ),
    Case(
        'held_out_too_short',
        'text:DIR/texts: its split valid has 4 tokens: too few for one batch of 2 sequences of 4; '
        'give more text, or lower batch_size or sequence_length',
        {'texts/train.txt': LINES, 'texts/valid.txt': 'abcdef\n', 'texts/test.txt': LINES},
        ['--dataset=text:DIR/texts'],
        'train_lm',
    ),
    lm(
        'too_little_for_a_vocabulary',
        'n_vocab is 400: the texts are enough for … only',
        'ab\n' * 40,
        '--model.n_vocab=400',
    ),
    lm(
        'vocabulary_below_bytes',
        'n_vocab is 100: a byte-level vocabulary has at least 257 entries',
        'ab\n' * 40,
        '--model.n_vocab=100',
    ),
    lm('lm_text_not_utf8', 'DIR/texts.txt: line 1: not UTF-8 text: byte 0 of the line', b'\xff\n'),
)
def test_texts_for_language_models(case, tmp_path, capsys):
    check(case, tmp_path, capsys)


@pytest.mark.parametrize(
    'dataset, file, content, expected',
    [
        ('tldr', 'tldr/train-subset.json', '[', 'DIR/tldr/train-subset.json: not a JSON list: no item at byte 1'),
        ('tldr', 'tldr/train-subset.json', {}, 'DIR/tldr/train-subset.json: not a JSON list'),
        (
            'tldr',
            'tldr/train-subset.json',
            '[' * 10**5,
            'DIR/tldr/train-subset.json: the JSON list is nested too deeply …',
        ),
        (
            'tldr',
            'tldr/train-subset.json',
            [{'content': 3}],
            'DIR/tldr/train-subset.json: entry 0 (byte 1): not an object with a "content"',
        ),
        (
            'tldr',
            'tldr/train-subset.json',
            b'[{"content": "\xff"}]',
            'DIR/tldr/train-subset.json: not UTF-8 text: byte 14 of the file',
        ),
        (
            'tldr',
            'tldr/train-subset.json',
            [{'content': 'a.b'}] * 40 + [{'content': 'a.b', 'summary': 3}],
            'DIR/tldr/train-subset.json: entry 40 (byte 801): "summary" is not a string',
        ),
        (
            'books',
            'datasets/book_passages/train.jsonl',
            '"a.b"\n' * 40 + 'null\n',
            'DIR/datasets/book_passages/train.jsonl: line 41: neither a string nor an object with a string "text"',
        ),
        ('books', 'x', '', '…book_passages/train.jsonl not found…'),
        (
            'books',
            'datasets/book_passages/train.jsonl',
            b'"a.b"\n"\xff"\n',
            'DIR/datasets/book_passages/train.jsonl: line 2: not UTF-8 text: byte 1 of the line',
        ),
        (
            'cnndm',
            'datasets/cnndm/url_lists/all_train.txt',
            b'http://\xff\n',
            'DIR/datasets/cnndm/url_lists/all_train.txt: line 1: not UTF-8 text: byte 7 of the line',
        ),
    ],
)
def test_published_texts(dataset, file, content, expected, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    flags = [f'--task.query_dataset={dataset}', *READ]
    check(Case('', expected, {file: content}, flags), tmp_path, capsys)
