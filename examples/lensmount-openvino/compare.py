"""OpenVINO against onnxruntime on the same graph, in turns within one process.

    python compare.py                                   # the sample model
    python compare.py yolov8n.onnx --batch 1 --threads 2 --runs 60
    python compare.py yolov8n.onnx --image picture.jpg  # the whole way from a decoded picture, too

Each backend's session is opened through lensmount, with the same number of threads, and runs the same batch. The two
take turns, and each turn begins with a run that is not timed, since the sessions hold two copies of the weights. Prints
medians of the time and of the processors' time (which says more on a busy machine), the median of the ratios of
neighbouring turns, the largest difference of the outputs, and the machine's load.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import resources
from typing import Any

import cv2
import numpy as np

from lensmount import registry
from lensmount_vision import images

BACKENDS = ("onnx", "openvino")


def main() -> None:
    """Reads the arguments, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="shapes-nano", help="model id, or path of an ONNX file")
    parser.add_argument("--image", help="picture; the sample model's scene without it")
    parser.add_argument("--batch", type=int, default=1, help="pictures in one run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=60)
    args = parser.parse_args()

    cv2.setNumThreads(args.threads)
    scene = resources.files("lensmount_shapes") / "data" / "scene.jpg"
    picture = images.load(args.image or str(scene)).pixels
    models, opened = {}, {}
    for backend in BACKENDS:
        start = time.perf_counter()
        models[backend] = registry.load(args.model, backend=backend, device="cpu", threads=args.threads)
        opened[backend] = time.perf_counter() - start
    batch, _ = models["onnx"].preprocess([picture] * args.batch)
    outputs = {backend: models[backend].forward(batch) for backend in BACKENDS}
    network = interleave({b: (lambda b=b: models[b].forward(batch)) for b in BACKENDS}, args.runs)
    whole = interleave({b: (lambda b=b: models[b]([picture] * args.batch)) for b in BACKENDS}, args.runs)

    print(f"{args.model}, batch {args.batch} of {batch.shape[1:]}, {args.threads} threads, {args.runs} turns")
    print(f"{platform.machine()}, {os.cpu_count()} cores, load average {' '.join(f'{n:.1f}' for n in load_average())}")
    for backend, seconds in opened.items():
        print(f"  {backend}: opened in {seconds:.2f} s")
    for what, found in (("network", network), ("picture to results", whole)):
        for unit, which in (("time", 0), ("processors' time", 1)):
            times = {b: [turn[which] for turn in found[b]] for b in BACKENDS}
            ratios = [two / one for one, two in zip(times["onnx"], times["openvino"], strict=True)]
            shown = ", ".join(f"{b} {1e3 * statistics.median(times[b]):.1f} ms" for b in BACKENDS)
            print(f"  {what}, {unit}: {shown}, openvino / onnx {statistics.median(ratios):.2f}")
    for name, value in outputs["onnx"].items():
        difference = np.abs(outputs["openvino"][name] - value).max()
        print(f"  output {name}: largest difference {difference:.1e} of a range of {np.ptp(value):.1e}")


def interleave(calls: dict[str, Callable[[], Any]], runs: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds and processor seconds of each call, taken in turns, each after an untimed call of its own."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for turn in range(-3, runs):
        for name, call in calls.items():
            call()
            start, used = time.perf_counter(), time.process_time()
            call()
            if turn >= 0:
                times[name].append((time.perf_counter() - start, time.process_time() - used))
    return times


def load_average() -> tuple[float, ...]:
    """Of the last 1, 5 and 15 minutes, where the system says."""
    return os.getloadavg() if hasattr(os, "getloadavg") else ()


if __name__ == "__main__":
    main()
