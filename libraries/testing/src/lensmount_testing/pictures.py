"""Pictures for tests: always the same, of different channels and without symmetry, so that a mix-up shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


def sample(height: int = 120, width: int = 160) -> Picture:
    """A coloured gradient with a disc, a box and a stripe.

    Returns:
        uint8 `(height, width, 3)` BGR, a new array each time.
    """
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    y, x = rows / max(height - 1, 1), columns / max(width - 1, 1)
    picture = np.stack([40 + 120 * x, 60 + 90 * y, 200 - 100 * x * y], axis=2)
    picture[(x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.03] = (30, 40, 230)
    picture[(abs(x - 0.72) < 0.13) & (abs(y - 0.35) < 0.2)] = (235, 190, 20)
    picture[abs(y - 0.9 + 0.2 * x) < 0.03] = (10, 250, 120)
    result: Picture = picture.round().astype(np.uint8)
    return result


def encode_png(picture: Picture) -> bytes:
    """The picture as a PNG file, which loses nothing."""
    from lensmount_vision.images.decoding import import_cv2

    good, data = import_cv2().imencode(".png", picture)
    assert good
    encoded: bytes = data.tobytes()
    return encoded
