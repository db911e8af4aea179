"""From decoded 1080p arrays to results on a GPU, against the network alone on a batch that lies there already.

    python benchmarks/gpu.py yolo11n-640 rfdetr-base clip/ViT-B-32 … [--backend torch] [--precision fp16] [--graphs]
    python benchmarks/gpu.py best.pt --device cpu --batches 1 --runs 3     # the same code without a GPU

For each model and batch, in turn within one process so that a drift of the clocks hits all alike: a call with uint8
arrays on the host and results back there; the same with the pictures prepared and finished on the host
(`device_path=False`); and `forward` of a prepared batch on the device, waited for. Pictures change between calls, so
that no cache of embeddings answers. Prints the tables of docs/performance.md with date and versions.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lensmount import registry

HEIGHT, WIDTH = 1080, 1920


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="model ids, files or folders")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision")
    parser.add_argument("--graphs", action="store_true", help="record the network once for each batch size")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()

    rows = [row for name in args.models for row in measure(name, args)]
    print(f"{datetime.date.today()}, {machine(args.device)}, {args.backend}, {args.precision or 'fp32'}", end="")
    print(f"{', CUDA graphs' if args.graphs else ''}; 1080p uint8 in, results out, median of {args.runs}\n")
    print("| model | batch | call | network alone | ratio | prepared on the host | images/s | memory |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def measure(name: str, args: argparse.Namespace) -> list[list[str]]:
    options: dict[str, Any] = {"backend": args.backend, "device": args.device, "precision": args.precision}
    if args.graphs:
        options["cuda_graphs"] = True
    rows = []
    with (
        registry.load(name, device_path=True, **options) as model,
        registry.load(name, device_path=False, **options) as plain,
    ):
        for batch in args.batches:
            pictures = noise(batch)
            calls = {
                "call": lambda m=model, p=pictures: call(m, p),
                "network": network(model, pictures, args.device),
                "host": lambda m=plain, p=pictures: call(m, p),
            }
            peak = memory_of(calls["call"], args.device)
            times = interleave(calls, args.runs, pictures, args.device)
            ratio = statistics.median(a / b for a, b in zip(times["call"], times["network"], strict=True))
            middle = {key: statistics.median(values) for key, values in times.items()}
            shown = [f"{1e3 * middle[key]:.2f} ms" for key in ("call", "network")]
            rate = f"{batch / middle['call']:.0f}"
            rows.append(
                [model.card.id, str(batch), *shown, f"{ratio:.2f}", f"{1e3 * middle['host']:.2f} ms", rate, peak]
            )
    return rows


def noise(count: int) -> list[np.ndarray]:
    """Different smooth pictures: noise on noise would give a detector thousands of boxes."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (count, 9, 16, 3), np.uint8)
    return [np.ascontiguousarray(np.kron(picture, np.ones((120, 120, 1), np.uint8))) for picture in coarse]


def call(model: Any, pictures: list[np.ndarray]) -> Any:
    """One call as users make it, by the model's task."""
    task = model.card.task
    if task == "embedding":
        return model.embed_images(pictures, batch_size=len(pictures))
    if task == "open-vocabulary-detection":
        return model(pictures, classes=["a red cup", "a dog"])
    if task in ("interactive-segmentation", "video-segmentation"):
        return model.embed_images(pictures)
    return model(pictures)


def network(model: Any, pictures: list[np.ndarray], device: str) -> Callable[[], Any]:
    """The network alone, waited for."""
    prepared, _ = model.preprocess(pictures)
    batch = torch.from_numpy(prepared).to(device)
    forward = model.runner.encode if hasattr(model, "runner") else model.forward

    def run() -> None:
        forward(batch)
        wait(device)

    return run


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def memory_of(run: Callable[[], Any], device: str) -> str:
    """What torch's allocator held at most during a call, weights included."""
    if not device.startswith("cuda"):
        return "–"
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB"


def interleave(
    calls: dict[str, Callable[[], Any]], runs: int, pictures: list[np.ndarray], device: str
) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 3):
        for name, function in calls.items():
            for picture in pictures:
                picture[0, 0] = (run, len(name), run // 256)
            wait(device)
            start = time.perf_counter()
            function()
            elapsed = time.perf_counter() - start
            if run >= 3:
                times[name].append(elapsed)
    return times


def machine(device: str) -> str:
    if not device.startswith("cuda"):
        return f"{device}, torch {torch.__version__}"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"


if __name__ == "__main__":
    main()
