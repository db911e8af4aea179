"""Writing and hashing at the same time as receiving: a helper thread hashes while the next bytes come.

Bytes are received straight into a few buffers that go round; hashlib and the system calls release the interpreter
lock, so the network, the disk and the hash overlap, and nothing is copied on the way.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

from lensmount.store.files import store_error

_BUFFERS = 4
_BLOCK = 1 << 20


class Sink:
    """Appends to a file and hashes what was appended.

    Args:
        path: The file; created if absent.
        digests: hashlib objects that have seen the file so far.

    Attributes:
        size: Bytes of the file, those still in the buffer included.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, digests: list[Any]) -> None:
        self._path = path
        self._digests = digests
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.size = os.fstat(self._file).st_size
        self._full: queue.SimpleQueue[tuple[bytearray, int] | None] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(_BUFFERS - 1):
            self._free.put(bytearray(_BLOCK))
        self._buffer, self._filled = bytearray(_BLOCK), 0
        self._broken = False
        self._thread = threading.Thread(target=self._hash, name="lensmount-hash", daemon=True)
        self._thread.start()

    def _hash(self) -> None:
        while (item := self._full.get()) is not None:
            buffer, filled = item
            for digest in self._digests:
                digest.update(memoryview(buffer)[:filled])
            self._free.put(buffer)

    def space(self) -> memoryview:
        """Where the next bytes may be put; tell `advance` how many were."""
        return memoryview(self._buffer)[self._filled :]

    def advance(self, count: int) -> None:
        """So many bytes were put into `space()`.

        Raises:
            StoreError: The disk is full or the like; what fits is in the file and is good.
        """
        self._filled += count
        self.size += count
        if self._filled == _BLOCK:
            self._flush()

    def write(self, chunk: bytes) -> None:
        """Appends bytes that lie elsewhere.

        Raises:
            StoreError: As for `advance`.
        """
        view = memoryview(chunk)
        while view:
            space = self.space()
            count = min(len(space), len(view))
            space[:count] = view[:count]
            self.advance(count)
            view = view[count:]

    def _flush(self) -> None:
        if not self._filled or self._broken:
            return
        view = memoryview(self._buffer)[: self._filled]
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._broken = True
            raise store_error(error, self._path, "writing") from error
        self._full.put((self._buffer, self._filled))
        self._buffer, self._filled = self._free.get(), 0

    def close(self, *, sync: bool) -> list[Any]:
        """Writes what is left and closes the file; with `sync` its bytes are on the disk.

        Returns:
            The digests, complete.

        Raises:
            StoreError: The disk refused at last.
        """
        try:
            self._flush()
            if sync:
                os.fsync(self._file)
        except OSError as error:
            self._broken = True
            raise store_error(error, self._path, "writing") from error
        finally:
            self._full.put(None)
            self._thread.join()
            os.close(self._file)
        return self._digests
