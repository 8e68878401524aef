"""The site that `make docs` builds: strictly, and without anything from another host."""

import re
import subprocess
import sys

import pytest
from repository import ROOT

pytest.importorskip('mkdocs', reason='needs the Python package mkdocs')

LOADED = re.compile(r'<(?:link|script|img|source|iframe|video|object)\b[^>]*?(?:src|srcset|href|data)="([^"]+)"')


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', str(folder)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()
    return folder


def test_pages_load_nothing_from_other_hosts(site):
    pages = list(site.glob('*.html'))
    assert len(pages) > 10
    for page in pages:
        loaded = LOADED.findall(page.read_text(encoding='utf-8'))
        assert loaded and not [url for url in loaded if re.match(r'([a-z]+:)?//', url)], page


def test_styles_load_nothing_from_other_hosts(site):
    for style in site.rglob('*.css'):
        text = style.read_text(encoding='utf-8')
        assert not re.search(r'(url\(|@import)\s*["\']?\s*([a-z]+:)?//', text), style
