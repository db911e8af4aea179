"""What the store remembers of files: that they were verified, and what an address gave the first time.

Records are small JSON files, written atomically and never needed for correctness: a record that is lost costs one
more hash or one more look at the source; a record that disagrees with a file sends the file back to be hashed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.store.files import write_atomic

if TYPE_CHECKING:
    from lensmount.contracts.finder import Fetched

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


def accept_change(address: str) -> str:
    """What to do where an address gives other content than at its first download."""
    return (
        "the address gave other content at its first download, which this store trusts; if the change is meant, "
        f"accept it with `lensmount cache rm --address {address}`"
    )


class Ledger:
    """Records below a folder. Reading never fails; writing is best effort, since a store may be read-only."""

    def __init__(self, root: Path) -> None:
        self._stamps = root / "verified"
        self._references = root / "references"

    def reference_path(self, address: str) -> Path:
        """Where the reference of an address is kept."""
        return _place(self._references, address)

    def verified(self, subject: str, path: Path) -> str | None:
        """The sha256 recorded for a file whose size and modification time are still those recorded."""
        record = _read(_place(self._stamps, subject))
        try:
            status = path.stat()
        except OSError:
            return None
        sha256 = record.get("sha256")
        if (record.get("size"), record.get("mtime_ns")) != (status.st_size, status.st_mtime_ns):
            return None
        return sha256 if isinstance(sha256, str) and _HEX64.fullmatch(sha256) else None

    def stamp(self, subject: str, path: Path, sha256: str, status: os.stat_result) -> None:
        """Records that a file had this content when its size and modification time were these."""
        record = {"path": str(path), "sha256": sha256, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        with contextlib.suppress(OSError):
            content = json.dumps(record, indent=1, sort_keys=True).encode()
            write_atomic(_place(self._stamps, subject), content, durable=False)

    def reference(self, address: str) -> Reference | None:
        """What an address stood for at its first download, or None."""
        record = _read(self.reference_path(address))
        try:
            found = Reference(**{field.name: record[field.name] for field in fields(Reference)})
        except KeyError:
            return None
        return found if isinstance(found.sha256, str) and _HEX64.fullmatch(found.sha256) else None

    def remember(self, address: str, fetched: Fetched, *, published: bool) -> None:
        """Records durably what an address stands for, unless just that is recorded.

        Raises:
            OSError: It could not be written. The caller decides whether trust may go unrecorded.
        """
        known = self.reference(address)
        if known is not None and (known.sha256, known.revision) == (fetched.sha256, fetched.revision):
            return
        reference = Reference(
            address=address,
            sha256=fetched.sha256,
            size=fetched.size,
            revision=fetched.revision,
            published=published,
            first_seen=time.time(),
        )
        content = json.dumps(asdict(reference), indent=1, sort_keys=True).encode()
        write_atomic(self.reference_path(address), content)

    def forget(self, address: str) -> bool:
        """Drops what was recorded of an address, so that its next download is trusted as a first one."""
        path = self.reference_path(address)
        existed = path.exists()
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return existed

    @contextlib.contextmanager
    def forgotten(self, address: str) -> Iterator[None]:
        """What was recorded of an address is dropped for a while; it comes back where no other is recorded."""
        path = self.reference_path(address)
        kept = path.read_bytes() if path.exists() else None
        self.forget(address)
        try:
            yield
        finally:
            if kept is not None and not path.exists():
                write_atomic(path, kept)

    def stamps(self) -> list[tuple[Path, Path]]:
        """Record files, with the files they are about."""
        found = []
        for path in sorted(self._stamps.glob("*/*.json")):
            about = _read(path).get("path")
            if isinstance(about, str):
                found.append((path, Path(about)))
        return found


def _place(folder: Path, subject: str) -> Path:
    key = key_of(subject)
    return folder / key[:2] / f"{key}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
