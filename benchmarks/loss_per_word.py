"""How well do language models predict held-out film reviews? Their loss in nats a word, so that vocabularies compare.

    python benchmarks/loss_per_word.py MODEL [MODEL …]

MODEL is `demo`, a model folder or a run folder. The texts are the demo's movie snippets of the split `test`, from which
no demo model learns. Each stands after a newline, and its own newline is predicted, too. Words are separated by spaces.
"""

import argparse
import sys

import measuring  # noqa: F401 - first: it makes the package importable

from lm_human_preferences.api import load_policy
from lm_human_preferences.demo.snippets import snippets
from lm_human_preferences.utils.errors import user_message

LONGEST = 94  # tokens of a snippet; the demo's models read 96


def loss_per_word(model: str) -> float:
    """Return the mean loss of a model in nats a word. ValueError if a snippet is too long for it."""
    texts = [snippet.text for snippet in snippets('test')]
    task = {'query_length': 1, 'response_length': LONGEST, 'start_text': None}
    with load_policy(model, **task) as policy:
        logprobs = policy.logprobs('\n', [text + '\n' for text in texts], temperature=1.0)
    return -float(logprobs.sum()) / sum(len(text.split()) for text in texts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('models', nargs='+', metavar='MODEL')
    for model in parser.parse_args().models:
        try:
            print(f'{loss_per_word(model):8.4f} nats a word  {model}', flush=True)
        except (OSError, ValueError) as error:
            print(f'error: {model}: {user_message(error)}', file=sys.stderr)
            return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
