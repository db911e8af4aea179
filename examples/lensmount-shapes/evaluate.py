"""Scores `shapes-nano` on held-out scenes by COCO's rules, through lensmount's public interface.

    python evaluate.py --backend onnx
    python evaluate.py --backend torch --size 480 320

Prints mAP50-95, mAP50 and mAP75 of boxes and of masks; `--check` fails below the figures the model promises.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from numpy.typing import NDArray

from lensmount import registry
from lensmount_shapes.scenes import CLASSES, make_scene

#: Training uses series 1, the demo picture series 3.
HELD_OUT_SEED = 2
PROMISED = {"bbox": 0.85, "segm": 0.75}


def record(mask: NDArray[np.bool_], xyxy: NDArray[np.float32], image: int, class_id: int) -> dict[str, Any]:
    """What truth and predictions have in common, as COCO writes it."""
    x1, y1, x2, y2 = (float(value) for value in xyxy)
    return {
        "image_id": image,
        "category_id": int(class_id),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "segmentation": rle.encode(np.asfortranarray(mask.astype(np.uint8))),
    }


def score(truth: dict[str, Any], found: list[dict[str, Any]], kind: str) -> tuple[float, float, float]:
    """mAP50-95, mAP50, mAP75 of boxes (`bbox`) or masks (`segm`)."""
    # Predictions with masks would be scored by the masks' boxes, so they go without for `bbox`.
    rows = [{k: v for k, v in row.items() if kind == "segm" or k != "segmentation"} for row in found]
    with contextlib.redirect_stdout(io.StringIO()):
        ground = COCO(truth)
        evaluation = COCOeval_faster(ground, ground.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    whole, at_50, at_75 = (float(value) for value in evaluation.stats[:3])
    return whole, at_50, at_75


def evaluate(backend: str, count: int = 500, width: int = 256, height: int = 256) -> dict[str, tuple[float, ...]]:
    """Scores by kind, of `count` scenes."""
    model = registry.load("shapes-nano", backend=backend)
    truth: dict[str, Any] = {
        "images": [{"id": i, "width": width, "height": height} for i in range(count)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [],
    }
    found: list[dict[str, Any]] = []
    for index in range(count):
        scene = make_scene(HELD_OUT_SEED, index, width, height)
        for mask, xyxy, class_id in zip(scene.masks, scene.xyxy, scene.class_id, strict=True):
            row = record(mask, xyxy, index, class_id)
            row |= {"id": len(truth["annotations"]) + 1, "area": float(mask.sum()), "iscrowd": 0}
            truth["annotations"].append(row)
        # A low threshold, as COCO's rules want the whole curve of precision over recall.
        result = model(scene.image, confidence=0.005, iou_threshold=0.7, max_detections=100)[0]
        masks = result.masks.dense()
        for mask, xyxy, class_id, confidence in zip(
            masks, result.xyxy, result.class_id, result.confidence, strict=True
        ):
            found.append({**record(mask, xyxy, index, class_id), "score": float(confidence)})
    return {kind: score(truth, found, kind) for kind in PROMISED}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    scores = evaluate(options.backend, options.count, *options.size)
    for kind, figures in scores.items():
        print(kind, *(f"{name} {value:.4f}" for name, value in zip(("mAP", "mAP50", "mAP75"), figures, strict=True)))
    if options.check and any(scores[kind][0] < least for kind, least in PROMISED.items()):
        raise SystemExit(f"below what is promised: {PROMISED}")
