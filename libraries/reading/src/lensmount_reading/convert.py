"""Writing tensors as safetensors: whole file or no file.

The format is an eight-byte length, a JSON header and the data. It is written here and not by the safetensors library
because that one's numpy interface has neither bfloat16 nor float8, its byte interface has changed between releases,
and both want every tensor in memory at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from lensmount.errors import StoreError, UnsupportedModelError
from lensmount_reading.checkpoint import Checkpoint
from lensmount_reading.dtypes import DTYPES
from lensmount_reading.tensors import TensorRef
from lensmount_reading.text import printable


def to_safetensors(
    source: Checkpoint | Mapping[str, TensorRef],
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write tensors to a safetensors file, bit for bit.

    Only tensors are written: whatever else a checkpoint's tree holds (epochs, arguments, module classes) stays behind.
    Tied tensors are written once for each key; layouts become contiguous.

    Args:
        source: A checkpoint (all its tensors under dotted keys) or a mapping such as `module_state_dict` returns.
        path: Target; replaced at once when the new file is complete and on disk, untouched if anything fails.
        metadata: Texts for the header; by default a safetensors checkpoint's own, and `{"format": "pt"}`.

    Returns:
        The path.

    Raises:
        UnsupportedModelError: An element type that safetensors has no name for (`complex128`, `complex32`).
        StoreError: The file cannot be written; nothing is left behind.
    """
    tensors = source.tensors if isinstance(source, Checkpoint) else source
    if metadata is None:
        own = source.metadata if isinstance(source, Checkpoint) and source.kind == "safetensors" else {}
        metadata = {"format": "pt", **own}
    # Widest elements first keeps every tensor aligned to its own size, as the safetensors library does.
    order = sorted(tensors, key=lambda key: (-DTYPES[tensors[key].dtype].itemsize, key))
    head = _header({key: tensors[key] for key in order}, metadata)
    target = Path(path)
    temporary: Path | None = None
    try:
        partial = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
        with partial.open("xb") as file:
            temporary = partial
            file.write(head)
            for key in order:
                _write(file, tensors[key])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        temporary = None
        _sync_folder(target.parent)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {error.strerror or error}", fix="check the folder, its rights and free space"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()
    return target


def _header(tensors: Mapping[str, TensorRef], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key, tensor in tensors.items():
        row = DTYPES[tensor.dtype]
        if not row.safetensors or key == "__metadata__":
            raise UnsupportedModelError(
                f"the tensor {printable(key)} cannot be written as safetensors",
                found=row.name,
                expected=", ".join(sorted(name for name, other in DTYPES.items() if other.safetensors)),
            )
        stop = position + tensor.nbytes
        header[key] = {"dtype": row.safetensors, "shape": list(tensor.shape), "data_offsets": [position, stop]}
        position = stop
    # ASCII with escapes: a key may hold half a surrogate pair, which has no UTF-8.
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: IO[bytes], tensor: TensorRef) -> None:
    import numpy as np

    raw = tensor.raw()
    if tensor.dtype == "bool":
        raw = np.not_equal(raw, 0)
    packed = np.ascontiguousarray(raw)
    little = packed.astype(packed.dtype.newbyteorder("<"), copy=False)
    file.write(little.reshape(-1).view(np.uint8).data)


def _sync_folder(folder: Path) -> None:
    """Make the new name durable, where the system lets folders be synchronised."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
