"""The one way this package opens model files: mapped where nobody rewrites them, read piece by piece elsewhere."""

from __future__ import annotations

import mmap
import os
import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from lensmount.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WINDOW = 1 << 14
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_blob(path: Path) -> bool:
    """Whether a path leads to a file of the store: named by its content, verified, read-only, never written again.

    Such a file may be mapped. Another can be shortened or rewritten by whoever owns it, and touching a page that is
    gone ends the process (SIGBUS), whatever Python catches.
    """
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        return False
    name, folders = real.name, [parent.name for parent in real.parents[:3]]
    placed = bool(_SHA256.fullmatch(name)) and folders == [name[:2], "sha256", "blobs"]
    return placed and stat.S_ISREG(mode) and not mode & 0o222


class FileReads:
    """The bytes of an open file, read when asked for: what was cut off meanwhile is an error, not a signal.

    Takes the place of a mapping: indices, slices, `find` and `rfind`. Threads may share it.
    """

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self._path = path
        self._size = size
        self._time = os.fstat(file.fileno()).st_mtime_ns
        self._lock = threading.Lock()
        self._window = (0, b"")

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> bytes: ...

    def __getitem__(self, key: int | slice) -> int | bytes:
        if isinstance(key, slice):
            start, stop, _ = key.indices(self._size)
            return self._take(start, max(stop - start, 0))
        first, window = self._window
        if not first <= key < first + len(window):
            if not 0 <= key < self._size:
                raise IndexError(key)
            return self._take(key, 1)[0]
        return window[key - first]

    def _take(self, start: int, count: int) -> bytes:
        first, window = self._window
        if first <= start and start + count <= first + len(window):
            return window[start - first : start - first + count]
        if count > _WINDOW:
            whole = bytearray(count)
            self._fill(memoryview(whole), start)
            return bytes(whole)
        piece = bytearray(min(_WINDOW, self._size - start))
        self._fill(memoryview(piece), start)
        self._window = (start, bytes(piece))
        return self._window[1][:count]

    def _fill(self, target: memoryview, start: int) -> None:
        done = 0
        with self._lock:
            try:
                self._file.seek(start)
                while done < len(target):
                    count = self._file.readinto(target[done:])  # type: ignore[attr-defined]  # of raw files
                    if not count:
                        break
                    done += count
                now = os.fstat(self._file.fileno())
            except OSError as error:
                raise ModelFileError(f"{self._path} cannot be read: {error.strerror or error}") from error
        if done < len(target) or (now.st_size, now.st_mtime_ns) != (self._size, self._time):
            raise ModelFileError(
                f"{self._path} was changed while it was read",
                found=f"{now.st_size} bytes, last written to {(now.st_mtime_ns - self._time) / 1e9:.3f} s later",
                expected=f"{self._size} bytes, as when it was opened",
                fix="load it again; put a new version beside it and rename it into place, which disturbs nobody",
            )

    def array(self, start: int, count: int) -> NDArray[Any]:
        """So many bytes as a new array of uint8, aligned for any type.

        Raises:
            ModelFileError: The file was changed since it was opened, or cannot be read.
        """
        import numpy as np

        made: NDArray[Any] = np.empty(count, np.uint8)
        self._fill(made.data, start)
        return made

    def find(self, wanted: bytes, start: int, end: int) -> int:
        """As `bytes.find`."""
        found = self[start:end].find(wanted)
        return found + start if found >= 0 else -1

    def rfind(self, wanted: bytes, start: int) -> int:
        """As `bytes.rfind`."""
        found = self[start:].rfind(wanted)
        return found + start if found >= 0 else -1


class MappedFile:
    """A regular file; a blob of the store is mapped privately, any other is read when asked for.

    A mapping costs no memory of the process's own until it is written to, and pages are shared by all that map the
    file. It lives as long as something refers to it (arrays do), and is never closed under them. Private and writable,
    so that torch can take the memory without a copy and without its read-only warning; the file itself cannot be
    changed through it. From any other file each tensor is copied once, when it is asked for: the process then has
    the tensors that it uses in its own memory, and no more of the file.

    Args:
        path: A regular file.
        content: Its bytes where somebody has read them already; the file itself is then left alone.

    Raises:
        ModelFileError: It is missing, empty, not a regular file, or cannot be read.
    """

    __slots__ = ("data", "path", "size")

    data: mmap.mmap | FileReads | bytes

    def __init__(self, path: str | os.PathLike[str], content: bytes | None = None) -> None:
        self.path = Path(path)
        if content is not None:
            self.data, self.size = content, len(content)
            return
        try:
            # Looked at before it is opened: opening a named pipe would wait for ever.
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
                raise ModelFileError(f"{self.path} is not a file", found=kind, expected="a regular file")
            file = self.path.open("rb", buffering=0)
            try:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise ModelFileError(f"{self.path} is empty", found="0 bytes", fix="download it again")
                if not is_blob(self.path):
                    self.data = FileReads(file, self.path, self.size)
                    return  # it closes the file when nobody refers to it any more
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            except BaseException:
                file.close()
                raise
            file.close()
        except (OSError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise ModelFileError(
                f"{self.path} cannot be read: {reason}", fix="check the path, and who may read it"
            ) from error

    def array(self, start: int, count: int) -> NDArray[Any]:
        """So many bytes as an array of uint8: a view of a mapped file, else a copy.

        Raises:
            ModelFileError: The file was changed since it was opened, or cannot be read.
        """
        if isinstance(self.data, FileReads):
            return self.data.array(start, count)
        import numpy as np

        return np.frombuffer(self.data, np.uint8, count, start)

    @property
    def name(self) -> str:
        """File name, for messages."""
        return self.path.name
