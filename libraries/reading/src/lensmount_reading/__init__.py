"""Looking at and reading model files without running anything from them; used by every plugin.

* `inspect_file` says what a file is and holds, even of one that would be refused;
* `read_checkpoint` reads torch, TorchScript and safetensors files into plain containers, lazy tensors and records;
* `module_state_dict` and `module_records` walk a pickled module tree under torch's own names;
* `read_onnx` gives a graph's inputs, outputs and metadata; `check_external_data` guards the files it refers to;
* `as_torch_state_dict` hands tensors to torch; `to_safetensors` writes them.

Nothing here imports torch but `as_torch_state_dict`, and numpy only where arrays are asked for. Names are resolved on
first use (PEP 562).

Every distribution but the core may import it; it imports `lensmount.errors` and `lensmount.specs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Checkpoint": "lensmount_reading.checkpoint",
    "ExternalData": "lensmount_reading.facts",
    "FileFacts": "lensmount_reading.facts",
    "GlobalName": "lensmount_reading.records",
    "GraphFile": "lensmount_reading.onnx_graph",
    "GraphValue": "lensmount_reading.facts",
    "OnnxFacts": "lensmount_reading.facts",
    "Record": "lensmount_reading.records",
    "Storage": "lensmount_reading.tensors",
    "TensorFact": "lensmount_reading.facts",
    "TensorRef": "lensmount_reading.tensors",
    "as_torch_state_dict": "lensmount_reading.torch_bridge",
    "check_external_data": "lensmount_reading.external_data",
    "inspect_file": "lensmount_reading.inspection",
    "inspect_graph": "lensmount_reading.onnx_graph",
    "module_records": "lensmount_reading.modules",
    "module_state_dict": "lensmount_reading.modules",
    "read_checkpoint": "lensmount_reading.checkpoint",
    "read_onnx": "lensmount_reading.onnx_file",
    "require_usable": "lensmount_reading.inspection",
    "submodules": "lensmount_reading.modules",
    "supply_linked_data": "lensmount_reading.onnx_graph",
    "tensor_to_torch": "lensmount_reading.torch_bridge",
    "to_safetensors": "lensmount_reading.convert",
}

if TYPE_CHECKING:
    from lensmount_reading.checkpoint import Checkpoint as Checkpoint
    from lensmount_reading.checkpoint import read_checkpoint as read_checkpoint
    from lensmount_reading.convert import to_safetensors as to_safetensors
    from lensmount_reading.external_data import check_external_data as check_external_data
    from lensmount_reading.facts import ExternalData as ExternalData
    from lensmount_reading.facts import FileFacts as FileFacts
    from lensmount_reading.facts import GraphValue as GraphValue
    from lensmount_reading.facts import OnnxFacts as OnnxFacts
    from lensmount_reading.facts import TensorFact as TensorFact
    from lensmount_reading.inspection import inspect_file as inspect_file
    from lensmount_reading.inspection import require_usable as require_usable
    from lensmount_reading.modules import module_records as module_records
    from lensmount_reading.modules import module_state_dict as module_state_dict
    from lensmount_reading.modules import submodules as submodules
    from lensmount_reading.onnx_file import read_onnx as read_onnx
    from lensmount_reading.onnx_graph import GraphFile as GraphFile
    from lensmount_reading.onnx_graph import inspect_graph as inspect_graph
    from lensmount_reading.onnx_graph import supply_linked_data as supply_linked_data
    from lensmount_reading.records import GlobalName as GlobalName
    from lensmount_reading.records import Record as Record
    from lensmount_reading.tensors import Storage as Storage
    from lensmount_reading.tensors import TensorRef as TensorRef
    from lensmount_reading.torch_bridge import as_torch_state_dict as as_torch_state_dict
    from lensmount_reading.torch_bridge import tensor_to_torch as tensor_to_torch

__all__ = [
    "Checkpoint",
    "ExternalData",
    "FileFacts",
    "GlobalName",
    "GraphFile",
    "GraphValue",
    "OnnxFacts",
    "Record",
    "Storage",
    "TensorFact",
    "TensorRef",
    "as_torch_state_dict",
    "check_external_data",
    "inspect_file",
    "inspect_graph",
    "module_records",
    "module_state_dict",
    "read_checkpoint",
    "read_onnx",
    "require_usable",
    "submodules",
    "supply_linked_data",
    "tensor_to_torch",
    "to_safetensors",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
