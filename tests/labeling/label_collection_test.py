"""Questions, answers and the journal that keeps them."""

import collections
import contextlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from repository import ROOT

from lm_human_preferences.labeling.agreement import pairwise_agreement
from lm_human_preferences.labeling.collection import Collection, Outcome, overlaps
from lm_human_preferences.labeling.forms import get_form, read_instructions
from lm_human_preferences.labeling.leases import LEASE_SECONDS
from lm_human_preferences.runs.journal import Journal, journal_path
from lm_human_preferences.utils.errors import UserError

BEST = get_form('best_of_4')


class Clock:
    def __init__(self):
        self.now = 1e9

    def __call__(self):
        return self.now


def questions(count, form=BEST, first=0):
    numbers = range(first, first + count)
    return [dict(query=[i], samples=[[i, sample] for sample in range(len(form.sample_names))]) for i in numbers]


@pytest.fixture
def collect(tmp_path):
    """Return a function that opens the collection at tmp_path, as a new process would, and closes the one before."""
    opened = []

    def open_collection(form=BEST, count=0, **options):
        while opened:
            opened.pop().close()
        options.setdefault('settings', dict(response_length=2))
        collection = Collection(str(tmp_path / 'labels.json'), form, planned=count, **options)
        collection.add(questions(count - len(collection.questions), form, len(collection.questions)))
        opened.append(collection)
        return collection

    yield open_collection
    while opened:
        opened.pop().close()


def choose(collection, who, sample):
    """Answer a person's next question by choosing a sample. Return the question's number."""
    question = collection.next_question(who)
    place = collection.order(who, question.number).index(sample)
    assert collection.answer(who, question.number, place) is Outcome.KEPT
    return question.number


def test_labels_do_not_depend_on_the_order_shown(collect):
    collection = collect(count=30)
    wanted = [sample % 4 for sample in range(30)]
    orders = [tuple(collection.order('ann', number)) for number in range(30)]
    assert [choose(collection, 'ann', sample) for sample in wanted] == list(range(30))
    assert collection.labels() == [
        dict(query=[i], sample0=[i, 0], sample1=[i, 1], sample2=[i, 2], sample3=[i, 3], best=wanted[i])
        for i in range(30)
    ]
    assert len(set(orders)) > 10 and orders == [tuple(collection.order('ann', number)) for number in range(30)]
    assert orders != [tuple(collection.order('bob', number)) for number in range(30)]


def test_scores_and_differences():
    rating, compare = get_form('scalar_rating', 7), get_form('scalar_compare')
    assert [rating.value(answer, [0]) for answer in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert [compare.value(answer, [0, 1]) for answer in range(5)] == [-2, -1, 0, 1, 2]
    assert [compare.value(answer, [1, 0]) for answer in range(5)] == [2, 1, 0, -1, -2]
    assert rating.entry([1], [[2]], 3) == dict(query=[1], sample=[2], score=3)
    assert compare.entry([1], [[2], [3]], -1) == dict(query=[1], sample0=[2], sample1=[3], difference=-1)
    with pytest.raises(ValueError, match="not 'best_of_10'"):
        get_form('best_of_10')


def test_instructions(tmp_path):
    (tmp_path / 'mine.txt').write_text('Choose\nwisely.\n\n<b>Truth</b> first.\n')
    assert read_instructions(str(tmp_path / 'mine.txt')) == ['Choose wisely.', '<b>Truth</b> first.']
    assert 'positive sentiment' in read_instructions('sentiment')[0]
    (tmp_path / 'mine.txt').write_bytes(b'Choose\xff')
    with pytest.raises(ValueError, match=r'mine\.txt: not UTF-8 text: byte 6 of the file'):
        read_instructions(str(tmp_path / 'mine.txt'))


def test_nobody_is_given_a_question_that_another_is_busy_with(collect):
    clock = Clock()
    collection = collect(count=3, clock=clock)
    assert [collection.next_question(who).number for who in ('ann', 'bob', 'cat')] == [0, 1, 2]
    assert collection.next_question('dan') is None
    assert collection.next_question('ann').number == 0  # the page loaded again
    clock.now += LEASE_SECONDS - 1
    assert collection.next_question('bob').number == 1
    clock.now += 2
    assert collection.next_question('dan').number == 0  # ann is gone
    assert collection.answer('ann', 0, 1) is Outcome.LATE  # and back, too late: it is dan's now
    assert collection.answer('cat', 2, 1) is Outcome.KEPT  # late too, but nobody has it
    assert collection.answer('dan', 0, 1) is Outcome.KEPT
    assert collection.num_answers == 2


def test_the_seconds_are_those_since_the_question_was_first_shown(collect):
    clock = Clock()
    collection = collect(count=2, clock=clock)
    collection.next_question('ann')
    clock.now += 4
    collection.next_question('ann')
    clock.now += 5.04
    collection.answer('ann', 0, 0)
    with open(journal_path(collection.labels_path)) as journal:
        answer = json.loads(journal.readlines()[-1])
    assert (answer['who'], answer['seconds'], answer['when']) == ('ann', 9.0, '2001-09-09T01:46:49Z')
    assert collection.progress('ann') == (1, 2, 1, 9.0, 3)  # after the settings and two questions


def test_an_answer_sent_twice_counts_once(collect):
    collection = collect(count=2)
    collection.next_question('ann')
    assert [collection.answer('ann', 0, 1) for _ in range(2)] == [Outcome.KEPT] * 2
    assert len(collection.labels()) == 1 and len(kept(collection, 'answer')) == 1
    with pytest.raises(ValueError, match='no such question or answer'):
        collection.answer('ann', 2, 0)
    with pytest.raises(ValueError, match='no such question or answer'):
        collection.answer('ann', 1, 4)


def test_skip_and_undo(collect):
    collection = collect(count=3)
    assert collection.undo('ann') is Outcome.NOTHING
    choose(collection, 'ann', 0)
    assert collection.skip('ann', 1) is Outcome.SKIPPED
    assert (collection.asked, collection.expected) == (3, 2)
    assert collection.next_question('bob').number == 1  # skipped by ann alone
    choose(collection, 'ann', 2)
    assert collection.next_question('ann') is None
    assert collection.undo('ann') is Outcome.UNDONE and collection.next_question('ann').number == 2
    assert collection.undo('ann') is Outcome.GIVEN_AWAY and collection.next_question('ann').number == 2  # 1 is bob's
    assert collection.undo('ann') is Outcome.UNDONE and collection.next_question('ann').number == 0
    assert collection.undo('ann') is Outcome.NOTHING and collection.labels() == []
    choose(collection, 'ann', 3)
    assert [label['best'] for label in collection.labels()] == [3]
    assert collection.undo('bob') is Outcome.NOTHING


def kept(collection, kind):
    """Return the journal's entries of a kind."""
    with open(journal_path(collection.labels_path)) as journal:
        return [entry for entry in map(json.loads, journal) if entry['kind'] == kind]


def test_the_last_answer_of_a_person_to_a_question_counts(collect):
    collection = collect(count=4)
    for sample in (0, 1, 2):
        choose(collection, 'ann', sample)
    order = collection.order('ann', 1)
    assert collection.answer('ann', 1, order.index(3)) is Outcome.CHANGED  # she went back in the browser
    assert [label['best'] for label in collection.labels()] == [0, 3, 2] and collection.num_answers == 3
    assert [answer['value'] for answer in kept(collection, 'answer')] == [0, 1, 2, 3]
    assert collection.progress('ann').own == 3 and collection.values_by_question() == [[0], [3], [2], []]
    assert collection.answer('bob', 1, 0) is Outcome.LATE  # it is still her question
    collection = collect(count=4)
    assert [label['best'] for label in collection.labels()] == [0, 3, 2]
    assert collection.undo('ann') is Outcome.UNDONE and collection.next_question('ann').number == 1
    assert [label['best'] for label in collection.labels()] == [0, 2]  # neither answer to question 1
    assert choose(collection, 'ann', 1) == 1
    assert collection.answer('ann', 1, order.index(1)) is Outcome.KEPT
    assert [label['best'] for label in collection.labels()] == [0, 2, 1]


def test_each_persons_answer_changes_by_itself(collect):
    collection = collect(get_form('scalar_rating'), count=1, overlap=1, people=2)
    for who, answer in (('ann', 0), ('bob', 1), ('ann', 4), ('bob', 3), ('ann', 2)):
        collection.answer(who, 0, answer)
    assert [label['score'] for label in collection.labels()] == [3, 4]
    assert collection.values_by_question() == [[3, 4]] and collection.is_complete


def test_a_question_skipped_after_it_was_answered_is_open_again(collect):
    collection = collect(count=2)
    choose(collection, 'ann', 0)
    choose(collection, 'ann', 1)
    assert collection.skip('ann', 0) is Outcome.WITHDRAWN and collection.skip('ann', 0) is Outcome.SKIPPED
    assert [label['best'] for label in collection.labels()] == [1] and len(kept(collection, 'skip')) == 1
    assert collection.next_question('ann') is None and collection.next_question('bob').number == 0
    assert collect(count=2).num_answers == 1


def test_a_page_that_is_sent_twice_takes_back_one_choice(collect):
    collection = collect(count=3)
    for sample in (0, 1, 2):
        choose(collection, 'ann', sample)
    last = collection.progress('ann').last
    assert collection.undo('ann', last) is Outcome.UNDONE
    assert collection.undo('ann', last) is Outcome.UNDONE_BEFORE and collection.num_answers == 2
    assert collection.undo('ann', collection.progress('ann').last) is Outcome.UNDONE
    assert [label['best'] for label in collection.labels()] == [0]
    for line in (0, 1, -1, 99, 10**30):  # no choice of hers
        assert collection.undo('ann', line) is Outcome.UNDONE_BEFORE
    assert collection.num_answers == 1


@pytest.mark.parametrize('share, people, batch', [(0, 2, 20), (0.5, 3, 20), (1, 5, 20), (0.1, 7, 1)])
def test_there_are_never_more_answers_than_the_budget(collect, share, people, batch):
    collection = collect(budget=48, overlap=share, people=people)
    assert not collection.all_asked() and collection.wanted == 48
    while not collection.all_asked():
        collection.add(questions(batch, first=len(collection.questions)))
    assert collection.asked == collection.expected == 48
    collection.skip('p0', 0)
    collection.add(questions(batch, first=len(collection.questions)))  # in place of what is missing from question 0
    assert collection.asked == 48 + collection.questions[0].people and collection.expected == 48
    while not collection.is_complete:
        for who in range(people + 1):
            question = collection.next_question(f'p{who}')
            if question is not None:
                assert collection.answer(f'p{who}', question.number, 0) is Outcome.KEPT
    assert len(collection.labels()) == collection.num_answers == collection.wanted == 48
    left = collection.unanswered()
    assert left and collection.next_question('new') is None
    assert collection.answer('new', left[0].number, 0) is Outcome.FULL and collection.num_answers == 48


def test_nobody_is_shown_a_question_whose_answer_would_not_count(collect):
    clock = Clock()
    collection = collect(budget=2, clock=clock)
    collection.add(questions(2))
    collection.skip('ann', 0)
    collection.add(questions(2, first=2))
    assert len(collection.questions) == 3
    assert [collection.next_question(who).number for who in ('bob', 'cat')] == [0, 1]
    assert collection.next_question('ann') is None
    clock.now += LEASE_SECONDS + 1
    assert collection.next_question('ann').number == 1
    assert collection.next_question('dan').number == 0 and collection.next_question('bob') is None


def test_an_answer_to_a_question_that_was_skipped_counts(collect):
    """Somebody may go back to its page in the browser."""
    collection = collect(count=2)
    collection.skip('ann', 0)
    place = collection.order('ann', 0).index(0)
    assert [collection.answer('ann', 0, place) for _ in range(2)] == [Outcome.KEPT] * 2  # sent twice
    assert [label['best'] for label in collection.labels()] == [0]
    assert collection.undo('ann') is Outcome.UNDONE and collection.next_question('ann').number == 0
    assert [collection.undo('ann') for _ in range(2)] == [Outcome.UNDONE, Outcome.NOTHING]


def test_overlapping_questions_are_answered_by_different_people(collect):
    assert [number for number in range(40) if overlaps(number, 0.05)] == [19, 39]
    assert sum(overlaps(number, 0.3) for number in range(1000)) == 300
    assert all(overlaps(number, 1.0) for number in range(50))
    collection = collect(count=4, overlap=0.5, people=2)
    assert collection.wanted == 6
    assert [choose(collection, 'ann', sample) for sample in (0, 1, 2, 3)] == [0, 1, 2, 3]
    assert [choose(collection, 'bob', sample) for sample in (1, 0)] == [1, 3]
    assert collection.next_question('cat') is None and collection.is_complete
    assert pairwise_agreement(collection.values_by_question()) == (0.5, 2, 2)


def test_agreement_counts_every_pair_of_people():
    assert pairwise_agreement([[1, 1, 1, 2], [0], [], [3, 3]]) == (4 / 7, 7, 2)
    assert np.isnan(pairwise_agreement([[1], [2]]).rate)


def test_many_people_at_once(collect):
    collection = collect(count=200, overlap=0.1, people=3)
    shown = collections.Counter()

    def work(who):
        while True:
            question = collection.next_question(who)
            if question is None and collection.is_complete:
                return
            if question is not None:
                shown[who, question.number] += 1
                collection.answer(who, question.number, 0)

    threads = [threading.Thread(target=work, args=(f'p{i}',)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(shown.values()) == {1}
    per_question = collections.Counter(number for _, number in shown)
    assert per_question == {number: 3 if overlaps(number, 0.1) else 1 for number in range(200)}
    assert len(collection.labels()) == collection.wanted == 240


def test_a_collection_resumes(collect):
    collection = collect(count=5, overlap=0.4, people=2)
    for sample in (0, 1, 2):
        choose(collection, 'ann', sample)
    choose(collection, 'bob', 3)
    collection.skip('bob', 3)
    collection.undo('ann')
    labels = collection.labels()
    again = collect(count=8, overlap=0.4, people=2)
    assert again.labels() == labels and len(labels) == 3
    assert again.next_question('ann').number == 2
    assert again.next_question('bob').number == 4  # 3 he skipped
    assert again.undo('bob') is Outcome.UNDONE
    again.write_labels()
    with open(again.labels_path) as file:
        assert json.load(file) == labels and again.is_saved
    with pytest.raises(ValueError, match='type was best_of_4, now scalar_rating'):
        collect(get_form('scalar_rating'))
    with pytest.raises(ValueError, match='response_length was 2, now 3'):
        collect(settings=dict(response_length=3))


def test_two_processes_cannot_collect_in_one_place(collect):
    collection = collect(count=1)
    with pytest.raises(UserError, match='in use: another process'):
        Journal(journal_path(collection.labels_path))


START = {'kind': 'settings', 'settings': {}}
FIRST = b'{"kind": "settings", "settings": {}}'


def test_a_torn_last_line_is_cut_off_at_the_next_entry(tmp_path):
    path = tmp_path / 'j.jsonl'
    content = FIRST + b'\n{"a": 2}\n{"a": 3'
    path.write_bytes(content)
    journal = Journal(str(path))
    assert journal.entries == [START, {'a': 2}] and journal.torn == b'{"a": 3'
    assert path.read_bytes() == content
    journal.append({'a': 4}, {'a': 5})
    journal.append({'a': 6})
    journal.close()
    assert path.read_bytes() == FIRST + b'\n{"a": 2}\n{"a": 4}\n{"a": 5}\n{"a": 6}\n' and journal.torn == b''


@pytest.mark.parametrize('end', [b'', b' ', b'\r', b'\0' * 50], ids=['nothing', 'blank', 'return', 'zeros'])
def test_a_last_line_without_newline_counts(tmp_path, end):
    path = tmp_path / 'j.jsonl'
    path.write_bytes(FIRST + b'\n{"a": "}"}' + end)
    journal = Journal(str(path))
    assert journal.entries == [START, {'a': '}'}]
    journal.append({'a': 3})
    journal.close()
    assert Journal(str(path)).entries == [START, {'a': '}'}, {'a': 3}]


NOT_A_JOURNAL = 'this file is no label journal: move it away, or give another --out or NAME'
BAD_LINE = 'line 2 is no entry of a label journal'
MISFIT = 'line 3 does not fit the lines before it: field '


@pytest.mark.parametrize(
    'content, fault',
    [
        (b'Dear diary', NOT_A_JOURNAL),
        (b'Dear diary\n', NOT_A_JOURNAL),
        (b'\n\n', NOT_A_JOURNAL),
        (b'\0' * 99, NOT_A_JOURNAL),
        (b'{', None),
        (b'{"kind": "sett', None),
        (b'{"kind": "set!', NOT_A_JOURNAL),
        (b'{"text": "a novel', NOT_A_JOURNAL),
        (b'{"query": [1], "best": 0}\n', NOT_A_JOURNAL),
        (b'[{"query": [1], "best": 0}]', NOT_A_JOURNAL),
        (b'\x1f\x8b\x08gzip', NOT_A_JOURNAL),
        (b'{"kind": "question"}\n' + FIRST, NOT_A_JOURNAL),
        (FIRST + b'\nDear diary', BAD_LINE),
        (FIRST + b'\n{"a": 1} and more', BAD_LINE),
        (FIRST + b'\n{"a": 1}}', BAD_LINE),
        (FIRST + b'\n{"a": \xff', BAD_LINE),
        (FIRST + b'\n[1', BAD_LINE),
        (FIRST + b'\n{"a"\n{"a": 3}\n', BAD_LINE),
        (FIRST + b'\n{"a":' * 99999, BAD_LINE),
        (FIRST + b'\n{"kind": "answer"}\n', 'started with other settings'),
    ],
)
def test_a_file_that_is_no_journal_stays_as_it_is(tmp_path, content, fault):
    path = tmp_path / 'labels.journal.jsonl'
    path.write_bytes(content)
    if fault is None:
        Journal(str(path)).close()
    else:
        with pytest.raises(ValueError, match=f'labels.journal.jsonl.*{fault}'):
            Collection(str(tmp_path / 'labels.json'), BEST, {})
    assert path.read_bytes() == content


def test_labels_without_their_journal_are_not_overwritten(tmp_path):
    (tmp_path / 'labels.json').write_text('[1]')
    with pytest.raises(
        UserError, match='labels.json exists, but no journal of its answers: give another --out or NAME'
    ):
        Collection(str(tmp_path / 'labels.json'), BEST, {})
    assert (tmp_path / 'labels.json').read_text() == '[1]'


@pytest.mark.parametrize(
    'entry, fault',
    [
        ({'kind': 'anser'}, "'kind': 'anser'"),
        ({}, "'kind': None"),
        ({'kind': 'settings', 'settings': {}}, "'kind': 'settings'"),
        ({'kind': 'answer', 'question': 0, 'who': 'ann'}, "'value': None"),
        ({'kind': 'answer', 'question': 0, 'who': 'ann', 'value': float('nan')}, "'value': nan"),
        ({'kind': 'answer', 'question': 0, 'who': 'ann', 'value': 1, 'seconds': 'x'}, "'seconds': 'x'"),
        ({'kind': 'answer', 'question': 1, 'who': 'ann', 'value': 1}, "'question': 1"),
        ({'kind': 'answer', 'question': -1, 'who': 'ann', 'value': 1}, "'question': -1"),
        ({'kind': 'skip', 'question': True, 'who': 'ann'}, "'question': True"),
        ({'kind': 'skip', 'question': 0, 'who': ['ann']}, r"'who': \['ann'\]"),
        ({'kind': 'undo', 'line': 1, 'who': 'ann'}, "'line': 1"),
        ({'kind': 'undo', 'line': [], 'who': 'ann'}, r"'line': \[\]"),
        ({'kind': 'question', 'query': 'abc', 'samples': [[1]] * 4, 'people': 1}, "'query': 'abc'"),
        ({'kind': 'question', 'query': [1], 'samples': [], 'people': 1}, r"'samples': \[\]"),
        ({'kind': 'question', 'query': [1], 'samples': [[1]] * 4, 'people': 0}, "'people': 0"),
        ({'kind': 'question', 'query': [1], 'samples': [[1]] * 4, 'people': 1, 'place': 'x'}, "'place': 'x'"),
    ],
)
def test_an_entry_that_does_not_fit_is_refused(collect, tmp_path, entry, fault):
    collection = collect(count=1)
    collection.close()
    with open(journal_path(collection.labels_path), 'a') as file:
        file.write(json.dumps(entry) + '\n')
    with pytest.raises(ValueError, match=MISFIT + fault):
        collect(count=1)


ACTS = st.lists(
    st.tuples(st.sampled_from(['ann', 'Zoë "}{"']), st.sampled_from(['answer', 'skip', 'undo']), st.integers(0, 3)),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(acts=ACTS, share=st.floats(0, 1), more=ACTS)
def test_a_journal_cut_at_any_byte_goes_on(tmp_path_factory, acts, share, more):
    """It has all answers before the cut, and what follows is added to them."""
    folder = tmp_path_factory.mktemp('cut')
    path = folder / 'labels.journal.jsonl'

    def act_all(collection, acts):
        collection.add(questions(2 - len(collection.questions), first=len(collection.questions)))
        for who, kind, number in acts:
            if kind == 'undo':
                collection.undo(who)
            elif kind == 'skip':
                collection.skip(who, number % 2)
            else:
                collection.answer(who, number % 2, number)

    collection = Collection(str(folder / 'labels.json'), BEST, {}, planned=2, overlap=1, people=2)
    act_all(collection, acts)
    entries = list(collection._journal.entries)
    collection.close()
    whole = path.read_bytes()
    cut = whole[: int(share * len(whole))]
    path.write_bytes(cut)
    lines = whole.split(b'\n')[:-1]
    counted = [entry for i, entry in enumerate(entries) if len(b'\n'.join(lines[: i + 1])) <= len(cut)]
    with journal_at(path) as journal:
        assert journal.entries == counted
    assert path.read_bytes() == cut
    collection = Collection(str(folder / 'labels.json'), BEST, {}, planned=2, overlap=1, people=2)
    act_all(collection, more)
    labels = collection.labels()
    added = collection._journal.entries
    assert added[: len(counted)] == counted
    collection.close()
    with journal_at(path) as journal:
        assert journal.entries == added
    assert Collection(str(folder / 'labels.json'), BEST, {}, planned=2, overlap=1, people=2).labels() == labels


@contextlib.contextmanager
def journal_at(path):
    journal = Journal(str(path))
    yield journal
    journal.close()


def test_a_full_disk_tears_no_line(tmp_path):
    """A limit on the size of files acts like a full disk."""
    program = """
import resource, signal, sys
from lm_human_preferences.runs.journal import Journal, journal_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1])
journal.append({'kind': 'settings'})
resource.setrlimit(resource.RLIMIT_FSIZE, (28, resource.RLIM_INFINITY))
try:
    journal.append({'a': 2})
except OSError as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append({'a': 3})
print(journal.entries)
"""
    command = [sys.executable, '-c', program, str(tmp_path / 'j.jsonl')]
    printed = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True).stdout.decode()
    assert printed == "OSError\n[{'kind': 'settings'}, {'a': 3}]\n"
    assert (tmp_path / 'j.jsonl').read_text() == '{"kind": "settings"}\n{"a": 3}\n'
