"""Joining, looking up and ordering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lensmount_networks.sizes import AnySize, Size
from lensmount_networks.values import Value, require_fit

Tensor = Any


def concat(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Parts one behind the other along an axis."""
    first = parts[0]
    if not isinstance(first, Value):
        import torch

        return torch.cat(list(parts), dim)
    axis = dim % first.ndim
    size: AnySize = sum((part.shape[axis] for part in parts[1:]), start=first.shape[axis])
    shape = list(first.shape)
    for part in parts:  # a size that one of them knows is known
        for place in {*range(part.ndim)} - {axis}:
            require_fit(f"axis {place} of parts that are joined", part.shape[place], shape[place])
        shape = [b if isinstance(a, Size) else a for a, b in zip(shape, part.shape, strict=True)]
    shape[axis] = size
    return first.graph.add("Concat", list(parts), shape, fold=lambda *a: np.concatenate(a, axis), axis=axis)


def stack(parts: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Parts of one shape along a new axis."""
    if isinstance(parts[0], Value):
        return concat([part.unsqueeze(dim) for part in parts], dim % (parts[0].ndim + 1))
    import torch

    return torch.stack(list(parts), dim)


def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of a table `(N, …)` by integers of any shape: `(ids…, …)`."""
    if isinstance(ids, Value):
        return table.graph.add("Gather", [table, ids], (*ids.shape, *table.shape[1:]), axis=0)
    import torch

    return torch.nn.functional.embedding(ids, table)


def take(x: Tensor, ids: Tensor, dim: int) -> Tensor:
    """Slices along an axis by integers `(n,)`, the same ones for all (`torch.index_select`)."""
    if isinstance(x, Value):
        axis = dim % x.ndim
        shape = (*x.shape[:axis], *ids.shape, *x.shape[axis + 1 :])
        return x.graph.add("Gather", [x, ids], shape, fold=lambda a, i: np.take(a, i, axis), axis=axis)
    return x.index_select(dim, ids)


def gather(x: Tensor, dim: int, ids: Tensor) -> Tensor:
    """Elements along an axis by integers of the result's shape (`torch.gather`)."""
    if isinstance(x, Value):
        return x.graph.add("GatherElements", [x, ids], ids.shape, x.dtype, axis=dim)
    return x.gather(dim, ids)


def put(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """`x` with values `(n,)` at places `(n, x.ndim)`, int64, each place once."""
    if isinstance(x, Value):
        return x.graph.add("ScatterND", [x, places, values])
    return x.index_put(tuple(places.unbind(1)), values)


def topk(x: Tensor, count: AnySize, dim: int = -1) -> tuple[Tensor, Tensor]:
    """The largest along an axis, in falling order, and their places (int64)."""
    if isinstance(x, Value):
        shape = list(x.shape)
        shape[dim] = count
        inputs = [x, x.graph.sizes([count])]
        found = x.graph.add_many("TopK", inputs, [(shape, None), (shape, "int64")], axis=dim, largest=1, sorted=1)
        return found[0], found[1]
    made = x.topk(count, dim)
    return made[0], made[1]


def arange(count: AnySize, *, like: Tensor, dtype: str | None = None) -> Tensor:
    """0, 1, 2, … `(count,)`.

    Args:
        count: How many; a free size of `like` or of its graph perhaps.
        like: A tensor of the network: gives device and, without `dtype`, the dtype.
        dtype: numpy's name.
    """
    if isinstance(like, Value):
        kind = dtype or like.dtype
        if isinstance(count, int):
            return like.graph.constant(np.arange(count).astype(kind), "range")
        ends = [like.graph.scalar(0, "int64"), count.value().reshape(()), like.graph.scalar(1, "int64")]
        return like.graph.add("Range", ends, (count,), "int64").to(kind)
    import torch

    number: Any = count
    return torch.arange(number, device=like.device, dtype=like.dtype if dtype is None else getattr(torch, dtype))


def full(shape: Sequence[AnySize], number: float, *, like: Tensor, dtype: str | None = None) -> Tensor:
    """One number everywhere; `like` and `dtype` as for `arange`."""
    if isinstance(like, Value):
        value = like.graph.scalar(number, dtype or like.dtype)
        if all(isinstance(size, int) for size in shape):
            return like.graph.constant(np.full([int(size) for size in shape], value.array), "full")
        return value.reshape(*(1 for _ in shape)).expand(*shape)
    import torch

    kind = like.dtype if dtype is None else getattr(torch, dtype)
    sizes: Any = tuple(shape)
    return torch.full(sizes, number, device=like.device, dtype=kind)


def contiguous(x: Tensor) -> Tensor:
    """The same, with its elements in memory in the order of its axes; in a graph they always are."""
    return x if isinstance(x, Value) else x.contiguous()
