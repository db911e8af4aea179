"""An int8 graph against the float graph that it was made from: processors' time and wall clock of bare runs.

    python benchmarks/int8.py FLOAT.onnx INT8.onnx [--threads 1] [--runs 40] [--size 640]

Both run in turn within one process (A B A B …), through plain onnxruntime on noise. Prints medians, and the median of
the ratios of neighbouring turns. Accuracy: `lensmount eval` with either graph. What each choice of the
export gains and costs: int8_ablation.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import onnxruntime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("float")
    parser.add_argument("int8")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--size", type=int, default=640, help="side of the picture, for graphs of dynamic size")
    args = parser.parse_args()
    sessions = [open_session(path, args.threads) for path in (args.float, args.int8)]
    feed = noise(sessions[0], args.size)
    turns = [[timed(session, feed) for session in sessions] for _ in range(args.runs + 3)][3:]
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    shape = next(iter(feed.values())).shape
    print(f"{shape}, {args.threads} threads, {args.runs} turns, load average {load}")
    for place, what in enumerate(("processors' time", "wall clock")):
        one, other = ([1e3 * turn[model][place] for turn in turns] for model in (0, 1))
        ratio = statistics.median(b / a for a, b in zip(one, other, strict=True))
        medians = f"float {statistics.median(one):.1f} ms, int8 {statistics.median(other):.1f} ms"
        print(f"{what}: {medians}, ratio {ratio:.2f}")


def open_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def noise(session: onnxruntime.InferenceSession, size: int = 640) -> dict[str, np.ndarray]:
    spec = session.get_inputs()[0]
    usual = (1, 3, size, size)
    shape = [side if isinstance(side, int) else usual[place] for place, side in enumerate(spec.shape)]
    return {spec.name: np.random.default_rng(0).random(shape, np.float32)}


def timed(session: onnxruntime.InferenceSession, feed: dict[str, np.ndarray]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    session.run(None, feed)
    return time.process_time() - cpu, time.perf_counter() - wall


if __name__ == "__main__":
    main()
