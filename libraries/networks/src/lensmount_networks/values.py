"""Values of a graph in the making: what a network's code sees in place of torch tensors.

Operators and methods have torch's names and meaning, so that the same code runs on both. Not every method that torch
has is here: all other operations are functions in `lensmount_networks.ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lensmount_networks.sizes import AnySize, Size

if TYPE_CHECKING:
    from numpy.typing import NDArray


Shape = tuple[AnySize, ...]

FOLDED = 1 << 18
"""Elements up to which a constant is written out that another one is expanded to."""


class Writer(Protocol):
    """What a value needs of its graph; see `lensmount_networks.graph.Graph`."""

    reshaped: dict[str, Value]

    def add(
        self, operator: str, inputs: Sequence[Any], shape: Any = None, dtype: Any = None, fold: Any = None, **more: Any
    ) -> Value:
        """A node with one output."""

    def add_many(self, operator: str, inputs: Sequence[Any], outputs: Sequence[Any], **more: Any) -> list[Value]:
        """A node with several outputs."""

    def constant(self, array: Any, name: str = "constant") -> Value:
        """A constant."""

    def integers(self, numbers: Sequence[int]) -> Value:
        """Known numbers, int64."""

    def scalar(self, number: float, dtype: str) -> Value:
        """A number without axes."""

    def sizes(self, shape: Sequence[AnySize]) -> Value:
        """Sizes, int64."""

    def free(self, text: str, value: Value, axis: int) -> Size:
        """The size of an axis."""


class Value:
    """A tensor of a graph.

    Attributes:
        graph: The `Graph` it belongs to.
        name: Its name in the file.
        shape: Whole numbers, and a `Size` where an axis is free.
        dtype: numpy's name.
        array: Its values where it is a constant; None where it is known at run time only.
    """

    __slots__ = ("array", "dtype", "graph", "name", "shape")
    __array_priority__ = 100  # numpy arrays leave operators to us
    __hash__ = object.__hash__

    def __init__(self, graph: Writer, name: str, shape: Shape, dtype: str, array: NDArray[Any] | None = None) -> None:
        self.graph = graph
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.array = array

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        return f"Value({self.name!r}, {self.dtype}, {self.shape})"

    def __bool__(self) -> bool:
        raise TypeError(f"{self.name!r} is known at run time only: choose with ops.where, not with if")

    # Arithmetic and comparisons: of two values of one dtype, or of a value and a number.

    def _pair(self, other: Any) -> tuple[Value, Value]:
        if isinstance(other, Size):
            other = other.value().reshape(()).to(self.dtype)
        if not isinstance(other, Value):
            other = (
                self.graph.constant(other) if isinstance(other, np.ndarray) else self.graph.scalar(other, self.dtype)
            )
        if other.dtype != self.dtype:
            raise TypeError(f"{self!r} and {other!r} have two dtypes; ops.cast brings one to the other's")
        return self, other

    def _binary(
        self, operator: str, other: Any, fold: Callable[..., Any], *, swap: bool = False, to: str = ""
    ) -> Value:
        pair = self._pair(other)
        first, second = pair[::-1] if swap else pair
        shape = broadcast(first.shape, second.shape)
        return self.graph.add(operator, [first, second], shape, to or self.dtype, fold)

    def __add__(self, other: Any) -> Value:
        return self._binary("Add", other, np.add)

    def __radd__(self, other: Any) -> Value:
        return self._binary("Add", other, np.add, swap=True)

    def __sub__(self, other: Any) -> Value:
        return self._binary("Sub", other, np.subtract)

    def __rsub__(self, other: Any) -> Value:
        return self._binary("Sub", other, np.subtract, swap=True)

    def __mul__(self, other: Any) -> Value:
        return self._binary("Mul", other, np.multiply)

    def __rmul__(self, other: Any) -> Value:
        return self._binary("Mul", other, np.multiply, swap=True)

    def __truediv__(self, other: Any) -> Value:
        return self._binary("Div", other, np.divide)

    def __floordiv__(self, other: Any) -> Value:
        """Of whole numbers, rounded down as Python does; ONNX's own division drops what is behind the point."""
        return (self - self % other)._binary("Div", other, np.floor_divide)

    def __mod__(self, other: Any) -> Value:
        """Of whole numbers, with the divisor's sign."""
        return self._binary("Mod", other, np.mod)

    def __rtruediv__(self, other: Any) -> Value:
        return self._binary("Div", other, np.divide, swap=True)

    def __pow__(self, other: Any) -> Value:
        return self._binary("Pow", other, np.power)

    def __rpow__(self, other: Any) -> Value:
        return self._binary("Pow", other, np.power, swap=True)

    def __neg__(self) -> Value:
        return self.graph.add("Neg", [self], fold=np.negative)

    def __invert__(self) -> Value:
        return self.graph.add("Not", [self], fold=np.logical_not)

    def __and__(self, other: Any) -> Value:
        return self._binary("And", other, np.logical_and)

    def __or__(self, other: Any) -> Value:
        return self._binary("Or", other, np.logical_or)

    def __lt__(self, other: Any) -> Value:
        return self._binary("Less", other, np.less, to="bool")

    def __le__(self, other: Any) -> Value:
        return self._binary("LessOrEqual", other, np.less_equal, to="bool")

    def __gt__(self, other: Any) -> Value:
        return self._binary("Greater", other, np.greater, to="bool")

    def __ge__(self, other: Any) -> Value:
        return self._binary("GreaterOrEqual", other, np.greater_equal, to="bool")

    def __eq__(self, other: object) -> Value:  # type: ignore[override]  # as torch's
        return self._binary("Equal", other, np.equal, to="bool")

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return ~(self == other)

    def __matmul__(self, other: Value) -> Value:
        first, second = self._pair(other)
        if first.ndim < 2 or second.ndim < 2:
            raise TypeError(f"{first!r} @ {second!r}: both need two axes or more")
        require_fit("sizes of a product", first.shape[-1], second.shape[-2])
        shape = (*broadcast(first.shape[:-2], second.shape[:-2]), first.shape[-2], second.shape[-1])
        return self.graph.add("MatMul", [first, second], shape, fold=np.matmul)

    # Shapes.

    def reshape(self, *shape: Any) -> Value:
        """The same elements in another shape; one size may be -1."""
        wanted = _sizes(shape)
        if wanted == self.shape:
            return self
        if (source := self.graph.reshaped.get(self.name)) is not None and -1 not in wanted:
            return source.reshape(*wanted)
        if -1 in wanted:
            known = [size for size in wanted if size != -1]
            inferred = _quotient(self.shape, known)
            result: Shape = tuple((inferred if size == -1 else size) for size in wanted)  # type: ignore[misc]
        else:
            result = wanted
        if all(isinstance(size, int) for size in (*self.shape, *result)):
            require_fit(f"elements of {self.shape} and of {wanted}", math.prod(self.shape), math.prod(result))
        if self.array is not None and all(isinstance(size, int) for size in wanted):
            return self.graph.constant(self.array.reshape(tuple(int(size) for size in wanted)), self.name)
        # 0 takes the input's size of that place, and one size is found by the runtime: no node computes them.
        stated: list[AnySize] = [
            0 if isinstance(size, Size) and place < self.ndim and self.shape[place] == size else size
            for place, size in enumerate(wanted)
        ]
        free = [place for place, size in enumerate(stated) if isinstance(size, Size)]
        if len(free) == 1 and -1 not in stated:
            stated[free[0]] = -1
        if inferred_free := [place for place, size in enumerate(result) if size is None]:
            target = self.graph.add("Reshape", [self, self.graph.sizes(stated)], wanted)
            named = list(result)
            for place in inferred_free:
                named[place] = self.graph.free(f"{target.name}[{place}]", target, place)
            target.shape = tuple(named)
            return target
        made = self.graph.add("Reshape", [self, self.graph.sizes(stated)], result)
        self.graph.reshaped[made.name] = self
        return made

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Value:
        """Joins the axes from `start_dim` to `end_dim`."""
        first, last = start_dim % self.ndim, end_dim % self.ndim
        size = math.prod(self.shape[first : last + 1])
        return self.reshape(*self.shape[:first], size, *self.shape[last + 1 :])

    def permute(self, *axes: Any) -> Value:
        """Axes in another order."""
        order = [int(axis) % self.ndim for axis in _sizes(axes)]
        shape = tuple(self.shape[axis] for axis in order)
        return self.graph.add("Transpose", [self], shape, fold=lambda a: a.transpose(order), perm=order)

    def transpose(self, first: int, second: int) -> Value:
        """Two axes swapped."""
        order = list(range(self.ndim))
        order[first], order[second] = order[second], order[first]
        return self.permute(*order)

    @property
    def T(self) -> Value:  # noqa: N802  # torch's name
        """A matrix turned."""
        return self.transpose(0, 1)

    @property
    def mT(self) -> Value:  # noqa: N802  # torch's name
        """The last two axes swapped."""
        return self.transpose(-2, -1)

    def unsqueeze(self, axis: int) -> Value:
        """An axis of size 1 more."""
        place = axis % (self.ndim + 1)
        shape = (*self.shape[:place], 1, *self.shape[place:])
        inputs = [self, self.graph.integers([place])]
        return self.graph.add("Unsqueeze", inputs, shape, fold=lambda a, _: np.expand_dims(a, place))

    def squeeze(self, axis: int) -> Value:
        """Without an axis that has size 1."""
        place = axis % self.ndim
        shape = (*self.shape[:place], *self.shape[place + 1 :])
        inputs = [self, self.graph.integers([place])]
        return self.graph.add("Squeeze", inputs, shape, fold=lambda a, _: np.squeeze(a, place))

    def expand(self, *shape: Any) -> Value:
        """Repeats axes of size 1 without writing them out; -1 leaves an axis as it is."""
        wanted = _sizes(shape)
        lead = len(wanted) - self.ndim
        result = tuple(self.shape[i - lead] if size == -1 else size for i, size in enumerate(wanted))
        if result == self.shape:
            return self
        small = all(isinstance(size, int) for size in result) and math.prod(result) <= FOLDED
        fold = (lambda a, _: np.broadcast_to(a, result)) if small else None
        return self.graph.add("Expand", [self, self.graph.sizes(result)], result, fold=fold)

    def chunk(self, count: int, dim: int = 0) -> list[Value]:
        """Equal parts along an axis; its size is known and divides."""
        size = self.shape[dim]
        if not isinstance(size, int) or size % count:
            raise TypeError(f"{self!r} cannot be cut into {count} equal parts along axis {dim}")
        return self.split(size // count, dim)

    def split(self, sizes: int | Sequence[int], dim: int = 0) -> list[Value]:
        """Parts of given sizes along an axis; a number means parts of that size, the last one perhaps smaller."""
        axis, size = dim % self.ndim, self.shape[dim]
        if isinstance(sizes, int):
            if not isinstance(size, int):
                raise TypeError(f"{self!r} is free along axis {dim}; name the sizes of the parts")
            sizes = [min(sizes, size - start) for start in range(0, size, sizes)]
        require_fit(f"axis {dim} and its parts", size, sum(sizes))
        if self.array is not None:
            parts = np.split(self.array, np.cumsum(sizes)[:-1], axis)
            return [self.graph.constant(part, self.name) for part in parts]
        outputs: list[tuple[Shape, str | None]] = [
            ((*self.shape[:axis], part, *self.shape[axis + 1 :]), None) for part in sizes
        ]
        return self.graph.add_many("Split", [self, self.graph.integers(list(sizes))], outputs, axis=axis)

    def __getitem__(self, index: Any) -> Value:
        """Whole numbers, slices, None and `…`, as numpy and torch take them; steps are positive."""
        items = list(index) if isinstance(index, tuple) else [index]
        if any(item is Ellipsis for item in items):
            place = next(i for i, item in enumerate(items) if item is Ellipsis)
            missing = self.ndim - sum(item is not None and item is not Ellipsis for item in items)
            items[place : place + 1] = [slice(None)] * missing
        value, axis = self, 0
        for item in items:
            if item is None:
                value, axis = value.unsqueeze(axis), axis + 1
            elif isinstance(item, slice):
                value, axis = value._slice(axis, item), axis + 1
            elif isinstance(item, int):
                value = value._slice(axis, slice(item, item + 1 if item != -1 else None)).squeeze(axis)
            else:
                raise TypeError(f"{self!r} is indexed by {type(item).__name__}; ops.gather and ops.take do that")
        return value

    def _slice(self, axis: int, part: slice) -> Value:
        size, step = self.shape[axis], 1 if part.step is None else part.step
        if part.start in (None, 0) and (part.stop is None or part.stop == size) and step == 1:
            return self
        if isinstance(size, int) and not any(isinstance(p, Size) for p in (part.start, part.stop)):
            length: AnySize = len(range(*part.indices(size)))
            if self.array is not None:
                return self.graph.constant(self.array[(slice(None),) * axis + (part,)], self.name)
        else:
            length = _sliced(size, part, step)
        start = 0 if part.start is None else part.start
        stop = np.iinfo(np.int64).max if part.stop is None else part.stop
        bounds = [self.graph.sizes([start]), self.graph.sizes([stop])]
        fixed = [self.graph.integers([axis]), self.graph.integers([step])]
        shape = (*self.shape[:axis], length, *self.shape[axis + 1 :])
        return self.graph.add("Slice", [self, *bounds, *fixed], shape)

    # What torch has as methods as well and networks use often.

    def to(self, dtype: str) -> Value:
        """In another dtype, by numpy's name. On torch tensors this is `ops.cast`."""
        from lensmount_networks.writer import TYPES

        if dtype == self.dtype:
            return self
        return self.graph.add("Cast", [self], None, dtype, lambda a: a.astype(dtype), to=TYPES[dtype])

    def mean(self, dim: int | Sequence[int], keepdim: bool = False) -> Value:
        """The mean over axes."""
        axes = [dim] if isinstance(dim, int) else list(dim)
        return self.graph.add("ReduceMean", [self], self.reduced(axes, keepdim), axes=axes, keepdims=int(keepdim))

    def sum(self, dim: int | Sequence[int], keepdim: bool = False) -> Value:
        """The sum over axes."""
        axes = [dim] if isinstance(dim, int) else list(dim)
        inputs = [self, self.graph.integers(axes)]
        return self.graph.add("ReduceSum", inputs, self.reduced(axes, keepdim), keepdims=int(keepdim))

    def amax(self, dim: int | Sequence[int], keepdim: bool = False) -> Value:
        """The largest over axes."""
        axes = [dim] if isinstance(dim, int) else list(dim)
        return self.graph.add("ReduceMax", [self], self.reduced(axes, keepdim), axes=axes, keepdims=int(keepdim))

    def amin(self, dim: int | Sequence[int], keepdim: bool = False) -> Value:
        """The smallest over axes."""
        axes = [dim] if isinstance(dim, int) else list(dim)
        return self.graph.add("ReduceMin", [self], self.reduced(axes, keepdim), axes=axes, keepdims=int(keepdim))

    def argmax(self, dim: int, keepdim: bool = False) -> Value:
        """Where the largest lies along an axis, int64; the first of equal ones."""
        shape = self.reduced([dim], keepdim)
        return self.graph.add("ArgMax", [self], shape, "int64", axis=dim, keepdims=int(keepdim))

    def reduced(self, axes: Sequence[int], keep: bool) -> Shape:
        """The shape without some axes, or with 1 in their places."""
        gone = {axis % self.ndim for axis in axes}
        return tuple(1 if i in gone else size for i, size in enumerate(self.shape) if keep or i not in gone)


def require_fit(what: str, size: Any, wanted: Any) -> None:
    """Refuses two known sizes that should be one; free ones are the runtime's to compare.

    Raises:
        TypeError: They differ.
    """
    if isinstance(size, int) and isinstance(wanted, int) and size != wanted:
        raise TypeError(f"{what} do not fit: {size} and {wanted}")


def broadcast(first: Shape, second: Shape) -> Shape:
    """The shape of what an operator makes of two shapes.

    Raises:
        TypeError: They do not go together.
    """
    length = max(len(first), len(second))
    padded = [(1,) * (length - len(shape)) + tuple(shape) for shape in (first, second)]
    made: list[AnySize] = []
    for a, b in zip(*padded, strict=True):
        if isinstance(a, int) and isinstance(b, int) and a != b and 1 not in (a, b):
            raise TypeError(f"shapes {first} and {second} do not go together")
        made.append(b if a == 1 or (isinstance(a, Size) and isinstance(b, int) and b != 1) else a)
    return tuple(made)


def _sizes(shape: tuple[Any, ...]) -> Shape:
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


def _quotient(shape: Shape, known: Sequence[AnySize]) -> AnySize | None:
    """What a size of -1 comes to; None where that takes arithmetic on free sizes."""
    left, rest = list(shape), []
    for size in known:
        if isinstance(size, Size) and size in left:
            left.remove(size)
        else:
            rest.append(size)
    free = [size for size in left if isinstance(size, Size)]
    if any(isinstance(size, Size) for size in rest) or len(free) > 1:
        return None
    top = math.prod(size for size in left if isinstance(size, int))
    bottom = math.prod(size for size in rest if isinstance(size, int))
    if not free:
        return top // bottom if bottom else 0
    if top % max(bottom, 1):
        return None
    product: AnySize = free[0] * (top // max(bottom, 1))
    return product


def _sliced(size: AnySize, part: slice, step: int) -> AnySize:
    """How many elements a slice has where its bounds are not all known."""
    start = 0 if part.start is None else part.start
    stop = size if part.stop is None else part.stop
    if isinstance(start, int) and start < 0:
        start = size + start
    if isinstance(stop, int) and stop < 0:
        stop = size + stop
    length: Any = stop if isinstance(start, int) and start == 0 else stop - start
    made: AnySize = length if step == 1 else (length + (step - 1)) // step
    return made
