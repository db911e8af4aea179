"""The benchmark harness: what a user waits for, stage by stage and with its tail, in numbers that can be repeated.

    import lensmount_bench as bench
    print(bench.run("yolov8n-640", backends=["onnx", "torch"]))

Every variant runs in a process of its own. Variants take turns (A B A B …), so that a slow moment of the machine falls
on all of them, and each turn gives ratios; medians over the turns are reported with their spread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

from lensmount.errors import BackendError, InputError
from lensmount.machine.system import cpu_count
from lensmount.specs.options import positive
from lensmount_bench.machine import Moment, fingerprint, warnings_between
from lensmount_bench.report import BenchReport, Variant, VariantReport

__all__ = ["BenchReport", "Variant", "VariantReport", "measure", "run"]

_LEAST_SECONDS = 0.1


def run(
    model: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] = "synthetic",
    backends: Sequence[str | None] = (None,),
    precisions: Sequence[str | None] = (None,),
    device: str | None = None,
    batch: Sequence[int] = (1,),
    threads: int | None = None,
    concurrency: int = 1,
    compare: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    offline: bool | None = None,
    seconds: float = 10.0,
    rounds: int = 5,
    cold: int = 3,
    progress: Callable[[str, int, int], None] | None = None,
) -> BenchReport:
    """Measures a model in every combination of backends, precisions and batch sizes, next to another if wanted.

    Args:
        model: Model id, path or address, as for `registry.load`.
        source: Folder, glob or file of pictures, decoded again at each call; `"synthetic"` for generated JPEGs of
            1280x720 that are the same everywhere.
        backends: Backends to measure; None is lensmount's own choice.
        precisions: Precisions; None is the model's own.
        device: Device of all variants.
        batch: Pictures per call.
        threads: CPU threads of one run of the network; None for the runtime's choice.
        concurrency: Threads that call the one model at once.
        compare: Another model, measured in the same combinations.
        architecture: Where several recognise a file.
        offline: Open no socket.
        seconds: How long each variant is measured in all, start-up not counted.
        rounds: Turns that each variant takes.
        cold: Cold starts of each variant, each in a fresh process; the median is reported. At least 1.
        progress: Called with what is done, its number and how many there are.

    Returns:
        The report; `print` shows it as text, `to_dict()` gives plain values. A variant that cannot run is in it with
        its `error`.

    Raises:
        ImageError: `source` holds no pictures.
        InputError: A video or stream as source, or `seconds` too small.
        OptionError: A number out of range.
        BackendError: No variant could run; the message has every reason.
    """
    for name, value in (("threads", threads), ("concurrency", concurrency)):
        if value is not None:
            positive(name, value)
    models = [model] if compare is None else [model, compare]
    variants = [
        Variant(os.fspath(name), backend, precision, positive("batch", size), threads, concurrency)
        for name, backend, precision, size in product(models, backends, precisions, batch)
    ]
    common = {"device": device, "architecture": architecture, "offline": offline, "threads": threads}
    reports, notes = measure(
        variants, common, source=source, seconds=seconds, rounds=rounds, cold=cold, progress=progress
    )
    if all(report.error for report in reports):
        reasons = "\n".join(f"{r.variant.label}: {r.error}" for r in reports)
        raise BackendError(f"no variant of {os.fspath(model)!r} could be measured", found=reasons)
    return BenchReport(
        variants=tuple(reports), machine=fingerprint(), warnings=tuple(notes), source=os.fspath(source), rounds=rounds
    )


def measure(
    variants: Sequence[Variant],
    load: Mapping[str, Any],
    *,
    source: str | os.PathLike[str] = "synthetic",
    seconds: float = 10.0,
    rounds: int = 5,
    cold: int = 1,
    calls_only: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[VariantReport], list[str]]:
    """Measures variants in turns, each in a process of its own.

    Args:
        variants: What to measure.
        load: Options of `registry.load` that all of them share; those that are None are left out.
        source: As for `run`.
        seconds: As for `run`.
        rounds: As for `run`.
        cold: As for `run`.
        calls_only: Time whole calls alone, neither the stages nor the stream.
        progress: As for `run`.

    Returns:
        A report for each variant, some of which may have an `error`; and why the times may be doubtful.

    Raises:
        ImageError: `source` holds no pictures.
        InputError: A video or stream as source, or `seconds` too small.
        OptionError: A number out of range.
    """
    positive("rounds", rounds)
    positive("cold", cold)
    if not seconds / rounds >= _LEAST_SECONDS:
        raise InputError("the time is too short", found=f"{seconds} s in {rounds} rounds", expected="0.1 s per round")
    pictures = _pictures(source)
    tell = progress or (lambda text, done, total: None)
    total = len(variants) * (cold + rounds)
    before = Moment.now()
    reports = [VariantReport(variant) for variant in variants]
    done = 0
    with ExitStack() as stack:
        workers: list[_Process | None] = [None] * len(variants)
        for turn in range(cold):
            for i, report in enumerate(reports):
                done += 1
                tell(f"cold start of {report.variant.label}", done, total)
                if report.error is None:
                    process = stack.enter_context(_Process(report.variant, load, pictures))
                    report.take_start(process.opened)
                    if turn + 1 == cold and report.error is None:
                        workers[i] = process
                    else:
                        process.close()
        for _ in range(rounds):
            for i, report in enumerate(reports):
                done += 1
                tell(report.variant.label, done, total)
                worker = workers[i]
                if worker is not None and report.error is None:
                    report.take_round(worker.ask({"seconds": seconds / rounds, "calls_only": calls_only}))
    for report in reports:
        report.finish()
    notes = warnings_between(before, Moment.now(), cpu_count())
    notes += [
        f"{r.variant.label}: its rounds differ by {r.spread:.0%}; measure longer, or on a quieter machine"
        for r in reports
        if r.spread > 0.2
    ]
    return reports, notes


def _pictures(source: str | os.PathLike[str]) -> list[str]:
    """Paths of pictures; none for generated ones."""
    if os.fspath(source) == "synthetic":
        return []
    from lensmount_vision.images.sources import expand_sources, is_video

    found = list(expand_sources(source))
    if any(is_video(name) for name in found):
        raise InputError("a benchmark wants pictures, not videos", found=str(found[0]), expected="a folder of pictures")
    for name in found:
        if "://" not in name and not Path(name).is_file():
            raise InputError(f"{name} does not exist", expected="a folder of pictures")
    return [name if "://" in name else str(Path(name).resolve()) for name in found]


class _Process:
    """A worker process; see `lensmount_bench.worker`."""

    def __init__(self, variant: Variant, common: Mapping[str, Any], pictures: list[str]) -> None:
        self._command = [sys.executable, "-m", "lensmount_bench.worker"]
        # Options that the runtime chooses by itself are left out: a third party's may not have them.
        load = {k: v for k, v in common.items() if v is not None}
        load |= {"backend": variant.backend, "precision": variant.precision}
        own = {"package": variant.package, "device": variant.device}
        load |= {name: value for name, value in own.items() if value is not None}
        self._spec = {
            "model": variant.model,
            "load": load,
            "source": pictures,
            "batch": variant.batch,
            "concurrency": variant.concurrency,
        }
        self.opened: dict[str, Any] = {}

    def __enter__(self) -> _Process:
        spawned = time.time()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.opened = self.ask(self._spec | {"spawned": spawned})
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """One line out, one line in; a dead process answers with an error."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            return {"error": f"its process ended: {self._last_words()}"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        """Where a process died of a signal or an import error, its last line says so."""
        _, said = self._process.communicate(timeout=30)
        lines = (said or "").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"

    def close(self) -> None:
        """Lets the process end, and waits for it; a second call does nothing."""
        process = self._process
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a pipe to a process that died
                    continue
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None and self._process.poll() is None:
            self._process.kill()
        self.close()
