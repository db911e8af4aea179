"""What running a checkpoint as an ONNX graph costs beyond reading the file, and the graph beside another one.

    python benchmarks/official_weights.py rf-detr-nano.pth [--threads 2] [--beside reference.onnx] [--runs 20]

Seconds of the processor (other work on the machine does not count) and of the clock for reading the file, making the
graph and opening it; memory that stays, with and without the session's own, which is that of the same graph opened from
a file. `--beside` takes turns with another graph of the same inputs, as that of torch's exporter, and gives the median
of the pairs' ratios.

Peak memory is allowed to be 1.3 times the weights beyond the session's own; making graph and session 1 second for
RF-DETR nano; a graph 1.02 times the time of torch's exporter's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort


def anonymous() -> float:
    """MiB of this process's memory that lie in no file (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def session(model: Any, threads: int, initializers: dict[str, Any] | None = None) -> ort.InferenceSession:
    """A session on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if initializers:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
        options.add_external_initializers(list(initializers), values)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds(model: ort.InferenceSession) -> dict[str, Any]:
    """Noise for its inputs; free sizes are 1."""
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    random = np.random.default_rng(0)
    shapes = {i.name: ([s if isinstance(s, int) else 1 for s in i.shape], kinds[i.type]) for i in model.get_inputs()}
    return {name: random.standard_normal(shape).astype(kind) for name, (shape, kind) in shapes.items()}


def beside(first: ort.InferenceSession, second: ort.InferenceSession, runs: int) -> str:
    """Both in turns on the same noise."""
    given, times = feeds(first), ([], [])  # type: tuple[dict[str, Any], tuple[list[float], list[float]]]
    for turn in range(-2, runs):
        for index in (0, 1) if turn % 2 else (1, 0):
            start = time.perf_counter()
            (first, second)[index].run(None, given)
            if turn >= 0:
                times[index].append(time.perf_counter() - start)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    ours, theirs = (1000 * statistics.median(part) for part in times)
    return f"{ours:.1f} ms beside {theirs:.1f} ms, {ratio:.3f} of it"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="an RF-DETR's checkpoint, or a graph (then its session alone)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    begin = anonymous()
    if args.weights.suffix == ".onnx":
        kept = session(str(args.weights), args.threads)
        print(f"{anonymous() - begin:.0f}", end="")
        return
    from functools import partial

    from lensmount.contracts import TensorSpec
    from lensmount_networks import Network
    from lensmount_reading import as_arrays, read_checkpoint
    from lensmount_rfdetr.checkpoint import layout_of, read_contents
    from lensmount_rfdetr.networks.detector import RFDETR
    from lensmount_rfdetr.networks.weights import fit

    marks = [(time.process_time(), time.perf_counter())]
    contents = read_contents(read_checkpoint(args.weights))
    layout, arrays = layout_of(contents, args.weights.name), as_arrays(contents.tensors, "float32")
    weights = sum(float(array.nbytes) for array in arrays.values()) / 2**20
    marks.append((time.process_time(), time.perf_counter()))
    size, queries, ratio = (layout.resolution,) * 2, layout.queries, layout.mask_ratio
    shapes: dict[str, tuple[int, ...]] = {"dets": (1, queries, 4), "labels": (1, queries, layout.columns)}
    if layout.mask_blocks:
        shapes["masks"] = (1, queries, size[0] // ratio, size[1] // ratio)
    layer = partial(RFDETR, layout, size)
    network = Network(
        layer=layer,
        tensors=fit(layer(), layout, arrays, args.weights.name),
        inputs=(TensorSpec("input", (1, 3, *size), "float32"),),
        outputs=tuple(TensorSpec(name, shape, "float32") for name, shape in shapes.items()),
    )
    graph = network.graph()
    marks.append((time.process_time(), time.perf_counter()))
    kept = session(graph.model, args.threads, dict(graph.initializers))
    marks.append((time.process_time(), time.perf_counter()))
    for name, (a, b) in zip(("read", "graph", "session"), itertools.pairwise(marks), strict=True):
        print(f"{name:8} {b[0] - a[0]:.2f} s of the processor, {b[1] - a[1]:.2f} s")
    stays = anonymous() - begin
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph.onnx"
        network.save(file)
        own = float(subprocess.run([sys.executable, __file__, str(file)], capture_output=True, check=True).stdout)
    share = f"{(stays - own) / weights:.2f} of {weights:.0f} MiB of weights"
    print(f"memory   {stays:.0f} MiB, the session's own {own:.0f}: {share}")
    if args.beside:
        print(f"run      {beside(kept, session(str(args.beside), args.threads), args.runs)}")


if __name__ == "__main__":
    main()
