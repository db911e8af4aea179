"""Models that are held: loaded off the request path, once whatever arrives, the least recently used let go."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lensmount.backend import cpu_count
from lensmount.errors import LensmountError, OptionError, UnknownOptionError, reason
from lensmount.registry import Registry
from lensmount.specs import ModelCard
from lensmount.specs.logs import log
from lensmount_serve.aliases import aliases
from lensmount_serve.batching import Batcher
from lensmount_serve.failures import AnswerError
from lensmount_serve.metrics import Metrics
from lensmount_serve.settings import Settings

_GPU_BATCH = 8
_MOST_NAMES = 32  # under which one model is listed


@dataclass(eq=False, slots=True)
class Held:
    """A model that is loaded and ran once.

    Attributes:
        key: Its id, or the name that it was given at the start.
        model: As `registry.load` made it.
        batcher: What runs it.
        names: Names that clients asked for it by; all are listed.
        users: Requests that are using it.
        dropped: Closed as soon as nobody uses it.
    """

    key: str
    model: Any
    batcher: Batcher
    names: dict[str, None] = field(default_factory=dict)
    users: int = 0
    dropped: bool = False

    @property
    def task(self) -> str:
        """What it does: `object-detection` and so on."""
        return str(self.model.card.task)


class Pool:
    """Loads, holds and lets go. All methods belong to the thread of the event loop.

    Args:
        settings: The operator's.
        registry: Where models come from.
        metrics: Where loads are counted.
        given: Models named at the start: name to id, path or address. These are never let go.
    """

    def __init__(self, settings: Settings, registry: Registry, metrics: Metrics, given: Mapping[str, str]) -> None:
        self._settings = settings
        self._registry = registry
        self._metrics = metrics
        self._given = dict(given)
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Held]] = {}
        self._loader = ThreadPoolExecutor(1, "lensmount-load")
        self._closers = ThreadPoolExecutor(1, "lensmount-close")
        self._cards: dict[str, ModelCard] | None = None
        self.ready = False

    # --- names --------------------------------------------------------------------------------------------------------

    def key_of(self, name: str) -> str:
        """What a client's name stands for: a name given at the start, or an id that installed plugins know.

        Paths and addresses are never taken from clients.

        Raises:
            AnswerError: 404.
        """
        for candidate in (name, aliases().get(name, name)):
            if candidate in self._given:
                return candidate
            if not self._settings.fixed and (card := self.cards.get(candidate)) is not None:
                return next((given for given, target in self._given.items() if target == card.id), card.id)
        meant = aliases().get(name)
        said = f"{name!r} ({meant})" if meant else repr(name)
        raise AnswerError(404, f"there is no model {said[:200]} here")

    @property
    def cards(self) -> dict[str, ModelCard]:
        """Cards by every id and alias that installed plugins know."""
        if self._cards is None:
            found = self._registry.models()
            self._cards = {alias: card for card in found for alias in card.aliases} | {card.id: card for card in found}
        return self._cards

    def loadable(self) -> list[tuple[str, str, bool]]:
        """Name, task and whether it is loaded, of all models that clients may ask for."""
        rows = {key: (key, held.task, True) for key, held in self._held.items()}
        if not self._settings.fixed:
            for card in {id(card): card for card in self.cards.values()}.values():
                rows.setdefault(card.id, (card.id, card.task, False))
        return sorted(rows.values(), key=lambda row: (not row[2], row[0]))

    # --- loading ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def using(self, name: str, deadline: float) -> AsyncIterator[Held]:
        """The model of that name, loaded where it was not; not closed as long as it is used.

        Raises:
            AnswerError: 404 for an unknown name; 503 while it is being loaded and the deadline passes.
        """
        key = self.key_of(name)
        held = self._held.get(key) or await self._wait(key, deadline)
        if key in self._held:
            self._held.move_to_end(key)
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            self._close_unused(held)

    async def add(self, name: str, deadline: float) -> None:
        """Loads a model and lists it under the client's name."""
        async with self.using(name, deadline) as held:
            if len(held.names) >= _MOST_NAMES:
                held.names.pop(next(iter(held.names)))
            held.names[name] = None

    async def _wait(self, key: str, deadline: float) -> Held:
        task = self._loading.get(key)
        if task is None:
            if len(self._loading) >= self._settings.max_models:
                raise AnswerError(503, "too many models are being loaded", retry_after=5)
            task = asyncio.get_running_loop().create_task(self._load(key))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # told by each waiter
            self._loading[key] = task
        try:
            # Whoever gives up does not stop the load: others wait for it, and it will be asked for again.
            left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
            return await asyncio.wait_for(asyncio.shield(task), left)
        except asyncio.TimeoutError:
            raise AnswerError(503, "the model is still being loaded", retry_after=5) from None

    async def _load(self, key: str) -> Held:
        start = time.monotonic()
        loop = asyncio.get_running_loop()
        try:
            self._make_room(self._settings.max_models - 1)
            model = await loop.run_in_executor(self._loader, self._open, self._given.get(key, key))
        except BaseException as error:
            self._metrics.loads.labels("failed").observe(time.monotonic() - start)
            if isinstance(error, LensmountError):
                log("serve", "error", "model %s was not loaded: %s", key, reason(error))
            raise
        finally:
            self._loading.pop(key, None)
        self._metrics.loads.labels("loaded").observe(time.monotonic() - start)
        held = Held(key, model, self._batcher(key, model))
        held.names[key] = None
        self._held[key] = held
        self._metrics.models.set(len(self._held))
        return held

    def _open(self, target: str) -> Any:
        """Loads and runs once, in the loader's thread."""
        asked = self._settings
        common: dict[str, Any] = {"backend": asked.backend, "device": asked.device, "precision": asked.precision}
        try:
            model = self._registry.load(target, **common, max_candidates=asked.max_candidates)
        except UnknownOptionError:  # a network without suppression, which has no candidates
            model = self._registry.load(target, **common)
        model.warmup()
        return model

    def _batcher(self, key: str, model: Any) -> Batcher:
        asked = self._settings
        on_cpu = str(model.device) == "cpu"
        static = getattr(getattr(model, "batch", None), "static", None)
        size = asked.max_batch or static or (1 if on_cpu else _GPU_BATCH)
        threads = asked.concurrency or (2 if on_cpu and cpu_count() > 1 else 1)
        running = size * threads
        return Batcher(
            model,
            size=size,
            wait=asked.max_wait_ms / 1000,
            threads=threads,
            room=running + (asked.max_queue or running),
            observe=self._metrics.batches.labels(key).observe,
        )

    # --- letting go ---------------------------------------------------------------------------------------------------

    def _make_room(self, most: int) -> None:
        free = [held for key, held in self._held.items() if key not in self._given]
        for held in free[: max(0, len(self._held) - most)]:
            self._drop(held)

    def _drop(self, held: Held) -> None:
        self._held.pop(held.key, None)
        self._metrics.models.set(len(self._held))
        held.dropped = True
        self._close_unused(held)

    def _close_unused(self, held: Held) -> None:
        if held.dropped and not held.users:
            held.users = -1  # once
            self._closers.submit(self._shut, held)

    def _shut(self, held: Held) -> None:
        held.batcher.close(self._settings.drain_seconds)
        try:
            held.model.close()
        except Exception as error:
            log("serve", "error", "model %s did not close: %s", held.key, reason(error))

    def remove(self, name: str) -> None:
        """Lets a model go; one that is not held is no error. Models named at the start stay.

        Raises:
            AnswerError: 404 for an unknown name.
        """
        held = self._held.get(self.key_of(name))
        if held is not None and held.key not in self._given:
            self._drop(held)

    def clear(self) -> None:
        """Lets all models go but those named at the start."""
        for held in list(self._held.values()):
            if held.key not in self._given:
                self._drop(held)

    def listed(self) -> list[tuple[str, Held]]:
        """Name and model of all that are held, under each name that was asked for."""
        return [(name, held) for held in self._held.values() for name in held.names]

    # --- start and stop -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Loads what was named at the start; `ready` is true from then on. Raises what a load raises."""
        for name in self._given:
            await self._wait(name, float("inf"))
        self.ready = True

    async def stop(self) -> None:
        """Lets everything go, and waits for it."""
        self.ready = False
        for task in list(self._loading.values()):
            task.cancel()
        for held in list(self._held.values()):
            self._drop(held)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._closers.shutdown)
        self._loader.shutdown(wait=False, cancel_futures=True)


def named(models: Iterable[str], registry: Registry) -> dict[str, str]:
    """What the command line names, by the name that clients use.

    Args:
        models: Ids; files, folders and addresses, which are `local:STEM` to clients; or `NAME=` one of these.
        registry: For ids.

    Raises:
        OptionError: Two have the same name, or a name is empty.
    """
    ids = {name: card.id for card in registry.models() for name in (card.id, *card.aliases)}
    found: dict[str, str] = {}
    for text in models:
        name, mark, target = text.partition("=")
        if text in ids:
            name = target = ids[text]
        elif not mark or Path(text).exists():
            name, target = f"local:{Path(text.partition('#')[0].rstrip('/')).stem}", text
        if not name.strip() or not target.strip():
            raise OptionError("a model is not named", found=repr(text), expected="ID, PATH or NAME=PATH")
        if name in found:
            raise OptionError("two models have the same name", found=name, fix=f"say NAME={target}")
        found[name] = target
    return found
