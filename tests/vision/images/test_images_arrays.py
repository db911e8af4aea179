"""Arrays, tensors and PIL images: one colour rule, and a refusal with the fix for whatever is ambiguous."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from lensmount.errors import ImageError, ImageTooLargeError, OptionError
from lensmount_vision.images.image import Image
from lensmount_vision.images.loading import load, load_many

RNG = np.random.default_rng(0)
ARRAY = RNG.integers(0, 256, (24, 32, 3), np.uint8)


def test_array_is_bgr_unless_said_and_is_not_copied():
    image = load(ARRAY)
    assert (image.color, image.size, image.height, image.width, image.path) == ("bgr", (24, 32), 24, 32, None)
    assert np.shares_memory(image.pixels, ARRAY)
    assert not image.pixels.flags.writeable
    assert ARRAY.flags.writeable
    assert load(ARRAY, color="rgb").color == "rgb"
    assert load(image) is image


def test_array_copy_in_either_order():
    image = load(ARRAY)
    np.testing.assert_array_equal(image.array("bgr"), ARRAY)
    np.testing.assert_array_equal(image.array("rgb"), ARRAY[..., ::-1])
    copy = image.array()
    copy[:] = 0
    assert ARRAY.any()


@pytest.mark.parametrize("color", ["BGR", "grey", 1])
def test_bad_color(color):
    with pytest.raises(OptionError, match="color"):
        load(ARRAY, color=color)


def test_grey_and_alpha_arrays():
    grey = ARRAY[..., 0]
    for source in (grey, grey[..., None]):
        np.testing.assert_array_equal(load(source).pixels, np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(load(np.dstack([ARRAY, grey])).pixels, ARRAY)


def test_strided_arrays_are_taken_as_they_look():
    for view in (ARRAY[::-1], ARRAY[:, ::2], ARRAY[..., ::-1], ARRAY.transpose(1, 0, 2), np.asfortranarray(ARRAY)):
        np.testing.assert_array_equal(load(view).pixels, view)


def test_read_only_array_is_fine():
    array = ARRAY.copy()
    array.flags.writeable = False
    np.testing.assert_array_equal(load(array).pixels, array)


@pytest.mark.parametrize(
    ("array", "fix"),
    [(ARRAY / 255, "* 255"), (ARRAY.astype(np.float32), "round"), ((ARRAY / 255).astype(np.float16), "* 255"),
     (ARRAY > 9, "* 255"), (ARRAY.astype(np.uint16) * 257, ">> 8"), (ARRAY.astype(np.int64), "astype"),
     (np.full((4, 4, 3), np.nan), "find where"), (np.full((4, 4, 3), np.inf, np.float32), "find where"),
     (ARRAY.astype(complex), "astype"), (ARRAY.astype(object), "astype"), (np.array(["a.jpg"]), "astype")],
)  # fmt: skip
def test_wrong_dtype_says_how_to_convert(array: np.ndarray, fix: str):
    with pytest.raises(ImageError) as caught:
        load(array)
    assert fix in (caught.value.fix or "")


def test_the_fix_for_unit_floats_gives_the_picture_back():
    array = ARRAY / 255
    with pytest.raises(ImageError) as caught:
        load(array)
    np.testing.assert_array_equal(eval(caught.value.fix, {"np": np, "array": array}), ARRAY)


def test_nan_is_named():
    with pytest.raises(ImageError, match="no numbers"):
        load(np.full((4, 4, 3), np.nan))


@pytest.mark.parametrize("shape", [(), (5,), (4, 4, 2), (4, 4, 5), (0, 4, 3), (4, 0, 3), (1, 2, 3, 4, 3)])
def test_wrong_shapes(shape: tuple[int, ...]):
    with pytest.raises(ImageError):
        load(np.zeros(shape, np.uint8))


def test_planar_array_says_how_to_transpose():
    with pytest.raises(ImageError) as caught:
        load(ARRAY.transpose(2, 0, 1))
    assert "transpose(1, 2, 0)" in (caught.value.fix or "")
    with pytest.raises(ImageError, match="batch"):
        load(ARRAY[None])


@pytest.mark.parametrize("thing", [None, 3, 2.5, {"a": 1}, object(), {1, 2}])
def test_no_images_at_all(thing):
    for function in (load, load_many):
        with pytest.raises(ImageError, match="no image"):
            function(thing)


# --- batches ----------------------------------------------------------------------------------------------------------


def test_load_many_always_gives_a_list():
    assert [image.size for image in load_many(ARRAY)] == [(24, 32)]
    assert len(load_many([ARRAY, ARRAY[..., 0]])) == 2
    assert len(load_many(iter((ARRAY, ARRAY)))) == 2
    assert load_many([]) == []
    assert load_many(()) == []
    batch = np.stack([ARRAY, ARRAY[::-1]])
    for image, expected in zip(load_many(batch, color="rgb"), batch, strict=True):
        np.testing.assert_array_equal(image.pixels, expected)
        assert image.color == "rgb"
    assert load_many(np.zeros((0, 4, 4, 3), np.uint8)) == []
    image = Image(ARRAY)
    assert load_many(image) == [image]


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_tensors():
    torch = pytest.importorskip("torch")
    planar = torch.from_numpy(ARRAY.transpose(2, 0, 1).copy())
    image = load(planar)
    assert image.color == "rgb"
    np.testing.assert_array_equal(image.pixels, ARRAY)
    assert load(planar, color="bgr").color == "bgr"
    # Floats in 0..1 come back as the very bytes they were made from, in each precision that can hold them.
    for dtype in (torch.float32, torch.float64, torch.float16):
        np.testing.assert_array_equal(load(planar.to(dtype) / 255).pixels, ARRAY)
    np.testing.assert_allclose(load(planar.to(torch.bfloat16) / 255).pixels.astype(int), ARRAY, atol=1)
    np.testing.assert_array_equal(load((planar.float() / 255).requires_grad_()).pixels, ARRAY)
    assert load(planar[0]).size == load(planar[:1]).size == (24, 32)
    np.testing.assert_array_equal(load(torch.cat([planar, planar[:1]])).pixels, ARRAY)
    images = load_many(torch.stack([planar, planar.flip(1)]))
    np.testing.assert_array_equal(images[1].pixels, ARRAY[::-1])
    assert len(load_many([planar, ARRAY])) == 2


def test_tensors_that_are_refused():
    torch = pytest.importorskip("torch")
    planar = torch.from_numpy(ARRAY.transpose(2, 0, 1).copy())
    bad = [
        (planar.float(), "0..1"),
        (planar.float() / 127.5 - 1, "0..1"),
        (torch.full((3, 4, 4), float("nan")), "0..1"),
        (planar.long(), "dtype"),
        (torch.from_numpy(ARRAY), "shape"),
        (planar[None], "batch"),
        (torch.zeros(3, 0, 4), "no pixels"),
    ]
    for tensor, text in bad:
        with pytest.raises(ImageError, match=text):
            load(tensor)
    with pytest.raises(ImageError) as caught:
        load(torch.from_numpy(ARRAY))
    assert "permute(2, 0, 1)" in (caught.value.fix or "")


# --- PIL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_pil_modes(mode: str):
    source = Pillow.fromarray(ARRAY).convert(mode)
    image = load(source)
    assert image.color == "rgb"
    np.testing.assert_array_equal(image.pixels, np.asarray(source.convert("RGB")))


def test_pil_16_bit_and_unknown_ranges():
    values = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80
    np.testing.assert_array_equal(load(Pillow.fromarray(values)).pixels[..., 0], values >> 8)
    for mode in ("I", "F"):
        with pytest.raises(ImageError, match="mode"):
            load(Pillow.new(mode, (4, 4)))


def test_pil_limits_and_damage(tmp_path):
    path = tmp_path / "a.jpg"
    Pillow.fromarray(ARRAY).resize((400, 300)).save(path)
    with pytest.raises(ImageTooLargeError), Pillow.open(path) as image:
        load(image, max_pixels=1000)
    with Pillow.open(path) as image:
        assert load(image).path == str(path)
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(ImageError, match="cannot be read"), Pillow.open(path) as image:
        load(image)


def test_neither_torch_nor_pillow_is_imported():
    code = (
        "import sys, numpy as np; from lensmount_vision.images import load_many, prepare;"
        "from lensmount.specs import Preprocess; prepare(load_many([np.zeros((9, 9, 3), np.uint8)]), Preprocess());"
        "print([m for m in ('torch', 'PIL', 'onnxruntime', 'pydantic') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
