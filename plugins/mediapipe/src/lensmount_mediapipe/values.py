"""What is known of a TFLite graph's tensors while it becomes an ONNX graph: constants, values, and their two orders."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from lensmount.contracts import TensorSpec
from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_networks import Graph, Value
from lensmount_reading import TfliteModel, TfliteOperator, printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ELEMENTS = 1 << 26
"""Of one value, and of all constants together: 256 MB in float32, fifty times what the largest file here has."""

MAX_RANK = 6
LAST_TO_FIRST, FIRST_TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)

Order = Literal["file", "first"]
"""`file`: as the file has it. `first`: of four axes, with the channels second."""


class Tensors:
    """The tensors of one file.

    Args:
        model: The file.

    Attributes:
        model: The file.
        graph: What is written.
        inputs: Names of the inputs, each once.
        outputs: Names of the outputs, each once.
    """

    def __init__(self, model: TfliteModel) -> None:
        self.model = model
        self.inputs, self.outputs = (model.unique_names(numbers) for numbers in (model.inputs, model.outputs))
        self.graph = Graph(self.outputs)
        self._values: dict[tuple[int, Order], Value] = {}
        self._arrays: dict[int, NDArray[Any]] = {}
        self._elements = 0

    def open(self) -> None:
        """Declares the inputs."""
        for number, name in zip(self.model.inputs, self.inputs, strict=True):
            self._values[number, "file"] = self.graph.input(self.spec(number, name))

    def made(self, number: int) -> bool:
        """Whether a tensor is there: given, computed or constant."""
        there = (number, "file") in self._values or (number, "first") in self._values
        return there or number in self._arrays or self.model.is_constant(number)

    def shape(self, number: int) -> tuple[int, ...]:
        """The shape that the file declares for a tensor; all sizes known, and of an honest size.

        Raises:
            UnsupportedModelError: A size is free.
            UnsafeFileError: More elements than any honest file has.
        """
        tensor = self.model.tensors[number]
        if any(size < 0 for size in tensor.shape):
            raise UnsupportedModelError(
                f"{self.model.path.name} leaves a size of {printable(tensor.name, 60)} open",
                found=str(tensor.shape),
                expected="fixed sizes",
                fix="load it with backend='litert'",
            )
        if len(tensor.shape) > MAX_RANK or math.prod(tensor.shape) > MAX_ELEMENTS:
            raise UnsafeFileError(
                f"{self.model.path.name} is refused: {printable(tensor.name, 60)} has the shape {tensor.shape[:9]}"
            )
        return tensor.shape

    def array(self, number: int) -> NDArray[Any] | None:
        """The values of a constant, in the file's order; None for what is computed from a picture.

        Raises:
            UnsafeFileError: All constants together have more elements than any honest file has.
        """
        if number not in self._arrays and number >= 0 and self.model.is_constant(number):
            self._elements += math.prod(self.shape(number))
            if self._elements > MAX_ELEMENTS:
                raise UnsafeFileError(f"{self.model.path.name} is refused: its constants have no end")
            found = self.model.constant(number)
            assert found is not None
            self._arrays[number] = found
        return self._arrays.get(number)

    def floats(self, operator: TfliteOperator, place: int) -> NDArray[np.float32]:
        """A constant input of an operator, which must be float32."""
        number = operator.inputs[place] if place < len(operator.inputs) else -1
        found = self.array(number)
        if found is None or found.dtype != np.float32:
            self.wrong(operator, "computed weights" if found is None else f"weights of {found.dtype}", "float32")
        return found

    def integers(self, operator: TfliteOperator, place: int) -> list[int]:
        """A constant input of an operator, as whole numbers."""
        number = operator.inputs[place] if place < len(operator.inputs) else -1
        found = self.array(number)
        if found is None or found.dtype.kind not in "iu" or found.size > 64:
            self.wrong(operator, "sizes that are not a short constant of whole numbers", "a constant")
        return [int(item) for item in found.reshape(-1)]

    def option(self, operator: TfliteOperator, field: int, form: str = "int32", default: int = 0) -> int:
        """One of an operator's options."""
        return default if operator.options is None else operator.options.integer(field, form, default)

    def steps(self, operator: TfliteOperator, *fields: int, default: int = 0) -> list[int]:
        """Options that count pixels: strides, windows, gaps."""
        found = [self.option(operator, field, default=default) for field in fields]
        if not all(0 < step <= 1 << 15 for step in found):
            self.wrong(operator, f"steps {found}", "1 to 32768 pixels")
        return found

    def value(self, number: int, order: Order = "file") -> Value:
        """A tensor in one of its orders; it is turned where it is there in the other alone.

        Raises:
            ModelFileError: Nothing has made it yet.
        """
        if (number, order) in self._values:
            return self._values[number, order]
        constant = self.array(number)
        if constant is not None:
            if constant.dtype not in (np.float32, np.int32, np.int64):
                self._dtype(number)
            if order == "first":
                constant = constant.transpose(LAST_TO_FIRST)
            made = self.graph.constant(np.ascontiguousarray(constant))
        else:
            other = self._values.get((number, "first" if order == "file" else "file"))
            if other is None:
                raise ModelFileError(
                    f"{self.model.path.name}: {self._named(number)} is used before it is made",
                    fix="download it again",
                )
            made = other.permute(*(FIRST_TO_LAST if order == "file" else LAST_TO_FIRST))
        self._values[number, order] = made
        return made

    def either(self, number: int) -> tuple[Value, Order]:
        """A tensor in the order in which it is there."""
        first = self._values.get((number, "first"))
        return (self.value(number), "file") if first is None else (first, "first")

    def give(self, operator: TfliteOperator, number: int, made: Value, order: Order = "file") -> None:
        """Takes what an operator gives, after its activation.

        Raises:
            ModelFileError: It is not of the shape that the file declares.
        """
        declared = self.shape(number)
        self._dtype(number)
        turned = tuple(declared[axis] for axis in LAST_TO_FIRST) if order == "first" else declared
        if tuple(made.shape) != turned:
            self.wrong(operator, f"an output of shape {made.shape}", f"{turned}")
        self._values[number, order] = made

    def keep(self, number: int, array: NDArray[Any]) -> None:
        """Takes a constant that an operator gives."""
        self._arrays[number] = array

    def wrong(self, operator: TfliteOperator, found: str, expected: str) -> NoReturn:
        """Refuses an operator.

        Raises:
            ModelFileError: Always.
        """
        raise ModelFileError(
            f"{self.model.path.name}: {printable(operator.kind, 60)} does not fit what it works on",
            found=found,
            expected=expected,
            fix="download it again; if it is whole, load it with backend='litert'",
        )

    def _dtype(self, number: int) -> None:
        tensor = self.model.tensors[number]
        if tensor.dtype != "float32" or tensor.quantisation is not None:
            raise UnsupportedModelError(
                f"{self.model.path.name}: {self._named(number)} is not computed in float32",
                found=tensor.dtype,
                expected="float32",
                fix="pip install \"lensmount[litert]\", and load it with backend='litert'",
            )

    def spec(self, number: int, name: str) -> TensorSpec:
        """An input or output as the file declares it."""
        self._dtype(number)
        return TensorSpec(name, self.shape(number), "float32")

    def _named(self, number: int) -> str:
        return printable(self.model.tensors[number].name or f"tensor {number}", 60) if number >= 0 else "nothing"
