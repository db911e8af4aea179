"""The facade: `from lensmount import registry`, then `registry.load("yolov8n-640")`.

The functions of this module are the methods of one `Registry`, which discovers the installed plugins at first use.
`Registry` makes others, for tests and for programs that want full control of the plugins in them; `use` puts one in the
place of the first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.host.site import Name, Site

if TYPE_CHECKING:
    from lensmount.contracts.plan import LoadPlan
    from lensmount.host.discovery import Candidate, Index, PluginStatus
    from lensmount.machine.environment import Environment
    from lensmount.specs import Backend, BackendStatus, ModelCard
    from lensmount.store.fetch import FetchedPackage

__all__ = [
    "Name", "Registry", "add_plugin", "backends", "default", "describe", "explain", "export", "load",
    "lock", "models", "plugins", "pull", "refresh", "use",
]  # fmt: skip


class Registry:
    """Plugins, and the models that can be loaded through them. Making one scans nothing.

    Args:
        candidates: Gives the plugins to load; None for every installed entry point of group `lensmount`. What the
            core itself brings is always there.
        environment: Facts of the machine; None to look.
    """

    def __init__(
        self, candidates: Callable[[], Iterable[Candidate]] | None = None, environment: Environment | None = None
    ) -> None:
        self.site = Site(candidates, environment)  # for lensmount's own distributions

    def load(
        self,
        id_or_path: Name,
        *,
        backend: str | None = None,
        device: Any = None,
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
        refresh: bool = False,
        **options: Any,
    ) -> Any:
        """Loads a model, ready to be called.

        Args:
            id_or_path: Model id or alias, `distribution:id`, path of a file or package folder, or address
                (`hf://owner/repo`).
            backend: `onnx`, `torch`, `tensorrt` or a third party's; obeyed or refused, never replaced. `fastest` for
                what `lensmount tune` measured to be the quickest on this machine. None or `auto` to choose.
            device: `cpu`, `cuda:0`, `mps`, `gpu`, a number, a `torch.device`; obeyed or refused. None to choose.
            precision: `fp32`, `fp16`, `bf16`; obeyed or refused. Several with commas where any of them will do.
            architecture: For files that several architectures recognise.
            task: Refuses a model of another task.
            package: Name of one package of the card.
            caches: By use (`{"embeddings": cache}`): an instance, a provider's name, or `(name, settings)`.
            offline: Open no socket; None to follow `HF_HUB_OFFLINE` and `LENSMOUNT_OFFLINE`.
            source: Scheme of a source to ask instead of the plugins' cards: `source="roboflow"` makes an id `x` mean
                `roboflow://x`.
            api_key: For that source; never logged nor written.
            locked: Accept only the files of `lensmount.lock` in the working folder (or of the lock file named).
            allow_insecure: Accept plain http, and web addresses without a hash.
            refresh: Take what a branch, or a web address without a hash, gives now, not what its first load gave.
            **options: The session's (`threads`, `compile`, `channels_last`, `providers`, `build`, `allow_host_code`,
                `contexts`, `cuda_graphs`, `device_path`) and the architecture's own typed options; an unknown one is an
                `UnknownOptionError`, which is a `TypeError`.

        Returns:
            The model: call it on pictures. It has `card`, `package`, `backend`, `device`, `precision`, `warmup()` and
            `close()`.

        Raises:
            ModelNotFoundError: No plugin, file or address has this name.
            AmbiguousModelError: Several plugins do.
            UnknownBackendError: No such backend.
            NoPackageError: Nothing can run as asked; with every package's every reason.
            NotTunedError: `backend="fastest"`, and no times that fit were measured; with the command that measures.
            SourceError: An artifact cannot be had, or is not what was promised.
            ModelFileError: A file is corrupt or not what its kind requires.
            MissingDependencyError: The plugin that reads such files is not installed.
            DeviceError: The runtime fell back to another device.
            UnknownOptionError: An option that does not exist.
        """
        from lensmount.host.opening import factory_of, open_model, show_device, show_licence
        from lensmount.host.plan import Ask, plan, require_choice, split_options
        from lensmount.host.resolve import resolve
        from lensmount.store.fetch import fetch_package, finders_for

        ask = Ask(
            name=id_or_path, backend=backend, device=device, precision=precision, architecture=architecture, task=task,
            package=package, caches=caches or {}, offline=offline, source=source, api_key=api_key, locked=locked,
            allow_insecure=allow_insecure, refresh=refresh, options=options,
        )  # fmt: skip
        site = self.site
        card = resolve(ask, site.index)
        found = site.architecture_of(card)
        groups = split_options(options, found, card)
        planned = plan(card, site, ask.request, name=ask.name, options=groups, build=groups[0].build, fetch=ask.fetch)
        choice = require_choice(planned)
        show_device(planned)
        factory = factory_of(found)  # before anything is fetched: what cannot be imported cannot be loaded
        fetched = fetch_package(card, choice.package, finders_for(choice.package, site.index.sources), ask.fetch)
        model = open_model(ask, choice, card, found, fetched, groups, factory, site.index.caches)
        show_licence(card)
        return model

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
        """The card of a model, without loading it; the arguments are those of `load`.

        Raises:
            ModelNotFoundError: No plugin, file or address has this name.
        """
        from lensmount.host.plan import Ask
        from lensmount.host.resolve import resolve

        ask = Ask(name=id_or_path, architecture=architecture, source=source, api_key=api_key, offline=offline)
        return resolve(ask, self.index)

    def explain(
        self,
        id_or_path: Name,
        *,
        backend: str | None = None,
        device: Any = None,
        precision: str | None = None,
        architecture: str | None = None,
        task: str | None = None,
        source: str | None = None,
        api_key: str | None = None,
        offline: bool | None = None,
        **options: Any,
    ) -> LoadPlan:
        """Which package would be loaded, and why every other would not; nothing is fetched or opened.

        The arguments are those of `load`; its other options matter to selectors (`backend="fastest"`) alone.

        Returns:
            The plan: prints as a table; `.selected`, `.choices`, `.rejected[i].package`, `.rejected[i].reasons`.

        Raises:
            ModelNotFoundError: No plugin, file or address has this name.
            UnknownBackendError: No plugin registers the backend asked for.
            UnknownOptionError: An option that does not exist.
        """
        from lensmount.host.plan import Ask, plan, split_options
        from lensmount.host.resolve import resolve

        ask = Ask(
            name=id_or_path, backend=backend, device=device, precision=precision, architecture=architecture, task=task,
            source=source, api_key=api_key, offline=offline, options=options,
        )  # fmt: skip
        card = resolve(ask, self.index)
        needed = options or ask.backend in self.index.selectors
        groups = split_options(options, self.site.architecture_of(card), card) if needed else ()
        return plan(card, self.site, ask.request, name=ask.name, options=groups)

    def pull(
        self,
        id_or_path: Name,
        *,
        package: str | None = None,
        every: bool = False,
        to: str | os.PathLike[str] | None = None,
        architecture: str | None = None,
        source: str | None = None,
        api_key: str | None = None,
        allow_insecure: bool = False,
        refresh: bool = False,
    ) -> dict[str, FetchedPackage]:
        """Fetches a model's files, so that later loads need no network; the fetched packages by name.

        Args:
            id_or_path: Model id or address.
            package: Name of one package; None for the one that would be loaded here.
            every: All packages instead.
            to: Folder for an air-gap bundle: the files and a manifest; `load` reads it by its path.
            architecture: As for `load`.
            source: As for `load`.
            api_key: As for `load`.
            allow_insecure: As for `load`.
            refresh: As for `load`.

        Raises:
            NoPackageError: No package can run here; name one, or take all.
            SourceError: A file cannot be had.
        """
        from lensmount.host import pulling
        from lensmount.host.plan import Ask

        ask = Ask(
            name=id_or_path, package=package, architecture=architecture, source=source, api_key=api_key,
            allow_insecure=allow_insecure, refresh=refresh,
        )  # fmt: skip
        return pulling.pull(ask, self.site, every=every, to=None if to is None else Path(to))

    def lock(
        self, names: Iterable[Name], path: str | os.PathLike[str] = "lensmount.lock", *, allow_insecure: bool = False
    ) -> Path:
        """Fetches models and writes what their files are; `load(..., locked=True)` then accepts nothing else.

        Args:
            names: Model ids or addresses; all packages of each are fetched and locked.
            path: The lock file, which is returned.
            allow_insecure: As for `load`.
        """
        from lensmount.host import pulling
        from lensmount.host.plan import Ask

        return pulling.lock((Ask(name=n, allow_insecure=allow_insecure) for n in names), self.site, Path(path))

    def export(
        self,
        id_or_path: Name,
        *,
        to: str = "onnx",
        output: str | os.PathLike[str] | None = None,
        precision: str = "fp32",
        dynamic: bool = False,
        batch: int | Sequence[int] | None = None,
        architecture: str | None = None,
        offline: bool | None = None,
        device: Any = None,
        progress: bool | None = None,
        settings: Mapping[str, Any] | None = None,
        calibration: str | os.PathLike[str] | None = None,
        calibration_count: int | None = None,
        notes: Callable[[str], None] | None = None,
    ) -> Path:
        """Writes another form of a model: a graph, compared with the original before it is kept, or an engine.

        Args:
            id_or_path: Model id, path or address. A graph needs a package of format `torch`, an engine one or a graph;
                an int8 graph is made from the model's fp32 graph, or from torch weights.
            to: Format to write, or the backend to build for: `onnx`, `tensorrt`, or a plugin's.
            output: File to write; None for `<name>.<format>` (`<name>-int8.onnx`) in the working folder. For a
                backend: folder to make; None to keep the package where `load(..., backend=…)` finds it.
            precision: `fp32` or `fp16`; `int8` for ONNX graphs, with `calibration`; for a backend any that it builds.
            dynamic: Dynamic batch, and size where the network can.
            batch: Batch size of a static export (1 if not given); for a backend also `(smallest, best, largest)`.
            architecture: For files that several architectures recognise.
            offline: Open no socket.
            device: For a backend: the device to build for; None for its first.
            progress: For a backend: show how far it is; None for "on a terminal".
            settings: The architecture's, the builder's or the exporter's own settings.
            calibration: For `int8`: a folder (or pattern) of pictures such as the model will see. The ranges of
                activations are taken from them; the int8 and the float model are compared on others of them where there
                are more than `calibration_count`, else on the same, and a graph that finds other objects is not kept.
            calibration_count: The most pictures to calibrate with, spread over the folder; None for 128.
            notes: Called with lines about what was written (how far an int8 model is from the float one).

        Returns:
            What was written.

        Raises:
            UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
            OptionError: Nothing installed writes this, a setting has a wrong value, several batches were given for a
                graph, int8 was asked for without pictures, or pictures were given for something else.
            InputError: The calibration pictures are not there, cannot be read, or show nothing that the model finds.
            MissingDependencyError: A package that the export needs is not installed.
            BackendError: What was written gives other results than the original; nothing was kept.
        """
        from lensmount.host import exporting
        from lensmount.host.plan import Ask

        given = {"calibration": calibration, "calibration_count": calibration_count}
        return exporting.export(
            Ask(name=id_or_path, architecture=architecture, offline=offline, device=device, precision=precision),
            self.site,
            target=to,
            output=None if output is None else Path(output),
            dynamic=dynamic,
            batch=batch,
            progress=progress,
            settings=settings or {},
            calibration={name: value for name, value in given.items() if value is not None},
            load=self.load,
            say=notes or (lambda line: None),
        )

    def plugins(self) -> list[PluginStatus]:
        """Every plugin found, and what became of it."""
        return list(self.index.statuses)

    def backends(self) -> list[tuple[Backend, BackendStatus]]:
        """Every backend, and whether it can run here."""
        return self.site.backends()

    def refresh(self) -> None:
        """Forgets what was collected; the next use discovers plugins and the machine again."""
        self.site.refresh()

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
        return self.site.add_plugin(plugin, name)

    @property
    def index(self) -> Index:
        """All that the plugins contribute; collected at first use."""
        return self.site.index

    @property
    def environment(self) -> Environment:
        """What this machine has."""
        return self.site.environment


_default = Registry()
load, explain, describe, models = _default.load, _default.explain, _default.describe, _default.models
pull, lock, export = _default.pull, _default.lock, _default.export
plugins, backends, refresh, add_plugin = _default.plugins, _default.backends, _default.refresh, _default.add_plugin


def default() -> Registry:
    """The registry that this module's functions work on."""
    return _default


@contextlib.contextmanager
def use(other: Registry) -> Iterator[Registry]:
    """Makes this module's functions, and the command line, work on another registry's plugins and machine."""
    before = _default.site
    _default.site = other.site
    try:
        yield other
    finally:
        _default.site = before
