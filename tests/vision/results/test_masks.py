"""Compact masks, and their decoding against torch's interpolation and the reference outputs."""

from __future__ import annotations

import lzma
import time

import numpy as np
import pytest

from lensmount.errors import InputError, OptionError
from lensmount.specs import Preprocess
from lensmount_vision.images.geometry import Geometry, plan
from lensmount_vision.results import boxes as box_tools
from lensmount_vision.results.mask_decoding import decode_prototypes, resize_logits_in_boxes
from lensmount_vision.results.masks import Masks


def blobs(count=6, height=120, width=160, seed=0):
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[:height, :width]
    dense = np.zeros((count, height, width), bool)
    for mask in dense[:-1]:
        y, x, a, b = rng.uniform(0, height), rng.uniform(0, width), *rng.uniform(5, 50, 2)
        mask[:] = ((yy - y) / a) ** 2 + ((xx - x) / b) ** 2 < 1
    return dense  # the last one is empty


def smooth(count, height, width, seed):
    """Logits with structure of a few pixels, as networks give them."""
    torch = pytest.importorskip("torch")
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, count, height // 4, width // 4)))
    grown = torch.nn.functional.interpolate(noise.float(), (height, width), mode="bicubic", align_corners=False)
    return grown[0].numpy()


# --- the class --------------------------------------------------------------------------------------------------------


def test_dense_round_trip_boxes_and_areas():
    dense = blobs()
    masks = Masks.from_dense(dense)
    assert len(masks) == 6 and masks.image_size == (120, 160)
    assert np.array_equal(masks.dense(), dense)
    assert masks.area.tolist() == dense.sum((1, 2)).tolist() and masks.area.dtype == np.int64
    for mask, (x0, y0, x1, y1) in zip(dense[:-1], masks.boxes, strict=False):
        ys, xs = np.nonzero(mask)
        assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert masks.boxes[-1].tolist() == [0, 0, 0, 0] and masks.boxes.dtype == np.float32
    assert masks.nbytes < dense.nbytes
    assert "6 of 120 x 160" in repr(masks)


def test_from_dense_copies_and_takes_numbers():
    dense = blobs().astype(np.uint8)
    masks = Masks.from_dense(dense * 255)
    expected = dense.astype(bool)
    dense[:] = 1
    assert np.array_equal(masks.dense(), expected)


def test_choosing():
    dense = blobs()
    masks = Masks.from_dense(dense)
    for key in (2, -1, slice(1, 4), slice(None, None, -1), [3, 0], np.array([1, 1]), dense.any((1, 2)), []):
        key = np.array(key, int) if isinstance(key, list) else key
        expected = dense[key] if not isinstance(key, int) else dense[key][None]
        assert np.array_equal(masks[key].dense(), expected)
    assert [len(one) for one in masks] == [1] * 6
    with pytest.raises(IndexError):
        masks[6]


def test_equality_is_of_pixels_not_of_crops():
    dense = blobs()
    tight = Masks.from_dense(dense)
    whole = Masks(list(dense), np.zeros((6, 2), int), (120, 160))
    assert tight == whole
    other = dense.copy()
    other[3, 5, 5] ^= True
    assert Masks.from_dense(other) != whole
    assert tight[:5] != tight and tight != "masks"
    assert Masks.empty((3, 4)) != Masks.empty((4, 3))


def test_empty():
    none = Masks.empty((30, 40))
    assert none.dense().shape == (0, 30, 40) and none.boxes.shape == (0, 4) and none.area.shape == (0,)
    assert none.to_rle() == [] and none.polygons() == [] and none.iou(none).shape == (0, 0)
    assert Masks.from_dense(np.zeros((0, 30, 40))) == none


def test_iou_against_dense():
    a, b = blobs(8, seed=1), blobs(5, seed=2)
    both = np.einsum("nhw,mhw->nm", a.astype(int), b.astype(int))
    union = a.sum((1, 2))[:, None] + b.sum((1, 2)) - both
    expected = both / np.maximum(union, 1)
    np.testing.assert_allclose(Masks.from_dense(a).iou(Masks.from_dense(b)), expected, rtol=1e-6)
    assert expected.max() > 0.1
    with pytest.raises(InputError, match="image size"):
        Masks.from_dense(a).iou(Masks.empty((1, 1)))


def test_polygons_enclose_the_mask():
    cv2 = pytest.importorskip("cv2")
    dense = blobs()
    dense[0, 0:8, 100:140] = True
    dense[5, 3, 3] = True
    polygons = Masks.from_dense(dense).polygons()
    assert polygons[5] == []  # a single pixel has no polygon
    for mask, parts in zip(dense[:5], polygons, strict=False):
        filled = np.zeros(mask.shape, np.uint8)
        cv2.fillPoly(filled, parts, 1)
        assert np.array_equal(filled.astype(bool), mask)


@pytest.mark.parametrize(
    ("crops", "origins", "size", "word"),
    [
        ([np.ones((5, 5), bool)], [(8, 0)], (10, 10), "inside"),
        ([np.ones((5, 5), bool)], [(-1, 0)], (10, 10), "inside"),
        ([np.ones((5, 5), bool)], [], (10, 10), "number"),
        ([np.ones(5, bool)], [(0, 0)], (10, 10), "shape"),
        ([], [], (10, -1), "image_size"),
        ([], [], 10, "image_size"),
    ],
)
def test_refuses(crops, origins, size, word):
    with pytest.raises(InputError, match=word):
        Masks(crops, origins, size)


def test_from_dense_refuses_two_axes():
    with pytest.raises(InputError, match="shape"):
        Masks.from_dense(np.zeros((4, 4)))


# --- decoding ---------------------------------------------------------------------------------------------------------


def cut(dense, xyxy):
    """The field's rule: pixel i belongs to a box when low <= i < high."""
    ys, xs = np.arange(dense.shape[1])[None, :, None], np.arange(dense.shape[2])[None, None, :]
    x0, y0, x1, y1 = (xyxy[:, i, None, None] for i in range(4))
    return dense & (xs >= x0) & (xs < x1) & (ys >= y0) & (ys < y1)


def sampled(logits, geometry):
    """Logits at image pixels, in float64 and one pixel at a time along each axis."""
    _, h, w = logits.shape

    def axis(length, pixels, network, scale, offset, origin):
        position = ((np.arange(length) + 0.5 - origin) * scale + offset) * pixels / network - 0.5
        position = position.clip(0, pixels - 1)
        low = np.minimum(np.floor(position).astype(int), max(pixels - 2, 0))
        return low, np.minimum(low + 1, pixels - 1), position - low

    (height, width), (rows, columns) = geometry.original_size, geometry.network_size
    y0, y1, fy = axis(height, h, rows, geometry.scale[1], geometry.offset[1], geometry.crop_origin[1])
    x0, x1, fx = axis(width, w, columns, geometry.scale[0], geometry.offset[0], geometry.crop_origin[0])
    exact = logits.astype(np.float64)
    down = exact[:, y0] * (1 - fy)[:, None] + exact[:, y1] * fy[:, None]
    return down[:, :, x0] * (1 - fx) + down[:, :, x1] * fx


def random_boxes(count, height, width, seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.8, (count, 2)) * (width, height)
    size = rng.uniform(0.05, 0.6, (count, 2)) * (width, height)
    return np.concatenate([corner, np.minimum(corner + size, (width, height))], 1).astype(np.float32)


def same_but_at_zero(found, values, xyxy, level=0.0):
    """Equal wherever the float64 value is not within float32 rounding of the level."""
    expected = cut(values > level, xyxy)
    assert not ((found != expected) & (np.abs(values - level) > 1e-4)).any()
    assert (found != expected).mean() < 1e-4
    assert 0.01 < found.mean() < 0.9


GEOMETRIES = {
    "identity": Geometry((256, 256), (256, 256)),
    "letterbox": plan((427, 640), Preprocess(size=(256, 256))),
    "odd letterbox": plan((1201, 777), Preprocess(size=(256, 320))),
    "truncating": plan((333, 500), Preprocess(size=(256, 256), rounding="truncate")),
    "stretch": plan((480, 270), Preprocess(size=(256, 256), resize="stretch")),
    "static crop": plan((400, 600), Preprocess(size=(256, 256), static_crop=(10, 20, 80, 90))),
    "smaller than the logits": plan((37, 41), Preprocess(size=(256, 256))),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_prototypes_through_every_geometry(name):
    geometry = GEOMETRIES[name]
    height, width = geometry.original_size
    prototypes = smooth(32, geometry.network_size[0] // 4, geometry.network_size[1] // 4, 0)
    coefficients = np.random.default_rng(1).normal(size=(12, 32)).astype(np.float32)
    xyxy = random_boxes(12, height, width, 2)
    found = decode_prototypes(coefficients, prototypes, xyxy, geometry)
    assert found.image_size == (height, width)
    logits = np.einsum("nk,khw->nhw", coefficients.astype(np.float64), prototypes)
    same_but_at_zero(found.dense(), sampled(logits, geometry), xyxy)


def test_threshold_is_a_probability():
    geometry = GEOMETRIES["letterbox"]
    prototypes, xyxy = smooth(8, 64, 64, 3), random_boxes(10, 427, 640, 4)
    coefficients = np.random.default_rng(5).normal(size=(10, 8)).astype(np.float32)
    values = sampled(np.einsum("nk,khw->nhw", coefficients.astype(np.float64), prototypes), geometry)
    probability = 1 / (1 + np.exp(-values))
    found = decode_prototypes(coefficients, prototypes, xyxy, geometry, threshold=0.8).dense()
    assert not ((found != cut(probability > 0.8, xyxy)) & (np.abs(probability - 0.8) > 1e-4)).any()
    assert found.any()


def test_logits_equal_torch_interpolate():
    torch = pytest.importorskip("torch")
    logits = smooth(9, 78, 78, 6)
    size = (427, 640)
    grown = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], size, mode="bilinear", align_corners=False)
    values = grown[0].numpy()
    xyxy = random_boxes(9, *size, 7)
    same_but_at_zero(resize_logits_in_boxes(logits, xyxy, size).dense(), values, xyxy)
    whole = np.tile(np.array([[0, 0, 640, 427]], np.float32), (9, 1))
    same_but_at_zero(resize_logits_in_boxes(logits, None, size).dense(), values, whole)
    same_but_at_zero(resize_logits_in_boxes(logits, None, size, threshold=0.7).dense(), values, whole, 0.7)


def test_whole_logits_are_sampled_only_where_they_rise():
    logits = np.full((3, 50, 50), -4, np.float32)
    logits[0, 10:12, 20:25] = 5
    logits[1, 0, 0] = logits[1, 49, 49] = 5
    masks = resize_logits_in_boxes(logits, None, (1000, 1000))
    assert masks.crop(0).size < 120 * 60 * 2 and masks.area[0] > 0
    assert masks.boxes[1].tolist() == [0, 0, 1000, 1000]
    assert masks.area[2] == 0 and masks.crop(2).size == 0
    torch = pytest.importorskip("torch")
    grown = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (1000, 1000), mode="bilinear")[0]
    assert np.array_equal(masks.dense(), grown.numpy() > 0)


def test_through_a_geometry_as_well():
    geometry = GEOMETRIES["odd letterbox"]
    logits, xyxy = smooth(5, 64, 80, 8), random_boxes(5, 1201, 777, 9)
    same_but_at_zero(resize_logits_in_boxes(logits, xyxy, geometry).dense(), sampled(logits, geometry), xyxy)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1)])
def test_logits_of_one_row_or_column(shape):
    logits = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    values = sampled(logits, Geometry((30, 40), shape, (shape[1] / 40, shape[0] / 30)))
    assert np.array_equal(resize_logits_in_boxes(logits, None, (30, 40)).dense(), values > 0)


def test_boxes_outside_empty_and_inside_out_give_empty_masks():
    prototypes, coefficients = np.ones((1, 4, 4), np.float32), np.ones((5, 1), np.float32)
    xyxy = [[50, 50, 60, 60], [3, 3, 3, 8], [8, 8, 2, 2], [-9, -9, -1, -1], [2.2, 2.2, 5.5, 4.5]]
    masks = decode_prototypes(coefficients, prototypes, xyxy, Geometry((16, 16), (16, 16)))
    assert masks.area.tolist() == [0, 0, 0, 0, 6]
    assert masks.boxes[4].tolist() == [3, 3, 6, 5]


def test_nothing_in_nothing_out():
    prototypes = np.ones((32, 8, 8), np.float32)
    for coefficients in (np.zeros((0, 32), np.float32), []):
        assert len(decode_prototypes(coefficients, prototypes, [], Geometry((16, 20), (32, 32)))) == 0
    assert resize_logits_in_boxes(np.zeros((0, 8, 8)), [], (16, 20)).image_size == (16, 20)


def test_half_precision_prototypes():
    prototypes = smooth(8, 32, 32, 1).astype(np.float16)
    coefficients = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float16)
    geometry, xyxy = Geometry((128, 128), (128, 128)), random_boxes(3, 128, 128, 0)
    wide = decode_prototypes(coefficients.astype(np.float32), prototypes.astype(np.float32), xyxy, geometry)
    assert decode_prototypes(coefficients, prototypes, xyxy, geometry) == wide


def test_decoding_refuses():
    geometry = Geometry((16, 16), (16, 16))
    good = (np.ones((2, 4)), np.ones((4, 8, 8)), np.zeros((2, 4)))
    for place, wrong, word in (
        (0, np.ones((2, 5)), "coefficients"),
        (0, np.ones((3, 4)), "coefficients"),
        (1, np.ones((8, 8)), "prototypes"),
        (1, np.ones((4, 0, 8)), "prototypes"),
        (2, np.zeros((2, 5)), "boxes"),
        (2, np.full((2, 4), np.nan), "finite"),
        (0, np.array([["a"] * 4] * 2), "numeric"),
        (0, np.full((2, 4), np.nan), "finite"),
    ):
        arguments = list(good)
        arguments[place] = wrong
        with pytest.raises(InputError, match=word):
            decode_prototypes(*arguments, geometry)
    for threshold in (0, 1, -0.1, "x"):
        with pytest.raises(OptionError, match="threshold"):
            decode_prototypes(*good, geometry, threshold=threshold)
    with pytest.raises(InputError, match="number"):
        resize_logits_in_boxes(np.zeros((2, 4, 4)), np.zeros((3, 4)), (8, 8))
    with pytest.raises(InputError, match="shape"):
        resize_logits_in_boxes(np.zeros((4, 4)), None, (8, 8))


def test_decoding_does_not_go_through_the_full_image():
    """20 objects at 1080p: far below what 20 full-size masks cost (41 MB, 29 ms where this takes 2)."""
    geometry = plan((1080, 1920), Preprocess())
    prototypes, coefficients = smooth(32, 160, 160, 0), np.random.default_rng(0).normal(size=(20, 32))
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 1, (20, 2)) * (1600, 800)
    xyxy = np.concatenate([corner, corner + rng.uniform(60, 280, (20, 2))], 1).astype(np.float32)
    best = min(_timed(lambda: decode_prototypes(coefficients, prototypes, xyxy, geometry)) for _ in range(5))
    masks = decode_prototypes(coefficients, prototypes, xyxy, geometry)
    assert masks.nbytes < 2e6
    assert best < 0.02


def _timed(call):
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


# --- against the reference implementation -----------------------------------------------------------------------------


def test_masks_of_the_reference(reference_data):
    """Network to masks at network size: equal to the reference's to the pixel; 0.99 IoU each is the tolerance."""
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = reference_data / "goldens"
    golden = np.load(folder / "yolov8n-seg.npz")
    frame = np.load(folder / "yolov8n.npz")["x_uint8"].astype(np.float32) / 255
    graph = lzma.decompress((folder / "yolov8n-seg.onnx.xz").read_bytes())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    raw, prototypes = session.run(None, {session.get_inputs()[0].name: frame})
    rows = raw[0].T[raw[0, 4:84].max(0) > 0.25]
    xyxy, scores, ids = box_tools.cxcywh_to_xyxy(rows[:, :4]), rows[:, 4:84].max(1), rows[:, 4:84].argmax(1)
    kept = box_tools.nms(xyxy, scores, ids, iou_threshold=0.7, max_detections=300)
    assert len(kept) == len(golden["boxes"])
    geometry = plan((1200, 1800), Preprocess())
    image_boxes = geometry.boxes_to_image(xyxy[kept])
    distance = np.abs(image_boxes[:, None] - golden["boxes"][None, :, :4]).max(-1)
    match = distance.argmin(0)
    assert distance.min(0).max() < 0.5 and sorted(match) == list(range(len(kept)))
    np.testing.assert_allclose(scores[kept][match], golden["boxes"][:, 4], atol=0.005)
    assert ids[kept][match].tolist() == golden["boxes"][:, 5].tolist()

    expected = np.unpackbits(golden["masks_packed"], axis=-1, count=640).astype(bool)
    coefficients = rows[kept, 84:][match]
    frame_geometry = Geometry((640, 640), (640, 640))
    found = decode_prototypes(coefficients, prototypes[0], xyxy[kept][match].clip(0, 640), frame_geometry)
    assert np.diag(found.iou(Masks.from_dense(expected))).min() >= 0.99

    # At image size the same logits, sampled through the letterbox.
    at_image = decode_prototypes(coefficients, prototypes[0], image_boxes[match], geometry)
    logits = np.einsum("nk,khw->nhw", coefficients[:10].astype(np.float64), prototypes[0])
    same_but_at_zero(at_image[:10].dense(), sampled(logits, geometry), image_boxes[match][:10])
