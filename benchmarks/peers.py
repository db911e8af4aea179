"""The same pictures and weights through lensmount, plain onnxruntime, and other libraries where they are installed.

    python benchmarks/peers.py MODEL.onnx --images FOLDER [--threads 2] [--rounds 5] [--seconds 3] [--only NAME …]

Each library has a process of its own; the processes take turns (A B C A B C …), and ratios are of turns. Plain
onnxruntime with OpenCV is the floor: letterbox, one run, boxes above the threshold, no suppression, no checks.
A library that is not installed is left out and named; nothing is installed here.

* cold: process start to the first boxes of the first picture, median of three processes, and peak memory
* array: one decoded picture to boxes, median
* files: pictures per second from encoded files; lensmount by calls and by `stream`

`inference-models` loads a local package: `--peer-package FOLDER` names it (`model_config.json` in it). `ultralytics`
loads the ONNX file itself. `transformers` has no YOLO: it is compared with `--transformers MODEL` (a folder or id of a
detector), and `--lensmount MODEL` names the same weights here.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png")
CONFIDENCE = 0.25


# --- in a worker's process: each function loads, and gives (call on an array, call on paths) --------------------------


def floor(spec):
    """Plain onnxruntime and OpenCV, as a script of thirty lines has it."""
    import cv2
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec["threads"]
    session = onnxruntime.InferenceSession(spec["model"], options, providers=["CPUExecutionProvider"])
    name, shape = session.get_inputs()[0].name, session.get_inputs()[0].shape
    height, width = (side if isinstance(side, int) else 640 for side in shape[2:])

    def on_array(picture):
        rows, columns = picture.shape[:2]
        ratio = min(height / rows, width / columns)
        new = (round(columns * ratio), round(rows * ratio))
        top, left = (height - new[1]) // 2, (width - new[0]) // 2
        frame = np.full((height, width, 3), 114, np.uint8)
        frame[top : top + new[1], left : left + new[0]] = cv2.resize(picture, new)
        blob = cv2.dnn.blobFromImage(frame, 1 / 255, swapRB=True)
        output = session.run(None, {name: blob})[0][0]
        scores = output[4:].max(0)
        boxes = output[:4, scores > CONFIDENCE].T
        return (boxes - [left, top, 0, 0]) / ratio

    return on_array, lambda paths: [on_array(cv2.imread(path)) for path in paths]


def lensmount(spec):
    from lensmount import registry

    model = registry.load(spec["lensmount"] or spec["model"], backend="onnx", threads=spec["threads"])
    return lambda picture: model(picture), lambda paths: [model(path) for path in paths]


def lensmount_stream(spec):
    from lensmount import registry

    model = registry.load(spec["lensmount"] or spec["model"], backend="onnx", threads=spec["threads"])
    return lambda picture: model(picture), lambda paths: list(model.stream(paths))


def inference_models(spec):
    import cv2

    from inference_models import AutoModel

    model = AutoModel.from_pretrained(spec["peer_package"])
    return lambda picture: model(picture), lambda paths: [model(cv2.imread(path)) for path in paths]


def ultralytics(spec):
    from ultralytics import YOLO

    model = YOLO(spec["model"])
    return (
        lambda picture: model(picture, verbose=False),
        lambda paths: [model(path, verbose=False) for path in paths],
    )


def transformers(spec):
    import cv2
    import torch
    from PIL import Image
    from transformers import pipeline

    torch.set_num_threads(spec["threads"])
    detect = pipeline("object-detection", model=spec["transformers"])
    return (
        lambda picture: detect(Image.fromarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))),
        lambda paths: [detect(path) for path in paths],
    )


RUNNERS = {
    "onnxruntime": (floor, "onnxruntime", None),
    "lensmount": (lensmount, "lensmount", None),
    "lensmount stream": (lensmount_stream, "lensmount", None),
    "inference-models": (inference_models, "inference_models", "peer_package"),
    "ultralytics": (ultralytics, "ultralytics", None),
    "transformers": (transformers, "transformers", "transformers"),
}


def work() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    spec = json.loads(sys.stdin.readline())
    try:
        on_array, on_paths = RUNNERS[spec["runner"]][0](spec)
        on_paths(spec["paths"][:1])
        print(json.dumps({"cold": time.time() - spec["spawned"], "peak": peak()}), file=answers)
        import cv2

        picture = cv2.resize(cv2.imread(spec["paths"][0]), (1920, 1080))
        on_array(picture)
        for line in sys.stdin:
            seconds = json.loads(line)["seconds"]
            times = repeat(lambda: on_array(picture), seconds / 2)
            start = time.perf_counter()
            done = 0
            while time.perf_counter() - start < seconds / 2:
                on_paths(spec["paths"])
                done += len(spec["paths"])
            rate = done / (time.perf_counter() - start)
            print(json.dumps({"array": statistics.median(times), "files": rate, "peak": peak()}), file=answers)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)


def repeat(call, seconds: float) -> list[float]:
    times = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def peak() -> float:
    """Megabytes; from /proc where there is one, because ru_maxrss is never below the parent's."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return float("nan")


# --- the driving process ----------------------------------------------------------------------------------------------


class Worker:
    def __init__(self, spec: dict) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--work"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.opened = self.ask({**spec, "spawned": time.time()})

    def ask(self, command: dict) -> dict:
        try:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or '{"error": "its process ended"}')
        except OSError:
            return {"error": "its process ended"}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="ONNX file")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--cold", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(RUNNERS))
    parser.add_argument("--lensmount")
    parser.add_argument("--peer-package")
    parser.add_argument("--transformers")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = sorted(str(path) for path in arguments.images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise SystemExit(f"no pictures in {arguments.images}")
    paths *= max(1, -(-32 // len(paths)))  # a stream of a few pictures would be all beginning and end
    spec = {
        "model": str(Path(arguments.model).resolve()),
        "lensmount": arguments.lensmount,
        "peer_package": arguments.peer_package,
        "transformers": arguments.transformers,
        "threads": arguments.threads,
        "paths": paths,
    }
    workers, found = {}, {}
    for name, (_, module, needed) in RUNNERS.items():
        if arguments.only and name not in arguments.only:
            continue
        if importlib.util.find_spec(module) is None:
            print(f"{name}: not installed, left out")
        elif needed is not None and not spec[needed]:
            print(f"{name}: left out, needs --{needed.replace('_', '-')}")
        else:
            found[name] = {"cold": [], "array": [], "files": [], "peak": 0.0}
    for turn in range(arguments.cold):
        for name in list(found):
            worker = Worker({**spec, "runner": name})
            if "error" in worker.opened:
                print(f"{name}: {worker.opened['error']}")
                del found[name]
                worker.close()
                continue
            found[name]["cold"].append(worker.opened["cold"])
            found[name]["cold peak"] = worker.opened["peak"]
            if turn + 1 == arguments.cold:
                workers[name] = worker
            else:
                worker.close()
    for _ in range(arguments.rounds):
        for name, worker in list(workers.items()):
            answer = worker.ask({"seconds": arguments.seconds})
            if "error" in answer:
                print(f"{name}: {answer['error']}")
                del workers[name], found[name]
                continue
            found[name]["array"].append(answer["array"])
            found[name]["files"].append(answer["files"])
            found[name]["peak"] = answer["peak"]
    for worker in workers.values():
        worker.close()
    show(found, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


def show(found: dict, arguments: argparse.Namespace) -> None:
    base = found.get("onnxruntime") or next(iter(found.values()))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(
        f"\n{Path(arguments.model).name}, {arguments.threads} threads, load average {load:.1f}; ratios are to the first"
    )
    print("| | cold s | cold peak MB | array ms | ratio | files images/s | ratio | peak MB |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, values in found.items():
        array = statistics.median(a / b for a, b in zip(values["array"], base["array"], strict=True))
        files = statistics.median(a / b for a, b in zip(values["files"], base["files"], strict=True))
        cold, ms, rate = (statistics.median(values[key]) for key in ("cold", "array", "files"))
        print(
            f"| {name} | {cold:.2f} | {values['cold peak']:.0f} | {ms * 1e3:.1f} | {array:.3f} "
            f"| {rate:.1f} | {files:.3f} | {values['peak']:.0f} |"
        )


if __name__ == "__main__":
    work() if sys.argv[1:] == ["--work"] else main()
