"""A file mapped into memory, the one way this package opens model files."""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from lensmount.errors import ModelFileError


class MappedFile:
    """A regular file, mapped privately: pages are read when touched, writes stay in this process.

    The mapping lives as long as something refers to it (arrays do), and is never closed under them. Private and
    writable, so that torch can take the memory without a copy and without its read-only warning; the file itself
    cannot be changed through it. A file that another process shortens meanwhile ends this process (SIGBUS), as
    with every mapping: replace model files (`os.replace`), never rewrite them in place.

    Args:
        path: A regular file.

    Raises:
        ModelFileError: It is missing, empty, not a regular file, or cannot be read.
    """

    __slots__ = ("data", "path", "size")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            # Looked at before it is opened: opening a named pipe would wait for ever.
            mode = self.path.stat().st_mode
            if not stat.S_ISREG(mode):
                kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
                raise ModelFileError(f"{self.path} is not a file", found=kind, expected="a regular file")
            with self.path.open("rb") as file:
                self.size = os.fstat(file.fileno()).st_size
                if self.size == 0:
                    raise ModelFileError(f"{self.path} is empty", found="0 bytes", fix="download it again")
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except (OSError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            reason = getattr(error, "strerror", None) or str(error)
            raise ModelFileError(
                f"{self.path} cannot be read: {reason}", fix="check the path, and who may read it"
            ) from error

    @property
    def name(self) -> str:
        """File name, for messages."""
        return self.path.name
