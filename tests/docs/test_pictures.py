"""The pictures of the documentation are what the documented command draws, and small."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = sorted(path for path in (ROOT / "docs/pictures").iterdir() if path.is_file())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("drawn")
    runpy.run_path(str(ROOT / "docs/tools/pictures.py"))["main"](folder)
    return folder


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_a_picture_is_what_the_command_draws(picture: Path, drawn: Path) -> None:
    import cv2

    kept, new = cv2.imread(str(picture)), cv2.imread(str(drawn / picture.name))
    assert kept.shape == new.shape
    # another processor may move a box by a part of a pixel; other results would differ over whole objects
    assert np.abs(kept.astype(np.int16) - new.astype(np.int16)).mean() < 1


def test_the_documented_command_draws_rf_detrs_picture(tmp_path: Path) -> None:
    import cv2

    pytest.importorskip("torch")
    text = (ROOT / "plugins/rfdetr/README.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("lensmount predict ./examples/rfdetr-shapes")]
    assert line in (ROOT / "examples/rfdetr-shapes/README.md").read_text(encoding="utf-8")
    arguments = [*line.split()[1:-1], str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "lensmount", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    drawn, kept = cv2.imread(str(tmp_path / "scene.jpg")), cv2.imread(str(ROOT / "docs/pictures/rfdetr.jpg"))
    assert np.abs(drawn.astype(np.int16) - kept.astype(np.int16)).mean() < 1


def test_pictures_are_small_and_all_are_drawn(drawn: Path) -> None:
    assert {path.name for path in PICTURES} == {path.name for path in drawn.iterdir()}
    assert max(path.stat().st_size for path in PICTURES) < 150_000
