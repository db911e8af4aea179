"""Tail, growth of memory, and several threads on one model.

    python benchmarks/stability.py MODEL [--calls 1000] [--growth 10000] [--threads 2] [--seconds 5]

1. `--calls` calls on one decoded 1080p picture: p90/p50 and p99/p50 of whole calls and of the preprocess stage.
2. `--growth` calls on changing pictures: resident memory after the first tenth against the end, in the same process.
   Models that want more than a picture get a point (SAM 2) or words (OWLv2).
3. One calling thread against four on the same model, in turns: images per second, and whether results are identical.
   Four callers take one thread each of the network's; one caller has all.

0 for a count leaves that part out. `--json` writes the numbers; `--check` exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import threading
import time
from pathlib import Path

import numpy as np

from lensmount import registry
from lensmount_bench.machine import Moment, fingerprint, memory, warnings_between
from lensmount_bench.report import describe_machine
from lensmount_vision.images.image import Image

TARGETS = {"p90/p50": 1.1, "p99/p50": 1.3, "RSS growth": 0.01, "4 threads / 1": 1.0}


def picture(height: int = 1080, width: int = 1920, seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def tail(model, calls: int) -> dict[str, float]:
    image = picture()
    whole, prepare = [], []
    for i in range(calls + 10):
        start = time.perf_counter()
        model([image])
        middle = time.perf_counter()
        model.preprocess([image])
        if i >= 10:
            whole.append(middle - start)
            prepare.append(time.perf_counter() - middle)
    p50, p90, p99 = np.percentile(whole, [50, 90, 99])
    q50, q90 = np.percentile(prepare, [50, 90])
    return {
        "p50 ms": p50 * 1e3,
        "p90/p50": p90 / p50,
        "p99/p50": p99 / p50,
        "preprocess p50 ms": q50 * 1e3,
        "preprocess p90/p50": q90 / q50,
    }


def growth(model, calls: int) -> dict[str, float]:
    sizes = [picture(90 + 30 * i, 160 + 20 * i, i) for i in range(7)]
    asked = {
        "interactive-segmentation": {"point_coordinates": [[40, 40]]},
        "open-vocabulary-detection": {"classes": ["a red cup", "a spoon"]},
    }.get(model.card.task, {})
    early = 0
    for i in range(calls):
        pixels = sizes[i % len(sizes)].pixels.copy()
        pixels[0, 0] = i % 256, i // 256, 0  # another picture for the caches
        model([pixels], **asked)
        if i == calls // 10:
            gc.collect()
            early = memory()[0] or 0
    gc.collect()
    late = memory()[0] or 0
    return {"RSS early MB": early / 1e6, "RSS late MB": late / 1e6, "RSS growth": late / early - 1 if early else 0.0}


def callers(name: str, threads: int, seconds: float, rounds: int = 5) -> dict[str, float]:
    images = [picture(400 + 10 * i, 640, i) for i in range(8)]
    alone, shared = registry.load(name, threads=threads), registry.load(name, threads=1)
    truth = [alone([image])[0] for image in images]
    rates: dict[int, list[float]] = {1: [], 4: []}
    wrong = []

    def run(model, number: int, until: float, done: list[int]) -> None:
        i = number
        while time.perf_counter() < until:
            result = model([images[i % len(images)]])[0]
            if not same(result, truth[i % len(images)]):
                wrong.append(i)
            done[number] += 1
            i += 1

    for _ in range(rounds):
        for count, model in ((1, alone), (4, shared)):
            done = [0] * count
            start = time.perf_counter()
            until = start + seconds / rounds
            workers = [threading.Thread(target=run, args=(model, k, until, done)) for k in range(count)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            rates[count].append(sum(done) / (time.perf_counter() - start))
    ratios = [four / one for one, four in zip(rates[1], rates[4], strict=True)]
    return {
        "1 thread images/s": statistics.median(rates[1]),
        "4 threads images/s": statistics.median(rates[4]),
        "4 threads / 1": statistics.median(ratios),
        "results that differ": len(wrong),
    }


def same(a, b) -> bool:
    """Equal but for the last bits: a network on one thread adds up in another order than on two."""
    if not hasattr(a, "xyxy"):
        return np.allclose(a.probabilities, b.probabilities, atol=1e-5)
    fits = len(a) == len(b) and np.array_equal(a.class_id, b.class_id)
    return bool(fits and np.allclose(a.xyxy, b.xyxy, atol=1e-2) and np.allclose(a.confidence, b.confidence, atol=1e-4))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--growth", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10, help="for each number of callers")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    before = Moment.now()
    found: dict[str, float] = {}
    with registry.load(arguments.model, threads=arguments.threads) as model:
        if arguments.calls:
            found |= tail(model, arguments.calls)
        if arguments.growth:
            found |= growth(model, arguments.growth)
    if arguments.seconds:
        found |= callers(arguments.model, arguments.threads, arguments.seconds)
    machine = fingerprint()
    print(describe_machine(machine))
    print(f"{arguments.model}, {arguments.threads} threads")
    missed = bool(found.get("results that differ"))
    for name, value in found.items():
        target = TARGETS.get(name)
        kept = target is None or (value >= target if name.startswith("4 threads") else value <= target)
        missed |= not kept
        verdict = "" if target is None else f"   target {target}: {'kept' if kept else 'missed'}"
        print(f"  {name:<22} {value:10.4f}{verdict}")
    for text in warnings_between(before, Moment.now(), machine["cores"]):
        print(f"warning: {text}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "found": found}, indent=1), encoding="utf-8")
    return int(arguments.check and missed)


if __name__ == "__main__":
    sys.exit(main())
