"""Pictures as inference servers take them: `{"type": …, "value": …}`, wherever a picture is taken."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lensmount.errors import ImageError
from lensmount_vision.images import load, load_many
from lensmount_vision.images.decoding import import_cv2
from lensmount_vision.images.requests import from_request
from lensmount_vision.images.source_keys import content_key, source_key


@pytest.fixture
def png(tmp_path):
    """A PNG's path and pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    path = tmp_path / "a.png"
    import_cv2().imwrite(str(path), pixels)
    return path, pixels


def test_each_type_is_the_picture(png):
    path, pixels = png
    text = base64.b64encode(path.read_bytes()).decode()
    for source in (
        {"type": "file", "value": str(path)},
        {"type": "file", "value": path},
        {"type": "base64", "value": text},
        {"type": "base64", "value": text.encode()},
        {"type": "base64", "value": f"data:image/png;base64,{text}"},
        {"value": text, "type": "base64"},
    ):
        assert np.array_equal(load(source).pixels, pixels)
        assert len(load_many(source)) == 1
    assert load({"type": "file", "value": str(path)}).path == str(path)
    assert len(load_many([{"type": "file", "value": str(path)}, path])) == 2
    assert from_request({"type": "url", "value": "https://example.com/a.png"}) == "https://example.com/a.png"


def test_keys_are_those_of_what_is_meant(png):
    path, _ = png
    for key in (source_key, content_key):
        assert key({"type": "file", "value": str(path)}) == key(str(path))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"type": "numpy", "value": b"\x80\x04"}, "pickle"),
        ({"type": "numpy_object", "value": b"\x80\x04"}, "pickle"),
        ({"type": "url", "value": "file:///etc/passwd"}, "not valid"),
        ({"type": "url", "value": "/etc/passwd"}, "not valid"),
        ({"type": "file", "value": "https://example.com/a.png"}, "not valid"),
        ({"type": "file", "value": 3}, "not valid"),
        ({"type": "base64", "value": None}, "not valid"),
        ({"type": "base64", "value": "no base64!"}, "data URI"),
        ({"type": "url"}, "not known"),
        ({"type": "jpeg", "value": "a"}, "not known"),
        ({"type": "file", "value": "a", "more": 1}, "not known"),
        ({}, "not known"),
    ],
)
def test_what_is_wrong_with_one_is_said(source, says):
    with pytest.raises(ImageError, match=says):
        load(source)
    with pytest.raises(ImageError, match=says):
        load_many(source)
