"""Ctrl-C: exit status 130 where the work had an end, what was done is said, and files are whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")


ROWS = [(32, 32, 8, 16, 0, 0.9), (12, 40, 8, 8, 2, 0.5)]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for a child alone")


def interrupted(*arguments, group: bool, after: int = 1):
    """Runs a command, presses Ctrl-C after some lines of output; gives its status and what it wrote on both."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lensmount", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after)]
        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        rest = process.stdout.read()  # `communicate` would lose what `readline` has read ahead
        process.wait(timeout=120)
        errors.seek(0)
        said = errors.read()
    assert all(lines), said
    assert "Traceback" not in said, said
    return process.returncode, "".join(lines) + rest, said


@pytest.fixture
def model(graph, raw):
    return graph({"output0": raw(ROWS)})


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for number in range(3000):
        writer.write(np.full((64, 64, 3), number % 250, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("group", [False, True], ids=["process", "group"])
def test_predict_over_pictures(model, tmp_path, group):
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((64, 64, 3), np.uint8))
    many = [tmp_path / "one.png"] * 3000
    code, output, said = interrupted(
        "predict", model, *many, "--json", tmp_path / "all.json", "--coco", tmp_path / "coco.json", group=group, after=3
    )
    assert code == 130, said
    results = json.loads((tmp_path / "all.json").read_text())
    assert 1 <= len(results) < 3000
    assert f"stopped after {len(results)} of 3000 pictures" in said
    assert output.count("one.png: ") == len(results)
    coco = json.loads((tmp_path / "coco.json").read_text())
    assert len(coco["images"]) == len(results)
    assert len(coco["annotations"]) == 2 * len(results)


def test_predict_over_a_video(model, clip, tmp_path):
    code, _, said = interrupted(
        "predict", model, clip, "--json", tmp_path / "all.json", "--save", tmp_path / "drawn", group=True, after=5
    )
    assert code == 130, said
    results = json.loads((tmp_path / "all.json").read_text())
    assert f"stopped after {len(results)} pictures and frames" in said
    capture = cv2.VideoCapture(str(tmp_path / "drawn" / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == len(results)
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["clip.mp4"]


PRESSED = """
import signal
from lensmount_vision.cli import stopping

signal.signal(signal.SIGINT, signal.default_int_handler)
done = []
for times in (1, 2):
    try:
        with stopping.uninterrupted():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
            done.append("written")
    except KeyboardInterrupt:
        done.append("interrupted")
assert done == ["written", "interrupted", "interrupted"], done
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_waits_for_the_files_of_one_result():
    """In a process of its own: in this one, other tests' libraries may have put handlers of their own."""
    done = subprocess.run([sys.executable, "-c", PRESSED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_live_source_that_is_stopped_is_no_failure(model, monkeypatch):
    from lensmount import registry
    from lensmount_vision.cli.predict import run
    from lensmount_vision.models.entries import Feed

    class Sinks:
        added = 0

        def add(self, info, result):
            self.added += 1
            raise KeyboardInterrupt

        def finish(self):
            pass

    picture = np.zeros((64, 64, 3), np.uint8)
    for live, code in ((True, None), (False, 130)):
        sinks = Sinks()
        with registry.load(model) as loaded:
            work = loaded.stream(Feed("cam", lambda: (picture for _ in range(100_000)), live=live))
            try:
                run(work, sinks)
                left = None
            except Exception as leaving:
                left = leaving.exit_code
        assert (left, sinks.added) == (code, 1)
