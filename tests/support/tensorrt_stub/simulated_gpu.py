"""A GPU that is not there: device memory, streams, events and graphs, whose work happens when somebody waits for it.

Work is queued as closures and done at the first synchronisation that covers it. Page-locked host memory is real, and
is poisoned when a copy into it is queued, so that whoever reads before waiting reads nonsense. What a real GPU answers
with undefined behaviour (an address of freed memory, a host pointer where a device pointer belongs, memory freed while
it is in use) is a `MisuseError` here, kept in `GPU.mistakes` as well, in case the caller swallows it.
"""

from __future__ import annotations

import ctypes
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

POISON = 0xCD
DEVICE_BASE = 0x7F0000000100  # no address that a host allocation of the tests could have; aligned to 256, not to 512


class MisuseError(AssertionError):
    """What would be undefined behaviour."""


@dataclass
class Work:
    """One queued operation and the device memory that it refers to."""

    run: Callable[[], None]
    blocks: tuple[int, ...] = ()
    label: str = ""
    when_queued: Callable[[], None] | None = None


@dataclass
class Stream:
    """A queue of work."""

    number: int
    queue: list[Work] = field(default_factory=list)
    done: int = 0
    captured: list[Work] | None = None
    capturer: int | None = None
    invalidated: bool = False
    alive: bool = True


@dataclass
class Event:
    """A mark in a stream."""

    number: int
    stream: Stream | None = None
    position: int = 0
    alive: bool = True


@dataclass
class Block:
    """Device memory: its bytes, and how many of them the last copy wrote."""

    address: int
    data: np.ndarray
    written: int | None = None
    alive: bool = True
    adopted: bool = False


class Gpu:
    """The simulated machine; `reset` makes it new."""

    def __init__(self) -> None:
        self.reset()

    def reset(
        self,
        *,
        capability: tuple[int, int] = (9, 0),
        name: str = "Simulated H200",
        memory: int = 1 << 30,
        devices: int = 1,
        driver: bool = True,
    ) -> None:
        self.capability = capability
        self.name = name
        self.memory = memory
        self.devices = devices
        self.driver = driver
        self.lock = threading.RLock()
        self.current = threading.local()
        self.blocks: dict[int, Block] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.streams: dict[int, Stream] = {}
        self.default = Stream(0)  # the stream that handle 0 stands for
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self.mistakes: list[str] = []
        self.calls: dict[str, int] = {}
        self.pinned_limit: int | None = None
        self.build_memory = 0
        self._numbers = itertools.count(1)
        self._addresses = itertools.count(DEVICE_BASE, 1 << 32)

    def count(self, what: str) -> None:
        with self.lock:
            self.calls[what] = self.calls.get(what, 0) + 1

    def mistake(self, text: str) -> MisuseError:
        self.mistakes.append(text)
        return MisuseError(text)

    def number(self) -> int:
        return next(self._numbers)

    # --- memory -------------------------------------------------------------------------------------------------------

    @property
    def used(self) -> int:
        return sum(block.data.nbytes for block in self.blocks.values() if block.alive and not block.adopted)

    def allocate(self, size: int) -> int | None:
        """The address of new device memory, or None when there is no room."""
        with self.lock:
            if self.used + size > self.memory:
                return None
            address = next(self._addresses)
            self.blocks[address] = Block(address, np.full(size, POISON, np.uint8))
            return address

    def adopt(self, address: int, data: np.ndarray) -> None:
        """Memory that another library has allocated on the device, at an address of its own."""
        with self.lock:
            self.blocks[address] = Block(address, data, adopted=True)

    def free(self, address: int) -> bool:
        with self.lock:
            block = self.blocks.get(address)
            if block is None or not block.alive:
                return False
            for stream in self.streams.values():
                if any(address in work.blocks for work in stream.queue[stream.done :]):
                    raise self.mistake("device memory was freed while queued work uses it")
            block.alive = False
            block.data = np.zeros(0, np.uint8)
            return True

    def block(self, address: int, size: int, doing: str) -> tuple[Block, int]:
        """The live block that holds these bytes, and the offset in it."""
        for block in self.blocks.values():
            if block.address <= address < block.address + max(block.data.nbytes, 1):
                if not block.alive:
                    break
                if address + size > block.address + block.data.nbytes:
                    raise self.mistake(f"{doing}: {size} bytes do not fit the {block.data.nbytes} bytes at the address")
                return block, address - block.address
        freed = any(b.address == address and not b.alive for b in self.blocks.values())
        raise self.mistake(f"{doing}: {'freed memory' if freed else 'no device address'} ({address:#x})")

    def allocate_pinned(self, size: int) -> int | None:
        with self.lock:
            if self.pinned_limit is not None and sum(a.nbytes for a in self.pinned.values()) + size > self.pinned_limit:
                return None
            array = np.full(size, POISON, np.uint8)
            self.pinned[array.ctypes.data] = array
            return int(array.ctypes.data)

    def is_pinned(self, address: int, size: int) -> bool:
        return any(a <= address and address + size <= a + array.nbytes for a, array in self.pinned.items())

    def host(self, address: int, size: int) -> np.ndarray:
        """Host memory at an address: page-locked, or any other, which had better exist."""
        if address >= DEVICE_BASE and any(
            b.address <= address < b.address + (b.data.nbytes if b.adopted else 1 << 32) for b in self.blocks.values()
        ):
            raise self.mistake("a device pointer was given where a host pointer belongs")
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    # --- work ---------------------------------------------------------------------------------------------------------

    def enqueue(self, stream: Stream, work: Work) -> None:
        with self.lock:
            if not stream.alive:
                raise self.mistake(f"{work.label} on a destroyed stream")
            if stream.captured is not None:
                stream.captured.append(work)
                return
            stream.queue.append(work)
            if work.when_queued is not None:
                work.when_queued()

    def drain(self, stream: Stream, until: int | None = None) -> None:
        """Does what a stream holds, up to a position."""
        end = len(stream.queue) if until is None else until
        while stream.done < end:
            work = stream.queue[stream.done]
            stream.done += 1
            work.run()

    def capturing(self) -> Stream | None:
        """The stream that this thread is capturing."""
        me = threading.get_ident()
        return next((s for s in self.streams.values() if s.captured is not None and s.capturer == me), None)

    def leaks(self) -> list[str]:
        """What was never given back."""
        left = [f"device memory of {b.data.nbytes} bytes" for b in self.blocks.values() if b.alive and not b.adopted]
        left += [f"page-locked memory of {a.nbytes} bytes" for a in self.pinned.values()]
        left += [f"stream {s.number}" for s in self.streams.values() if s.alive]
        left += [f"event {e.number}" for e in self.events.values() if e.alive]
        return left + [f"graph {n}" for n in (*self.graphs, *self.executables)]


GPU = Gpu()
