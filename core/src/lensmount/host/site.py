"""What a process can draw on: the plugins' contributions, the machine, and the backends that can run on it."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from lensmount.errors import LensmountError, ModelNotFoundError, PluginWarning, UnsupportedModelError, reason
from lensmount.specs import BackendStatus

if TYPE_CHECKING:
    from lensmount.host.discovery import Candidate, Index, PluginStatus
    from lensmount.machine.environment import Environment
    from lensmount.specs import Architecture, Backend, ModelCard

Name = str | os.PathLike[str]
"""What users call a model: an id, a path, an address."""


class Site:
    """Plugins, backends and facts of the machine, collected at first use and kept until `refresh`; as `Registry`."""

    def __init__(
        self, candidates: Callable[[], Iterable[Candidate]] | None = None, environment: Environment | None = None
    ) -> None:
        self._candidates = candidates
        self._given_environment = environment
        self._environment = environment
        self._added: list[Candidate] = []
        self._found: list[Candidate] | None = None
        self._index: Index | None = None
        self._probed: dict[str, BackendStatus] = {}
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
            self._found = self._index = None
            self._probed = {}
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
            self._probed = {}
            state: str = "broken"  # also where LENSMOUNT_STRICT makes it an error
            try:
                status = self.index.statuses[-1]
                state = status.state
            finally:
                if state == "broken":
                    self._added = earlier
            return status

    def backends(self, name: str | None = None) -> list[tuple[Backend, BackendStatus]]:
        """Every backend, and whether it can run here; where one is named, the others are not asked."""
        with self._lock:
            known = self.index.backends
            for backend in [known[name]] if name in known else known.values():
                if backend.name not in self._probed:
                    self._probed[backend.name] = _probe(backend, self.environment)
            unasked = BackendStatus(usable=False, reason="not asked")
            return [(backend, self._probed.get(backend.name, unasked)) for backend in known.values()]

    def status(self, backend: Backend) -> BackendStatus:
        """Whether one backend can run here."""
        return next(status for each, status in self.backends(backend.name) if each.name == backend.name)

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
            raise UnsupportedModelError(
                f"{card.id!r} has a task that architecture {found.name!r} does not run here",
                found=card.task,
                expected=", ".join(found.tasks),
                fix=f"a newer version of {self.index.owners['lensmount_architectures', found.name]} may",
            )
        return found


def _probe(backend: Backend, environment: Environment) -> BackendStatus:
    """Asks a backend; one that fails to answer is not usable, and the others are asked all the same."""
    from lensmount.specs.imports import call_quickly, patience

    patience()  # what the user set wrongly is told, not taken for the backend's failure
    owner = f"the probe of backend {backend.name!r}"
    try:
        status: BackendStatus = call_quickly(backend.probe, owner, BackendStatus, environment)
    except (LensmountError, MemoryError) as error:
        why = reason(error).replace("\n ", ";")
        status = BackendStatus(usable=False, reason=why if owner in why else f"{owner}: {why}")
        warnings.warn(status.reason or owner, PluginWarning, stacklevel=2)
    return status
