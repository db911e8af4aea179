"""The command line, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

ROWS = [(32, 32, 8, 16, 0, 0.9), (12, 40, 8, 8, 2, 0.5)]


def lensmount(*arguments, **environ):
    """Runs the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lensmount", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1", **environ},
        timeout=120,
        check=False,
    )


@pytest.fixture
def model(graph, raw):
    return graph({"output0": raw(ROWS)})


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((64, 64, 3), 60 * i, np.uint8))
    return folder


def test_predict_prints_a_table_and_saves_pictures(model, pictures, tmp_path):
    done = lensmount("predict", model, pictures / "0.png", "--save", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "1 cat, 1 bird" in done.stdout
    assert "0.900" in done.stdout
    saved = cv2.imread(str(tmp_path / "out" / "0.jpg"))
    assert saved.shape == (64, 64, 3)
    assert saved.max() > 60  # something was drawn on the black picture
    assert "\x1b" not in done.stdout


def test_predict_writes_json_and_coco(model, pictures, tmp_path):
    coco = tmp_path / "coco.json"
    done = lensmount("predict", model, pictures, "--json", "-", "--coco", coco, "--classes", "bird")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert [entry["source"][-5:] for entry in results] == ["0.png", "1.png", "2.png"]
    written = json.loads(coco.read_text())
    assert [image["id"] for image in written["images"]] == [1, 2, 3]
    assert [category["name"] for category in written["categories"]] == ["cat", "dog", "bird"]
    assert [a["category_id"] for a in written["annotations"]] == [2, 2, 2]
    assert written["annotations"][0]["bbox"] == [8, 36, 8, 8]
    assert len({a["id"] for a in written["annotations"]}) == 3


def test_one_bad_picture_is_reported_and_the_rest_go_on(model, pictures):
    (pictures / "1.png").write_bytes(b"no picture")
    done = lensmount("predict", model, pictures, pictures / "missing.jpg")
    assert done.returncode == 1
    assert done.stdout.count("1 cat") == 2
    assert "1.png" in done.stderr
    assert "missing.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_predict_a_video(model, tmp_path):
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for i in range(6):
        writer.write(np.full((64, 64, 3), 40 * i, np.uint8))
    writer.release()
    done = lensmount(
        "predict", model, video, "--save", tmp_path / "out", "--json", tmp_path / "r.json", "--max-frames", 4
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_text())
    assert [entry["frame"] for entry in results] == [0, 1, 2, 3]
    assert results[1]["seconds"] == pytest.approx(0.1)
    capture = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10, abs=0.1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-like-it", "x.png"], "no model 'nothing-like-it'"),
        (["MODEL", "PICTURES", "--backend", "nothing"], "no backend 'nothing'"),
        (["MODEL", "PICTURES", "--device", "cuda:3"], "cuda:3"),
        (["MODEL", "PICTURES", "--confidence", "3"], "confidence"),
        (["MODEL", "PICTURES", "--classes", "catt"], "did you mean cat"),
        (["MODEL", "EMPTY"], "no images"),
        (["missing.onnx", "PICTURES"], "no such file"),
        (["street.jpg", "shapes-nano"], "lensmount predict shapes-nano street.jpg"),
        (["MODEL", "PICTURES", "--json", "-", "--coco", "-"], "standard output"),
    ],
)
def test_mistakes_are_one_message_and_exit_status_1(model, pictures, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    names = {"MODEL": model, "PICTURES": pictures, "EMPTY": tmp_path / "empty"}
    done = lensmount("predict", *[names.get(a, a) for a in arguments])
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_load_options_are_set(model, pictures):
    done = lensmount("predict", model, pictures / "0.png", "--set", "antialias=true", "--set", "max-candidates=1")
    assert done.returncode == 0, done.stderr
    assert "0.900" in done.stdout
    assert "0.500" not in done.stdout  # the second of the two candidates


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("antialias=7", "antialias should be a flag"),
        ("antialiased=true", "antialiased"),
        ("antialias", "NAME=VALUE"),
        ("max_candidates=0", "max_candidates"),
    ],
)
def test_load_options_are_checked(model, pictures, setting, message):
    done = lensmount("predict", model, pictures / "0.png", "--set", setting)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_flags_are_refused_by_the_parser(model):
    done = lensmount("predict", model, "x.png", "--confidense", "0.5")
    assert done.returncode == 2
    assert "confidense" in done.stderr


def test_describe_and_explain_a_file(model):
    shown = lensmount("describe", model).stdout
    for text in ("model", "object-detection", "3: cat, dog, bird", "64x64", "letterbox"):
        assert text in shown
    described = json.loads(lensmount("describe", model, "--json").stdout)
    assert (described["id"], described["classes"]) == ("model", ["cat", "dog", "bird"])
    assert "selected" in lensmount("explain", model).stdout
    refused = lensmount("explain", model, "--precision", "fp16")
    assert refused.returncode == 1
    assert "needs fp16 (asked for); found fp32" in refused.stdout


def test_lists():
    cards = json.loads(lensmount("models", "--architecture", "yolo", "--json").stdout)
    assert any(card["id"] == "yolov8n-640" for card in cards)
    assert "no models match" in lensmount("models", "--task", "nonsense").stderr
    plugins = json.loads(lensmount("plugins", "--json").stdout)
    assert {"builtin", "yolo"} <= {p["name"] for p in plugins if p["state"] == "active"}
    report = json.loads(lensmount("doctor", "--json").stdout)
    assert [b["usable"] for b in report["backends"] if b["name"] == "onnx"] == [True]
    assert lensmount("--version").stdout.startswith("lensmount ")


def test_a_blocked_plugin_is_named_where_its_model_is_asked_for():
    done = lensmount("predict", "yolov8n-640", "x.jpg", LENSMOUNT_BLOCK_PLUGINS="yolo,shapes")
    assert done.returncode == 1
    assert "lensmount-yolo is blocked, by LENSMOUNT_BLOCK_PLUGINS" in done.stderr
    assert "pip install" not in done.stderr
