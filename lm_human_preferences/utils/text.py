"""Texts as people read them."""


def one_line(text: str) -> str:
    """Return the text on one line: each newline becomes ⏎."""
    return text.replace('\n', '⏎')
