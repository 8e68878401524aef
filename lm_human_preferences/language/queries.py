"""The query of a text: the tokens that a task gives to its policy (the rules of `start_text` and `end_text`)."""

from typing import List, Optional

from lm_human_preferences.language.encodings import Encoding


def tokenize_query(
    text: str,
    encoding: Encoding,
    query_length: int,
    start_text: Optional[str] = None,
    end_text: Optional[str] = None,
) -> Optional[List[int]]:
    """Return the `query_length` tokens of a text's query, padded on the right, or None if it has none.

    It starts after the first `start_text` token (unless that is the text's last token), is cut to
    `query_length`, and then ends with its last `end_text` token.
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
    return tokens + [encoding.padding_token] * (query_length - len(tokens))


def single_token(encoding: Encoding, text: str, field: str) -> int:
    """Return the token of `text`; ValueError naming the `field` of the task unless it is exactly one."""
    tokens = encoding.encode(text)
    if len(tokens) != 1:
        raise ValueError(f'task.{field} {text!r} is {len(tokens)} tokens of the vocabulary: it must be one')
    return tokens[0]
