"""The notebook runs from top to bottom in a kernel of its own, offline, and is stored without outputs."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("lensmount_shapes")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples/quickstart.ipynb"
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
ERRORS = nbclient.exceptions.CellExecutionError


def execute(notebook: Any, folder: Path) -> Any:
    """Runs all cells in a kernel of this interpreter, whatever kernels and settings the machine has."""
    environ = {
        **os.environ,
        "HOME": str(folder),
        "USERPROFILE": str(folder),
        "XDG_CACHE_HOME": str(folder / ".cache"),
        "IPYTHONDIR": str(folder / ".ipython"),
        "LENSMOUNT_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = nbclient.NotebookClient(
        notebook, timeout=120, startup_timeout=60, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.create_kernel_manager()
    assert client.km.kernel_spec is not None
    client.km.kernel_spec.argv[0] = sys.executable
    client.execute(env=environ)
    return notebook


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return execute(nbformat.read(NOTEBOOK, as_version=4), tmp_path_factory.mktemp("notebook"))


def outputs(notebook: Any, containing: str) -> list[Any]:
    (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and containing in cell.source)
    return cell.outputs


def printed(notebook: Any, containing: str) -> str:
    return "".join(output.text for output in outputs(notebook, containing) if output.output_type == "stream")


def test_it_is_stored_clean() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 8
    for cell in code:
        assert cell.outputs == [] and cell.execution_count is None, cell.source
    assert all(not cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}  # no version of whoever saved it last
    assert notebook.metadata.kernelspec.name == "python3"


@pytest.mark.slow
def test_it_says_what_it_promises(executed: Any) -> None:
    assert "shapes-nano: instance-segmentation on " in printed(
        executed, 'registry.load("shapes-nano", device="cpu")\nprint'
    )
    found = printed(executed, "(result,) =").splitlines()
    assert len(found) >= 5 and all(line.split()[0] in CLASSES for line in found)
    assert "supervision" in printed(executed, "to_supervision")
    explained = printed(executed, "registry.describe")
    assert "circle, square, triangle" in explained and "selected" in explained
    refused = printed(executed, 'precision="int8"')
    assert refused.endswith("see: lensmount errors NoPackageError\n")
    streamed = printed(executed, "model.stream").splitlines()
    assert len(streamed) == 9 and sum("broken.png" in line for line in streamed) == 1
    assert sum(any(name in line for name in CLASSES) for line in streamed) == 8
    assert "cold start" in printed(executed, "lensmount_bench") and "images/s" in printed(executed, "lensmount_bench")


@pytest.mark.slow
@pytest.mark.parametrize("containing", ["result.draw", "cut[~mask]"])
def test_it_shows_pictures(containing: str, executed: Any) -> None:
    cv2 = pytest.importorskip("cv2")
    import numpy as np

    (shown,) = (output.data for output in outputs(executed, containing) if output.output_type == "display_data")
    content = np.frombuffer(base64.b64decode(shown["image/jpeg"]), np.uint8)
    picture = cv2.imdecode(content, cv2.IMREAD_COLOR)
    assert picture.shape == (640, 960, 3) and picture.std() > 10


@pytest.mark.slow
def test_nothing_is_said_on_standard_error(executed: Any) -> None:
    said = [o.text for cell in executed.cells for o in cell.get("outputs", []) if o.get("name") == "stderr"]
    # supervision imports tqdm for notebooks, which misses ipywidgets: theirs to say, and no error
    assert [text for text in said if "ipywidgets" not in text] == []


@pytest.mark.slow
def test_a_broken_cell_fails(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import lensmount\nlensmount.nothing")])
    with pytest.raises(ERRORS, match="no attribute 'nothing'"):
        execute(notebook, tmp_path)
