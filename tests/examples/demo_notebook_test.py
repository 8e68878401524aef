"""The notebook of examples/ runs from top to bottom, and is committed without outputs."""

import json
import os
import subprocess
import sys

import pytest
from repository import ROOT

NOTEBOOK = os.path.join(ROOT, 'examples', 'demo.ipynb')

# In a process of its own: on Python 3.7 the client leaves a handler of SIGCHLD behind in the process that runs it.
EXECUTE = """
import sys
import nbclient
import nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=1200, kernel_name='python3').execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_the_notebook_has_no_outputs():
    with open(NOTEBOOK, encoding='utf-8') as file:
        cells = [cell for cell in json.load(file)['cells'] if cell['cell_type'] == 'code']
    assert len(cells) > 4
    assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch, tmp_path):
    for library in ('nbformat', 'nbclient', 'ipykernel'):
        pytest.importorskip(library)
    monkeypatch.setenv('PYTHONPATH', ROOT)
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    executed = str(tmp_path / 'executed.ipynb')
    subprocess.run([sys.executable, '-c', EXECUTE, NOTEBOOK, executed], check=True)
    with open(executed, encoding='utf-8') as file:
        cells = [cell for cell in json.load(file)['cells'] if cell['cell_type'] == 'code']
    outputs = [output for cell in cells for output in cell['outputs']]
    shown = ''.join(''.join(output.get('text', '')) for output in outputs)
    assert 'reward model step 20/20' in shown and 'step 8/8' in shown
    assert shown.count('  before [') == shown.count('  after  [') == 3
    assert '\r' not in shown and '\x1b' not in shown  # progress bars are for terminals
