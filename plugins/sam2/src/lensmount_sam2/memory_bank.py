"""What a tracker keeps of an object: a bounded number of memories and pointers, whatever the video's length."""

from __future__ import annotations

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

    Prompted frames condition the object for good, as many as fit; of the others the last few count. Those are the ones
    that the present frame itself looks back on, for a correction asks for them after the frame was tracked: as many
    as the next frame asks for, and one more.

    Attributes:
        reach: Frames that memories reach back, the present one counted.
        pointer_reach: Frames that pointers reach back, the present one counted.
        attended: Most prompted frames that a frame attends to: those nearest in time.
        capacity: Most prompted frames that are kept; None for all, where their number is known beforehand.
        direction: 1 where frames are followed in the order of their numbers, -1 against it.
    """

    reach: int
    pointer_reach: int
    attended: int
    capacity: int | None
    direction: int = 1
    prompted: dict[int, Record] = field(default_factory=dict)
    memories: dict[int, Tensor] = field(default_factory=dict)
    pointers: dict[int, Tensor] = field(default_factory=dict)

    def condition(self, record: Record) -> None:
        """Keeps a prompted frame; where there are too many, the farthest one counts as a tracked one from then on."""
        self._forget(record.frame)
        self.prompted[record.frame] = record
        if self.capacity is not None and len(self.prompted) > self.capacity:
            gone = self.prompted.pop(max(self.prompted, key=lambda frame: abs(frame - record.frame)))
            self._append(gone, record.frame)

    def add(self, record: Record) -> None:
        """Keeps a tracked frame, and drops what nothing will ask for any more."""
        self._forget(record.frame)
        self._append(record, record.frame)

    def _append(self, record: Record, present: int) -> None:
        """Keeps a frame among the tracked ones, of which those stay that the present frame or a later one asks for."""
        for kept, tensor, reach in (
            (self.memories, record.memory, self.reach),
            (self.pointers, record.pointer, self.pointer_reach),
        ):
            kept[record.frame] = tensor
            for number in [number for number in kept if self._age(number, present) >= reach]:
                del kept[number]

    def _forget(self, frame: int) -> None:
        self.memories.pop(frame, None)
        self.pointers.pop(frame, None)

    def _age(self, number: int, frame: int) -> int:
        """How many frames before `frame` another one was met; negative for one that is still to come."""
        return (frame - number) * self.direction

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
        near = {**self.memories, **{record.frame: record.memory for record in others}}
        for number in sorted(near, key=lambda number: -self._age(number, frame)):
            age = self._age(number, frame)
            if 0 < age < self.reach:
                memories.append(near[number][0])
                ages.append(age)
        past = [record for record in prompted if self._age(record.frame, frame) >= 0]
        pointers = [record.pointer[0] for record in past]
        times = [self._age(record.frame, frame) for record in past]
        last = {**self.pointers, **{record.frame: record.pointer for record in others}}
        for number in sorted(last, key=lambda number: self._age(number, frame)):
            age = self._age(number, frame)
            if 0 < age < longest:
                pointers.append(last[number][0])
                times.append(age)
        return Recall(memories, ages, pointers, times)
