"""Prompts in every form that is taken, and typed errors for every one that is not."""

from __future__ import annotations

import numpy as np
import pytest

import sam2_tiny
from lensmount.errors import ClosedError, ImageError, InputError, OptionError, UnknownOptionError
from lensmount_vision.results.kinds import from_dict

FRAME = sam2_tiny.frames()[0]
WIDE = np.ascontiguousarray(np.tile(FRAME, (1, 2, 1))[:100])
POINTS = [[40.0, 60.0], [80.0, 60.0]]


@pytest.fixture(scope="module")
def embedding(tiny_model):
    return tiny_model.embed_images(FRAME)[0]


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ({}, "no prompt"),
        ({"point_labels": [1]}, "labels without points"),
        ({"point_coordinates": [1, 2, 3]}, "wrong shape"),
        ({"point_coordinates": [40, 60]}, "wrong shape"),
        ({"point_coordinates": np.zeros((0, 2))}, "wrong shape"),
        ({"point_coordinates": [[1, 2], [3]]}, "rows of equal length"),
        ({"point_coordinates": [["a", "b"]]}, "not numbers"),
        ({"point_coordinates": [[float("nan"), 1]]}, "not finite"),
        ({"point_coordinates": [[500, 10]]}, "outside"),
        ({"point_coordinates": [[-1, 10]]}, "outside"),
        ({"point_coordinates": POINTS, "point_labels": [1]}, "do not fit"),
        ({"point_coordinates": POINTS, "point_labels": [1, 2]}, "label"),
        ({"boxes": [10, 10, 60]}, "wrong shape"),
        ({"boxes": [60, 10, 10, 60]}, "empty"),
        ({"boxes": [10, 10, 10, 60]}, "empty"),
        ({"boxes": [1000, 1000, 1010, 1010]}, "outside"),
        ({"boxes": [10, 10, float("inf"), 60]}, "not finite"),
        ({"boxes": [[10, 10, 60, 60]], "point_coordinates": POINTS}, "differ in number"),
        ({"boxes": [[1, 1, 9, 9]] * 3, "point_coordinates": [POINTS] * 2}, "differ in number"),
        ({"mask_input": np.zeros((1, 256, 256))}, "wrong shape"),
        ({"mask_input": np.full((1, 32, 32), np.nan)}, "not finite"),
    ],
)
def test_bad_prompts(prompt, problem, tiny_model, embedding):
    with pytest.raises(InputError, match=problem):
        tiny_model(embeddings=embedding, **prompt)


BATCH = [FRAME, WIDE, FRAME[:90]]
ONE = {
    "boxes": ([[20, 20, 60, 60]], [[], np.zeros((0, 4)), (), np.zeros((0, 4), np.int64), None]),
    "point_coordinates": (POINTS, [[], np.zeros((0, 1, 2)), np.zeros((0, 5, 2), np.float32), None]),
    "mask_input": (np.zeros((1, 32, 32), np.float32), [[], np.zeros((0, 1, 32, 32)), None]),
}


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize(("name", "there", "nothing"), [(n, t, e) for n, (t, many) in ONE.items() for e in many])
def test_pictures_without_prompts_in_a_batch(name, there, nothing, several, tiny_model):
    for place in range(3):
        given = [there] * 3
        given[place] = nothing
        results = tiny_model(BATCH, **{name: given}, multi_mask_output=several)
        for index, (result, picture) in enumerate(zip(results, BATCH, strict=True)):
            assert result.image_size == picture.shape[:2]
            assert len(result) == (0 if index == place else 3 if several else 1)
        empty = results[place]
        assert empty.logits.shape == (0, 32, 32)
        assert empty.dense().shape[-2:] == BATCH[place].shape[:2]
        assert empty.by_prompt() == []
        assert len(from_dict(empty.to_dict())) == 0


def test_no_prompts_at_all(tiny_model):
    results = tiny_model(BATCH, boxes=[[], np.zeros((0, 4)), []])
    assert [len(result) for result in results] == [0, 0, 0]
    assert len(tiny_model(FRAME, boxes=np.zeros((0, 4)))[0]) == 0
    assert len(tiny_model(FRAME, boxes=[], point_coordinates=[], point_labels=[])[0]) == 0
    results = tiny_model(BATCH, point_coordinates=[POINTS, None, POINTS], point_labels=np.array([1, 0]))
    assert [len(result) for result in results] == [3, 0, 3]
    for nothing in ({}, {"boxes": [None, None, None]}):
        with pytest.raises(InputError, match="no prompt"):
            tiny_model(BATCH, **nothing)
    with pytest.raises(InputError, match="labels without points"):
        tiny_model(BATCH, point_coordinates=[POINTS, None, POINTS], point_labels=[[1, 0]] * 3)
    with pytest.raises(InputError, match="differ in number"):
        tiny_model(FRAME, boxes=[], point_coordinates=[POINTS])


@pytest.mark.parametrize("over", [0.5, 0.01, 7.25, 300])
@pytest.mark.parametrize("edges", [(0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 1, 2, 3)])
def test_boxes_over_the_edge_end_there(edges, over, tiny_model):
    height, width = WIDE.shape[:2]
    edge = np.array([0, 0, width, height], np.float32)
    box, clipped = (np.array([20, 20, 80, 60], np.float32) for _ in range(2))
    for side in edges:
        clipped[side] = edge[side]
        box[side] = edge[side] + (over if side > 1 else -over)
    found, wanted = (tiny_model(WIDE, boxes=given)[0] for given in (box, clipped))
    assert np.array_equal(found.logits, wanted.logits)
    found = tiny_model.track().prompt(WIDE, boxes=box)
    assert np.array_equal(found.logits, tiny_model.track().prompt(WIDE, boxes=clipped).logits)


@pytest.mark.parametrize("gap", [0, 0.5, 40])
@pytest.mark.parametrize("side", range(4))
def test_boxes_wholly_outside_are_refused(side, gap, tiny_model):
    height, width = WIDE.shape[:2]
    box = np.array([20, 20, 80, 60], np.float32)
    axis = side % 2
    size = box[axis + 2] - box[axis]
    box[[axis, axis + 2]] = (-gap - size, -gap) if side < 2 else ((width, height)[axis] + gap + np.array([0, size]))
    with pytest.raises(InputError, match="a box lies outside"):
        tiny_model(WIDE, boxes=box)
    with pytest.raises(InputError, match="a box lies outside"):
        tiny_model(WIDE, boxes=[[20, 20, 60, 60], box.tolist()])


def test_bad_calls(tiny_model, embedding, tiny_folder):
    box = {"boxes": [10, 10, 60, 60]}
    with pytest.raises(InputError, match="no picture"):
        tiny_model(**box)
    with pytest.raises(InputError, match="not those of the pictures"):
        tiny_model(WIDE, embeddings=embedding, **box)
    with pytest.raises(InputError, match="not those of the pictures"):
        tiny_model([FRAME, FRAME], embeddings=[embedding], **box)
    with pytest.raises(InputError, match="no embedding"):
        tiny_model(embeddings=["x"], **box)
    with pytest.raises(InputError, match="number of entries"):
        tiny_model([FRAME, FRAME], boxes=[[10, 10, 60, 60]])
    with pytest.raises(ImageError):
        tiny_model("missing.jpg", **box)
    with pytest.raises(OptionError, match="mask_threshold"):
        tiny_model(embeddings=embedding, mask_threshold="high", **box)
    with pytest.raises(OptionError, match="multi_mask_output"):
        tiny_model(embeddings=embedding, multi_mask_output=3, **box)
    with pytest.raises(TypeError):
        tiny_model(embeddings=embedding, confidense=1, **box)
    from lensmount import registry

    with pytest.raises(OptionError, match="multiple of 32"):
        registry.load(tiny_folder, image_size=100)
    with pytest.raises(UnknownOptionError):
        registry.load(tiny_folder, imagesize=128)
    with registry.load(tiny_folder, image_size=64) as other, pytest.raises(InputError, match="another model"):
        other(embeddings=embedding, **box)
    with pytest.raises(ClosedError):
        other(FRAME, **box)


def test_many_prompts_equal_each_alone(tiny_model, embedding):
    boxes = np.array([[10, 10, 60, 60], [40, 20, 120, 120], [0, 0, 128, 128]], np.float32)
    (many,) = tiny_model(embeddings=embedding, boxes=boxes)
    assert many.dense().shape == (3, 3, 128, 128)
    assert many.prompt_id.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for box, part in zip(boxes, many.by_prompt(), strict=True):
        (alone,) = tiny_model(embeddings=embedding, boxes=box)
        assert alone.prompt_id is None
        assert alone.dense().shape == (3, 128, 128)
        assert np.abs(alone.logits - part.logits).max() < 1e-3
        assert alone.best.masks.iou(part.best.masks)[0, 0] > 0.999
    assert len(many.best) == 3
    assert many[[0, 3]].dense().shape == (2, 1, 128, 128)


def test_forms_of_one_prompt(tiny_model, embedding):
    torch = pytest.importorskip("torch")
    (first,) = tiny_model(embeddings=embedding, point_coordinates=POINTS, point_labels=[1, 0])
    for points, labels in (
        (np.array(POINTS), np.array([1, 0])),
        (torch.tensor(POINTS), torch.tensor([1, 0])),
        ([np.array(POINTS)], [np.array([1, 0])]),
        (np.array([*POINTS, [0, 0]]), np.array([1, 0, -1])),  # a point that does not count
    ):
        (other,) = tiny_model(embeddings=embedding, point_coordinates=points, point_labels=labels)
        assert np.abs(other.logits - first.logits).max() < (1e-3 if len(points) != 3 else 2)
    (one,) = tiny_model(embeddings=embedding, point_coordinates=[POINTS], point_labels=[[1, 0]])
    assert one.dense().shape == (1, 3, 128, 128)


def test_pictures_of_different_sizes(tiny_model):
    shared = tiny_model([FRAME, WIDE], boxes=np.array([10, 10, 60, 60]))
    each = tiny_model([FRAME, WIDE], boxes=[np.array([10, 10, 60, 60]), np.array([[20, 10, 200, 90]] * 2)])
    assert [result.image_size for result in shared] == [(128, 128), (100, 256)]
    assert shared[0] == each[0]
    assert each[1].dense().shape == (2, 3, 100, 256)
    mixed = tiny_model(
        [FRAME, WIDE], point_coordinates=[np.array(POINTS), None], boxes=[None, np.array([20, 10, 200, 90])]
    )
    assert len(mixed) == 2


def test_points_are_original_pixels(tiny_model):
    """The same picture twice as large, and its point twice as far out: nearly the same mask."""
    import cv2

    large = cv2.resize(FRAME, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    (small,) = tiny_model(FRAME, point_coordinates=[[40, 60]])
    (big,) = tiny_model(large, point_coordinates=[[80, 120]])
    assert big.image_size == (256, 256)
    halved = big.dense()[:, ::2, ::2]
    both = np.logical_and(halved, small.dense()).sum() / np.logical_or(halved, small.dense()).sum()
    assert both > 0.9


def test_mask_alone_and_threshold(tiny_model, embedding):
    (first,) = tiny_model(embeddings=embedding, boxes=[10, 10, 100, 100])
    (alone,) = tiny_model(embeddings=embedding, mask_input=first.logits[:1])
    assert len(alone) == 3
    (lower,) = tiny_model(embeddings=embedding, boxes=[10, 10, 100, 100], mask_threshold=-2.0)
    assert (lower.masks.area >= first.masks.area).all()
    assert lower.masks.area.sum() > first.masks.area.sum()


def test_masks_are_arrays_when_asked(tiny_model, embedding):
    (result,) = tiny_model(embeddings=embedding, boxes=[10, 10, 100, 100])
    dense = np.asarray(result.masks)
    assert dense.dtype == bool
    assert dense.shape == result.masks.shape == (3, 128, 128)
    assert np.array_equal(dense, result.dense())


def test_points_keep_their_place_in_bfloat16(tiny_folder, tiny_model):
    """A session casts what floats; points go around that."""
    from lensmount import registry

    with registry.load(tiny_folder, precision="bf16") as model:
        (coarse,) = model(FRAME, boxes=[70, 50, 110, 110])
    (fine,) = tiny_model(FRAME, boxes=[70, 50, 110, 110])
    assert model.precision == "bf16"
    assert coarse.logits.dtype == np.float32
    assert np.abs(coarse.logits - fine.logits).mean() < 0.05 * np.ptp(fine.logits)


def test_everything(tiny_model):
    settings = {"predicted_iou_threshold": 0.3, "stability_threshold": 0.5}
    result = tiny_model.generate(FRAME, 6, points_per_batch=7, **settings)
    assert len(result) >= 1
    assert (np.diff(result.scores) <= 0).all()
    assert (result.scores > 0.3).all()
    again = tiny_model.generate(FRAME, 6, points_per_batch=36, **settings)
    assert len(again) == len(result)
    assert (result.masks.iou(again.masks).max(axis=1) > 0.99).all()
    from lensmount_vision.results.boxes import iou_matrix

    overlaps = iou_matrix(result.masks.boxes, result.masks.boxes)
    assert (overlaps[~np.eye(len(result), dtype=bool)] <= 0.7).all()
    assert len(tiny_model.generate(FRAME, 2, predicted_iou_threshold=1.0)) == 0
    clean = tiny_model.generate(FRAME, 6, min_region_area=30, **settings)
    import cv2

    for mask in clean.masks.dense():
        sizes = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA]
        assert len(sizes) == 1 or sizes.min() >= 30


def test_everything_refuses(tiny_model):
    with pytest.raises(UnknownOptionError, match="points_per_sied"):
        tiny_model.generate(FRAME, points_per_sied=3)
    with pytest.raises(OptionError, match="box_iou_threshold"):
        tiny_model.generate(FRAME, box_iou_threshold=2)
    with pytest.raises(InputError, match="one picture"):
        tiny_model.generate([FRAME, FRAME], 2)
