"""What the README says that evaluation prints is what its commands print."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lensmount_shapes")
pytest.importorskip("lensmount_yolo")
pytest.importorskip("faster_coco_eval")
pytest.importorskip("onnxruntime")

README = Path(__file__).resolve().parents[2] / "README.md"
TOLERANCE = 0.002  # what backends and machines may differ by


def section() -> tuple[str, str]:
    """The commands of evaluation, and the text below them."""
    found = re.search(
        r"```bash\n(python -m lensmount_shapes[^`]*)```\n\n```text\n(.*?)```", README.read_text("utf-8"), re.S
    )
    assert found
    return found[1], found[2]


def scores(printed: str) -> tuple[list[str], dict[str, float], dict[str, list[float]]]:
    """Names of the average precisions, they and the number of pictures by name, and those of each class."""
    lines = printed.splitlines()
    top = next(i for i, line in enumerate(lines) if "box AP50" in line)
    names = re.split(r"\s{2,}", lines[top].strip())
    values = [float(value) for value in lines[top + 2].split()[-len(names) :]]
    start = next(i for i, line in enumerate(lines) if line.split() == ["class", "box", "AP", "mask", "AP"])
    classes = {}
    for line in lines[start + 2 :]:
        if not line.strip():
            break
        name, *numbers = line.split()
        classes[name] = [float(number) for number in numbers]
    return names, dict(zip(names, values, strict=True)), classes


def test_the_average_precisions_in_the_readme_are_what_the_commands_print(tmp_path: Path) -> None:
    commands, said = section()
    environ = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        "LENSMOUNT_OFFLINE": "1",
        "NO_COLOR": "1",
        "COLUMNS": "160",
        "PYTHONUTF8": "1",
    }
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-euc", commands],
        cwd=tmp_path, env=environ, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    names, expected, classes = scores(said)
    found_names, found, found_classes = scores(done.stdout)
    assert found_names == names
    assert names[-2:] == ["images", "images/s"]
    for name in names[:-1]:
        assert found[name] == pytest.approx(expected[name], abs=TOLERANCE), name
    assert set(found_classes) == set(classes) == {"circle", "square", "triangle", "star", "ring", "cross"}
    for name, values in classes.items():
        assert found_classes[name] == pytest.approx(values, abs=TOLERANCE), name
