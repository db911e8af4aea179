"""Static quantisation of a float32 ONNX graph to int8, with the pictures of a folder as calibration.

The work is `onnxruntime.quantization`'s: QuantizeLinear and DequantizeLinear pairs, int8 weights per channel, uint8
activations whose ranges are those that the pictures give. On x86 onnxruntime 1.31 fuses such pairs into int8 kernels
for uint8 activations alone; with int8 ones the same graph ran at half the speed of float (docs/performance.md).

With uint8 activations weights keep to -64..64. x86 processors without VNNI add two products of uint8 and int8 in 16
bits, which saturates: 2 * 255 * 127 is 64770, 2 * 255 * 64 is 32640. A graph with weights in -127..127 finds other
things there than where it was made; with seven bits it gives the same on every processor.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lensmount.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Operators computed in int8. With convolutions alone every activation between them goes to float and back, which on a
#: small network cost what the convolutions had gained.
OPERATORS = (
    "Add", "Concat", "Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "Mul", "Resize", "Sigmoid", "Slice", "Split",
)  # fmt: skip

#: `float_nodes(model: onnx.ModelProto) -> names`: see `Architecture.float_nodes`.
FloatNodes = Callable[[Any], Collection[str]]


def quantize(
    graph: Path,
    batches: Iterable[NDArray[Any]],
    float_nodes: FloatNodes,
    *,
    operators: Collection[str] = OPERATORS,
    activations: Literal["uint8", "int8"] = "uint8",
    full_range: bool = False,
) -> bytes:
    """Quantises a graph with one input.

    Args:
        graph: The float32 graph, opset 13 or later.
        batches: What the input takes, one batch after another; drawn from once.
        float_nodes: Which nodes stay in float.
        operators: Kinds of nodes that are computed in int8.
        activations: What activations become; weights become int8.
        full_range: Weights take all of -127..127 with uint8 activations too: for processors with VNNI, and for Arm.

    Returns:
        The serialised graph, without metadata.

    Raises:
        BackendError: onnxruntime cannot quantise it.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped
        def __init__(self, name: str) -> None:
            self._feeds: Iterator[dict[str, Any]] = ({name: batch} for batch in batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._feeds, None)

    with tempfile.TemporaryDirectory(prefix="lensmount-int8-") as folder, _quiet(), _explained():
        folded, quantised = Path(folder, "folded.onnx"), Path(folder, "int8.onnx")
        # Folds constants, so that weights are initializers, and writes down every shape.
        quant_pre_process(str(graph), str(folded), skip_symbolic_shape=True)
        model = onnx.load(folded)
        _name_nodes(model)
        onnx.save(model, folded)
        quantize_static(
            str(folded),
            str(quantised),
            Reader(model.graph.input[0].name),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            per_channel=True,
            reduce_range=activations == "uint8" and not full_range,
            activation_type=QuantType.QUInt8 if activations == "uint8" else QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(float_nodes(model)),
            calibrate_method=CalibrationMethod.MinMax,
        )
        return quantised.read_bytes()


def _name_nodes(model: Any) -> None:
    """Nodes are excluded by name; a graph need not name them, nor name them apart."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_lensmount_{index}"
        taken.add(node.name)


@contextmanager
def _explained() -> Iterator[None]:
    from lensmount.errors import LensmountError

    try:
        yield
    except LensmountError:  # of a calibration picture
        raise
    except Exception as error:  # onnx and onnxruntime raise classes of their own, and ValueErrors
        raise BackendError(
            "the graph cannot be quantised",
            found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
            expected="a float32 graph of opset 13 or later that onnxruntime runs",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """onnxruntime.quantization logs its advice to the root logger, as warnings."""
    root = logging.getLogger()

    def wanted(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname or record.levelno >= logging.ERROR

    root.addFilter(wanted)
    try:
        yield
    finally:
        root.removeFilter(wanted)
