"""The directory of a zip archive, read strictly and without unpacking anything.

The standard library's `zipfile` is lenient by design: it takes archives with data before them, duplicate names,
sizes that disagree between the two headers, and builds an object for each of millions of entries. A weight file has
none of these; one that does is trying to look different to different readers. (APPNOTE.TXT 6.3, sections 4.3 and 4.5.)
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.mapped import MappedFile
from lensmount_reading.text import printable

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCHED = 0x20

STORED = 0
DEFLATED = 8


@dataclass(frozen=True)
class ZipEntry:
    """One entry: where its bytes lie in the archive.

    Attributes:
        start: Offset of the first byte of data.
        stored_size: Bytes in the archive.
        size: Bytes when unpacked; equal to `stored_size` where `method` is 0.
        method: Compression method; 0 is none.
    """

    start: int
    stored_size: int
    size: int
    method: int


def read_directory(file: MappedFile) -> dict[str, ZipEntry]:
    """Read a zip archive's directory.

    Returns:
        Entries by name, in the archive's order.

    Raises:
        ModelFileError: Not a whole zip archive.
        UnsafeFileError: Names that leave the folder or occur twice, overlapping or encrypted entries, links, headers
            that disagree, more entries than the limit.
    """
    try:
        return _Reader(file).read()
    except (struct.error, UnicodeDecodeError) as error:
        raise ModelFileError(
            f"{file.path} is not a whole zip archive: {printable(error)}", fix="download it again"
        ) from error


class _Reader:
    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.data = file.data

    def read(self) -> dict[str, ZipEntry]:
        start, size, count = self._find_directory()
        if count > limits.MAX_ZIP_ENTRIES or size < count * _CENTRAL.size:
            self._unsafe(f"it claims {count} entries")
        headers: list[tuple[int, str, ZipEntry]] = []
        seen: set[str] = set()
        position = start
        for _ in range(count):
            position, header = self._central(position, start, start + size)
            if header[1] in seen:
                self._unsafe(f"the entry {printable(header[1])} occurs twice")
            seen.add(header[1])
            headers.append(header)
        if position != start + size:
            self._broken("its directory has another size than it claims")
        free = 0
        for local, name, entry in sorted(headers, key=lambda header: header[0]):
            if local < free:
                self._unsafe(f"the entry {printable(name)} overlaps another")
            free = entry.start + entry.stored_size
        return {name: entry for _, name, entry in headers}

    def _find_directory(self) -> tuple[int, int, int]:
        """Offset, size and number of entries of the central directory."""
        size = self.file.size
        end = self.data.rfind(b"PK\x05\x06", max(0, size - _END.size - 0xFFFF))
        if end < 0:
            self._broken("the directory at its end is missing")
        _, disk, first_disk, here, count, length, start, comment = _END.unpack(self.data[end : end + _END.size])
        if end + _END.size + comment != size:
            self._broken("there are bytes after its end")
        directory_end = end
        locator = end - _END64_LOCATOR.size
        if locator >= 0 and self.data[locator : locator + 4] == b"PK\x06\x07":
            _, _, directory_end, disks = _END64_LOCATOR.unpack(self.data[locator : locator + _END64_LOCATOR.size])
            signature, _, _, _, disk, first_disk, here, count, length, start = _END64.unpack(
                self.data[directory_end : directory_end + _END64.size]
            )
            if signature != b"PK\x06\x06" or disks > 1:
                self._broken("its 64-bit directory is missing")
        if disk or first_disk or here != count:
            self._broken("it is one of several parts")
        if start + length != directory_end:
            self._broken("its directory is not where it says; there may be data before or between")
        return start, length, count

    def _central(self, position: int, start: int, stop: int) -> tuple[int, tuple[int, str, ZipEntry]]:
        """Read one header of the directory and the local header that it refers to."""
        fields = _CENTRAL.unpack(self.data[position : position + _CENTRAL.size])
        signature, _, _, flags, method, _, _, _, packed, size, name_size, extra_size, comment, disk, _, attributes = (
            fields[:16]
        )
        local = fields[16]
        name_at = position + _CENTRAL.size
        following = name_at + name_size + extra_size + comment
        if signature != b"PK\x01\x02" or following > stop or disk not in (0, 0xFFFF):
            self._broken("its directory is damaged")
        raw_name = self.data[name_at : name_at + name_size]
        extra = self.data[name_at + name_size : name_at + name_size + extra_size]
        size, packed, local = self._wide(extra, [size, packed, local])
        name = self._name(raw_name, flags)
        if flags & (_ENCRYPTED | _PATCHED):
            self._unsafe(f"the entry {printable(name)} is encrypted or a patch")
        if stat.S_ISLNK(attributes >> 16):
            self._unsafe(f"the entry {printable(name)} is a link")
        if method == STORED and size != packed:
            self._unsafe(f"the entry {printable(name)} has two sizes")
        entry = ZipEntry(self._local(name, raw_name, local, flags, method, start), packed, size, method)
        if entry.start + packed > start:
            self._unsafe(f"the entry {printable(name)} reaches into the directory")
        return following, (local, name, entry)

    def _local(self, name: str, raw_name: bytes, local: int, flags: int, method: int, stop: int) -> int:
        """Check the header in front of an entry's data; return where the data starts."""
        if local + _LOCAL.size > stop:
            self._broken(f"the entry {printable(name)} is missing")
        signature, _, local_flags, local_method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(
            self.data[local : local + _LOCAL.size]
        )
        name_at = local + _LOCAL.size
        if signature != b"PK\x03\x04":
            self._broken(f"the entry {printable(name)} is missing")
        if (
            self.data[name_at : name_at + name_size] != raw_name
            or local_method != method
            or (local_flags ^ flags) & _ENCRYPTED
        ):
            self._unsafe(f"the two headers of the entry {printable(name)} disagree")
        start: int = name_at + name_size + extra_size
        return start

    def _wide(self, extra: bytes, values: list[int]) -> list[int]:
        """Replace 32-bit values that are all ones by their 64-bit ones from the extra field."""
        if 0xFFFFFFFF not in values:
            return values
        position = 0
        while position + 4 <= len(extra):
            kind, size = struct.unpack_from("<2H", extra, position)
            if kind == 1:
                wide = list(struct.unpack_from(f"<{size // 8}Q", extra, position + 4))
                if len(wide) < values.count(0xFFFFFFFF):
                    break
                return [wide.pop(0) if value == 0xFFFFFFFF else value for value in values]
            position += 4 + size
        raise self._broken_error("a 64-bit size is missing")

    def _name(self, raw: bytes, flags: int) -> str:
        name = raw.decode("utf-8" if flags & 0x800 else "cp437")
        parts = name.split("/")
        inner = parts[:-1] if name.endswith("/") else parts
        drive = len(inner[0]) == 2 and inner[0][1] == ":" if inner else False
        if not inner or drive or any(part in ("", ".", "..") for part in inner) or "\\" in name or "\0" in name:
            self._unsafe(f"the entry name {printable(name)} could leave a folder")
        return name

    def _broken(self, problem: str) -> NoReturn:
        raise self._broken_error(problem)

    def _broken_error(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.file.path} is not a whole zip archive: {problem}", fix="download it again")

    def _unsafe(self, problem: str) -> NoReturn:
        raise UnsafeFileError(
            f"{self.file.path} is refused: {problem}",
            expected="an archive as torch.save writes it",
            fix="do not use this file; ask its maker for safetensors",
        )
