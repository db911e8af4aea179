"""What the store remembers of files: that they were verified, and what an address gave the first time.

Records are small JSON files, written atomically and never needed for correctness: a record that is lost costs one
more hash or one more look at the source; a record that disagrees with a file sends the file back to be hashed.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lensmount.store.files import write_atomic

_HEX64 = re.compile(r"^[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What an address stands for, since its first download.

    Attributes:
        address: As it may be shown (no query, no credentials).
        sha256: Of its content.
        size: Bytes.
        revision: The source's resolved revision, where it has one.
        published: Whether the hash was promised (by a catalogue or the user) rather than found at first download.
        first_seen: Unix time of the first download.
    """

    address: str
    sha256: str
    size: int
    revision: str | None = None
    published: bool = False
    first_seen: float = 0.0


def key_of(text: str) -> str:
    """A file name for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class Ledger:
    """Records below a folder. Reading never fails; writing is best effort, since a store may be read-only."""

    def __init__(self, root: Path) -> None:
        self._stamps = root / "verified"
        self._references = root / "references"

    def _stamp_path(self, subject: str) -> Path:
        key = key_of(subject)
        return self._stamps / key[:2] / f"{key}.json"

    def reference_path(self, address: str) -> Path:
        """Where the reference of an address is kept."""
        key = key_of(address)
        return self._references / key[:2] / f"{key}.json"

    def verified(self, subject: str, path: Path) -> str | None:
        """The sha256 recorded for a file whose size and modification time are still those recorded."""
        record = _read(self._stamp_path(subject))
        try:
            status = path.stat()
        except OSError:
            return None
        sha256 = record.get("sha256")
        if (record.get("size"), record.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
            return None
        return sha256 if isinstance(sha256, str) and _HEX64.fullmatch(sha256) else None

    def stamp(self, subject: str, path: Path, sha256: str, *, size: int, mtime_ns: int) -> None:
        """Records that a file had this content when its size and modification time were these."""
        record = {"path": str(path), "sha256": sha256, "size": size, "mtime_ns": mtime_ns}
        _write(self._stamp_path(subject), record)

    def reference(self, address: str) -> Reference | None:
        """What an address stood for at its first download, or None."""
        record = _read(self.reference_path(address))
        names = Reference.__dataclass_fields__
        try:
            found = Reference(**{name: record[name] for name in names})
        except KeyError:
            return None
        return found if isinstance(found.sha256, str) and _HEX64.fullmatch(found.sha256) else None

    def remember(self, address: str, reference: Reference) -> None:
        """Records durably what an address stands for; the time is set here when it is not.

        Raises:
            OSError: It could not be written. The caller decides whether trust may go unrecorded.
        """
        if not reference.first_seen:
            reference = replace(reference, first_seen=time.time())
        content = json.dumps(asdict(reference), indent=1, sort_keys=True).encode()
        write_atomic(self.reference_path(address), content)

    def forget(self, address: str) -> bool:
        """Drops what was recorded of an address, so that its next download is trusted as a first one."""
        path = self.reference_path(address)
        existed = path.exists()
        _drop(path)
        return existed

    def references(self) -> list[tuple[Path, Reference]]:
        """All references, with the files they are kept in."""
        found = []
        for path in sorted(self._references.glob("*/*.json")):
            record = _read(path)
            try:
                found.append((path, Reference(**{name: record[name] for name in Reference.__dataclass_fields__})))
            except KeyError:
                continue
        return found

    def stamps(self) -> list[tuple[Path, Path]]:
        """Record files, with the files they are about."""
        found = []
        for path in sorted(self._stamps.glob("*/*.json")):
            about = _read(path).get("path")
            if isinstance(about, str):
                found.append((path, Path(about)))
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write(path: Path, record: dict[str, Any]) -> None:
    try:
        write_atomic(path, json.dumps(record, indent=1, sort_keys=True).encode(), durable=False)
    except OSError:
        return


def _drop(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
