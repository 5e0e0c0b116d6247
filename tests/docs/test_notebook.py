"""The notebook of the documentation runs from top to bottom, with little training and few samples."""

from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOK = ROOT / "docs" / "tutorial" / "notebook.ipynb"
QUICK = {"TOKENS = 1_000_448": "TOKENS = 4_096", "SAMPLES = 50": "SAMPLES = 2", "THREADS = 2": "THREADS = 1"}


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for written, quick in {**QUICK, 'FOLDER = "runs"': f"FOLDER = {str(tmp_path)!r}"}.items():
        assert written in parameters.source
        parameters.source = parameters.source.replace(written, quick)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    texts = [
        o.text
        for cell in notebook.cells
        if cell.cell_type == "code"
        for o in cell.outputs
        if o.output_type == "stream"
    ]
    assert any("transformerpp+yarn" in text for text in texts), texts


def test_what_is_committed_was_executed():
    """Every cell that shows something has its output, and none of them is an error."""
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]


def test_the_figures_are_pictures():
    outputs = [o for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
