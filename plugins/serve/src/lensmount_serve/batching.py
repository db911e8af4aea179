"""Requests of one model, waiting together and run together.

Waiting requests that ask for the same (equal options) share a run. How many may be held is bounded when they are
admitted, before a picture is decoded: memory and waiting time are bounded by the same number.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import randrange
from typing import Any

from lensmount.errors import ClosedError
from lensmount.specs.logs import log
from lensmount_serve.failures import AnswerError

_SMOOTHING = 0.2
_SPREAD = 3  # seconds over which those that were refused come again


@dataclass(eq=False, slots=True)
class Job:
    """What one request wants of a model.

    Attributes:
        run: Called with the model and pictures; one result per picture, or one for a job without pictures.
        pictures: Decoded pictures.
        key: Jobs of equal keys share a run; None for a run of its own.
        deadline: `time.monotonic()` after which nobody waits for it.
        future: Gets the results, and how long the job waited and its run took, in seconds.
    """

    run: Callable[[Any, list[Any]], Sequence[Any]]
    pictures: list[Any]
    key: Hashable | None
    deadline: float
    future: Future[tuple[list[Any], float, float]] = field(default_factory=Future)
    born: float = field(default_factory=time.monotonic)

    @property
    def weight(self) -> int:
        """Pictures that it adds to a run."""
        return max(len(self.pictures), 1)


class Batcher:
    """Threads that run a model on what waits for it.

    Args:
        model: The loaded model.
        size: Most pictures in one run; a request of more is a run of its own.
        wait: Seconds that a run waits to be filled.
        threads: Runs at once.
        room: Requests admitted at once: those that wait and those that run.
        observe: Called with the pictures of each run.
    """

    def __init__(
        self, model: Any, *, size: int, wait: float, threads: int, room: int, observe: Callable[[int], None]
    ) -> None:
        self._model = model
        self._size = size
        self._wait = wait
        self._room = room
        self._observe = observe
        self._held = 0
        self._seconds = 0.0
        self._count = threads
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"lensmount-run-{i}") for i in range(threads)]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Holds a place for one request.

        Raises:
            AnswerError: 429, when there is none; with the seconds after which one is likely.
        """
        with self._changed:
            if self._held >= self._room:
                ahead = self._held * max(self._seconds, 0.001) / self._count
                again = max(1, math.ceil(ahead)) + randrange(_SPREAD)  # not all at the same moment
                raise AnswerError(429, "too many requests wait for this model", retry_after=again)
            self._held += 1
        try:
            yield
        finally:
            with self._changed:
                self._held -= 1

    def submit(self, job: Job) -> Future[tuple[list[Any], float, float]]:
        """Puts a job behind those that wait; cancelling the future takes it out again."""
        with self._changed:
            if self._closed:
                raise ClosedError("the model was closed")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self, seconds: float) -> None:
        """Runs what waits, then stops; jobs that are left after `seconds` fail."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        with self._changed:
            left, self._jobs = list(self._jobs), deque()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(ClosedError("the server was stopped"))

    def _work(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._run(batch)

    def _take(self) -> list[Job] | None:
        """Jobs of one run; an empty list where all were given up, None once closed."""
        with self._changed:
            while not self._jobs:
                if self._closed:
                    return None
                self._changed.wait()
            first = self._jobs.popleft()
            batch, count = [first], first.weight
            if first.key is not None:
                count = self._gather(first.key, batch, count)
                end = time.monotonic() + self._wait
                while count < self._size and not self._closed and (left := end - time.monotonic()) > 0:
                    self._changed.wait(left)
                    count = self._gather(first.key, batch, count)
                if self._jobs:
                    self._changed.notify()
        return [job for job in batch if _begun(job)]

    def _gather(self, key: Hashable, batch: list[Job], count: int) -> int:
        """Moves the jobs that fit into a batch; the others keep their order."""
        left: deque[Job] = deque()
        for job in self._jobs:
            if job.key == key and count + job.weight <= self._size:
                batch.append(job)
                count += job.weight
            else:
                left.append(job)
        self._jobs = left
        return count

    def _run(self, batch: list[Job]) -> None:
        pictures = [picture for job in batch for picture in job.pictures]
        start = time.monotonic()
        try:
            results = list(batch[0].run(self._model, pictures))
            if pictures and len(results) != len(pictures):
                raise RuntimeError(f"the model gave {len(results)} results for {len(pictures)} pictures")
        except BaseException as error:
            if len(batch) > 1:  # one of them is at fault; the others are not to suffer for it
                for job in batch:
                    self._run([job])
                return
            batch[0].future.set_exception(error)
            return
        took = time.monotonic() - start
        self._seconds += _SMOOTHING * (took - self._seconds) if self._seconds else took
        self._observe(len(pictures) or 1)
        place = 0
        for job in batch:
            count = len(job.pictures) if pictures else len(results)
            job.future.set_result((results[place : place + count], start - job.born, took))
            place += count


def _begun(job: Job) -> bool:
    """Marks a job as running; False where its client is gone or was told that it is late."""
    if not job.future.set_running_or_notify_cancel():
        log("serve", "debug", "a request was given up while it waited")
        return False
    if time.monotonic() > job.deadline:
        job.future.set_exception(AnswerError(504, "the request waited longer than the server's time limit"))
        return False
    return True
