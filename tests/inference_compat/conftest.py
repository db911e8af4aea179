"""What the snippets name: pictures and small models."""

from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_sam2(tmp_path_factory):
    """A small SAM 2 with seeded weights, in a folder."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    import sam2_tiny

    return str(sam2_tiny.write_folder(tmp_path_factory.mktemp("sam2-tiny") / "model"))


@pytest.fixture
def run(tmp_path, monkeypatch, tiny_sam2):
    """Runs a snippet as its author typed it, in a folder with `image.jpg`; returns its names.

    `MODEL` and `SAM2` in it stand for a detector with masks and a SAM 2, as ids or paths.
    """
    cv2 = pytest.importorskip("cv2")
    picture = np.full((240, 320, 3), 40, np.uint8)
    picture[40:120, 40:120] = (20, 20, 220)
    picture[130:210, 190:280] = (220, 60, 20)
    cv2.imwrite(str(tmp_path / "image.jpg"), picture)
    cv2.imwrite(str(tmp_path / "other.jpg"), picture[:, ::-1])
    monkeypatch.chdir(tmp_path)

    def run_it(snippet, **names):
        code = textwrap.dedent(snippet).replace("MODEL", "shapes-nano").replace("SAM2_ID", tiny_sam2)
        exec(compile(code, "<snippet>", "exec"), names)
        return names

    yield run_it
    for name in [name for name in sys.modules if name.partition(".")[0] == "inference_models"]:
        del sys.modules[name]
