"""What a model promises of the pictures that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lensmount.errors import ImageError, InputError
from lensmount_testing.comparing import require_same
from lensmount_testing.model_base import ModelBase
from lensmount_testing.pictures import Picture, encode_png, sample

_NO_PICTURES: dict[str, Any] = {
    "not a number": np.full((20, 30, 3), np.nan, np.float32),
    "floats": np.zeros((20, 30, 3), np.float32),
    "16 bits": np.zeros((20, 30, 3), np.uint16),
    "two channels": np.zeros((20, 30, 2), np.uint8),
    "no pixels": np.zeros((0, 30, 3), np.uint8),
    "channels first": np.zeros((3, 20, 30), np.uint8),
    "noise": b"this is no picture at all",
    "missing file": "there-is-no-such-picture.png",
    "none": None,
    "number": 7,
    "dict": {"image": 1},
}


class ModelInputs(ModelBase):
    """Tests of what goes in."""

    def test_one_result_for_each_picture(self, model: Any, picture: Picture) -> None:
        """A list always: one result for one picture, two for two, in their order, from any iterable."""
        other = picture[:, ::-1].copy()
        one = self.call(model, picture)
        assert isinstance(one, list) and len(one) == 1, "one picture gives something else than a list of one result"
        for several in ([picture, other], (picture, other), (item for item in (picture, other))):
            found = self.call(model, several, picture, other)
            assert isinstance(found, list) and len(found) == 2, "two pictures do not give a list of two results"
            require_same(found[:1], one, self.tolerance, "the first of two pictures and the same alone")

    def test_no_pictures_no_results(self, model: Any, picture: Picture) -> None:
        """An empty list gives an empty list."""
        found = self.call(model, [], picture)
        assert found == [] and isinstance(found, list), f"no pictures give {found!r}"

    def test_path_bytes_and_array_agree(self, model: Any, picture: Picture, tmp_path: Path) -> None:
        """The same picture gives the same as a path, as text or `Path`, as bytes and as an array."""
        path = tmp_path / "picture.png"
        path.write_bytes(encode_png(picture))
        wanted = self.results(model, picture)
        for what, image in (("a Path", path), ("a text", str(path)), ("bytes", path.read_bytes())):
            found = self.results(model, image, picture)
            require_same(found, wanted, self.tolerance, f"{what} and the array of the same picture")

    def test_channel_order(self, model: Any, picture: Picture) -> None:
        """Arrays are BGR; `color="rgb"` says otherwise, and gives the same for the same picture."""
        wanted = self.results(model, picture)
        rgb = np.ascontiguousarray(picture[..., ::-1])
        require_same(self.results(model, rgb, color="rgb"), wanted, self.tolerance, "RGB and BGR")
        require_same(self.results(model, picture, color="bgr"), wanted, self.tolerance, "BGR said and unsaid")

    def test_grey_and_alpha(self, model: Any, picture: Picture) -> None:
        """Grey pictures count as three equal channels, and alpha is dropped."""
        grey = picture[..., 1].copy()
        wanted = self.results(model, np.repeat(grey[..., None], 3, axis=2))
        for what, image in (("(H, W)", grey), ("(H, W, 1)", grey[..., None])):
            require_same(self.results(model, image), wanted, self.tolerance, f"grey of shape {what} and three channels")
        alpha = np.full((*grey.shape, 1), 77, np.uint8)
        image = np.concatenate([picture, alpha], axis=2)
        require_same(self.results(model, image), self.results(model, picture), self.tolerance, "with and without alpha")

    def test_smallest_picture(self, model: Any) -> None:
        """Pictures of one pixel, one row and one column are pictures."""
        for height, width in ((1, 1), (1, 50), (50, 1)):
            image = sample(height, width)
            found = self.results(model, image)
            assert len(found) == 1, f"a picture of {height}x{width} gives {len(found)} results"

    def test_batches_equal_single_pictures(self, model: Any, picture: Picture) -> None:
        """Pictures of different sizes in one call give what each gives alone."""
        height, width = picture.shape[:2]
        pictures = [picture, sample(70, 110), picture[: max(height // 2, 1), : max(width * 2 // 3, 1)].copy(), sample()]
        options = self.options(model, *pictures)
        together = model(pictures, **options)
        alone = [model(item, **options)[0] for item in pictures]
        require_same(together, alone, self.tolerance, "pictures together and alone")

    @pytest.mark.parametrize("kind", _NO_PICTURES)
    def test_refuses_what_is_no_picture(self, model: Any, kind: str) -> None:
        """What cannot be used as a picture is an `ImageError`, never a guess, and never a raw traceback."""
        with pytest.raises((ImageError, InputError)):
            model(_NO_PICTURES[kind], **self.options(model, sample()))

    def test_leaves_pictures_alone(self, model: Any, picture: Picture) -> None:
        """The caller's arrays are not written to, and may be read-only."""
        before = picture.copy()
        self.results(model, picture)
        assert np.array_equal(picture, before), "the caller's picture was changed"
        frozen = before.copy()
        frozen.flags.writeable = False
        self.results(model, frozen)
