"""What crosses lines and stands in zones, counted by supervision's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, OptionError
from lensmount_vision.results.detections import Detections
from lensmount_vision.results.formats import import_supervision


@dataclass(frozen=True, slots=True)
class Counts:
    """How many, up to a frame.

    Attributes:
        lines: For each line how many crossed it to its left, and how many to its right, as seen from its first point
            to its second on the screen.
        zones: For each zone how many objects are in it now, and how many different ones have been.
    """

    lines: tuple[tuple[int, int], ...]
    zones: tuple[tuple[int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return {
            "lines": [{"left": left, "right": right} for left, right in self.lines],
            "zones": [{"now": now, "ever": ever} for now, ever in self.zones],
        }

    def __str__(self) -> str:
        texts = [f"line {i}: {left} to the left, {right} to the right" for i, (left, right) in enumerate(self.lines, 1)]
        return "; ".join(texts + [f"zone {i}: {now} now, {ever} in all" for i, (now, ever) in enumerate(self.zones, 1)])


class Counter:
    """Counts the objects of one video: feed it the results of its frames, with `tracker_id`, in order.

    An object is where the centre of its box is. Boxes that belong to no object yet (-1) are not counted.

    Args:
        lines: `((x1, y1), (x2, y2))` in pixels.
        zones: Polygons, each three or more `(x, y)` in pixels.

    Raises:
        OptionError: A line or polygon is none.
        MissingDependencyError: supervision is not installed.
    """

    def __init__(
        self, lines: Sequence[Sequence[Sequence[float]]] = (), zones: Sequence[Sequence[Sequence[float]]] = ()
    ) -> None:
        self._supervision = sv = import_supervision()
        self._lines = []
        for line in lines:
            (x1, y1), (x2, y2) = _points("a line", line, 2, 2).tolist()
            if (x1, y1) == (x2, y2):
                raise OptionError("a line is a point", found=repr(line), expected="two different points")
            ends = sv.Point(x1, y1), sv.Point(x2, y2)
            self._lines.append(sv.LineZone(*ends, triggering_anchors=(sv.Position.CENTER,)))
        self._zones = [
            sv.PolygonZone(
                np.round(_points("a zone", zone, 3, None)).astype(np.int64), triggering_anchors=(sv.Position.CENTER,)
            )
            for zone in zones
        ]
        self._ever: list[set[int]] = [set() for _ in zones]

    def update(self, result: Detections) -> Counts:
        """Takes the next frame's result.

        Raises:
            InputError: Nothing was tracked in it.
        """
        ids = result.tracker_id if isinstance(result, Detections) else None
        if ids is None:
            raise InputError("what is counted has to be tracked", found="no tracker_id", fix="stream(…, tracker=…)")
        known = ids > 0
        given = self._supervision.Detections(
            xyxy=result.xyxy[known], class_id=result.class_id[known], tracker_id=ids[known]
        )
        for line in self._lines:
            line.trigger(given)
        now = []
        for zone, ever in zip(self._zones, self._ever, strict=True):
            inside = np.asarray(zone.trigger(given), np.bool_)
            now.append(int(inside.sum()))
            ever.update(ids[known][inside].tolist())
        sides = tuple((int(line.in_count), int(line.out_count)) for line in self._lines)
        return Counts(sides, tuple((count, len(ever)) for count, ever in zip(now, self._ever, strict=True)))


def _points(what: str, given: Any, least: int, most: int | None) -> NDArray[np.float64]:
    try:
        points = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        points = np.zeros(0)
    right = points.ndim == 2 and points.shape[1] == 2 and len(points) >= least and np.isfinite(points).all()
    if not right or (most is not None and len(points) > most):
        number = str(least) if most == least else f"{least} or more"
        raise OptionError(f"{what} is not valid", found=repr(given)[:120], expected=f"{number} points (x, y) in pixels")
    return points
