"""Looking at and reading model files without running anything from them; used by every plugin.

* `inspect_file` says what a file is and holds, even of one that would be refused;
* `read_checkpoint` reads torch, TorchScript and safetensors files into plain containers, lazy tensors and records;
* `module_state_dict` and `module_records` walk a pickled module tree under torch's own names;
* `read_onnx` gives a graph's inputs, outputs and metadata; `check_external_data` guards the files it refers to;
* `first_stranger` tells files that a recogniser knows and its architecture does not run;
* `read_tflite` gives a TFLite graph: tensors, operators, constants;
* `copy_member` takes one file out of a zip archive;
* `as_arrays` hands tensors to numpy, `as_torch_state_dict` to torch; `to_safetensors` writes them.

Nothing here imports torch but `as_torch_state_dict`, and numpy only where arrays are asked for. Names are resolved on
first use (PEP 562).

Every distribution but the core may import it; it imports `lensmount.errors` and `lensmount.specs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_reading.arrays": ("as_arrays",),
    "lensmount_reading.checkpoint": ("Checkpoint", "read_checkpoint"),
    "lensmount_reading.convert": ("to_safetensors",),
    "lensmount_reading.external_data": ("check_external_data",),
    "lensmount_reading.facts": ("ExternalData", "FileFacts", "GraphValue", "OnnxFacts", "TensorFact"),
    "lensmount_reading.inspection": ("inspect_file", "require_usable"),
    "lensmount_reading.members": ("copy_member",),
    "lensmount_reading.modules": ("module_records", "module_state_dict", "submodules", "unwrapped"),
    "lensmount_reading.onnx_file": ("read_onnx",),
    "lensmount_reading.onnx_graph": ("GraphFile", "inspect_graph", "supply_data"),
    "lensmount_reading.records": ("GlobalName", "Record"),
    "lensmount_reading.strangers": ("Stranger", "first_stranger"),
    "lensmount_reading.tensors": ("Storage", "TensorRef"),
    "lensmount_reading.text": ("plain_text", "printable"),
    "lensmount_reading.tflite_file": (
        "Quantisation", "TfliteModel", "TfliteOperator", "TfliteTensor", "read_tflite",
    ),
    "lensmount_reading.torch_bridge": ("as_torch_state_dict", "tensor_to_torch"),
}  # fmt: skip

if TYPE_CHECKING:
    from lensmount_reading.arrays import as_arrays
    from lensmount_reading.checkpoint import Checkpoint, read_checkpoint
    from lensmount_reading.convert import to_safetensors
    from lensmount_reading.external_data import check_external_data
    from lensmount_reading.facts import ExternalData, FileFacts, GraphValue, OnnxFacts, TensorFact
    from lensmount_reading.inspection import inspect_file, require_usable
    from lensmount_reading.members import copy_member
    from lensmount_reading.modules import module_records, module_state_dict, submodules, unwrapped
    from lensmount_reading.onnx_file import read_onnx
    from lensmount_reading.onnx_graph import GraphFile, inspect_graph, supply_data
    from lensmount_reading.records import GlobalName, Record
    from lensmount_reading.strangers import Stranger, first_stranger
    from lensmount_reading.tensors import Storage, TensorRef
    from lensmount_reading.text import plain_text, printable
    from lensmount_reading.tflite_file import Quantisation, TfliteModel, TfliteOperator, TfliteTensor, read_tflite
    from lensmount_reading.torch_bridge import as_torch_state_dict, tensor_to_torch

__all__ = [
    "Checkpoint", "ExternalData", "FileFacts", "GlobalName", "GraphFile", "GraphValue", "OnnxFacts", "Quantisation",
    "Record", "Storage", "Stranger", "TensorFact", "TensorRef", "TfliteModel", "TfliteOperator", "TfliteTensor",
    "as_arrays", "as_torch_state_dict", "check_external_data", "copy_member", "first_stranger", "inspect_file",
    "inspect_graph", "module_records", "module_state_dict", "plain_text", "printable", "read_checkpoint", "read_onnx",
    "read_tflite", "require_usable", "submodules", "supply_data", "tensor_to_torch", "to_safetensors", "unwrapped",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
