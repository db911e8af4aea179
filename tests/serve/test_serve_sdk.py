"""The unmodified `inference_sdk`, in an environment of its own, against a server of ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from serving import SCENE, serving

VARIABLE = "LENSMOUNT_INFERENCE_SDK_PYTHON"


@pytest.fixture(scope="session")
def sdk():
    """Runs calls of the client, all in one process."""
    python = os.environ.get(VARIABLE)
    if not python or not Path(python).exists():
        pytest.skip(f"needs {VARIABLE}: the Python of an environment with inference-sdk")

    def run(client, calls):
        made = subprocess.run(
            [python, str(Path(__file__).with_name("sdk_calls.py")), f"http://127.0.0.1:{client.port}"],
            input=json.dumps(calls),
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        )
        assert made.returncode == 0, made.stderr[-2000:]
        found = json.loads(made.stdout.splitlines()[-1])
        assert [item.get("error") for item in found] == [None] * len(calls)
        return [item["answer"] for item in found]

    return run


def test_detection_flow(sdk, server, direct):
    """The client decodes and encodes the picture again; boxes agree as far as JPEG's loss lets them."""
    answers = sdk(
        server,
        [
            ["get_server_info", {}, {}, "v1"],
            ["load_model", {"model_id": "shapes-nano"}, {}, "v1"],
            ["list_loaded_models", {}, {}, "v1"],
            ["infer", {"inference_input": str(SCENE), "model_id": "shapes-nano"}, {}, "v1"],
            [
                "infer",
                {"inference_input": [str(SCENE)] * 3, "model_id": "shapes-nano"},
                {"confidence_threshold": 0.6, "max_batch_size": 3, "class_filter": ["star"],
                 "visualize_predictions": True, "response_mask_format": "rle"},
                "v1",
            ],
            ["infer", {"inference_input": str(SCENE), "model_id": "shapes-nano"},
             {"api_key_transport": "both", "confidence_threshold": "best"}, "v1"],
        ],
    )  # fmt: skip
    info, _, _, masks, several, best = answers
    assert info["name"] == "lensmount"
    expected = direct(confidence=0.4, iou_threshold=0.3)
    rows = masks["predictions"]
    assert [r["class"] for r in rows] == expected.class_name.tolist()
    found = np.array([[r["x"], r["y"], r["width"], r["height"]] for r in rows])
    centre = (expected.xyxy[:, :2] + expected.xyxy[:, 2:]) / 2
    np.testing.assert_allclose(found[:, :2], centre, atol=3)
    assert all(len(r["points"]) > 3 for r in rows)
    assert len(several) == 3 and all(r["class"] == "star" and r["rle"] for item in several for r in item["predictions"])
    assert len(best["predictions"]) >= len(rows)


@pytest.mark.parametrize("name", ["yolov8n_dq.onnx.xz"])
def test_public_name_of_a_file(sdk, reference_data, tmp_path, name):
    """People ask for `yolov8n-640`; the client asks the server for `coco/3`."""
    import lzma

    path = tmp_path / "yolov8n.onnx"
    path.write_bytes(lzma.decompress((reference_data / "weights" / name).read_bytes()))
    bus = str(reference_data / "images/bus.jpg")
    from lensmount import registry

    with registry.load(path) as model:
        expected = model(bus, confidence=0.4, iou_threshold=0.3)[0]
    with serving([f"yolov8n-640={path}"]) as client:
        (answer,) = sdk(client, [["infer", {"inference_input": bus, "model_id": "yolov8n-640"}, {}, "v1"]])
    assert sorted(r["class"] for r in answer["predictions"]) == sorted(expected.class_name.tolist())
    assert len(answer["predictions"]) > 3


def test_other_calls_of_the_client(sdk, reference_data, tmp_path, direct):
    """Masks from prompts, vectors and cosines, classes, keypoints, and the older API."""
    import lzma
    import shutil

    pytest.importorskip("torch")
    import sam2_tiny

    goldens = reference_data / "goldens"

    def unpacked(name, target):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(lzma.decompress((goldens / name).read_bytes()))
        return target

    sam2 = sam2_tiny.write_folder(tmp_path / "sam2")
    clip = unpacked("clip-tiny-ViT-hf/model.safetensors.xz", tmp_path / "clip" / "model.safetensors").parent
    shutil.copyfile(goldens / "clip-tiny-ViT-hf/config.json", clip / "config.json")
    models = [
        f"sam2/hiera_tiny={sam2}",
        f"clip/ViT-B-16={clip}",
        f"perception-encoder/PE-Core-L14-336={unpacked('PE-Core-tiny.pt.xz', tmp_path / 'PE-Core-tiny.pt')}",
        f"yolov8n-pose-640={unpacked('yolov8n-pose.pt.xz', tmp_path / 'pose.pt')}",
        f"resnet18={unpacked('yolov8n-cls.pt.xz', tmp_path / 'cls.pt')}",
        f"yolov8n-seg-640={SCENE.with_name('shapes-nano.onnx')}",
    ]
    picture = str(SCENE)
    clicks = [{"points": [{"x": 880, "y": 200, "positive": True}]}]
    calls = [
        ["sam2_segment_image", {"inference_input": picture, "prompts": clicks}, {}, "v1"],
        ["get_clip_image_embeddings", {"inference_input": [picture, picture]}, {}, "v1"],
        ["get_clip_text_embeddings", {"text": ["a", "b"]}, {}, "v1"],
        ["clip_compare", {"subject": picture, "prompt": ["a cat", "a dog"]}, {}, "v1"],
        ["get_perception_encoder_image_embeddings", {"inference_input": picture}, {}, "v1"],
        ["get_perception_encoder_text_embeddings", {"text": "a"}, {}, "v1"],
        ["infer", {"inference_input": picture, "model_id": "yolov8n-pose-640"}, {"confidence_threshold": 0.0001}, "v1"],
        ["infer", {"inference_input": picture, "model_id": "classifiers/1"}, {}, "v1"],
        [
            "infer",
            {"inference_input": picture, "model_id": "coco-dataset-vdnr1/2"},
            {"confidence_threshold": 0.4},
            "v0",
        ],
    ]
    with serving(models, max_models=8) as client:
        found = sdk(client, calls)
    masks, images, texts, cosines, pe_image, pe_text, keypoints, classes, older = found
    assert masks["predictions"][0]["format"] == "polygon" and masks["predictions"][0]["confidence"] > 0
    assert len(images) == 2 and images[0]["embeddings"] == images[1]["embeddings"]
    assert len(texts["embeddings"]) == 2 and len(cosines["similarity"]) == 2
    assert len(pe_image["embeddings"][0]) == len(pe_text["embeddings"][0])
    assert len(keypoints["predictions"][0]["keypoints"]) == 17
    assert classes["top"] == classes["predictions"][0]["class"]
    expected = direct(confidence=0.4, iou_threshold=0.3)
    assert [row["class"] for row in older["predictions"]] == expected.class_name.tolist()
