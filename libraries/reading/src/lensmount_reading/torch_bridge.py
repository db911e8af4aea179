"""Handing tensors to torch. The only module of this package that imports torch, and only when called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lensmount.errors import MissingDependencyError, UnsupportedModelError
from lensmount_reading.checkpoint import Checkpoint
from lensmount_reading.dtypes import DTYPES, decode
from lensmount_reading.tensors import TensorRef

if TYPE_CHECKING:
    import torch


def as_torch_state_dict(
    source: Checkpoint | Mapping[str, TensorRef], dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """Make torch tensors on the CPU.

    Args:
        source: A checkpoint (all its tensors under dotted keys) or a mapping such as `module_state_dict` returns.
        dtype: Convert floating-point tensors to this type; None keeps each as stored, bit for bit (bfloat16 and float8
            included).

    Returns:
        Tensors by key. Without conversion, those of a file of the store share the mapped file's memory, privately:
        writing to one changes this process's pages alone (and tensors tied to it), never the file. Those of
        other files, which somebody may rewrite, are copies.

    Raises:
        MissingDependencyError: torch is not installed.
        ModelFileError: The file was changed since it was opened.
        UnsupportedModelError: The installed torch lacks an element type.
    """
    tensors = source.tensors if isinstance(source, Checkpoint) else source
    made: dict[str, torch.Tensor] = {}
    for key, reference in tensors.items():
        tensor = tensor_to_torch(reference)
        made[key] = tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
    return made


def tensor_to_torch(reference: TensorRef) -> torch.Tensor:
    """Make one torch tensor, bit for bit; see `as_torch_state_dict`."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError(
            "torch is not installed, so tensors cannot be handed to it", fix='pip install "lensmount[torch]"'
        ) from error
    target = getattr(torch, reference.dtype, None)
    if target is None:
        raise UnsupportedModelError(
            f"torch {torch.__version__} has no element type {reference.dtype}", fix="pip install --upgrade torch"
        )
    raw = reference.raw()
    if reference.dtype == "bool":
        return torch.from_numpy(decode(raw, "bool"))
    tensor = torch.from_numpy(raw)
    return tensor if DTYPES[reference.dtype].decoded == reference.dtype else tensor.view(target)
