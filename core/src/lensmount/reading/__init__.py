"""Looking at and reading model files without running anything from them; used by every plugin.

* `inspect_file` says what a file is and holds, even of one that would be refused;
* `read_checkpoint` reads torch, TorchScript and safetensors files into plain containers, lazy tensors and records;
* `module_state_dict` and `module_records` walk a pickled module tree under torch's own names;
* `read_onnx` gives a graph's inputs, outputs and metadata; `check_external_data` guards the files it refers to;
* `as_torch_state_dict` hands tensors to torch; `to_safetensors` writes them.

Nothing here imports torch but `as_torch_state_dict`, and numpy only where arrays are asked for.
"""

from lensmount.reading.checkpoint import Checkpoint, read_checkpoint
from lensmount.reading.convert import to_safetensors
from lensmount.reading.external_data import check_external_data
from lensmount.reading.facts import FileFacts, GraphValue, TensorFact, inspect_file, require_usable
from lensmount.reading.modules import module_records, module_state_dict, submodules
from lensmount.reading.onnx_file import ExternalData, OnnxFacts, read_onnx
from lensmount.reading.records import GlobalName, Record
from lensmount.reading.tensors import Storage, TensorRef
from lensmount.reading.torch_bridge import as_torch_state_dict, tensor_to_torch

__all__ = [
    "Checkpoint",
    "ExternalData",
    "FileFacts",
    "GlobalName",
    "GraphValue",
    "OnnxFacts",
    "Record",
    "Storage",
    "TensorFact",
    "TensorRef",
    "as_torch_state_dict",
    "check_external_data",
    "inspect_file",
    "module_records",
    "module_state_dict",
    "read_checkpoint",
    "read_onnx",
    "require_usable",
    "submodules",
    "tensor_to_torch",
    "to_safetensors",
]
