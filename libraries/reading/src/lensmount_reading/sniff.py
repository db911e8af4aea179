"""What a file is, by its content; names and extensions are not looked at."""

from __future__ import annotations

from lensmount_reading.legacy import magic_end
from lensmount_reading.mapped import MappedFile
from lensmount_reading.pickles import scan_pickle
from lensmount_reading.safetensors_file import looks_like_safetensors
from lensmount_reading.tflite_file import is_tflite

_HEAD = 4096
_OLD_PICKLE = 1 << 20


def sniff(file: MappedFile) -> str:
    """Sort a file by its first bytes.

    Returns:
        `"zip"`, `"torch-legacy"`, `"safetensors"`, `"pickle"`, `"tar"`, `"engine"`, `"hdf5"`, `"gguf"`, `"tflite"`,
        `"protobuf"`
        (perhaps ONNX) or `"unknown"`.
    """
    head = file.data[:_HEAD]
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if magic_end(head) is not None:
        return "torch-legacy"
    if looks_like_safetensors(file):
        return "safetensors"
    if head.startswith(b"\x80") and len(head) > 1 and head[1] <= 5:
        return "pickle"
    if head.startswith((b"ftrt", b"ptrt")):
        return "engine"
    if file.size > 262 and head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if head.startswith(b"GGUF"):
        return "gguf"
    if is_tflite(file):
        return "tflite"
    if _ultralytics_engine(head):
        return "engine"
    if _old_pickle(file):
        return "pickle"
    if _protobuf_start(head):
        return "protobuf"
    return "unknown"


def _ultralytics_engine(head: bytes) -> bool:
    """Ultralytics writes a 4-byte length and JSON metadata before the engine."""
    length = int.from_bytes(head[:4], "little")
    return 2 <= length <= 1 << 24 and head[4:6] == b'{"'


def _old_pickle(file: MappedFile) -> bool:
    """Whether this is a pickle of protocol 0 or 1, which have no mark: it names a class, and calls it or ends."""
    data = file.data[:_OLD_PICKLE]
    scan = scan_pickle(data, where=str(file.path), policy="modules")
    return bool(scan.globals) and (scan.calls > 0 or data[scan.end - 1 : scan.end] == b".")


def _protobuf_start(head: bytes) -> bool:
    """Whether the first byte is the tag of one of ONNX's model fields: (number << 3) | wire type."""
    return bool(head) and head[0] in {0x08, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72}
