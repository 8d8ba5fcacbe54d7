"""Claims about examples/notebook.ipynb: it runs from top to bottom, and is kept without outputs."""

from pathlib import Path

import pytest

pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra dev)")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra dev)")
import nbformat  # noqa: E402  (comes with nbclient)

FILE = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


def test_the_notebook_runs(tmp_path):
    notebook = nbformat.read(FILE, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    shown = [output.get("data", {}) for cell in cells for output in cell.outputs]
    texts = [data["text/plain"] for data in shown if "text/plain" in data]
    assert texts[:2] == ["((8, 192, 256, 3), dtype('uint8'))", "(192, 256, 3)"]
    assert any("image/png" in data for data in shown)
