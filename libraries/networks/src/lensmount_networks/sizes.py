"""Sizes that are known at run time only: names of free axes, and arithmetic on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Size:
    """A free size of a graph: what `shape` gives in place of a whole number.

    It takes `+ - * //` with whole numbers and with other sizes, as the numbers do that torch gives. Two sizes are
    equal where they are made in the same way from the same inputs.

    Args:
        text: How it is made: `batch`, `(height + 1)//2`.
        make: Appends to the graph what computes it, once for each text: an int64 tensor of one element.
    """

    __slots__ = ("_made", "_make", "text")

    def __init__(self, text: str, make: Callable[[], Any]) -> None:
        self.text = text
        self._make = make
        self._made: Any = None

    def value(self) -> Any:
        """The int64 tensor of shape `(1,)` that holds it at run time."""
        if self._made is None:  # a size goes into many others: each is made once
            self._made = self._make()
        return self._made

    def _with(self, other: Any, sign: str, swapped: bool = False) -> Any:
        if isinstance(other, int) and not swapped and (sign, other) in _NEUTRAL:
            return self
        if isinstance(other, int) and swapped and sign in "+*" and (sign, other) in _NEUTRAL:
            return self
        if not isinstance(other, int | Size):
            return NotImplemented
        first, second = (other, self) if swapped else (self, other)
        return Size(f"({first} {sign} {second})", lambda: _combine(first, second, sign))

    def __add__(self, other: Any) -> Any:
        return self._with(other, "+")

    def __radd__(self, other: Any) -> Any:
        return self._with(other, "+", swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, "-")

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, "-", swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, "*")

    def __rmul__(self, other: Any) -> Any:
        return self._with(other, "*", swapped=True)

    def __floordiv__(self, other: Any) -> Any:
        return self._with(other, "//")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Size) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __int__(self) -> int:
        raise TypeError(f"the size {self.text!r} is free: it is no number while a graph is written")

    __index__ = __bool__ = __float__ = __int__

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Size({self.text!r})"


AnySize = int | Size
_NEUTRAL = {("+", 0), ("-", 0), ("*", 1), ("//", 1)}
_OPERATORS = {"+": "Add", "-": "Sub", "*": "Mul", "//": "Div"}  # of integers, Div drops what is behind the point


def _combine(first: AnySize, second: AnySize, sign: str) -> Any:
    graph = (first if isinstance(first, Size) else second).value().graph  # type: ignore[union-attr]
    parts = [part.value() if isinstance(part, Size) else graph.integers([part]) for part in (first, second)]
    return graph.add(_OPERATORS[sign], parts, shape=(1,))
