"""Pictures of results, drawn with OpenCV on a copy of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import is_whole
from lensmount_vision.results.colors import Color, class_color, text_color
from lensmount_vision.results.masks import Masks
from lensmount_vision.results.shapes import Drawable, Shapes

Pixels = NDArray[np.uint8]
Rectangle = tuple[int, int, int, int]

_MASK_OPACITY = 0.45
# A keypoint below this confidence is not drawn, nor the bones to it.
_VISIBLE = 0.3


def draw(
    image: Any,
    result: Drawable,
    *,
    labels: bool = True,
    confidence: bool = True,
    masks: bool = True,
    thickness: int | None = None,
    color: Color | None = None,
) -> Pixels:
    """Draws a result on a copy of its image.

    Args:
        image: The image the result belongs to: a `(H, W, 3)` uint8 array in BGR, or anything that `images.load`
            takes. It is not changed.
        result: Detections of any kind, a classification, prompted masks, or anything else that has `shapes()`.
        labels: Writes class names.
        confidence: Writes confidences behind them.
        masks: Fills masks where the result has them.
        thickness: Of lines, in pixels; None fits the image's size.
        color: BGR for everything; None gives each class (each prompted mask) its own.

    Returns:
        uint8 `(H, W, 3)` in BGR.

    Raises:
        InputError: The image has another size than the result's, or the result cannot be drawn.
        OptionError: `thickness` or `color` is not valid.
    """
    if not isinstance(result, Drawable):
        raise InputError("this cannot be drawn", found=type(result).__name__, expected="a result with an image")
    canvas = _canvas(image, result.image_size)
    style = _style(canvas, thickness, color)
    shapes = result.shapes()
    colors = [style.color or class_color(number) for number in shapes.numbers]
    if shapes.masks is not None and (masks or not shapes.outlined):
        _draw_masks(canvas, shapes.masks, colors, style)
    if shapes.outlined:
        _draw_outlines(canvas, shapes, colors, style)
    if shapes.keypoints is not None:
        _draw_keypoints(canvas, shapes.keypoints, shapes.skeleton, colors, style)
    if labels:
        texts = [
            " ".join(part for part in (name, f"{score:.2f}" if confidence else "") if part)
            for name, score in zip(shapes.names, shapes.scores, strict=True)
        ]
        if shapes.boxes is None:
            _list_labels(canvas, texts, colors, style)
        else:
            _draw_labels(canvas, shapes.boxes, texts, colors, style)
    return canvas


@dataclass(frozen=True, slots=True)
class _Style:
    line: int
    font_scale: float
    font_weight: int
    color: Color | None


def _canvas(image: Any, size: tuple[int, int]) -> Pixels:
    fix = None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        canvas: Pixels = np.array(image, order="C")
    else:
        from lensmount_vision.images.loading import load

        picture = load(image)
        canvas = picture.array("bgr")
        if picture.reduced is not None:
            fix = "it was decoded reduced for the network; draw on its path, or on lensmount_vision.images.load(path)"
    if canvas.shape[:2] != size:
        raise InputError(
            "the image has another size than the result's",
            found=f"{canvas.shape[:2]}",
            expected=f"{size} (height, width)",
            fix=fix,
        )
    return canvas


def _style(canvas: Pixels, thickness: int | None, color: Color | None) -> _Style:
    if thickness is not None and (not is_whole(thickness) or thickness < 1):
        raise OptionError(
            "thickness is not valid", found=repr(thickness), expected="a whole number of pixels, 1 or more"
        )
    if color is not None:
        if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
            raise OptionError("color is not valid", found=repr(color), expected="(blue, green, red), each 0..255")
        color = (int(color[0]), int(color[1]), int(color[2]))
    # The geometric mean of the sides: a long thin picture gets lines that fit its short side too.
    side = float(np.sqrt(canvas.shape[0] * canvas.shape[1]))
    line = thickness or round(1 + side / 800)
    scale = max(0.4, side / 1700)
    return _Style(line, scale, max(1, round(scale * 1.6)), color)


# --- the shapes -------------------------------------------------------------------------------------------------------


def _draw_outlines(canvas: Pixels, shapes: Shapes, colors: Sequence[Color], style: _Style) -> None:
    import cv2

    for i in range(len(colors) - 1, -1, -1):  # the best one last, on top
        if shapes.corners is not None:
            # Four bits of subpixel position; drawing counts from pixel centres.
            corners = np.round((shapes.corners[i] - 0.5) * 16).astype(np.int32)
            cv2.polylines(canvas, [corners], True, colors[i], style.line, cv2.LINE_AA, 4)
        elif shapes.boxes is not None:
            x0, y0, x1, y1 = _pixels(shapes.boxes[i], canvas)
            cv2.rectangle(canvas, (x0, y0), (x1, y1), colors[i], style.line)


def _draw_masks(canvas: Pixels, masks: Masks, colors: Sequence[Color], style: _Style) -> None:
    import cv2

    areas = masks.area
    # Large ones first, so that what lies on them shows.
    for i in np.argsort(-areas, kind="stable").tolist():
        if not areas[i]:
            continue
        crop, (x, y) = masks.crop(i), masks.origins[i].tolist()
        part = canvas[y : y + crop.shape[0], x : x + crop.shape[1]]
        pixels = np.ascontiguousarray(crop).view(np.uint8)
        paint = np.empty_like(part)
        paint[:] = colors[i]
        cv2.copyTo(cv2.addWeighted(part, 1 - _MASK_OPACITY, paint, _MASK_OPACITY, 0), pixels, part)
        contours, _ = cv2.findContours(pixels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE, offset=(x, y))
        cv2.drawContours(canvas, contours, -1, colors[i], max(1, style.line // 2), cv2.LINE_AA)


def _draw_keypoints(
    canvas: Pixels,
    keypoints: NDArray[np.float32],
    skeleton: Sequence[tuple[int, int]],
    colors: Sequence[Color],
    style: _Style,
) -> None:
    import cv2

    radius = style.line + 2
    for points, color in zip(keypoints, colors, strict=True):
        at = np.round((points[:, :2] - 0.5) * 16).clip(-(2**30), 2**30).astype(np.int32).tolist()
        seen = (points[:, 2] >= _VISIBLE).tolist() if points.shape[1] == 3 else [True] * len(points)
        for a, b in skeleton:
            if seen[a] and seen[b]:
                cv2.line(canvas, at[a], at[b], color, style.line, cv2.LINE_AA, 4)
        for place, shown in zip(at, seen, strict=True):
            if shown:
                cv2.circle(canvas, place, (radius + 1) * 16, text_color(color), -1, cv2.LINE_AA, 4)
                cv2.circle(canvas, place, radius * 16, color, -1, cv2.LINE_AA, 4)


# --- labels -----------------------------------------------------------------------------------------------------------


def _draw_labels(
    canvas: Pixels, boxes: NDArray[np.float32], texts: Sequence[str], colors: Sequence[Color], style: _Style
) -> None:
    placed: list[Rectangle] = []
    rows = [row for row, text in enumerate(texts) if text]
    for row in rows:
        width, height, _ = _text_size(texts[row], style)
        placed.append(_place(_pixels(boxes[row], canvas), width, height, placed, canvas, style.line))
    # The best object chose its place first and is written last, on top.
    for row, where in reversed(list(zip(rows, placed, strict=True))):
        _write(canvas, texts[row], where, colors[row], style)


def _list_labels(canvas: Pixels, texts: Sequence[str], colors: Sequence[Color], style: _Style) -> None:
    """Labels that belong to no place in the image: one below the other in its corner."""
    y = 0
    for text, color in zip(texts, colors, strict=True):
        width, height, _ = _text_size(text, style)
        _write(canvas, text, (0, y, width, y + height), color, style)
        y += height


def _place(box: Rectangle, width: int, height: int, taken: Sequence[Rectangle], canvas: Pixels, line: int) -> Rectangle:
    """Where a label goes: above the box, inside it, below it, at its right; the first place that is free."""
    x0, y0, x1, y1 = box
    out = line // 2
    wishes = [
        (x0 - out, y0 - out - height),
        (x0 - out, y0 - out),
        (x1 + out + 1 - width, y0 - out - height),
        (x0 - out, y1 + out + 1),
        (x0 - out, y1 + out + 1 - height),
        (x1 + out + 1 - width, y1 + out + 1),
        (x1 + out + 1, y0 - out),
    ]
    rows, columns = canvas.shape[:2]
    best, least = (0, 0, width, height), float("inf")
    for wish, (x, y) in enumerate(wishes):
        left, top = max(0, min(x, columns - width)), max(0, min(y, rows - height))
        place = (left, top, left + width, top + height)
        covered = sum(_shared(place, other) for other in taken)
        # Covering another label is worse than standing a little away from the box at the image's edge.
        cost = (
            2 * covered
            + 0.3 * min(abs(left - x), width) * height
            + 0.9 * min(abs(top - y), height) * width
            + wish * 1e-3
        )
        if cost < least:
            best, least = place, cost
    return best


def _shared(a: Rectangle, b: Rectangle) -> int:
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def _text_size(text: str, style: _Style) -> tuple[int, int, int]:
    """Width and height of a label, and the margin around its text."""
    import cv2

    (width, height), below = cv2.getTextSize(_ascii(text), _FONT, style.font_scale, style.font_weight)
    margin = max(2, round(height * 0.3))
    return width + 2 * margin, height + below // 2 + 2 * margin, margin


def _write(canvas: Pixels, text: str, where: Rectangle, background: Color, style: _Style) -> None:
    import cv2

    x0, y0, x1, y1 = where
    margin = _text_size(text, style)[2]
    _, below = cv2.getTextSize(_ascii(text), _FONT, style.font_scale, style.font_weight)
    cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), background, -1)
    at = (x0 + margin, y1 - margin - below // 2)
    ink = text_color(background)
    cv2.putText(canvas, _ascii(text), at, _FONT, style.font_scale, ink, style.font_weight, cv2.LINE_AA)


_FONT = 0  # cv2.FONT_HERSHEY_SIMPLEX, named so that importing this module does not import cv2


def _ascii(text: str) -> str:
    """OpenCV's built-in fonts know ASCII only: accents are dropped, other characters become `?`."""
    import unicodedata

    if text.isascii():
        return text
    letters = (c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return "".join(letters).encode("ascii", "replace").decode()


def _pixels(box: NDArray[np.float32], canvas: Pixels) -> Rectangle:
    """First and last pixel of a box, inside the image."""
    rows, columns = canvas.shape[:2]
    x0, y0, x1, y1 = np.asarray(box, np.float64).tolist()
    left, top = min(max(int(np.floor(x0)), 0), columns - 1), min(max(int(np.floor(y0)), 0), rows - 1)
    return left, top, max(left, min(int(np.ceil(x1)) - 1, columns - 1)), max(top, min(int(np.ceil(y1)) - 1, rows - 1))
