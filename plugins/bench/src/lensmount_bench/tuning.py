"""Measures a model's usable packages on this machine, so that `backend="fastest"` knows: what `lensmount tune` does."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from lensmount.errors import BackendError
from lensmount.specs.options import positive
from lensmount_bench.fastest import FASTEST, conditions, machine_facts, subject_of
from lensmount_bench.records import Record, Timing, folder, keep

if TYPE_CHECKING:
    from pathlib import Path

    from lensmount.contracts import Choice, LoadPlan
    from lensmount.host.site import Name
    from lensmount.registry import Registry
    from lensmount_bench.report import VariantReport

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What `tune` found.

    Attributes:
        plan: What `backend="fastest"` now takes and why; prints as a table.
        record: What was measured; None where there was only one choice.
        path: Where that is kept.
    """

    plan: LoadPlan
    record: Record | None = None
    path: Path | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why the times may be doubtful."""
        return () if self.record is None else self.record.warnings

    def __str__(self) -> str:
        return "\n".join([str(self.plan), *(f"warning: {text}" for text in self.warnings)])


def tune(
    id_or_path: Name,
    *,
    device: str | None = None,
    precision: str | None = None,
    architecture: str | None = None,
    source: str | None = None,
    api_key: str | None = None,
    offline: bool | None = None,
    allow_insecure: bool = False,
    pictures: str | os.PathLike[str] = "synthetic",
    batch: int = 1,
    seconds: float = 5.0,
    rounds: int = 5,
    progress: Progress | None = None,
    registry: Registry | None = None,
    **options: Any,
) -> Tuning:
    """Measures every package that can run here as asked, in turns, and keeps the times.

    Each runs in a process of its own, which loads the model through the installed plugins; what was added to a
    registry in this process alone cannot be measured.

    Args:
        id_or_path: As for `load`.
        device: As for `load`; None for the best that each backend offers.
        precision: Precisions that compete, with commas; None for the most exact there is.
        architecture: As for `load`.
        source: As for `load`.
        api_key: As for `load`.
        offline: As for `load`.
        allow_insecure: As for `load`.
        pictures: Folder, glob or file of pictures; `"synthetic"` for generated ones of 1280x720.
        batch: Pictures per call.
        seconds: How long each is measured in all, loading not counted.
        rounds: Turns that each takes.
        progress: Called with what is done, its number and how many there are.
        registry: The registry to look in; None for `lensmount.registry`.
        **options: Load options that the times are to hold for (`threads=2`).

    Returns:
        The outcome. With one choice only nothing is measured, since there is nothing to compare.

    Raises:
        NoPackageError: Nothing can run as asked.
        SourceError: A file cannot be had.
        BackendError: Nothing could be measured; the message has every reason.
        InputError: `seconds` is too small, or there are no pictures.
        StoreError: The times cannot be kept.
    """
    from lensmount.host.plan import Ask, candidates, plan, require_choice, split_options
    from lensmount.host.resolve import resolve
    from lensmount.registry import default
    from lensmount.store.fetch import fetch_files

    positive("batch", batch)
    site = (registry or default()).site
    ask = Ask(
        name=id_or_path,
        backend=FASTEST,
        device=device,
        precision=precision,
        architecture=architecture,
        source=source,
        api_key=api_key,
        offline=offline,
        allow_insecure=allow_insecure,
    )
    card = resolve(ask, site.index)
    groups = split_options(options, site.architecture_of(card), card)
    every = candidates(card, site, ask.request)
    require_choice(every)
    competing = every.choices
    if len(competing) < 2:
        return Tuning(plan=plan(card, site, ask.request, name=id_or_path, options=groups))
    packages = {choice.package.name: choice.package for choice in competing}
    got = fetch_files(card, packages.values(), site.index.sources, ask.fetch)
    load = {
        "architecture": architecture,
        "source": source,
        "api_key": api_key,
        "offline": offline,
        "allow_insecure": allow_insecure or None,
        **options,
    }
    owner = site.index.owners.get(("lensmount_architectures", card.architecture))
    machine = machine_facts(site.environment, site.backends(), owner)
    with _alone(progress):
        timings, warnings = _measure(os.fspath(id_or_path), competing, load, pictures, batch, seconds, rounds, progress)
    record = Record(
        model=subject_of(every.card),
        taken=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S"),
        machine=machine,
        options=conditions(*groups),
        batch=batch,
        pictures=os.fspath(pictures),
        files=tuple((f"{name}/{file}", sha) for name, one in got.items() for file, sha in one.sha256s.items()),
        timings=tuple(timings),
        warnings=tuple(warnings),
    )
    path = keep(record, (device, precision))
    found = plan(card, site, ask.request, name=id_or_path, options=groups)
    return Tuning(plan=found, record=record, path=path)


def _measure(
    model: str,
    choices: Sequence[Choice],
    load: dict[str, Any],
    pictures: str | os.PathLike[str],
    batch: int,
    seconds: float,
    rounds: int,
    progress: Progress | None,
) -> tuple[list[Timing], list[str]]:
    from lensmount_bench import harness as bench

    variants = [
        bench.Variant(
            model,
            choice.backend.name,
            # a graph computes in what it was made with, which its package may not know
            choice.precision if choice.package.format == "torch" else None,
            batch,
            package=choice.package.name,
            device=choice.device,
        )
        for choice in choices
    ]
    reports, warnings = bench.measure(
        variants, load, source=pictures, seconds=seconds, rounds=rounds, cold=1, calls_only=True, progress=progress
    )
    timings = [_timing(choice, report) for choice, report in zip(choices, reports, strict=True)]
    if all(timing.error is not None for timing in timings):
        reasons = "\n".join(f"{choice}: {timing.error}" for choice, timing in zip(choices, timings, strict=True))
        raise BackendError(f"no package of {model!r} could be measured", found=reasons)
    return timings, warnings


def _timing(choice: Choice, report: VariantReport) -> Timing:
    timing = Timing(
        package=choice.package.name, backend=choice.backend.name, device=choice.device, precision=choice.precision
    )
    if report.error is not None or report.call is None:
        return replace(timing, error=report.error or "it gave no times")
    milliseconds = statistics.median(report.round_medians) / report.variant.batch
    return replace(timing, milliseconds=milliseconds, spread=report.spread, calls=report.call.count)


@contextlib.contextmanager
def _alone(progress: Progress | None) -> Iterator[None]:
    """One measurement at a time on this machine: two would disturb one another. Where locks fail, it goes on."""
    import platform

    from filelock import FileLock, Timeout

    from lensmount.store.files import safe_name

    path = folder() / f"measuring-{safe_name(platform.node())[:60]}.lock"
    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(path))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if progress is not None:
                progress("waiting for another measurement on this machine", 0, 1)
            lock.acquire()
    except (OSError, NotImplementedError):
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            with contextlib.suppress(OSError):
                lock.release()
