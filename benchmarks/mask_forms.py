"""What the other forms of masks cost: supervision, COCO, JSON, drawing.

    python benchmarks/mask_forms.py [--objects 300] [--runs 5] [--check]

Made-up objects (filled ellipses of 60 to 400 px) in a picture of 3840x2160. Memory is what Python's allocations reach
at most beyond what was there before and what the form itself holds; each form is first made once. `--check` exits 1
when `to_supervision()` takes more than 100 ms or 100 MB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from lensmount_vision.results import InstanceSegmentation, Masks

HEIGHT, WIDTH = 2160, 3840
LIMIT_MS, LIMIT_MB = 100.0, 100.0


def scene(count: int) -> InstanceSegmentation:
    """Ellipses as a network would give them: one crop each."""
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(count):
        width, height = (int(side) for side in rng.integers(60, 400, 2))
        crop = np.zeros((height, width), np.uint8)
        centre, axes = (width // 2, height // 2), (width // 2 - 1, height // 2 - 1)
        cv2.ellipse(crop, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        crops.append((crop.astype(bool), (int(rng.integers(0, WIDTH - width)), int(rng.integers(0, HEIGHT - height)))))
    masks = Masks.from_crops(crops, (HEIGHT, WIDTH))
    return InstanceSegmentation(
        xyxy=masks.boxes,
        confidence=np.linspace(1, 0.1, count),
        class_id=np.arange(count) % 80,
        class_names=tuple(f"class {i}" for i in range(80)),
        image_size=(HEIGHT, WIDTH),
        masks=masks,
    )


def measure(form: Callable[[], Any], runs: int) -> tuple[float, float, float]:
    """Median milliseconds, and megabytes at the peak beyond the result and in the result."""
    form()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        form()
        times.append(time.perf_counter() - begin)
    tracemalloc.start()
    made = form()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del made
    return 1e3 * statistics.median(times), (peak - held) / 1e6, held / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    result, picture = scene(args.objects), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    forms: dict[str, Callable[[], Any]] = {
        "to_supervision()": result.to_supervision,
        "to_coco()": result.to_coco,
        "JSON": lambda: json.dumps(result.to_dict()),
        "draw()": lambda: result.draw(picture),
    }
    print(f"{args.objects} objects at {WIDTH}x{HEIGHT}; crops {result.masks.nbytes / 1e6:.0f} MB,", end=" ")
    print(f"dense {args.objects * HEIGHT * WIDTH / 1e6:,.0f} MB")
    print("| form | ms | MB at most, beyond the form | MB of the form |\n|---|---:|---:|---:|")
    too_much = False
    for name, form in forms.items():
        took, peak, held = measure(form, args.runs)
        print(f"| {name} | {took:.0f} | {peak:.1f} | {held:.1f} |")
        too_much |= name == "to_supervision()" and (took > LIMIT_MS or peak > LIMIT_MB)
    if args.check and too_much:
        print(f"to_supervision() takes more than {LIMIT_MS:.0f} ms or {LIMIT_MB:.0f} MB")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
