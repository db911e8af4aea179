"""What a graph's outputs went through last: whether they are probabilities or logits."""

from __future__ import annotations

from collections.abc import Mapping

Node = tuple[str, tuple[str, ...]]
"""An operator, and the names of the values that it takes."""

_NAMES = {
    "Softmax": "softmax",
    "com.microsoft::QLinearSoftmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "com.microsoft::QLinearSigmoid": "sigmoid",
}
_QUANTISING = ("QuantizeLinear", "DequantizeLinear")
_PASSING = frozenset((
    "Identity", "Cast", "CastLike", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Dropout",
    *_QUANTISING, *(f"com.microsoft::{name}" for name in _QUANTISING),
))  # fmt: skip
_MIXING = frozenset((
    "Add", "Sub", "Mul", "Div", "Sum", "Mean", "Max", "Min", "Concat", "Where", "Clip", "Gather", "Slice", "Pow", "Log",
    "Exp", "Neg", "Sqrt", "Reciprocal", "ReduceMean", "ReduceMax", "ReduceSum",
))  # fmt: skip
_HIDING = frozenset(("If", "Loop", "Scan", "SequenceAt"))
_MOST = 64  # values that are looked at behind one


def activation(nodes: Mapping[str, Node], output: str) -> str | None:
    """What the values of an output went through last.

    Operators that leave values as they are do not count. Softmax, log-softmax and sigmoid are also known where an
    exporter wrote their parts.

    Args:
        nodes: What makes each value of the main graph, by the value's name.
        output: Name of the output.

    Returns:
        `softmax`, `log-softmax`, `sigmoid`, `none`; None where it cannot be told: inside a function or a branch, or in
        a mixture of values some of which went through one.
    """
    operator, inputs = _maker(nodes, output)
    if operator in _NAMES:
        return _NAMES[operator]
    return _of_parts(nodes, operator, inputs) or ("none" if _plain(nodes, operator, inputs) else None)


def _of_parts(nodes: Mapping[str, Node], operator: str, inputs: tuple[str, ...]) -> str | None:
    made = [_maker(nodes, name) for name in inputs]
    behind = {_maker(nodes, name)[0] for _, names in made for name in names}
    kinds = [kind for kind, _ in made]
    if operator == "Log" and kinds == ["Softmax"]:
        return "log-softmax"
    if operator == "Exp" and kinds == ["LogSoftmax"]:
        return "softmax"
    if operator == "Div" and kinds[:1] == ["Exp"] and "ReduceSum" in {*kinds, *behind}:
        return "softmax"
    if operator in ("Div", "Reciprocal") and kinds[-1:] == ["Add"] and "Exp" in behind:
        return "sigmoid"  # 1 / (1 + exp(-x))
    if operator == "Sub" and ("ReduceLogSumExp" in kinds or ("Log" in kinds and "ReduceSum" in behind)):
        return "log-softmax"
    return None


def _plain(nodes: Mapping[str, Node], operator: str, inputs: tuple[str, ...]) -> bool:
    """Whether no activation can hide in the values: what makes them is no such operator, nor mixes values of one."""
    waiting, seen = [(operator, inputs)], 0
    while waiting:
        operator, inputs = waiting.pop()
        seen += 1
        if operator in _NAMES or operator in _HIDING or "::" in operator or seen > _MOST:
            return False
        if operator in _MIXING:
            waiting += [_maker(nodes, name) for name in inputs]
    return True


def _maker(nodes: Mapping[str, Node], name: str) -> Node:
    """What made the values of a name; empty for what the graph is given or holds."""
    for _ in range(_MOST):
        operator, inputs = nodes.get(name, ("", ()))
        if operator not in _PASSING or not inputs:
            return operator, inputs
        name = inputs[0]
    return "?::", ()
