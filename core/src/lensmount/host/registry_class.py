"""The plugin host: what is installed, what it can load, and the loading. Users meet it as `lensmount.registry`."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelNotFoundError, UnknownBackendError

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.discovery import Candidate, Index, PluginStatus
    from lensmount.host.selection import LoadPlan
    from lensmount.machine.environment import Environment
    from lensmount.specs import Architecture, Backend, BackendStatus, ModelCard

Name = str | os.PathLike[str]


class Registry:
    """Plugins, and the models that can be loaded through them.

    Args:
        candidates: Gives the plugins to load; None for every installed entry point of group `lensmount`. The core's
            own backends, sources and caches are always there.
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
        """All that the plugins contribute; collected at first use."""
        with self._lock:
            if self._index is None:
                self._index = self._collect()
            return self._index

    def index_of(self, *hooks: str) -> Index:
        """What the plugins contribute through these hooks alone: no catalogue of models is read for it."""
        with self._lock:
            return self._index or self._collect(hooks)

    def _collect(self, hooks: Collection[str] | None = None) -> Index:
        from lensmount.host import discovery as plugins

        if self._found is None:
            self._found = list((self._candidates or plugins.find_entry_points)())
        candidates = [plugins.builtin(), *self._found, *self._added]
        return plugins.collect(candidates, hooks=plugins.HOOKS if hooks is None else hooks)

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

    def add_plugin(self, plugin: object, name: str | None = None) -> PluginStatus:
        """Adds a module or object that implements hooks, as if it were installed.

        Args:
            plugin: Implements hooks marked with `lensmount.specs.hookimpl`.
            name: Name to list it under.

        Returns:
            What became of it; a broken plugin is left out and warned about.

        Raises:
            PluginError: It is broken, and `LENSMOUNT_STRICT=1`.
        """
        from lensmount.host import discovery as plugins

        with self._lock:
            earlier = list(self._added)
            self._added.append(plugins.given(plugin, name))
            self._index = None
            self._probed = None
            state: str = "broken"  # LENSMOUNT_STRICT makes it an error
            try:
                status = self.index.statuses[-1]
                state = status.state
            finally:
                if state == "broken":
                    self._added = earlier
            return status

    def plugins(self) -> list[PluginStatus]:
        """Every plugin found, and what became of it."""
        return list(self.index.statuses)

    def backends(self) -> list[tuple[Backend, BackendStatus]]:
        """Every backend, and whether it can run here."""
        with self._lock:
            if self._probed is None:
                self._probed = [(b, _probe(b, self.environment)) for b in self.index.backends.values()]
            return list(self._probed)

    def models(self, *, task: str | None = None, architecture: str | None = None) -> list[ModelCard]:
        """Cards of the models that installed plugins know, sorted by id; no network, nothing heavy imported.

        Args:
            task: Only of this task.
            architecture: Only of this architecture.
        """
        entries = {id(e): e for entries in self.index.cards.values() for e in entries}.values()
        cards = [
            e.card
            for e in entries
            if (task is None or e.card.task == task) and (architecture is None or e.card.architecture == architecture)
        ]
        return sorted(cards, key=lambda card: card.id)

    def describe(
        self,
        id_or_path: Name,
        *,
        architecture: str | None = None,
        source: str | None = None,
        api_key: str | None = None,
        offline: bool | None = None,
    ) -> ModelCard:
        """The card of a model, without loading it.

        Raises:
            ModelNotFoundError: No plugin, file or address has this name.
        """
        card, _ = self.find(id_or_path, architecture=architecture, source=source, api_key=api_key, offline=offline)
        return card

    def explain(
        self,
        id_or_path: Name,
        *,
        backend: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        architecture: str | None = None,
        task: str | None = None,
        source: str | None = None,
        api_key: str | None = None,
        offline: bool | None = None,
        **options: Any,
    ) -> LoadPlan:
        """Which package would be loaded, and why every other would not; nothing is fetched or opened.

        The arguments are those of `load`; its other options matter to `backend="fastest"` alone.

        Returns:
            The plan: prints as a table; `.selected`, `.choices`, `.rejected[i].package`, `.rejected[i].reasons`.

        Raises:
            ModelNotFoundError: No plugin, file or address has this name.
            UnknownBackendError: No plugin registers the backend asked for.
            UnknownOptionError: An option that does not exist.
        """
        from lensmount.host.measured import FASTEST
        from lensmount.host.opening import split_options

        card, _ = self.find(
            id_or_path, architecture=architecture, task=task, source=source, api_key=api_key, offline=offline
        )
        timed = backend == FASTEST or options
        groups = split_options(options, self.architecture_of(card), card) if timed else ()
        return self.plan(card, backend, device, precision, name=id_or_path, options=groups)

    def load(
        self,
        id_or_path: Name,
        *,
        backend: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        architecture: str | None = None,
        task: str | None = None,
        package: str | None = None,
        caches: Mapping[str, Any] | None = None,
        offline: bool | None = None,
        source: str | None = None,
        api_key: str | None = None,
        locked: bool | str | os.PathLike[str] = False,
        allow_insecure: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a model; see `lensmount.registry.load`."""
        from lensmount.host.opening import DeviceNotice, open_and_build, require_choice, split_options

        card, fetch = self.find(
            id_or_path,
            architecture=architecture,
            task=task,
            source=source,
            api_key=api_key,
            offline=offline,
            locked=locked,
            allow_insecure=allow_insecure,
        )
        found = self.architecture_of(card)
        session_options, own = split_options(options, found, card)
        groups = (session_options, own)
        plan = self.plan(card, backend, device, precision, package, name=id_or_path, options=groups)
        if plan.selected is None and backend in self.index.backends and package is None:
            from lensmount.host.engines_load import build_or_refuse

            plan = build_or_refuse(self, plan, self.index.backends[backend], session_options.build, fetch)
        choice = require_choice(plan)
        if plan.notes:
            import warnings

            warnings.warn("\n".join(plan.notes), DeviceNotice, stacklevel=3)
        return open_and_build(
            choice,
            card,
            found,
            self.index,
            requested_precision=precision,
            fetch=fetch,
            session_options=session_options,
            options=own,
            caches=caches or {},
        )

    def find(
        self,
        name: Name,
        *,
        architecture: str | None = None,
        task: str | None = None,
        source: str | None = None,
        api_key: str | None = None,
        offline: bool | None = None,
        locked: bool | str | os.PathLike[str] = False,
        allow_insecure: bool = False,
    ) -> tuple[ModelCard, FetchOptions]:
        """The card, and how its files may be fetched."""
        from lensmount.contracts.finder import FetchOptions
        from lensmount.host.resolve import resolve

        if source is not None:
            name = f"{source}://{os.fspath(name)}"
        scheme = os.fspath(name).partition("://")[0]
        fetch = FetchOptions(
            offline=offline,
            allow_insecure=allow_insecure,
            credentials={} if api_key is None else {scheme: api_key},
        )
        card = resolve(name, self.index, architecture=architecture, task=task, fetch=fetch)
        if locked is not False:
            from lensmount.store.lock import NAME, read_lock

            card = read_lock(Path(NAME if locked is True else locked)).apply(card)
        return card, fetch

    def architecture_of(self, card: ModelCard) -> Architecture:
        """The architecture that runs a card.

        Raises:
            ModelNotFoundError: No installed plugin brings it.
            UnsupportedModelError: It does not run the card's task.
        """
        found = self.index.architectures.get(card.architecture)
        if found is None:
            from lensmount.host.resolve import known_plugin

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

    def plan(
        self,
        card: ModelCard,
        backend: str | None,
        device: str | None,
        precision: str | None,
        package: str | None = None,
        *,
        name: Name | None = None,
        options: Iterable[Any] = (),
    ) -> LoadPlan:
        """Which package would be loaded, and why not the others.

        Args:
            card: The model.
            backend: As for `load`.
            device: As for `load`.
            precision: As for `load`.
            package: As for `load`.
            name: What the user called the model, for the command that measures it; None for the card's id.
            options: The load's options as dataclasses, which measured times have to be of.

        Raises:
            UnknownBackendError: No plugin registers the backend asked for.
        """
        from lensmount.host.measured import FASTEST

        plan = self.candidates(card, backend, device, precision, package)
        if backend == FASTEST:
            from lensmount.host.measured_lookup import by_times

            return by_times(plan, self.index, self.environment, self.backends(), name or card.id, options)
        return plan

    def candidates(
        self,
        card: ModelCard,
        backend: str | None,
        device: str | None,
        precision: str | None,
        package: str | None = None,
    ) -> LoadPlan:
        """What can run as asked, in the default order; of `fastest` all that it chooses among.

        Raises:
            UnknownBackendError: No plugin registers the backend asked for.
        """
        from lensmount.host.measured import FASTEST
        from lensmount.host.selection import Request, select

        if backend not in (None, FASTEST, *self.index.backends):
            known = [*self.index.backends, FASTEST]
            near = difflib.get_close_matches(str(backend), known, 1)
            fixes = [f"did you mean {near[0]!r}?" if near else "install the plugin that brings it; lensmount doctor"]
            raise UnknownBackendError(
                f"no backend {backend!r}",
                found=", ".join(known),
                expected="one of those found",
                fix="; ".join([*fixes, *self.index.left_out]),
            )
        for candidate in self.index.backends.values():
            if backend in (candidate.name, FASTEST):
                from lensmount.host.engines import with_built

                card = with_built(card, candidate)
        named = None if backend == FASTEST else backend
        request = Request(backend=named, device=device, precision=precision, package=package)
        architecture = self.index.architectures.get(card.architecture)
        return select(card, architecture, self.backends(), self.environment, request)


def _probe(backend: Backend, environment: Environment) -> BackendStatus:
    """Asks a backend; a backend whose probe fails counts as not usable, and the others are still asked."""
    from lensmount.errors import LensmountError
    from lensmount.specs import BackendStatus
    from lensmount.specs.imports import import_string

    try:
        status = import_string(backend.probe, f"backend {backend.name!r}")(environment)
    except Exception as error:  # a third party's probe, guarded like discovery
        reason = error.details if isinstance(error, LensmountError) else f"its probe failed: {error!r}"
        return BackendStatus(usable=False, reason=reason)
    if not isinstance(status, BackendStatus):
        return BackendStatus(usable=False, reason=f"its probe returned {type(status).__name__}, not BackendStatus")
    return status
