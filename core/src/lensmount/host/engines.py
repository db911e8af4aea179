"""Packages that are built on the machine that runs them: engines from a model's graphs.

    <store>/built/<backend>/<key>/lensmount.json     a package folder like any other, files next to the manifest

The key covers all that decides what is built; the folder appears by a rename when it is whole. Nothing is built unless
`export` or `load(..., build="if-missing")` asks for it. What was built is considered when its backend is asked for by
name: an engine of half precision that lies here from yesterday changes no choice that nobody asked to change.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lensmount.errors import LensmountError, NoPackageError, StoreError, UnsupportedModelError
from lensmount.specs.imports import import_string

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.registry_class import Registry
    from lensmount.specs import Artifact, Backend, ModelCard, ModelPackage

SOURCE = "built_from"
"""Setting of a built package: what it was built from, as pairs of artifact name and sha256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        card: The model.
        package: The graphs to build from.
        identity: Hash of what the graphs are or are made from.
        device: Device to build for.
        precision: Precision that the result is to compute in.
        gpu: Name of the device.
        settings: The builder's own settings by name; unknown ones are refused by it.
        progress: Show how far it is; None for "on a terminal".
        files: The package's files by artifact name; there when `build` is called, not yet when `key` is.
    """

    card: ModelCard
    package: ModelPackage
    identity: str
    device: str
    precision: str
    gpu: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    progress: bool | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


class Builder(Protocol):
    """What `Backend.builder` names: a class without arguments."""

    format: str
    precisions: tuple[str, ...]

    def accepts(self, package: ModelPackage, precision: str) -> bool:
        """Whether it can build a package of a precision from this one."""

    def key(self, request: BuildRequest) -> str:
        """Names the result: equal keys, equal results. Checks the settings; builds nothing."""

    def build(self, request: BuildRequest, folder: Path) -> ModelPackage:
        """Writes the files into a folder and describes them; their names in the folder are the artifacts'."""


def builder_of(backend: Backend) -> Builder:
    """The backend's builder.

    Raises:
        UnsupportedModelError: It has none.
    """
    if backend.builder is None:
        raise UnsupportedModelError(f"backend {backend.name!r} builds no packages: it opens them as they come")
    builder: Builder = import_string(backend.builder, f"backend {backend.name!r}")()
    return builder


def root_of(backend: Backend) -> Path:
    """Folder of what a backend has built on this machine."""
    from lensmount.store.store import default_root

    return default_root() / "built" / backend.name


def with_built(card: ModelCard, backend: Backend) -> ModelCard:
    """The card with the packages that the backend has built from the card's own, behind them."""
    if backend.builder is None:
        return card
    taken = {package.name for package in card.packages}
    return replace(card, packages=(*card.packages, *(p for p in _built(card, backend) if p.name not in taken)))


def _built(card: ModelCard, backend: Backend) -> Iterator[ModelPackage]:
    from lensmount.store.manifests import NAME, read_manifest

    hashes: dict[str, str | None] = {}
    for manifest in sorted(root_of(backend).glob(f"*/{NAME}")):
        try:
            found = read_manifest(manifest.parent)
        except LensmountError:  # somebody deleted a part of the folder; the next build writes it again
            continue
        for package in found.packages:
            source = package.setting(SOURCE, ())
            if found.architecture == card.architecture and _is_source(card, source, hashes):
                yield package


def _is_source(card: ModelCard, source: tuple[tuple[str, str], ...], hashes: dict[str, str | None]) -> bool:
    """Whether one of the card's packages is what something was built from."""
    for package in card.packages:
        artifacts = {artifact.name: artifact for artifact in package.artifacts}
        if source and all(name in artifacts and _sha256(artifacts[name], hashes) == sha for name, sha in source):
            return True
    return False


def _sha256(artifact: Artifact, known: dict[str, str | None]) -> str | None:
    """The hash of an artifact that is promised, or on this machine already; nothing is fetched."""
    if artifact.sha256 is not None:
        return artifact.sha256
    if artifact.uri not in known:
        from lensmount.store.addresses import path_of
        from lensmount.store.store import Store

        known[artifact.uri] = None
        store = Store()
        with contextlib.suppress(LensmountError, OSError):
            if artifact.uri.startswith("file://"):
                known[artifact.uri] = store.verified_file(path_of(artifact.uri))
            else:
                fetched = store.lookup(artifact.uri)
                known[artifact.uri] = fetched.sha256 if fetched else None
    return known[artifact.uri]


def build(
    host: Registry,
    card: ModelCard,
    backend: Backend,
    *,
    precision: str | None,
    device: str | None,
    fetch: FetchOptions,
    settings: Mapping[str, Any],
    output: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Path:
    """Builds a package, unless an equal one is there.

    Args:
        host: Where plugins and the machine are known.
        card: The model.
        backend: Whose package to build.
        precision: Precision to compute in; None for fp32.
        device: Device to build for; None for the backend's first.
        fetch: How the model's files may be fetched.
        settings: The builder's own.
        output: Folder to put the package into; None to keep it where `load` finds it.
        progress: Show how far it is; None for "on a terminal".

    Returns:
        The package's folder, which `load` also opens by its path.

    Raises:
        NoPackageError: The backend cannot run here.
        UnsupportedModelError: Nothing of the model can be built from in this precision.
        StoreError: The folder cannot be written, or `output` is there already.
        LensmountError: Whatever the builder raises.
    """
    from lensmount.host.engines_source import source_of
    from lensmount.host.selection import normalise_device
    from lensmount.specs.options import one_of

    builder = builder_of(backend)
    precision = one_of("precision", precision or "fp32", builder.precisions)
    status = next(s for b, s in host.backends() if b.name == backend.name)
    if not status.usable or not status.devices:
        raise NoPackageError(
            f"{backend.name} cannot build here",
            found=status.reason or "no device",
            expected=f"a usable {backend.name} backend",
            fix=status.fix or "lensmount doctor",
        )
    place = normalise_device(device) if device else status.devices[0]
    gpu = next((g.name for g in host.environment.gpus if f"cuda:{g.index}" == place), "")
    source = source_of(host, card, builder, precision, fetch)
    request = BuildRequest(
        card=card,
        package=source.package,
        identity=source.identity,
        device=place,
        precision=precision,
        gpu=gpu,
        settings=settings,
        progress=progress,
    )
    key = builder.key(request)
    target = Path(output).absolute() if output is not None else root_of(backend) / key[:32]
    if output is not None and target.exists():
        raise StoreError(f"{target} is there already", expected="a folder to make", fix="name another, or remove it")

    def make(folder: Path) -> None:
        with source.files() as files:
            package = builder.build(replace(request, files=files), folder)
            described = _described(package, source.package, files, folder, key, source.hashes)
        from lensmount.store.manifests import write_manifest

        write_manifest(replace(card, packages=(described,), base=None), folder)

    _make_whole(target, make)
    return target


def _described(
    package: ModelPackage,
    source: ModelPackage,
    files: Mapping[str, Path],
    folder: Path,
    key: str,
    hashes: tuple[tuple[str, str], ...],
) -> ModelPackage:
    """The built package with all that its source knows apart from the graphs: geometry, settings, vocabularies."""
    carried = []
    for artifact in source.artifacts:
        if artifact.role == "data" and not artifact.name.endswith((".data", "_data")):
            target = folder.joinpath(*artifact.name.split("/"))
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(files[artifact.name], target)
            carried.append(artifact)
    return replace(
        package,
        name=f"{package.name}-{key[:8]}",
        artifacts=(*package.artifacts, *carried),
        preprocess=package.preprocess or source.preprocess,
        settings=(*source.settings, *package.settings, (SOURCE, hashes)),
        recommended=source.recommended,
    )


def _make_whole(target: Path, make: Callable[[Path], None]) -> None:
    """Fills a folder next to the target and renames it: the target is complete or absent. One maker at a time."""
    from filelock import FileLock

    from lensmount.store.files import store_error, sync_folder
    from lensmount.store.store import default_root

    # The rename alone keeps the result right; the lock spares a second builder its minutes.
    lock = default_root() / "locks" / f"built-{hashlib.sha256(str(target).encode()).hexdigest()[:24]}.lock"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(lock)):
            if target.exists():
                return
            folder = Path(tempfile.mkdtemp(prefix=f".{target.name[:16]}.", suffix=".partial", dir=target.parent))
            try:
                folder.chmod(0o755)
                make(folder)
                folder.rename(target)
                sync_folder(target.parent)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    except OSError as error:
        if isinstance(error, LensmountError):
            raise
        raise store_error(error, target, "writing") from error
