"""What readers of files, exporters of any format, and builders of a backend's own packages get."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lensmount.contracts.finder import Repository
from lensmount.specs import Architecture, ModelCard, ModelPackage


@dataclass(frozen=True, slots=True)
class NotRunnable:
    """What a recogniser says of a file that it knows and that its architecture does not run.

    Attributes:
        what: What the file is, after "is": "an original YOLOv5 with anchors".
        found: By what it was told.
        runs_with: What runs it, or what to load in its place.
    """

    what: str
    found: str
    runs_with: str


Recogniser = Callable[[Any], "ModelCard | NotRunnable | None"]
"""Looks at a file's facts (`lensmount_reading.FileFacts`); None is for those of something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What the function that `Reader.read` names gets.

    Artifacts of the card that it returns have `file://` addresses; of a repository's folder they are turned into the
    repository's addresses, and the files of those that `bring` did not bring come when the model is loaded.

    Attributes:
        path: The file, or the folder with the reader's marker; absolute.
        given: The same as the caller wrote it, for messages.
        name: What to call the model where the files do not say; None for the path's name.
        architecture: The architecture that the caller asked for, or None.
        recognisers: Looks at a file's facts, by name of the architecture: of all of them, or of the one asked for.
        left_out: One line on each plugin that could not be loaded, for errors that this may explain.
        bring: Brings another file of the folder, which is downloaded where the folder is a repository's; answers with
            its path, or None when there is no such file.
        repository: Where the folder is a repository's. Without a marker its model is to be found by the names of its
            files and brought, and `path` is only a name.
    """

    path: Path
    given: Path
    bring: Callable[[str], Path | None]
    name: str | None = None
    architecture: str | None = None
    recognisers: Mapping[str, Recogniser] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    repository: Repository | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """What the function that `Exporter.export` names gets.

    Attributes:
        card: The model.
        architecture: What runs it.
        target: Format to write.
        precision: Precision that what is written computes in.
        output: File or folder to write; None for a name of the exporter's choice in the working folder. The exporter
            writes next to it and renames when the result is checked.
        dynamic: Dynamic batch, and size where the network allows.
        batch: Batch size of a static export.
        device: Device to write for, where that matters; None for any.
        settings: The exporter's own settings; only names that its descriptor lists.
        graph_settings: The other settings, which `graph` hands to the architecture's exporter. Empty unless the
            descriptor says `from_graph`.
        fetch: Brings a package's files: by artifact name, verified.
        load: Loads a model with the keywords of `lensmount.registry.load`: the one that is exported, or, with a path
            as the first argument, what was written.
        graph: Writes the architecture's own float32 graph of the model to a file, with `graph_settings`, `dynamic` and
            `batch`; returns the file.
        say: Tells the user something about what was written: one line of text.
    """

    card: ModelCard
    architecture: Architecture
    target: str
    precision: str
    fetch: Callable[[ModelPackage], Mapping[str, Path]]
    load: Callable[..., Any]
    graph: Callable[[Path], Path]
    say: Callable[[str], None]
    output: Path | None = None
    dynamic: bool = False
    batch: int = 1
    device: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    graph_settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """What a backend's builder is to build.

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


@runtime_checkable
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
