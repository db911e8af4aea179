"""`prepare`: modes, colours, layouts, dtypes, contrast, and the references' own input tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from lensmount.errors import ImageTooLargeError, InputError, OptionError
from lensmount.specs import Preprocess
from lensmount_vision.images.contrast import adjust_contrast
from lensmount_vision.images.image import Image
from lensmount_vision.images.loading import load
from lensmount_vision.images.transforms import prepare

RNG = np.random.default_rng(0)
WIDE = RNG.integers(0, 256, (54, 96, 3), np.uint8)
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}
PLAIN = Preprocess(size=(64, 64))
EVERY_MODE = ["letterbox", "letterbox-reflect", "stretch", "center-crop", "short-side-crop", "fit", "pad-square"]


# --- against the references -------------------------------------------------------------------------------------------


def golden(folder: Path, name: str) -> np.lib.npyio.NpzFile:
    return np.load(folder / "goldens" / f"{name}.npz")


def test_letterbox_equals_ultralytics_bit_for_bit(reference_data: Path):
    image = load(reference_data / "goldens" / "img" / "truck.jpg")
    expected = golden(reference_data, "yolov8n")["x_uint8"]
    x, _ = prepare([image], Preprocess(), dtype="uint8")
    np.testing.assert_array_equal(x, expected)
    x, _ = prepare([image], Preprocess())
    np.testing.assert_array_equal(x, expected.astype(np.float32) / 255)


def test_stretch_equals_rfdetr(reference_data: Path):
    image = load(reference_data / "goldens" / "img" / "dogs.jpg")
    spec = Preprocess(size=(384, 384), resize="stretch", resample_dtype="float32", **IMAGENET)
    x, _ = prepare([image], spec)
    # torch normalises before it resizes; float32 rounding is all that is left, measured 3.4e-5.
    np.testing.assert_allclose(x[..., ::7, ::7], golden(reference_data, "rf-detr-nano")["x_strided"], atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [("clip-tiny-ViT", 64), ("clip-tiny-RN", 96)])
def test_short_side_crop_equals_clip(reference_data: Path, name: str, size: int):
    image = load(reference_data / "goldens" / "img" / "dogs.jpg")
    spec = Preprocess(size=(size, size), resize="short-side-crop", interpolation="bicubic", antialias=True, **CLIP)
    # Grey values are equal; normalising them is torch's float arithmetic there, which may fuse two roundings into one.
    np.testing.assert_allclose(prepare([image], spec)[0], golden(reference_data, name)["x"], rtol=0, atol=1e-6)


def test_squash_equals_perception_encoder(reference_data: Path):
    image = load(reference_data / "goldens" / "img" / "dogs.jpg")
    spec = Preprocess(size=(64, 64), resize="stretch", antialias=True, mean=(0.5,) * 3, std=(0.5,) * 3)
    # Grey values are equal; normalising them is torch's float arithmetic there, which may fuse two roundings into one.
    expected = golden(reference_data, "PE-Core-tiny")["x"]
    np.testing.assert_allclose(prepare([image], spec)[0], expected, rtol=0, atol=1e-6)


# --- values -----------------------------------------------------------------------------------------------------------


def test_division_by_255_is_exact():
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    x, _ = prepare([Image(ramp)], Preprocess(size=None, resize="none"))
    np.testing.assert_array_equal(x[0, 0], ramp[..., 0].astype(np.float32) / 255)


def test_normalisation_equals_torch_bit_for_bit():
    torch = pytest.importorskip("torch")
    x, _ = prepare([Image(WIDE, "rgb")], Preprocess(size=None, resize="none", **IMAGENET))
    tensor = torch.from_numpy(WIDE).permute(2, 0, 1).float().div(255)
    mean, std = (torch.tensor(IMAGENET[name]).view(3, 1, 1) for name in ("mean", "std"))
    np.testing.assert_array_equal(x[0], ((tensor - mean) / std).numpy())


@pytest.mark.parametrize("resize", ["letterbox", "letterbox-reflect", "stretch", "center-crop", "fit", "pad-square"])
@pytest.mark.parametrize("resample_dtype", ["uint8", "float32"])
def test_layouts_and_dtypes_agree(resize: str, resample_dtype: str):
    spec = Preprocess(size=(64, 80), resize=resize, resample_dtype=resample_dtype, **IMAGENET)
    x, (geometry,) = prepare([load(WIDE)], spec)
    assert x.dtype == np.float32
    assert x.shape == (1, 3, *geometry.network_size)
    nhwc, _ = prepare([load(WIDE)], spec, layout="nhwc")
    np.testing.assert_array_equal(nhwc, x.transpose(0, 2, 3, 1))
    for layout in ("nchw", "nhwc"):
        half, _ = prepare([load(WIDE)], spec, dtype="float16", layout=layout)
        expected = x if layout == "nchw" else nhwc
        np.testing.assert_array_equal(half, expected.astype(np.float16))
        raw, _ = prepare([load(WIDE)], spec, dtype="uint8", layout=layout)
        channels_last = raw if layout == "nhwc" else raw.transpose(0, 2, 3, 1)
        values = (channels_last.astype(np.float32) / 255 - IMAGENET["mean"]) / IMAGENET["std"]
        tolerance = 1e-5 if resample_dtype == "uint8" else 0.5 / 255 / 0.22  # half a grey value, normalised
        np.testing.assert_allclose(values, nhwc, atol=tolerance)


def test_colour_rule():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[..., 0] = 255  # blue as BGR, red as RGB
    for color, wanted, channel in (("bgr", "rgb", 2), ("bgr", "bgr", 0), ("rgb", "rgb", 0), ("rgb", "bgr", 2)):
        x, _ = prepare([load(pixels, color=color)], Preprocess(size=(8, 8), color=wanted))
        assert x[0, channel].min() == 1
        assert x.sum() == 64


def test_padding_has_its_value_normalised():
    x, (geometry,) = prepare([load(WIDE)], dataclasses.replace(PLAIN, **IMAGENET))
    top = int(geometry.offset[1])
    expected = (np.float32(114) / 255 - np.float32(IMAGENET["mean"])) / np.float32(IMAGENET["std"])
    assert top > 0
    np.testing.assert_allclose(x[0, :, :top], np.broadcast_to(expected[:, None, None], (3, top, 64)), rtol=1e-6)
    np.testing.assert_allclose(x[0, :, -top:], np.broadcast_to(expected[:, None, None], (3, top, 64)), rtol=1e-6)


def test_reflected_padding():
    x, (geometry,) = prepare([load(WIDE)], dataclasses.replace(PLAIN, resize="letterbox-reflect"), dtype="uint8")
    top = int(geometry.offset[1])
    np.testing.assert_array_equal(x[0, :, top - 5 : top], x[0, :, top + 1 : top + 6][:, ::-1])


def test_center_crop_cuts_and_pads():
    spec = Preprocess(size=(64, 64), resize="center-crop", padding_value=7, color="bgr")
    x, _ = prepare([load(WIDE)], spec, dtype="uint8", layout="nhwc")
    np.testing.assert_array_equal(x[0, 5:59], WIDE[:, 16:80])
    assert (x[0, :5] == 7).all()
    assert (x[0, 59:] == 7).all()


def test_pad_square_pads_before_it_scales():
    spec = Preprocess(size=(32, 32), resize="pad-square", padding_value=0, antialias=True, color="bgr")
    square = np.zeros((96, 96, 3), np.uint8)
    square[:54] = WIDE
    expected = np.asarray(Pillow.fromarray(square).resize((32, 32), Pillow.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepare([load(WIDE)], spec, dtype="uint8", layout="nhwc")[0][0], expected)


def test_divisible_by_pads_right_and_bottom():
    spec = Preprocess(size=None, resize="none", divisible_by=32, padding_value=0, color="bgr")
    x, _ = prepare([load(WIDE)], spec, dtype="uint8", layout="nhwc")
    assert x.shape == (1, 64, 96, 3)
    np.testing.assert_array_equal(x[0, :54], WIDE)
    assert not x[0, 54:].any()


def test_grey():
    grey = cv2.cvtColor(WIDE, cv2.COLOR_BGR2GRAY)
    spec = Preprocess(size=None, resize="none", grayscale=True)
    np.testing.assert_array_equal(prepare([load(WIDE)], spec, dtype="uint8")[0][0], np.stack([grey] * 3))
    one = dataclasses.replace(spec, channels=1, grayscale=False, mean=(0.5,), std=(0.5,))
    for color in ("bgr", "rgb"):
        image = load(WIDE if color == "bgr" else WIDE[..., ::-1], color=color)
        x, _ = prepare([image], one)
        assert x.shape == (1, 1, 54, 96)
        np.testing.assert_allclose(x[0, 0], grey / 127.5 - 1, atol=1e-6)


def test_static_crop_comes_first():
    spec = Preprocess(size=None, resize="none", static_crop=(25, 50, 75, 100), color="bgr")
    x, (geometry,) = prepare([load(WIDE)], spec, dtype="uint8", layout="nhwc")
    np.testing.assert_array_equal(x[0], WIDE[27:54, 24:72])
    assert geometry.crop_origin == (24, 27)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1), (2, 3)])
@pytest.mark.parametrize("resize", EVERY_MODE)
@pytest.mark.parametrize("antialias", [False, True])
def test_extreme_sizes(size: tuple[int, int], resize: str, antialias: bool):
    image = load(np.full((*size, 3), 200, np.uint8))
    spec = Preprocess(size=(224, 224), resize=resize, antialias=antialias, padding_value=200)
    if resize == "pad-square" and max(size) > 10000:  # 1.2 GB of padding
        with pytest.raises(ImageTooLargeError, match="square around"):
            prepare([image], spec)
        return
    x, _ = prepare([image], spec)
    np.testing.assert_allclose(x, 200 / 255, atol=1e-6)


def test_batch_equals_singles_and_input_is_unchanged():
    before = WIDE.copy()
    images = [load(WIDE), load(WIDE.transpose(1, 0, 2)), load(WIDE[:9, :9])]
    x, geometries = prepare(images, PLAIN)
    assert len(geometries) == 3
    for row, image in zip(x, images, strict=True):
        np.testing.assert_array_equal(row, prepare([image], PLAIN)[0][0])
    np.testing.assert_array_equal(WIDE, before)


def test_out_is_written_whole():
    out = np.full((1, 3, 64, 64), np.nan, np.float32)
    x, _ = prepare([load(WIDE)], PLAIN, out=out)
    assert x is out
    np.testing.assert_array_equal(out, prepare([load(WIDE)], PLAIN)[0])
    strided = np.empty((1, 64, 64, 3), np.float32).transpose(0, 3, 1, 2)
    for bad in (np.empty((1, 3, 64, 65), np.float32), np.empty((1, 3, 64, 64)), strided):
        with pytest.raises(InputError, match="does not fit"):
            prepare([load(WIDE)], PLAIN, out=bad)


def test_what_is_refused():
    with pytest.raises(InputError, match="no images"):
        prepare([], PLAIN)
    with pytest.raises(InputError, match="different network sizes"):
        prepare([load(WIDE), load(WIDE[:9])], Preprocess(resize="none", size=None))
    for spec in (dataclasses.replace(PLAIN, channels=2), dataclasses.replace(PLAIN, mean=(1.0, 2.0)),
                 dataclasses.replace(PLAIN, std=(0.0,) * 3), dataclasses.replace(PLAIN, channels=0),
                 dataclasses.replace(PLAIN, channels=5)):  # fmt: skip
        with pytest.raises(OptionError):
            prepare([load(WIDE)], spec)
    with pytest.raises(OptionError):
        prepare([load(WIDE)], PLAIN, dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(OptionError):
        prepare([load(WIDE)], PLAIN, layout="chw")  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [2, 4, 5, 9])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "letterbox-reflect", "pad-square", "short-side-crop"])
@pytest.mark.parametrize("antialias", [False, True])
def test_every_channel_is_prepared_as_if_it_were_alone(channels: int, resize: str, antialias: bool):
    """The network's plane of a channel is that of a grey picture of the same values; nothing is swapped."""
    rng = np.random.default_rng(channels)
    pixels = rng.integers(0, 255, (37, 53, channels), np.uint8)
    scale = {"mean": tuple(0.1 * i for i in range(channels)), "std": tuple(0.5 + i for i in range(channels))}
    spec = Preprocess(size=(32, 32), resize=resize, antialias=antialias, channels=channels, padding_value=7, **scale)
    batch, (geometry,) = prepare([load(pixels, channels=channels)], spec)
    assert batch.shape == (1, channels, 32, 32)
    for i in range(channels):
        alone = dataclasses.replace(spec, channels=3, mean=scale["mean"][i : i + 1], std=scale["std"][i : i + 1])
        expected, (same,) = prepare([load(pixels[..., i])], alone)
        np.testing.assert_allclose(batch[0, i], expected[0, 0], atol=1e-6)
        assert same == geometry
    for more in ({"grayscale": True}, {"contrast": "contrast-stretching"}):
        with pytest.raises(OptionError, match="as they are"):
            prepare([load(pixels, channels=channels)], dataclasses.replace(spec, **more))
    with pytest.raises(OptionError, match="channels of the pictures"):
        prepare([load(pixels, channels=channels)], dataclasses.replace(PLAIN, channels=3))


# --- contrast ---------------------------------------------------------------------------------------------------------


def test_contrast_stretching_is_percentiles_over_everything():
    pixels = (WIDE // 3 + 60).astype(np.uint8)
    low, high = np.percentile(pixels, (2, 98))
    expected = ((np.clip(pixels.astype(float), low, high) - low) / (high - low) * 255).astype(np.uint8)
    np.testing.assert_array_equal(adjust_contrast(pixels, "bgr", "contrast-stretching"), expected)
    flat = np.full((5, 5, 3), 90, np.uint8)
    np.testing.assert_array_equal(adjust_contrast(flat, "bgr", "contrast-stretching"), flat)


@pytest.mark.parametrize("kind", ["histogram-equalization", "adaptive-equalization"])
def test_equalisations_are_grey_and_blind_to_channel_order(kind: str):
    result = adjust_contrast(WIDE, "bgr", kind)
    assert result.shape == WIDE.shape
    assert (result[..., 0] == result[..., 2]).all()
    np.testing.assert_array_equal(adjust_contrast(np.ascontiguousarray(WIDE[..., ::-1]), "rgb", kind), result)
    assert not np.array_equal(result[..., 0], cv2.cvtColor(WIDE, cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize("kind", ["histogram-equalization", "adaptive-equalization", "contrast-stretching"])
def test_contrast_within_prepare(kind: str):
    spec = Preprocess(size=None, resize="none", contrast=kind, static_crop=(0, 0, 50, 50), color="bgr")
    x, _ = prepare([load(WIDE)], spec, dtype="uint8", layout="nhwc")
    np.testing.assert_array_equal(x[0], adjust_contrast(np.ascontiguousarray(WIDE[:27, :48]), "bgr", kind))
