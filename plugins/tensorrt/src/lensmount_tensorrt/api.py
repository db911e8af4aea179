"""What is known of TensorRT without importing it: versions, element types; and the check that it can be imported."""

from __future__ import annotations

import re

from lensmount.errors import MissingDependencyError

INSTALL = 'pip install "lensmount[tensorrt]"'
OLDEST = (10, 1)
NEWEST_MAJOR = 11

DTYPES = {
    "FLOAT": ("float32", "float32"),
    "HALF": ("float16", "float16"),
    "BF16": ("uint16", "float32"),
    "FP8": ("uint8", "float32"),
    "INT8": ("int8", "int8"),
    "UINT8": ("uint8", "uint8"),
    "INT32": ("int32", "int32"),
    "INT64": ("int64", "int64"),
    "BOOL": ("bool", "bool"),
}
"""By TensorRT's name: the numpy type whose bits the device holds, and the one that callers see.

numpy has no bfloat16 and no float8: they are seen as float32. Types of less than a byte (INT4, FP4) are none of ours.
"""


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: `10.3.0.30` is `(10, 3, 0, 30)`."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def why_unsupported(version: str) -> str | None:
    """Why a version of TensorRT is none that this backend runs on; None if it is."""
    found = numbers(version)
    if found[:2] < OLDEST:
        return f"TensorRT {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed"
    if found[0] > NEWEST_MAJOR:
        return f"TensorRT {version} is newer than this backend knows: 10 and 11 are supported"
    return None


def require() -> None:
    """Imports TensorRT and cuda-bindings.

    Raises:
        MissingDependencyError: One is not installed, cannot be imported, or is of a version that is not supported.
    """
    try:
        import tensorrt
        from cuda.bindings import runtime as _  # noqa: F401  # it is the import that may fail
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        raise MissingDependencyError(
            f"the tensorrt backend needs {(error.name or 'tensorrt').partition('.')[0]}"
            if missing
            else "TensorRT or cuda-bindings is installed but cannot be imported",
            found=str(error),
            fix=INSTALL if missing else f"lensmount doctor; {INSTALL}",
        ) from error
    except OSError as error:  # libraries that the module opens by itself
        raise MissingDependencyError(
            "TensorRT's libraries cannot be opened", found=str(error), fix=f"lensmount doctor; {INSTALL}"
        ) from error
    problem = why_unsupported(tensorrt.__version__)
    if problem:
        raise MissingDependencyError(problem, fix='pip install "tensorrt>=10.1,<12"')
