"""What a process can draw on: the plugins' contributions, the machine, and the backends that can run on it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from lensmount.errors import ModelNotFoundError

if TYPE_CHECKING:
    from lensmount.host.discovery import Candidate, Index, PluginStatus
    from lensmount.machine.environment import Environment
    from lensmount.specs import Architecture, Backend, BackendStatus, ModelCard

Name = str | os.PathLike[str]
"""What users call a model: an id, a path, an address."""


class Site:
    """Plugins, backends and facts of the machine, collected at first use and kept until `refresh`.

    Args:
        candidates: Gives the plugins to load; None for every installed entry point of group `lensmount`. What the
            core itself brings is always there.
        environment: Facts of the machine; None to look.
    """

    def __init__(
        self, candidates: Callable[[], Iterable[Candidate]] | None = None, environment: Environment | None = None
    ) -> None:
        self._candidates = candidates
        self._given_environment = environment
        self._environment = environment
        self._added: list[Candidate] = []
        self._found: list[Candidate] | None = None
        self._index: Index | None = None
        self._probed: list[tuple[Backend, BackendStatus]] | None = None
        self._lock = threading.RLock()

    @property
    def index(self) -> Index:
        """All that the plugins contribute."""
        with self._lock:
            if self._index is None:
                self._index = self._collect()
            return self._index

    def index_of(self, *hooks: str) -> Index:
        """What the plugins contribute through these hooks alone: no catalogue of models is read for it."""
        with self._lock:
            return self._index or self._collect(hooks)

    def _collect(self, hooks: Collection[str] | None = None) -> Index:
        from lensmount.host import discovery
        from lensmount.specs.logs import configure

        configure()
        if self._found is None:
            self._found = list((self._candidates or discovery.find_entry_points)())
        candidates = [discovery.builtin(), *self._found, *self._added]
        return discovery.collect(candidates, hooks=discovery.HOOKS if hooks is None else hooks)

    @property
    def environment(self) -> Environment:
        """What this machine has."""
        with self._lock:
            if self._environment is None:
                from lensmount.machine.environment import detect

                self._environment = detect()
            return self._environment

    def refresh(self) -> None:
        """Forgets what was collected; the next use discovers plugins and the machine again."""
        with self._lock:
            self._found = None
            self._index = None
            self._probed = None
            self._environment = self._given_environment

    def add_plugin(self, plugin: object, name: str | None) -> PluginStatus:
        """Adds a module or object that implements hooks; see `lensmount.registry.Registry.add_plugin`.

        Raises:
            PluginError: It is broken, and `LENSMOUNT_STRICT=1`.
        """
        from lensmount.host import discovery

        with self._lock:
            earlier = list(self._added)
            self._added.append(discovery.given(plugin, name))
            self._index = None
            self._probed = None
            state: str = "broken"  # also where LENSMOUNT_STRICT makes it an error
            try:
                status = self.index.statuses[-1]
                state = status.state
            finally:
                if state == "broken":
                    self._added = earlier
            return status

    def backends(self) -> list[tuple[Backend, BackendStatus]]:
        """Every backend, and whether it can run here."""
        with self._lock:
            if self._probed is None:
                self._probed = [(b, _probe(b, self.environment)) for b in self.index.backends.values()]
            return list(self._probed)

    def architecture_of(self, card: ModelCard) -> Architecture:
        """The architecture that runs a card.

        Raises:
            ModelNotFoundError: No installed plugin brings it.
            UnsupportedModelError: It does not run the card's task.
        """
        found = self.index.architectures.get(card.architecture)
        if found is None:
            from lensmount.host.hints import known_plugin

            plugin = known_plugin(card.architecture) or f"a plugin for {card.architecture!r}"
            missing = [] if plugin in {s.distribution for s in self.index.broken} else [f"pip install {plugin}"]
            raise ModelNotFoundError(
                f"{card.id!r} needs architecture {card.architecture!r}, which no installed plugin brings",
                found=", ".join(self.index.architectures) or "no architectures",
                fix="; ".join([*missing, *self.index.left_out]),
            )
        if card.task not in found.tasks:
            from lensmount.errors import UnsupportedModelError

            raise UnsupportedModelError(
                f"{card.id!r} has a task that architecture {found.name!r} does not run here",
                found=card.task,
                expected=", ".join(found.tasks),
                fix=f"a newer version of {self.index.owners['lensmount_architectures', found.name]} may",
            )
        return found


def _probe(backend: Backend, environment: Environment) -> BackendStatus:
    """Asks a backend; one that fails to answer is not usable, and the others are asked all the same."""
    from lensmount.errors import LensmountError
    from lensmount.specs import BackendStatus
    from lensmount.specs.imports import import_string

    try:
        status = import_string(backend.probe, f"backend {backend.name!r}")(environment)
    except Exception as error:  # a third party's probe, guarded like discovery
        why = error.details if isinstance(error, LensmountError) else f"its probe failed: {error!r}"
        return BackendStatus(usable=False, reason=why)
    if not isinstance(status, BackendStatus):
        return BackendStatus(usable=False, reason=f"its probe returned {type(status).__name__}, not BackendStatus")
    return status
