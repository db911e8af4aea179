"""Whether times that were measured on this machine still fit: the model, the machine, the options.

A record holds the times of one measurement and everything that they depend on: the machine (processor, GPUs, driver,
versions of the runtimes), the load options, and the hashes of the model's files. It is used only where all of that is
still so; otherwise the answer says what changed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from lensmount.errors import LensmountError
from lensmount.host.measured import FASTEST, Measured, NotMeasured, contenders, decide, missing
from lensmount.host.measured_records import Facts, Record, list_kept

if TYPE_CHECKING:
    from lensmount.host.discovery import Index
    from lensmount.host.selection import Choice, LoadPlan, Request
    from lensmount.machine.environment import Environment
    from lensmount.specs import Backend, BackendStatus, ModelCard, ModelPackage

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

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
    from lensmount.version import __version__

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
    if not given.keys() <= {"threads"}:
        words = [repr(name), *(f"{key}={value!r}" for key, value in asked.items())]
        return f"lensmount.registry.tune({', '.join(words)})"
    parts = ["lensmount", "tune", name, *(word for key, value in asked.items() for word in (f"--{key}", str(value)))]
    return shlex.join(parts)


def subject_of(card: ModelCard) -> str:
    """Names a model: its id, and the first path of a local one, of which several may have one id."""
    files = [next((a.uri for a in p.artifacts if a.uri.startswith("file://")), None) for p in card.packages]
    return f"{card.id} {files[0]}" if files and all(files) else card.id


def known_files(card: ModelCard, packages: Iterable[ModelPackage], index: Index) -> dict[str, str]:
    """Hashes of the files of packages that are on this machine, by `package/file`; nothing is fetched."""
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.opening import finders_for
    from lensmount.store.fetch import fetch_artifact

    found = {}
    for package in packages:
        for artifact in package.artifacts:
            sha256 = artifact.sha256
            try:
                finders = finders_for(package, index)
                sha256 = fetch_artifact(artifact, finders, FetchOptions(offline=True)).sha256
            except LensmountError:  # not here, or damaged: the load will say so
                pass
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
    index: Index,
    machine: Facts,
    options: tuple[tuple[str, Any], ...],
    command: str,
) -> Measured | NotMeasured:
    """Times of all these choices that fit the machine, the options and the files.

    Args:
        card: The model.
        choices: What competes.
        index: What the plugins contribute, to find the model's files.
        machine: `machine_facts` of now.
        options: `conditions` of the load.
        command: The command that measures again, for the error where no time applies.
    """
    kept = list_kept(subject_of(card))
    records = [k.record for k in kept if k.record is not None]
    if not records:
        problem = next((f"a damaged record ({k.path}: {k.problem})" for k in kept), "nothing was measured yet")
        return NotMeasured(found=problem, fix=command)
    packages = {choice.package.name: choice.package for choice in choices}
    files = known_files(card, packages.values(), index)
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


def by_times(
    plan: LoadPlan,
    index: Index,
    environment: Environment,
    backends: Sequence[tuple[Backend, BackendStatus]],
    name: str | os.PathLike[str],
    options: Iterable[Any],
) -> LoadPlan:
    """A plan in the order of the times that were measured here, where they fit; see `lensmount.host.measured.decide`.

    Args:
        plan: Everything that can run, whatever the backend.
        index: What the plugins contribute.
        environment: What the machine has.
        backends: Registered backends with their probe's answer.
        name: What the user called the model.
        options: The load's options, as dataclasses.
    """
    request = replace(plan.request, backend=FASTEST)
    competing, _ = contenders(plan)
    times: Measured | NotMeasured = NotMeasured(found="", fix="")  # one alone needs none
    if len(competing) > 1:
        settings = conditions(*options)
        machine = machine_facts(environment, backends, plugin_of(plan.card, index))
        times = look_up(plan.card, competing, index, machine, settings, command(os.fspath(name), request, settings))
    return replace(decide(plan, times), request=request)


def plugin_of(card: ModelCard, index: Index) -> str | None:
    """The distribution that runs a model."""
    return index.owners.get(("lensmount_architectures", card.architecture))
