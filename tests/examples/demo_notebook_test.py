"""The notebook of examples/ runs from top to bottom, and is committed without outputs."""

import json
import os

import pytest
from repository import ROOT

NOTEBOOK = os.path.join(ROOT, 'examples', 'demo.ipynb')


def test_the_notebook_has_no_outputs():
    with open(NOTEBOOK, encoding='utf-8') as file:
        cells = [cell for cell in json.load(file)['cells'] if cell['cell_type'] == 'code']
    assert len(cells) > 4
    assert all(cell['outputs'] == [] and cell['execution_count'] is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(monkeypatch, tmp_path):
    nbformat = pytest.importorskip('nbformat')
    nbclient = pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('PYTHONPATH', ROOT)
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name='python3').execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
    shown = ''.join(output.get('text', '') for output in outputs)
    assert 'reward model step 20/20' in shown and 'step 8/8' in shown
    assert shown.count('  before [') == shown.count('  after  [') == 3
    assert '\r' not in shown and '\x1b' not in shown  # progress bars are for terminals
