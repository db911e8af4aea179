"""Box arithmetic against float64 restatements, one pair at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lensmount.errors import InputError, OptionError
from lensmount_vision.results import boxes


def pair_iou(a, b) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union if union else 0.0


def greedy(similarity, scores, class_ids, threshold):
    """The textbook algorithm: best first, one by one."""
    kept = []
    for i in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        same = [j for j in kept if class_ids is None or class_ids[i] == class_ids[j]]
        if all(similarity(i, j) <= threshold for j in same):
            kept.append(i)
    return kept


def clustered(count, classes, seed, clusters=40):
    rng = np.random.default_rng(seed)
    centre, size = rng.uniform(0, 1500, (clusters, 2)), rng.uniform(20, 300, (clusters, 2))
    of = rng.integers(0, clusters, count)
    middle = centre[of] + rng.normal(0, 12, (count, 2))
    half = size[of] * rng.uniform(0.8, 1.2, (count, 2)) / 2
    xyxy = np.concatenate([middle - half, middle + half], 1).astype(np.float32)
    # Scores of two decimals: many ties.
    return xyxy, rng.random(count).round(2).astype(np.float32), rng.integers(0, classes, count)


def test_conversions_by_hand():
    assert boxes.cxcywh_to_xyxy([[10, 20, 4, 6]]).tolist() == [[8, 17, 12, 23]]
    assert boxes.xyxy_to_cxcywh([[8, 17, 12, 23]]).tolist() == [[10, 20, 4, 6]]
    assert boxes.xyxy_to_xywh([[8, 17, 12, 23]]).tolist() == [[8, 17, 4, 6]]
    assert boxes.xywh_to_xyxy([[8, 17, 4, 6]]).tolist() == [[8, 17, 12, 23]]
    assert boxes.area([[8, 17, 12, 23], [5, 5, 5, 9], [5, 5, 1, 9]]).tolist() == [24, 0, 0]
    assert boxes.cxcywh_to_xyxy([]).shape == (0, 4)
    assert boxes.cxcywh_to_xyxy([[1, 2, 3, 4]]).dtype == np.float32


def test_arguments_are_not_changed():
    xyxy, scores, ids = clustered(50, 3, 0)
    copies = xyxy.copy(), scores.copy(), ids.copy()
    boxes.cxcywh_to_xyxy(xyxy)
    boxes.iou_matrix(xyxy, xyxy)
    boxes.nms(xyxy, scores, ids)
    for before, after in zip(copies, (xyxy, scores, ids), strict=True):
        assert np.array_equal(before, after)


def test_iou_matrix_against_pairs():
    a, _, _ = clustered(60, 1, 1)
    b, _, _ = clustered(45, 1, 1)
    expected = [[pair_iou(x, y) for y in b.astype(np.float64)] for x in a.astype(np.float64)]
    found = boxes.iou_matrix(a, b)
    assert found.shape == (60, 45) and found.dtype == np.float32
    # float32 coordinates of 1e3 carry 6e-5 of a pixel; areas of 1e4 and more hide it.
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert (found > 0.3).sum() > 20


def test_iou_of_boxes_without_area_is_zero():
    assert boxes.iou_matrix([[1, 1, 1, 1]], [[1, 1, 1, 1], [0, 0, 2, 2]]).tolist() == [[0, 0]]


@pytest.mark.parametrize("classes", [None, 1, 4, 80])
@pytest.mark.parametrize("threshold", [0.0, 0.45, 0.7, 1.0])
def test_nms_equals_the_textbook(classes, threshold):
    for seed, count in ((0, 1), (1, 63), (2, 64), (3, 65), (4, 400)):
        xyxy, scores, ids = clustered(count, classes or 1, seed)
        ids = None if classes is None else ids
        exact = xyxy.astype(np.float64)
        expected = greedy(lambda i, j, b=exact: pair_iou(b[i], b[j]), scores, ids, threshold)
        assert boxes.nms(xyxy, scores, ids, iou_threshold=threshold).tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nms_equals_the_textbook_on_whole_numbers(data):
    """Small whole boxes: IoU is often *equal* to the threshold, which must not suppress."""
    count = data.draw(st.integers(1, 90))
    number = st.integers(0, 6)
    rows = data.draw(st.lists(st.tuples(number, number, number, number), min_size=count, max_size=count))
    xyxy = np.array([[x, y, x + w + 1, y + h + 1] for x, y, w, h in rows], np.float32)
    scores = np.array(data.draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=count, max_size=count)))
    ids = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    threshold = data.draw(st.sampled_from([0.2, 0.25, 0.3, 1 / 3, 0.5, 0.6]))
    expected = greedy(lambda i, j: pair_iou(xyxy[i].tolist(), xyxy[j].tolist()), scores, ids, threshold)
    assert boxes.nms(xyxy, scores, ids, iou_threshold=threshold).tolist() == expected


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_nms_keeps_a_box_at_exactly_the_threshold(threshold):
    pair = [[0, 0, 10, 1], [0, 0, 10 * threshold, 1]]
    assert boxes.nms(pair, [0.9, 0.8], iou_threshold=threshold).tolist() == [0, 1]
    assert boxes.nms(pair, [0.9, 0.8], iou_threshold=threshold - 0.01).tolist() == [0]


def test_nms_compares_classes_exactly_whatever_their_numbers():
    box = [[5000.25, 5000.25, 5001.5, 5001.5]] * 4
    ids = [2**40, 2**40 + 1, -3, 2**40]
    assert boxes.nms(box, [0.9, 0.8, 0.7, 0.95], ids).tolist() == [3, 1, 2]


def test_nms_ties_go_to_the_lower_index():
    assert boxes.nms([[0, 0, 10, 10]] * 3, [0.5, 0.5, 0.5]).tolist() == [0]
    apart = [[20 * i, 0, 20 * i + 10, 10] for i in range(100)]
    assert boxes.nms(apart, [0.5] * 100, list(range(99, -1, -1))).tolist() == list(range(100))


@pytest.mark.parametrize("by_class", [False, True])
def test_max_detections_keeps_the_best(by_class):
    xyxy, scores, ids = clustered(300, 5, 7)
    ids = ids if by_class else None
    everything = boxes.nms(xyxy, scores, ids).tolist()
    for most in (0, 1, 10, 64, len(everything), 1000):
        assert boxes.nms(xyxy, scores, ids, max_detections=most).tolist() == everything[:most]


def test_nms_of_nothing():
    kept = boxes.nms([], [], [])
    assert kept.shape == (0,) and kept.dtype == np.int64
    assert boxes.nms(np.zeros((0, 4)), np.zeros(0)).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "word"),
    [
        (([[0, 0, 1]], [0.5]), {}, InputError, "(N, 4)"),
        (([0, 0, 1, 1], [0.5]), {}, InputError, "(N, 4)"),
        (([[0, 0, 1, 1]], [0.5, 0.4]), {}, InputError, "one per box"),
        (([[0, 0, 1, 1]], [0.5], [1, 2]), {}, InputError, "one per box"),
        (([[0, 0, 1, 1]], [0.5], [1.5]), {}, InputError, "whole"),
        (([[0, 0, np.nan, 1]], [0.5]), {}, InputError, "finite"),
        (([[0, 0, 1, 1]], [np.inf]), {}, InputError, "finite"),
        (([["a", 0, 1, 1]], [0.5]), {}, InputError, "numeric"),
        (([[0, 0, 1, 1], [0]], [0.5]), {}, InputError, "array"),
        (([[0, 0, 1, 1]], [0.5]), {"iou_threshold": 1.1}, OptionError, "0..1"),
        (([[0, 0, 1, 1]], [0.5]), {"iou_threshold": "0.5"}, OptionError, "number"),
        (([[0, 0, 1, 1]], [0.5]), {"iou_threshold": True}, OptionError, "number"),
        (([[0, 0, 1, 1]], [0.5]), {"max_detections": -1}, OptionError, "zero or more"),
    ],
)
def test_nms_refuses(arguments, options, error, word):
    with pytest.raises(error, match=r"[\s\S]*") as caught:
        boxes.nms(*arguments, **options)
    assert word in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 70))
def test_top_candidates_equals_a_sort(values, k):
    expected = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
    assert boxes.top_candidates(np.array(values, np.float32), k).tolist() == expected


def test_top_candidates_refuses():
    with pytest.raises(OptionError):
        boxes.top_candidates([1.0], -1)


# --- rotated ----------------------------------------------------------------------------------------------------------


def pair_probabilistic(a, b) -> float:
    """1 - Hellinger distance of the boxes' Gaussians, from the general formulas with matrices."""

    def gaussian(box):
        x, y, w, h, angle = (float(value) for value in box)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return np.array([x, y]), turn @ np.diag([w * w / 12, h * h / 12]) @ turn.T

    (mean_a, cov_a), (mean_b, cov_b) = gaussian(a), gaussian(b)
    middle = (cov_a + cov_b) / 2
    step = mean_a - mean_b
    distance = step @ np.linalg.inv(middle) @ step / 8
    distance += 0.5 * math.log(np.linalg.det(middle) / math.sqrt(np.linalg.det(cov_a) * np.linalg.det(cov_b)))
    return 1 - math.sqrt(max(0.0, 1 - math.exp(-distance)))


def rotated(count, seed):
    rng = np.random.default_rng(seed)
    place = rng.uniform(0, 200, (count, 2))
    size = rng.uniform(5, 120, (count, 2))
    angle = rng.uniform(-4, 4, (count, 1))
    return np.concatenate([place, size, angle], 1).astype(np.float32), rng.random(count).astype(np.float32)


def test_rotated_iou_against_matrices():
    a, _ = rotated(30, 0)
    b, _ = rotated(20, 1)
    expected = [[pair_probabilistic(x, y) for y in b] for x in a]
    np.testing.assert_allclose(boxes.rotated_iou(a, b), expected, atol=1e-6)
    # Near equality the square root magnifies the rounding of the float64 distance: 1e-16 becomes 1e-8.
    np.testing.assert_allclose(np.diag(boxes.rotated_iou(a, a)), 1, atol=1e-6)


def test_rotated_iou_knows_symmetries():
    box = np.array([[50, 40, 30, 10, 0.3]], np.float32)
    turned = box + np.array([0, 0, 0, 0, np.pi], np.float32)
    swapped = np.array([[50, 40, 10, 30, 0.3 + np.pi / 2]], np.float32)
    assert boxes.rotated_iou(box, turned)[0, 0] > 0.999
    assert boxes.rotated_iou(box, swapped)[0, 0] > 0.999
    assert boxes.rotated_iou(box, box + np.array([500, 0, 0, 0, 0], np.float32))[0, 0] < 1e-6
    flat = boxes.rotated_iou([[0, 0, 0, 0, 0]], [[0, 0, 5, 5, 0], [0, 0, 0, 0, 1]])
    assert np.isfinite(flat).all() and flat[0, 0] < 0.01 and flat[0, 1] == 1


@pytest.mark.parametrize("by_class", [False, True])
def test_nms_rotated_equals_the_textbook(by_class):
    xywhr, scores = rotated(130, 3)
    ids = np.arange(130) % 3 if by_class else None
    overlap = [[pair_probabilistic(a, b) for b in xywhr] for a in xywhr]
    expected = greedy(lambda i, j: overlap[i][j], scores, ids, 0.3)
    assert boxes.nms_rotated(xywhr, scores, ids, iou_threshold=0.3).tolist() == expected
    assert len(expected) < 130


def test_corners_turn_clockwise_on_the_screen():
    corners = boxes.xywhr_to_corners([[10, 20, 4, 2, 0], [10, 20, 4, 2, np.pi / 2]])
    assert corners[0].tolist() == [[8, 19], [12, 19], [12, 21], [8, 21]]
    np.testing.assert_allclose(corners[1], [[11, 18], [11, 22], [9, 22], [9, 18]], atol=1e-5)
    assert boxes.xywhr_to_corners([]).shape == (0, 4, 2)


def test_fast_suppression_by_hand():
    """Each overlaps the next alone: the first takes out the second, which takes out the third all the same."""
    chain = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [40, 0, 50, 10]], np.float32)
    scores = [0.9, 0.8, 0.7, 0.6]
    assert boxes.nms(chain, scores, iou_threshold=0.3).tolist() == [0, 2, 3]
    assert boxes.nms(chain, scores, iou_threshold=0.3, fast=True).tolist() == [0, 3]
    assert boxes.nms(chain, scores, [0, 1, 0, 0], iou_threshold=0.3, fast=True).tolist() == [0, 1, 2, 3]
    assert boxes.nms(chain, scores, iou_threshold=0.3, fast=True, max_detections=1).tolist() == [0]


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("count", [1, 50, 700])
def test_fast_suppression_equals_one_pass_over_the_matrix(count, turned, by_class):
    random = np.random.default_rng(count)
    table = (rotated(count, seed=3) if turned else clustered(count, 3, seed=3))[0]
    scores = random.integers(0, 50, count) / 50
    ids = random.integers(0, 3, count) if by_class else None
    suppress, similarity = (boxes.nms_rotated, boxes.rotated_iou) if turned else (boxes.nms, boxes.iou_matrix)
    order = np.argsort(-scores, kind="stable")
    hits = similarity(table[order], table[order]) > np.float32(0.2)
    if ids is not None:
        hits &= ids[order][:, None] == ids[order]
    expected = order[~np.triu(hits, 1).any(0)]
    np.testing.assert_array_equal(suppress(table, scores, ids, iou_threshold=0.2, fast=True), expected)
