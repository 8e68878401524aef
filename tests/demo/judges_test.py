import numpy as np
import pytest
import word_choice

from lm_human_preferences.demo import data_set, judges, snippets
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding

TEXTS = ['good film', 'bad film', 'good good plot', 'bad plot!', 'the film']


def test_terms():
    assert judges.terms("It's GOOD, no?") == ["it's", 'good', 'no', '?'] + [
        "< it's",
        "it's good",
        'good no',
        'no ?',
        '? >',
    ]


def test_sparse_products_equal_dense_ones():
    matrix = judges.BagOfWords(TEXTS).vectors(TEXTS + ['unseen', ''])
    dense = np.zeros(matrix.shape)
    dense[matrix.rows, matrix.columns] = matrix.values
    random = np.random.RandomState(0)
    left, right = random.randn(matrix.shape[0]), random.randn(matrix.shape[1])
    np.testing.assert_allclose(matrix.times(right), dense.dot(right))
    np.testing.assert_allclose(matrix.transposed_times(left), dense.T.dot(left))
    np.testing.assert_allclose(matrix.gram(), dense.dot(dense.T))
    np.testing.assert_allclose(np.linalg.norm(dense, axis=1), [1] * 5 + [0, 0])


def test_ridge_equals_the_normal_equations():
    ratings = [2, -2, 3, -3, 0.5]
    judge = judges.RidgeJudge(TEXTS, ratings)
    matrix = judges.BagOfWords(TEXTS).vectors(TEXTS)
    dense = np.zeros(matrix.shape)
    dense[matrix.rows, matrix.columns] = matrix.values
    normal = dense.T.dot(dense) + judge.penalty * np.eye(matrix.shape[1])
    weights = np.linalg.solve(normal, dense.T.dot(np.array(ratings) - np.mean(ratings)))
    np.testing.assert_allclose(judge.scores(TEXTS), np.mean(ratings) + dense.dot(weights))
    assert judge.score('unseen words') == pytest.approx(np.mean(ratings))


def test_ridge_takes_the_penalty_with_the_least_leave_one_out_error():
    random = np.random.RandomState(1)
    chosen = set()
    for noise in (0, 1, 30):
        texts = [' '.join(random.choice(list('abcdefghij'), 6)) for _ in range(40)]
        ratings = np.array([text.count('a') - text.count('b') for text in texts]) + noise * random.randn(40)
        targets = ratings - ratings.mean()
        matrix = judges.BagOfWords(texts).vectors(texts)
        errors = []
        for penalty in judges.RIDGE_PENALTIES:
            kernel = matrix.gram() + penalty * np.eye(40)
            left_out = []
            for i in range(40):
                rest = np.arange(40) != i
                dual = np.linalg.solve(kernel[rest][:, rest], targets[rest])
                left_out.append(targets[i] - kernel[i, rest].dot(dual))
            errors.append(np.mean(np.square(left_out)))
        chosen.add(judges.RidgeJudge(texts, ratings).penalty)
        assert judges.RidgeJudge(texts, ratings).penalty == judges.RIDGE_PENALTIES[np.argmin(errors)]
    assert len(chosen) > 1


def test_judges_agree_with_people_on_snippets_they_never_saw():
    judge = judges.RidgeJudge.of_people()
    assert word_choice.correlation(judge.score) > 0.55
    assert word_choice.correlation(judges.vader_score) > 0.4
    assert judge.score('A wonderful, moving film.') > 1 > -1 > judge.score('A dull and stupid mess.')


def test_vader():
    assert judges.vader_score('A wonderful film') > 0.5
    assert judges.vader_score('A terrible film') < -0.4
    assert judges.vader_score('') == 0


def test_choice_accuracy():
    choices = word_choice.Choices([['a', 'bb', 'c', 'd'], ['aa', 'b', 'ccc', 'd']], np.array([1, 0]))
    assert word_choice.choice_accuracy(len, choices) == 0.5


def test_word_choice_model_learns_people_like_good_ones():
    encoding = Encoding('own', *train_bpe(data_set.lm_texts('train')[:2000], 1024))

    def choices(split, num):
        return word_choice.choices_of(data_set.best_of_4_labels(split, num, encoding, 64, 50), encoding)

    train, valid, test = choices('train', 400), choices('valid', 200), choices('test', 200)
    texts = {s.text for s in snippets.snippets('train')}
    assert all(text in texts for four in train.texts for text in four)
    assert word_choice.bag_of_words_choice_accuracy(train, valid, test) > 0.35
    model = word_choice.WordChoiceModel(train, 1e-5)
    assert word_choice.choice_accuracy(model.score, train) > 0.9
