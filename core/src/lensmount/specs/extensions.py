"""What a plugin adds, as frozen descriptors: architectures, backends, sources, commands and what else the hooks name.

Code is named by *import strings* (`"package.module:attribute"`) and imported on first use only. Every plugin's hook
module imports this file, so it needs the standard library and pluggy alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import pluggy

from lensmount.specs.descriptors import require

PROJECT = "lensmount"
hookimpl = pluggy.HookimplMarker(PROJECT)

NAME = re.compile(r"^[a-z][a-z0-9_-]*$")
IMPORT_STRING = re.compile(r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")


def _check_names(kind: str, name: str, strings: tuple[str | None, ...]) -> None:
    require(NAME.fullmatch(name) is not None, f"the name of a {kind}", name, "lower case, digits, '_' and '-'")
    for value in strings:
        require(
            value is None or IMPORT_STRING.fullmatch(value) is not None,
            f"an import string of {kind} {name!r}",
            value,
            "'package.module:attribute'",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A family of networks and the code that runs it.

    Attributes:
        name: `yolo`, `rfdetr`, …
        tasks: Tasks it can be built for; the first is the default.
        factory: Import string of `factory(context: lensmount.contracts.BuildContext) -> Model`.
        network: Import string of `network(context: lensmount.contracts.NetworkContext) -> TorchNetwork` (or a mapping
            of them, one per session name), for packages of format `torch`; None if there is no torch form.
        graph: Import string of `graph(context: lensmount.contracts.NetworkContext) -> GraphNetwork` (or a mapping of
            them): the same weights as ONNX graphs, made without torch for backends that open the format `graph`.
        graph_formats: Formats of the packages that `graph` makes graphs of.
        recognise: Import string of a `lensmount.contracts.Recogniser`: looks at a bare file's facts (tensors, graph
            inputs and outputs, metadata), never at its name.
        options: Import string of the frozen dataclass of load options that this architecture adds.
        exporter: Import string of `export(context: lensmount.contracts.ExportContext) -> Path`.
        float_nodes: Import string of `float_nodes(model: onnx.ModelProto) -> Collection[str]`: names of the nodes of a
            float32 graph that an int8 export leaves in float; None where int8 exports are refused.
        shared: Models of one process with the same files, backend, device, precision and session options share their
            sessions, which close with the last of them. Networks and graphs then may not depend on `options`.
        description: One line.
    """

    name: str
    tasks: tuple[str, ...]
    factory: str
    network: str | None = None
    graph: str | None = None
    graph_formats: tuple[str, ...] = ("torch",)
    recognise: str | None = None
    options: str | None = None
    exporter: str | None = None
    float_nodes: str | None = None
    shared: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        code = (self.network, self.graph, self.recognise, self.options, self.exporter, self.float_nodes)
        _check_names("architecture", self.name, (self.factory, *code))
        require(bool(self.tasks), f"architecture {self.name!r}", self.tasks, "at least one task")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What executes packages.

    Attributes:
        name: `onnx`, `torch`, …
        formats: Package formats that it opens; `graph` stands for ONNX graphs in memory, made from a package's weights.
        probe: Import string of `probe(environment: Environment) -> BackendStatus`; cheap: it reads installed
            metadata and files, and imports no runtime.
        opener: Import string of `open(request: lensmount.contracts.OpenRequest) -> Session`.
        preference: Rank per device kind, higher is tried first (`(("cuda", 30), ("cpu", 5))`); 0 where not named.
        extra: What to install for it: `lensmount[onnx]`.
        builder: Import string of a `lensmount.contracts.Builder`, for a backend whose packages are built on the
            machine that runs them, from a model's graphs; None for one that opens packages as they come.
    """

    name: str
    formats: tuple[str, ...]
    probe: str
    opener: str
    preference: tuple[tuple[str, int], ...] = ()
    extra: str | None = None
    builder: str | None = None

    def __post_init__(self) -> None:
        _check_names("backend", self.name, (self.probe, self.opener, self.builder))
        require(bool(self.formats), f"backend {self.name!r}", self.formats, "at least one format")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatus:
    """A backend's answer to: can you run here?

    Attributes:
        usable: Whether it can.
        version: Of its runtime, where installed.
        devices: Devices it can run on here, best first (`cuda:0`, `cpu`).
        precisions: Compute precisions by device kind, as pairs (`("cpu", ("fp32", "bf16"))`).
        reason: Why not, when not usable.
        fix: The command that makes it usable.
    """

    usable: bool
    version: str | None = None
    devices: tuple[str, ...] = ()
    precisions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    reason: str | None = None
    fix: str | None = None

    def __post_init__(self) -> None:
        plain = isinstance(self.devices, tuple) and all(isinstance(device, str) for device in self.devices)
        require(plain, "devices", self.devices, "a tuple of names")
        paired = isinstance(self.precisions, tuple) and all(
            isinstance(p, tuple) and len(p) == 2 for p in self.precisions
        )
        require(paired, "precisions", self.precisions, "a tuple of pairs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where artifacts come from.

    Attributes:
        scheme: URI scheme without `://`: `hf`, `https`, `roboflow`.
        finder: Import string of a class or function `finder() -> lensmount.contracts.Finder`.
        description: One line.
    """

    scheme: str
    finder: str
    description: str = ""

    def __post_init__(self) -> None:
        _check_names("source", self.scheme, (self.finder,))


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheProvider:
    """A kind of cache that users can name at load time.

    Attributes:
        name: `memory`, `disk`, `redis`.
        factory: Import string of `factory(**settings) -> lensmount.contracts.Cache`.
        description: One line.
    """

    name: str
    factory: str
    description: str = ""

    def __post_init__(self) -> None:
        _check_names("cache", self.name, (self.factory,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A layout of model files that becomes a model card.

    Attributes:
        name: `lensmount`, `inference-models`, `bare`, …
        read: Import string of `read(request: lensmount.contracts.ReadRequest) -> ModelCard`.
        marker: Name of the file that every folder or repository of this layout has (`lensmount.json`); None for the
            reader of single files and of folders that have no other reader's marker.
        repositories: Whether it also reads repositories (`hf://owner/repo`), of which it gets every file but the
            marker through `ReadRequest.bring`; looking for the marker costs each load by address one request.
        description: One line.
    """

    name: str
    read: str
    marker: str | None = None
    repositories: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        _check_names("reader", self.name, (self.read,))
        plain = self.marker is None or (bool(self.marker) and not set(self.marker) & set("/\\"))
        require(plain, f"the marker of reader {self.name!r}", self.marker, "a file name without folders, or None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A sub-command of `lensmount`.

    Attributes:
        name: The word after `lensmount`: `predict`.
        app: Import string of a function with typer's annotations, or of a `typer.Typer` with sub-commands of its own.
        help: One line for the list of commands, which is shown without importing `app`.
    """

    name: str
    app: str
    help: str

    def __post_init__(self) -> None:
        _check_names("command", self.name, (self.app,))
        plain = bool(self.help.strip()) and "\n" not in self.help
        require(plain, f"the help of command {self.name!r}", self.help, "one line")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A way to write a model in another form, for every architecture or for those that it takes.

    Attributes:
        name: `int8`, `coreml`, …
        target: What `lensmount export --to` names: `onnx`, `coreml`.
        precisions: Precisions of that target that it writes.
        export: Import string of `export(request: lensmount.contracts.ExportRequest) -> Path`.
        settings: Names of the settings that it takes; others are refused.
        from_graph: Whether it starts from the architecture's own export, which then takes the other settings.
        description: One line.
    """

    name: str
    target: str
    precisions: tuple[str, ...]
    export: str
    settings: tuple[str, ...] = ()
    from_graph: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        _check_names("exporter", self.name, (self.export,))
        require(NAME.fullmatch(self.target) is not None, f"the target of exporter {self.name!r}", self.target, "a name")
        require(bool(self.precisions), f"exporter {self.name!r}", self.precisions, "at least one precision")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """A way to choose among all that can run, whatever the backend.

    Attributes:
        name: What `backend=` asks for it by: `fastest`. Backends and selectors share their names.
        choose: Import string of `choose(request: lensmount.contracts.SelectRequest) -> lensmount.contracts.LoadPlan`.
        description: One line.
    """

    name: str
    choose: str
    description: str = ""

    def __post_init__(self) -> None:
        _check_names("selector", self.name, (self.choose,))
