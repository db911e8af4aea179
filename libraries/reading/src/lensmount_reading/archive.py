"""torch's zip archives: state dicts, module trees, and the data of TorchScript archives. Code in them is not read.

Layout (torch/serialization.py, caffe2/serialize): one folder, in it `data.pkl`, the storages `data/0`, `data/1`, …
uncompressed, `byteorder`, `version`; TorchScript adds `constants.pkl`, `constants/…`, `code/…` and `extra/…`. Archives
that other tools packed again are read too, within bounds: deflated tensors are unpacked when they are asked for.
The entries' CRCs are not checked, since torch can write archives without them; whole files are checked by their hash.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import limits
from lensmount_reading.allowed import storage_dtype
from lensmount_reading.dtypes import DTYPES
from lensmount_reading.mapped import MappedFile
from lensmount_reading.pickles import PickleScan, scan_pickle
from lensmount_reading.records import GlobalName, describe
from lensmount_reading.tensors import Storage
from lensmount_reading.text import listing, printable
from lensmount_reading.zipdir import DEFLATED, STORED, ZipEntry, read_directory


class TorchArchive:
    """An opened archive of torch.

    Args:
        file: The mapped file; it starts as a zip archive does.

    Attributes:
        kind: `"torch"` or `"torchscript"`.
        metadata: Texts stored with the data: `version`, `byteorder`, and TorchScript's extra files by their names.

    Raises:
        ModelFileError: Not a whole archive of torch.
        UnsafeFileError: An archive that no honest writer makes.
    """

    def __init__(self, file: MappedFile) -> None:
        self.file = file
        self.entries = read_directory(file)
        self._unpacked = 0
        self.root = self._find_root()
        script = self.root + "constants.pkl" in self.entries or any(
            name.startswith(self.root + "code/") for name in self.entries
        )
        self.kind = "torchscript" if script else "torch"
        self.metadata = self._read_metadata()
        order = self.metadata["byteorder"] if self.root + "byteorder" in self.entries else "little"
        if order not in ("little", "big"):
            raise ModelFileError(f"{file.path} has an unknown byte order", found=printable(order))
        self.big_endian = order == "big"

    def scan(self, policy: str, pickle: str = "data") -> PickleScan:
        """Read one of its pickles and resolve the storages it refers to.

        Args:
            policy: One of `allowed.POLICIES`; a TorchScript archive's own classes are always kept as records.
            pickle: `"data"` or `"constants"`.
        """
        name = f"{self.root}{pickle}.pkl"
        where = f"{self.file.path} ({name})"
        policy = "script" if self.kind == "torchscript" else policy
        data = self._bytes(name, limits.MAX_PICKLE_BYTES)
        scan = scan_pickle(data, where=where, policy=policy, persistent=self._storages(f"{self.root}{pickle}/"))
        return with_trailing(scan, data, where, policy)

    def extra_pickles(self) -> list[str]:
        """Names of pickles that reading ignores, other than TorchScript's debug information."""
        used = {self.root + "data.pkl"}
        return [name for name in self.entries if name.endswith(".pkl") and name not in used]

    def scan_extra(self, name: str) -> PickleScan:
        """Read one of `extra_pickles` for the names in it alone."""
        policy = "script" if self.kind == "torchscript" else "modules"
        data = self._bytes(name, limits.MAX_PICKLE_BYTES)
        folder = name.removesuffix(".pkl") + "/"
        return scan_pickle(data, where=f"{self.file.path} ({name})", policy=policy, persistent=self._storages(folder))

    def _find_root(self) -> str:
        found = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(found) == 1:
            return found[0].removesuffix("data.pkl")
        path = self.file.path
        if found:
            raise UnsafeFileError(
                f"{path} is refused: it holds {len(found)} checkpoints at once", expected="one data.pkl"
            )
        if any(name.endswith("model.json") for name in self.entries):
            raise UnsupportedModelError(
                f"{path} is a TorchScript archive of torch 1.0 or 1.1, whose layout is not supported",
                fix="load and save it again with a newer torch",
            )
        raise UnsupportedModelError(
            f"{path} is a zip archive, but not one of torch", expected="an entry <name>/data.pkl", found="no such entry"
        )

    def _read_metadata(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, entry in self.entries.items():
            inside = name.removeprefix(self.root)
            if inside in ("version", "byteorder", ".format_version") or inside.startswith("extra/"):
                if entry.size > limits.MAX_TEXT_ENTRY and inside.startswith("extra/"):
                    continue
                text = str(self._bytes(name, limits.MAX_TEXT_ENTRY), "utf-8", "backslashreplace")
                if inside.startswith("extra/"):
                    found.setdefault(inside.removeprefix("extra/"), text)
                else:
                    found[inside] = text.strip()
        return found

    def _entry(self, name: str) -> ZipEntry:
        entry = self.entries[name]
        if entry.method not in (STORED, DEFLATED):
            raise UnsupportedModelError(
                f"{self.file.path}: the entry {printable(name)} is compressed",
                found=f"method {entry.method}",
                expected="entries stored as they are, as torch.save writes them, or deflated",
                fix="save the checkpoint again with torch.save",
            )
        return entry

    def _bytes(self, name: str, limit: int) -> bytes:
        entry = self._entry(name)
        if entry.size > limit:
            raise UnsafeFileError(f"{self.file.path} is refused: {printable(name)} has {entry.size} bytes")
        if entry.method == DEFLATED:
            self._count_unpacked(name, entry)
            return self._inflate(name, entry, entry.size)
        return self.file.data[entry.start : entry.start + entry.size]

    def _count_unpacked(self, name: str, entry: ZipEntry) -> None:
        """Refuse an archive that unfolds: a thousandfold is possible, weights shrink by a tenth."""
        self._unpacked += entry.size
        if self._unpacked > max(limits.MAX_VIEW_FACTOR * self.file.size, limits.MAX_VIEW_FLOOR):
            self._refuse(f"unpacked, its entries up to {printable(name)} have {self._unpacked} bytes")

    def _inflate(self, name: str, entry: ZipEntry, size: int) -> bytes:
        """The first `size` bytes of a deflated entry; no more is ever unpacked."""
        packed = self.file.data[entry.start : entry.start + entry.stored_size]
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size) if size else b""
        except zlib.error as error:
            raise ModelFileError(
                f"{self.file.path}: the entry {printable(name)} is damaged: {printable(error)}", fix="download it again"
            ) from error
        if len(data) != size:
            raise ModelFileError(
                f"{self.file.path}: the entry {printable(name)} is cut",
                found=f"{len(data)} bytes",
                expected=f"{entry.size} bytes",
                fix="download it again",
            )
        return data

    def _storages(self, folder: str) -> Callable[[object], object]:
        known: dict[tuple[str, str], Storage] = {}

        def find(identifier: object) -> object:
            dtype, key, _, numel, view = storage_identifier(identifier, str(self.file.path))
            if view is not None:
                self._refuse(f"the storage {printable(key)} is a view, which archives do not have")
            storage = known.get((key, dtype))
            if storage is None:
                storage = known[key, dtype] = self._open_storage(folder + key, key, dtype, numel)
            if storage.numel != numel:
                self._refuse(f"the storage {printable(key)} has two sizes")
            return storage

        return find

    def _open_storage(self, name: str, key: str, dtype: str, numel: int) -> Storage:
        if "/" in key or "\\" in key or key in ("", ".", ".."):
            self._refuse(f"the storage key {printable(key)} is a path")
        if name not in self.entries:
            raise ModelFileError(
                f"{self.file.path}: the storage {printable(name)} is not in the archive", fix="download it again"
            )
        entry = self._entry(name)
        storage = Storage(key, dtype, numel, self.file.data, entry.start, self.big_endian)
        if storage.nbytes > entry.size:
            self._refuse(
                f"the storage {printable(key)} claims {numel} elements of {dtype} ({numel * DTYPES[dtype].itemsize} "
                f"bytes) and has {entry.size} bytes"
            )
        if entry.method == DEFLATED:
            self._count_unpacked(name, entry)
            storage.buffer, storage.start = partial(self._inflate, name, entry, storage.nbytes), 0
        return storage

    def _refuse(self, problem: str) -> NoReturn:
        raise UnsafeFileError(
            f"{self.file.path} is refused: {problem}", fix="do not use this file; ask its maker for safetensors"
        )


def storage_identifier(identifier: object, where: str) -> tuple[str, str, str, int, object]:
    """Take apart torch's persistent id of a storage: dtype, key, location, number of elements, view.

    Raises:
        UnsafeFileError: The id is anything else.
    """
    if type(identifier) is tuple and len(identifier) in (5, 6) and identifier[0] == "storage":
        _, kind, key, location, numel, *rest = identifier
        dtype = storage_dtype(kind.module, kind.name) if type(kind) is GlobalName else None
        plain = type(key) is str and type(location) is str and type(numel) is int and 0 <= numel < 1 << 60
        if dtype is not None and plain:
            return dtype, key, location, numel, rest[0] if rest else None
    shown = describe(identifier) if type(identifier) is not tuple else ", ".join(map(describe, identifier[:6]))
    raise UnsafeFileError(
        f"{where} is refused: it refers to something outside the pickle that is no storage",
        found=shown,
        expected="('storage', storage class, key, location, number of elements)",
        fix="do not use this file; ask its maker for safetensors",
    )


def with_trailing(scan: PickleScan, data: bytes, where: str, policy: str) -> PickleScan:
    """Refuse bytes after a pickle's end; names that a pickle hidden there asks for are added to the report."""
    if scan.end >= len(data) or (scan.problem is not None and not scan.refused):
        return scan
    hidden = scan_pickle(data, where=where, policy=policy, start=scan.end)
    refused = tuple(dict.fromkeys((*scan.refused, *hidden.refused)))
    problem = scan.problem or UnsafeFileError(
        f"{where} is refused: {len(data) - scan.end} bytes follow its end",
        found="another pickle that asks for " + listing(hidden.refused) if hidden.refused else "bytes after STOP",
        fix="do not use this file; ask its maker for safetensors",
    )
    seen = tuple(dict.fromkeys((*scan.globals, *hidden.globals)))
    return PickleScan(None, scan.end, seen, refused, problem, scan.declared_bytes)
