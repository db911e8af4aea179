"""The facade: `from lensmount import registry`, then `registry.load("yolov8n-640")`.

The functions of this module work on one registry that is built at first use. `Registry` makes others, for tests
and for programs that want full control of the plugins in them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.host.registry_class import Name, Registry

if TYPE_CHECKING:
    from lensmount.host.discovery import PluginStatus
    from lensmount.host.selection import LoadPlan
    from lensmount.specs import Backend, BackendStatus, ModelCard
    from lensmount.store.fetch import FetchedPackage
    from lensmount_bench.tune import Tuning

__all__ = [
    "Name",
    "Registry",
    "add_plugin",
    "backends",
    "default",
    "describe",
    "explain",
    "export",
    "load",
    "lock",
    "models",
    "plugins",
    "pull",
    "refresh",
    "tune",
]

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
    source: str | None = None,
    api_key: str | None = None,
    locked: bool | str | os.PathLike[str] = False,
    allow_insecure: bool = False,
    **options: Any,
) -> Any:
    """Loads a model, ready to be called.

    Args:
        id_or_path: Model id or alias, `distribution:id`, path of a file or package folder, or address
            (`hf://owner/repo`).
        backend: `onnx`, `torch`, `tensorrt` or a third party's; obeyed or refused, never replaced. `fastest` for what
            `tune` measured to be the quickest on this machine. None to choose.
        device: `cpu`, `cuda:0`, `mps`; obeyed or refused.
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
        **options: The session's (`threads`, `compile`, `channels_last`, `providers`, `build`, `allow_host_code`,
            `contexts`, `cuda_graphs`) and the architecture's own typed options; an unknown one is an
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
        source=source,
        api_key=api_key,
        locked=locked,
        allow_insecure=allow_insecure,
        **options,
    )


def models(*, task: str | None = None, architecture: str | None = None) -> list[ModelCard]:
    """Cards of all models that installed plugins know; see `Registry.models`."""
    return default().models(task=task, architecture=architecture)


def describe(
    id_or_path: Name,
    *,
    architecture: str | None = None,
    source: str | None = None,
    api_key: str | None = None,
    offline: bool | None = None,
) -> ModelCard:
    """The card of a model, without loading it; see `Registry.describe`."""
    return default().describe(id_or_path, architecture=architecture, source=source, api_key=api_key, offline=offline)


def explain(
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
    """Which package would be loaded and why not the others; see `Registry.explain`."""
    return default().explain(
        id_or_path,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        task=task,
        source=source,
        api_key=api_key,
        offline=offline,
        **options,
    )


def tune(
    id_or_path: Name,
    *,
    device: str | None = None,
    precision: str | None = None,
    architecture: str | None = None,
    source: str | None = None,
    api_key: str | None = None,
    offline: bool | None = None,
    allow_insecure: bool = False,
    pictures: str | os.PathLike[str] = "synthetic",
    batch: int = 1,
    seconds: float = 5.0,
    rounds: int = 5,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> Tuning:
    """Measures what can run here and keeps the times for `backend="fastest"`; see `lensmount_bench.tune.tune`."""
    from lensmount_bench import tune as tuning

    return tuning.tune(
        default(),
        id_or_path,
        device=device,
        precision=precision,
        architecture=architecture,
        source=source,
        api_key=api_key,
        offline=offline,
        allow_insecure=allow_insecure,
        pictures=pictures,
        batch=batch,
        seconds=seconds,
        rounds=rounds,
        progress=progress,
        options=options,
    )


def pull(
    id_or_path: Name,
    *,
    package: str | None = None,
    every: bool = False,
    to: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    source: str | None = None,
    api_key: str | None = None,
    allow_insecure: bool = False,
) -> dict[str, FetchedPackage]:
    """Fetches a model's files, so that later loads need no network; see `lensmount.host.exporting.pull`."""
    from lensmount.host import exporting as managing

    return managing.pull(
        default(),
        id_or_path,
        package=package,
        every=every,
        to=to,
        architecture=architecture,
        source=source,
        api_key=api_key,
        allow_insecure=allow_insecure,
    )


def lock(
    names: Iterable[Name], path: str | os.PathLike[str] = "lensmount.lock", *, allow_insecure: bool = False
) -> Path:
    """Fetches models and writes what their files are; see `lensmount.host.exporting.lock`."""
    from lensmount.host import exporting as managing

    return managing.lock(default(), names, path, allow_insecure=allow_insecure)


def export(
    id_or_path: Name,
    *,
    to: str = "onnx",
    output: str | os.PathLike[str] | None = None,
    precision: str = "fp32",
    dynamic: bool = False,
    batch: int | Sequence[int] | None = None,
    architecture: str | None = None,
    offline: bool | None = None,
    device: str | None = None,
    progress: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    calibration_count: int | None = None,
) -> Path:
    """Writes another format of a model, checked against the original; see `lensmount.host.exporting.export`."""
    from lensmount.host import exporting as managing

    return managing.export(
        default(),
        id_or_path,
        to=to,
        output=output,
        precision=precision,
        dynamic=dynamic,
        batch=batch,
        architecture=architecture,
        offline=offline,
        device=device,
        progress=progress,
        settings=settings,
        calibration=calibration,
        calibration_count=calibration_count,
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
