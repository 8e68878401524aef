"""Figures of texts alone: how varied they are, what they copy from their query, how near they are to a reference."""

import re
from typing import Dict, List, Sequence

import numpy as np

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeL')


def words(text: str) -> List[str]:
    """The words of a text, lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def ngrams(tokens: Sequence[str], n: int) -> List[tuple]:
    """All runs of n tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """How many of the n-grams of words in all texts are different ones (Li et al. 2016); 0 without any."""
    found = [ngram for text in texts for ngram in ngrams(words(text), n)]
    return len(set(found)) / max(1, len(found))


def copied_ngrams(texts: Sequence[str], sources: Sequence[str], n: int) -> float:
    """The share of the texts' n-grams that occur in the text's own source: 1 for a pure copier (section 4.3)."""
    copied = total = 0
    for text, source in zip(texts, sources):
        known = set(ngrams(words(source), n))
        mine = ngrams(words(text), n)
        copied += sum(ngram in known for ngram in mine)
        total += len(mine)
    return copied / max(1, total)


def copied_sentences(texts: Sequence[str], sources: Sequence[str]) -> float:
    """The share of the texts' sentences that stand word for word in the text's own source."""
    copied = total = 0
    for text, source in zip(texts, sources):
        known = ' ' + ' '.join(words(source)) + ' '
        sentences = [' '.join(words(sentence)) for sentence in re.split(r'[.!?]+(?:\s|$)|\n+', text)]
        sentences = [sentence for sentence in sentences if sentence]
        copied += sum(f' {sentence} ' in known for sentence in sentences)
        total += len(sentences)
    return copied / max(1, total)


def rouge(texts: Sequence[str], references: Sequence[str]) -> Dict[str, float]:
    """Mean ROUGE F1 of texts against a reference for each: {'rouge1': …, 'rouge2': …, 'rougeL': …}, stemmed."""
    from rouge_score import rouge_scorer  # slow to load, and needed for data with references only

    scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(texts, references)]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGE_TYPES}
