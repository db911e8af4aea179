"""Clips of moving shapes with the truth about each: `python -m lensmount_shapes.moving FOLDER [--frames 300]`.

Shapes go straight on, turn, pass in front of one another, and turn back somewhat outside the picture, so that they
leave and come back. The folder gets what the MOTChallenge has: `img1/000001.png` and so on, and `gt/gt.txt`, for
`lensmount eval --task tracking`. A clip is a function of its arguments alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from lensmount_shapes.scenes import (
    CLASSES,
    F32,
    HELD_OUT_MOVING_SEED,
    U8,
    drawn_shape,
    empty_ground,
    painted,
    seen_by_camera,
    tight_boxes,
)

#: A shape of which less than this share is visible is missing from the truth of that frame.
VISIBLE = 0.5
#: Frames that a shape stays outside the picture before it comes back.
OUTSIDE = 60


@dataclass(frozen=True)
class MovingFrame:
    """One frame and its truth.

    Attributes:
        image: `(H, W, 3)` uint8, BGR.
        track_id: `(N,)` int64, from 1. A shape that was covered keeps its number; one that left the picture and comes
            back has a new one, as in the MOTChallenge.
        class_id: `(N,)` int64, positions in `lensmount_shapes.scenes.CLASSES`.
        xyxy: `(N, 4)` float32, tight around the visible pixels.
        masks: `(N, H, W)` bool, the visible pixels.
    """

    image: U8
    track_id: npt.NDArray[np.int64]
    class_id: npt.NDArray[np.int64]
    xyxy: F32
    masks: npt.NDArray[np.bool_]


@dataclass
class _Mover:
    class_id: int
    cover: F32
    colours: F32
    at: npt.NDArray[np.float64]
    speed: npt.NDArray[np.float64]
    angle: float
    turn: float
    number: int = 0
    waits: int = 0


def moving_shapes(
    seed: int, frames: int, count: int = 15, width: int = 512, height: int = 512, speed: float = 3.0
) -> Iterator[MovingFrame]:
    """Makes a clip.

    Args:
        seed: Names the clip.
        frames: How many frames.
        count: How many shapes; the later ones pass in front of the earlier ones.
        width: Width in pixels.
        height: Height in pixels.
        speed: The fastest a shape goes, in pixels for each frame; the slowest goes a third of that.

    Yields:
        Its frames.
    """
    rng = np.random.default_rng((seed, 0x6D6F7665))
    ground = empty_ground(rng, width, height)
    movers = [_mover(rng, ground, index, speed) for index in range(count)]
    noise = np.random.default_rng((seed, 1))
    numbers = 0
    for _ in range(frames):
        canvas = ground.copy()
        owner = np.full((height, width), -1, np.int64)
        whole = np.zeros(count, np.int64)
        for index, mover in enumerate(movers):
            whole[index] = _lay(mover, canvas, owner, index)
        masks, kept = [], []
        for index, mover in enumerate(movers):
            _move(mover, width, height)
            mask = owner == index
            visible = np.count_nonzero(mask)
            if not whole[index]:
                mover.number = 0  # out of the picture
            elif visible >= VISIBLE * np.count_nonzero(mover.cover >= 0.5):
                if not mover.number:
                    numbers += 1
                    mover.number = numbers
                masks.append(mask)
                kept.append(mover)
        stacked = np.stack(masks) if masks else np.zeros((0, height, width), np.bool_)
        yield MovingFrame(
            seen_by_camera(noise, canvas),
            np.array([mover.number for mover in kept], np.int64),
            np.array([mover.class_id for mover in kept], np.int64),
            tight_boxes(stacked),
            stacked,
        )


def _mover(rng: np.random.Generator, ground: F32, index: int, speed: float) -> _Mover:
    height, width = ground.shape[:2]
    class_id = index % len(CLASSES)
    radius = float(min(width, height) * rng.uniform(0.055, 0.075))
    cover = drawn_shape(rng, class_id, radius)
    heading, pace = rng.uniform(0, 2 * np.pi), rng.uniform(speed / 3, speed)
    return _Mover(
        class_id,
        cover,
        painted(rng, ground, cover),
        rng.uniform(0.1, 0.9, 2) * (width, height),
        np.array([np.cos(heading), np.sin(heading)]) * pace,
        rng.uniform(0, 360),
        rng.uniform(-2, 2),
    )


def _lay(mover: _Mover, canvas: F32, owner: npt.NDArray[np.int64], index: int) -> int:
    """Lays a shape over the canvas, in place; how many of its pixels lie in the picture."""
    height, width = canvas.shape[:2]
    side = mover.cover.shape[0]
    reach = int(np.ceil(side * 0.75))
    left, top = np.floor(mover.at).astype(int) - reach
    size = 2 * reach + 1
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), mover.angle, 1.0)
    matrix[:, 2] += mover.at - (left, top) - (side - 1) / 2
    cover = cv2.warpAffine(mover.cover, matrix, (size, size))
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    if x2 <= x1 or y2 <= y1:
        return 0
    part = (slice(y1 - top, y2 - top), slice(x1 - left, x2 - left))
    colours = cv2.warpAffine(mover.colours, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)[part]
    view = canvas[y1:y2, x1:x2]
    view += (colours - view) * cover[part][..., None]
    mask = cover[part] >= 0.5
    owner[y1:y2, x1:x2][mask] = index
    return int(np.count_nonzero(mask))


def _move(mover: _Mover, width: int, height: int) -> None:
    """One frame on; a shape that is out of the picture stays there for `OUTSIDE` frames, and turns back."""
    if mover.waits:
        mover.waits -= 1
        return
    margin = 0.6 * mover.cover.shape[0]
    for axis, size in enumerate((width, height)):
        if not -margin < mover.at[axis] < size + margin:
            inward = 1.0 if mover.at[axis] < 0 else -1.0
            if mover.speed[axis] * inward < 0:
                mover.speed[axis] *= -1
                mover.waits = OUTSIDE
                return
    mover.at = mover.at + mover.speed
    mover.angle += mover.turn


def write(folder: Path, frames: int = 300, count: int = 15, size: int = 512, seed: int = HELD_OUT_MOVING_SEED) -> Path:
    """Writes a clip as PNG files, which keep every pixel, and its truth.

    Returns:
        Path of `gt.txt`: frame, number, left, top, width, height, 1, class from 1, 1 in each line; frames from 1.
    """
    (folder / "img1").mkdir(parents=True, exist_ok=True)
    (folder / "gt").mkdir(exist_ok=True)
    lines = []
    for index, frame in enumerate(moving_shapes(seed, frames, count, size, size), 1):
        done, encoded = cv2.imencode(".png", frame.image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise OSError(f"frame {index} cannot be encoded")
        (folder / "img1" / f"{index:06d}.png").write_bytes(encoded.tobytes())
        for number, class_id, box in zip(frame.track_id, frame.class_id, frame.xyxy.tolist(), strict=True):
            x1, y1, x2, y2 = box
            lines.append(f"{index},{number},{x1},{y1},{x2 - x1},{y2 - y1},1,{class_id + 1},1\n")
    path = folder / "gt" / "gt.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--count", type=int, default=15, help="shapes")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels")
    parser.add_argument("--seed", type=int, default=HELD_OUT_MOVING_SEED)
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.frames, arguments.count, arguments.size, arguments.seed))


if __name__ == "__main__":
    main()
