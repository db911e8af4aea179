"""Requests as `inference_sdk` 1.8.3 sends them, recorded from it; they are answered with what it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serving import SCENE, serving

RECORDED = json.loads(Path(__file__).with_name("recorded.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def named():
    with serving(["shapes-nano", f"yolov8n-640={SCENE.with_name('shapes-nano.onnx')}"]) as client:
        yield client


def filled(value, picture):
    if value == "$IMAGE":
        return picture
    if isinstance(value, dict):
        return {key: filled(item, picture) for key, item in value.items()}
    return [filled(item, picture) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("recorded", RECORDED, ids=[f"{item['call']} {item['path'][:24]}" for item in RECORDED])
def test_a_recorded_request(named, picture, recorded):
    data = None
    if "body" in recorded:
        data = json.dumps(filled(recorded["body"], picture)).encode()
    elif "raw" in recorded:
        data = picture["value"].encode()
    headers = {"Content-Type": "application/json"} if data else {}
    status, _, answer = named.raw(recorded["method"], recorded["path"], data, headers)
    assert status == 200, answer
    found = json.loads(answer)
    if recorded["path"].startswith("/model/"):
        assert all(set(row) >= {"model_id", "task_type"} for row in found["models"])
    elif recorded["path"] == "/info":
        assert set(found) == {"name", "version", "uuid"}
    else:
        for item in found if isinstance(found, list) else [found]:
            assert item["image"] == {"width": 960, "height": 640} and item["time"] > 0
            rows = item["predictions"]
            keys = {"x", "y", "width", "height", "confidence", "class", "class_id"}
            assert rows and all(keys <= set(row) for row in rows)
            if "object" not in recorded["path"]:
                assert all(row["mask_format"] == "polygon" and len(row["points"]) > 3 for row in rows)
