"""What the core hands to an architecture's code, and what it wants back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lensmount.contracts.cache import Cache
from lensmount.contracts.session import Session
from lensmount.errors import ModelFileError
from lensmount.specs import ModelCard, ModelPackage


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkContext:
    """What an architecture's `network` function gets.

    Attributes:
        card: The model's card.
        package: The package chosen.
        files: The package's files by artifact name, verified.
        options: The architecture's typed load options, or None when it has none.
    """

    card: ModelCard
    package: ModelPackage
    files: Mapping[str, Path]
    options: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """What an architecture's `factory` gets. It holds no reference to registry, plugin manager or network.

    Attributes:
        card: The model's card (classes may be empty: then the session's metadata or the package's files have them).
        package: The package chosen.
        sessions: Opened sessions by artifact name; for format `torch` by the names that `network` gave
            (`"network"` when it returned a single one).
        files: The package's files by artifact name, verified.
        options: The architecture's typed load options, or None when it has none.
        caches: Caches by the use that the architecture names (`embeddings`, `masks`, `text`).
        fingerprint: Identifies the weights: hash over the artifacts' hashes; part of every cache key.
    """

    card: ModelCard
    package: ModelPackage
    sessions: Mapping[str, Session]
    files: Mapping[str, Path]
    options: Any = None
    caches: Mapping[str, Cache] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def session(self) -> Session:
        """The only session of a package with one graph.

        Raises:
            ModelFileError: The package has none or several.
        """
        if len(self.sessions) != 1:
            raise ModelFileError(
                f"package {self.package.name!r} of {self.card.id!r} should have one graph",
                found=str(sorted(self.sessions)),
                expected="exactly one",
            )
        return next(iter(self.sessions.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContext:
    """What an architecture's `exporter` gets.

    Attributes:
        card: The model's card.
        package: The package to export from (format `torch`).
        files: The package's files by artifact name, verified.
        target: Format to write: `onnx`.
        output: File (or folder, for several graphs) to write; the exporter writes next to it and renames when checked.
        precision: `fp32` or `fp16`.
        dynamic: Dynamic batch (and size, where the network allows).
        batch: Batch size of a static export.
        settings: The architecture's own export settings (`{"nms": "embedded"}`), unknown ones refused by it.
    """

    card: ModelCard
    package: ModelPackage
    files: Mapping[str, Path]
    target: str
    output: Path
    precision: str = "fp32"
    dynamic: bool = False
    batch: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Model(Protocol):
    """What every model has, whatever its task; each task adds its own call."""

    @property
    def card(self) -> ModelCard:
        """The model's card."""

    @property
    def package(self) -> ModelPackage:
        """The package it runs."""

    @property
    def backend(self) -> str:
        """Name of the backend it runs on."""

    @property
    def device(self) -> str:
        """Device it effectively runs on."""

    @property
    def precision(self) -> str:
        """Precision it effectively computes in."""

    def warmup(self) -> None:
        """Runs the network once on a blank input, so that the first real call is not the slow one."""

    def close(self) -> None:
        """Frees the sessions; later calls raise `ClosedError`."""
