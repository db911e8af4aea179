"""`reduced_decode`: large JPEGs through a real model and the command line, against the full decode."""

from __future__ import annotations

import io
from functools import lru_cache

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

pytest.importorskip("onnxruntime")
pytest.importorskip("lensmount_shapes")

from lensmount import registry
from lensmount.errors import OptionError
from lensmount.specs import Preprocess
from lensmount_shapes.scenes import make_scene
from lensmount_yolo.options import LoadOptions

SURE = 0.5


@pytest.fixture(scope="module")
def models():
    with (
        registry.load("shapes-nano", backend="onnx", threads=1) as whole,
        registry.load("shapes-nano", backend="onnx", threads=1, reduced_decode=True) as reduced,
    ):
        yield whole, reduced


@lru_cache(maxsize=8)
def encoded(index: int, width: int, height: int, orientation: int = 1) -> bytes:
    """A scene, enlarged to the size given, as a JPEG that looks so once it is turned."""
    scene = cv2.resize(make_scene(11, index, 640, 480).image, (width, height), interpolation=cv2.INTER_CUBIC)
    turned = Pillow.fromarray(scene[..., ::-1])
    turned.getexif()[0x0112] = {6: 8, 8: 6}.get(orientation, orientation)
    stored = ImageOps.exif_transpose(turned)
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    made = io.BytesIO()
    stored.save(made, "JPEG", quality=92, exif=exif)
    return made.getvalue()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def compared(reduced, whole) -> list[float]:
    """Overlap of every object that the full decode is sure of with what the other found there."""
    assert reduced.image_size == whole.image_size
    sure = whole[whole.confidence >= SURE]
    masks, others = sure.masks.dense(), reduced.masks.dense()
    assert others.shape[1:] == reduced.image_size
    found = []
    for i, box in enumerate(sure.xyxy):
        same = [(iou(box, reduced.xyxy[j]), j) for j in np.flatnonzero(reduced.class_id == sure.class_id[i])]
        best, place = max(same)
        found.append(best)
        assert (masks[i] & others[place]).sum() / (masks[i] | others[place]).sum() > best - 0.1
    return found


def test_boxes_and_masks_are_those_of_the_full_decode(models):
    whole, reduced = models
    found = []
    for index in range(4):
        data = encoded(index, 2560, 1920)
        (picture,) = reduced.load_images(data, None)
        assert picture.pixels.shape == (240, 320, 3)
        (result,) = reduced(data)
        assert result.image_size == (1920, 2560)
        found += compared(result, whole(data)[0])
    assert len(found) > 15
    assert min(found) >= 0.95
    assert np.median(found) >= 0.98


@pytest.mark.parametrize("orientation", range(1, 9))
def test_odd_and_turned_pictures(models, orientation):
    whole, reduced = models
    data = encoded(0, 2563, 1917, orientation)
    (result,) = reduced(data)
    assert result.image_size == (1917, 2563)
    found = compared(result, whole(data)[0])
    # The network's pixels lie otherwise on the picture's, which moves boxes of 20 network pixels by one of them.
    assert len(found) > 5
    assert min(found) >= 0.85
    assert np.median(found) >= 0.97


def test_pictures_below_the_threshold_give_the_same_results(models, tmp_path):
    whole, reduced = models
    small = encoded(1, 500, 375)
    array = cv2.imdecode(np.frombuffer(encoded(1, 2560, 1920), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(tmp_path / "large.png"), array)
    for source in (small, array, tmp_path / "large.png"):
        (one,), (other,) = reduced(source), whole(source)
        assert one == other


def test_a_stream_decodes_as_a_call_does(models, tmp_path):
    _, reduced = models
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(encoded(i, 2560, 1920))
    pairs = list(reduced.stream(tmp_path))
    assert [info.image.pixels.shape for info, _ in pairs] == [(240, 320, 3)] * 3
    assert [result for _, result in pairs] == reduced(sorted(tmp_path.iterdir()))


def test_the_command_line_draws_on_the_whole_picture(lensmount, tmp_path):
    (tmp_path / "large.jpg").write_bytes(encoded(0, 2560, 1920, 6))
    done = lensmount(
        "predict",
        "shapes-nano",
        tmp_path / "large.jpg",
        "--reduced-decode",
        "--save",
        tmp_path / "out",
        "--backend",
        "onnx",
    )
    assert done.status == 0, done.err
    drawn = cv2.imread(str(tmp_path / "out" / "large.jpg"))
    assert drawn.shape == (1920, 2560, 3)
    plain = cv2.imread(str(tmp_path / "large.jpg"))
    assert np.median(np.abs(drawn.astype(int) - plain)) <= 2  # as sharp as the file, but for what was drawn


def test_wrong_values_and_packages_are_refused(lensmount, tmp_path):
    with pytest.raises(OptionError, match="reduced_decode should be a flag"):
        LoadOptions(reduced_decode=2)
    (tmp_path / "a.jpg").write_bytes(encoded(0, 640, 480))
    done = lensmount("predict", "clip/ViT-B-32", tmp_path / "a.jpg", "--reduced-decode", "--offline")
    assert done.status != 0
    assert "reduced_decode" in done.err


@pytest.mark.parametrize("needs", [{"static_crop": (10, 10, 90, 90)}, {"contrast": "adaptive-equalization"}])
def test_a_package_that_needs_every_pixel_refuses(needs, graph, raw, monkeypatch):
    from lensmount_yolo import model

    path = graph({"output0": raw([(32, 32, 8, 16, 0, 0.9)])})
    monkeypatch.setattr(model, "resolve_preprocess", lambda *_: Preprocess(size=(64, 64), **needs))
    registry.load(path).close()
    with pytest.raises(OptionError, match="does not go with this package") as caught:
        registry.load(path, reduced_decode=True)
    assert next(iter(needs)) in str(caught.value)
