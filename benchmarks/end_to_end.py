"""From a decoded 1080p array to results, against the bare runtime on the same graph.

    python benchmarks/end_to_end.py MODEL.onnx [--image PICTURE] [--objects N] [--threads 2] [--runs 60] [--files]

Times three things in turn within one process (A B C A B C …), so that a drift of the machine's speed hits all alike:
`model(array)`; `run` of the same opened session on a prepared input; and a bare `onnxruntime.InferenceSession` with
the same number of threads and onnxruntime's defaults otherwise. Prints medians, and the ratios of the medians of
pairs. `--objects N` sets the confidence so that N objects come out, for the cost of masks. `--files` measures calls on
a JPEG of 12 megapixels (the picture, enlarged) instead, decoded in full and with `reduced_decode`.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from lensmount import registry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--image", help="picture, resized to 1920x1080; noise without it")
    parser.add_argument("--objects", type=int, help="choose the confidence that gives so many objects")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--files", action="store_true", help="JPEGs of 12 megapixels, in full and with reduced_decode")
    args = parser.parse_args()

    cv2.setNumThreads(args.threads)
    if args.files:
        files(args)
        return
    picture = load(args.image)
    model = registry.load(args.model, backend="onnx", device="cpu", threads=args.threads)
    options = {} if args.objects is None else {"confidence": confidence_for(model, picture, args.objects)}
    batch, _ = model.preprocess(picture)
    bare = bare_session(args.model, args.threads)
    name = bare.get_inputs()[0].name

    calls = {
        "model(array)": lambda: model(picture, **options),
        "preprocess": lambda: model.preprocess(picture),
        "session": lambda: model.forward(batch),
        "bare onnxruntime": lambda: bare.run(None, {name: batch}),
    }
    times = interleave(calls, args.runs)
    print(
        f"{args.model}: {len(model(picture, **options)[0])} objects, {args.threads} threads, onnxruntime "
        f"{onnxruntime.__version__}, {platform.machine()}, median of {args.runs}"
    )
    for label, values in times.items():
        print(f"  {label:<18} {1e3 * statistics.median(values):8.2f} ms")
    for base in ("session", "bare onnxruntime"):
        ratios = [a / b for a, b in zip(times["model(array)"], times[base], strict=True)]
        print(f"  model(array) / {base:<18} {statistics.median(ratios):.3f}")


def files(args: argparse.Namespace) -> None:
    small = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    source = small if args.image is None else cv2.imread(args.image)
    picture = cv2.resize(source, (4032, 3024), interpolation=cv2.INTER_CUBIC)
    load = {"backend": "onnx", "device": "cpu", "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "picture.jpg"))
        cv2.imwrite(path, picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        whole, reduced = registry.load(args.model, **load), registry.load(args.model, **load, reduced_decode=True)
        calls = {
            "files, full decode": lambda: whole(path),
            "files, reduced decode": lambda: reduced(path),
            "  of it full decode": lambda: whole.load_images(path, None),
            "  of it reduced decode": lambda: reduced.load_images(path, None),
        }
        times = interleave(calls, args.runs)
        size, shown = Path(path).stat().st_size / 1e6, reduced.load_images(path, None)[0].pixels.shape[:2]
    print(f"{args.model}: a JPEG of 4032x3024, {size:.1f} MB, reduced to {shown[1]}x{shown[0]}, {args.threads} threads")
    for label, values in times.items():
        print(f"  {label:<24} {1e3 * statistics.median(values):8.1f} ms")
    ratios = [a / b for a, b in zip(times["files, full decode"], times["files, reduced decode"], strict=True)]
    print(f"  full / reduced           {statistics.median(ratios):8.2f}")


def load(path: str | None) -> np.ndarray:
    if path is None:
        return np.random.default_rng(0).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    return cv2.resize(cv2.imread(path), (1920, 1080))


def confidence_for(model, picture: np.ndarray, objects: int) -> float:
    scores = np.sort(model(picture, confidence=0.001, max_detections=objects + 1)[0].confidence)[::-1]
    if len(scores) < objects:
        raise SystemExit(f"the model finds only {len(scores)} objects in this picture")
    return float(scores[objects - 1])


def bare_session(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def interleave(calls, runs: int) -> dict[str, list[float]]:
    for call in calls.values():
        for _ in range(3):
            call()
    times = {label: [] for label in calls}
    for _ in range(runs):
        for label, call in calls.items():
            call()  # two sessions hold two copies of the weights: each is timed with its own in the caches
            start = time.perf_counter()
            call()
            times[label].append(time.perf_counter() - start)
            time.sleep(0.02)  # onnxruntime's default threads spin on for a while and would slow the next call
    return times


if __name__ == "__main__":
    main()
