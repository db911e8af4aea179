"""How long start-up takes: `python benchmarks/startup.py [--runs N] [--json FILE]`, in the environment to be measured.

Each measurement is a fresh process, wall clock from start to end. The variants take turns, so that a slow moment of the
machine falls on all of them, and the first round, which fills the file cache and writes byte code, is not counted.
Bare Python is subtracted where the table says "beyond bare Python".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import entry_points, version
from pathlib import Path

MODELS = "from lensmount import registry; registry.models()"
CASES = {
    "bare Python": ["-c", "pass"],
    "import lensmount": ["-c", "import lensmount"],
    "lensmount --help": ["-m", "lensmount", "--help"],
    "registry.models()": ["-c", MODELS],
}
# case: (limit in milliseconds, whether bare Python is subtracted)
LIMITS = {"import lensmount": (40.0, True), "lensmount --help": (250.0, False), "registry.models()": (100.0, True)}


def milliseconds(command: list[str]) -> float:
    """Wall clock of one process."""
    environ = {**os.environ, "NO_COLOR": "1", "LENSMOUNT_OFFLINE": "1"}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=environ, capture_output=True, text=True, check=False)
    taken = (time.perf_counter() - started) * 1000
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return taken


def measure(runs: int) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Times of every case, and what went wrong with those that do not run."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    failed: dict[str, str] = {}
    for turn in range(runs + 1):
        for name, command in CASES.items():
            if name in failed:
                continue
            try:
                taken = milliseconds(command)
            except RuntimeError as error:
                failed[name] = str(error)
                continue
            if turn:
                times[name].append(taken)
    return times, failed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there as well")
    parser.add_argument("--check", action="store_true", help="exit 1 when a limit is missed")
    arguments = parser.parse_args()
    times, failed = measure(arguments.runs)
    bare = statistics.median(times["bare Python"])
    plugins = sorted(point.name for point in entry_points(group="lensmount"))
    print(
        f"lensmount {version('lensmount')}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores; plugins: {', '.join(plugins) or 'none'}; "
        f"median of {arguments.runs} runs\n"
    )
    print("| start-up | median | quickest | slowest | beyond bare Python | limit | kept |")
    print("|---|---:|---:|---:|---:|---:|---|")
    missed = bool(failed)
    for name, taken in times.items():
        if name in failed:
            print(f"| `{name}` | does not run: {failed[name]} | | | | | no |")
            continue
        median = statistics.median(taken)
        row = f"| `{name}` | {median:.0f} ms | {min(taken):.0f} ms | {max(taken):.0f} ms | {median - bare:.0f} ms |"
        if name in LIMITS:
            limit, beyond = LIMITS[name]
            kept = (median - bare if beyond else median) <= limit
            missed |= not kept
            row += f" {limit:.0f} ms{' beyond bare' if beyond else ''} | {'yes' if kept else 'no'} |"
        else:
            row += " | |"
        print(row)
    if arguments.json:
        arguments.json.write_text(json.dumps({"times": times, "failed": failed}, indent=1), encoding="utf-8")
    return int(arguments.check and missed)


if __name__ == "__main__":
    sys.exit(main())
