"""Writing and hashing at the same time as receiving: a helper thread hashes while the next bytes come.

hashlib and the system calls release the interpreter lock, so the network, the disk and the hash overlap.
"""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import Any

from lensmount.sources.files import store_error

_DEPTH = 16
_BLOCK = 1 << 20


class Sink:
    """Appends to a file and hashes what was appended.

    Args:
        path: The file; created if absent.
        digests: hashlib objects that have seen the file so far.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path, digests: list[Any]) -> None:
        self._path = path
        self._digests = digests
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        self.size = os.fstat(self._file).st_size
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._slots = threading.Semaphore(_DEPTH)
        self._pending: list[bytes] = []
        self._pending_size = 0
        self._thread = threading.Thread(target=self._hash, name="lensmount-hash", daemon=True)
        self._thread.start()

    def _hash(self) -> None:
        while (block := self._queue.get()) is not None:
            for digest in self._digests:
                digest.update(block)
            self._slots.release()

    def write(self, chunk: bytes) -> None:
        """Appends.

        Raises:
            StoreError: The disk is full or the like; what fits is in the file and is good.
        """
        view = memoryview(chunk)
        while view:
            try:
                written = os.write(self._file, view)
            except OSError as error:
                raise store_error(error, self._path, "writing") from error
            self.size += written
            view = view[written:]
        self._pending.append(chunk)
        self._pending_size += len(chunk)
        if self._pending_size >= _BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._slots.acquire()
            self._queue.put(self._pending[0] if len(self._pending) == 1 else b"".join(self._pending))
            self._pending, self._pending_size = [], 0

    def close(self, *, sync: bool) -> list[Any]:
        """Closes the file; with `sync` its bytes are on the disk and the digests complete.

        Raises:
            StoreError: The disk refused at last.
        """
        try:
            if sync:
                self._flush()
                os.fsync(self._file)
        except OSError as error:
            raise store_error(error, self._path, "writing") from error
        finally:
            self._queue.put(None)
            self._thread.join()
            os.close(self._file)
        return self._digests
