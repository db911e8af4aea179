"""torch's files from before version 1.6: five pickles one after the other, then the storages.

Layout (`torch/serialization.py`, `_legacy_load`): magic number, protocol version, system information, the object, the
list of storage keys, and for each key the number of elements (int64) and the elements, little-endian whatever the
machine that wrote them.
"""

from __future__ import annotations

import re
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import limits
from lensmount_reading.archive import storage_identifier
from lensmount_reading.dtypes import DTYPES
from lensmount_reading.mapped import MappedFile
from lensmount_reading.pickles import PickleScan, scan_pickle
from lensmount_reading.tensors import Storage
from lensmount_reading.text import printable

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_MAGIC = re.compile(
    rb"\x80[\x02-\x05](?:\x95.{8})?\x8a\x0a" + re.escape(MAGIC_NUMBER.to_bytes(10, "little")) + rb"\.", re.DOTALL
)
_PROTOCOL_VERSION = 1001


def magic_end(head: bytes) -> int | None:
    """Return the offset after the pickled magic number that a legacy file starts with, or None."""
    match = _MAGIC.match(head)
    return match.end() if match else None


def scan_legacy(file: MappedFile, policy: str) -> PickleScan:
    """Read a legacy file's object; storages are bound to the file, nothing is copied.

    Args:
        file: The mapped file; it starts with the magic number.
        policy: `"plain"` or `"modules"`.

    Returns:
        The scan of the object; its problem also covers the storages.
    """
    return _LegacyFile(file, policy).scan()


class _LegacyFile:
    def __init__(self, file: MappedFile, policy: str) -> None:
        self.file = file
        self.policy = policy
        self.storages: dict[str, Storage] = {}
        self.views: list[tuple[Storage, str, int]] = []

    def scan(self) -> PickleScan:
        where = str(self.file.path)
        position = magic_end(self.file.data[:64]) or 0
        # The first three say nothing that is needed, but must be the plain data that they always are.
        for expected in ("protocol version", "system information"):
            scan = self._pickle(position, f"{where} ({expected})", with_storages=False)
            if scan.problem is not None:
                return scan
            if expected == "protocol version" and scan.tree != _PROTOCOL_VERSION:
                return _with_problem(scan, ModelFileError(f"{where} has an unknown version: {printable(scan.tree)}"))
            position = scan.end
        found = self._pickle(position, where, with_storages=True)
        keys = self._pickle(found.end, f"{where} (storage keys)", with_storages=False)
        if found.problem is not None:
            return found
        if keys.problem is not None:
            return _with_problem(found, keys.problem)
        try:
            self._bind(keys.tree, keys.end)
        except ModelFileError as error:
            return _with_problem(found, error)
        return found

    def _pickle(self, start: int, where: str, *, with_storages: bool) -> PickleScan:
        data = self.file.data[start : start + limits.MAX_PICKLE_BYTES]
        persistent = self._find if with_storages else None
        scan = scan_pickle(data, where=where, policy=self.policy, persistent=persistent)
        return PickleScan(scan.tree, start + scan.end, scan.globals, scan.refused, scan.problem, scan.declared_bytes)

    def _find(self, identifier: object) -> object:
        if type(identifier) is tuple and len(identifier) == 4 and identifier[0] == "module":
            return identifier[1]  # a class with its source text; only the class's name is kept
        dtype, key, _, numel, view = storage_identifier(identifier, str(self.file.path))
        storage = self.storages.setdefault(key, Storage(key, dtype, numel))
        if (storage.dtype, storage.numel) != (dtype, numel):
            self._refuse(f"the storage {printable(key)} has two sizes or types")
        if view is None:
            return storage
        if type(view) is not tuple or len(view) != 3 or type(view[0]) is not str:
            self._refuse(f"the storage {printable(key)} has a malformed view")
        _, offset, size = view
        if type(offset) is not int or type(size) is not int or offset < 0 or size < 0 or offset + size > numel:
            self._refuse(f"a view reaches beyond the storage {printable(key)}")
        part = Storage(key, dtype, size)
        self.views.append((part, key, offset))
        return part

    def _bind(self, keys: object, position: int) -> None:
        """Find each storage's data behind the pickles."""
        if type(keys) is not list or any(type(key) is not str for key in keys) or len(set(keys)) != len(keys):
            self._refuse("its list of storages is not a list of distinct names")
        data, size = self.file.data, self.file.size
        for key in keys:
            storage = self.storages.get(key)
            if storage is None:
                self._refuse(f"the storage {printable(key)} belongs to nothing")
            numel = int.from_bytes(data[position : position + 8], "little", signed=True)
            position += 8
            if position + storage.nbytes > size:
                raise ModelFileError(f"{self.file.path} ends inside its tensors", fix="download it again")
            if numel != storage.numel:
                self._refuse(f"the storage {printable(key)} has two sizes")
            storage.buffer, storage.start = data, position
            position += storage.nbytes
        missing = [key for key, storage in self.storages.items() if storage.buffer is None]
        if missing:
            raise ModelFileError(f"{self.file.path} has no data for the storage {printable(missing[0])}")
        if position != size:
            self._refuse(f"{size - position} bytes follow its end")
        for part, key, offset in self.views:
            part.buffer, part.start = data, self.storages[key].start + offset * DTYPES[part.dtype].itemsize

    def _refuse(self, problem: str) -> NoReturn:
        raise UnsafeFileError(
            f"{self.file.path} is refused: {problem}", fix="do not use this file; ask its maker for safetensors"
        )


def _with_problem(scan: PickleScan, problem: ModelFileError) -> PickleScan:
    return PickleScan(None, scan.end, scan.globals, scan.refused, problem, scan.declared_bytes)
