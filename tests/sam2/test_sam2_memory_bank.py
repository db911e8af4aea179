"""What a tracker forgets, against a plain restatement that forgets nothing.

A frame t looks back on the tracked frames t - 1 to t - 6 (seven memories, stride 1, its own among them) and on the
pointers of t - 1 to t - 15; on the prompted frames nearest in time; and a prompted frame that is not among these counts
as a tracked one. A frame that was tracked and is prompted again looks back from itself, not from the next frame.
"""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest

import sam2_tiny

pytest.importorskip("torch")

from lensmount_sam2.memory_bank import Bank

REACH, POINTERS = 7, 16
BOX, COUNT = [70, 50, 110, 110], 26
FRAMES = sam2_tiny.frames(COUNT)


class Everything:
    """A bank without bounds, in the paper's words."""

    def __init__(self, attended, direction):
        self.attended, self.direction = attended, direction
        self.prompted, self.tracked = set(), set()

    def condition(self, frame):
        self.prompted.add(frame)
        self.tracked.discard(frame)

    def add(self, frame):
        self.tracked.add(frame)

    def recall(self, frame, longest):
        def age(number):
            return (frame - number) * self.direction

        nearest = set(self.prompted)
        if len(self.prompted) > self.attended:
            before, after = ([n for n in self.prompted if (n < frame) is earlier] for earlier in (True, False))
            nearest = {*sorted(before)[-1:], *sorted(after)[:1]}
            rest = sorted(self.prompted - nearest, key=lambda n: abs(n - frame))
            nearest |= set(rest[: self.attended - len(nearest)])
        other = self.tracked | (self.prompted - nearest)
        memories = [(n, 0) for n in nearest] + [(n, age(n)) for n in other if 0 < age(n) < REACH]
        pointers = [n for n in nearest if age(n) >= 0] + [n for n in other if 0 < age(n) < longest]
        return sorted(memories), sorted((n, age(n)) for n in pointers)


def record(frame):
    return SimpleNamespace(frame=frame, memory=[frame], pointer=[frame])


def told(recall):
    memories = sorted(zip(recall.memories, recall.ages, strict=True))
    return memories, sorted(zip(recall.pointers, recall.times, strict=True))


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("attended", [2, 3, 8])
@pytest.mark.parametrize("seed", range(6))
def test_the_bank_keeps_what_is_asked_for(seed, attended, direction):
    """Streams of steps, first prompts and corrections; objects that begin late; numbers up and down."""
    rng = random.Random(seed)
    bank, wanted = Bank(REACH, POINTERS, attended, attended, direction), Everything(attended, direction)
    start = rng.randrange(5)
    for met in range(start, start + 60):
        frame = met if direction == 1 else 100 - met
        if met == start or rng.random() < 0.15:
            for each, item in ((bank, record(frame)), (wanted, frame)):
                each.condition(item)
            continue
        assert told(bank.recall(frame, POINTERS)) == wanted.recall(frame, POINTERS)
        for each, item in ((bank, record(frame)), (wanted, frame)):
            each.add(item)
        for _ in range(rng.choice((0, 0, 1, 3))):  # corrections, each of the last
            assert told(bank.recall(frame, POINTERS)) == wanted.recall(frame, POINTERS)
            for each, item in ((bank, record(frame)), (wanted, frame)):
                each.add(item)
        assert len(bank.memories) <= REACH
        assert len(bank.pointers) <= POINTERS
        assert len(bank.prompted) <= attended


def run(model):
    """Two objects prompted apart, and corrections of frames that were tracked."""
    tracker = model.track()
    found = []
    for index, frame in enumerate(FRAMES):
        if index == 0:
            tracker.prompt(frame, boxes=BOX, object_id=1)
        if index == 3:
            tracker.prompt(frame, points=[[40, 60]], object_id=2)
        found.append(tracker.step(frame))
        if index in (9, 10, 17, 22):
            places = [[20, 20 + index], [90, 80]]
            found.append(tracker.prompt(None, points=places, labels=[1, 0], object_id=1 + index % 2))
            found.append(tracker.prompt(None, boxes=[20, 20, 80, 60], object_id=1))
    return found


@pytest.fixture
def boundless(monkeypatch):
    def keep(bank, record, present):
        bank.memories[record.frame], bank.pointers[record.frame] = record.memory, record.pointer

    def use():
        monkeypatch.setattr(Bank, "_append", keep)

    return use


def compare(model, boundless):
    found = run(model)
    boundless()
    for given, wanted in zip(found, run(model), strict=True):
        assert given.frame == wanted.frame
        assert given.object_ids.tolist() == wanted.object_ids.tolist()
        assert np.array_equal(given.logits, wanted.logits)  # the same operations, in the same order


def test_forgetting_changes_nothing(tiny_model, boundless):
    compare(tiny_model, boundless)


@pytest.mark.parametrize("name", ["sam2.1_hiera_tiny", "sam2_hiera_tiny"])
def test_forgetting_changes_nothing_in_official_layouts(name, sam2_model, boundless):
    compare(sam2_model(name, 128), boundless)
