"""Encoded images: every format and every kind of damage, with Pillow as the independent reference."""

from __future__ import annotations

import base64
import builtins
import contextlib
import io
import struct
import sys
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from lensmount.errors import ImageError, ImageTooLargeError, MissingDependencyError, OptionError
from lensmount_vision.images.decoding import import_cv2
from lensmount_vision.images.headers import read_header
from lensmount_vision.images.loading import load


def scene(height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth RGB picture without symmetry."""
    y, x = np.mgrid[:height, :width]
    bands = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), 128 + 100 * np.sin(x / 9) * np.cos(y / 7)]
    return np.stack(bands, axis=2).clip(0, 255).astype(np.uint8)


def encode(array_or_image, fmt: str, **options) -> bytes:
    image = array_or_image if isinstance(array_or_image, Pillow.Image) else Pillow.fromarray(array_or_image)
    stream = io.BytesIO()
    image.save(stream, fmt, **options)
    return stream.getvalue()


def pillow_rgb(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Pillow.open(io.BytesIO(data))).convert("RGB"))


def rgb(data) -> np.ndarray:
    image = load(data)
    assert image.color == "bgr"
    return image.pixels[..., ::-1]


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA"])
def test_png_modes_equal_pillow(mode: str):
    data = encode(Pillow.fromarray(scene()).convert(mode), "PNG")
    np.testing.assert_array_equal(rgb(data), pillow_rgb(data))


def test_alpha_is_dropped_not_composited():
    pixels = np.dstack([scene(), np.zeros((96, 128), np.uint8)])  # wholly transparent
    np.testing.assert_array_equal(rgb(encode(pixels, "PNG")), scene())


LOSSLESS = {"lossless": True}
FORMATS = [("JPEG", {"quality": 92}), ("JPEG", {"progressive": True}), ("BMP", {}), ("WEBP", LOSSLESS), ("TIFF", {})]


@pytest.mark.parametrize(("fmt", "options"), [*FORMATS, ("PPM", {}), ("GIF", {})])
def test_formats_equal_pillow(fmt: str, options: dict):
    data = encode(scene(), fmt, **options)
    # Two builds of libjpeg-turbo may differ in the inverse transform's last bit.
    np.testing.assert_allclose(rgb(data).astype(int), pillow_rgb(data), atol=1 if fmt == "JPEG" else 0)


def test_cmyk_jpeg_has_its_colours():
    data = encode(Pillow.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data  # stored inverted
    np.testing.assert_allclose(rgb(data).astype(int), pillow_rgb(data), atol=2)  # OpenCV and Pillow round differently


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_png_keeps_the_high_byte(channels: int):
    values = np.arange(64 * 48 * channels, dtype=np.uint16).reshape(48, 64, channels) * 7
    data = cv2.imencode(".png", values)[1].tobytes()
    expected = np.broadcast_to(values >> 8, (48, 64, 3))
    np.testing.assert_array_equal(load(data).pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(fmt: str, orientation: int):
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {274: orientation}} if fmt == "TIFF" else {"exif": exif}
    data = encode(scene(), fmt, **options, **({"lossless": True} if fmt == "WEBP" else {}))
    expected = pillow_rgb(data)
    assert expected.shape[:2] == ((96, 128) if orientation < 5 else (128, 96))
    np.testing.assert_allclose(rgb(data).astype(int), expected, atol=1)


def test_mpo_gives_its_first_picture():
    data = encode(scene(), "MPO", save_all=True, append_images=[Pillow.fromarray(scene()[::-1])])
    np.testing.assert_allclose(rgb(data).astype(int), pillow_rgb(data), atol=1)


@pytest.mark.filterwarnings("ignore::lensmount_vision.images.counting.FirstPictureNotice")
@pytest.mark.parametrize("fmt", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(fmt: str):
    frames = [Pillow.fromarray(scene() // divisor) for divisor in (1, 2, 3)]
    if fmt == "GIF":
        frames = [frame.convert("P") for frame in frames]
    options = {"lossless": True} if fmt == "WEBP" else {}
    data = encode(frames[0], fmt, save_all=True, append_images=frames[1:], duration=50, **options)
    np.testing.assert_array_equal(rgb(data), pillow_rgb(data))


@pytest.mark.parametrize("kind", ["AVIF", "GIF", "WEBP", "PNG", "JPEG", "TIFF", "BMP"])
def test_damaged_pictures_are_image_errors_or_pictures(kind):
    """Every decoder, at every place of the damage: nothing but an `ImageError` comes out."""
    try:
        whole = encode(scene(), kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        start = int(rng.integers(8, len(data)))
        data[start : start + 16] = rng.bytes(16)[: len(data) - start]
        with contextlib.suppress(ImageError):
            load(bytes(data))


@pytest.mark.parametrize("error", [RuntimeError, KeyError, IndexError, EOFError, AssertionError, struct.error])
def test_whatever_a_decoder_raises_is_an_image_error(monkeypatch, error):
    def damaged(*_given, **_settings):
        raise error("damaged")

    data = encode(scene(), "GIF")
    monkeypatch.setattr(cv2, "imdecode", lambda *_given: None)
    monkeypatch.setattr(Pillow, "open", damaged)
    with pytest.raises(ImageError, match="corrupt"):
        load(data)


def test_avif_when_pillow_reads_it():
    try:
        data = encode(scene(), "AVIF")
    except (KeyError, OSError):
        pytest.skip("this Pillow has no AVIF")
    np.testing.assert_array_equal(rgb(data), pillow_rgb(data))


def test_format_that_opencv_lacks(monkeypatch):
    data = encode(Pillow.fromarray(scene()).convert("P"), "GIF")
    monkeypatch.setattr("lensmount_vision.images.decoding._decode_cv2", lambda *_: None)
    np.testing.assert_array_equal(rgb(data), pillow_rgb(data))
    monkeypatch.setitem(sys.modules, "PIL", None)  # as if not installed
    with pytest.raises(MissingDependencyError, match="does not read") as caught:
        load(data)
    assert caught.value.fix == "pip install pillow"


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_extreme_but_fine_sizes(size: tuple[int, int]):
    assert load(encode(scene(*size), "PNG")).size == size


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg(fraction: float, progressive: bool, tmp_path):
    data = encode(np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8), "JPEG", progressive=progressive)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(ImageError, match="truncated") as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_jpeg_with_bytes_after_its_end_is_whole():
    np.testing.assert_array_equal(load(encode(scene(), "JPEG") + b"trailing" * 9).pixels.shape, (96, 128, 3))


def test_jpeg_with_thumbnail_is_judged_by_its_own_end():
    # A thumbnail's end marker inside EXIF must not pass for the picture's own.
    data = encode(scene(), "JPEG")
    segment = b"Exif\0\0" + b"\0" * 8 + encode(scene(16, 16), "JPEG")
    with_thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:]
    assert load(with_thumbnail).size == (96, 128)
    with pytest.raises(ImageError, match="truncated"):
        load(with_thumbnail[: len(with_thumbnail) - len(data) // 2])


@pytest.mark.parametrize("fmt", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_truncated_others(fmt: str, keep: float):
    data = encode(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), fmt)
    with pytest.raises(ImageError):
        load(data[: max(30, int(len(data) * keep))])


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", "empty"), (b"hello, I am a text file\n" * 9, "not an image"), (b"\xff\xd8\xff", "truncated"),
     (b"\x89PNG\r\n\x1a\n", "truncated"), (b"BM" + b"\0" * 40, "corrupt"), (b"GIF89a", "truncated")],
)  # fmt: skip
def test_no_images(data: bytes, text: str):
    with pytest.raises(ImageError, match=text):
        load(data)


def test_any_damage_is_a_typed_error_or_a_picture():
    rng = np.random.default_rng(1)
    for fmt in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
        whole = encode(scene(40, 50), fmt)
        for _ in range(60):
            data = bytearray(whole)
            for position in rng.integers(0, min(len(data), 200), 4):
                data[position] = rng.integers(0, 256)
            try:
                image = load(bytes(data), max_pixels=1_000_000)
            except ImageError:
                continue
            assert image.pixels.dtype == np.uint8
            assert image.pixels.ndim == 3


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_absurd_header_is_refused_before_decoding(monkeypatch):
    def never(*_):
        raise AssertionError("was decoded")

    monkeypatch.setattr("lensmount_vision.images.decoding._decode_cv2", never)
    with pytest.raises(ImageTooLargeError, match="larger than the limit") as caught:
        load(png_header(30000, 30000))
    assert "30000x30000" in str(caught.value)
    assert "LENSMOUNT_MAX_PIXELS" in str(caught.value)


def test_limit_is_settable(monkeypatch):
    data = encode(scene(), "PNG")
    with pytest.raises(ImageTooLargeError):
        load(data, max_pixels=96 * 128 - 1)
    assert load(data, max_pixels=96 * 128).size == (96, 128)
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", "100")
    with pytest.raises(ImageTooLargeError):
        load(data)
    assert load(data, max_pixels=10**6).size == (96, 128)
    for value in ("many", "0", "-5"):
        monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", value)
        with pytest.raises(OptionError):
            load(data)
    with pytest.raises(OptionError):
        load(data, max_pixels=True)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_header_tells_the_size(fmt: str):
    header = read_header(encode(scene(37, 91), fmt))
    assert header is not None
    assert header.size == (37, 91)
    assert header.complete


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_webp_kinds(options: dict):
    assert read_header(encode(scene(37, 91), "WEBP", **options)).size == (37, 91)


def test_top_down_bmp():
    data = bytearray(encode(scene(37, 91), "BMP"))
    data[22:26] = struct.pack("<i", -37)
    assert read_header(bytes(data)).size == (37, 91)
    np.testing.assert_array_equal(rgb(bytes(data)), scene(37, 91)[::-1])


# --- ways to hand over bytes ------------------------------------------------------------------------------------------


def test_every_container_of_bytes(tmp_path):
    data = encode(scene(), "PNG")
    path = tmp_path / "é 图.png"
    path.write_bytes(data)
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    with path.open("rb") as file:
        for source in (
            data,
            bytearray(data),
            memoryview(data),
            path,
            str(path),
            path.as_uri(),
            uri,
            file,
            io.BytesIO(data),
        ):
            np.testing.assert_array_equal(rgb(source), scene())
    assert load(path).path == str(path)


@pytest.mark.parametrize(
    "uri", ["data:image/png;base64,@@@", "data:image/png;base64", "data:,", "data:image/png;base64,QUJD"]
)
def test_bad_data_uri(uri: str):
    with pytest.raises(ImageError):
        load(uri)


def test_bad_paths(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        load(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load(tmp_path)
    for text in ("", "a\0b", "x" * 5000, "s3://bucket/a.jpg", "rtsp://camera/1"):
        with pytest.raises(ImageError):
            load(text)
    text_file = tmp_path / "a.jpg"
    text_file.write_text("not a picture")
    with pytest.raises(ImageError, match="not an image"):
        load(text_file)
    with text_file.open() as file, pytest.raises(ImageError, match="open as text"):
        load(file)


def test_missing_libgl_is_explained(monkeypatch):
    real = builtins.__import__

    def fail(name, *args, **kwargs):
        if name == "cv2":
            raise ImportError(reason)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.setattr(builtins, "__import__", fail)
    reason = "libGL.so.1: cannot open shared object file: No such file or directory"
    with pytest.raises(MissingDependencyError, match="desktop build") as caught:
        import_cv2()
    assert "opencv-python-headless" in (caught.value.fix or "")
    reason = "No module named 'cv2'"
    with pytest.raises(MissingDependencyError, match="cannot be imported"):
        import_cv2()


@pytest.mark.parametrize("filler", [b"\x0b", b" ", b"#", b"#\n", b" #\n", b"\n"])
def test_a_header_of_separators_takes_no_time(filler):
    """The time to look at a header grows with its length, not with the ways to read it."""
    started = time.perf_counter()
    for head in (b"P4 ", b"P6 1 ", b"P5#"):
        assert read_header(head + filler * 100_000 + b"\x9f") is None
    assert time.perf_counter() - started < 2


def test_an_offset_beyond_all_memory():
    """A BigTIFF whose directory lies at 2**64 - 1."""
    with pytest.raises(ImageError):
        load(b"II+\0" + b"\xff" * 60)
