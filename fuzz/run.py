"""Runs the fuzz targets: `python fuzz/run.py --seconds 480 --corpus DIR --out DIR [TARGET…]`.

Where atheris is installed, libFuzzer drives each target by the coverage of lensmount's code; elsewhere inputs are
mutated without coverage, and the report says so. Each target runs in a process of its own with a limit on its memory;
one input may take --input-seconds. A finding leaves the input and the traceback under --out, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import hashlib
import importlib.util
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = (
    "checkpoint", "pickle", "safetensors", "onnx", "metadata", "manifest", "peer", "provider", "texts", "image",
)  # fmt: skip
MEMORY_MB = 1536
LENGTH = 1 << 15


def main() -> int:
    """Runs the targets one after another, or, as a child, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, default=480, help="in all, shared out evenly (default: 480)")
    parser.add_argument("--input-seconds", type=int, default=10, help="for one input (default: 10)")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of inputs to start from, by target")
    parser.add_argument("--out", type=Path, required=True, help="folder for findings and logs")
    parser.add_argument("--engine", choices=("atheris", "mutation"), help="default: atheris where it is installed")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--once", type=Path, help="run one input (of one target), in at most --input-seconds of the CPU"
    )
    given = parser.parse_args()
    if unknown := set(given.targets) - set(NAMES):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    engine = given.engine or ("atheris" if importlib.util.find_spec("atheris") else "mutation")
    if given.once:
        once(given)
        return 0
    if given.child:
        (by_coverage if engine == "atheris" else by_mutation)(given)
        return 0
    targets = given.targets or NAMES
    if engine == "mutation":
        print("atheris is not installed here: inputs are mutated without knowledge of coverage")
    reports = [run(target, engine, given.seconds / len(targets), given) for target in targets]
    (given.out / "report.json").write_text(json.dumps({"engine": engine, "targets": reports}, indent=1))
    total = sum(report["executions"] for report in reports)
    found = [report["target"] for report in reports if not report["sound"]]
    print(f"{total:,} inputs, {len(found)} findings{': ' + ', '.join(found) if found else ''} ({engine})")
    return int(bool(found))


def run(target: str, engine: str, seconds: float, given: argparse.Namespace) -> dict[str, object]:
    """Runs one target in a process of its own and reads what it says."""
    out = given.out / target
    (out / "corpus").mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    command = [
        sys.executable, Path(__file__), "--child", "--engine", engine, "--seconds", str(seconds),
        "--input-seconds", str(given.input_seconds), "--corpus", given.corpus, "--out", given.out, target,
    ]  # fmt: skip
    environ = {**os.environ, "OPENCV_LOG_LEVEL": "SILENT", "PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
    environ |= {"OMP_NUM_THREADS": "1", "LENSMOUNT_OFFLINE": "1"}
    started, executions, stalls = time.monotonic(), 0, 0
    while True:
        command[command.index("--seconds") + 1] = left = str(max(1, int(seconds - (time.monotonic() - started))))
        try:
            with log.open("wb") as sink:
                status = subprocess.run(
                    list(map(str, command)), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environ,
                    timeout=float(left) + 120, check=False,
                ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = 124
        said = log.read_text("utf-8", "replace")
        executions += int(_last(r"number_of_executed_units: *(\d+)", said))
        if status == 0 or not _stalled(target, out, given, environ):
            break
        stalls += 1
        if time.monotonic() - started > seconds - 2:
            status = 0
            break
    figures = {
        "executions": executions,
        "stalls": stalls,
        "slowest_s": _last(r"slowest_unit_time_sec: *(\d+(?:\.\d+)?)", said),
        "peak_mb": _last(r"peak_rss_mb: *(\d+)", said),
        "coverage": _last(r"cov: (\d+)", said),
    }
    report = {"target": target, "sound": status == 0, "seconds": round(time.monotonic() - started, 1), **figures}
    print("  ".join(f"{key} {value}" for key, value in report.items()), flush=True)
    if status != 0:
        print(f"--- exit status {status}; {log}\n" + "\n".join(_traceback(said)), flush=True)
    return report


def _stalled(target: str, out: Path, given: argparse.Namespace, environ: dict[str, str]) -> bool:
    """Whether a run ended on the clock alone: the input is quick by itself, so another program had the machine."""
    late = [*out.glob("finding-timeout-*"), *out.glob("finding-slow-unit-*")]
    if not late or len(late) != len(list(out.glob("finding-*"))):
        return False
    for path in late:
        command = [sys.executable, Path(__file__), "--once", path, "--input-seconds", str(given.input_seconds)]
        command += ["--corpus", given.corpus, "--out", given.out, target]
        if subprocess.run(list(map(str, command)), env=environ, capture_output=True, check=False).returncode != 0:
            return False
        path.unlink()
    return True


def once(given: argparse.Namespace) -> None:
    """Runs one input; the system ends the process when that takes too much of the CPU's time."""
    import fuzz_targets

    with contextlib.suppress(ImportError):
        import resource

        used = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + given.input_seconds, used + given.input_seconds))
    print(fuzz_targets.run(given.targets[0], given.once.read_bytes()))


def _last(pattern: str, text: str) -> float:
    found = re.findall(pattern, text)
    return 0 if not found else float(found[-1]) if "." in found[-1] else int(found[-1])


def _traceback(text: str) -> list[str]:
    """The interesting lines of a log: a Python traceback without the engine's own words, else the end."""
    lines = text.splitlines()
    start = next(
        (i for i, line in enumerate(lines) if "Traceback" in line or "ERROR: libFuzzer" in line), len(lines) - 20
    )
    return lines[max(0, start) : start + 60]


def by_coverage(given: argparse.Namespace) -> None:
    """One target under atheris; does not return."""
    import atheris

    with atheris.instrument_imports(include=["lensmount", "lensmount_yolo", "lensmount_roboflow"]):
        import fuzz_targets
    (name,) = given.targets
    target, out = fuzz_targets.TARGETS[name], given.out / name

    def mutate(data: bytes, limit: int, seed: int) -> bytes:
        source = random.Random(seed)
        if source.random() < 0.5:
            return atheris.Mutate(data, limit)
        return target.mutate(data, source)[:limit]

    def one(data: bytes) -> None:
        try:
            fuzz_targets.run(name, data)
        except BaseException:
            (out / f"finding-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)
            raise

    words = out / "words.dict"
    words.write_text("".join(f'"{"".join(f"{chr(92)}x{b:02x}" for b in word)}"\n' for word in target.words))
    arguments = [
        sys.argv[0], f"-max_total_time={int(given.seconds)}", f"-timeout={given.input_seconds}",
        f"-rss_limit_mb={MEMORY_MB}", f"-max_len={LENGTH}", "-print_final_stats=1", f"-artifact_prefix={out}/finding-",
        *([f"-dict={words}"] if target.words else []), str(out / "corpus"), str(given.corpus / name),
    ]  # fmt: skip
    atheris.Setup(arguments, one, **({"custom_mutator": mutate} if target.mutate.__name__ != "mutate_bytes" else {}))
    atheris.Fuzz()


def by_mutation(given: argparse.Namespace) -> None:
    """One target, from its seeds, without knowledge of coverage; inputs that were taken become seeds."""
    import fuzz_targets

    (name,) = given.targets
    target, out = fuzz_targets.TARGETS[name], given.out / name
    limit_memory(MEMORY_MB << 20)
    source = random.Random(0)
    pool = [path.read_bytes() for path in sorted((given.corpus / name).iterdir())]
    runs, slowest, current = 0, 0.0, out / "finding-current"
    ends = time.monotonic() + given.seconds
    while time.monotonic() < ends:
        data = target.mutate(source.choice(pool), source)[:LENGTH]
        current.write_bytes(data)  # survives a crash of the process
        faulthandler.dump_traceback_later(given.input_seconds, exit=True)
        started = time.perf_counter()
        taken = fuzz_targets.run(name, data)
        slowest = max(slowest, time.perf_counter() - started)
        runs += 1
        if taken and len(pool) < 2000:
            pool.append(data)
    faulthandler.cancel_dump_traceback_later()
    current.unlink(missing_ok=True)
    print(f"number_of_executed_units: {runs}\nslowest_unit_time_sec: {slowest:.2f}\npeak_rss_mb: {peak_mb()}")


def limit_memory(size: int) -> None:
    """Bounds the address space, on systems that can: what goes beyond it is a MemoryError, and so a finding."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + size, resource.RLIM_INFINITY))


def peak_mb() -> int:
    """The most memory that the process held."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
