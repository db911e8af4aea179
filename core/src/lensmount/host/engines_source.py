"""What a package is built from: a graph that the model has, or one that its architecture exports first."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import UnsupportedModelError
from lensmount.specs import Artifact
from lensmount.specs.imports import import_string

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.contracts.writing import Builder
    from lensmount.host.site import Site
    from lensmount.specs import ModelCard, ModelPackage
    from lensmount.store.fetch import FetchedPackage


@dataclass(frozen=True, slots=True)
class BuildSource:
    """What to build from.

    Attributes:
        package: A package of graphs.
        identity: Hash over what decides the graphs.
        hashes: The files that they are or come from, as pairs of artifact name and sha256.
        files: Gives the package's files by artifact name, for as long as they are needed.
    """

    package: ModelPackage
    identity: str
    hashes: tuple[tuple[str, str], ...]
    files: Callable[[], AbstractContextManager[Mapping[str, Path]]]


def source_of(site: Site, card: ModelCard, builder: Builder, precision: str, fetch: FetchOptions) -> BuildSource:
    """Chooses and fetches what to build from.

    A graph that computes in the precision comes first, then one that the builder can lower, then a torch package that
    the architecture can export.

    Raises:
        UnsupportedModelError: The model has none of these.
        SourceError: A file cannot be had.
    """
    from lensmount.store.fetch import fetch_files

    graphs = [p for p in card.packages if p.format == "onnx" and builder.accepts(p, precision)]
    graphs.sort(key=lambda package: package.precision != precision)
    if graphs:
        package = graphs[0]
        fetched = fetch_files(card, (package,), site.index.sources, fetch)[package.name]
        return BuildSource(package, fetched.fingerprint, _hashes(fetched, package, "graph"), _given(fetched.files))
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

    @contextmanager
    def exported() -> Iterator[Mapping[str, Path]]:
        from lensmount.contracts.model import ExportContext

        export = import_string(architecture.exporter or "", f"architecture {architecture.name!r}")
        with tempfile.TemporaryDirectory(prefix="lensmount-export-") as folder:
            written = export(
                ExportContext(
                    card=card,
                    package=torch,
                    files=fetched.files,
                    target="onnx",
                    output=Path(folder) / "weights.onnx",
                    precision=precision,
                    dynamic=True,
                )
            )
            if not written.is_file():
                raise UnsupportedModelError(
                    f"{card.id!r} is exported as several graphs",
                    found=", ".join(sorted(path.name for path in written.iterdir())),
                    fix="export them to a folder first (lensmount export MODEL -o FOLDER), and build from that",
                )
            yield {**fetched.files, "weights.onnx": written}

    return BuildSource(package, identity, _hashes(fetched, torch, "weights"), exported)


def _hashes(fetched: FetchedPackage, package: ModelPackage, role: str) -> tuple[tuple[str, str], ...]:
    return tuple((a.name, fetched.sha256s[a.name]) for a in package.artifacts if a.role == role)


def _given(files: Mapping[str, Path]) -> Callable[[], AbstractContextManager[Mapping[str, Path]]]:
    @contextmanager
    def given() -> Iterator[Mapping[str, Path]]:
        yield files

    return given
