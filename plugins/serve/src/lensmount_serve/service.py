"""One request's way: a place, pixels, a run, results; with a deadline over all of it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from lensmount.backend import cpu_count
from lensmount.specs.options import check_names
from lensmount_serve.batching import Job
from lensmount_serve.failures import AnswerError
from lensmount_serve.metrics import Metrics
from lensmount_serve.pictures import Source, check, decode
from lensmount_serve.pool import Held, Pool
from lensmount_serve.settings import Settings

T = TypeVar("T")
_FETCHES = 8


@dataclass(frozen=True, slots=True)
class Call:
    """How a model is called on pictures.

    Attributes:
        method: Of the model: `__call__`, `segment_images`.
        options: Names and hashable values; requests with equal ones share runs.
        shared: False where what it asks is of one picture: prompts.
    """

    method: str = "__call__"
    options: tuple[tuple[str, Any], ...] = ()
    shared: bool = True

    def __call__(self, model: Any, pictures: list[Any]) -> Sequence[Any]:
        """Runs it; one result per picture."""
        call = model if self.method == "__call__" else getattr(model, self.method)
        found = call(pictures, **{name: thaw(value) for name, value in self.options})
        return [found[i : i + 1] for i in range(len(pictures))] if not isinstance(found, list) else found


def freeze(value: Any) -> Any:
    """Lists as tuples, so that options can be compared and be keys."""
    return tuple(freeze(item) for item in value) if isinstance(value, (list, tuple)) else value


def thaw(value: Any) -> Any:
    """What `freeze` was given."""
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model gave.

    Attributes:
        results: One per picture.
        pictures: Decoded.
        held: The model.
        seconds: Of `decode`, `wait` and `run`.
    """

    results: list[Any]
    pictures: list[Any]
    held: Held
    seconds: Mapping[str, float]


class Service:
    """What the routes share.

    Args:
        settings: The operator's.
        pool: The models.
        metrics: Where stages are timed.
    """

    def __init__(self, settings: Settings, pool: Pool, metrics: Metrics) -> None:
        self.settings = settings
        self.pool = pool
        self.metrics = metrics
        self._workers = ThreadPoolExecutor(max(2, cpu_count()), "lensmount-serve")
        self._fetchers = ThreadPoolExecutor(_FETCHES, "lensmount-fetch")  # these wait for others' servers

    def deadline(self) -> float:
        """`time.monotonic()` at which a request that begins now is given up."""
        return time.monotonic() + self.settings.timeout

    async def aside(self, work: Callable[..., T], *arguments: Any) -> T:
        """Runs work in a thread, so that other requests go on."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, work, *arguments)

    async def pictures(self, sources: Sequence[Source]) -> list[Any]:
        """Pixels of all pictures of a request.

        Raises:
            AnswerError: 400, for too many, or one that cannot be had.
            ImageError: One cannot be used.
        """
        if len(sources) > self.settings.max_images:
            raise AnswerError(
                400, f"a request has at most {self.settings.max_images} pictures; this one {len(sources)}"
            )
        for source in sources:
            check(source, self.settings)
        loop = asyncio.get_running_loop()
        pool = self._fetchers if any(source.kind == "url" for source in sources) else self._workers
        return [await loop.run_in_executor(pool, decode, source, self.settings) for source in sources]

    async def predict(
        self,
        name: str,
        sources: Sequence[Source],
        call: Callable[[Held], Call],
        *,
        prepare: Callable[[Held], None],
    ) -> Answer:
        """Runs a model on a request's pictures, together with those of other requests.

        Args:
            name: The client's name of the model.
            sources: Its pictures.
            call: How to call the model, once it is known.
            prepare: Checks what the request asks of this model.
        """
        deadline = self.deadline()
        async with self.pool.using(name, deadline) as held:
            prepare(held)
            wanted = call(held)
            check_options(held, wanted)
            with held.batcher.admitted():
                start = time.monotonic()
                pictures = await self.pictures(sources)
                decoded = time.monotonic() - start
                job = Job(wanted, pictures, wanted if wanted.shared else None, deadline)
                results, waited, took = await self._result(held, job)
            return self._answer(results, pictures, held, decoded, waited, took)

    async def alone(
        self,
        name: str,
        sources: Sequence[Source],
        work: Callable[[Any, list[Any]], Any],
        *,
        prepare: Callable[[Held], None],
    ) -> tuple[Any, Answer]:
        """Runs work on a model, shared with nobody; what it returned, and an answer without results.

        Args:
            name: The client's name of the model.
            sources: Pictures of the request.
            work: Called with the model and pixels, where models run.
            prepare: Checks what the request asks of this model.
        """
        deadline = self.deadline()
        async with self.pool.using(name, deadline) as held:
            prepare(held)
            with held.batcher.admitted():
                start = time.monotonic()
                pictures = await self.pictures(sources)
                decoded = time.monotonic() - start
                job = Job(lambda model, _: [work(model, pictures)], [], None, deadline)
                results, waited, took = await self._result(held, job)
            return results[0], self._answer([], pictures, held, decoded, waited, took)

    async def _result(self, held: Held, job: Job) -> tuple[list[Any], float, float]:
        future = asyncio.wrap_future(held.batcher.submit(job))
        try:
            return await asyncio.wait_for(future, max(0.0, job.deadline - time.monotonic()))
        except asyncio.TimeoutError:
            raise AnswerError(504, f"no answer within {self.settings.timeout:g} seconds") from None

    def _answer(
        self, results: list[Any], pictures: list[Any], held: Held, decoded: float, waited: float, took: float
    ) -> Answer:
        seconds = {"decode": decoded, "wait": waited, "run": took}
        for stage, value in seconds.items():
            self.metrics.stage(stage, held.key, value)
        return Answer(results, pictures, held, seconds)

    def close(self) -> None:
        """Ends the threads."""
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._fetchers.shutdown(wait=False, cancel_futures=True)


def known_options(model: Any, method: str = "__call__") -> list[str]:
    """Names of the options that a call of a model takes."""
    call = model.__call__ if method == "__call__" else getattr(model, method)
    return list(inspect.signature(call).parameters)[1:]  # the first are the pictures


def check_options(held: Held, call: Call) -> None:
    """Refuses options that the model's call does not have.

    Raises:
        UnknownOptionError: With those that it has.
    """
    names = known_options(held.model, call.method)
    check_names(dict(call.options), [name for name in names if name != "color"], f"a call of {held.key!r}")
