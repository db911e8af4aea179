"""What a tracker keeps of an object: a bounded number of memories and pointers, whatever the video's length."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Record:
    """An object on one frame.

    Attributes:
        frame: The frame's number.
        memory: bfloat16 `(1, h * w, 64)`.
        pointer: `(1, 256)`.
        logits: `(1, 1, 4h, 4w)`.
        presence: `(1, 1)` logit of the object's being in sight.
    """

    frame: int
    memory: Tensor
    pointer: Tensor
    logits: Tensor
    presence: Tensor


@dataclass(frozen=True, slots=True)
class Recall:
    """What a frame attends to.

    Attributes:
        memories: bfloat16 `(h * w, 64)` each.
        ages: Frames since each memory; 0 for conditioning frames.
        pointers: `(256,)` each.
        times: Frames since each pointer.
    """

    memories: list[Tensor]
    ages: list[int]
    pointers: list[Tensor]
    times: list[int]

    @property
    def shape(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Objects of one shape share a batch."""
        return tuple(self.ages), tuple(self.times)


@dataclass(slots=True)
class Bank:
    """The memory of one object.

    Prompted frames condition the object for good, as many as fit; of the others the last few count.

    Attributes:
        reach: Frames that memories reach back, the present one counted.
        pointer_reach: Frames that pointers reach back, the present one counted.
        attended: Most prompted frames that a frame attends to: those nearest in time.
        capacity: Most prompted frames that are kept; None for all, where their number is known beforehand.
    """

    reach: int
    pointer_reach: int
    attended: int
    capacity: int | None
    prompted: dict[int, Record] = field(default_factory=dict)
    memories: deque[tuple[int, Tensor]] = field(default_factory=deque)
    pointers: deque[tuple[int, Tensor]] = field(default_factory=deque)

    def condition(self, record: Record) -> None:
        """Keeps a prompted frame; the one that lies farthest from it goes when there are too many."""
        self._forget(record.frame)
        self.prompted[record.frame] = record
        if self.capacity is not None and len(self.prompted) > self.capacity:
            del self.prompted[max(self.prompted, key=lambda frame: abs(frame - record.frame))]

    def add(self, record: Record) -> None:
        """Keeps a tracked frame, and drops what nothing will ask for any more."""
        self._forget(record.frame)
        self.memories.append((record.frame, record.memory))
        self.pointers.append((record.frame, record.pointer))
        while self.memories[0][0] <= record.frame - self.reach + 1:
            self.memories.popleft()
        while self.pointers[0][0] <= record.frame - self.pointer_reach + 1:
            self.pointers.popleft()

    def _forget(self, frame: int) -> None:
        for kept in (self.memories, self.pointers):
            for item in [item for item in kept if item[0] == frame]:
                kept.remove(item)

    def _nearest(self, frame: int) -> list[Record]:
        """Prompted frames to attend to: the last one before, the first one after, then whichever are nearest."""
        if len(self.prompted) <= self.attended:
            return [self.prompted[key] for key in sorted(self.prompted)]
        before = [key for key in self.prompted if key < frame]
        after = [key for key in self.prompted if key >= frame]
        chosen = [max(before)] if before else []
        chosen += [min(after)] if after else []
        rest = sorted((key for key in self.prompted if key not in chosen), key=lambda key: abs(key - frame))
        return [self.prompted[key] for key in sorted((chosen + rest)[: self.attended])]

    def recall(self, frame: int, longest: int) -> Recall:
        """What counts for a frame.

        Args:
            frame: Its number.
            longest: Frames that pointers may reach back, the present one counted.
        """
        prompted = self._nearest(frame)
        others = [record for record in self.prompted.values() if not any(record is one for one in prompted)]
        memories = [record.memory[0] for record in prompted]
        ages = [0] * len(prompted)
        near = {**dict(self.memories), **{record.frame: record.memory for record in others}}
        for number in sorted(near):
            if 0 < frame - number < self.reach:
                memories.append(near[number][0])
                ages.append(frame - number)
        past = [record for record in prompted if record.frame <= frame]
        pointers, times = [record.pointer[0] for record in past], [frame - record.frame for record in past]
        last = {**dict(self.pointers), **{record.frame: record.pointer for record in others}}
        for number in sorted(last, reverse=True):
            if 0 < frame - number < longest:
                pointers.append(last[number][0])
                times.append(frame - number)
        return Recall(memories, ages, pointers, times)
