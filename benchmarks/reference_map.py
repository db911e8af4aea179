"""Average precision of a YOLO graph through lensmount and through plain reference code, on the same pictures.

    python -m lensmount_shapes.dataset scenes --count 120
    python benchmarks/reference_map.py MODEL.onnx --images scenes/images --annotations scenes/annotations.json

The reference is written from the definitions and shares nothing with lensmount but the pictures' files: onnxruntime,
OpenCV's letterbox, suppression in two loops, masks made whole at the frame's size and resized, run lengths and
judgement by faster-coco-eval. It is slow. The graph has boxes and scores `(1, 4 + C [+ 32], A)`, and prototypes or not.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as run_lengths

from lensmount_bench.accuracy import evaluate

CONFIDENCE, OVERLAP, MOST = 0.001, 0.7, 300


def letterbox(picture: np.ndarray, height: int, width: int) -> tuple[np.ndarray, float, int, int]:
    rows, columns = picture.shape[:2]
    ratio = min(height / rows, width / columns)
    new = (round(columns * ratio), round(rows * ratio))
    top, left = round((height - new[1]) / 2 - 0.1), round((width - new[0]) / 2 - 0.1)
    frame = np.full((height, width, 3), 114, np.uint8)
    if new != (columns, rows):
        picture = cv2.resize(picture, new, interpolation=cv2.INTER_LINEAR)
    frame[top : top + new[1], left : left + new[0]] = picture
    return frame, ratio, top, left


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return float(both / (areas[0] + areas[1] - both))


def suppress(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[int]:
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        rivals = (k for k in kept if labels[k] == labels[index])
        if all(overlap(boxes[index], boxes[k]) <= OVERLAP for k in rivals):
            kept.append(int(index))
            if len(kept) == MOST:
                break
    return kept


def predict(session: Any, picture: np.ndarray, classes: int) -> list[dict[str, Any]]:
    feed = session.get_inputs()[0]
    height, width = (side if isinstance(side, int) else 640 for side in feed.shape[2:])
    frame, ratio, top, left = letterbox(picture, height, width)
    blob = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)[None], np.float32) / np.float32(255)
    rows, *more = session.run(None, {feed.name: blob})
    rows = rows[0].T
    scores, labels = rows[:, 4 : 4 + classes].max(1), rows[:, 4 : 4 + classes].argmax(1)
    rows, scores, labels = (part[scores > CONFIDENCE] for part in (rows, scores, labels))
    x, y, w, h = rows[:, :4].T
    boxes = np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1)
    found = []
    for index in suppress(boxes, scores, labels):
        x1, y1, x2, y2 = (boxes[index] - [left, top, left, top]) / ratio
        x1, x2 = np.clip((x1, x2), 0, picture.shape[1])
        y1, y2 = np.clip((y1, y2), 0, picture.shape[0])
        item: dict[str, Any] = {
            "category_id": int(labels[index]),
            "score": float(scores[index]),
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
        }
        if more:
            grid = np.tensordot(rows[index, 4 + classes :], more[0][0], 1)
            whole = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
            inner = whole[top : top + round(picture.shape[0] * ratio), left : left + round(picture.shape[1] * ratio)]
            mask = cv2.resize(inner, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR) > 0
            across, down = np.arange(picture.shape[1]), np.arange(picture.shape[0])
            mask &= (across >= x1) & (across < x2) & ((down >= y1) & (down < y2))[:, None]
            item["segmentation"] = run_lengths.encode(np.asfortranarray(mask, dtype=np.uint8))
        found.append(item)
    return found


def reference(model: Path, images: Path, annotations: Path) -> dict[str, float]:
    truth = COCO(str(annotations))
    categories = sorted(truth.cats)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    rows = []
    for number, image in truth.imgs.items():
        for item in predict(session, cv2.imread(str(images / image["file_name"])), len(categories)):
            rows.append(item | {"image_id": number, "category_id": categories[item["category_id"]]})
    judged = {}
    for kind, name in (("bbox", "box AP"), ("segm", "mask AP")):
        if kind == "segm" and not any("segmentation" in row for row in rows):
            continue
        evaluator = COCOeval_faster(truth, truth.loadRes(json.loads(json.dumps(rows, default=_text))), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        judged[name] = float(evaluator.stats[0])
    return judged


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    options = parser.parse_args()
    expected = reference(options.model, options.images, options.annotations)
    report = evaluate(str(options.model), images=options.images, annotations=options.annotations)
    for name, value in expected.items():
        kind = report.rows[0].boxes if name == "box AP" else report.rows[0].masks
        ours = kind["AP"]
        print(f"{name}: lensmount {ours:.4f}, reference {value:.4f}, difference {ours - value:+.4f}")


if __name__ == "__main__":
    main()
