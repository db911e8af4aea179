"""Bringing models here, pinning them, and writing other formats of them: what `pull`, `lock` and `export` do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import ModelNotFoundError, OptionError

if TYPE_CHECKING:
    from lensmount.host.registry_class import Name, Registry
    from lensmount.specs import ModelCard, ModelPackage
    from lensmount.store.fetch import FetchedPackage


def pull(
    host: Registry,
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
    """Fetches a model's files, so that later loads need no network.

    Args:
        host: The registry to look in.
        id_or_path: Model id or address.
        package: Name of one package; None for the one that would be loaded here.
        every: All packages instead.
        to: Folder for an air-gap bundle: the files and a manifest; `load` reads it by its path.
        architecture: As for `load`.
        source: As for `load`.
        api_key: As for `load`.
        allow_insecure: As for `load`.

    Returns:
        The fetched packages by name.

    Raises:
        NoPackageError: No package can run here; name one, or take all.
        SourceError: A file cannot be had.
    """
    from lensmount.host.opening import fetch_files

    card, fetch = host.find(
        id_or_path, architecture=architecture, source=source, api_key=api_key, allow_insecure=allow_insecure
    )
    got = fetch_files(card, _wanted(host, card, package, every), host.index, fetch)
    if to is not None:
        from lensmount.store.bundle import write_bundle

        write_bundle(card, got, Path(to))
    return got


def lock(
    host: Registry,
    names: Iterable[Name],
    path: str | os.PathLike[str] = "lensmount.lock",
    *,
    allow_insecure: bool = False,
) -> Path:
    """Fetches models and writes what their files are; `load(..., locked=True)` then accepts nothing else.

    Args:
        host: The registry to look in.
        names: Model ids or addresses; all packages of each are fetched and locked.
        path: The lock file.
        allow_insecure: As for `load`.

    Returns:
        The lock file's path.
    """
    from lensmount.host.opening import fetch_files
    from lensmount.store.lock import make_lock, write_lock

    entries = []
    for name in names:
        card, fetch = host.find(name, allow_insecure=allow_insecure)
        got = fetch_files(card, card.packages, host.index, fetch)
        entries += [(card, package, got[package.name]) for package in card.packages]
    return write_lock(make_lock(entries), Path(path))


def export(
    host: Registry,
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
    """Writes another format of a model: a graph, compared with the original before it is kept, or a backend's engine.

    Args:
        host: The registry to look in.
        id_or_path: Model id, path or address. A graph needs a package of format `torch`, an engine one or a graph; an
            int8 graph is made from the model's fp32 graph, or from torch weights.
        to: Format to write, or the backend to build for: `onnx`, `tensorrt`.
        output: File to write; None for `<name>.<format>` (`<name>-int8.onnx`) in the working folder. For a backend:
            folder to make; None to keep the package where `load(..., backend=…)` finds it.
        precision: `fp32` or `fp16`; `int8` for ONNX graphs, with `calibration`; for a backend any that it builds.
        dynamic: Dynamic batch, and size where the network can.
        batch: Batch size of a static export (1 if not given); for a backend also `(smallest, best, largest)`.
        architecture: For files that several architectures recognise.
        offline: Open no socket.
        device: For a backend: the device to build for; None for its first.
        progress: For a backend: show how far it is; None for "on a terminal".
        settings: The architecture's or the builder's own settings.
        calibration: For `int8`: a folder (or pattern) of pictures such as the model will see. The ranges of activations
            are taken from them; the int8 and the float model are compared on others of them where there are more than
            `calibration_count`, else on the same, and a graph that finds other objects is not kept.
        calibration_count: The most pictures to calibrate with, spread over the folder; None for 128.

    Returns:
        What was written.

    Raises:
        UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
        OptionError: A setting has a wrong value, several batches were given for a graph, int8 was asked for without
            pictures, or pictures were given for something else.
        InputError: The calibration pictures are not there, cannot be read, or show nothing that the model finds.
        MissingDependencyError: A package that the export needs is not installed.
        BackendError: What was written gives other results than the original; nothing was kept.
    """
    from lensmount.host.opening import export_model
    from lensmount.specs.options import positive

    int8 = to == "onnx" and precision == "int8"
    if not int8 and (calibration is not None or calibration_count is not None):
        raise OptionError(
            "calibration pictures go with an ONNX graph in int8 alone",
            found=f"to={to!r}, precision={precision!r}",
            expected="to='onnx', precision='int8'",
        )
    card, fetch = host.find(id_or_path, architecture=architecture, offline=offline)
    backend = host.index.backends.get(to)
    if backend is not None and backend.builder is not None:
        from lensmount.host import engines as building

        return building.build(
            host,
            card,
            backend,
            precision=precision,
            device=device,
            fetch=fetch,
            settings={**(settings or {}), **({} if batch is None else {"batch": batch})},
            output=output,
            progress=progress,
        )
    number = 1 if batch is None else positive("batch", batch)
    if int8:
        from lensmount_bench.int8_export import export_int8

        return export_int8(
            host,
            id_or_path,
            card,
            fetch=fetch,
            output=output,
            calibration=calibration,
            calibration_count=calibration_count,
            architecture=architecture,
            offline=offline,
            dynamic=dynamic,
            batch=number,
            settings=settings or {},
        )
    return export_model(
        card,
        host.architecture_of(card),
        host.index,
        fetch=fetch,
        target=to,
        output=output,
        precision=precision,
        dynamic=dynamic,
        batch=number,
        settings=settings or {},
    )


def _wanted(host: Registry, card: ModelCard, package: str | None, every: bool) -> tuple[ModelPackage, ...]:
    from lensmount.host.opening import require_choice

    if every:
        return card.packages
    if package is None:
        return (require_choice(host.plan(card, None, None, None)).package,)
    chosen = tuple(p for p in card.packages if p.name == package)
    if not chosen:
        raise ModelNotFoundError(
            f"{card.id!r} has no package {package!r}", expected=", ".join(p.name for p in card.packages)
        )
    return chosen
