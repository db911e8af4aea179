"""Preparing on the device against the host's transform, on torch's CPU device."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount.errors import ImageError, ImageTooLargeError, InputError, OptionError  # noqa: E402
from lensmount.specs import Preprocess  # noqa: E402
from lensmount_vision.device.kernels import dense, taps  # noqa: E402
from lensmount_vision.device.preparing import DevicePreparer  # noqa: E402
from lensmount_vision.images import on_device as device_pictures  # noqa: E402
from lensmount_vision.images.image import Image  # noqa: E402
from lensmount_vision.images.loading import load_many  # noqa: E402
from lensmount_vision.images.on_device import DeviceImage  # noqa: E402
from lensmount_vision.images.source_keys import image_key  # noqa: E402 - after the skip
from lensmount_vision.images.torch_streams import runtime_for  # noqa: E402
from lensmount_vision.images.transforms import prepare  # noqa: E402

RNG = np.random.default_rng(3)
HOST = runtime_for("cpu")
MODES = ["letterbox", "letterbox-reflect", "stretch", "center-crop", "short-side-crop", "fit", "pad-square", "none"]
KERNELS = ["nearest", "bilinear", "bicubic", "area", "lanczos", "gaussian-bilinear"]
SIZES = [(54, 96), (96, 54), (64, 48), (200, 31), (3, 500), (129, 257), (50, 60), (1, 1)]
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
STEP = 1 / 255  # a grey value after scale, before mean and std


def image(height: int, width: int, color: str = "bgr") -> Image:
    return Image(RNG.integers(0, 256, (height, width, 3), np.uint8), color)


def difference(pictures: list[Image], spec: Preprocess) -> float:
    """The largest difference from the host's transform, in units of the network's input."""
    expected, geometries = prepare(pictures, spec)
    made, found = DevicePreparer(spec, HOST, "float32")(pictures)
    assert found == geometries
    assert made.shape == expected.shape
    return float(np.abs(made.numpy() - expected).max())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mode", MODES)
def test_within_a_grey_step_of_the_host(mode: str, kernel: str):
    for size, antialias, dtype in itertools.product(SIZES, (False, True), ("uint8", "float32")):
        target = None if mode == "none" else (64, 48)
        spec = Preprocess(size=target, resize=mode, interpolation=kernel, antialias=antialias, resample_dtype=dtype)
        # OpenCV's bicubic, area and Lanczos on whole grey values: one step, where a sum near a half is rounded the
        # other way. Its bilinear, Pillow's kernels and the Gaussian are in the same fixed point here as there.
        # Floats: coordinates in float32 instead of float64, measured 0.009 of a grey step.
        exact = dtype == "float32" or kernel in ("nearest", "bilinear", "gaussian-bilinear") or antialias
        steps = 0.05 if exact else 1
        assert difference([image(*size)], spec) <= steps * STEP + 1e-6, (size, antialias, dtype)


def test_most_grey_values_are_equal():
    # Were every value a step off, the test above would not notice.
    for kernel, antialias, share in (
        ("bilinear", False, 0),
        ("bilinear", True, 0),
        ("bicubic", True, 0),
        ("bicubic", False, 0.05),
    ):
        spec = Preprocess(size=(160, 160), resize="stretch", interpolation=kernel, antialias=antialias)
        pictures = [image(270, 480)]
        made = DevicePreparer(spec, HOST, "uint8")(pictures)[0].numpy()
        assert (made != prepare(pictures, spec, dtype="uint8")[0]).mean() <= share


@pytest.mark.parametrize(
    "spec",
    [
        Preprocess(size=(64, 64), **IMAGENET),
        Preprocess(size=(64, 64), mean=(0.5,), std=(0.25,), scale=1 / 128),
        Preprocess(size=(64, 64), color="bgr", scale=1.0),
        Preprocess(size=(64, 64), grayscale=True),
        Preprocess(size=(64, 64), channels=1, padding_value=7),
        Preprocess(size=(64, 64), static_crop=(10, 20, 70, 85)),
        Preprocess(size=(64, 64), position="top-left", rounding="truncate"),
        Preprocess(size=(96, 96), rectangular=True, divisible_by=32),
        Preprocess(size=(64, 64), contrast="adaptive-equalization"),
        Preprocess(size=(64, 64), contrast="contrast-stretching"),
        Preprocess(size=(64, 64), resize="pad-square", padding_value=0, **IMAGENET),
        Preprocess(size=(64, 64), resize="letterbox-reflect"),
    ],
)
@pytest.mark.parametrize("color", ["bgr", "rgb"])
def test_what_else_a_spec_can_say(spec: Preprocess, color: str):
    step = spec.scale / min(spec.std or (1.0,)) + 1e-5
    assert difference([image(70, 111, color)], spec) <= step


def test_reflections_longer_than_the_picture():
    assert difference([image(3, 60)], Preprocess(size=(64, 64), resize="letterbox-reflect")) <= STEP + 1e-6


def test_a_window_of_a_vast_picture_is_all_that_is_computed():
    spec = Preprocess(size=(32, 32), resize="short-side-crop", interpolation="bicubic")
    assert difference([image(1, 3000)], spec) <= STEP + 1e-6
    assert difference([image(1, 3000)], replace(spec, interpolation="nearest")) <= 1e-6


def test_mixed_sizes_colours_and_places_keep_their_rows():
    spec = Preprocess(size=(64, 64), **IMAGENET)
    first, second = image(50, 90), image(50, 90)
    there = DeviceImage(torch.from_numpy(first.pixels.copy()), "bgr")
    pictures = [first, image(90, 50), second, image(50, 90, "rgb"), there, first]
    expected, _ = prepare(pictures, spec)
    made = DevicePreparer(spec, HOST, "float32")(pictures)[0].numpy()
    assert np.abs(made - expected).max() <= STEP / 0.224 + 1e-5
    np.testing.assert_array_equal(made[0], made[4])
    np.testing.assert_array_equal(made[0], made[5])


def test_many_pictures_are_resized_in_parts(monkeypatch):
    monkeypatch.setattr("lensmount_vision.device.preparing._AT_ONCE", 3 * 50 * 90 * 2)
    assert difference([image(50, 90) for _ in range(5)], Preprocess(size=(64, 64))) <= STEP + 1e-6


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", STEP + 1e-3), ("uint8", 1)])
def test_dtypes_and_layout(dtype: str, tolerance: float):
    spec, pictures = Preprocess(size=(64, 64)), [image(50, 90), image(50, 90)]
    made, _ = DevicePreparer(spec, HOST, dtype, channels_last=True)(pictures)
    assert str(made.dtype) == f"torch.{dtype}"
    assert made.is_contiguous(memory_format=torch.channels_last)
    expected = prepare(pictures, spec, dtype=dtype)[0].astype(np.float64)
    assert np.abs(made.numpy().astype(np.float64) - expected).max() <= tolerance


def test_float_pixels_become_whole_ones_for_uint8_graphs():
    spec, pictures = Preprocess(size=(64, 64), resample_dtype="float32"), [image(50, 90)]
    made = DevicePreparer(spec, HOST, "uint8")(pictures)[0].numpy().astype(int)
    assert np.abs(made - prepare(pictures, spec, dtype="uint8")[0]).max() <= 1


def test_the_same_things_are_refused_as_on_the_host(monkeypatch):
    with pytest.raises(InputError, match="no images"):
        DevicePreparer(Preprocess(), HOST, "float32")([])
    with pytest.raises(InputError, match="different network sizes"):
        DevicePreparer(Preprocess(size=None, resize="none"), HOST, "float32")([image(8, 9), image(9, 8)])
    with pytest.raises(OptionError, match="std"):
        DevicePreparer(Preprocess(std=(0.0,)), HOST, "float32")
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", "1000")
    with pytest.raises(ImageTooLargeError):
        DevicePreparer(Preprocess(size=(8, 8), resize="pad-square"), HOST, "float32")([image(2, 40)])


def test_pixels_that_nobody_may_write_are_read_without_a_warning():
    picture = image(20, 30)
    pixels = picture.pixels.view()
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert difference([Image(pixels), Image(picture.pixels[::-1])], Preprocess(size=(16, 16))) <= STEP + 1e-6


# --- kernels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "code"),
    [
        ("nearest", cv2.INTER_NEAREST),
        ("bilinear", cv2.INTER_LINEAR),
        ("bicubic", cv2.INTER_CUBIC),
        ("area", cv2.INTER_AREA),
        ("lanczos", cv2.INTER_LANCZOS4),
    ],
)
@pytest.mark.parametrize("new", [(30, 41), (27, 48), (108, 200), (20, 200), (200, 13), (18, 32), (1, 1)])
def test_weights_are_those_of_opencv(kernel: str, code: int, new: tuple[int, int]):
    pixels = RNG.integers(0, 256, (54, 96)).astype(np.float32)
    enlarges = new[0] > 54 or new[1] > 96
    across = dense(*taps(96, new[1], (0, new[1]), kernel, antialias=False, enlarges=enlarges), 96)
    down = dense(*taps(54, new[0], (0, new[0]), kernel, antialias=False, enlarges=enlarges), 54)
    expected = cv2.resize(pixels, new[::-1], interpolation=code)
    np.testing.assert_allclose(down.T @ pixels @ across, expected, atol=0.01)


def test_bilinear_of_whole_grey_values_is_opencvs_bit_for_bit():
    spec = Preprocess(size=(1, 1), resize="stretch")
    for _ in range(40):
        height, width, *size = (int(side) for side in RNG.integers(1, 260, 4))
        picture = image(height, width)
        asked = replace(spec, size=tuple(size), color="bgr")
        made = DevicePreparer(asked, HOST, "uint8")([picture])[0].numpy()[0].transpose(1, 2, 0)
        np.testing.assert_array_equal(made, cv2.resize(picture.pixels, tuple(size[::-1])))


# --- pictures that are there already ----------------------------------------------------------------------------------


class Foreign:
    """An array of a library that torch knows through DLPack only, said to be on a device."""

    def __init__(self, tensor, kind: int = 2):
        self.tensor, self.kind, self.ndim, self.shape = tensor, kind, tensor.ndim, tensor.shape

    def __dlpack_device__(self):
        return self.kind, 0

    def __dlpack__(self, **options):
        if self.kind == 99:
            raise BufferError("no such device")
        return self.tensor.__dlpack__()

    def __iter__(self):
        return (Foreign(part, self.kind) for part in self.tensor)


@pytest.fixture
def exchanged(monkeypatch):
    """Lets torch take the stand-ins: their memory is the host's, whatever device they name."""
    monkeypatch.setattr(device_pictures, "_exchange", lambda source: source.tensor)


def test_a_picture_on_the_device_stays_there():
    pixels = RNG.integers(0, 256, (40, 60, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    picture = device_pictures.from_tensor(tensor, "rgb")
    assert picture.size == (40, 60)
    DevicePreparer(Preprocess(size=(32, 32)), HOST, "float32")([picture])
    assert picture._host is None  # nobody asked for its pixels
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert not picture.pixels.flags.writeable
    np.testing.assert_array_equal(picture.array("bgr"), pixels[..., ::-1])
    assert image_key(picture) == image_key(Image(pixels, "rgb", "elsewhere.png"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_floating_tensors_grey_and_alpha(dtype):
    levels = torch.arange(256, dtype=torch.float32).view(1, 16, 16) / 255
    grey = device_pictures.from_tensor(levels.to(dtype), "rgb")
    assert grey.tensor.dtype == torch.uint8
    assert (grey.pixels[..., 2].astype(int).ravel() == np.arange(256)).all()
    alpha = device_pictures.from_tensor(torch.zeros(4, 5, 6, dtype=torch.uint8), "rgb")
    assert alpha.pixels.shape == (5, 6, 3)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (torch.zeros(2, 5, 5), "wrong shape"),
        (torch.zeros(1, 3, 5, 5), "a batch"),
        (torch.zeros(3, 5, 5, dtype=torch.int32), "wrong dtype"),
        (torch.full((3, 5, 5), 2.0), r"not in 0\.\.1"),
        (torch.full((3, 5, 5), float("nan")), r"not in 0\.\.1"),
        (torch.zeros(3, 0, 5), "no pixels"),
    ],
)
def test_tensors_that_are_no_pictures(tensor, message: str):
    with pytest.raises(ImageError, match=message):
        device_pictures.from_tensor(tensor, "rgb")


def test_arrays_of_other_libraries(exchanged):
    pixels = torch.from_numpy(RNG.integers(0, 256, (2, 10, 12, 3), np.uint8))
    loaded = load_many(Foreign(pixels))
    assert [type(picture) for picture in loaded] == [DeviceImage, DeviceImage]
    assert loaded[0].color == "bgr"  # as numpy's arrays
    np.testing.assert_array_equal(loaded[1].pixels, pixels[1].numpy())
    (single,) = load_many(Foreign(pixels[0]), color="rgb")
    assert (single.size, single.color) == ((10, 12), "rgb")
    with pytest.raises(ImageError, match="no picture"):
        load_many([Foreign(pixels[0].float())])


def test_arrays_that_torch_cannot_take():
    with pytest.raises(ImageError, match="DLPack"):
        load_many([Foreign(torch.zeros(4, 4, 3, dtype=torch.uint8), kind=99)])


@pytest.mark.parametrize("channels", [2, 4, 5, 9])
@pytest.mark.parametrize("resize", ["stretch", "letterbox", "letterbox-reflect", "pad-square", "short-side-crop"])
def test_pictures_of_many_channels(channels, resize):
    rng = np.random.default_rng(channels)
    spec = Preprocess(
        size=(32, 32), resize=resize, channels=channels, padding_value=7,
        mean=tuple(0.1 * i for i in range(channels)), std=tuple(0.5 + i for i in range(channels)),
    )  # fmt: skip
    pictures = load_many(rng.integers(0, 255, (2, 37, 53, channels), np.uint8), channels=channels)
    made, _ = DevicePreparer(spec, HOST, "float32")(pictures)
    expected, _ = prepare(pictures, spec)
    np.testing.assert_allclose(made.numpy(), expected, atol=1e-6)
    with pytest.raises(OptionError, match="channels of the pictures"):
        DevicePreparer(replace(spec, channels=3, mean=None, std=None), HOST, "float32")(pictures)
