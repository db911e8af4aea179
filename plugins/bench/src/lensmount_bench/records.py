"""Files that keep measured times from one process to the next: whole, or counted as absent.

<store>/tuning/<model>/<conditions>.json
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelFileError

if TYPE_CHECKING:
    from lensmount.contracts import Choice

KEPT = 8
"""Records of one model that are kept: of several machines that share a home, of several settings."""

Facts = tuple[tuple[str, str], ...]


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
        key = (choice.package.name, choice.backend.name, choice.device, choice.precision)
        return (self.package, self.backend, self.device, self.precision) == key


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measurement.

    Attributes:
        model: Id of the model, with its path where it is a local file.
        taken: When, in UTC: `2026-02-03 14:05:07`.
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


def folder() -> Path:
    """Where records are kept."""
    from lensmount.store.store import default_root

    return default_root() / "tuning"


def _folder_of(subject: str) -> Path:
    from lensmount.store.files import safe_name

    return folder() / f"{safe_name(subject)[:60]}-{hashlib.sha256(subject.encode()).hexdigest()[:12]}"


def keep(record: Record, request: Sequence[str | None]) -> Path:
    """Writes a record in place of an older one of the same machine, options and request.

    Args:
        record: The measurement.
        request: What was asked for in addition to the options: device and precision.

    Raises:
        StoreError: The folder cannot be written.
    """
    from lensmount.specs import to_dict
    from lensmount.store.files import store_error, write_atomic

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
    from lensmount.store.files import store_error

    removed = [kept.path for kept in list_kept(subject)]
    for path in removed:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise store_error(error, path, "removing") from error
    return removed


def _read(path: Path) -> Kept:
    from lensmount.specs.parsing import from_dict

    try:
        return Kept(path, from_dict(Record, json.loads(path.read_bytes()), path.name))
    except ModelFileError as error:
        return Kept(path, None, " ".join(error.details.split()))
    except (OSError, ValueError, RecursionError) as error:
        return Kept(path, None, f"{type(error).__name__}: {error}")
