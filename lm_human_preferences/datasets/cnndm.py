"""News stories of CNN and the Daily Mail (Hermann et al. 2015), the texts of the task `cnndm`."""

import hashlib
import re
from typing import Optional, Sequence

import ftfy

from lm_human_preferences.datasets.hub_copies import Cleaned, published_or_copy
from lm_human_preferences.datasets.missing_texts import MissingText
from lm_human_preferences.datasets.text_files import LineFile, ParquetTexts
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.errors import user_message
from lm_human_preferences.utils.files import read_text

FOLDER = storage.join(storage.LABELS_AND_TEXTS, 'datasets', 'cnndm')
COPY_ON_HUB = ParquetTexts(
    'hf://datasets/abisee/cnn_dailymail/3.0.0/{train,validation,test}-*.parquet#article,highlights'
)
TITLE = 'cnndm'

# What may stand before a story: "By ." and the author's line; times of publication; the place of the news.
_BYLINE = re.compile(r"\ABy(?:[ .]*\n+[^\n]*|(?: [A-Z][\w'’-]+){2,4}[ .]*)\n+(?:and [^\n]{1,60}\n+)?")
_STAMP = re.compile(r'\A.{0,500}?UPDATED:\s+[ .]*\s*\d\d:\d\d[^\n]*?\b20\d\d\b[ .]*', re.DOTALL)
_DATELINE = re.compile(r'\A(?:.{0,1000}?\(CNN\) +--|[^\n]{0,100}?\(CNN\))', re.DOTALL)
_DOTS = re.compile(r'\A[\s.…|]*(?:\n|\Z)')  # lines of dots and bars, which stand between the parts of a heading


def texts(split: str) -> Sequence[str]:
    """Return the stories of a split: the files of 2019 in datasets/cnndm of the cache folder, or the hub's copy."""
    return published_or_copy(lambda: Stories(split), lambda: Cleaned(COPY_ON_HUB.texts(split), clean), TITLE)


def references(split: str) -> Sequence[Optional[str]]:
    """Return the highlights of the stories of a split."""
    return published_or_copy(lambda: Highlights(split), lambda: COPY_ON_HUB.references(split), TITLE)


class Stories(Sequence):
    """The stories of a list of URLs. Each is read when it is indexed, and fetched if it is not in the cache."""

    def __init__(self, split: str):
        published_name = {'valid': 'val'}.get(split, split)
        url_list = storage.join(FOLDER, 'url_lists', f'all_{published_name}.txt')
        self._urls = LineFile(storage.local_file(url_list), str.strip)
        self._folder = storage.join(FOLDER, f'cache_{published_name}')

    def __len__(self) -> int:
        return len(self._urls)

    def __getitem__(self, index: int) -> str:
        """Return a cleaned story. MissingText if its file is missing, and cannot be fetched."""
        return clean(self._read(index))

    def _read(self, index: int) -> str:
        url = self._urls[index]
        name = hashlib.sha1(url.encode('utf-8')).hexdigest() + '.story'
        # A few stories are in the other newspaper's folder.
        sites = ('dailymail', 'cnn') if 'dailymail.co.uk' in url else ('cnn', 'dailymail')
        failures = []
        for site in sites:
            try:
                path = storage.local_file(storage.join(self._folder, site, 'stories', name))
                return read_text(path, errors='replace')
            except (OSError, ValueError) as error:
                failures.append(user_message(error))
                if isinstance(error, ConnectionError):
                    break  # the other folder is on the same server
        raise MissingText(f'the story of {url} is missing from the cnndm data set: {failures[0]}')


class Highlights(Stories):
    """The editors' summaries of the stories, one sentence a line."""

    def __getitem__(self, index: int) -> str:
        """Return a story's highlights. MissingText if its file is missing, and cannot be fetched."""
        return '\n'.join(ftfy.fix_text(sentence).strip() for sentence in self._read(index).split('@highlight')[1:])


def clean(story: str) -> str:
    """Return the article without highlights, by-line, dateline and "UPDATED" stamp, and with straight quotes."""
    text = ftfy.fix_text(story.split('@highlight')[0])
    text = re.sub(r'\n{3,}', '\n\n', text).strip()
    for heading in (_DOTS, _BYLINE, _DOTS, _STAMP, _DOTS, _DATELINE, _DOTS):
        text = heading.sub('', text).strip()
    return text.replace('‘', "'").replace('’', "'").replace('“', '"').replace('”', '"')
