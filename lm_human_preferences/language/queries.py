"""Make a query from a text: the tokens that a task gives to its policy."""

from typing import List, Optional

from lm_human_preferences.language.encodings import Encoding


def tokenize_query(
    text: str,
    encoding: Encoding,
    query_length: int,
    start_text: Optional[str] = None,
    end_text: Optional[str] = None,
) -> Optional[List[int]]:
    """Return the `query_length` tokens of a text's query, padded on the right, or None if the text has no query.

    The query starts after the first `start_text` token (unless that is the text's last token). It is cut to
    `query_length` tokens, and then after its last `end_text` token. A text without one of these tokens has no query.
    """
    tokens = encoding.encode(text)
    if start_text is not None:
        start = single_token(encoding, start_text, 'start_text')
        if start not in tokens:
            return None
        tokens = tokens[tokens.index(start) + 1 :] or tokens
    tokens = tokens[:query_length]
    if end_text is not None:
        end = single_token(encoding, end_text, 'end_text')
        while tokens and tokens[-1] != end:
            tokens.pop()
    if not tokens:
        return None
    return encoding.pad(tokens, query_length)


def single_token(encoding: Encoding, text: str, field: str) -> int:
    """Return the token of `text`. ValueError naming the task's `field` unless it is exactly one token."""
    tokens = encoding.encode(text)
    if len(tokens) != 1:
        raise ValueError(f'task.{field} {text!r} is {len(tokens)} tokens of the vocabulary: it must be one')
    return tokens[0]
