"""`backend="fastest"`: which of the usable packages is taken, by times that were measured on this machine.

`lensmount_bench.tune` takes the times, `records` keeps them. A record holds the times of one measurement and
everything that they depend on: the machine (processor, GPUs, driver, versions of the runtimes), the load options, and
the hashes of the model's files. It is used only where all of that is still so. Nothing is guessed: where a time is
missing or does not fit, everything is refused, with what changed and the command that measures.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from lensmount.contracts import Choice, LoadPlan, Reason, Rejection
from lensmount.version import __version__
from lensmount_bench.records import Facts, Record, Timing, list_kept

if TYPE_CHECKING:
    from lensmount.contracts import Environment, Fetched, Request, SelectRequest
    from lensmount.specs import Backend, BackendStatus, ModelCard, ModelPackage

FASTEST = "fastest"
"""The selector's name: what `backend=` asks for it by."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

# --- the choice -------------------------------------------------------------------------------------------------------


def choose(request: SelectRequest) -> LoadPlan:
    """The selector: a plan in the order of the times that were measured here, where they fit; see `decide`."""
    plan = request.plan
    times: Measured | NotMeasured = NotMeasured(found="", fix="")  # one alone needs none
    if len(plan.choices) > 1:
        settings = conditions(*request.options)
        machine = machine_facts(request.environment, request.backends, request.plugin)
        measure = command(request.name, plan.request, settings)
        times = look_up(plan.card, plan.choices, request.local, machine, settings, measure)
    return decide(plan, times)


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


def decide(plan: LoadPlan, times: Measured | NotMeasured) -> LoadPlan:
    """Orders a plan by measured times.

    Args:
        plan: Everything that competes, whatever the backend.
        times: What was measured: of every choice, or nothing.

    Returns:
        The plan with the quickest first. Without times nothing is left to choose, and each carries the reason
        `measured`. One choice alone needs no times.
    """
    if len(plan.choices) < 2:
        only = "one choice only: there is nothing to compare" if plan.choices else None
        return replace(plan, decision=only)
    if isinstance(times, NotMeasured):
        reason = Reason(check="measured", required="a time taken on this machine", found=times.found, fix=times.fix)
        none = [Rejection(package=c.package, backend=c.backend, reasons=(reason,)) for c in plan.choices]
        return replace(plan, choices=(), rejected=(*none, *plan.rejected), notes=())
    return _order(plan, times)


def _order(plan: LoadPlan, times: Measured) -> LoadPlan:
    timed, failed = [], []
    for choice in plan.choices:
        timing = next((timing for timing in times.timings if timing.of(choice)), None)
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
        decision = (
            f"the quickest of {len(plan.choices)} measured {times.taken}: {timed[0].milliseconds:.2f} ms a picture"
        )
        decision += f" against {against}" if against else ""
        if times.doubts:
            more = f" (and {len(times.doubts) - 1} more)" if len(times.doubts) > 1 else ""
            decision += f"; doubtful: {times.doubts[0]}{more}"
    return replace(plan, choices=tuple(timed), rejected=(*failed, *plan.rejected), decision=decision)


def missing(choices: Sequence[Choice], timings: Sequence[Timing]) -> list[Choice]:
    """The choices that no timing is of."""
    return [choice for choice in choices if not any(timing.of(choice) for timing in timings)]


# --- what times depend on ---------------------------------------------------------------------------------------------


def machine_facts(
    environment: Environment, backends: Iterable[tuple[Backend, BackendStatus]], plugin: str | None = None
) -> Facts:
    """What times depend on, apart from the model, as names and values that people can compare.

    Args:
        environment: What the machine has.
        backends: Registered backends with their probe's answer.
        plugin: Distribution that runs the model.
    """
    from lensmount.machine import installed

    e = environment
    facts = {
        "processor": e.cpu_name or e.machine,
        "processors usable": str(e.cpu_count),
        "system": f"{e.system} {e.machine}",
        **{f"cuda:{gpu.index}": f"{gpu.name} ({gpu.compute_capability})" for gpu in e.gpus},
        "NVIDIA driver": e.cuda_driver,
        "cuDNN": e.cudnn,
        "TensorRT": e.tensorrt,
        "Jetson Linux": e.l4t,
        "onnxruntime": e.onnxruntime,
        "macOS": e.release if e.system == "darwin" else None,
        **{f"backend {b.name}": s.version or "usable" for b, s in backends if s.usable},
        **{name: os.environ.get(name) for name in _THREADS},
        "lensmount": __version__,
    }
    if plugin is not None and (found := installed.distribution(plugin)) is not None:
        facts[plugin] = found.version
    return tuple((name, value) for name, value in facts.items() if value)


def conditions(*options: Any) -> tuple[tuple[str, Any], ...]:
    """Load options that differ from their defaults, with the threads that `LENSMOUNT_THREADS` asks for.

    Args:
        options: Dataclasses of options, or None.
    """
    from lensmount.backend.devices import THREADS_VARIABLE

    found: dict[str, Any] = {}
    for group in options:
        if group is None:
            continue
        values = asdict(group)
        if "threads" in values and values["threads"] is None and os.environ.get(THREADS_VARIABLE, "").isdecimal():
            values["threads"] = int(os.environ[THREADS_VARIABLE])
        found |= {f.name: values[f.name] for f in fields(group) if values[f.name] != f.default}
    return tuple(json.loads(json.dumps(sorted(found.items()), default=str)))


def command(name: str, request: Request, options: Iterable[Sequence[Any]]) -> str:
    """What a user types to measure a model under these conditions: a command, or Python where there is no option."""
    import shlex

    given = {str(key): value for key, value in options}
    asked = {"device": request.device, "precision": request.precision, **given}
    asked = {key: value for key, value in asked.items() if value is not None}
    from lensmount.store.addresses import public

    name = public(name)
    if not given.keys() <= {"threads"}:
        words = [repr(name), *(f"{key}={value!r}" for key, value in asked.items())]
        return f"lensmount_bench.tune({', '.join(words)})"
    parts = ["lensmount", "tune", name, *(word for key, value in asked.items() for word in (f"--{key}", str(value)))]
    return shlex.join(parts)


def subject_of(card: ModelCard) -> str:
    """Names a model: its id, and the first path of a local one, of which several may have one id."""
    files = [next((a.uri for a in p.artifacts if a.uri.startswith("file://")), None) for p in card.packages]
    return f"{card.id} {files[0]}" if files and all(files) else card.id


def known_files(
    packages: Iterable[ModelPackage], local: Callable[[ModelPackage], Mapping[str, Fetched]]
) -> dict[str, str]:
    """Hashes of the files of packages, by `package/file`: of what is on this machine, else what the card says."""
    found = {}
    for package in packages:
        here = local(package)
        for artifact in package.artifacts:
            sha256 = here[artifact.name].sha256 if artifact.name in here else artifact.sha256
            if sha256 is not None:
                found[f"{package.name}/{artifact.name}"] = sha256
    return found


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, in words: `NVIDIA driver: 570.1, now 580.2`."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name}: {before.get(name, 'none')}, now {now.get(name, 'none')}"
        for name in names
        if before.get(name) != now.get(name)
    ]


# --- looking up -------------------------------------------------------------------------------------------------------


def look_up(
    card: ModelCard,
    choices: Sequence[Choice],
    local: Callable[[ModelPackage], Mapping[str, Fetched]],
    machine: Facts,
    options: tuple[tuple[str, Any], ...],
    command: str,
) -> Measured | NotMeasured:
    """Times of all these choices that fit the machine, the options and the files.

    Args:
        card: The model.
        choices: What competes.
        local: Finds a package's files on this machine; see `SelectRequest.local`.
        machine: `machine_facts` of now.
        options: `conditions` of the load.
        command: The command that measures again, for the error where no time applies.
    """
    kept = list_kept(subject_of(card))
    records = [k.record for k in kept if k.record is not None]
    if not records:
        problem = next((f"a damaged record ({k.path}: {k.problem})" for k in kept), "nothing was measured yet")
        return NotMeasured(found=problem, fix=command)
    files = known_files({choice.package.name: choice.package for choice in choices}.values(), local)
    best: tuple[int, str] | None = None
    for record in sorted(records, key=lambda r: r.taken, reverse=True):
        why = [*_other_options(record, options), *changes(dict(record.machine), dict(machine))]
        of_then = dict(record.files)
        why += [f"{name} is another file" for name in files if name in of_then and of_then[name] != files[name]]
        why += [f"{choice} was not measured" for choice in missing(choices, record.timings)]
        if not why:
            batch = f", in batches of {record.batch}" if record.batch > 1 else ""
            taken = f"on {record.taken} UTC{batch}"
            return Measured(timings=record.timings, taken=taken, doubts=record.warnings)
        if best is None or len(why) < best[0]:
            best = (len(why), f"times of {record.taken} UTC that do not fit: {'; '.join(why)}")
    return NotMeasured(found=best[1] if best else "", fix=command)


def _other_options(record: Record, options: tuple[tuple[str, Any], ...]) -> list[str]:
    def words(pairs: Iterable[Sequence[Any]]) -> dict[str, str]:
        return {str(name): json.dumps(value, default=str) for name, value in pairs}

    return [f"option {text}" for text in changes(words(record.options), words(options))]
