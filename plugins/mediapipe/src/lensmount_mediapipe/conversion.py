"""A TFLite graph as an ONNX graph in memory, without TensorFlow, for backends that open ONNX alone.

TFLite's pictures have their channels last, ONNX's convolutions want them first. Each value is turned at most once each
way, and only where an operator needs it; inputs and outputs keep the file's shapes, so that a model sees the same graph
on either backend. What a file says is checked against what its operators give, sizes first: a file that lies is
refused before anything of its size is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import LensmountError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_mediapipe.operators import OPERATORS
from lensmount_mediapipe.values import Tensors
from lensmount_reading import TfliteModel, TfliteOperator, printable, read_tflite

if TYPE_CHECKING:
    from lensmount.contracts import GraphNetwork, NetworkContext

MAX_OPERATORS = 10_000


def graph(context: NetworkContext) -> GraphNetwork:
    """The graph of a package of format `tflite`; see `lensmount.specs.Architecture.graph`.

    Raises:
        ModelFileError: The file is damaged, or its parts do not fit together.
        UnsafeFileError: Sizes that no honest file has.
        UnsupportedModelError: An operator or type that has no ONNX form here.
    """
    return convert(next(context.files[a.name] for a in context.package.artifacts if a.role == "graph"))


def convert(path: Path) -> GraphNetwork:
    """The graph of a TFLite file; raises as `graph`."""
    model = read_tflite(path)
    try:
        return _converted(model)
    except LensmountError:
        raise
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        # The checks name what is wrong in the words of the format; what they leave is still the file's fault.
        raise ModelFileError(f"{path.name} is no sound TFLite graph", found=printable(error, 300)) from error


def _converted(model: TfliteModel) -> GraphNetwork:
    if len(model.operators) > MAX_OPERATORS:
        raise UnsafeFileError(f"{model.path.name} is refused", found=f"{len(model.operators)} operators")
    tensors = Tensors(model)
    tensors.open()
    for operator in model.operators:
        _write(tensors, operator)
    results = [tensors.value(number) for number in model.outputs]
    specs = [tensors.spec(number, name) for number, name in zip(model.outputs, tensors.outputs, strict=True)]
    return tensors.graph.finish(results, specs, model.metadata)


def _write(tensors: Tensors, operator: TfliteOperator) -> None:
    write = OPERATORS.get(operator.kind)
    if write is None:
        raise UnsupportedModelError(
            f"{tensors.model.path.name} has an operator that is not brought to ONNX here",
            found=printable(operator.kind, 60),
            expected=", ".join(sorted(OPERATORS)),
            fix="pip install \"lensmount[litert]\", and load it with backend='litert'",
        )
    if len(operator.outputs) != 1 or tensors.made(operator.outputs[0]):
        tensors.wrong(operator, "several outputs, or one that is there already", "one, written once")
    write(tensors, operator, operator.outputs[0])
