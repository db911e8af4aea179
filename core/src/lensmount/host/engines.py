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
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import LensmountError, NoPackageError, StoreError, UnsupportedModelError
from lensmount.host.selection import normalise_device
from lensmount.specs import Artifact, Backend, ModelCard, ModelPackage
from lensmount.specs.imports import ask, call

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.contracts.plan import LoadPlan
    from lensmount.contracts.requests import Builder
    from lensmount.host.site import Site
    from lensmount.store.fetch import FetchedPackage

SOURCE = "built_from"
"""Setting of a built package: what it was built from, as pairs of artifact name and sha256."""


def _root(backend: Backend) -> Path:
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
    for manifest in sorted(_root(backend).glob(f"*/{NAME}")):
        try:
            found = read_manifest(manifest.parent)
        except LensmountError:  # files are missing or damaged: the next build makes the package again
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


def build_missing(
    site: Site, plan: LoadPlan, card: ModelCard, backend: Backend, when: str, fetch: FetchOptions
) -> bool:
    """Builds a package for a plan that has no choice, if `when` allows it: whether there is one more to plan with.

    Raises:
        NoPackageError: The caller did not allow a build, or the backend does not run on the device asked for.
        LensmountError: As for `build`.
    """
    status = site.status(backend)
    if backend.builder is None or not status.usable:
        return False
    request = plan.request
    if request.device is not None and normalise_device(request.device) not in status.devices:
        raise NoPackageError(
            f"{backend.name} does not run on {request.device!r}",
            found=request.device,
            expected=", ".join(status.devices),
        )
    if when == "never":
        command = f"lensmount export {card.id} --to {backend.name}"
        command += f" --precision {request.precision}" if request.precision else ""
        raise NoPackageError(
            f"{card.id!r} has no package that {backend.name} can run here, and none is built unasked",
            found="\n" + str(plan),
            fix=f"{command}; or load(..., build='if-missing')",
        )
    build(site, card, backend, precision=request.precision, device=request.device, fetch=fetch, settings={})
    return True


def build(
    site: Site,
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
    """Builds a package, unless an equal one is there: its folder, in `output` or else where `load` finds it.

    Raises:
        NoPackageError: The backend cannot run here.
        UnsupportedModelError: Nothing of the model can be built from in this precision.
        StoreError: The folder cannot be written, or `output` is there already.
        LensmountError: Whatever the builder raises.
    """
    from lensmount.contracts.requests import Builder, BuildRequest
    from lensmount.specs.options import one_of

    owner = f"the builder of backend {backend.name!r}"
    builder: Builder = call(backend.builder or "", owner, Builder)
    precision = one_of("precision", precision or "fp32", builder.precisions)
    status = site.status(backend)
    if not status.usable or not status.devices:
        raise NoPackageError(
            f"{backend.name} cannot build here",
            found=status.reason or "no device",
            expected=f"a usable {backend.name} backend",
            fix=status.fix or "lensmount doctor",
        )
    place = normalise_device(device) if device else status.devices[0]
    gpu = next((g.name for g in site.environment.gpus if f"cuda:{g.index}" == place), "")
    source = _source_of(site, card, builder, precision, fetch)
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
    key = ask(owner, str, builder.key, request)
    target = Path(output).absolute() if output is not None else _root(backend) / key[:32]
    if output is not None and target.exists():
        raise StoreError(f"{target} is there already", expected="a folder to make", fix="name another, or remove it")

    def make(folder: Path) -> None:
        with source.files() as files:
            package = ask(owner, ModelPackage, builder.build, replace(request, files=files), folder)
            described = _described(package, source.package, files, folder, key, source.hashes)
        from lensmount.store.manifests import write_manifest

        write_manifest(replace(card, packages=(described,), base=None), folder)

    _make_whole(target, make)
    return target


@dataclass(frozen=True, slots=True)
class _Source:
    """What to build from: graphs, a hash of what decides them, and the hashes of the files they are or come from.

    `files` gives the package's files by artifact name, for as long as they are needed.
    """

    package: ModelPackage
    identity: str
    hashes: tuple[tuple[str, str], ...]
    files: Callable[[], AbstractContextManager[Mapping[str, Path]]]


def _source_of(site: Site, card: ModelCard, builder: Builder, precision: str, fetch: FetchOptions) -> _Source:
    """Chooses and fetches what to build from.

    A graph that computes in the precision comes first, then one that the builder can lower, then a torch package that
    the architecture can export.
    """
    from lensmount.store.fetch import fetch_files

    graphs = [p for p in card.packages if p.format == "onnx" and builder.accepts(p, precision)]
    graphs.sort(key=lambda package: package.precision != precision)
    if graphs:
        package = graphs[0]
        fetched = fetch_files(card, (package,), site.index.sources, fetch)[package.name]
        return _Source(
            package,
            fetched.fingerprint,
            _hashes(fetched, package, "graph"),
            lambda: contextlib.nullcontext(fetched.files),
        )
    architecture = site.architecture_of(card)
    torch = next((p for p in card.packages if p.format == "torch"), None)
    if torch is None or architecture.exporter is None or precision not in ("fp32", "fp16"):
        raise UnsupportedModelError(
            f"nothing of {card.id!r} can be built from in {precision}",
            found=", ".join(f"{p.name} ({p.format}, {p.precision})" for p in card.packages),
            expected=f"a graph (format onnx) that computes in {precision}"
            + ("; int8 wants a quantised one (QuantizeLinear and DequantizeLinear)" if precision == "int8" else ""),
            fix="lensmount export MODEL --to onnx, or quantise a graph with onnxruntime.quantization (QDQ format)"
            if precision == "int8"
            else f"lensmount export MODEL --to onnx --precision {precision}, where the model has a torch package",
        )
    fetched = fetch_files(card, (torch,), site.index.sources, fetch)[torch.name]
    # What it will be exported to; the names of several graphs are known when they are there.
    graph = Artifact(name="weights.onnx", uri="file:///weights.onnx", role="graph")
    data = tuple(artifact for artifact in torch.artifacts if artifact.role == "data")
    package = replace(torch, format="onnx", precision=precision, artifacts=(graph, *data))
    identity = hashlib.sha256(f"exported {precision} {fetched.fingerprint}".encode()).hexdigest()

    @contextlib.contextmanager
    def exported() -> Iterator[Mapping[str, Path]]:
        from lensmount.contracts.model import ExportContext

        with tempfile.TemporaryDirectory(prefix="lensmount-export-") as folder:
            path = Path(folder) / "weights.onnx"
            context = ExportContext(
                card=card,
                package=torch,
                files=fetched.files,
                target="onnx",
                output=path,
                precision=precision,
                dynamic=True,
            )
            written = call(architecture.exporter or "", f"the exporter of {architecture.name!r}", Path, context)
            if not written.is_file():
                raise UnsupportedModelError(
                    f"{card.id!r} is exported as several graphs",
                    found=", ".join(sorted(path.name for path in written.iterdir())),
                    fix="export them to a folder first (lensmount export MODEL -o FOLDER), and build from that",
                )
            yield {**fetched.files, "weights.onnx": written}

    return _Source(package, identity, _hashes(fetched, torch, "weights"), exported)


def _hashes(fetched: FetchedPackage, package: ModelPackage, role: str) -> tuple[tuple[str, str], ...]:
    return tuple((a.name, fetched.sha256s[a.name]) for a in package.artifacts if a.role == role)


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

    # The rename alone keeps the result right; the lock keeps a second process from building the same again.
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
