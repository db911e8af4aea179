"""Flat top-K: which pairs of query and class are kept, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmount_rfdetr.postprocess import Filter, keep_pairs

BOXES = np.tile(np.array([0.5, 0.5, 0.2, 0.4], np.float32), (4, 1))


def wanted(confidence=0.0, per_class=None, limit=None, classes=None):
    table = None if per_class is None else np.array(per_class, np.float32)
    ids = None if classes is None else np.array(classes, np.int64)
    return Filter(confidence=confidence, per_class=table, max_detections=limit, classes=ids)


def pairs(kept):
    return list(zip(kept.queries.tolist(), kept.class_ids.tolist(), strict=True))


def logits(*rows):
    return np.array(rows, np.float32)


def test_one_query_can_be_of_two_classes():
    table = logits([3, 2, -9], [-9, -9, -9], [-9, -9, 2.5], [-9, -9, -9])
    kept = keep_pairs(BOXES, table, wanted(0.5), 3)
    assert pairs(kept) == [(0, 0), (2, 2), (0, 1)]
    np.testing.assert_allclose(kept.boxes, [[0.4, 0.3, 0.6, 0.7]] * 3, atol=1e-6)


def test_ties_keep_the_order_of_query_and_class():
    table = np.zeros((4, 3), np.float32)
    assert pairs(keep_pairs(BOXES, table, wanted(0.5), 3)) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    table[3, 1] = 1
    table[1, 2] = 1
    assert pairs(keep_pairs(BOXES, table, wanted(0.5), 3)) == [(1, 2), (3, 1), (0, 0), (0, 1)]


def test_saturated_scores_tie():
    table = logits([20, 40, -9], [30, -9, -9], [-9, -9, -9], [-9, -9, 90])
    assert pairs(keep_pairs(BOXES, table, wanted(0.5), 3)) == [(0, 0), (0, 1), (1, 0), (3, 2)]
    assert pairs(keep_pairs(BOXES, table, wanted(1.0), 3)) == [(0, 0), (0, 1), (1, 0), (3, 2)]


def test_limit_is_the_number_of_queries_by_default():
    table = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)
    assert len(keep_pairs(BOXES, table, wanted(), 3).scores) == 4
    assert len(keep_pairs(BOXES, table, wanted(limit=7), 3).scores) == 7
    assert pairs(keep_pairs(BOXES, table, wanted(limit=1), 3)) == [(3, 2)]


def test_background_is_never_reported():
    table = logits([9, 1, 8], [0, 0, 9], [0, 0, 9], [0, 0, 9])
    assert pairs(keep_pairs(BOXES, table, wanted(0.6), 2)) == [(0, 0), (0, 1)]


def test_filters_come_before_the_limit():
    table = logits([9, 8, 7], [6, 5, 4], [3, 2, 1], [0, 0, 0])
    assert pairs(keep_pairs(BOXES, table, wanted(limit=2, classes=[2]), 3)) == [(0, 2), (1, 2)]
    assert pairs(keep_pairs(BOXES, table, wanted(0.1, per_class=[0.9999, 0.1, 0.1], limit=2), 3)) == [(0, 1), (0, 2)]


def test_broken_boxes_are_no_objects():
    boxes = BOXES.copy()
    boxes[1, 2] = np.inf
    boxes[2, 0] = np.nan
    table = np.full((4, 1), 3, np.float32)
    assert pairs(keep_pairs(boxes, table, wanted(0.5), 1)) == [(0, 0), (3, 0)]
    table[0] = np.nan
    assert pairs(keep_pairs(boxes, table, wanted(0.5), 1)) == [(3, 0)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dtypes(dtype):
    kept = keep_pairs(BOXES.astype(dtype), np.ones((4, 2), dtype), wanted(0.5), 2)
    assert kept.boxes.dtype == kept.scores.dtype == np.float32
    assert kept.class_ids.dtype == np.int64


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.01, 0.3, 0.5, 0.99]), st.integers(1, 30), st.sampled_from([1, 3])
)
def test_equals_the_plain_definition(seed, confidence, limit, step):
    """Against sorting every pair; logits in few steps, so that many tie."""
    rng = np.random.default_rng(seed)
    table = (rng.integers(-6, 7, (4, 5)) / step).astype(np.float32)
    kept = keep_pairs(BOXES, table, wanted(confidence, limit=limit), 4)
    scores = 1 / (1 + np.exp(-table.astype(np.float64)))
    every = [(-np.float32(scores[q, c]), q * 5 + c) for q in range(4) for c in range(4)]
    expected = [index for score, index in sorted(every) if -score >= np.float32(confidence)][:limit]
    assert [q * 5 + c for q, c in pairs(kept)] == expected
