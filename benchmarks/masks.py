"""What masks cost after the network: decoding, run lengths, suppression.

    python benchmarks/masks.py [--runs 30] [--check]

Made-up prototypes and boxes at 1080p (letterboxed to 640), against the usual way: product of all coefficients and
prototypes, every mask resized to the whole image with cv2, thresholded and cut to its box. Both are timed in turn in
one process on two OpenCV threads. `--check` exits 1 when 100 compact masks take more than 15 ms.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import cv2
import numpy as np

from lensmount.specs import Preprocess
from lensmount_vision.images.geometry import Geometry, plan
from lensmount_vision.results.boxes import nms
from lensmount_vision.results.mask_decoding import decode_prototypes, resize_logits_in_boxes

HEIGHT, WIDTH = 1080, 1920
LIMIT_MS = 15.0


def scene(count: int, smallest: int, largest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients, prototypes with structure of a few pixels, and boxes in the image."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(40, 40, 32)).astype(np.float32)
    prototypes = np.ascontiguousarray(cv2.resize(coarse, (160, 160), interpolation=cv2.INTER_CUBIC).transpose(2, 0, 1))
    half = rng.uniform(smallest, largest, (count, 2)) / 2
    centre = rng.uniform(half, np.array([WIDTH, HEIGHT]) - half)
    boxes = np.concatenate([centre - half, centre + half], 1).astype(np.float32)
    return rng.normal(size=(count, 32)).astype(np.float32), prototypes, boxes


def usual_way(coefficients: np.ndarray, prototypes: np.ndarray, boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Every mask at the image's full size."""
    logits = (coefficients @ prototypes.reshape(32, -1)).reshape(-1, 160, 160)
    left, top, right, bottom = (round(v / 4) for v in geometry.content_box)
    masks = np.zeros((len(boxes), HEIGHT, WIDTH), bool)
    for mask, logit, (x0, y0, x1, y1) in zip(masks, logits, np.ceil(boxes).astype(int).tolist(), strict=True):
        large = cv2.resize(logit[top:bottom, left:right], (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        mask[y0:y1, x0:x1] = large[y0:y1, x0:x1] > 0
    return masks


def interleave(calls: dict, runs: int) -> dict[str, float]:
    """Median milliseconds of each call, run in turn."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(runs + 2):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if turn >= 2:
                times[name].append(time.perf_counter() - begin)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}


def candidates(count: int, clusters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes around a few objects, as a head gives them before suppression."""
    rng = np.random.default_rng(0)
    of = rng.integers(0, clusters, count)
    centre = rng.uniform(0, 1000, (clusters, 2))[of] + rng.normal(0, 8, (count, 2))
    half = rng.uniform(20, 300, (clusters, 2))[of] * rng.uniform(0.8, 1.2, (count, 2)) / 2
    return np.concatenate([centre - half, centre + half], 1), rng.random(count), of % 80


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(2)
    geometry = plan((HEIGHT, WIDTH), Preprocess())

    print("| masks at 1080p | boxes, px | compact ms | MB | run lengths ms | from logits ms | full size ms | MB |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|")
    slowest = 0.0
    for count, smallest, largest in ((20, 60, 400), (100, 30, 200), (100, 60, 400), (100, 200, 800)):
        coefficients, prototypes, boxes = scene(count, smallest, largest)
        logits = np.einsum("nk,khw->nhw", coefficients, prototypes)
        masks = decode_prototypes(coefficients, prototypes, boxes, geometry)
        full = usual_way(coefficients, prototypes, boxes, geometry)
        if (masks.dense() != full).mean() > 1e-5:
            sys.exit("the two ways differ")
        del full
        # The full-size masks are timed apart: they empty the caches of whatever runs next.
        took = interleave(
            {
                "compact": lambda c=coefficients, p=prototypes, b=boxes: decode_prototypes(c, p, b, geometry),
                "rle": masks.to_rle,
                "logits": lambda v=logits, b=boxes: resize_logits_in_boxes(v, b, geometry),
            },
            args.runs,
        )
        usual = interleave(
            {"usual": lambda c=coefficients, p=prototypes, b=boxes: usual_way(c, p, b, geometry)},
            max(3, args.runs // 6),
        )
        if largest <= 400:
            slowest = max(slowest, took["compact"])
        print(
            f"| {count} | {smallest}–{largest} | {took['compact']:.2f} | {masks.nbytes / 1e6:.1f} | "
            f"{took['rle']:.2f} | {took['logits']:.2f} | {usual['usual']:.0f} | {count * HEIGHT * WIDTH / 1e6:.0f} |"
        )

    print("\n| suppression | by class ms | agnostic ms | cv2.dnn.NMSBoxesBatched ms | cv2.dnn.NMSBoxes ms |")
    print("|---|---:|---:|---:|---:|")
    for count, clusters in ((100, 30), (300, 60), (1000, 60), (1000, 300)):
        boxes, scores, ids = candidates(count, clusters)
        boxes, scores = boxes.astype(np.float32), scores.astype(np.float32)
        corner = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(np.float64)
        took = interleave(
            {
                "by class": lambda b=boxes, s=scores, i=ids: nms(b, s, i, iou_threshold=0.5),
                "agnostic": lambda b=boxes, s=scores: nms(b, s, iou_threshold=0.5),
                "cv2 by class": lambda b=corner, s=scores, i=ids: cv2.dnn.NMSBoxesBatched(b, s, i, 0.0, 0.5),
                "cv2": lambda b=corner, s=scores: cv2.dnn.NMSBoxes(b, s, 0.0, 0.5),
            },
            args.runs,
        )
        print(f"| {count} candidates, {clusters} objects | " + " | ".join(f"{ms:.2f}" for ms in took.values()) + " |")
    if args.check and slowest > LIMIT_MS:
        print(f"100 compact masks took {slowest:.1f} ms, more than {LIMIT_MS}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
