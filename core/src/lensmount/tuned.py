"""Times that were measured on this machine, kept from one process to the next, and whether they still fit.

    <store>/tuning/<model>/<conditions>.json

A record holds the times of one measurement and everything that they depend on: the machine (processor, GPUs, driver,
versions of the runtimes), the load options, and the hashes of the model's files. It is used only where all of that is
still so; otherwise the answer says what changed. Records are written whole or not at all; a damaged one counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import LensmountError, ModelFileError
from lensmount.fastest import Measured, NotMeasured, Timing, missing

if TYPE_CHECKING:
    from lensmount.environment import Environment
    from lensmount.plugins import Index
    from lensmount.selection import Choice, Request
    from lensmount.specs import Backend, BackendStatus, ModelCard, ModelPackage

KEPT = 8
"""Records of one model that are kept: of several machines that share a home, of several settings."""

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement.

    Attributes:
        model: Id of the model, with its path where it is a local file.
        taken: When, in UTC: `2026-02-03 14:05`.
        lensmount: Version that measured.
        machine: What the times depend on of the machine, by name.
        options: Load options other than their defaults.
        batch: Pictures per call.
        pictures: What was shown to the model.
        files: sha256 by `package/file`.
        timings: What was measured.
        warnings: Why the times may be doubtful.
    """

    model: str
    taken: str
    lensmount: str
    machine: Facts
    options: tuple[tuple[str, Any], ...] = ()
    batch: int = 1
    pictures: str = "synthetic"
    files: Facts = ()
    timings: tuple[Timing, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that holds a record, or should: `problem` says why it cannot be used."""

    path: Path
    record: Record | None
    problem: str | None = None


# --- what times depend on ---------------------------------------------------------------------------------------------


def machine_facts(environment: Environment, backends: Iterable[tuple[Backend, BackendStatus]]) -> Facts:
    """What the times of any model depend on, as names and values that people can compare."""
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
    }
    return tuple((name, value) for name, value in facts.items() if value)


def conditions(*options: Any) -> tuple[tuple[str, Any], ...]:
    """Load options that differ from their defaults, with the threads that `LENSMOUNT_THREADS` asks for.

    Args:
        options: Dataclasses of options, or None.
    """
    from lensmount.backends.devices import THREADS_VARIABLE

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
    """Names a model: its id, and the path of a local file, of which several may have one id."""
    local = next((a.uri for p in card.packages for a in p.artifacts if a.uri.startswith("file://")), None)
    return card.id if local is None else f"{card.id} {local}"


def known_files(card: ModelCard, packages: Iterable[ModelPackage], index: Index) -> dict[str, str]:
    """Hashes of the files of packages that are on this machine, by `package/file`; nothing is fetched."""
    from lensmount.loading import finders_for
    from lensmount.sources.base import FetchOptions
    from lensmount.sources.fetch import fetch_artifact

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
        command: What measures them anew, for the answer where nothing fits.
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
            return Measured(timings=record.timings, taken=f"on {record.taken} UTC{batch}")
        if best is None or len(why) < best[0]:
            best = (len(why), f"times of {record.taken} UTC that do not fit: {'; '.join(why)}")
    return NotMeasured(found=best[1] if best else "", fix=command)


def _other_options(record: Record, options: tuple[tuple[str, Any], ...]) -> list[str]:
    def words(pairs: Iterable[Sequence[Any]]) -> dict[str, str]:
        return {str(name): json.dumps(value, default=str) for name, value in pairs}

    return [f"option {text}" for text in changes(words(record.options), words(options))]


# --- files ------------------------------------------------------------------------------------------------------------


def folder() -> Path:
    """Where records are kept."""
    from lensmount.sources.store import default_root

    return default_root() / "tuning"


def _folder_of(subject: str) -> Path:
    from lensmount.sources.files import safe_name

    return folder() / f"{safe_name(subject)[:60]}-{hashlib.sha256(subject.encode()).hexdigest()[:12]}"


def keep(record: Record, request: Sequence[str | None]) -> Path:
    """Writes a record in place of an older one of the same machine, options and request.

    Args:
        record: The measurement.
        request: What was asked for beside the options: device and precision.

    Raises:
        StoreError: The folder cannot be written.
    """
    from lensmount.sources.files import store_error, write_atomic
    from lensmount.specs import to_dict

    key = json.dumps([record.machine, record.options, list(request)], default=str)
    path = _folder_of(record.model) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    try:
        write_atomic(path, (json.dumps(to_dict(record), indent=1) + "\n").encode())
        others = sorted(path.parent.glob("*.json"), key=lambda p: (p == path, p.stat().st_mtime), reverse=True)
        for old in others[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise store_error(error, path, "writing") from error
    return path


def list_kept(subject: str | None = None) -> list[Kept]:
    """The records of a model, or of all, in the order of their paths."""
    paths = sorted(_folder_of(subject).glob("*.json") if subject is not None else folder().glob("*/*.json"))
    return [_read(path) for path in paths]


def forget(subject: str | None = None) -> list[Path]:
    """Removes the records of a model, or all; returns what was removed.

    Raises:
        StoreError: One cannot be removed.
    """
    from lensmount.sources.files import store_error

    removed = [kept.path for kept in list_kept(subject)]
    for path in removed:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, path, "removing") from error
    return removed


def _read(path: Path) -> Kept:
    from lensmount.descriptors import from_dict

    try:
        return Kept(path, from_dict(Record, json.loads(path.read_bytes()), path.name))
    except ModelFileError as error:
        return Kept(path, None, " ".join(str(error).split()))
    except (OSError, ValueError, RecursionError) as error:
        return Kept(path, None, f"{type(error).__name__}: {error}")
