"""JPEGs decoded at a fraction of their size: when, and that coordinates stay those of the whole picture."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from lensmount.errors import InputError, OptionError
from lensmount.specs import Preprocess
from lensmount_vision.images.geometry import Geometry, plan
from lensmount_vision.images.image import Image
from lensmount_vision.images.loading import load, load_many
from lensmount_vision.images.reduced_decode import Reduced, denominator, plan_reduced
from lensmount_vision.images.transforms import prepare
from lensmount_vision.results.drawing import draw
from lensmount_vision.results.kinds import Detections

MODES = ["letterbox", "letterbox-reflect", "stretch", "short-side-crop", "fit", "pad-square"]
PLAIN = Preprocess(size=(160, 160), scale=1.0, color="bgr")


def jpeg(pixels: np.ndarray, orientation: int = 1, **options) -> bytes:
    """A JPEG of RGB pixels as they are stored."""
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "JPEG", exif=exif, **{"quality": 100, "subsampling": 0, **options})
    return stream.getvalue()


def ramps(height: int, width: int) -> np.ndarray:
    """Red tells how far right a pixel lies, green how far down."""
    y, x = np.mgrid[:height, :width]
    return np.stack([20 + x * 210 / width, 20 + y * 210 / height, np.full((height, width), 128)], 2).astype(np.uint8)


PERIODS = (90.0, 110.0)
INVERSE = {6: 8, 8: 6}  # the others undo themselves


def wave(places: np.ndarray, axis: int) -> np.ndarray:
    return 128 + 100 * np.sin(2 * np.pi * places / PERIODS[axis])


def waves(height: int, width: int, orientation: int) -> np.ndarray:
    """As stored: a picture that, turned as `orientation` says, has red waves along x and green ones along y."""
    y, x = np.mgrid[:height, :width] + 0.5
    turned = np.stack([wave(x, 0), wave(y, 1), np.full((height, width), 128)], 2).round().astype(np.uint8)
    picture = Pillow.fromarray(turned)
    picture.getexif()[0x0112] = INVERSE.get(orientation, orientation)
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize(
    ("size", "spec", "expected"),
    [
        ((3024, 4032), Preprocess(size=(640, 640)), 4),  # 756x1008 for 480x640
        ((3024, 4032), Preprocess(size=(640, 640), resize="stretch"), 4),  # 378x504 would be too small
        ((3024, 4032), Preprocess(size=(224, 224), resize="short-side-crop"), 8),  # 378x504 for 224x298
        ((5120, 5120), Preprocess(size=(640, 640)), 8),
        ((5112, 5112), Preprocess(size=(640, 640)), 4),  # 639
        ((5113, 5113), Preprocess(size=(640, 640)), 8),  # rounded up to 640
        ((1080, 1920), Preprocess(size=(640, 640)), 2),
        ((720, 1280), Preprocess(size=(640, 640)), 2),
        ((720, 1278), Preprocess(size=(640, 640)), 1),
        ((100, 1000), Preprocess(size=(640, 640)), 1),
        ((480, 640), Preprocess(size=(640, 640)), 1),
        ((8000, 8000), Preprocess(size=None, resize="none"), 1),
        ((8000, 8000), Preprocess(size=(640, 640), resize="center-crop"), 1),
        ((4000, 2000), Preprocess(size=(640, 640), resize="pad-square"), 4),
    ],
)
def test_how_far_a_picture_is_reduced(size: tuple[int, int], spec: Preprocess, expected: int):
    assert denominator(size, spec) == expected


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(960, 1280), (961, 1283), (1087, 1607), (1366, 967), (401, 403)])
def test_network_pixels_show_what_the_geometry_says(size: tuple[int, int], orientation: int):
    data = jpeg(waves(*size, orientation), orientation)
    picture = load(data, reduced_for=PLAIN)
    assert picture.reduced is not None
    assert picture.size == size
    step = picture.reduced.denominator
    assert picture.pixels.shape[:2] == (-(-size[0] // step), -(-size[1] // step))
    batch, (geometry,) = prepare([picture], PLAIN)
    assert geometry.original_size == size
    left, top, right, bottom = (int(value) for value in geometry.content_box)
    inner = np.s_[top + 4 : bottom - 4, left + 4 : right - 4]
    centers = np.stack(np.meshgrid(np.arange(160) + 0.5, np.arange(160) + 0.5), axis=2)[inner]
    claimed = geometry.points_to_image(centers)
    for axis, channel in ((0, 2), (1, 1)):
        expected = wave(claimed[..., axis], axis)
        slope = (wave(claimed[..., axis] + 0.5, axis) - wave(claimed[..., axis] - 0.5, axis)).ravel()
        error = float(slope @ (batch[0, channel][inner] - expected).ravel() / (slope @ slope))
        # in pixels of the whole picture; up to 7 without what the geometry knows of the excess
        assert abs(error) < 0.1, (axis, error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(960, 1280), (961, 1283), (1604, 1087)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_frame_and_the_place_in_it_are_the_whole_picture_s(mode: str, size: tuple[int, int], orientation: int):
    spec = replace(PLAIN, resize=mode)
    data = jpeg(ramps(*size), orientation, quality=85)
    picture = load(data, reduced_for=spec)
    full, (whole,) = prepare([load(data)], spec)
    reduced, (geometry,) = prepare([picture], spec)
    assert picture.reduced is not None
    assert (geometry.network_size, geometry.offset) == (whole.network_size, whole.offset)
    assert geometry.resized_size == whole.resized_size
    corners = np.array([[0.0, 0.0], size[:: 1 if orientation == 6 else -1]])
    shift = np.abs(geometry.points_to_network(corners) - whole.points_to_network(corners))
    assert shift.max() < 1  # less than a pixel of the network
    # smooth pictures look the same, but for the edge that `pad-square` makes
    assert np.quantile(np.abs(full - reduced), 0.98) < 4


def test_boxes_are_clipped_to_the_picture_not_to_what_was_decoded():
    for origin in ((0, 0), (-5, -7)):
        geometry = plan_reduced(Reduced((961, 1283), 8, (968, 1288), origin), PLAIN)
        assert geometry.boxes_to_image(np.array([[-50.0, -50, 500, 500]]))[0].tolist() == [0, 0, 1283, 961]
    inside = np.array([[100.0, 200, 900, 700]])
    np.testing.assert_allclose(geometry.boxes_to_image(geometry.boxes_to_network(inside)), inside)


@pytest.mark.parametrize("size", [(160, 160), (317, 100), (317, 316), (40, 60)])
def test_pictures_below_the_threshold_are_the_same(size: tuple[int, int]):
    data = jpeg(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8), quality=90)
    picture, whole = load(data, reduced_for=PLAIN), load(data)
    assert picture.reduced is None
    np.testing.assert_array_equal(picture.pixels, whole.pixels)


def test_other_inputs_are_decoded_in_full(tmp_path):
    pixels = ramps(640, 960)
    for suffix in (".png", ".webp", ".bmp", ".tiff"):
        cv2.imwrite(str(tmp_path / f"a{suffix}"), pixels)
        assert load(tmp_path / f"a{suffix}", reduced_for=PLAIN).reduced is None
    others = load_many([pixels, Pillow.fromarray(pixels)], reduced_for=PLAIN)
    assert [picture.pixels.shape for picture in others] == [pixels.shape] * 2
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(pixels))
    with path.open("rb") as file:
        many = load_many([path, str(path), path.read_bytes(), file], reduced_for=PLAIN)
    assert [picture.pixels.shape for picture in many] == [(160, 240, 3)] * 4
    assert [picture.size for picture in many] == [(640, 960)] * 4


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"quality": 30}])
def test_kinds_of_jpeg(options: dict[str, object]):
    picture = load(jpeg(ramps(963, 1285), **options), reduced_for=PLAIN)
    assert picture.pixels.shape == (121, 161, 3)
    grey = Pillow.fromarray(ramps(963, 1285)).convert("L")
    stream = io.BytesIO()
    grey.save(stream, "JPEG", **options)
    assert load(stream.getvalue(), reduced_for=PLAIN).pixels.shape == (121, 161, 3)


def test_a_decoder_that_rounds_otherwise_is_not_trusted(monkeypatch):
    data = jpeg(ramps(961, 1283))
    real = cv2.imdecode

    def rounds_down(content, flags):
        pixels = real(content, flags)
        return pixels[:-1] if flags & ~cv2.IMREAD_IGNORE_ORIENTATION == cv2.IMREAD_REDUCED_COLOR_8 else pixels

    monkeypatch.setattr(cv2, "imdecode", rounds_down)
    picture = load(data, reduced_for=PLAIN)
    assert picture.reduced is None
    assert picture.pixels.shape[:2] == (961, 1283)


@pytest.mark.parametrize("needs", [{"static_crop": (10, 10, 90, 90)}, {"contrast": "contrast-stretching"}])
def test_a_spec_that_needs_every_pixel_refuses_reduced_ones(needs):
    picture = load(jpeg(ramps(961, 1283)), reduced_for=PLAIN)
    with pytest.raises(OptionError, match="reduced_decode does not go with this package"):
        prepare([picture], replace(PLAIN, **needs))


def test_reduced_and_whole_pictures_share_a_batch():
    data = jpeg(ramps(961, 1283))
    pictures = [load(data, reduced_for=PLAIN), load(data), Image(np.zeros((50, 60, 3), np.uint8))]
    batch, geometries = prepare(pictures, PLAIN)
    for i, picture in enumerate(pictures):
        alone, (geometry,) = prepare([picture], PLAIN)
        np.testing.assert_array_equal(batch[i], alone[0])
        assert geometries[i] == geometry
    assert geometries[1] == plan((961, 1283), PLAIN)


def test_on_the_device_as_on_the_host():
    pytest.importorskip("torch")
    from lensmount_vision.device.preparing import DevicePreparer
    from lensmount_vision.images.torch_streams import runtime_for

    data = jpeg(ramps(961, 1283), 3)
    for mode in MODES:
        spec = replace(PLAIN, resize=mode)
        pictures = [load(data, reduced_for=spec), load(data), load(data, reduced_for=spec)]
        expected, geometries = prepare(pictures, spec)
        made, found = DevicePreparer(spec, runtime_for("cpu"), "float32")(pictures)
        assert found == geometries
        np.testing.assert_allclose(made.numpy(), expected, atol=1.01)  # one step of a grey value, as elsewhere


def test_drawing_on_reduced_pixels_says_what_to_do():
    picture = load(jpeg(ramps(961, 1283)), reduced_for=PLAIN)
    result = Detections(
        xyxy=np.zeros((0, 4)), confidence=np.zeros(0), class_id=np.zeros(0), class_names=("a",), image_size=picture.size
    )
    with pytest.raises(InputError, match="draw on its path"):
        draw(picture, result)


def test_a_geometry_of_whole_pictures_is_unchanged():
    exact = plan_reduced(Reduced((960, 1280), 8, (960, 1280)), PLAIN)
    assert isinstance(exact, Geometry)
    assert exact == plan((960, 1280), PLAIN)
