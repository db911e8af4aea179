"""Geometry: where pictures go, and exact inverses for every mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmount.errors import OptionError
from lensmount.specs import Preprocess
from lensmount_vision.images.geometry import Geometry, plan

MODES = ["stretch", "letterbox", "letterbox-reflect", "center-crop", "short-side-crop", "fit", "pad-square", "none"]
sides = st.integers(1, 5000)


@st.composite
def geometries(draw) -> Geometry:
    left, top = draw(st.integers(0, 60)), draw(st.integers(0, 60))
    crop = draw(st.sampled_from([None, (left, top, left + 30, top + 40)]))
    spec = Preprocess(
        size=(draw(st.integers(1, 1300)), draw(st.integers(1, 1300))),
        resize=draw(st.sampled_from(MODES)),
        rounding=draw(st.sampled_from(["nearest", "truncate"])),
        position=draw(st.sampled_from(["center", "top-left"])),
        divisible_by=draw(st.sampled_from([None, 32])),
        static_crop=crop,
    )
    return plan((draw(sides), draw(sides)), spec)


@given(geometries(), st.lists(st.floats(-3000, 8000), min_size=4, max_size=4))
def test_maps_are_inverse(geometry: Geometry, values: list[float]):
    points = np.array(values).reshape(2, 2)
    there_and_back = geometry.points_to_image(geometry.points_to_network(points))
    # Float64 with intermediate values up to 8000 * 1300: what is left is rounding.
    np.testing.assert_allclose(there_and_back, points, rtol=1e-9, atol=1e-6)
    boxes = np.array([values])
    np.testing.assert_allclose(geometry.boxes_to_network(geometry.boxes_to_image(boxes, clip=False)), boxes, atol=1e-6)
    np.testing.assert_array_equal(
        geometry.boxes_to_image(boxes, clip=False).reshape(2, 2), geometry.points_to_image(points)
    )


@given(geometries())
def test_corners_of_the_content_are_the_picture(geometry: Geometry):
    left, top, right, bottom = geometry.content_box
    assert 0 <= left < right <= geometry.network_size[1]
    assert 0 <= top < bottom <= geometry.network_size[0]
    box = geometry.boxes_to_image(np.array([[left, top, right, bottom]]), clip=False)[0]
    x, y = geometry.crop_origin
    height, width = geometry.crop_size
    assert box[0] >= x - 1e-6
    assert box[1] >= y - 1e-6
    assert box[2] <= x + width + 1e-6
    assert box[3] <= y + height + 1e-6


@given(geometries(), st.lists(st.floats(-5000, 9000), min_size=4, max_size=4))
def test_clipped_boxes_lie_in_the_picture(geometry: Geometry, values: list[float]):
    box = geometry.boxes_to_image(np.array(values, np.float32))
    assert box.dtype == np.float32
    height, width = geometry.original_size
    assert box[0::2].min() >= 0
    assert box[0::2].max() <= width
    assert box[1::2].min() >= 0
    assert box[1::2].max() <= height


def test_letterbox_in_the_golden_case():
    geometry = plan((1200, 1800), Preprocess())
    assert geometry.resized_size == (427, 640)
    assert geometry.offset == (0.0, 106.0)  # 106 above, 107 below
    assert geometry.scale == (640 / 1800, 427 / 1200)
    assert geometry.content_box == (0.0, 106.0, 640.0, 533.0)


@pytest.mark.parametrize(
    ("size", "spec", "resized", "offset", "frame"),
    [
        ((1080, 1920), Preprocess(), (360, 640), (0, 140), (640, 640)),
        ((427, 640), Preprocess(rounding="truncate"), (427, 640), (0, 106), (640, 640)),
        ((1200, 1800), Preprocess(rounding="truncate"), (426, 640), (0, 107), (640, 640)),
        ((100, 333), Preprocess(position="top-left"), (192, 640), (0, 0), (640, 640)),
        ((1, 20000), Preprocess(), (1, 640), (0, 319), (640, 640)),
        ((20000, 1), Preprocess(rounding="truncate"), (640, 1), (319, 0), (640, 640)),
        ((427, 640), Preprocess(resize="short-side-crop", size=(64, 64)), (64, 95), (-16, 0), (64, 64)),
        ((640, 427), Preprocess(resize="short-side-crop", size=(64, 64)), (95, 64), (0, -16), (64, 64)),
        ((50, 90), Preprocess(resize="center-crop", size=(64, 64)), (50, 90), (-13, 7), (64, 64)),
        ((1080, 1920), Preprocess(resize="fit"), (360, 640), (0, 0), (360, 640)),
        ((1080, 1920), Preprocess(resize="fit", divisible_by=32), (360, 640), (0, 0), (384, 640)),
        ((101, 67), Preprocess(resize="none", size=None, divisible_by=32), (101, 67), (0, 0), (128, 96)),
        ((100, 200), Preprocess(resize="pad-square", size=(50, 50)), (25, 50), (0, 0), (50, 50)),
        ((100, 200), Preprocess(resize="stretch", size=(50, 60)), (50, 60), (0, 0), (50, 60)),
    ],
)
def test_layouts(size, spec, resized, offset, frame):
    geometry = plan(size, spec)
    assert (geometry.resized_size, geometry.offset, geometry.network_size) == (resized, offset, frame)


@given(sides, sides, st.integers(32, 400))
def test_short_side_crop_has_torchvisions_numbers(height: int, width: int, size: int):
    geometry = plan((height, width), Preprocess(resize="short-side-crop", size=(size, size)))
    short, long = min(height, width), max(height, width)
    new_long = int(size * long / short)
    expected = (size, new_long) if height <= width else (new_long, size)
    assert geometry.resized_size == expected
    assert geometry.offset[1] == -round((expected[0] - size) / 2.0)
    assert geometry.offset[0] == -round((expected[1] - size) / 2.0)


@given(sides, sides, st.integers(32, 400))
def test_short_side_crop_has_transformers_numbers(height: int, width: int, size: int):
    """Its processors, with Pillow and with torchvision, halve what is cropped as `int((length - size) / 2)`."""
    geometry = plan((height, width), Preprocess(resize="short-side-crop", size=(size, size), rounding="truncate"))
    new_height, new_width = geometry.resized_size
    assert geometry.offset == (-int((new_width - size) / 2), -int((new_height - size) / 2))


def test_boxes_in_padding_are_outside():
    geometry = plan((360, 640), Preprocess())
    boxes = np.array(
        [[0, 0, 640, 139], [0, 0, 640, 140], [0, 0, 640, 141], [10, 500, 90, 600], [10, 499, 90, 600],
         [5, 200, 9, 300], [np.nan] * 4], np.float32
    )  # fmt: skip
    assert geometry.inside(boxes).tolist() == [False, False, True, False, True, True, False]
    assert geometry.inside(np.zeros((0, 4), np.float32)).shape == (0,)


def test_static_crop():
    spec = Preprocess(resize="stretch", size=(50, 50), static_crop=(25, 10, 75, 60))
    geometry = plan((200, 400), spec)
    assert (geometry.crop_origin, geometry.crop_size) == ((100, 20), (100, 200))
    np.testing.assert_allclose(geometry.boxes_to_image(np.array([[0, 0, 50, 50.0]])), [[100, 20, 300, 120]])
    # Nothing beyond the crop was seen.
    np.testing.assert_allclose(geometry.boxes_to_image(np.array([[-9, -9, 99, 99.0]])), [[100, 20, 300, 120]])
    assert plan((1, 1), spec).crop_size == (1, 1)


def test_input_is_not_changed_and_dtypes_are_kept():
    geometry = plan((100, 200), Preprocess())
    for dtype, expected in ((np.float32, np.float32), (np.float64, np.float64), (np.int64, np.float64)):
        boxes = np.array([[-5, 100, 700, 300]], dtype)
        before = boxes.copy()
        assert geometry.boxes_to_image(boxes).dtype == expected
        np.testing.assert_array_equal(boxes, before)
    assert geometry.boxes_to_image(np.zeros((0, 4), np.float32)).shape == (0, 4)
    assert geometry.points_to_network(np.zeros((3, 5, 2))).shape == (3, 5, 2)


@pytest.mark.parametrize(
    "spec",
    [Preprocess(size=None), Preprocess(size=(0, 5)), Preprocess(static_crop=(50, 0, 50, 100)),
     Preprocess(static_crop=(0, 0, 101, 100)), Preprocess(resize="squeeze")],
)  # fmt: skip
def test_impossible_specs(spec: Preprocess):
    with pytest.raises(OptionError):
        plan((10, 10), spec)


def test_size_overrides():
    assert plan((10, 10), Preprocess(size=None), (320, 416)).network_size == (320, 416)
