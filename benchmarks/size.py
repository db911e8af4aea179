"""How much the demo's environment weighs: `python benchmarks/size.py [--env .venv]` after `python3 dev.py demo`.

Counts every file below site-packages (a file with several names once), by distribution, from the installed records.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_MB = 450
FORBIDDEN = {"torch", "transformers", "onnxruntime-gpu", "tensorrt"}


def site_packages(environment: Path) -> Path:
    """The environment's site-packages."""
    found = [*environment.glob("lib/python3*/site-packages"), environment / "Lib" / "site-packages"]
    if not found[0].is_dir():
        sys.exit(f"{environment} is no virtual environment; run: python3 dev.py demo")
    return found[0]


def weigh(folder: Path) -> dict[Path, int]:
    """Size in bytes of every file below a folder."""
    sizes, seen = {}, set()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            facts = path.stat()
            if (facts.st_dev, facts.st_ino) not in seen or os.name == "nt":
                seen.add((facts.st_dev, facts.st_ino))
                sizes[path] = facts.st_size
    return sizes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env", type=Path, default=ROOT / ".venv")
    parser.add_argument("--rows", type=int, default=12, help="how many distributions to list")
    parser.add_argument("--check", action="store_true", help="exit 1 when the limit is missed or torch is there")
    arguments = parser.parse_args()
    site = site_packages(arguments.env)
    sizes = weigh(site)
    total = sum(sizes.values()) / 1e6
    by_distribution: Counter[str] = Counter()
    for distribution in distributions(path=[str(site)]):
        for file in distribution.files or ():
            # byte code is listed too where pip compiled it; shared namespaces count for whoever lists the file first
            path = Path(os.path.normpath(site / file))
            by_distribution[distribution.name] += sizes.pop(path, 0)
    by_distribution["(listed by none: byte code written later)"] += sum(sizes.values())
    print("| site-packages of the demo's environment | MB |\n|---|---:|")
    for name, size in by_distribution.most_common(arguments.rows):
        print(f"| {name} | {size / 1e6:.1f} |")
    others = by_distribution.most_common()[arguments.rows :]
    print(f"| {len(others)} others | {sum(size for _, size in others) / 1e6:.1f} |")
    print(f"| **all** (limit {LIMIT_MB}) | **{total:.1f}** |")
    there = sorted(FORBIDDEN & {name.lower() for name in by_distribution})
    if there:
        print(f"\nnot wanted there: {', '.join(there)}")
    return int(arguments.check and (total > LIMIT_MB or bool(there)))


if __name__ == "__main__":
    sys.exit(main())
