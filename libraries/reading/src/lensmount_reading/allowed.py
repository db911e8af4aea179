"""Which classes and functions a pickle may name, and what each of them becomes.

Three kinds, and everything else is refused by name:

* **interpreted**: rebuilding tensors and plain containers; done by `lensmount_reading.rebuild`, never by the function;
* **storage**: torch's storage classes, which stand for an element type;
* **record**: classes whose instances become inert `Record`s. Since nothing is imported or called, any class could be
  kept so without danger; the list is closed all the same, so that a file which needs anything outside it is refused
  and named instead of being half understood.

Names are compared exactly: no look-alike letters, no dotted paths into a module's attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lensmount_reading.dtypes import BY_STORAGE, DTYPES, TORCH_ALIASES

_PYTHON_2_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}

_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")

_BUILTIN_CLASSES = ("set", "frozenset", "list", "tuple", "dict", "bytes", "bytearray", "complex")
_TENSOR_FUNCTIONS = (
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)
_SCRIPT_FUNCTIONS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")

INTERPRETED: Mapping[tuple[str, str], str] = {
    ("collections", "OrderedDict"): "dict",
    ("collections", "Counter"): "dict",
    ("collections", "defaultdict"): "defaultdict",
    ("_codecs", "encode"): "encode",
    ("copyreg", "_reconstructor"): "reconstructor",
    ("torch", "Size"): "tuple",
    ("torch", "device"): "device",
    ("torch.nn.parameter", "Parameter"): "parameter",
    ("torch._tensor", "_rebuild_from_type_v2"): "from_type",
    ("numpy", "dtype"): "numpy_dtype",
    **{("builtins", name): name for name in _BUILTIN_CLASSES},
    **{("torch._utils", name): name.removeprefix("_") for name in _TENSOR_FUNCTIONS},
    **{("torch.jit._pickle", name): "first" for name in _SCRIPT_FUNCTIONS},
    **{(module, name): "path" for module in ("pathlib", "pathlib._local") for name in _PATHS},
    **{(module, "_reconstruct"): "numpy_array" for module in _NUMPY},
    **{(module, "scalar"): "numpy_scalar" for module in _NUMPY},
}
"""(module, name) -> the method of `rebuild.Rebuilder` that does its work."""

_INERT_ANYWHERE = frozenset(
    {
        ("argparse", "Namespace"),
        ("types", "SimpleNamespace"),
        ("datetime", "datetime"),
        ("datetime", "date"),
        ("datetime", "time"),
        ("datetime", "timedelta"),
        ("datetime", "timezone"),
        ("torch", "Tensor"),
        ("numpy", "ndarray"),
        ("builtins", "object"),
        ("builtins", "int"),
        ("builtins", "float"),
        ("builtins", "str"),
        ("builtins", "bool"),
    }
)

_MODULE_TREES = ("torch.nn.modules.", "torch.nn.parallel.", "ultralytics.", "models.", "yolov5.models.")
"""Where the classes of official YOLO checkpoints live: ultralytics, and the older repositories' `models` package; and
torch's wrappers around networks in training."""

_SCRIPT_CLASSES = "__torch__"

_MAX_NAME = 512
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

POLICIES = ("plain", "modules", "script")
"""`plain`: state dicts. `modules`: also module trees. `script`: also TorchScript's own classes."""


def present_module(module: str) -> str:
    """Python 2's name of a module, as pickle protocols 0 to 2 write it, under its present name."""
    return _PYTHON_2_MODULES.get(module, module)


def dtype_of_global(module: str, name: str) -> str | None:
    """The element type that a global of `torch` names (`torch.float16`, `torch.half`), or None."""
    if module != "torch":
        return None
    name = TORCH_ALIASES.get(name, name)
    return name if name in DTYPES else None


def storage_dtype(module: str, name: str) -> str | None:
    """The element type of a torch storage class, or None where the global is no such class."""
    if (module, name) in {("torch.storage", "UntypedStorage"), ("torch", "UntypedStorage")}:
        return "uint8"
    if module in {"torch", "torch.cuda"} and name in BY_STORAGE:
        return BY_STORAGE[name].name
    return None


def kind_of(module: str, name: str, policy: str) -> str:
    """Sort a global: `"call"`, `"storage"`, `"record"` or `"refused"`.

    Args:
        module: As `present_module` gives it.
        name: As written.
        policy: One of `POLICIES`.
    """
    if (module, name) in INTERPRETED:
        return "call"
    if storage_dtype(module, name) is not None:
        return "storage"
    if (module, name) in _INERT_ANYWHERE:
        return "record"
    if not _plain_path(module) or not _plain_path(name) or "." in name:
        return "refused"
    if policy == "script" and is_script_module(module):
        return "record"
    if policy == "modules" and module.startswith(_MODULE_TREES) and _class_like(name) and "__" not in module:
        return "record"
    return "refused"


def is_script_module(module: str) -> bool:
    """Whether classes of this module are TorchScript's own, defined by the archive itself."""
    return module == _SCRIPT_CLASSES or module.startswith(_SCRIPT_CLASSES + ".")


def _plain_path(path: str) -> bool:
    """Whether a dotted path consists of ASCII identifiers."""
    return len(path) <= _MAX_NAME and all(map(_IDENTIFIER.fullmatch, path.split(".")))


def _class_like(name: str) -> bool:
    """Classes of module trees have a capital (`Conv`, `v10Detect`, `autoShape`), their functions have none."""
    return not name.startswith("__") and any(map(str.isupper, name))
