"""The protocol's routes answer what direct calls of the model answer, in the protocol's words."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from serving import ROOT, serving


def boxes_of(rows):
    return np.array([[r["x"] - r["width"] / 2, r["y"] - r["height"] / 2, r["x"] + r["width"] / 2,
                      r["y"] + r["height"] / 2] for r in rows])  # fmt: skip


def test_boxes(server, picture, direct):
    status, answer = server.post("/infer/object_detection", {"model_id": "shapes-nano", "image": picture})
    assert status == 200
    expected = direct(confidence=0.4, iou_threshold=0.3)
    rows = answer["predictions"]
    assert len(rows) == len(expected) > 5
    np.testing.assert_allclose(boxes_of(rows), expected.xyxy, atol=1e-3)
    np.testing.assert_allclose([r["confidence"] for r in rows], expected.confidence, atol=1e-5)
    assert [r["class"] for r in rows] == expected.class_name.tolist()
    assert [r["class_id"] for r in rows] == expected.class_id.tolist()
    assert answer["image"] == {"width": 960, "height": 640}
    assert len({r["detection_id"] for r in rows}) == len(rows)
    assert "tracker_id" not in rows[0] and "visualization" not in answer  # nothing is null on this route


def test_options_reach_the_model(server, picture, direct):
    body = {
        "model_id": "shapes-nano", "image": picture, "confidence": 0.8, "class_filter": ["circle", "star"],
        "max_detections": 2, "class_agnostic_nms": True, "id": "mine",
    }  # fmt: skip
    _, answer = server.post("/infer/object_detection", body)
    expected = direct(
        confidence=0.8, iou_threshold=0.3, classes=["circle", "star"], max_detections=2, class_agnostic=True
    )
    assert [r["class"] for r in answer["predictions"]] == expected.class_name.tolist()
    assert answer["inference_id"] == "mine"
    assert {r["class"] for r in answer["predictions"]} <= {"circle", "star"}


def test_masks(server, picture, direct):
    expected = direct(confidence=0.4, iou_threshold=0.3)
    body = {"model_id": "shapes-nano", "image": picture, "response_mask_format": "rle"}
    _, answer = server.post("/infer/instance_segmentation", body)
    found = [row["rle"] for row in answer["predictions"]]
    assert [item["counts"] for item in found] == [item["counts"] for item in expected.masks.to_rle()]
    assert found[0]["size"] == [640, 960]
    _, answer = server.post("/infer/instance_segmentation", body | {"response_mask_format": "polygon"})
    first = answer["predictions"][0]
    outline = np.array([[p["x"], p["y"]] for p in first["points"]])
    mask = expected.masks.dense()[0]
    import cv2

    drawn = cv2.fillPoly(np.zeros(mask.shape, np.uint8), [outline.astype(np.int32)], 1).astype(bool)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.98
    assert first["tracker_id"] is None and answer["frame_id"] is None  # nulls stay on this route


def test_several_pictures_and_a_drawing(server, picture, direct):
    body = {"model_id": "shapes-nano", "image": [picture, picture], "visualize_predictions": True}
    _, answer = server.post("/infer/object_detection", body)
    assert [len(item["predictions"]) for item in answer] == [len(direct(confidence=0.4, iou_threshold=0.3))] * 2
    assert base64.b64decode(answer[0]["visualization"])[:3] == b"\xff\xd8\xff"


def test_best_and_default_are_what_the_package_recommends(server, picture, direct):
    for word in ("best", "default"):
        _, answer = server.post(
            "/infer/object_detection", {"model_id": "shapes-nano", "image": picture, "confidence": word}
        )
        assert len(answer["predictions"]) == len(direct(iou_threshold=0.3))
    status, _ = server.post(
        "/infer/keypoints_detection", {"model_id": "shapes-nano", "image": picture, "confidence": "best"}
    )
    assert status == 400


def test_data_prefix_and_missing_padding(server, picture):
    value = picture["value"].rstrip("=")
    for text in ("data:image/jpeg;base64," + value, value):
        body = {"model_id": "shapes-nano", "image": {"type": "base64", "value": text}}
        assert server.post("/infer/object_detection", body)[0] == 200


def test_registry(picture):
    with serving() as client:
        first = client.get("/model/registry")[1]["models"]
        assert first == [
            {"model_id": "shapes-nano", "task_type": "instance-segmentation", "batch_size": None, "input_height": 256,
             "input_width": 256}
        ]  # fmt: skip
        assert client.post("/model/add", {"model_id": "nothing/7"})[0] == 404
        status, answer = client.post("/model/remove", {"model_id": "shapes-nano"})
        assert status == 200 and len(answer["models"]) == 1  # named at the start: it stays
        assert client.raw("POST", "/model/clear")[0] == 200
        status, info = client.get("/info")
        assert set(info) == {"name", "version", "uuid"}


def test_a_file_is_served_under_the_protocol_s_name(scene, picture):
    """The client asks for `coco/3` where people say `yolov8n-640`; the answer lists exactly what was asked for."""
    folder = "examples/lensmount-shapes/src/lensmount_shapes/data/shapes-nano.onnx"
    with serving([f"yolov8n-640={ROOT / folder}"]) as client:
        status, answer = client.post("/model/add", {"model_id": "coco/3", "api_key": "any"})
        assert status == 200
        assert "coco/3" in [row["model_id"] for row in answer["models"]]
        status, answer = client.post("/infer/object_detection", {"model_id": "coco/3", "image": picture})
        assert status == 200 and len(answer["predictions"]) > 5


def test_a_path_on_the_command_line_is_local(picture):
    path = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/shapes-nano.onnx"
    with serving([str(path)]) as client:
        assert client.post("/infer/object_detection", {"model_id": "local:shapes-nano", "image": picture})[0] == 200
        assert client.post("/infer/object_detection", {"model_id": str(path), "image": picture})[0] == 404


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"max_candidates": 10}, "max_candidates"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": "often"}, "confidence"),
        ({"class_filter": ["unicorn"]}, "unicorn"),
        ({"include_anomaly_map": True}, "anomaly"),
        ({"confidance": 0.5}, "confidance"),
        ({"image": {"type": "numpy", "value": [1]}}, "pickle"),
        ({"image": {"type": "url", "value": "http://127.0.0.1/"}}, "--allow-urls"),
        ({"image": {"type": "base64", "value": "!!"}}, "base64"),
        ({"image": {"type": "base64", "value": "AAAA"}}, "not an image"),
        ({"image": []}, "no picture"),
        ({"model_id": "/etc/passwd"}, "no model"),
        ({"model_id": "https://example.com/x.onnx"}, "no model"),
        ({"model_id": "coco/3000"}, "no model"),
    ],
)
def test_wrong_requests_are_told(server, picture, change, said):
    status, answer = server.post("/infer/object_detection", {"model_id": "shapes-nano", "image": picture} | change)
    assert status in (400, 404)
    assert said in answer["message"]


def test_wrong_task(server, picture):
    for route in ("keypoints_detection", "classification"):
        status, answer = server.post(f"/infer/{route}", {"model_id": "shapes-nano", "image": picture})
        assert status == 400 and "instance-segmentation" in answer["message"]
