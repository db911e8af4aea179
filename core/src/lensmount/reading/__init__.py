"""Looking at and reading model files without running anything from them; used by every plugin.

* `inspect_file` says what a file is and holds, even of one that would be refused;
* `read_checkpoint` reads torch, TorchScript and safetensors files into plain containers, lazy tensors and records;
* `module_state_dict` and `module_records` walk a pickled module tree under torch's own names;
* `read_onnx` gives a graph's inputs, outputs and metadata; `check_external_data` guards the files it refers to;
* `as_torch_state_dict` hands tensors to torch; `to_safetensors` writes them.

Nothing here imports torch but `as_torch_state_dict`, and numpy only where arrays are asked for. Names are resolved on
first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Checkpoint": "checkpoint",
    "ExternalData": "onnx_file",
    "FileFacts": "facts",
    "GlobalName": "records",
    "GraphValue": "facts",
    "OnnxFacts": "onnx_file",
    "Record": "records",
    "Storage": "tensors",
    "TensorFact": "facts",
    "TensorRef": "tensors",
    "as_torch_state_dict": "torch_bridge",
    "check_external_data": "external_data",
    "inspect_file": "facts",
    "module_records": "modules",
    "module_state_dict": "modules",
    "read_checkpoint": "checkpoint",
    "read_onnx": "onnx_file",
    "require_usable": "facts",
    "submodules": "modules",
    "tensor_to_torch": "torch_bridge",
    "to_safetensors": "convert",
}

if TYPE_CHECKING:
    from lensmount.reading.checkpoint import Checkpoint as Checkpoint
    from lensmount.reading.checkpoint import read_checkpoint as read_checkpoint
    from lensmount.reading.convert import to_safetensors as to_safetensors
    from lensmount.reading.external_data import check_external_data as check_external_data
    from lensmount.reading.facts import FileFacts as FileFacts
    from lensmount.reading.facts import GraphValue as GraphValue
    from lensmount.reading.facts import TensorFact as TensorFact
    from lensmount.reading.facts import inspect_file as inspect_file
    from lensmount.reading.facts import require_usable as require_usable
    from lensmount.reading.modules import module_records as module_records
    from lensmount.reading.modules import module_state_dict as module_state_dict
    from lensmount.reading.modules import submodules as submodules
    from lensmount.reading.onnx_file import ExternalData as ExternalData
    from lensmount.reading.onnx_file import OnnxFacts as OnnxFacts
    from lensmount.reading.onnx_file import read_onnx as read_onnx
    from lensmount.reading.records import GlobalName as GlobalName
    from lensmount.reading.records import Record as Record
    from lensmount.reading.tensors import Storage as Storage
    from lensmount.reading.tensors import TensorRef as TensorRef
    from lensmount.reading.torch_bridge import as_torch_state_dict as as_torch_state_dict
    from lensmount.reading.torch_bridge import tensor_to_torch as tensor_to_torch

__all__ = [*sorted(_LAZY)]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"lensmount.reading.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'lensmount.reading' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
