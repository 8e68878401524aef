"""Metrics of texts, labels and policies, and `evaluate` on a run."""

import hashlib
import json
import math
import os

import numpy as np
import pytest
from refusals import refusal
from small_models import save_model

from lm_human_preferences.datasets import random_letters
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.datasets.registry import get_references, get_texts
from lm_human_preferences.evaluation import policies, reward_models, tables, texts
from lm_human_preferences.evaluation.intervals import wilson_interval
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.launcher.command_line import main


def test_distinct_ngrams():
    assert texts.distinct_ngrams(['a b a', 'A, b!'], 1) == 2 / 5
    assert texts.distinct_ngrams(['a b a', 'A, b!'], 2) == 2 / 3
    assert texts.distinct_ngrams([''], 1) == 0


def test_copied_ngrams_and_sentences():
    source = 'The cat sat. It was a fine day for all of us.'
    copied, own = 'It was a fine day. The cat sat.', 'A dog ran to it, a fine day.'
    assert texts.copied_ngrams([copied], [source], 1) == 1.0
    assert texts.copied_ngrams([own], [source], 3) == 1 / 6  # 'a fine day' is one of six
    assert texts.copied_ngrams([own], [''], 1) == 0.0
    assert texts.copied_sentences([copied, own], [source, source]) == 2 / 3
    assert texts.copied_sentences(['sat'], ['The cats sat']) == 1.0
    assert texts.copied_sentences(['cat sat'], ['The wildcat sat']) == 0.0


def test_rouge():
    found = texts.rouge(['the cat sat', 'a dog'], ['the cat sat', 'no word alike'])
    assert found == {'rouge1': 0.5, 'rouge2': 0.5, 'rougeL': 0.5}


def test_win_rate_counts_ties_half():
    found = policies.win_rate(np.array([1.0, 2, 3, 4]), np.array([0.0, 2, 4, 4]), np.arange(4))
    assert found['share'] == 0.5 and found['ties'] == 0.5
    assert found['interval'] == wilson_interval(2, 4)


def test_the_title_and_the_line_about_repeated_queries():
    assert tables.queries_title(dict(queries=8, distinct_queries=8)) == '8 held-out queries (all distinct)'
    assert tables.queries_title(dict(queries=8, distinct_queries=3)) == '8 held-out queries (3 distinct)'
    assert tables.queries_title(dict(queries=8)) == '8 held-out queries'  # of an earlier version
    assert tables.repeated_queries(dict(queries=8, distinct_queries=8)) == []
    (line,) = tables.repeated_queries(dict(queries=8, distinct_queries=3))
    assert line.startswith('distinct queries: 3 of 8;')
    labels = dict(labels=4, distinct_queries=4, distinct_samples=16, samples=16)
    assert tables.repeated_texts(labels) == tables.repeated_texts(dict(labels=4)) == []
    (line,) = tables.repeated_texts(dict(labels, distinct_samples=9))
    assert line.startswith('distinct queries: 4 of 4, distinct samples: 9 of 16;')


def test_choice_metrics():
    rewards = np.log(np.array([[0.7, 0.3], [0.2, 0.8], [0.9, 0.1], [0.6, 0.4]]))
    found = reward_models.choice_metrics(rewards, np.array([0, 1, 1, 0]))
    assert found['accuracy'] == 0.75 and found['chance'] == 0.5 and found['labels'] == 4
    assert found['loss'] == pytest.approx(-np.mean(np.log([0.7, 0.8, 0.1, 0.6])))
    # One choice in each bin: those of confidence 0.6, 0.7 and 0.8 are right, that of 0.9 is wrong.
    assert found['calibration']['error'] == pytest.approx((0.4 + 0.3 + 0.2 + 0.9) / 4)
    assert [b['count'] for b in found['calibration']['bins']] == [1, 1, 1, 1]
    sure = reward_models.calibration(np.array([1.0, 1.0]), np.array([True, True]))
    assert sure == dict(error=0.0, bins=[dict(confidence=1.0, accuracy=1.0, count=2)])


def test_metrics_of_comparisons_and_ratings():
    rewards = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 3.0]])
    found = reward_models.metrics(rewards, dict(difference=np.array([1.0, 1.0, 0.0])))
    assert found['accuracy'] == 0.5  # of the two with a difference
    assert found['loss'] == pytest.approx((0 + 9 + 4) / 3)
    found = reward_models.metrics(rewards[:, :1], dict(score=np.array([0.0, 4.0, 2.0])))
    assert found['correlation'] == pytest.approx(1.0) and found['loss'] == pytest.approx(5 / 3)
    copies = {name: np.repeat([[1], [2], [3]], 5, axis=0) for name in ('query', 'sample0', 'sample1')}
    repeated = reward_models.metrics(np.repeat(rewards, 5, axis=0), dict(copies, difference=np.repeat([1.0, 1, 0], 5)))
    low, high = wilson_interval(1, 2)
    assert repeated['accuracy'] == 0.5 and np.diff(repeated['interval']) >= high - low  # two questions, five times
    constant = reward_models.metrics(rewards[:, :1], dict(score=np.ones(3)))
    assert constant['correlation'] is None
    assert ['correlation', '1.000'] in tables.reward_rows(found)
    assert not any(row[0] == 'correlation' for row in tables.reward_rows(constant))


def labels_of(*questions):
    """best_of_2 labels: (query, sample0, sample1, best) each."""
    rows = np.array(questions, np.int32)[..., np.newaxis]
    return dict(query=rows[:, 0], sample0=rows[:, 1], sample1=rows[:, 2], best=rows[:, 3, 0])


def test_agreement_where_several_judged_the_same_question():
    # The first question occurs three times, once with its samples in the other order; the second occurs once.
    labels = labels_of((1, 5, 6, 0), (1, 6, 5, 1), (1, 5, 6, 1), (2, 5, 6, 0))
    rewards = np.array([[2.0, 1], [1, 2.0], [2.0, 1], [1, 2]])
    found = reward_models.agreement(rewards, labels)
    assert (found['questions'], found['judgements']) == (1, 3)
    assert found['people']['accuracy'] == pytest.approx(1 / 3)  # the two that chose 5 agree, the third chose 6
    assert found['model']['accuracy'] == pytest.approx(2 / 3) and found['majority']['accuracy'] == 1
    assert found['majority']['interval'] == wilson_interval(1, 1)
    low, high = found['model']['interval']  # three judgements of one question
    assert high - low > np.diff(wilson_interval(2, 3))
    assert reward_models.agreement(rewards[2:], {name: values[2:] for name, values in labels.items()}) is None
    votes = [None, None, None, [1, 1]]
    assert reward_models.agreement(rewards, labels, votes)['questions'] == 2
    rows = dict(tables.reward_rows(dict(labels=3, loss=1.0, agreement=found)))
    assert rows['  two people agree'].startswith('33.3%') and rows['questions answered by several people'] == '1'


def test_references_of_a_users_own_data(tmp_path):
    path = tmp_path / 'texts.jsonl'
    lines = [json.dumps(dict(text=f'text {i}', **({'reference': f'ref {i}'} if i % 2 else {}))) for i in range(40)]
    path.write_text('\n'.join(lines))
    found = list(zip(get_texts(f'jsonl:{path}', 'train'), get_references(f'jsonl:{path}', 'train')))
    assert ('text 1', 'ref 1') in found and ('text 2', None) in found and len(found) == 36
    assert get_references('test', 'train') is None


def test_references_of_published_data(tmp_path, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path))
    (tmp_path / 'tldr').mkdir()
    posts = [{'content': 'long', 'summary': 'short'}, {'content': 'other'}]
    (tmp_path / 'tldr' / 'valid-subset.json').write_text(json.dumps(posts))
    assert list(get_references('tldr', 'test')) == ['short', None]
    cnndm = tmp_path / 'datasets' / 'cnndm'
    (cnndm / 'url_lists').mkdir(parents=True)
    (cnndm / 'url_lists' / 'all_test.txt').write_text('http://cnn.com/x\n')
    stories = cnndm / 'cache_test' / 'cnn' / 'stories'
    stories.mkdir(parents=True)
    name = hashlib.sha1(b'http://cnn.com/x').hexdigest() + '.story'
    (stories / name).write_text('A story.\n\n@highlight\n\nFirst point\n\n@highlight\n\nSecond point\n')
    assert list(get_references('cnndm', 'test')) == ['First point\nSecond point']
    assert list(get_texts('cnndm', 'test')) == ['A story.']


def test_a_query_knows_its_text():
    stream = QueryStream('test', 'test', letters(), 4, start_text='.', seed=1)
    texts_of_set = get_texts('test', 'test')
    for _ in range(5):
        index, query = stream.next_query()
        text = texts_of_set[index]
        assert letters().decode(query) == text[text.index('.') + 1 :][:4]


def evaluated(tiny_run, capsys, *arguments):
    """Run `evaluate`; return what it prints and what it saves."""
    capsys.readouterr()
    main(['evaluate', *arguments])
    with open(os.path.join(tiny_run.folder, 'evaluation.json')) as f:
        return capsys.readouterr().out, json.load(f)


def test_policies_on_held_out_queries(tiny_run, capsys):
    flags = ['--num_queries=48', '--batch_size=20']
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, *flags)
    result = found['policies']
    assert (result['baseline'], result['queries']) == ('initial', 48)
    assert 30 < result['distinct_queries'] < 48  # two random letters each
    initial, tuned = result['policies']['initial'], result['policies']['tiny']
    assert initial['kl'] == 0 and abs(tuned['kl']) > 1e-4 and 'wins' not in initial
    assert 0 < tuned['wins']['score']['share'] < 1
    low, high = tuned['wins']['score']['interval']
    assert low < tuned['wins']['score']['share'] < high
    assert initial['length'] == 3 and initial['valid'] == 1 and 0 < initial['entropy'] < 3 * math.log(27) + 1
    for title in ('KL from the initial policy', 'score by reward model', 'distinct words', 'better than initial'):
        assert title in out
    # The queries and random numbers are the same again, and the batch size changes nothing.
    _, again = evaluated(tiny_run, capsys, '--policies', tiny_run.folder, 'initial', '--num_queries=48')
    assert list(again['policies']['policies']) == ['initial', 'tiny']  # JSON sorts them
    assert again['policies']['policies']['tiny']['kl'] == pytest.approx(tuned['kl'], rel=1e-4)
    with open(os.path.join(tiny_run.folder, 'evaluation_samples.jsonl')) as f:
        rows = [json.loads(line) for line in f]
    assert len(rows) == 32 and {row['policy'] for row in rows} == {'tiny', 'initial'}


def test_queries_that_repeat_are_counted_and_said(tiny_run, capsys, tmp_path):
    path = tmp_path / 'texts.txt'
    letters_of = 'abcdefghijklmnopqrstuvwxyz'
    path.write_text(''.join(f'{a}{b}.{b}{a}{a}{b}{b}\n' for a in letters_of for b in letters_of[:4]))
    flags = [f'--query_dataset=text:{path}', '--num_queries=60', f'--out={tmp_path}']
    main(['evaluate', tiny_run.folder, *flags])
    out = capsys.readouterr().out
    result = json.loads((tmp_path / 'evaluation.json').read_text())['policies']
    distinct = result['distinct_queries']
    texts_of_split = get_texts(f'text:{path}', 'test')
    assert result['queries'] == 60 and distinct == len(texts_of_split) < 20
    assert f'Policies on 60 held-out queries ({distinct} distinct)\n' in out
    assert f'distinct queries: {distinct} of 60; the intervals allow for queries that occur several times\n' in out
    wins = result['policies']['tiny']['wins']['score']
    low, high = wilson_interval(wins['share'] * 60, 60)
    assert wins['interval'][1] - wins['interval'][0] >= high - low


def test_a_reward_model_on_labels(tiny_run, capsys, tmp_path):
    with open(tiny_run.labels) as f:
        labels = json.load(f)
    labels[0]['votes'] = [0, 0, 1]
    path = tmp_path / 'labels.json'
    path.write_text(json.dumps(labels))
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, '--labels', str(path), '--batch_size=24')
    result = found['reward_model']
    assert result['labels'] == 64 and result['chance'] == 0.25 and result['accuracy'] > 0.25
    samples = {tuple(label[f'sample{i}']) for label in labels for i in range(4)}
    assert (result['samples'], result['distinct_samples']) == (256, len(samples))
    assert result['distinct_queries'] == len({tuple(label['query']) for label in labels})
    assert ['distinct', 'samples', str(len(samples)), 'of', '256'] in [line.split() for line in out.splitlines()]
    assert [point['labels'] for point in result['by_labels']] == [32, 64]
    # The last checkpoint is the model.
    assert result['by_labels'][-1]['accuracy'] == result['accuracy']
    assert result['agreement']['questions'] == 1 and result['agreement']['people']['accuracy'] == pytest.approx(1 / 3)
    for title in ('agrees with people', 'calibration error', 'after 32 labels', 'two people agree'):
        assert title in out
    labels[0]['votes'] = [4]
    path.write_text(json.dumps(labels))
    with pytest.raises(SystemExit):
        main(['evaluate', tiny_run.folder, '--labels', str(path)])
    assert 'entry 0: votes should be a list of choices, 0 to 3' in capsys.readouterr().err


def test_a_reward_model_on_the_labels_of_a_data_set(tiny_run, capsys):
    flags = ['--labels=test', '--num_labels=24', '--label_type=best_of_4', '--num_checkpoints=1']
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, *flags)
    result = found['reward_model']
    assert (result['labels'], result['source']) == (24, 'test, held out') and 'Reward model on test, held out' in out
    # These labels are zeros: the samples of a question are equal, and the first is the best.
    assert result['accuracy'] == 1 and result['loss'] == pytest.approx(math.log(4)) and len(result['by_labels']) == 1
    assert result['interval'] == pytest.approx(wilson_interval(1, 1))  # one question, asked 24 times
    assert 'distinct queries: 1 of 24, distinct samples: 1 of 96; the intervals allow for texts that occur' in out
    assert result['agreement']['questions'] == 1 and result['judges'] == {}
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, *flags, '--label_type=scalar_rating')
    assert found['reward_model']['labels'] == 24 and not {'judges', 'agreement'} & set(found['reward_model'])
    assert 'loss' in out and 'agrees with people' not in out


def test_the_judges_of_a_data_set_are_rows_of_the_tables(tiny_run, capsys, monkeypatch):
    def judges():
        return {'vowels': lambda texts: np.array([sum(letter in 'aeiou' for letter in text) for text in texts])}

    monkeypatch.setattr(random_letters, 'judges', judges, raising=False)
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, '--labels', tiny_run.labels, '--num_checkpoints=0')
    share = found['reward_model']['judges']['vowels']
    with open(tiny_run.labels) as f:
        labels = json.load(f)
    vowels = [
        [sum(letters().decode([t]) in 'aeiou' for t in label[f'sample{i}']) for i in range(4)] for label in labels
    ]
    assert share == np.mean([np.argmax(counts) == label['best'] for counts, label in zip(vowels, labels)])
    assert ['vowels', 'agrees', 'with', 'people', f'{share:.1%}'] in [line.split() for line in out.splitlines()]
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, '--num_queries=8')
    tuned = found['policies']['policies']['tiny']
    assert set(tuned['judges']) == set(tuned['wins']) == {'score', 'vowels'}
    titles = [line.strip().split('  ')[0] for line in out.splitlines()]
    assert 'score by vowels' in titles and 'better than initial: vowels' in titles


def test_rouge_where_references_exist(tiny_run, capsys, tmp_path):
    path = tmp_path / 'texts.jsonl'
    path.write_text('\n'.join(json.dumps(dict(text='a.bcd', reference='xyz')) for _ in range(40)))
    flags = ['--num_queries=8', f'--query_dataset=jsonl:{path}']
    out, found = evaluated(tiny_run, capsys, tiny_run.folder, *flags)
    assert 'ROUGE-L' in out and found['policies']['policies']['tiny']['rouge']['rouge1'] == 0


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['/nowhere'], '/nowhere: not the folder of a run'),
        ([], 'run is not set'),
        (['RUN', 'b'], "unexpected argument 'b'"),
        (['RUN', '--split=all'], 'split must be train, valid or test'),
        (['RUN', '--labels=/none.json'], 'no label file /none.json'),
        (['--policies', 'RUN', 'demo'], 'the policy demo reads another vocabulary than the policy tiny: use models of'),
        (
            ['RUN', '--policies', 'demo'],
            'the reward model RUN/reward_model reads another vocabulary than the policy demo',
        ),
        (['--reward_model=test', '--labels=LABELS'], 'test is a language model without a task: give RUN, a run whose'),
        (['--policies', 'initial'], 'initial is the initial policy of a run: give RUN, that run'),
        (
            ['--policies', 'initial', 'test'],
            'test is a language model without a task: give RUN, a run whose task is used',
        ),
        (['--policies', 'initial', '--reward_model=demo'], 'demo is a language model without a task: give RUN, a run'),
        (['demo'], 'demo is a language model without a task: give RUN, a run whose task is used'),
        (['RUN', '--temperature=0'], 'temperature must be between 0.000001 and'),
        (['RUN', '--labels=test'], 'num_labels is not set: the data set test needs a number'),
        (['RUN', '--labels=demo', '--num_labels=8', '--label_type=scalar_rating'], 'best_of_4'),
        (['RUN', '--labels=demo', '--num_labels=8'], "the vocabulary 'test' cannot encode"),
        (['RUN', '--labels=LABELS', '--label_type=scalar_rating'], "entry 0: field 'sample': missing"),
        (['RUN', '--labels=LABELS', '--label_type=best'], "'best' is not best_of_N"),
    ],
)
def test_bad_input_is_one_line(tiny_run, arguments, message, capsys):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(
            [
                'evaluate',
                *(word.replace('RUN', tiny_run.folder).replace('LABELS', tiny_run.labels) for word in arguments),
            ]
        )
    errors = capsys.readouterr().err
    assert exit.value.code == 2 and message.replace('RUN/', f'{tiny_run.folder}/') in errors, errors
    assert errors.count('\n') == 1


def test_labels_are_tokens_of_their_runs_vocabulary(tiny_run, capsys, tmp_path):
    """Padding of the run's vocabulary is a token of the other one, so that the numbers alone say nothing."""
    save_model(str(tmp_path / 'other' / 'reward_model'), ['reward_model/'], ['reward'])
    flags = [f'--reward_model={tmp_path}/other', f'--out={tmp_path}/out']
    line = refusal(capsys, ['evaluate', tiny_run.folder, '--labels', tiny_run.labels, *flags])
    other = f'the reward model {tmp_path}/other/reward_model'
    shared = 'use models of the same vocabulary'
    assert line == f'{other} reads another vocabulary than {tiny_run.folder}, the run of the labels: {shared}'
    line = refusal(capsys, ['evaluate', tiny_run.folder, *flags])
    assert line == f'{other} reads another vocabulary than the policy initial: {shared}'


def test_a_reward_model_gives_the_task_where_no_run_does(tiny_run, capsys, tmp_path):
    flags = ['--labels', tiny_run.labels, '--num_checkpoints=0', f'--out={tmp_path}']
    main(['evaluate', f'--reward_model={tiny_run.folder}', *flags])
    with open(str(tmp_path / 'evaluation.json')) as f:
        alone = json.load(f)['reward_model']
    main(['evaluate', tiny_run.folder, *flags])
    with open(str(tmp_path / 'evaluation.json')) as f:
        assert json.load(f)['reward_model']['loss'] == alone['loss'] > 0
