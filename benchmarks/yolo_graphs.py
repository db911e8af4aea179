"""Official YOLO weights on onnxruntime without torch: making the graph, its speed, a whole process.

    python benchmarks/yolo_graphs.py yolov8n.pt [--export yolov8n.onnx] [--picture bus.jpg] [--without PYTHON]

`--export` is the reference's own export of the same weights: rounds alternate between the two, and the ratio is that of
the medians. `--picture` times `lensmount predict` in fresh processes, which take turns; `--without` is the Python of an
environment without torch, this one has it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

THREADS = 2


def conversion(weights: Path, rounds: int) -> None:
    """Prints medians of reading and of what comes after: the graph, and onnxruntime's session of it."""
    from lensmount_reading import as_arrays, module_state_dict, read_checkpoint
    from lensmount_yolo.checkpoint import load_network
    from lensmount_yolo.official import find_model

    reading, making = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        as_arrays(module_state_dict(find_model(read_checkpoint(weights, modules="records"))), "float32")
        reading.append(time.perf_counter() - started)
        started = time.perf_counter()
        session(load_network(weights).folded().network().graph())
        making.append(time.perf_counter() - started)
    read, whole = statistics.median(reading), statistics.median(making)
    print(f"reading {read:.3f} s; graph and session beyond it {whole - read:.3f} s")


def session(graph):
    """A session on two threads, as the backend opens it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if isinstance(graph, str):
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), ()
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    options.add_external_initializers(list(graph.initializers), values)
    return onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"]), values


def speed(weights: Path, export: Path, rounds: int) -> None:
    """Prints medians of one picture of 640 pixels on our graph and on the export, and their ratio."""
    import numpy as np

    from lensmount_yolo.checkpoint import load_network

    opened = {"ours": session(load_network(weights).folded().network().graph()), "export": session(str(export))}
    picture = np.random.default_rng(0).random((1, 3, 640, 640), np.float32)
    times: dict[str, list[float]] = {name: [] for name in opened}
    for turn in range(rounds + 3):
        for name in sorted(opened, reverse=bool(turn % 2)):
            started = time.perf_counter()
            opened[name][0].run(None, {"images": picture})
            if turn >= 3:
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        {name: f"{value * 1e3:.1f} ms" for name, value in medians.items()},
        f"{medians['ours'] / medians['export']:.3f} x",
    )


def processes(weights: Path, picture: Path, without: str, rounds: int) -> None:
    """Prints medians of `lensmount predict` in fresh processes, without torch and with it, and the largest memory."""
    runs = {"without torch": [without], "with torch": [sys.executable]}
    times: dict[str, list[float]] = {name: [] for name in runs}
    most = dict.fromkeys(runs, 0)
    for turn in range(rounds + 1):
        for name, python in runs.items():
            backend = "torch" if name == "with torch" else "onnx"
            command = [*python, "-m", "lensmount", "predict", str(weights), str(picture), "--backend", backend]
            environ = {**os.environ, "LENSMOUNT_THREADS": str(THREADS), "LENSMOUNT_OFFLINE": "1"}
            started = time.perf_counter()
            child = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.DEVNULL, env=environ)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"{' '.join(command)}: exit {child.returncode}")
            if turn:
                times[name].append(time.perf_counter() - started)
                most[name] = max(most[name], resident(usage))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:14} {median:.2f} s, {most[name]} MB at most")
    print(f"{medians['without torch'] / medians['with torch']:.3f} x")


def resident(usage: resource.struct_rusage) -> int:
    """Megabytes of a process at its largest; the unit of the figure differs by system."""
    return usage.ru_maxrss // (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--export", type=Path)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--without", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    conversion(options.weights, options.rounds)
    if options.export:
        speed(options.weights, options.export, options.rounds)
    if options.picture:
        processes(options.weights, options.picture, options.without, max(options.rounds // 3, 3))
