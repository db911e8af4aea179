"""The peer's package folders, built here file by file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount.specs import BatchPolicy, to_dict
from lensmount_roboflow.packages.folder import read_inference_models_folder

INFERENCE_CONFIG = {
    "image_pre_processing": {"auto-orient": {"enabled": True}},
    "network_input": {
        "training_input_size": {"height": 640, "width": 640},
        "dynamic_spatial_size_supported": False,
        "color_mode": "rgb",
        "resize_mode": "letterbox",
        "padding_value": 127,
        "input_channels": 3,
        "scaling_factor": 255,
    },
    "forward_pass": {"max_dynamic_batch_size": 8},
    "post_processing": {"type": "nms", "fused": False},
}


def build(folder: Path, config: object, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"model_config.json": config, **files}.items():
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return folder


def yolo(folder: Path, config: dict | None = None, **files: object) -> Path:
    base = {"model_architecture": "yolov8", "task_type": "object-detection", "backend_type": "onnx"}
    names = {"weights.onnx": b"onnx", "inference_config.json": INFERENCE_CONFIG, "class_names.txt": "cat\n\n dog \n"}
    return build(folder, {**base, **(config or {})}, **{**names, **files})


def test_a_detector(tmp_path):
    config = {
        "model_id": "my-project/3",
        "quantization": "fp16",
        "recommended_parameters": {"confidence": 0.4, "perClassConfidence": {"dog": 0.3}},
        "something_new": {"a": 1},
    }
    folder = yolo(tmp_path / "package", config)
    card = read_inference_models_folder(folder)
    assert (card.id, card.architecture, card.task) == ("my-project/3", "yolo", "object-detection")
    assert card.classes == ("cat", "dog")
    assert card.recommended == (("confidence", 0.4), ("per_class_confidence", (("dog", 0.3),)))
    (package,) = card.packages
    assert (package.name, package.format, package.precision) == ("onnx-fp16", "onnx", "fp16")
    assert package.recommended == card.recommended
    assert package.batch == BatchPolicy(maximum=8)
    assert package.preprocess is not None
    assert (package.preprocess.padding_value, package.preprocess.rounding) == (127, "truncate")
    assert package.settings == (
        ("origin", "inference-models"),
        ("family", "yolov8"),
        ("fused_nms", False),
        ("auto_orient", True),
    )
    roles = {a.name: a.role for a in package.artifacts}
    assert roles == {"weights.onnx": "graph", "inference_config.json": "data", "class_names.txt": "data"}
    graph = package.artifacts[0]
    assert graph.uri == (folder.resolve() / "weights.onnx").as_uri()
    assert graph.size == 4
    hash(card)
    json.dumps(to_dict(card))


def test_the_folder_names_a_model_without_id(tmp_path):
    assert read_inference_models_folder(yolo(tmp_path / "my export (2)")).id == "my-export-2"
    assert read_inference_models_folder(yolo(tmp_path / "other", {"model_id": "a b/ü"})).id == "a-b"


def test_precision_is_unknown_where_nothing_says_it(tmp_path):
    (package,) = read_inference_models_folder(yolo(tmp_path)).packages
    assert (package.name, package.precision) == ("onnx", "unknown")


def test_paths_as_text_and_other_folders(tmp_path):
    for other in (tmp_path, tmp_path / "absent", "a\0b"):
        with pytest.raises(ModelFileError):
            read_inference_models_folder(other)
    yolo(tmp_path)
    assert read_inference_models_folder(str(tmp_path)).architecture == "yolo"


def test_an_engine(tmp_path):
    trt = {"dynamic_batch_size_min": 1, "dynamic_batch_size_opt": 2, "dynamic_batch_size_max": 4}
    config = {"model_architecture": "rfdetr", "backend_type": "trt"}
    folder = yolo(tmp_path, config, **{"engine.plan": b"plan", "trt_config.json": trt})
    card = read_inference_models_folder(folder)
    (package,) = card.packages
    assert (card.architecture, card.task, package.format) == ("rfdetr", "object-detection", "engine")
    assert package.batch == BatchPolicy(maximum=4)
    assert package.requirements.devices == ("cuda",)
    assert package.setting("batch_range") == (1, 2, 4)
    assert {a.name for a in package.artifacts} >= {"engine.plan", "trt_config.json"}
    assert "weights.onnx" not in {a.name for a in package.artifacts}


def test_torchscript(tmp_path):
    folder = yolo(tmp_path, {"backend_type": "torch-script"}, **{"weights.torchscript": b"zip"})
    (package,) = read_inference_models_folder(folder).packages
    assert (package.format, package.artifacts[0].name) == ("torchscript", "weights.torchscript")


def test_rfdetr_weights(tmp_path):
    config = {"model_architecture": "rfdetr", "task_type": "instance-segmentation", "backend_type": "torch"}
    folder = yolo(tmp_path, config, **{"weights.pth": b"w", "model_type.json": {"model_type": "rfdetr-seg-nano"}})
    card = read_inference_models_folder(folder)
    assert card.task == "instance-segmentation"
    assert card.packages[0].setting("variant") == "rfdetr-seg-nano"
    assert card.packages[0].artifacts[0].role == "weights"


def test_sam2_perception_encoder_clip(tmp_path):
    sam2 = {"model_architecture": "sam2", "task_type": "interactive-instance-segmentation", "backend_type": "torch"}
    files = {"model.pt": b"w", "sam_configuration.json": {"version": "sam2.1_hiera_t"}}
    card = read_inference_models_folder(build(tmp_path / "sam2", sam2, **files))
    assert (card.task, card.packages[0].setting("variant")) == ("interactive-segmentation", "sam2.1_hiera_t")
    assert card.packages[0].preprocess is None
    encoder = {"model_architecture": "perception-encoder", "task_type": "embedding", "backend_type": "torch"}
    files = {"model.pt": b"w", "config.json": {"vision_encoder_config": "PE-Core-L14-336"}}
    card = read_inference_models_folder(build(tmp_path / "pe", encoder, **files))
    assert (card.architecture, card.packages[0].setting("variant")) == ("perception_encoder", "PE-Core-L14-336")
    clip = {"model_architecture": "clip", "task_type": "embedding", "backend_type": "onnx"}
    card = read_inference_models_folder(build(tmp_path / "clip", clip, **{"visual.onnx": b"v", "textual.onnx": b"t"}))
    assert [a.name for a in card.packages[0].artifacts] == ["visual.onnx", "textual.onnx"]


def test_owlv2_is_a_hugging_face_folder(tmp_path):
    config = {"model_architecture": "owlv2", "backend_type": "hugging-face"}
    files = {"config.json": {}, "preprocessor_config.json": {}, "model.safetensors": b"w", "merges.txt": "a b"}
    card = read_inference_models_folder(build(tmp_path, config, **files))
    (package,) = card.packages
    assert (card.task, package.format) == ("open-vocabulary-detection", "torch")
    assert package.setting("layout") == "hugging-face"
    assert {a.name: a.role for a in package.artifacts} == {
        "config.json": "data",
        "preprocessor_config.json": "data",
        "model.safetensors": "weights",
        "merges.txt": "data",
    }


def test_external_data_comes_along(tmp_path):
    folder = yolo(tmp_path, **{"weights.onnx.data": b"tensors"})
    assert "weights.onnx.data" in {a.name for a in read_inference_models_folder(folder).packages[0].artifacts}


@pytest.mark.parametrize("name", ["weights.onnx", "inference_config.json", "class_names.txt"])
def test_a_missing_file_is_named(tmp_path, name):
    folder = yolo(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ModelFileError, match=f"lacks {name}") as caught:
        read_inference_models_folder(folder)
    assert "model_config.json" in str(caught.value.found)


def test_a_missing_folder(tmp_path):
    with pytest.raises(ModelFileError, match="does not exist"):
        read_inference_models_folder(tmp_path / "absent")
    with pytest.raises(ModelFileError, match=r"lacks model_config\.json"):
        read_inference_models_folder(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe{}", b"[" * 100_000, b"[]"])
def test_a_broken_configuration(tmp_path, content):
    (tmp_path / "model_config.json").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model_config\.json"):
        read_inference_models_folder(tmp_path)


def test_malformed_keys_are_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"recommended_parameters\.confidence") as caught:
        read_inference_models_folder(yolo(tmp_path / "a", {"recommended_parameters": {"confidence": 40}}))
    assert caught.value.found == "40"
    with pytest.raises(ModelFileError, match=r"inference_config.json is malformed at network_input"):
        read_inference_models_folder(yolo(tmp_path / "b", **{"inference_config.json": {}}))
    files = {"model.pt": b"w", "sam_configuration.json": {"version": 2}}
    with pytest.raises(ModelFileError, match="version"):
        read_inference_models_folder(
            build(tmp_path / "c", {"model_architecture": "sam2", "backend_type": "torch"}, **files)
        )


def test_class_names_must_be_text(tmp_path):
    with pytest.raises(ModelFileError, match=r"class_names\.txt is not text"):
        read_inference_models_folder(yolo(tmp_path, **{"class_names.txt": b"\xff\xfe\x00"}))


def test_an_absurd_file_is_not_read(tmp_path, monkeypatch):
    from lensmount_roboflow.packages import schema

    monkeypatch.setattr(schema, "MAX_BYTES", 1000)
    with pytest.raises(UnsafeFileError, match="too large"):
        read_inference_models_folder(yolo(tmp_path, **{"class_names.txt": "x\n" * 1000}))


def test_unknown_combinations(tmp_path):
    with pytest.raises(UnsupportedModelError, match="form") as caught:
        other = {"model_architecture": "sam2", "task_type": "interactive-instance-segmentation"}
        read_inference_models_folder(yolo(tmp_path, other))
    assert "sam2 as torch" in str(caught.value.expected)


def test_code_is_refused_and_never_run(tmp_path):
    marker = tmp_path / "ran"
    config = {"model_module": "model.py", "model_class": "Model"}
    code = f"open({str(marker)!r}, 'w')\nclass Model: pass\n"
    with pytest.raises(UnsafeFileError, match="code") as caught:
        read_inference_models_folder(yolo(tmp_path / "package", config, **{"model.py": code}))
    assert "plugin" in str(caught.value.fix)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.onnx", "class_names.txt", "model_config.json"])
def test_links_that_leave_the_folder_are_refused(tmp_path, name):
    folder = yolo(tmp_path / "package")
    outside = tmp_path / "outside"
    outside.write_bytes((folder / name).read_bytes())
    (folder / name).unlink()
    (folder / name).symlink_to(outside)
    with pytest.raises(UnsafeFileError, match="leaves the package folder"):
        read_inference_models_folder(folder)


def test_links_inside_the_folder_and_to_the_folder_are_fine(tmp_path):
    folder = yolo(tmp_path / "package")
    (folder / "weights.onnx").rename(folder / "blob")
    (folder / "weights.onnx").symlink_to("blob")
    alias = tmp_path / "alias"
    alias.symlink_to(folder)
    (graph, *_) = read_inference_models_folder(alias).packages[0].artifacts
    assert (graph.name, graph.size) == ("weights.onnx", 4)
    assert graph.uri.endswith("/weights.onnx")


def test_the_peers_cache_shares_blobs(tmp_path):
    folder = yolo(tmp_path / "models-cache" / "yolov8n-640-1234" / "abc")
    blobs = tmp_path / "shared-blobs"
    blobs.mkdir()
    (folder / "weights.onnx").rename(blobs / "d41d8cd9")
    (folder / "weights.onnx").symlink_to(blobs / "d41d8cd9")
    assert read_inference_models_folder(folder).packages[0].artifacts[0].size == 4
    secret = tmp_path / "secret"
    secret.write_text("x")
    (folder / "class_names.txt").unlink()
    (folder / "class_names.txt").symlink_to(secret)
    with pytest.raises(UnsafeFileError):
        read_inference_models_folder(folder)


def test_a_dangling_link_and_a_loop(tmp_path):
    folder = yolo(tmp_path)
    (folder / "weights.onnx").unlink()
    (folder / "weights.onnx").symlink_to("nowhere")
    with pytest.raises(ModelFileError, match=r"weights\.onnx"):
        read_inference_models_folder(folder)
    (folder / "weights.onnx").unlink()
    (folder / "weights.onnx").symlink_to("weights.onnx")
    with pytest.raises(ModelFileError, match=r"weights\.onnx"):
        read_inference_models_folder(folder)


def test_a_folder_in_place_of_a_file(tmp_path):
    folder = yolo(tmp_path)
    (folder / "weights.onnx").unlink()
    (folder / "weights.onnx").mkdir()
    with pytest.raises(ModelFileError, match="not a file"):
        read_inference_models_folder(folder)


def test_asking_imports_nothing_heavy():
    code = (
        "import sys; import lensmount_roboflow.packages.folder;"
        "print([m for m in ('pydantic', 'numpy', 'torch', 'cv2', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
