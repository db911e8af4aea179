"""Ctrl-C while something is measured: exit status 130, no report, and no process left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are found in Linux's /proc")


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def started(*arguments, environment=None):
    return subprocess.Popen(
        [sys.executable, "-m", "lensmount", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1", **(environment or {})},
        start_new_session=True,
    )


def until(what, seconds=60.0):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
@pytest.mark.parametrize("command", ["bench", "tune"])
def test_a_measurement_is_stopped(command, group, home, tmp_path):
    report = tmp_path / "report.json"
    process = started(command, "shapes-nano", "--seconds", 300, "--json", report)
    workers = until(lambda: children(process.pid))
    time.sleep(1)
    workers += children(process.pid)
    (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopped after" in said
    assert "no report was written" in said
    assert "Traceback" not in said
    assert not report.exists()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_an_evaluation_is_stopped(home, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from lensmount.cli.app import app
    from lensmount_bench.confusion import Confusion

    folder = tmp_path / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "0.png"), np.zeros((480, 640, 3), np.uint8))
    images = [{"id": i, "file_name": "0.png", "height": 480, "width": 640} for i in range(1, 41)]
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": images, "annotations": [box], "categories": [{"id": 1, "name": "circle"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    report = tmp_path / "report.json"
    calls = []

    def add(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(Confusion, "add", add)
    arguments = ["--images", folder, "--annotations", tmp_path / "truth.json", "--task", "object-detection"]
    done = CliRunner().invoke(app, ["eval", "shapes-nano", *map(str, arguments), "--json", str(report)])
    assert done.exit_code == 130, done.output
    assert "stopped after 5 of 40 pictures" in done.output
    assert "no report was written" in done.output
    assert not report.exists()


def test_an_evaluation_takes_the_first_picture_of_each_file(home, tmp_path):
    """Annotations are of one picture: the frames of an animation shift nothing."""
    import io

    from PIL import Image as Pillow

    from lensmount import registry
    from lensmount_bench.accuracy import _run

    black = Pillow.fromarray(np.zeros((48, 64, 3), np.uint8))
    names = []
    for number in range(3):
        stream = io.BytesIO()
        frames = [Pillow.fromarray(np.full((48, 64, 3), 60 * i, np.uint8)) for i in range(1, 4)]
        black.save(stream, "GIF", save_all=True, append_images=frames)
        names.append(tmp_path / f"{number}.gif")
        names[-1].write_bytes(stream.getvalue())
    told = []
    with registry.load("shapes-nano", backend="onnx") as model:
        found = [info for info, _ in _run(model, names, "it", lambda *said: told.append(said), {})]
    assert [(info.index, info.source) for info in found] == [(i, str(name)) for i, name in enumerate(names)]
    assert told == [("it", 1, 3), ("it", 2, 3), ("it", 3, 3)]
