"""News stories of CNN and the Daily Mail (Hermann et al. 2015), for summaries."""

import hashlib
import re
from typing import Sequence

import ftfy

from lm_human_preferences.datasets.text_files import LineFile
from lm_human_preferences.remote import storage

FOLDER = storage.join(storage.LABELS_AND_TEXTS, 'datasets', 'cnndm')

# What may come before a story: "By .", the author on a line of its own; times of publication; a place.
_BYLINE = re.compile(r"\ABy(?:[ .]*\n+[^\n]*|(?: [A-Z][\w'’-]+){2,4}[ .]*)\n+(?:and [^\n]{1,60}\n+)?")
_STAMP = re.compile(r'\A.{0,500}?UPDATED:\s+[ .]*\s*\d\d:\d\d[^\n]*?\b20\d\d\b[ .]*', re.DOTALL)
_DATELINE = re.compile(r'\A(?:.{0,1000}?\(CNN\) +--|[^\n]{0,100}?\(CNN\))', re.DOTALL)


class Stories(Sequence):
    """The stories of a list of URLs, each read (and fetched, if it is not in the cache) when asked for."""

    def __init__(self, mode: str):
        part = {'valid': 'val'}.get(mode, mode)
        self._urls = LineFile(storage.local_file(storage.join(FOLDER, 'url_lists', f'all_{part}.txt')), str.strip)
        self._folder = storage.join(FOLDER, f'cache_{part}')

    def __len__(self) -> int:
        return len(self._urls)

    def __getitem__(self, index: int) -> str:
        """Return a cleaned story. FileNotFoundError if its file is missing."""
        return clean(self._read(index))

    def _read(self, index: int) -> str:
        url = self._urls[index]
        name = hashlib.sha1(url.encode('utf-8')).hexdigest() + '.story'
        # Some stories of a newspaper have the address of another site.
        sites = ('dailymail', 'cnn') if 'dailymail.co.uk' in url else ('cnn', 'dailymail')
        failures = []
        for site in sites:
            try:
                path = storage.local_file(storage.join(self._folder, site, 'stories', name))
            except FileNotFoundError as error:
                failures.append(error)
                continue
            with open(path, encoding='utf-8', errors='replace') as f:
                return f.read()
        raise FileNotFoundError(f'the story of {url} is missing from the cnndm data set: {failures[0]}')


class Highlights(Stories):
    """What the editors put beside the stories as their summaries, one a line."""

    def __getitem__(self, index: int) -> str:
        """Return a story's highlights. FileNotFoundError if its file is missing."""
        return '\n'.join(ftfy.fix_text(part).strip() for part in self._read(index).split('@highlight')[1:])


def texts(mode: str) -> Sequence[str]:
    """Return the stories of `mode`; they lie in datasets/cnndm of the cache folder."""
    return Stories(mode)


def references(mode: str) -> Sequence[str]:
    """Return the highlights of the stories of `mode`."""
    return Highlights(mode)


def clean(story: str) -> str:
    """Return the article alone: no highlights, by-line, dateline or "UPDATED" stamp; straight quotes."""
    text = ftfy.fix_text(story.split('@highlight')[0])
    text = re.sub(r'\n{3,}', '\n\n', text).strip()
    for heading in (_BYLINE, _STAMP, _DATELINE):
        text = heading.sub('', text).strip()
    return text.replace('‘', "'").replace('’', "'").replace('“', '"').replace('”', '"')
