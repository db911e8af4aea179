"""The scene generator of the shapes example: repeatable, and its truth is true."""

from __future__ import annotations

import numpy as np
import pytest

scenes = pytest.importorskip("lensmount_shapes.scenes")


@pytest.fixture(scope="module")
def many():
    return [scenes.make_scene(11, index) for index in range(40)]


def test_the_same_numbers_give_the_same_scene():
    first, second = scenes.make_scene(5, 3), scenes.make_scene(5, 3)
    for name in ("image", "class_id", "masks", "xyxy"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("other", [(5, 4), (6, 3)])
def test_other_numbers_give_another_scene(other):
    assert not np.array_equal(scenes.make_scene(5, 3).image, scenes.make_scene(*other).image)


def test_shapes_and_types(many):
    for scene in many:
        count = len(scene.class_id)
        assert scene.image.shape == (256, 256, 3)
        assert scene.image.dtype == np.uint8
        assert scene.class_id.dtype == np.int64
        assert scene.masks.shape == (count, 256, 256)
        assert scene.masks.dtype == bool
        assert scene.xyxy.shape == (count, 4)
        assert scene.xyxy.dtype == np.float32


def test_all_classes_occur(many):
    counts = np.bincount(np.concatenate([scene.class_id for scene in many]), minlength=6)
    assert len(counts) == len(scenes.CLASSES) == 6
    assert counts.min() >= 10


def test_masks_are_disjoint(many):
    for scene in many:
        assert scene.masks.sum(0).max(initial=0) <= 1


def test_boxes_are_tight_around_the_visible_pixels(many):
    for scene in many:
        for mask, box in zip(scene.masks, scene.xyxy, strict=True):
            x1, y1, x2, y2 = box.astype(int)
            inside = mask[y1:y2, x1:x2]
            assert inside.sum() == mask.sum()
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()


def test_nothing_is_nearly_hidden(many):
    # The smallest shape, a cross or star of the smallest radius, half hidden and cut by the edge, still shows this.
    smallest = np.pi * (scenes.RADIUS_RANGE[0] * 256) ** 2 * 0.3 * scenes.MIN_VISIBLE * 0.7
    assert min(mask.sum() for scene in many for mask in scene.masks) > smallest


def test_some_overlap_and_some_are_cut_by_the_edge(many):
    boxes = [(scene, i) for scene in many for i in range(len(scene.class_id))]
    cut = sum(bool((s.xyxy[i] == 0).any() or (s.xyxy[i] == 256).any()) for s, i in boxes)
    assert cut > len(boxes) * 0.05
    crowded = 0
    for scene in many:
        low = np.maximum(scene.xyxy[:, None, :2], scene.xyxy[None, :, :2])
        high = np.minimum(scene.xyxy[:, None, 2:], scene.xyxy[None, :, 2:])
        crowded += bool(((high - low > 0).all(-1) & ~np.eye(len(low), dtype=bool)).any())
    assert crowded > len(many) * 0.3


def test_a_shape_stands_out_from_its_ground(many):
    # The mean colour inside differs from that of a band around, for nearly all; overlaps excuse a few.
    import cv2

    differences = []
    for scene in many:
        for mask in scene.masks:
            band = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9))).astype(bool) & ~mask & ~scene.masks.any(0)
            if band.sum() > 50:
                gap = scene.image[mask].mean(0) - scene.image[band].mean(0)
                differences.append(np.linalg.norm(gap))
    assert np.quantile(differences, 0.02) > 25


@pytest.mark.parametrize(("name", "share"), [("circle", np.pi / 4), ("ring", None), ("square", None)])
def test_a_lone_shape_has_the_area_of_its_kind(name, share):
    wanted = scenes.CLASSES.index(name)
    found = 0
    for index in range(120):
        scene = scenes.make_scene(21, index, 320, 320, count=1)
        x1, y1, x2, y2 = scene.xyxy[0]
        if scene.class_id[0] != wanted or min(x1, y1) < 1 or max(x2, y2) > 319:
            continue
        found += 1
        filled = scene.masks[0].sum() / ((x2 - x1) * (y2 - y1))
        middle = scene.masks[0][int((y1 + y2) / 2), int((x1 + x2) / 2)]
        if share is not None:
            assert filled == pytest.approx(share, abs=0.05)  # a pixel on 40
            assert x2 - x1 == pytest.approx(y2 - y1, abs=1)
        if name == "square":  # between a square on its corner and one on its side
            assert 0.49 < filled <= 1
        assert middle == (name != "ring")
    assert found >= 5


@pytest.mark.parametrize(("width", "height", "count"), [(960, 640, 12), (64, 300, 4), (256, 256, 0)])
def test_sizes_and_counts(width, height, count):
    scene = scenes.make_scene(7, 0, width, height, count)
    assert scene.image.shape == (height, width, 3)
    assert len(scene.class_id) <= count
    assert scene.masks.shape == (len(scene.class_id), height, width)
    if count:
        assert len(scene.class_id) > 0
