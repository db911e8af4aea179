"""The disk cache: one file per entry, whole or absent, least recently used dropped first."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from lensmount.caches.serial import dumps, loads
from lensmount.errors import OptionError, StoreError
from lensmount.specs.options import is_whole

_SUFFIX = ".lmcache"
_STALE_SECONDS = 3600.0


class DiskCache:
    """A bounded cache in a folder, shared by threads and processes.

    Entries are data (`lensmount.caches.serial`): no code is run by reading one. A damaged entry counts as absent and is
    removed. The order of use is kept in the files' modification times.

    Args:
        folder: Where; made if missing. None for `cache` in the user's cache folder of lensmount. Only the cache's own
            files in it are ever touched.
        max_bytes: Most bytes of all entries; a larger value is not kept.

    Raises:
        OptionError: `max_bytes` is negative or not an integer.
        StoreError: The folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, max_bytes: int = 4 * 1024**3) -> None:
        if not is_whole(max_bytes) or max_bytes < 0:
            raise OptionError("max_bytes is not valid", found=repr(max_bytes), expected="an integer from 0")
        if folder is None:
            from platformdirs import user_cache_path

            folder = user_cache_path("lensmount") / "cache"
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failed("made", error) from error

    def get(self, key: str) -> Any | None:
        """The value, or None. Counts as a use. Arrays are read-only; tensors come back on the CPU."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        try:
            value = loads(data)
        except ValueError:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return value

    def put(self, key: str, value: Any) -> None:
        """Stores a value, and drops the least recently used ones that no longer fit.

        Raises:
            InputError: The value holds something that `lensmount.caches.dumps` does not take.
            StoreError: The folder cannot be written, or the disk is full; nothing half-written is left.
        """
        chunks = dumps(value)
        size = sum(len(chunk) for chunk in chunks)
        path = self._path(key)
        if size > self.max_bytes:
            path.unlink(missing_ok=True)
            return
        try:
            handle, temporary = tempfile.mkstemp(suffix=".tmp", prefix="lmcache-", dir=self.folder)
        except OSError as error:
            raise self._failed("written", error) from error
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            Path(temporary).replace(path)
        except OSError as error:
            raise self._failed("written", error) from error
        finally:
            Path(temporary).unlink(missing_ok=True)
        self._evict(path)

    def clear(self) -> None:
        """Drops everything."""
        for path in self._entries():
            path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._entries())

    @property
    def nbytes(self) -> int:
        """Bytes of all entries on disk."""
        return sum(size for _, size, _ in self._usage())

    def _path(self, key: str) -> Path:
        # Hashed again, so that any string is a safe file name.
        return self.folder / (hashlib.blake2b(key.encode(), digest_size=20).hexdigest() + _SUFFIX)

    def _entries(self) -> list[Path]:
        return list(self.folder.glob(f"*{_SUFFIX}"))

    def _usage(self) -> list[tuple[int, int, Path]]:
        usage = []
        for path in self._entries():
            with contextlib.suppress(OSError):  # another process may have dropped it
                status = path.stat()
                usage.append((status.st_mtime_ns, status.st_size, path))
        return usage

    def _evict(self, newest: Path) -> None:
        usage = sorted(self._usage(), key=lambda entry: (entry[2] == newest, entry[0]))
        total = sum(size for _, size, _ in usage)
        for _, size, path in usage:
            if total <= self.max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
        for path in self.folder.glob("lmcache-*.tmp"):  # left by a process that was killed
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink(missing_ok=True)

    def _failed(self, what: str, error: OSError) -> StoreError:
        return StoreError(
            f"the cache folder {self.folder} cannot be {what}",
            found=str(error),
            fix="free some space or choose another folder",
        )
