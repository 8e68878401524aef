"""Questions, answers and the journal that keeps them."""

import collections
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.labeling.agreement import pairwise_agreement
from lm_human_preferences.labeling.collection import Collection, overlaps
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
    assert collection.answer(who, question.number, place)
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
    assert not collection.answer('ann', 0, 1)  # and back, too late: it is dan's now
    assert collection.answer('cat', 2, 1)  # late too, but nobody has it
    assert collection.answer('dan', 0, 1)
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
    assert collection.progress('ann') == (1, 2, 1, 9.0)


def test_an_answer_sent_twice_counts_once(collect):
    collection = collect(count=2)
    collection.next_question('ann')
    assert collection.answer('ann', 0, 1) and collection.answer('ann', 0, 2)
    assert len(collection.labels()) == 1
    with pytest.raises(ValueError, match='no such question or answer'):
        collection.answer('ann', 2, 0)
    with pytest.raises(ValueError, match='no such question or answer'):
        collection.answer('ann', 1, 4)


def test_skip_and_undo(collect):
    collection = collect(count=3)
    assert not collection.undo('ann')
    choose(collection, 'ann', 0)
    collection.skip('ann', 1)
    assert (collection.asked, collection.expected) == (3, 2)
    assert collection.next_question('bob').number == 1  # skipped by ann alone
    choose(collection, 'ann', 2)
    assert collection.next_question('ann') is None
    assert collection.undo('ann') and collection.next_question('ann').number == 2
    assert collection.undo('ann') and collection.next_question('ann').number == 2  # 1 is bob's now
    assert collection.undo('ann') and collection.next_question('ann').number == 0
    assert not collection.undo('ann') and collection.labels() == []
    choose(collection, 'ann', 3)
    assert [label['best'] for label in collection.labels()] == [3]
    assert not collection.undo('bob')


def test_an_answer_to_a_question_that_was_skipped_counts(collect):
    """Somebody may go back to its page in the browser."""
    collection = collect(count=2)
    collection.skip('ann', 0)
    assert collection.answer('ann', 0, collection.order('ann', 0).index(0))
    assert [label['best'] for label in collection.labels()] == [0]
    assert collection.answer('ann', 0, 1) and collection.num_answers == 1  # sent twice
    assert collection.undo('ann') and collection.next_question('ann').number == 0
    assert collection.undo('ann') and not collection.undo('ann')


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
    assert again.undo('bob')
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


def test_a_torn_last_line_is_cut_off_and_others_are_named(tmp_path):
    path = tmp_path / 'j.jsonl'
    path.write_bytes(b'{"a": 1}\n{"a": 2}\n{"a": 3')
    journal = Journal(str(path))
    assert journal.entries == [{'a': 1}, {'a': 2}]
    journal.append({'a': 4}, {'a': 5})
    journal.close()
    assert path.read_text() == '{"a": 1}\n{"a": 2}\n{"a": 4}\n{"a": 5}\n'
    path.write_bytes(b'{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(ValueError, match='j.jsonl: line 2 is no entry of a label journal'):
        Journal(str(path))
    path.write_bytes(b'{"kind": "settings", "settings": {"type": "best_of_4", "answers": 4}}\n{"kind": "answer"}\n')
    path.rename(tmp_path / 'j.journal.jsonl')
    with pytest.raises(ValueError, match='line 2 does not fit'):
        Collection(str(tmp_path / 'j.json'), BEST, {})


def test_a_full_disk_tears_no_line(tmp_path):
    """A limit on the size of files acts like a full disk."""
    program = """
import resource, signal, sys
from lm_human_preferences.runs.journal import Journal, journal_path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1])
journal.append({'a': 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (15, resource.RLIM_INFINITY))
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
    assert printed == "OSError\n[{'a': 1}, {'a': 3}]\n"
    assert (tmp_path / 'j.jsonl').read_text() == '{"a": 1}\n{"a": 3}\n'
