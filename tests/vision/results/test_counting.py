"""Lines and zones: what is counted equals what is known, on generated clips."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("supervision")

from lensmount.errors import InputError, OptionError
from lensmount_vision.results import Detections
from lensmount_vision.tracking import Counter


def result(centres, ids):
    centres = np.array(centres, np.float32).reshape(-1, 2)
    return Detections(
        xyxy=np.concatenate((centres - 4, centres + 4), 1),
        confidence=np.full(len(centres), 0.9, np.float32),
        class_id=np.zeros(len(centres), np.int64),
        class_names=("thing",),
        image_size=(200, 200),
        tracker_id=np.array(ids, np.int64),
    )


@pytest.mark.parametrize("seed", range(20))
def test_counts_equal_the_truth(seed):
    """Objects go straight across a line in the middle, to and fro; a zone is the right third."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    x, y = rng.uniform(5, 195, count), rng.uniform(10, 190, count)
    speed = rng.choice([-1, 1], count) * rng.uniform(1, 6, count)
    counter = Counter([((100, 0), (100, 200))], [[(140, 0), (200, 0), (200, 200), (140, 200)]])
    left = right = 0
    ever: set[int] = set()
    for _ in range(120):
        counts = counter.update(result(np.stack([x, y], 1), np.arange(1, count + 1)))
        inside = {i for i in range(count) if x[i] >= 140.5}
        edge = {i for i in range(count) if 139 < x[i] < 141}
        ever |= inside
        if not edge:  # within a pixel of the edge supervision rounds
            assert counts.zones[0][0] == len(inside)
        # The line goes down the screen: who looks along it has the screen's right at the left hand.
        assert counts.lines[0] == (right, left)
        before = x.copy()
        bounce = (x + speed < 5) | (x + speed > 195)
        speed = np.where(bounce, -speed, speed)
        x = x + speed
        right += int(((before < 100) & (x > 100)).sum())
        left += int(((before > 100) & (x < 100)).sum())
    assert left + right > 0
    assert counts.zones[0][1] == len(ever)


def test_boxes_without_a_number_are_not_counted():
    counter = Counter([((100, 0), (100, 200))], [[(0, 0), (200, 0), (200, 200)]])
    for x in (80, 120, 80):
        counts = counter.update(result([(x, 100)], [-1]))
    assert counts.lines == ((0, 0),)
    assert counts.zones == ((0, 0),)
    assert counter.update(result([], [])).zones == ((0, 0),)


@pytest.mark.parametrize(
    ("lines", "zones"),
    [
        ([((1, 1), (1, 1))], []),
        ([((1, 1),)], []),
        ([], [((1, 1), (2, 2))]),
        (["x"], []),
        ([((0, 0), (1, float("nan")))], []),
    ],
)
def test_what_is_no_line_or_zone_is_refused(lines, zones):
    with pytest.raises(OptionError):
        Counter(lines, zones)


def test_what_was_not_tracked_is_refused():
    from dataclasses import replace

    with pytest.raises(InputError, match="tracked"):
        Counter([((0, 0), (1, 1))]).update(replace(result([(1, 1)], [1]), tracker_id=None))
