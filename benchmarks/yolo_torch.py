"""Time of a YOLO's network on torch, folded, float32, as a share of onnxruntime's on the same weights.

    python benchmarks/yolo_torch.py yolov8n.pt yolov8n.onnx [--threads 2] [--rounds 30] [--size 640]

Rounds alternate between the two, so that a busy machine slows both; the ratio is that of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time


def main() -> None:
    """Prints medians in milliseconds and their ratio, for each memory layout of torch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("graph")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--size", type=int, default=640)
    options = parser.parse_args()
    os.environ["LENSMOUNT_THREADS"] = str(options.threads)

    import numpy as np

    from lensmount import registry

    models = {"onnxruntime": registry.load(options.graph, backend="onnx", device="cpu")}
    for layout in (True, False):
        name = "torch, channels last" if layout else "torch, channels first"
        models[name] = registry.load(options.weights, backend="torch", device="cpu", channels_last=layout)
    picture = np.random.default_rng(0).random((1, 3, options.size, options.size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(options.rounds + 3):
        for name, model in models.items():
            started = time.perf_counter()
            model.forward(picture)
            if turn >= 3:
                times[name].append(time.perf_counter() - started)
    base = statistics.median(times["onnxruntime"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:24} {median * 1e3:8.1f} ms   {median / base:5.2f} x")


if __name__ == "__main__":
    main()
