"""Any number of images through a graph that takes a fixed, or at most a certain, number of them.

A static graph gets its batch cut into chunks of exactly its size, the last one padded with zeros whose results are
dropped; a dynamic graph gets chunks of at most its maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lensmount.backend.tensors import is_tensor
from lensmount.contracts.session import Session
from lensmount.errors import BackendError
from lensmount.specs import BatchPolicy


def batch_policy(session: Session, declared: BatchPolicy | None = None) -> BatchPolicy:
    """How many images one run takes: what the graph says, with the declared maximum where the graph leaves it open.

    Args:
        session: Its first input's first axis is the batch.
        declared: The package's policy, if it has one.

    Raises:
        BackendError: The package declares another static size than the graph has.
    """
    shape = session.inputs[0].shape
    size = shape[0] if shape else 1
    if not isinstance(size, int):
        return declared or BatchPolicy()
    if declared is not None and declared.static not in (None, size):
        raise BackendError(
            f"the graph's batch size is not the one that its package declares (input {session.inputs[0].name!r})",
            found=f"static {size}",
            expected=str(declared),
        )
    return BatchPolicy(static=size)


def run_batched(
    session: Session,
    feeds: Mapping[str, Any],
    policy: BatchPolicy | None = None,
    run: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Runs a batch of any size.

    Args:
        session: Every input and output has the batch as its first axis.
        feeds: Every input by name, all with the same first axis (N ≥ 1): arrays, or tensors where `run` takes them.
        policy: The package's policy; None to read it from the graph.
        run: What runs once; None for `session.run`.

    Returns:
        Every output by name, with N as its first axis.

    Raises:
        BackendError: Inputs of different batch sizes, an empty batch, or outputs without a batch axis where chunks
            would have to be put together. And whatever `session.run` raises.
    """
    sizes = {name: array.shape[0] if array.ndim else None for name, array in feeds.items()}
    count = next(iter(sizes.values()), None)
    if not count or any(size != count for size in sizes.values()):
        raise BackendError("a batch cannot be run", found=str(sizes), expected="inputs of one batch size of at least 1")
    policy = batch_policy(session, policy)
    step = policy.static or policy.maximum or count
    run = run or session.run
    if count == step or (count < step and policy.static is None):
        return run(feeds)
    parts = []
    for start in range(0, count, step):
        chunk = {name: array[start : start + step] for name, array in feeds.items()}
        parts.append(_run_chunk(run, chunk, min(step, count - start), policy.static or 0))
    return {name: join_batches([part[name] for part in parts]) for name in parts[0]}


def _run_chunk(
    run: Callable[[Mapping[str, Any]], dict[str, Any]], chunk: Mapping[str, Any], count: int, padded: int
) -> dict[str, Any]:
    """Runs `count` images, padded with zeros to `padded`, and drops the padding's results."""
    size = max(count, padded)
    if size > count:
        chunk = {name: padded_batch(array, size) for name, array in chunk.items()}
    results = run(chunk)
    for name, array in results.items():
        if not array.ndim or array.shape[0] != size:
            raise BackendError(
                f"output {name!r} has no batch axis, so its chunks cannot be put together",
                found=f"shape {tuple(array.shape)} for {size} images",
                expected=f"({size}, …)",
                fix="run the images one batch of the graph's own size at a time",
            )
    return {name: array[:count] for name, array in results.items()} if size > count else results


def padded_batch(array: Any, size: int) -> Any:
    """An array or tensor with zeros behind its rows, `size` rows in all."""
    if is_tensor(array):
        padded = array.new_zeros((size, *array.shape[1:]))
    else:
        padded = np.zeros((size, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


def join_batches(parts: Sequence[Any]) -> Any:
    """Arrays, or tensors of one device, one after the other; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    if is_tensor(parts[0]):
        import torch

        return torch.cat(list(parts))
    return np.concatenate(parts)
