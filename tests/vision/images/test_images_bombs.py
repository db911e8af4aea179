"""Small files that ask for much: sizes of TIFFs in every form that a tag can have, JPEGs of many scans."""

from __future__ import annotations

import io
import itertools
import struct

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from lensmount.errors import ImageError, ImageTooLargeError
from lensmount_vision.images import decoding
from lensmount_vision.images.headers import count_scans, read_header
from lensmount_vision.images.loading import load

# What an integer or number may be written as: the field's type, `struct` codes of one value.
TYPES = {
    "BYTE": (1, "B"), "SHORT": (3, "H"), "LONG": (4, "I"), "RATIONAL": (5, "II"), "SBYTE": (6, "b"),
    "SSHORT": (8, "h"), "SLONG": (9, "i"), "SRATIONAL": (10, "ii"), "FLOAT": (11, "f"), "DOUBLE": (12, "d"),
    "IFD": (13, "I"), "LONG8": (16, "Q"), "SLONG8": (17, "q"), "IFD8": (18, "Q"),
}  # fmt: skip
SIDES = {"B": 250, "b": 120, "H": 60_000, "h": 30_000}
FORMS = list(itertools.product(TYPES, ("<", ">"), (False, True)))


def tiff(pages: list[dict[int, tuple[str, list[float]]]], order: str = "<", big: bool = False) -> bytes:
    """A TIFF of directories whose tags are given by name of the type and values."""
    pointer, counter = (order + "Q", order + "Q") if big else (order + "I", order + "H")
    room = struct.calcsize(pointer)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head += struct.pack(order + "HH", 8, 0) if big else b""
    data = bytearray(head + bytes(room))
    link = len(head)
    for page in pages:
        extra: list[tuple[int, bytes]] = []
        struct.pack_into(pointer, data, link, len(data))
        data += struct.pack(counter, len(page))
        for tag, (kind, values) in sorted(page.items()):
            number, code = TYPES[kind]
            made = [(value, 1) if len(code) == 2 else (value,) for value in values]
            body = b"".join(struct.pack(order + code, *(v if "f" in code or "d" in code else int(v) for v in one))
                            for one in made)  # fmt: skip
            data += struct.pack(order + "HH", tag, number) + struct.pack(pointer, len(values))
            if len(body) > room:
                extra.append((len(data), body))
            data += body.ljust(room, b"\0") if len(body) <= room else bytes(room)
        link = len(data)
        data += bytes(room)
        for place, body in extra:
            struct.pack_into(pointer, data, place, len(data))
            data += body
    return bytes(data)


def plain(width: float, height: float, kind: str = "LONG") -> dict[int, tuple[str, list[float]]]:
    return {256: (kind, [width]), 257: (kind, [height]), 258: ("SHORT", [8]), 259: ("SHORT", [1]),
            262: ("SHORT", [1]), 273: ("LONG", [8]), 277: ("SHORT", [1]), 279: ("LONG", [4])}  # fmt: skip


@pytest.fixture
def no_decoder(monkeypatch):
    def decode(*_args):
        raise AssertionError("a decoder was asked")

    monkeypatch.setattr(decoding, "_decode_cv2", decode)
    monkeypatch.setattr(decoding, "_decode_pillow", decode)


@pytest.mark.parametrize(("kind", "order", "big"), FORMS)
def test_a_size_counts_whatever_its_type(kind, order, big, no_decoder, monkeypatch):
    side = SIDES.get(TYPES[kind][1], 100_000)
    data = tiff([plain(side, side, kind)], order, big)
    assert read_header(data).size == (side, side)
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", str(side * side - 1))
    with pytest.raises(ImageTooLargeError):
        load(data)


@pytest.mark.parametrize(("kind", "order", "big"), FORMS)
def test_the_largest_of_several_values_counts(kind, order, big, no_decoder, monkeypatch):
    side = SIDES.get(TYPES[kind][1], 100_000)
    data = tiff([{**plain(1, 1), 256: (kind, [1, side]), 257: (kind, [1, 1, side])}], order, big)
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", str(side * side - 1))
    with pytest.raises(ImageTooLargeError):
        load(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", ["SBYTE", "SSHORT", "SLONG", "SLONG8", "SRATIONAL", "FLOAT", "DOUBLE"])
def test_negative_sizes_are_refused(kind, order, big, no_decoder):
    with pytest.raises(ImageError, match="size"):
        load(tiff([plain(-100, 100, kind)], order, big))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_sizes_that_are_no_numbers_are_refused(value, no_decoder):
    with pytest.raises(ImageError):
        load(tiff([plain(value, value, "DOUBLE")]))


def test_a_size_that_is_not_said_is_refused(no_decoder):
    page = plain(10, 10)
    del page[257]
    with pytest.raises(ImageError, match="gives no size"):
        load(tiff([page]))


@pytest.mark.parametrize("kind", ["SHORT", "LONG", "LONG8", "SLONG"])
def test_tiles_count_too(kind, no_decoder):
    side = 30_000
    with pytest.raises(ImageTooLargeError, match="tile"):
        load(tiff([{**plain(64, 64), 322: (kind, [side]), 323: (kind, [side])}]))


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "tiff_lzw", "packbits"])
def test_real_tiffs_still_load(compression):
    pixels = np.arange(40 * 30 * 3, dtype=np.uint8).reshape(40, 30, 3)
    stream = io.BytesIO()
    Pillow.fromarray(pixels).save(stream, "TIFF", compression=compression)
    np.testing.assert_array_equal(load(stream.getvalue()).pixels[..., ::-1], pixels)


# --- JPEGs of many scans ----------------------------------------------------------------------------------------------


def progressive(height: int, width: int) -> bytes:
    shade = np.add.outer(np.arange(height), np.arange(width)) % 256
    done, data = cv2.imencode(".jpg", shade.astype(np.uint8), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert done
    return data.tobytes()


def repeated(data: bytes, times: int) -> bytes:
    """The file with its last scan (a refinement) so many times more."""
    start, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[start:end] * times + data[end:]


def test_many_scans_are_refused_before_decoding(no_decoder):
    data = repeated(progressive(600, 800), 5000)
    with pytest.raises(ImageTooLargeError, match="scans"):
        load(data)


def test_the_larger_the_picture_the_fewer_scans(no_decoder, monkeypatch):
    data = repeated(progressive(600, 800), 60)  # of 70
    monkeypatch.setenv("LENSMOUNT_MAX_PIXELS", str(600 * 800))
    with pytest.raises(ImageTooLargeError, match="more than 24 scans"):
        load(data)


def test_a_few_more_scans_than_usual_load():
    data = repeated(progressive(60, 80), 100)
    assert load(data).size == (60, 80)


def test_scans_are_counted_to_the_end_of_the_picture():
    """What looks like a scan in a segment, in bytes after the end or in a stuffed byte is none."""
    data = progressive(60, 80)
    scans = count_scans(data, 100)
    assert scans == data.count(b"\xff\xda")
    fake = b"\xff\xda" * 500
    comment = b"\xff\xfe" + struct.pack(">H", len(fake) + 2) + fake
    assert count_scans(data[:2] + comment + data[2:] + fake, 50) == scans
    assert load(data[:2] + comment + data[2:] + fake).size == (60, 80)


@pytest.mark.parametrize("fill", [1, 3])
def test_fill_bytes_and_restarts_hide_no_scan(fill):
    data = progressive(60, 80).replace(b"\xff\xda", b"\xff" * fill + b"\xff\xd3" + b"\xff" * fill + b"\xff\xda")
    assert count_scans(repeated(data, 300), 200) == 201
