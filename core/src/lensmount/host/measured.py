"""`backend="fastest"`: which of the usable packages is taken, by times measured on this machine. A pure function.

The times come in as data: `lensmount.host.measured_lookup` keeps them, `lensmount_bench.tune` takes them. Nothing is
guessed: where a
time is missing, everything is refused, with the command that measures. And nothing less exact is taken unasked: of
float32 and float16, float32 competes alone, unless `precision="fp32,fp16"` says that either will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lensmount.host.selection import Choice, LoadPlan, Reason, Rejection, exactness

FASTEST = "fastest"
"""What stands for the name of a backend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one picture took.

    Attributes:
        package: Name of the package.
        backend: Name of the backend.
        device: Where it ran.
        precision: What it computed in.
        milliseconds: From encoded picture to result, median; None where it failed.
        spread: (slowest - quickest) / median over the rounds.
        calls: How many calls were timed.
        error: Why it failed.
    """

    package: str
    backend: str
    device: str
    precision: str
    milliseconds: float | None = None
    spread: float = 0.0
    calls: int = 0
    error: str | None = None

    def of(self, choice: Choice) -> bool:
        """Whether it is of this choice."""
        return (self.package, self.backend, self.device, self.precision) == _key(choice)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Times that fit the model, the machine and the options.

    Attributes:
        timings: One of each choice that was measured.
        taken: When, in words.
        doubts: Why the times may be doubtful.
    """

    timings: tuple[Timing, ...]
    taken: str
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotMeasured:
    """There are no times that fit.

    Attributes:
        found: What there is instead: nothing, or times of before something changed.
        fix: The command that measures.
    """

    found: str
    fix: str


def contenders(plan: LoadPlan) -> tuple[tuple[Choice, ...], tuple[Rejection, ...]]:
    """The usable choices that may compete, and those that are refused for being less exact than another."""
    if plan.request.precisions or not plan.choices:
        return plan.choices, ()
    best = min((_precision(choice) for choice in plan.choices), key=exactness)
    kept, refused = [], []
    for choice in plan.choices:
        found = _precision(choice)
        if found == best:
            kept.append(choice)
            continue
        reason = Reason(
            check="precision",
            required=f"{best}: nothing less exact is taken unasked",
            found=found,
            fix=f"precision={f'{best},{found}'!r}, if either will do",
        )
        refused.append(Rejection(package=choice.package, backend=choice.backend, reasons=(reason,)))
    return tuple(kept), tuple(refused)


def decide(plan: LoadPlan, times: Measured | NotMeasured) -> LoadPlan:
    """Orders a plan by measured times.

    Args:
        plan: Everything that can run, whatever the backend.
        times: What was measured: of every contender, or nothing.

    Returns:
        The plan with the quickest first. Without times nothing is left to choose, and each carries the reason
        `measured`. One contender alone needs no times.
    """
    competing, refused = contenders(plan)
    rejected = (*plan.rejected, *refused)
    if len(competing) < 2:
        only = "one choice only: there is nothing to compare" if competing else None
        return replace(plan, choices=competing, rejected=rejected, decision=only)
    if isinstance(times, NotMeasured):
        reason = Reason(check="measured", required="a time taken on this machine", found=times.found, fix=times.fix)
        none = [Rejection(package=c.package, backend=c.backend, reasons=(reason,)) for c in competing]
        return replace(plan, choices=(), rejected=(*none, *rejected), notes=())
    return _order(plan, competing, rejected, times)


def _order(plan: LoadPlan, competing: Sequence[Choice], rejected: tuple[Rejection, ...], times: Measured) -> LoadPlan:
    timed, failed = [], []
    for choice in competing:
        timing = _timing(times, choice)
        if timing is not None and timing.milliseconds is not None:
            timed.append(replace(choice, milliseconds=timing.milliseconds))
        else:
            found = (timing.error if timing is not None else None) or "it failed"
            reason = Reason(check="run", required="a run when it was measured", found=found)
            failed.append(Rejection(package=choice.package, backend=choice.backend, reasons=(reason,)))
    timed.sort(key=lambda choice: choice.milliseconds or 0.0)  # stable: equal times keep the default order
    decision = None
    if timed:
        against = ", ".join(f"{c.milliseconds:.2f} ({c.package.name} on {c.backend.name})" for c in timed[1:])
        decision = f"the quickest of {len(competing)} measured {times.taken}: {timed[0].milliseconds:.2f} ms a picture"
        decision += f" against {against}" if against else ""
        if times.doubts:
            more = f" (and {len(times.doubts) - 1} more)" if len(times.doubts) > 1 else ""
            decision += f"; doubtful: {times.doubts[0]}{more}"
    return replace(plan, choices=tuple(timed), rejected=(*failed, *rejected), decision=decision)


def missing(choices: Sequence[Choice], timings: Sequence[Timing]) -> list[Choice]:
    """The choices that no timing is of."""
    return [choice for choice in choices if not any(timing.of(choice) for timing in timings)]


def _timing(times: Measured, choice: Choice) -> Timing | None:
    return next((timing for timing in times.timings if timing.of(choice)), None)


def _key(choice: Choice) -> tuple[str, str, str, str]:
    return (choice.package.name, choice.backend.name, choice.device, choice.precision)


def _precision(choice: Choice) -> str:
    """What the results are exact to: quantised weights stay coarse, whatever they are multiplied in."""
    return "int8" if choice.package.precision == "int8" else choice.precision
