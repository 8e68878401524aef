"""Metrics of texts: how varied they are, what they copy from their query, how close they are to a reference."""

import re
from typing import Dict, List, Sequence

import numpy as np

ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeL')


def words(text: str) -> List[str]:
    """Return the words of a text in lower case, without punctuation."""
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())


def ngrams(tokens: Sequence[str], n: int) -> List[tuple]:
    """Return all sequences of n neighbouring tokens, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct_ngrams(texts: Sequence[str], n: int) -> float:
    """Return the share of distinct n-grams among all n-grams of the texts (Li et al. 2016); 0 if there are none."""
    found = [ngram for text in texts for ngram in ngrams(words(text), n)]
    return len(set(found)) / max(1, len(found))


def copied_ngrams(texts: Sequence[str], sources: Sequence[str], n: int) -> float:
    """Return the share of the texts' n-grams that occur in the text's own source: 1 if all is copied (section 4.3)."""
    copied = total = 0
    for text, source in zip(texts, sources):
        known = set(ngrams(words(source), n))
        mine = ngrams(words(text), n)
        copied += sum(ngram in known for ngram in mine)
        total += len(mine)
    return copied / max(1, total)


def copied_sentences(texts: Sequence[str], sources: Sequence[str]) -> float:
    """Return the share of the texts' sentences that occur word for word in the text's own source."""
    copied = total = 0
    for text, source in zip(texts, sources):
        known = ' ' + ' '.join(words(source)) + ' '
        sentences = [' '.join(words(sentence)) for sentence in re.split(r'[.!?]+(?:\s|$)|\n+', text)]
        sentences = [sentence for sentence in sentences if sentence]
        copied += sum(f' {sentence} ' in known for sentence in sentences)
        total += len(sentences)
    return copied / max(1, total)


def rouge(texts: Sequence[str], references: Sequence[str]) -> Dict[str, float]:
    """Return the mean ROUGE F1 of texts against their references: {'rouge1': …, 'rouge2': …, 'rougeL': …}, stemmed."""
    from rouge_score import rouge_scorer  # slow to load, and only needed for data with references

    scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(texts, references)]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGE_TYPES}
