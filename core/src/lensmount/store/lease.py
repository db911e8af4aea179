"""Partial downloads, each written by exactly one owner.

A partial is two files in the folder of its content: `<owner>.part` and `<owner>.lease`. Nobody but the owner writes
the part. A partial whose owner is gone is taken over by *renaming* it (only one taker can win) when its owner is
provably dead, and by *copying* it when that cannot be known (another machine, a process that was stopped): a
writer that wakes up again then writes into a file that nobody reads. No lock is needed for this to be right.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmount.store.files import write_atomic

LEASE_SECONDS = 60.0
BEAT_SECONDS = 5.0

_active: set[str] = set()  # owners of this process, so that its own pid is no proof of life after a failure
_active_guard = threading.Lock()


@dataclass
class Partial:
    """A partial download that belongs to the caller.

    Attributes:
        path: The data; it may not exist yet.
        lease: The file that says whose it is.
        facts: What the source said of the content (`etag`, `modified`), for resuming.
    """

    path: Path
    lease: Path
    facts: dict[str, Any] = field(default_factory=dict)
    _beat: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return _size(self.path)

    def note(self, **facts: Any) -> None:
        """Writes down what the source said, before any byte is written."""
        self.facts = {**facts, "boot": _host()}
        _write_lease(self.lease, self.facts)

    @property
    def same_boot(self) -> bool:
        """Whether the data was written since this machine started: a power cut can leave zeros behind."""
        return self.facts.get("boot") == _host()

    def beat(self) -> None:
        """Renews the lease, at most every few seconds."""
        now = time.monotonic()
        if now - self._beat >= BEAT_SECONDS:
            self._beat = now
            with contextlib.suppress(OSError):
                os.utime(self.lease)

    def release(self, *, keep: bool) -> None:
        """Gives the partial up; kept data can be taken over at once."""
        with _active_guard:
            _active.discard(self.lease.stem)
        with contextlib.suppress(OSError):
            if not keep or self.size == 0:
                _discard(self.path, self.lease)
            else:
                _write_lease(self.lease, self.facts, released=True)


@functools.cache
def _host() -> str:
    """This machine, boot and process namespace: where a process number means the same process."""
    parts = [platform.node()]
    for probe in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            parts.append(str(probe.readlink()) if probe.is_symlink() else probe.read_text().strip())
    return " ".join(parts)


def _process_start(pid: int) -> str:
    """Start time of a process where the system tells, so that a reused number is not taken for its predecessor."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


def _identity() -> dict[str, Any]:
    return {"host": _host(), "pid": os.getpid(), "start": _process_start(os.getpid())}


def _write_lease(path: Path, facts: dict[str, Any], *, released: bool = False) -> None:
    write_atomic(path, json.dumps({**_identity(), "facts": facts, "released": released}).encode(), durable=False)


def _state(lease: Path) -> tuple[str, dict[str, Any]]:
    """One of `live`, `dead` (nobody can be writing) or `unknown` (somebody might), and the source's facts."""
    try:
        age = abs(time.time() - lease.stat().st_mtime)
        record = json.loads(lease.read_bytes())
    except FileNotFoundError:
        return "gone", {}
    except (OSError, ValueError):
        return "unknown", {}
    if not isinstance(record, dict):
        return "unknown", {}
    facts = record.get("facts")
    facts = facts if isinstance(facts, dict) else {}
    if record.get("released"):
        return "dead", facts
    pid = record.get("pid")
    if record.get("host") == _host() and isinstance(pid, int) and os.name != "nt":
        if pid == os.getpid() and record.get("start") == _process_start(pid):
            with _active_guard:
                mine = lease.stem in _active
            if not mine:
                return "dead", facts
        elif not _runs(pid, str(record.get("start", ""))):
            return "dead", facts
    return ("live" if age < LEASE_SECONDS else "unknown"), facts


def _runs(pid: int, start: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not start or _process_start(pid) in ("", start)


def somebody_works(folder: Path) -> bool:
    """Whether a living owner has a partial in this folder."""
    return any(_state(lease)[0] == "live" for lease in folder.glob("*.lease"))


def claim(folder: Path) -> Partial:
    """Takes over the longest abandoned partial of a folder, or starts a new one; removes the other dead ones.

    Raises:
        OSError: The file system refused.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = uuid.uuid4().hex
    partial = Partial(path=folder / f"{owner}.part", lease=folder / f"{owner}.lease")
    with _active_guard:
        _active.add(owner)
    _write_lease(partial.lease, {})
    for path, lease, state, facts in sorted(_abandoned(folder, owner), key=lambda row: _size(row[0]), reverse=True):
        if partial.path.exists():
            if state == "dead":
                _discard(path, lease)
            continue
        _write_lease(partial.lease, facts)  # before the data comes: the data next to these facts belongs to them
        try:
            if state == "dead":
                path.rename(partial.path)
            else:
                shutil.copyfile(path, partial.path)
            partial.facts = facts
        except OSError:
            partial.path.unlink(missing_ok=True)  # another taker was faster, or Windows holds it open
            _write_lease(partial.lease, {})
            continue
        _discard(path, lease)
    return partial


def _abandoned(folder: Path, owner: str) -> Iterator[tuple[Path, Path, str, dict[str, Any]]]:
    for lease in list(folder.glob("*.lease")):
        if lease.stem == owner:
            continue
        state, facts = _state(lease)
        path = lease.with_suffix(".part")
        if state in ("live", "gone"):
            continue
        if path.exists():
            yield path, lease, state, facts
        elif state == "dead":
            _discard(path, lease)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _discard(path: Path, lease: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
        lease.unlink(missing_ok=True)


def abandoned(folder: Path) -> list[Path]:
    """Partial files below a folder whose owners are provably gone, for pruning."""
    return [lease.with_suffix(".part") for lease in folder.glob("*/*.lease") if _state(lease)[0] == "dead"]
