"""Files of several pictures: one alone with a notice, or all of them, the same pictures that Pillow reads."""

from __future__ import annotations

import builtins
import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps, features

from lensmount.errors import ImageError, ImageTooLargeError
from lensmount_vision.images import counting
from lensmount_vision.images.counting import FirstPictureNotice, holds_several
from lensmount_vision.images.loading import load
from lensmount_vision.images.pages import pictures, several_in
from lensmount_vision.images.tiff import directories, of_bytes
from lensmount_vision.models.entries import items_of

FORMATS = ["GIF", "PNG", "WEBP", "TIFF"] + (["AVIF"] if features.check("avif") else [])
SUFFIXES = {"GIF": ".gif", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "AVIF": ".avif"}


@pytest.fixture(autouse=True)
def not_told(monkeypatch):
    monkeypatch.setattr(counting, "_told", set())


def noise(number: int, height: int = 40, width: int = 60) -> Pillow.Image:
    return Pillow.fromarray(np.random.default_rng(number).integers(0, 255, (height, width, 3), dtype=np.uint8))


def saved(form: str, count: int, **options) -> bytes:
    frames = [noise(number) for number in range(count)]
    if form == "GIF":
        frames = [frame.quantize(64) for frame in frames]
    more = {"lossless": True} if form == "WEBP" else {}
    several = {"save_all": True, "append_images": frames[1:]} if count > 1 else {}
    stream = io.BytesIO()
    frames[0].save(stream, form, **several, **more, **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> list[np.ndarray]:
    found = []
    with Pillow.open(io.BytesIO(data)) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    return found


@pytest.mark.filterwarnings("ignore::lensmount_vision.images.counting.FirstPictureNotice")
@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("form", FORMATS)
def test_all_pictures_are_those_that_pillow_reads(form, count, tmp_path):
    data = saved(form, count, **({} if form == "TIFF" else {"duration": 250}))
    path = tmp_path / f"it{SUFFIXES[form]}"
    path.write_bytes(data)
    expected = by_pillow(data)
    assert len(expected) == count
    for source in (str(path), path, data, path.as_uri()):
        assert several_in(source)
        frames = list(pictures(source))
        assert [frame.number for frame in frames] == list(range(count))
        for frame, wanted in zip(frames, expected, strict=True):
            np.testing.assert_array_equal(frame.image.pixels[..., ::-1], wanted)
            assert not frame.image.pixels.flags.writeable
        np.testing.assert_array_equal(frames[0].image.pixels, load(source).pixels)
    step = 1.0 if form == "TIFF" else 0.25
    assert [frame.seconds for frame in frames] == pytest.approx([step * i for i in range(count)])


@pytest.mark.parametrize("form", FORMATS)
def test_one_picture_is_no_animation(form):
    data = saved(form, 1)
    assert not several_in(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(data)


@pytest.mark.parametrize("form", FORMATS)
def test_one_notice_for_each_format(form, tmp_path):
    path = tmp_path / f"it{SUFFIXES[form]}"
    path.write_bytes(saved(form, 3))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            load(path)
    (notice,) = seen
    assert notice.category is FirstPictureNotice
    assert path.name in str(notice.message)
    assert "model.stream" in str(notice.message)


@pytest.mark.parametrize("form", FORMATS)
def test_a_stream_takes_all_and_says_nothing(form, tmp_path):
    path = tmp_path / f"it{SUFFIXES[form]}"
    path.write_bytes(saved(form, 4))
    single = tmp_path / "one.png"
    single.write_bytes(saved("PNG", 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        items = list(items_of([str(path), str(single), path.read_bytes()], None, None, None, 3))
        shapes = [item.load().pixels.shape for item in items]
    assert [item.frame for item in items] == [0, 1, 2, 3, None, 0, 1, 2, 3]
    assert shapes == [(40, 60, 3)] * 9
    assert [item.source for item in items[:5]] == [str(path)] * 4 + [str(single)]
    assert len(list(items_of([str(path)], None, 2, None, 3))) == 2


@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_any_size_each_held_to_the_limit(order, monkeypatch):
    frames = [noise(0, 20, 30), noise(1, 90, 10), noise(2, 200, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "TIFF", save_all=True, append_images=frames[1:])
    data = stream.getvalue()
    assert [frame.image.pixels.shape[:2] for frame in pictures(data)] == [(20, 30), (90, 10), (200, 200)]
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", str(90 * 10))
    running = pictures(data)
    assert next(running).image.size == (20, 30)
    assert next(running).image.size == (90, 10)
    with pytest.raises(ImageTooLargeError, match="page 2"):
        next(running)


def test_smaller_copies_and_masks_are_no_pages():
    frames = [noise(0, 20, 30), noise(1, 10, 15)]
    stream = io.BytesIO()
    frames[1].encoderinfo = {"tiffinfo": {254: 1}}
    frames[0].save(stream, "TIFF", save_all=True, append_images=[frames[1]])
    data = bytearray(stream.getvalue())
    if b"\xfe\x00\x04\x00\x01\x00\x00\x00\x01\x00\x00\x00" not in data:
        pytest.fail("Pillow wrote no NewSubfileType")
    assert not holds_several(io.BytesIO(bytes(data)))
    assert len(list(pictures(bytes(data)))) == 1


def test_a_chain_of_directories_that_bites_its_tail_ends():
    data = bytearray(saved("TIFF", 2))
    offsets = [d.offset for d in directories(of_bytes(bytes(data)))]
    (count,) = struct.unpack_from("<H", data, offsets[1])
    struct.pack_into("<I", data, offsets[1] + 2 + 12 * count, offsets[0])
    assert len(list(pictures(bytes(data)))) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_damage_anywhere_is_a_typed_error_or_fewer_pictures(form):
    data = saved(form, 4)
    random = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 6):
            broken[place] = random.integers(0, 256)
        cut = bytes(broken[: random.integers(1, len(data) + 1)])
        several_in(cut)
        try:
            assert len(list(pictures(cut))) <= 70_000
        except ImageError:
            continue


def test_without_pillow_the_first_comes_and_the_rest_is_named(monkeypatch, tmp_path):
    data = saved("PNG", 3)
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    running = pictures(data)
    assert next(running).number == 0
    with pytest.raises(ImageError, match="pip install pillow"):
        next(running)
