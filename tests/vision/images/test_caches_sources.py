"""Keys of undecoded pictures: the same for the same, others for anything that differs."""

from __future__ import annotations

import os

import numpy as np
import pytest

from lensmount.errors import ImageError, InputError
from lensmount_vision.images.loading import load
from lensmount_vision.images.source_keys import array_digest, content_key, source_key


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)


def test_any_changed_byte_shows(image):
    before = array_digest(image)
    flat = image.reshape(-1)
    for position in np.random.default_rng(1).integers(0, flat.size, 200).tolist() + list(range(16)) + [flat.size - 1]:
        for bit in (1, 128):
            flat[position] ^= bit
            assert array_digest(image) != before
            flat[position] ^= bit
    assert array_digest(image) == before


def test_high_bytes_do_not_cancel(image):
    """The top bits of two words' highest bytes cancel in one sum of products modulo 2**64, but not in three."""
    before, flat = array_digest(image), image.reshape(-1)
    for first, second in ((7, 15), (7, 4096 * 8 + 7), (15, 23), (2, 10), (5, 13)):
        flat[first] ^= 128
        flat[second] ^= 128
        assert array_digest(image) != before
        flat[first] ^= 128
        flat[second] ^= 128


def test_shape_dtype_colour_and_layout(image):
    keys = {
        source_key(image),
        source_key(image.reshape(300, 200, 3)),
        source_key(image.view(np.int8)),
        source_key(image, "rgb"),
        source_key(image[..., ::-1]),
        source_key(image[:, ::-1]),
    }
    assert len(keys) == 6
    assert source_key(np.asfortranarray(image)) == source_key(image) == source_key(image.copy())
    assert source_key(load(image)) == source_key(load(image.copy()))


@pytest.mark.parametrize("size", [0, 1, 8, 65535, 65536, 65537, 32768 * 8, 32768 * 8 + 5])
def test_sizes_at_the_edges(size):
    data = np.random.default_rng(0).integers(0, 255, size).astype(np.uint8)
    assert array_digest(data) == array_digest(data.copy())
    if size:
        other = data.copy()
        other[-1] ^= 1
        assert array_digest(other) != array_digest(data)


def test_files(tmp_path):
    one, two = tmp_path / "one.jpg", tmp_path / "two.jpg"
    one.write_bytes(b"abc")
    two.write_bytes(b"abc")
    assert source_key(one) == source_key(str(one)) == source_key(one.as_uri()) != source_key(two)
    assert content_key(one) == content_key(two) == content_key(b"abc") != content_key(b"abd")
    before = source_key(one)
    one.write_bytes(b"abd")
    os.utime(one, ns=(1, 1))
    assert source_key(one) != before
    with pytest.raises(ImageError, match="does not exist"):
        source_key(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="cannot be read"):
        content_key(tmp_path / "none.jpg")


def test_addresses_are_not_opened(no_sockets):
    assert source_key("https://example.com/a.jpg") != source_key("https://example.com/b.jpg")
    assert source_key("data:;base64,AAAA") != source_key("data:;base64,AAAB")


def test_pil_and_tensors():
    pil = pytest.importorskip("PIL.Image")
    image = np.zeros((300, 200, 3), np.uint8)
    assert source_key(pil.fromarray(image)) == source_key(pil.fromarray(image.copy()))
    assert source_key(pil.fromarray(image)) != source_key(pil.fromarray(image.reshape(200, 300, 3)))
    assert source_key(pil.fromarray(image)) != source_key(pil.fromarray(image).convert("L"))
    torch = pytest.importorskip("torch")
    assert source_key(torch.zeros(3, 4, 5)) != source_key(torch.zeros(3, 5, 4))


def test_what_is_no_picture():
    with pytest.raises(InputError):
        source_key(object())


def test_content_keys_last(image):
    """The same in another process: nothing random is in it."""
    import subprocess
    import sys

    code = (
        "import numpy as np; from lensmount_vision.images.source_keys import content_key; "
        "print(content_key(np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == content_key(image)
