"""Generated pictures of shapes on clutter, with the truth about every shape.

A scene is a function of `(seed, index)` alone: the same numbers give the same pixels. Shapes overlap, are cut by the
picture's edge, turned, coloured, striped and outlined; the ground has gradients, textures, lines and blobs that
are none of the classes; noise, blur and uneven light lie over all. A shape that would be left with less than
`MIN_VISIBLE` of its area is not painted, or what would cover it is not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

#: Class names; a class id is the position.
CLASSES = ("circle", "square", "triangle", "star", "ring", "cross")
#: Least share of a shape's area that stays visible.
MIN_VISIBLE = 0.5
#: Radius of the circle around a shape, as a share of the picture's shorter side.
RADIUS_RANGE = (0.06, 0.2)
#: Least distance of a shape's colour from the ground below it, in the 0..255 cube.
MIN_CONTRAST = 60.0

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
#: Shapes are drawn this much larger and then averaged, which gives smooth edges.
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Scene:
    """A picture and its truth; row `i` of each array is instance `i`, later ones lie on top.

    Attributes:
        image: `(H, W, 3)` uint8, BGR.
        class_id: `(N,)` int64, positions in `CLASSES`.
        masks: `(N, H, W)` bool, the visible pixels; disjoint.
        xyxy: `(N, 4)` float32, tight around the visible pixels; right and bottom are exclusive.
    """

    image: U8
    class_id: npt.NDArray[np.int64]
    masks: npt.NDArray[np.bool_]
    xyxy: F32


def make_scene(seed: int, index: int, width: int = 256, height: int = 256, count: int | None = None) -> Scene:
    """Makes one scene.

    Args:
        seed: Names a series of scenes, say one for training and one for evaluation.
        index: The scene's number in the series.
        width: Width in pixels.
        height: Height in pixels.
        count: How many shapes to try to place; between 2 and 9 if not given. Fewer are placed where room is short.

    Returns:
        The scene; it may hold fewer shapes than asked for, yet never a nearly hidden one.
    """
    rng = np.random.default_rng((seed, index))
    canvas = _background(rng, width, height)
    _distractors(rng, canvas)
    wanted = int(rng.integers(2, 10)) if count is None else count
    owner = np.full((height, width), -1, np.int64)  # which instance each pixel shows
    class_ids: list[int] = []
    areas = np.zeros(0, np.int64)  # as painted
    visible = np.zeros(0, np.int64)
    for _ in range(wanted * 4):
        if len(class_ids) == wanted:
            break
        class_id = int(rng.integers(len(CLASSES)))
        low, high = RADIUS_RANGE
        radius = float(min(width, height) * low * (high / low) ** rng.random())
        centre = rng.random(2) * (width, height)
        placed = _cover(rng, class_id, radius, centre, width, height)
        if placed is None:
            continue
        (top, left), cover = placed
        window = (slice(top, top + cover.shape[0]), slice(left, left + cover.shape[1]))
        mask = cover >= 0.5
        hidden = np.bincount(owner[window][mask] + 1, minlength=len(areas) + 1)[1:]
        if (visible - hidden < MIN_VISIBLE * areas).any():
            continue
        class_ids.append(class_id)
        areas = np.append(areas, mask.sum())
        visible = np.append(visible - hidden, mask.sum())
        _paint(rng, canvas[window], cover, mask)
        owner[window][mask] = len(class_ids) - 1
    masks = np.stack([owner == i for i in range(len(class_ids))]) if class_ids else np.zeros((0, height, width), bool)
    return Scene(_camera(rng, canvas), np.asarray(class_ids, np.int64), masks, tight_boxes(masks))


def tight_boxes(masks: npt.NDArray[np.bool_]) -> F32:
    """Boxes around masks: `(N, H, W)` bool to `(N, 4)` float32 xyxy, right and bottom exclusive.

    Every mask must have at least one pixel.
    """
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


# --- parts, for clips of moving shapes --------------------------------------------------------------------------------

#: The series of clips.
HELD_OUT_MOVING_SEED = 3


def empty_ground(rng: np.random.Generator, width: int, height: int) -> F32:
    """A ground with clutter and no shapes, `(H, W, 3)` float32."""
    canvas = _background(rng, width, height)
    _distractors(rng, canvas)
    return canvas


def drawn_shape(rng: np.random.Generator, class_id: int, radius: float) -> F32:
    """Coverage 0..1 of a shape in the middle of a square that has room for it."""
    side = int(np.ceil(2 * radius)) + 6
    placed = _cover(rng, class_id, radius, np.array([side / 2, side / 2]), side, side)
    assert placed is not None, "a shape lies wholly in its own square"
    (top, left), cover = placed
    whole = np.zeros((side, side), np.float32)
    whole[top : top + cover.shape[0], left : left + cover.shape[1]] = cover
    return whole


def painted(rng: np.random.Generator, ground: F32, cover: F32) -> F32:
    """The colours `(h, w, 3)` of a shape, chosen to stand out from the ground."""
    height, width = cover.shape
    view = np.empty((height, width, 3), np.float32)
    view[:] = ground.reshape(-1, 3).mean(0)
    filled = np.ones_like(cover)
    _paint(rng, view, filled, filled >= 0.5)
    return view


def seen_by_camera(rng: np.random.Generator, canvas: F32) -> U8:
    """A frame of a video: a little noise, the same light and sharpness throughout."""
    noise = rng.standard_normal(canvas.shape, np.float32) * np.float32(4)
    picture: U8 = np.clip(np.round(canvas + noise), 0, 255).astype(np.uint8)
    return picture


# --- shapes -----------------------------------------------------------------------------------------------------------


def _outline(rng: np.random.Generator, class_id: int) -> list[npt.NDArray[np.float64]]:
    """Polygons of a shape of radius 1 about the origin; a second one is a hole."""
    name = CLASSES[class_id]
    around = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    disc = np.stack([np.cos(around), np.sin(around)], 1)
    if name == "circle":
        return [disc]
    if name == "ring":
        return [disc, disc * rng.uniform(0.45, 0.68)]
    if name == "square":
        return [disc[8::16]]
    if name == "triangle":
        corners = np.array([0.0, 1.0, 2.0]) * 2 * np.pi / 3 + rng.uniform(-0.15, 0.15, 3)
        return [np.stack([np.cos(corners), np.sin(corners)], 1)]
    if name == "star":
        angles = np.arange(10) * np.pi / 5
        radii = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.4, 0.52))
        return [np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]]
    arm = rng.uniform(0.24, 0.36)
    tip = float(np.sqrt(1 - arm**2))
    quarter = np.array([[arm, arm], [tip, arm], [tip, -arm]])[::-1]
    turns = [np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k) for k in range(4)]
    return [np.concatenate([quarter @ turn.T for turn in turns])]


def _cover(
    rng: np.random.Generator, class_id: int, radius: float, centre: npt.NDArray[np.float64], width: int, height: int
) -> tuple[tuple[int, int], F32] | None:
    """Draws a turned shape: its window's top left corner (row, column) and coverage `(h, w)` in 0..1.

    None if too much of it lies outside the picture.
    """
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    polygons = [points @ turn * radius for points in _outline(rng, class_id)]
    left, top = np.floor(centre - radius - 1).astype(int)
    side = int(np.ceil(2 * radius)) + 3
    fine = np.zeros((side * _OVERSAMPLING, side * _OVERSAMPLING), np.uint8)
    for points, value in zip(polygons, (255, 0), strict=False):
        # In OpenCV a pixel's centre has whole coordinates, here its corner has: hence the half. 4 fractional bits.
        corners = (points + centre - (left, top)) * _OVERSAMPLING - 0.5
        cv2.fillPoly(fine, [np.round(corners * 16).astype(np.int32)], value, shift=4)
    whole: npt.NDArray[Any] = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x2 <= x1 or y2 <= y1:
        return None
    cover = whole[y1 - top : y2 - top, x1 - left : x2 - left]
    if (cover >= 0.5).sum() < 0.7 * (whole >= 0.5).sum():
        return None
    return (int(y1), int(x1)), cover


def _paint(rng: np.random.Generator, view: F32, cover: F32, mask: npt.NDArray[np.bool_]) -> None:
    """Lays a shape's colour over `view` `(h, w, 3)`, in place."""
    ground = view[mask].mean(0)
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(colour - ground) < MIN_CONTRAST:
        colour = rng.uniform(0, 255, 3)
    fill = np.empty_like(view)
    fill[:] = colour
    height, width = cover.shape
    style = rng.random()
    if style < 0.35:  # shading across the shape
        fill += _ramp(rng, height, width)[..., None] * rng.uniform(15, 50)
    elif style < 0.5:  # stripes
        period = rng.uniform(4, 12) * max(1.0, max(height, width) / 80)
        wave = np.sin(_ramp(rng, height, width) * max(height, width) * 2 * np.pi / period)
        fill += np.sign(wave).astype(np.float32)[..., None] * rng.uniform(10, 28)
    elif style < 0.65:  # speckles
        fill += rng.normal(0, rng.uniform(5, 20), (height, width, 1)).astype(np.float32)
    if rng.random() < 0.3:  # a darker or lighter rim inside the edge
        inner = cv2.erode(cover, np.ones((3, 3), np.uint8), iterations=max(1, round(max(height, width) / 40)))
        fill += (cover - inner)[..., None] * rng.choice([-70.0, 70.0]).astype(np.float32)
    view += (np.clip(fill, 0, 255) - view) * cover[..., None]


# --- ground and camera ------------------------------------------------------------------------------------------------


def _ramp(rng: np.random.Generator, height: int, width: int) -> F32:
    """A plane of random direction over `(h, w)`, from about -0.7 to 0.7."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * np.float32(np.sin(angle))
    ramp: F32 = y[:, None] + x[None, :]
    return ramp


def _background(rng: np.random.Generator, width: int, height: int) -> F32:
    """A ground `(h, w, 3)`: colour, gradient and up to three scales of texture."""
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = rng.uniform(30, 225, 3)
    canvas += _ramp(rng, height, width)[..., None] * rng.uniform(-90, 90, 3).astype(np.float32)
    for _ in range(int(rng.integers(0, 4))):
        cells = int(2 ** rng.uniform(1, 6))
        coarse = rng.normal(0, rng.uniform(4, 18), (cells + 1, cells + 1, 3)).astype(np.float32)
        canvas += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.25:  # a weave of stripes or a chequered ground
        period = rng.uniform(8, 40) * min(width, height) / 256
        wave = np.sin(_ramp(rng, height, width) * max(width, height) * 2 * np.pi / period)
        if rng.random() < 0.5:
            wave = wave * np.sin(_ramp(rng, height, width) * max(width, height) * 2 * np.pi / period)
        canvas += np.sign(wave)[..., None] * rng.uniform(4, 16)
    return np.clip(canvas, 0, 255)


def _distractors(rng: np.random.Generator, canvas: F32) -> None:
    """Adds lines, curves, long ellipses, long bars and lumps: clutter that belongs to no class."""
    height, width = canvas.shape[:2]
    short = min(height, width)
    for _ in range(int(rng.integers(0, 9))):
        colour = [float(value) for value in rng.uniform(0, 255, 3)]
        x, y = rng.random(2) * (width, height)
        thick = max(1, round(short * rng.uniform(0.003, 0.016)))
        kind = int(rng.integers(5))
        turn = rng.uniform(0, 360)
        if kind == 0:
            end = rng.random(2) * (width, height)
            cv2.line(canvas, (int(x), int(y)), (int(end[0]), int(end[1])), colour, thick, cv2.LINE_AA)
        elif kind == 1:  # an open arc, at most half a turn
            axes = (int(short * rng.uniform(0.08, 0.4)), int(short * rng.uniform(0.08, 0.4)))
            start = rng.uniform(0, 360)
            sweep = rng.uniform(60, 180)
            cv2.ellipse(canvas, (int(x), int(y)), axes, turn, start, start + sweep, colour, thick, cv2.LINE_AA)
        elif kind == 2:  # clearly no circle
            long = short * rng.uniform(0.06, 0.25)
            axes = (int(long), max(1, int(long / rng.uniform(2.2, 4))))
            cv2.ellipse(canvas, (int(x), int(y)), axes, turn, 0, 360, colour, -1, cv2.LINE_AA)
        elif kind == 3:  # clearly no square
            long = short * rng.uniform(0.1, 0.4)
            corners = cv2.boxPoints(((x, y), (long, long / rng.uniform(2.5, 6)), turn))
            cv2.fillPoly(canvas, [corners.astype(np.int32)], colour, cv2.LINE_AA)
        else:  # a smooth lump
            angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
            radii = np.ones(48)
            for wave in (2, 3, 5):
                radii += rng.uniform(0.1, 0.3) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
            points = np.stack([np.cos(angles), np.sin(angles)], 1) * (radii * short * rng.uniform(0.04, 0.13))[:, None]
            cv2.fillPoly(canvas, [(points + np.array([x, y])).astype(np.int32)], colour, cv2.LINE_AA)


def _camera(rng: np.random.Generator, canvas: F32) -> U8:
    """Uneven light, blur, noise; float32 `(h, w, 3)` to uint8."""
    height, width = canvas.shape[:2]
    seen: npt.NDArray[Any] = canvas
    if rng.random() < 0.5:
        seen = seen * (1 + _ramp(rng, height, width)[..., None] * rng.uniform(0.1, 0.5))
    if rng.random() < 0.4:
        sigma = rng.uniform(0.3, 0.9) * max(1.0, min(height, width) / 256)
        seen = cv2.GaussianBlur(seen, (0, 0), sigma)
    noise = rng.standard_normal(seen.shape, np.float32) * np.float32(rng.uniform(0, 14))
    picture: U8 = np.clip(np.round(seen + noise), 0, 255).astype(np.uint8)
    return picture
