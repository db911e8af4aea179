"""An engine's lanes: a bounded number of runs at once, from any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lensmount.errors import ClosedError
from lensmount_tensorrt.engine import Engine
from lensmount_tensorrt.lanes import Lane


class Lanes:
    """At most so many lanes, made when they are needed; who finds none free waits."""

    def __init__(self, engine: Engine, limit: int, graphs: bool | None) -> None:
        self._engine: Engine | None = engine
        self._cuda = engine.cuda
        self._subject = engine.subject
        self._limit = limit
        self._graphs = graphs
        self._made = 0
        self._idle: list[Lane] = []
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """A lane for the block, the one used last first: it has the shapes at hand. The device is current in it.

        Raises:
            ClosedError: The session was closed.
            DeviceMemoryError: There is no room for another lane.
        """
        taken = self._take()
        with self._cuda.current():
            lane = taken or self._make()
            try:
                yield lane
            finally:
                self._give_back(lane)

    def _take(self) -> Lane | None:
        """An idle lane, or None for leave to make one."""
        with self._changed:
            while True:
                if self._engine is None:
                    raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")
                if self._idle:
                    return self._idle.pop()
                if self._made < self._limit:
                    self._made += 1
                    return None
                self._changed.wait()

    def _make(self) -> Lane:
        engine = self._engine
        try:
            if engine is None:
                raise ClosedError(f"the session of {self._subject} was closed", fix="load the model again")
            return Lane(engine, self._graphs)
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise

    def _give_back(self, lane: Lane) -> None:
        with self._changed:
            if self._engine is not None:
                self._idle.append(lane)
                self._changed.notify()
                return
        lane.free()

    def close(self) -> None:
        """Frees idle lanes now and the others when their runs end; a second call does nothing."""
        with self._changed:
            idle, self._idle, self._engine = self._idle, [], None
            self._changed.notify_all()
        if idle:
            with self._cuda.current():
                for lane in idle:
                    lane.free()
