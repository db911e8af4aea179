"""Suppression, top-K and masks on the device against the host's, on torch's CPU device."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount.errors import InputError  # noqa: E402
from lensmount.specs import Preprocess  # noqa: E402
from lensmount_vision.device import masks as device_masks  # noqa: E402
from lensmount_vision.device import whole_masks  # noqa: E402
from lensmount_vision.device.ordering import top_k  # noqa: E402
from lensmount_vision.device.suppression import box_overlaps, rotated_overlaps, suppress, suppress_fast  # noqa: E402
from lensmount_vision.images.geometry import plan  # noqa: E402
from lensmount_vision.results.boxes import cxcywh_to_xyxy, nms, nms_rotated, top_candidates  # noqa: E402 - after the skip
from lensmount_vision.results.mask_decoding import decode_prototypes, resize_logits_in_boxes  # noqa: E402
from tensor_reads import downloads  # noqa: E402

RNG = np.random.default_rng(5)


def crowd(count: int, spread: float = 100, seed: int = 0) -> np.ndarray:
    """`(count, 4)` boxes that overlap, some twice the same."""
    random = np.random.default_rng(seed)
    rows = np.concatenate((random.uniform(0, spread, (count, 2)), random.uniform(5, 40, (count, 2))), 1)
    boxes = cxcywh_to_xyxy(rows.astype(np.float32))
    boxes[count // 2] = boxes[0]
    return boxes


def scores_of(count: int, seed: int = 0, levels: int = 20) -> np.ndarray:
    """Scores with many ties."""
    return (np.random.default_rng(seed).integers(1, levels, count) / levels).astype(np.float32)


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 7, 500])
def test_top_k_breaks_ties_as_the_host(k: int):
    scores = np.stack([scores_of(500, seed) for seed in range(3)])
    scores[1, 5] = -0.0
    index, real = top_k(torch.from_numpy(scores), k)
    assert real.all()
    for row, found in zip(scores, index.numpy(), strict=True):
        np.testing.assert_array_equal(found, top_candidates(row, k))


def test_what_is_not_allowed_comes_last_and_is_marked():
    scores = torch.tensor([[0.5, float("nan"), 0.9, 0.1, -1.0]])
    index, real = top_k(scores, 5, torch.tensor([[True, True, False, True, True]]))
    assert real.tolist() == [[True, True, False, False, False]]
    assert index[0, :2].tolist() == [0, 3]


# --- suppression ------------------------------------------------------------------------------------------------------


def kept_on_device(boxes, scores, classes, threshold, *, rotated=False, certain=True):
    order = np.argsort(-scores, kind="stable")
    there = torch.from_numpy(boxes[order])[None]
    groups = None if classes is None else torch.from_numpy(classes[order])[None]
    overlapping = (rotated_overlaps if rotated else box_overlaps)(there, groups, threshold)
    keep, settled = suppress(torch.ones(1, len(boxes), dtype=torch.bool), overlapping, certain=certain)
    return order[keep[0].numpy()], bool(settled)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("count", [1, 2, 40, 400])
@pytest.mark.parametrize("classed", [False, True])
def test_the_same_boxes_stay_as_on_the_host(count: int, threshold: float, classed: bool):
    for seed in range(5):
        boxes, scores = crowd(count, seed=seed), scores_of(count, seed)
        classes = np.random.default_rng(seed).integers(0, 3, count) if classed else None
        expected = nms(boxes, scores, classes, iou_threshold=threshold)
        np.testing.assert_array_equal(kept_on_device(boxes, scores, classes, threshold)[0], expected)


def test_blocks_give_the_same(monkeypatch):
    monkeypatch.setattr("lensmount_vision.device.suppression.BLOCK", 64)
    boxes, scores = crowd(500), scores_of(500)
    np.testing.assert_array_equal(kept_on_device(boxes, scores, None, 0.4)[0], nms(boxes, scores, iou_threshold=0.4))


@pytest.mark.parametrize("block", [64, 1024])
@pytest.mark.parametrize("classed", [False, True])
def test_fast_suppression_is_the_hosts(monkeypatch, classed: bool, block: int):
    monkeypatch.setattr("lensmount_vision.device.suppression.BLOCK", block)
    boxes, scores = crowd(300), scores_of(300)
    classes = np.random.default_rng(1).integers(0, 3, 300) if classed else None
    order = np.argsort(-scores, kind="stable")
    groups = None if classes is None else torch.from_numpy(classes[order])[None]
    overlapping = box_overlaps(torch.from_numpy(boxes[order])[None], groups, 0.4)
    keep = suppress_fast(torch.ones(1, 300, dtype=torch.bool), overlapping)
    expected = nms(boxes, scores, classes, iou_threshold=0.4, fast=True)
    np.testing.assert_array_equal(order[keep[0].numpy()], expected)
    assert len(expected) < len(nms(boxes, scores, classes, iou_threshold=0.4))
    absent = torch.arange(300)[None] > 0  # the best takes no part, and takes nothing out
    remaining = nms(boxes[order[1:]], scores[order[1:]], None if classes is None else classes[order[1:]],
                    iou_threshold=0.4, fast=True)  # fmt: skip
    np.testing.assert_array_equal(order[suppress_fast(absent, overlapping)[0].numpy()], order[1:][remaining])


def test_long_chains_settle_or_say_that_they_have_not():
    # Each box overlaps its neighbours alone: the first saves the third, which saves the fifth, and so on.
    left = np.arange(60, dtype=np.float32) * 10
    boxes = np.stack((left, np.zeros(60, np.float32), left + 16, np.full(60, 10, np.float32)), 1)
    scores = np.linspace(0.9, 0.1, 60, dtype=np.float32)
    expected = nms(boxes, scores, iou_threshold=0.2)
    assert len(expected) == 30
    quick, settled = kept_on_device(boxes, scores, None, 0.2, certain=False)
    assert not settled
    assert len(quick) != 30
    kept, settled = kept_on_device(boxes, scores, None, 0.2)
    assert settled
    np.testing.assert_array_equal(kept, expected)


def test_boxes_that_take_no_part_suppress_nothing():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10]]])
    keep, _ = suppress(torch.tensor([[False, True, True]]), box_overlaps(boxes, None, 0.5), certain=False)
    assert keep.tolist() == [[False, True, False]]


def test_boxes_without_area_overlap_nothing():
    boxes = torch.zeros(1, 3, 4)
    keep, _ = suppress(torch.ones(1, 3, dtype=torch.bool), box_overlaps(boxes, None, 0.0), certain=True)
    assert keep.all()


@pytest.mark.parametrize("classed", [False, True])
def test_turned_boxes_stay_as_on_the_host(classed: bool):
    for seed in range(5):
        random = np.random.default_rng(seed)
        upright = crowd(150, seed=seed)
        centre = (upright[:, :2] + upright[:, 2:]) / 2
        boxes = np.concatenate((centre, upright[:, 2:] - upright[:, :2], random.uniform(-2, 2, (150, 1))), 1)
        boxes, scores = boxes.astype(np.float32), scores_of(150, seed)
        classes = random.integers(0, 3, 150) if classed else None
        expected = nms_rotated(boxes, scores, classes, iou_threshold=0.3)
        np.testing.assert_array_equal(kept_on_device(boxes, scores, classes, 0.3, rotated=True)[0], expected)


# --- masks ------------------------------------------------------------------------------------------------------------


def same(made, expected, *, flips: float = 0.0) -> None:
    """Crops at the same places, of which at most a share of the pixels differ."""
    assert len(made) == len(expected)
    assert made.image_size == expected.image_size
    np.testing.assert_array_equal(made.origins, expected.origins)
    for index in range(len(expected)):
        one, other = made.crop(index), expected.crop(index)
        assert one.shape == other.shape
        assert np.count_nonzero(one != other) <= flips * max(one.size, 1000)


SPECS = [
    Preprocess(size=(64, 96)),
    Preprocess(size=(64, 96), resize="stretch"),
    Preprocess(size=(64, 96), static_crop=(10, 10, 80, 90)),
]


def some_boxes(count: int, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    corners = RNG.uniform(0, 1, (count, 2, 2)) * (width, height)
    boxes = np.concatenate((corners.min(1), corners.max(1)), 1).astype(np.float32)
    boxes[0] = 0, 0, width, height
    boxes[1] = 5, 5, 5, 9  # nothing
    return boxes


@pytest.mark.parametrize("spec", SPECS)
def test_prototypes_of_a_batch(spec: Preprocess, monkeypatch):
    sizes, counts = [(120, 200), (77, 51), (300, 310)], [6, 2, 9]
    geometries = [plan(size, spec) for size in sizes]
    prototypes = RNG.standard_normal((3, 8, 16, 24)).astype(np.float32)
    weights = [RNG.standard_normal((count, 8)).astype(np.float32) for count in counts]
    boxes = [some_boxes(count, size) for count, size in zip(counts, sizes, strict=True)]
    monkeypatch.setattr(device_masks, "PIXELS", 30_000)  # several passes, and boxes larger than one
    monkeypatch.setattr(device_masks, "LOGITS", 9 * 16 * 24)
    made = device_masks.decode_prototypes(weights, torch.from_numpy(prototypes), boxes, geometries)
    for i, found in enumerate(made):
        # A product sums in another order: a pixel in thousands whose logit is nought to the last bit.
        same(found, decode_prototypes(weights[i], prototypes[i], boxes[i], geometries[i]), flips=1e-3)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_logits_of_a_batch_bit_for_bit(spec: Preprocess, threshold: float):
    sizes, counts = [(120, 200), (300, 310)], [4, 3]
    geometries = [plan(size, spec) for size in sizes]
    logits = [RNG.standard_normal((count, 16, 24)).astype(np.float32) for count in counts]
    boxes = [some_boxes(count, size) for count, size in zip(counts, sizes, strict=True)]
    there = torch.from_numpy(np.concatenate(logits))
    made = device_masks.resize_logits(there, boxes, geometries, threshold=threshold)
    for i, found in enumerate(made):
        same(found, resize_logits_in_boxes(logits[i], boxes[i], geometries[i], threshold=threshold))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_whole_masks_bit_for_bit(spec: Preprocess, threshold: float, monkeypatch):
    monkeypatch.setattr(whole_masks, "VALUES", 2 * 120 * 203)  # two masks at once, then the fifth
    sizes = [(120, 203), (77, 51)]
    geometries = [plan(size, spec) for size in sizes]
    logits = [RNG.standard_normal((count, 16, 24)).astype(np.float32) - 1 for count in (5, 2)]
    logits[0][2] = -1  # nothing
    logits[1][1] = -1
    logits[1][1, 7, 9] = 4  # one spot
    logits[1][0] = 1  # everything
    beside = torch.arange(6).view(2, 3), torch.tensor(0.5), torch.zeros(0, 4)
    with downloads() as count:
        made, others = whole_masks.resize_whole(
            [torch.from_numpy(part) for part in logits], geometries, threshold=threshold, beside=beside
        )
    assert count == [1]
    for i, found in enumerate(made):
        assert found == resize_logits_in_boxes(logits[i], None, geometries[i], threshold=threshold)
    assert made[0].area[2] == 0
    assert made[1].crop(0).all()
    assert made[1].crop(1).size < 77 * 51  # the crop is around the spot
    assert [part.tolist() for part in others] == [[[0, 1, 2], [3, 4, 5]], 0.5, []]
    assert [str(part.dtype) for part in others] == ["int64", "float32", "float32"]


def test_whole_masks_that_are_none():
    geometry = plan((120, 200), SPECS[0])
    with downloads() as count:
        ((made,), _) = whole_masks.resize_whole([torch.zeros(0, 16, 24)], [geometry])
    assert (len(made), made.image_size, count) == (0, (120, 200), [0])
    logits = torch.zeros(1, 16, 24)
    logits[0, 3, 3] = float("inf")
    with pytest.raises(InputError, match="not finite"):
        whole_masks.resize_whole([logits], [geometry])


def test_masks_come_in_one_download(monkeypatch):
    monkeypatch.setattr(device_masks, "PIXELS", 30_000)
    monkeypatch.setattr(device_masks, "LOGITS", 9 * 16 * 24)
    sizes, counts = [(120, 200), (77, 51), (300, 310)], [6, 2, 9]
    geometries = [plan(size, SPECS[0]) for size in sizes]
    boxes = [some_boxes(count, size) for count, size in zip(counts, sizes, strict=True)]
    weights = [np.ones((count, 8), np.float32) for count in counts]
    with downloads() as count:
        device_masks.decode_prototypes(weights, torch.ones(3, 8, 16, 24), boxes, geometries)
    assert count == [1]
    with downloads() as count:
        device_masks.resize_logits(torch.ones(17, 16, 24), boxes, geometries)
    assert count == [1]
    with downloads() as count:
        device_masks.decode_prototypes(
            [part[:0] for part in weights], torch.ones(3, 8, 16, 24), [b[:0] for b in boxes], geometries
        )
    assert count == [0]


def test_no_masks():
    geometry = plan((120, 200), SPECS[0])
    nothing = np.zeros((0, 4), np.float32)
    (made,) = device_masks.resize_logits(torch.zeros(0, 16, 24), [nothing], [geometry])
    assert (len(made), made.image_size) == (0, (120, 200))
    no_weights = np.zeros((0, 8), np.float32)
    made, other = device_masks.decode_prototypes(
        [no_weights, no_weights], torch.zeros(2, 8, 16, 24), [nothing, nothing], [geometry, geometry]
    )
    assert len(made) == len(other) == 0


def test_numbers_that_are_none_are_refused_as_on_the_host():
    geometry = plan((120, 200), SPECS[0])
    boxes = np.array([[0, 0, 50, 50]], np.float32)
    logits = torch.zeros(1, 16, 24)
    logits[0, 3, 3] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        device_masks.resize_logits(logits, [boxes], [geometry])
    with pytest.raises(InputError, match="mask coefficients are not finite"):
        device_masks.decode_prototypes(
            [np.full((1, 8), np.inf, np.float32)], torch.zeros(1, 8, 16, 24), [boxes], [geometry]
        )
