"""The inputs to start from: `python fuzz_seeds.py DIR` writes DIR/<target>/<name>. Needs torch, onnx, safetensors."""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Seeds = Mapping[str, bytes]


def checkpoints() -> dict[str, bytes]:
    """Zip and legacy checkpoints, a TorchScript archive, a bare pickle."""
    import torch

    class Scripted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2)).half()
    trees: dict[str, Any] = {
        "state": {"a": torch.ones(3), "b": torch.arange(4).reshape(2, 2).t(), "c": torch.ones(2).bfloat16()},
        "module": {"model": module, "epoch": 5, "names": {0: "a"}, "array": np.arange(4)},
        "parameter": {"w": torch.nn.Parameter(torch.ones(2)), "t": (1, 2.5, "x", None, True)},
    }
    found = {}
    for name, tree in trees.items():
        for legacy in (False, True):
            out = io.BytesIO()
            torch.save(tree, out, _use_new_zipfile_serialization=not legacy)
            found[f"{name}{'-legacy' if legacy else ''}.pt"] = out.getvalue()
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Scripted()), out)
    found["script.pt"] = out.getvalue()
    found["bare.pkl"] = pickle.dumps({"a": [1, 2, {3: "x"}], "b": np.arange(3)}, protocol=4)
    return found


def pickles(archives: Seeds) -> dict[str, bytes]:
    """The pickles out of the archives, and others of each protocol."""
    found = {}
    for name, content in archives.items():
        if content[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for entry in archive.namelist():
                    if entry.endswith(".pkl"):
                        found[f"{name}-{Path(entry).name}"] = archive.read(entry)
    for protocol in range(6):
        found[f"plain{protocol}"] = pickle.dumps({"a": [1, 2.5, None], "é": (b"x", {4}), 3: 2**70}, protocol=protocol)
    return found


def safetensors() -> dict[str, bytes]:
    """Two small files."""
    from safetensors.numpy import save

    tensors = {"a": np.ones((2, 3), np.float32), "b": np.arange(5), "c": np.zeros((0, 2), np.float16)}
    return {"three": save(tensors, {"format": "pt", "x": "y"}), "one": save({"w": np.ones(1, np.uint8)})}


def graphs() -> dict[str, bytes]:
    """A graph of a YOLO detector's form, one with external data, one with a subgraph."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 64, 64])
    rows = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 7, 84])
    weights = numpy_helper.from_array(np.ones((1, 7, 84), np.float32), "w")
    outside = TensorProto(name="e", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", "16")):
        outside.external_data.add(key=key, value=value)
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["z"])], "then", [], [rows])
    nodes = {
        "yolo": [helper.make_node("Identity", ["w"], ["output0"])],
        "external": [helper.make_node("Identity", ["e"], ["output0"])],
        "branches": [helper.make_node("If", ["c"], ["output0"], then_branch=branch, else_branch=branch)],
    }
    found = {}
    for name, body in nodes.items():
        tensors = [weights, outside] if name == "external" else [weights]
        graph = helper.make_graph(body, name, [images], [rows], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        texts = {"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "detect", "stride": "32", "imgsz": "[64, 64]"}
        for key, value in texts.items():
            model.metadata_props.add(key=key, value=value)
        found[name] = model.SerializeToString()
    del onnx
    return found


def tflite_graphs() -> dict[str, bytes]:
    """Every operator that becomes ONNX, in files of a few kilobytes."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests/support"))
    from tflite_cases import CASES

    return {name.replace(" ", "-").replace("/", "-"): data for name, data in CASES.items() if len(data) < 1 << 14}


def manifests() -> dict[str, bytes]:
    """A `lensmount.json` with every field."""
    artifact = {"name": "weights.bin", "path": "weights.bin", "size": 64, "sha256": "0" * 64, "uri": "hf://a/b/c"}
    package = {
        "name": "onnx-fp32",
        "format": "onnx",
        "precision": "fp32",
        "artifacts": [artifact],
        "batch": {"static": None, "maximum": 8},
        "settings": [["fused_nms", True]],
        "recommended": [["confidence", 0.4]],
        "preprocess": {"size": [64, 64], "resize": "letterbox", "mean": [0.5, 0.5, 0.5], "std": [1, 1, 1]},
        "requirements": {"devices": ["cpu"], "runtime_version": ">=1"},
    }
    card = {
        "id": "a/b",
        "architecture": "yolo",
        "task": "object-detection",
        "packages": [package],
        "aliases": ["b"],
        "classes": ["cat", "dog"],
        "licence": "MIT",
        "published": [["coco_ap", 1.5]],
        "notes": ["x"],
    }
    return {"full": json.dumps({"format": "lensmount", "format_version": 1, "card": card}).encode()}


def peers() -> dict[str, bytes]:
    """The JSON files of a package folder, as one document."""
    network = {
        "training_input_size": {"height": 64, "width": 64},
        "dynamic_spatial_size_supported": True,
        "dynamic_spatial_size_mode": {"type": "pad-to-be-divisible", "value": 32},
        "color_mode": "rgb",
        "resize_mode": "letterbox",
        "padding_value": 114,
        "input_channels": 3,
        "scaling_factor": 255,
        "normalization": [[0, 0, 0], [1, 1, 1]],
    }
    inference = {
        "image_pre_processing": {
            "auto-orient": {"enabled": True},
            "contrast": {"enabled": True, "type": "Contrast Stretching"},
            "static-crop": {"enabled": True, "x_min": 0, "x_max": 50, "y_min": 0, "y_max": 50},
        },
        "network_input": network,
        "forward_pass": {"static_batch_size": 1},
        "post_processing": {
            "type": "nms",
            "fused": True,
            "nms_parameters": {
                "max_detections": 10,
                "confidence_threshold": 0.1,
                "iou_threshold": 0.5,
                "class_agnostic": 0,
            },
        },
        "class_names_operations": [{"type": "class_name_removal", "class_name": "cat"}],
    }
    found = {}
    for name, architecture, backend, task in (
        ("yolo", "yolov8", "onnx", "object-detection"),
        ("engine", "rfdetr", "trt", "object-detection"),
        ("torch", "sam2", "torch", "interactive-segmentation"),
    ):
        model = {
            "model_id": "a/1",
            "model_architecture": architecture,
            "task_type": task,
            "backend_type": backend,
            "quantization": "fp16",
            "static_batch_size": 1,
            "recommended_parameters": {"confidence": 0.4, "per_class_confidence": {"cat": 0.5}},
        }
        files = {
            "model_config.json": model,
            "inference_config.json": inference,
            "class_names.txt": "cat\ndog\n",
            "trt_config.json": {"dynamic_batch_size_min": 1, "dynamic_batch_size_opt": 2, "dynamic_batch_size_max": 4},
            "sam_configuration.json": {"version": "sam2.1_hiera_t"},
            "model_type.json": {"model_type": "rfdetr-nano"},
        }
        found[name] = json.dumps(files).encode()
    return found


def pictures() -> dict[str, bytes]:
    """One small picture of each kind, and a data URI."""
    import base64

    from PIL import Image

    pixels = (np.indices((9, 7)).sum(0)[..., None] * np.array([20, 10, 5])).astype(np.uint8)
    found = {}
    for kind in ("png", "jpeg", "bmp", "webp", "tiff", "gif"):
        out = io.BytesIO()
        picture = Image.fromarray(pixels)
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(out, kind, **({"exif": exif} if kind in ("jpeg", "png", "webp", "tiff") else {}))
        found[kind] = out.getvalue()
    out = io.BytesIO()
    Image.fromarray(pixels).convert("RGBA").save(out, "png")
    found["rgba"] = out.getvalue()
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(out, "png")
    found["deep"] = out.getvalue()
    found["ppm"] = b"P6 2 2 255\n" + bytes(12)
    found["uri"] = b"data:image/png;base64," + base64.b64encode(found["png"])
    return found


def texts() -> dict[str, bytes]:
    """A lock file and addresses."""
    file = {"uri": "hf://a/b/c", "sha256": "0" * 64, "size": 3, "revision": "a" * 40}
    return {
        "lock": json.dumps({"format_version": 1, "models": {"m": {"onnx": {"w.onnx": file}}}}).encode(),
        "hub": json.dumps("hf://owner/repo@refs/pr/1/path/to/file.onnx").encode(),
        "web": json.dumps("https://example.org:443/a%20b/c.onnx?x=y#sha256=" + "0" * 64).encode(),
        "file": json.dumps("file:///a/b%20c.onnx").encode(),
        "package": json.dumps("package://lensmount_shapes/data/x.onnx").encode(),
    }


def metadata() -> dict[str, bytes]:
    """Inputs, outputs and texts of a graph, as one document."""
    texts = {
        "names": "{0: 'cat', 1: 'dog'}",
        "task": "segment",
        "stride": "[8, 16, 32]",
        "imgsz": "64",
        "end2end": "True",
    }
    return {
        "detect": json.dumps(
            {
                "inputs": [["images", "float32", ["batch", 3, 64, 64]]],
                "outputs": [["output0", "float32", ["batch", 7, 84]]],
                "metadata": {**texts, "names": "['a', 'b', 'c']", "task": "detect", "end2end": "False"},
            }
        ).encode(),
        "segment": json.dumps(
            {
                "inputs": [["images", "float32", [1, 3, 64, 64]]],
                "outputs": [["output0", "float32", [1, 300, 38]], ["output1", "float32", [1, 32, 16, 16]]],
                "metadata": {**texts, "kpt_shape": "[17, 3]", "license": "MIT"},
            }
        ).encode(),
        "bare": json.dumps(
            {
                "inputs": [["x", "float16", [1, 3, 640, 640]]],
                "outputs": [["y", "float16", [1, 84, 8400]]],
                "metadata": {},
            }
        ).encode(),
    }


def provider() -> dict[str, bytes]:
    """A page of the provider's metadata."""

    def package(name: str, manifest: dict[str, Any], *files: str) -> dict[str, Any]:
        listed = [{"fileHandle": f, "downloadUrl": f"https://h/{f}", "md5Hash": "0" * 32} for f in files]
        return {
            "type": "external-model-package-v1",
            "packageId": name,
            "packageManifest": manifest,
            "packageFiles": listed,
            "trustedSource": True,
            "modelFeatures": {},
            "recommendedParameters": {"confidence": 0.5},
        }

    engine = {
        "type": "trt-model-package-v1",
        "minBatchSize": 1,
        "optBatchSize": 2,
        "maxBatchSize": 4,
        "cudaDeviceType": "T4",
        "cudaDeviceCC": "7.5",
        "cudaVersion": "12.2",
        "trtVersion": "10.3",
        "quantization": "fp16",
        "machineType": "gpu-server",
        "machineSpecs": {"type": "gpu-server-specs-v1", "driverVersion": "1", "osVersion": "2"},
        "dynamicBatchSize": True,
    }
    onnx = {
        "type": "onnx-model-package-v1",
        "backendType": "onnx",
        "opset": 17,
        "dynamicBatchSize": True,
        "quantization": "fp32",
        "incompatibleProviders": ["x"],
    }
    config = ("inference_config.json", "class_names.txt")
    page = {
        "type": "external-model-metadata-v1",
        "modelId": "a/1",
        "modelArchitecture": "yolov8",
        "taskType": "object-detection",
        "modelVariant": "n",
        "modelPackages": [package("1", onnx, "weights.onnx", *config), package("2", engine, "engine.plan", *config)],
        "modelDependencies": [{"type": "model-dependency-v1", "name": "x", "modelId": "b/2"}],
        "nextPage": None,
    }
    files = json.loads(peers()["yolo"])
    return {"page": json.dumps({"modelMetadata": page, "files": files}).encode()}


def caches() -> dict[str, bytes]:
    """Entries of a cache, as the target takes them: a line of JSON, then the arrays' bytes."""
    from lensmount.caches import dumps

    values = {
        "vector": np.arange(4, dtype=np.float32),
        "embedding": (np.zeros((1, 2, 3), np.float16), np.ones((2, 2), np.int64), np.float32(0.5)),
        "tree": {"boxes": [(1, 2.5, None, True), "text", b"bytes"], "inf": float("inf"), "empty": np.zeros((0, 4))},
        "prompts": [[(1.0, 2.0)], []],
    }
    made = {}
    for name, value in values.items():
        _, _, head, *arrays, _ = (bytes(chunk) for chunk in dumps(value))
        made[name] = head + b"\n" + b"".join(arrays)
    return made


def seeds() -> dict[str, Seeds]:
    """All of them, by target."""
    archives = checkpoints()
    return {
        "checkpoint": archives,
        "pickle": pickles(archives),
        "safetensors": safetensors(),
        "onnx": graphs(),
        "tflite": tflite_graphs(),
        "manifest": manifests(),
        "peer": peers(),
        "image": pictures(),
        "texts": texts(),
        "metadata": metadata(),
        "provider": provider(),
        "cache": caches(),
    }


def main(folder: Path) -> None:
    """Writes the corpora."""
    for target, files in seeds().items():
        (folder / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / target / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
