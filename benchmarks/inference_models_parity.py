"""The same weights and calls in inference-models and in lensmount: boxes, scores and masks compared.

    python benchmarks/inference_models_parity.py [--pictures FOLDER]

Needs `inference-models` (0.39.6 was compared), without lensmount-inference-compat, beside lensmount with the extras
`yolo`, `onnx` and `roboflow`, and the example lensmount-shapes, whose network is put into a package folder that both
load. Exits 1 where an object is found by one alone, a box differs by more than 1 px (inference-models rounds), a score
by more than 0.001, or a mask's IoU is 0.99 or less.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lensmount import AutoModel as Ours
from lensmount import registry


def write_package(folder: Path) -> Path:
    """A package folder of the example's network, in the form of inference-models."""
    fetched = registry.pull("shapes-nano", package="onnx-fp32")["onnx-fp32"]
    (graph,) = (Path(path) for path in fetched.files.values() if str(path).endswith(".onnx"))
    (folder / "weights.onnx").write_bytes(graph.read_bytes())
    card = registry.describe("shapes-nano")
    (folder / "class_names.txt").write_text("\n".join(card.classes) + "\n", encoding="utf-8")
    config = {
        "model_architecture": "yolov8",
        "task_type": card.task,
        "backend_type": "onnx",
        "dynamic_batch_size_supported": True,
    }
    (folder / "model_config.json").write_text(json.dumps(config), encoding="utf-8")
    side = {"height": 256, "width": 256}
    inference = {
        "image_pre_processing": {"auto-orient": {"enabled": True}},
        "network_input": {
            "training_input_size": side,
            "dynamic_spatial_size_supported": False,
            "color_mode": "rgb",
            "resize_mode": "letterbox",
            "padding_value": 114,
            "input_channels": 3,
            "scaling_factor": 255,
        },
        "forward_pass": {"max_dynamic_batch_size": 8},
        "post_processing": {"type": "nms", "fused": False},
    }
    (folder / "inference_config.json").write_text(json.dumps(inference), encoding="utf-8")
    return folder


def scenes(folder: Path | None) -> list[np.ndarray]:
    """Pictures with shapes, BGR."""
    if folder is not None:
        return [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    from lensmount_shapes.scenes import make_scene

    return [make_scene(1, index, 640, 480).image for index in range(8)]


def compare(theirs: Any, ours: Any) -> dict[str, float]:
    """How far two predictions of one picture are apart."""
    boxes, others = (np.asarray(one.xyxy, np.float32) for one in (theirs, ours))
    masks, other_masks = (np.asarray(one.mask, bool) for one in (theirs, ours))
    left = list(range(len(others)))
    far = apart = 0.0
    least, missing = 1.0, 0
    for index, box in enumerate(boxes):
        same = [j for j in left if int(ours.class_id[j]) == int(theirs.class_id[index])]
        if not same:
            missing += 1
            continue
        best = min(same, key=lambda j: float(np.abs(others[j] - box).max()))
        left.remove(best)
        far = max(far, float(np.abs(others[best] - box).max()))
        apart = max(apart, abs(float(theirs.confidence[index]) - float(ours.confidence[best])))
        both = np.logical_and(masks[index], other_masks[best]).sum()
        least = min(least, float(both / max(np.logical_or(masks[index], other_masks[best]).sum(), 1)))
    return {"objects": len(boxes), "missing": missing + len(left), "px": far, "score": apart, "mask IoU": least}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path)
    args = parser.parse_args()
    from inference_models import AutoModel as Theirs

    with tempfile.TemporaryDirectory() as made:
        folder = write_package(Path(made))
        one = Theirs.from_pretrained(str(folder), onnx_execution_providers=["CPUExecutionProvider"], device="cpu")
        two = Ours.from_pretrained(str(folder), onnx_execution_providers=["CPUExecutionProvider"], device="cpu")
        print("| picture | objects | found by one alone | boxes, px | scores | least mask IoU |")
        print("|---:|---:|---:|---:|---:|---:|")
        good = True
        for number, picture in enumerate(scenes(args.pictures)):
            row = compare(one(picture)[0], two(picture)[0])
            print(f"| {number} | " + " | ".join(f"{value:.4g}" for value in row.values()) + " |")
            good &= row["missing"] == 0 and row["px"] <= 1 and row["score"] <= 1e-3 and row["mask IoU"] > 0.99
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
