"""Pictures: what changes, what must not, and that labels can be read."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lensmount.errors import ImageError, InputError, OptionError
from lensmount_vision.images.image import Image
from lensmount_vision.results import drawing
from lensmount_vision.results.colors import PALETTE, class_color, text_color
from lensmount_vision.results.drawing import draw
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    OrientedDetections,
    PromptedMasks,
)
from lensmount_vision.results.masks import Masks

SIZE = (200, 300)
GREY = np.full((*SIZE, 3), 90, np.uint8)
ONE = {
    "xyxy": [[50, 60, 150, 160]],
    "confidence": [0.9],
    "class_id": [1],
    "class_names": ("a", "b"),
    "image_size": SIZE,
}


def changed(picture, base=GREY):
    return (picture != base).any(-1)


def test_a_box_is_drawn_where_it_is_and_nothing_else():
    before = GREY.copy()
    picture = Detections(**ONE).draw(GREY, labels=False, thickness=1)
    assert np.array_equal(before, GREY) and picture is not GREY and picture.dtype == np.uint8
    expected = np.zeros(SIZE, bool)
    expected[60:160, 50:150] = True
    expected[61:159, 51:149] = False
    assert np.array_equal(changed(picture), expected)
    assert (picture[expected] == class_color(1)).all()


def test_options():
    result = Detections(**ONE)
    assert changed(result.draw(GREY)).sum() > changed(result.draw(GREY, confidence=False)).sum()
    assert changed(result.draw(GREY, confidence=False)).sum() > changed(result.draw(GREY, labels=False)).sum()
    thin, thick = (changed(result.draw(GREY, labels=False, thickness=t)).sum() for t in (1, 7))
    assert thick > 4 * thin
    red = result.draw(GREY, labels=False, color=(0, 0, 255))
    assert (red[changed(red)] == (0, 0, 255)).all()
    for options in ({"thickness": 0}, {"thickness": 1.5}, {"color": (0, 0)}, {"color": (0, 0, 256)}):
        with pytest.raises(OptionError):
            result.draw(GREY, **options)
    with pytest.raises(TypeError):
        result.draw(GREY, labells=False)


def test_masks_are_blended_inside_only():
    dense = np.zeros((1, *SIZE), bool)
    dense[0, 80:120, 70:130] = True
    dense[0, 95:105, 95:105] = False
    result = InstanceSegmentation(**ONE, masks=Masks.from_dense(dense))
    with_masks = result.draw(GREY, labels=False)
    without = result.draw(GREY, labels=False, masks=False)
    touched = changed(with_masks, without)
    # The contour may bleed one pixel over the edge.
    assert touched[dense[0]].all() and not touched[:78].any() and not touched[98:102, 98:102].any()
    mixed = with_masks[100, 80].astype(int)
    assert np.abs(mixed - (0.55 * 90 + 0.45 * np.array(class_color(1)))).max() <= 1


def test_small_masks_stay_visible_on_large_ones():
    dense = np.zeros((2, *SIZE), bool)
    dense[0, 90:110, 90:110] = True
    dense[1, 10:190, 10:290] = True
    common = ONE | {"xyxy": [[90, 90, 110, 110], [10, 10, 290, 190]], "confidence": [0.5, 0.4], "class_id": [0, 1]}
    picture = InstanceSegmentation(**common, masks=Masks.from_dense(dense)).draw(GREY, labels=False).astype(int)
    assert np.abs(picture[100, 100] - class_color(0)).sum() < np.abs(picture[100, 100] - class_color(1)).sum()


def test_keypoints_and_skeleton_obey_visibility():
    points = np.array([[[60, 70, 0.9], [140, 70, 0.9], [100, 140, 0.1]]])
    bones = Keypoints(**ONE, keypoints=points, skeleton=((0, 1), (1, 2))).draw(GREY, labels=False)
    base = Detections(**ONE).draw(GREY, labels=False)
    touched = changed(bones, base)
    assert touched[70, 60] and touched[70, 100] and touched[70, 140]
    assert not touched[100:].any()


def test_points_far_outside_do_no_harm():
    points = np.array([[[-1e9, 1e9, 1], [1e12, -5, 1]]])
    Keypoints(**ONE, keypoints=points, skeleton=((0, 1),)).draw(GREY)
    far = ONE | {"xyxy": [[-1e6, -1e6, 1e6, 1e6]]}
    assert changed(Detections(**far).draw(GREY))[0, 250]
    OrientedDetections(**ONE, xywhr=[[1e7, 1e7, 1e6, 1e6, 0.3]]).draw(GREY)


def test_oriented_boxes_follow_their_corners():
    result = OrientedDetections.from_xywhr([[150, 100, 80, 40, 0.6]], [0.9], [0], class_names=("a",), image_size=SIZE)
    touched = changed(result.draw(GREY, labels=False))
    for x, y in result.corners[0]:
        assert touched[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2].any()
    assert not touched[100, 150] and touched.sum() < 1500


def test_prompted_masks_get_a_colour_each():
    dense = np.zeros((2, *SIZE), bool)
    dense[0, 20:60, 20:60] = dense[1, 100:160, 200:260] = True
    picture = PromptedMasks(masks=Masks.from_dense(dense), scores=[0.9, 0.5], image_size=SIZE).draw(GREY)
    assert (picture[40, 40] != picture[130, 230]).any()


def test_classification_is_written_in_the_corner():
    result = Classification(probabilities=[0.1, 0.9], class_names=("a", "b"), image_size=SIZE)
    touched = changed(result.draw(GREY))
    assert touched[:40, :40].any() and not touched[100:].any()
    assert np.array_equal(result.draw(GREY, labels=False), GREY)


@pytest.mark.parametrize("shape", [(1, 1), (1, 400), (400, 1), (3, 3)])
def test_tiny_pictures(shape):
    common = ONE | {"xyxy": [[0, 0, shape[1], shape[0]]], "image_size": shape}
    blank = np.zeros((*shape, 3), np.uint8)
    masks = Masks.from_dense(np.ones((1, *shape), bool))
    assert InstanceSegmentation(**common, masks=masks).draw(blank).shape == (*shape, 3)
    Keypoints(**common, keypoints=np.zeros((1, 2, 3))).draw(blank)
    Classification(probabilities=[1.0], class_names=("long name " * 5,), image_size=shape).draw(blank)


def test_empty_results_leave_the_picture():
    assert np.array_equal(Detections.empty(SIZE).draw(GREY), GREY)
    assert np.array_equal(PromptedMasks(masks=Masks.empty(SIZE), scores=[], image_size=SIZE).draw(GREY), GREY)
    empty_mask = InstanceSegmentation(**ONE, masks=Masks.from_dense(np.zeros((1, *SIZE))))
    assert np.array_equal(empty_mask.draw(GREY), Detections(**ONE).draw(GREY))


def test_lines_grow_with_the_picture():
    widths = []
    for side in (100, 1000, 4000):
        blank = np.zeros((side, side, 3), np.uint8)
        box = ONE | {"xyxy": [[side * 0.2, side * 0.2, side * 0.8, side * 0.8]], "image_size": (side, side)}
        widths.append(int(changed(Detections(**box).draw(blank, labels=False), blank)[side // 2, : side // 2].sum()))
    assert widths[0] < widths[1] < widths[2]


def test_labels_lie_inside_and_apart():
    canvas = np.zeros((400, 600, 3), np.uint8)
    rng = np.random.default_rng(0)
    placed: list[tuple[int, int, int, int]] = []
    for _ in range(12):
        x, y = (int(v) for v in rng.integers((0, 0), (520, 340)))
        placed.append(drawing._place((x, y, min(x + 90, 599), y + 60), 70, 18, placed, canvas, 2))
    for x0, y0, x1, y1 in placed:
        assert x0 >= 0 and y0 >= 0 and x1 <= 600 and y1 <= 400 and (x1 - x0, y1 - y0) == (70, 18)
    assert not any(drawing._shared(a, b) for a, b in itertools.combinations(placed, 2))


def test_colours():
    assert len(set(PALETTE)) == len(PALETTE)
    assert len({class_color(i) for i in range(70)}) == 70
    assert class_color(3) == class_color(3) and all(0 <= c <= 255 for i in range(200) for c in class_color(i))
    assert text_color((255, 255, 255)) == text_color((0, 255, 255)) == (0, 0, 0)
    assert text_color((0, 0, 0)) == text_color((128, 0, 0)) == (255, 255, 255)

    def luminance(color):
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
        return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]

    for index in range(70):
        back, ink = luminance(class_color(index)), luminance(text_color(class_color(index)))
        # WCAG's minimum for text is 4.5.
        assert (max(back, ink) + 0.05) / (min(back, ink) + 0.05) >= 4.5


def test_names_beyond_ascii_are_written():
    named = ONE | {"class_names": ("a", "naïve café 犬")}
    assert changed(Detections(**named).draw(GREY)).any()
    assert drawing._ascii("naïve café 犬") == "naive cafe ?"


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_image(tmp_path):
    cv2 = pytest.importorskip("cv2")
    picture = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), picture)
    result = Detections(**ONE)
    expected = result.draw(picture)
    for source in (str(file), file, file.read_bytes(), Image(picture), Image(picture[..., ::-1], "rgb")):
        assert np.array_equal(draw(source, result), expected)
    grey = picture[..., 0]
    assert np.array_equal(draw(grey, result), draw(np.repeat(grey[..., None], 3, 2), result))


def test_refuses():
    result = Detections(**ONE)
    with pytest.raises(InputError, match="another size"):
        result.draw(GREY[:100])
    with pytest.raises(ImageError):
        result.draw("missing.jpg")
    with pytest.raises(InputError, match="cannot be drawn"):
        draw(GREY, Embeddings(vectors=[[1, 0]], normalized=True))
