"""Batches of any size through sessions of fixed, limited and free batch size."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.backend.batching import batch_policy, run_batched
from lensmount.contracts import TensorSpec
from lensmount.errors import BackendError
from lensmount.specs import BatchPolicy


class Doubler:
    """A session that doubles its input, keeps note of the batches, and refuses what its shape forbids."""

    def __init__(self, batch, inputs=1, flat=False):
        self.inputs = tuple(TensorSpec(f"x{i}", (batch, 3), "float32") for i in range(inputs))
        self.flat = flat
        self.seen: list[np.ndarray] = []

    def run(self, feeds):
        first = feeds["x0"]
        want = self.inputs[0].shape[0]
        assert not isinstance(want, int) or want == len(first)
        self.seen.append(first)
        total = sum(feeds.values())
        return {"y": np.concatenate(list(total * 2)) if self.flat else total * 2, "z": first[:, 0]}


def batch(count):
    return np.arange(1, count * 3 + 1, dtype=np.float32).reshape(count, 3)


@pytest.mark.parametrize(
    ("size", "maximum", "count", "chunks"),
    [
        ("n", None, 7, [7]),
        ("n", 3, 7, [3, 3, 1]),
        ("n", 8, 7, [7]),
        (None, 7, 7, [7]),
        (1, None, 3, [1, 1, 1]),
        (4, None, 4, [4]),
        (4, None, 1, [4]),
        (4, None, 7, [4, 4]),
    ],
)
def test_chunks(size, maximum, count, chunks):
    session = Doubler(size)
    x = batch(count)
    result = run_batched(session, {"x0": x}, BatchPolicy(maximum=maximum) if maximum else None)
    assert [len(seen) for seen in session.seen] == chunks
    np.testing.assert_array_equal(result["y"], x * 2)
    np.testing.assert_array_equal(result["z"], x[:, 0])


def test_padding_is_zeros_and_its_results_are_dropped():
    session = Doubler(4)
    result = run_batched(session, {"x0": batch(1)})
    np.testing.assert_array_equal(session.seen[0][1:], 0)
    assert result["y"].shape == (1, 3)


def test_a_batch_that_fits_is_not_copied():
    for size in ("n", 2):
        session = Doubler(size)
        x = batch(2)
        run_batched(session, {"x0": x})
        assert session.seen[0] is x


def test_several_inputs_are_cut_together():
    session = Doubler(2, inputs=2)
    x = batch(3)
    result = run_batched(session, {"x0": x, "x1": x})
    np.testing.assert_array_equal(result["y"], x * 4)


@pytest.mark.parametrize(
    "feeds", [{"x0": batch(2), "x1": batch(3)}, {"x0": batch(0), "x1": batch(0)}, {"x0": np.float32(1)}, {}]
)
def test_batches_that_cannot_be(feeds):
    with pytest.raises(BackendError, match="batch"):
        run_batched(Doubler("n", inputs=2), feeds)


def test_outputs_without_a_batch_axis():
    assert run_batched(Doubler(2, flat=True), {"x0": batch(2)})["y"].shape == (6,)
    with pytest.raises(BackendError, match="no batch axis"):
        run_batched(Doubler(2, flat=True), {"x0": batch(3)})
    with pytest.raises(BackendError, match="no batch axis"):
        run_batched(Doubler(2, flat=True), {"x0": batch(1)})


def test_the_policy_of_a_graph():
    assert batch_policy(Doubler(4)) == BatchPolicy(static=4)
    assert batch_policy(Doubler("n")) == BatchPolicy()
    assert batch_policy(Doubler("n"), BatchPolicy(maximum=8)) == BatchPolicy(maximum=8)
    # A package may run a dynamic graph in batches of one size.
    assert batch_policy(Doubler(None), BatchPolicy(static=2)) == BatchPolicy(static=2)
    with pytest.raises(BackendError, match="batch size"):
        batch_policy(Doubler(4), BatchPolicy(static=2))
