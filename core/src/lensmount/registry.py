"""The facade: `from lensmount import registry`, then `registry.load("yolov8n-640")`.

The functions of this module work on one registry that is built at first use. `Registry` makes others, for tests
and for programs that want full control of the plugins in them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelNotFoundError, UnknownBackendError

if TYPE_CHECKING:
    from lensmount.environment import Environment
    from lensmount.plugins import Candidate, Index, PluginStatus
    from lensmount.selection import LoadPlan
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
        self._index: Index | None = None
        self._probed: list[tuple[Backend, BackendStatus]] | None = None
        self._lock = threading.RLock()

    @property
    def index(self) -> Index:
        """All that the plugins contribute; collected at first use."""
        with self._lock:
            if self._index is None:
                from lensmount import plugins

                find = self._candidates or plugins.find_entry_points
                self._index = plugins.collect([plugins.builtin(), *find(), *self._added])
            return self._index

    @property
    def environment(self) -> Environment:
        """What this machine has."""
        with self._lock:
            if self._environment is None:
                from lensmount.environment import detect

                self._environment = detect()
            return self._environment

    def refresh(self) -> None:
        """Forgets what was collected; the next use discovers plugins and the machine again."""
        with self._lock:
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
        """
        from lensmount import plugins

        with self._lock:
            self._added.append(plugins.given(plugin, name))
            self._index = None
            self._probed = None
            status = self.index.statuses[-1]
            if status.state == "broken":
                self._added.pop()
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

    def describe(self, id_or_path: Name, *, architecture: str | None = None, offline: bool | None = None) -> ModelCard:
        """The card of a model, without loading it.

        Raises:
            ModelNotFoundError: Nothing answers to the name.
        """
        return self._resolve(id_or_path, architecture, None, offline)

    def explain(
        self,
        id_or_path: Name,
        *,
        backend: str | None = None,
        device: str | None = None,
        precision: str | None = None,
        architecture: str | None = None,
        task: str | None = None,
        offline: bool | None = None,
    ) -> LoadPlan:
        """Which package would be loaded, and why every other would not; nothing is fetched or opened.

        Returns:
            The plan: prints as a table; `.selected`, `.choices`, `.rejected[i].package`, `.rejected[i].reasons`.

        Raises:
            ModelNotFoundError: Nothing answers to the name.
            UnknownBackendError: No plugin registers the backend asked for.
        """
        return self._plan(self._resolve(id_or_path, architecture, task, offline), backend, device, precision)

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
        **options: Any,
    ) -> Any:
        """Loads a model; see `lensmount.registry.load`."""
        from lensmount.loading import DeviceNotice, open_and_build, require_choice, split_options
        from lensmount.sources.base import FetchOptions

        card = self._resolve(id_or_path, architecture, task, offline)
        found = self._architecture(card)
        session_options, own = split_options(options, found, card)
        plan = self._plan(card, backend, device, precision, package)
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
            fetch=FetchOptions(offline=offline),
            session_options=session_options,
            options=own,
            caches=caches or {},
        )

    def export(
        self,
        id_or_path: Name,
        *,
        to: str = "onnx",
        output: str | os.PathLike[str] | None = None,
        precision: str = "fp32",
        dynamic: bool = False,
        batch: int = 1,
        architecture: str | None = None,
        offline: bool | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Path:
        """Writes another format of a model; the result is compared with the original before it is kept.

        Args:
            id_or_path: Model id, path or address; it needs a package of format `torch`.
            to: Format to write.
            output: File to write; None for `<name>.<format>` in the working folder.
            precision: `fp32` or `fp16`.
            dynamic: Dynamic batch, and size where the network can.
            batch: Batch size of a static export.
            architecture: For files that several architectures recognise.
            offline: Open no socket.
            settings: The architecture's own export settings.

        Returns:
            What was written.

        Raises:
            UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
        """
        from lensmount.loading import export_model
        from lensmount.sources.base import FetchOptions

        card = self._resolve(id_or_path, architecture, None, offline)
        return export_model(
            card,
            self._architecture(card),
            self.index,
            fetch=FetchOptions(offline=offline),
            target=to,
            output=output,
            precision=precision,
            dynamic=dynamic,
            batch=batch,
            settings=settings or {},
        )

    def _resolve(self, name: Name, architecture: str | None, task: str | None, offline: bool | None) -> ModelCard:
        from lensmount.resolve import resolve
        from lensmount.sources.base import FetchOptions

        fetch = FetchOptions(offline=offline)
        return resolve(name, self.index, architecture=architecture, task=task, fetch=fetch)

    def _architecture(self, card: ModelCard) -> Architecture:
        found = self.index.architectures.get(card.architecture)
        if found is None:
            from lensmount.resolve import known_plugin

            plugin = known_plugin(card.architecture) or f"a plugin for {card.architecture!r}"
            raise ModelNotFoundError(
                f"{card.id!r} needs architecture {card.architecture!r}, which no installed plugin brings",
                found=", ".join(self.index.architectures) or "no architectures",
                fix=f"pip install {plugin}",
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

    def _plan(
        self,
        card: ModelCard,
        backend: str | None,
        device: str | None,
        precision: str | None,
        package: str | None = None,
    ) -> LoadPlan:
        from lensmount.selection import Request, select

        if backend is not None and backend not in self.index.backends:
            raise UnknownBackendError(
                f"no backend {backend!r}",
                found=", ".join(self.index.backends),
                fix="; ".join(f"plugin {s.name!r} was left out: {s.error}" for s in self.index.broken) or None,
            )
        request = Request(backend=backend, device=device, precision=precision, package=package)
        architecture = self.index.architectures.get(card.architecture)
        return select(card, architecture, self.backends(), self.environment, request)


def _probe(backend: Backend, environment: Environment) -> BackendStatus:
    """Asks a backend; one that fails to answer is not usable, and harms nobody else."""
    from lensmount.errors import LensmountError
    from lensmount.imports import import_string
    from lensmount.specs import BackendStatus

    try:
        status = import_string(backend.probe, f"backend {backend.name!r}")(environment)
    except Exception as error:  # a third party's probe, guarded like discovery
        reason = str(error) if isinstance(error, LensmountError) else f"its probe failed: {error!r}"
        return BackendStatus(usable=False, reason=reason)
    if not isinstance(status, BackendStatus):
        return BackendStatus(usable=False, reason=f"its probe returned {type(status).__name__}, not BackendStatus")
    return status


_default: Registry | None = None
_default_lock = threading.Lock()


def default() -> Registry:
    """The registry that this module's functions use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = Registry()
        return _default


def load(
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
    **options: Any,
) -> Any:
    """Loads a model, ready to be called.

    Args:
        id_or_path: Model id or alias, `distribution:id`, path of a file or package folder, or address
            (`hf://owner/repo`).
        backend: `onnx`, `torch`, `tensorrt` or a third party's; obeyed or refused, never replaced. None to choose.
        device: `cpu`, `cuda:0`, `mps`; obeyed or refused.
        precision: `fp32`, `fp16`, `bf16`; obeyed or refused.
        architecture: For files that several architectures recognise.
        task: Refuses a model of another task.
        package: Name of one package of the card.
        caches: By use (`{"embeddings": cache}`): an instance, a provider's name, or `(name, settings)`.
        offline: Open no socket; None to follow `HF_HUB_OFFLINE` and `LENSMOUNT_OFFLINE`.
        **options: The session's (`threads`, `compile`, `channels_last`, `providers`) and the architecture's own
            typed options; an unknown one is an `UnknownOptionError`, which is a `TypeError`.

    Returns:
        The model: call it on pictures. It has `card`, `package`, `backend`, `device`, `precision`, `warmup()` and
        `close()`.

    Raises:
        ModelNotFoundError: Nothing answers to the name.
        AmbiguousModelError: Several plugins do.
        UnknownBackendError: No such backend.
        NoPackageError: Nothing can run as asked; with every package's every reason.
        SourceError: An artifact cannot be had, or is not what was promised.
        ModelFileError: A file is corrupt or not what its kind requires.
        DeviceError: The runtime fell back to another device.
        UnknownOptionError: An option that does not exist.
    """
    return default().load(
        id_or_path,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        task=task,
        package=package,
        caches=caches,
        offline=offline,
        **options,
    )


def models(*, task: str | None = None, architecture: str | None = None) -> list[ModelCard]:
    """Cards of all models that installed plugins know; see `Registry.models`."""
    return default().models(task=task, architecture=architecture)


def describe(id_or_path: Name, *, architecture: str | None = None, offline: bool | None = None) -> ModelCard:
    """The card of a model, without loading it; see `Registry.describe`."""
    return default().describe(id_or_path, architecture=architecture, offline=offline)


def explain(
    id_or_path: Name,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    architecture: str | None = None,
    task: str | None = None,
    offline: bool | None = None,
) -> LoadPlan:
    """Which package would be loaded and why not the others; see `Registry.explain`."""
    return default().explain(
        id_or_path,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        task=task,
        offline=offline,
    )


def plugins() -> list[PluginStatus]:
    """Every plugin found, and what became of it."""
    return default().plugins()


def backends() -> list[tuple[Backend, BackendStatus]]:
    """Every backend, and whether it can run here."""
    return default().backends()


def refresh() -> None:
    """Discovers plugins and the machine again at the next use."""
    default().refresh()


def add_plugin(plugin: object, name: str | None = None) -> PluginStatus:
    """Adds a module or object that implements hooks, as if it were installed; see `Registry.add_plugin`."""
    return default().add_plugin(plugin, name)
