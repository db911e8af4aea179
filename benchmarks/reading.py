"""How long it takes to read a checkpoint of torch into arrays, without torch.

python benchmarks/reading.py FILE [--runs 9]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lensmount_reading import read_checkpoint


def measure(path: Path, runs: int) -> list[float]:
    """Milliseconds of each run, a byte of every tensor touched."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        arrays = {key: each.numpy() for key, each in read_checkpoint(path, modules="records").tensors.items()}
        sum(float(each.ravel()[0]) for each in arrays.values())
        times.append(1000 * (time.perf_counter() - began))
    return sorted(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    given = parser.parse_args()
    times = measure(given.file, given.runs)
    print(f"{given.file.name}: best {times[0]:.1f} ms, median {times[len(times) // 2]:.1f} ms of {given.runs} runs")


if __name__ == "__main__":
    main()
