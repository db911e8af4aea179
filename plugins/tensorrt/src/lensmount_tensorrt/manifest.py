"""Where an engine comes from: a JSON file next to it, checked before TensorRT sees a byte of the engine.

TensorRT's own refusals speak of magic tags and serialisation versions. `<engine file>.json` lets us say what was found,
what is expected, and which command builds the engine again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lensmount.errors import EngineMismatchError, ModelFileError, UnsafeFileError
from lensmount_tensorrt.api import numbers
from lensmount_tensorrt.errors import ALLOW

FORMAT = "lensmount-engine"
VERSION = 1
MAX_BYTES = 4 << 20

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineManifest:
    """What an engine was built from, by what, and for what.

    Attributes:
        model: Id of the model, for the command that rebuilds.
        graph: Name of the ONNX file.
        graph_sha256: Of the ONNX file and its data files.
        tensorrt: Version that built it, in full.
        compute_capability: Of the GPU that it was built on.
        gpu: That GPU's name.
        system: `linux`, `windows`.
        machine: `x86_64`, `aarch64`.
        precision: Precision that it computes in.
        strongly_typed: Whether every layer's type is the graph's (else TensorRT was free to lower it).
        profiles: Smallest, best and largest shape of each input, for each profile.
        version_compatible: Whether it brings TensorRT's lean runtime, and so runs on later versions.
        hardware: `none`, `ampere-plus` or `same-compute-capability`.
        optimization_level: The builder's.
        workspace: Bytes that the builder's tactics might use; None for all.
        size: Bytes of the engine.
        metadata: The graph's custom metadata: class names, stride, task …
    """

    model: str
    graph: str
    graph_sha256: str
    tensorrt: str
    compute_capability: str
    gpu: str
    system: str
    machine: str
    precision: str
    strongly_typed: bool
    profiles: tuple[Mapping[str, tuple[Shape, Shape, Shape]], ...]
    version_compatible: bool = False
    hardware: str = "none"
    optimization_level: int = 3
    workspace: int | None = None
    size: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The file's content."""
        return json.dumps({"format": FORMAT, "format_version": VERSION, **asdict(self)}, indent=1).encode() + b"\n"

    @property
    def rebuild(self) -> str:
        """The command that builds it again."""
        first = self.profiles[0] if self.profiles else {}
        batch = next((",".join(str(shape[0]) for shape in shapes) for shapes in first.values() if shapes[0]), "1")
        return f"lensmount export {self.model} --to tensorrt --precision {self.precision} --batch {batch}"

    @property
    def runtime_version(self) -> str:
        """Versions of TensorRT that run it, as a PEP 440 specifier.

        Without the fourth number, which a system's library does not tell; `check` compares it in full.
        """
        major, minor, patch = (*numbers(self.tensorrt), 0, 0)[:3]
        if not self.version_compatible:
            return f"=={major}.{minor}.{patch}.*"
        # NVIDIA's support matrix: 10 also runs on 11; no other pair of majors is supported.
        return f">={major}.{minor}.{patch},<{12 if major == 10 else major + 1}"


def path_beside(engine: Path) -> Path:
    """Where an engine's manifest lies."""
    return engine.with_name(engine.name + ".json")


def read(engine: Path) -> EngineManifest | None:
    """The manifest next to an engine, or None when there is none (engines of others).

    Raises:
        ModelFileError: There is one that cannot be read.
    """
    path = path_beside(engine)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UnsafeFileError(f"{path} is absurdly large", expected=f"at most {MAX_BYTES:,} bytes")
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} cannot be read", found=str(error)[:200], expected="an engine's manifest"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT or data.get("format_version") != VERSION:
        raise ModelFileError(f"{path} is no engine's manifest", expected=f'"format": "{FORMAT}", version {VERSION}')
    return _parse(data, path)


def _parse(data: Mapping[str, Any], path: Path) -> EngineManifest:
    kinds = {"strongly_typed": bool, "version_compatible": bool, "optimization_level": int, "size": int}
    values: dict[str, Any] = {}
    for item in fields(EngineManifest):
        if item.name not in data:
            continue
        value = data[item.name]
        if item.name == "profiles":
            value = _profiles(value, path)
        elif item.name == "metadata":
            value = {str(key): str(text) for key, text in value.items()} if isinstance(value, dict) else None
        elif item.name == "workspace":
            value = value if isinstance(value, int) else None
        elif not isinstance(value, kinds.get(item.name, str)):
            raise ModelFileError(f"{path} is malformed at {item.name}", found=repr(value)[:80])
        values[item.name] = value
    try:
        return EngineManifest(**values)
    except TypeError as error:
        raise ModelFileError(f"{path} lacks something", found=str(error).partition(": ")[2]) from error


def _profiles(value: Any, path: Path) -> tuple[dict[str, tuple[Shape, Shape, Shape]], ...]:
    try:
        profiles = tuple(
            {str(name): tuple(tuple(int(size) for size in shape) for shape in shapes) for name, shapes in one.items()}
            for one in value
        )
        if any(len(shapes) != 3 for one in profiles for shapes in one.values()):
            raise ValueError("not three shapes")
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is malformed at profiles", found=repr(value)[:80]) from error
    return profiles  # type: ignore[return-value]  # three shapes each, as just checked


def check(
    manifest: EngineManifest, engine: Path, *, version: str, capability: str, device: str, allow_host_code: bool
) -> None:
    """Compares an engine with the machine.

    Args:
        manifest: The engine's.
        engine: Its file.
        version: The installed TensorRT, in full.
        capability: Compute capability of the device.
        device: Where it is to run.
        allow_host_code: Whether the caller accepts engines with host code.

    Raises:
        EngineMismatchError: It was built for something else; with the command that rebuilds.
        UnsafeFileError: It brings host code, and the caller did not accept that.
        ModelFileError: The file is not the one that the manifest describes.
    """
    subject = f"engine {engine.name!r} of {manifest.model!r}"

    def refuse(what: str, found: str, expected: str) -> EngineMismatchError:
        return EngineMismatchError(
            f"{subject} was built for another {what}", found=found, expected=expected, fix=manifest.rebuild
        )

    size = engine.stat().st_size
    if manifest.size != size:
        raise ModelFileError(
            f"{subject} is not the file that its manifest describes",
            found=f"{size:,} bytes",
            expected=f"{manifest.size:,} bytes",
            fix=manifest.rebuild,
        )
    here = (platform.system().lower(), _machine(platform.machine()))
    if (manifest.system, _machine(manifest.machine)) != here:
        raise refuse("system", f"{manifest.system} {manifest.machine}", " ".join(here))
    if not _runs_on(manifest, version):
        raise refuse("TensorRT", f"TensorRT {manifest.tensorrt}", f"TensorRT {version}, which is installed")
    if not _fits(manifest, capability):
        raise refuse(
            "GPU",
            f"compute capability {manifest.compute_capability} ({manifest.gpu})",
            f"compute capability {capability}, of {device!r}",
        )
    if manifest.version_compatible and not allow_host_code:
        raise UnsafeFileError(
            f"{subject} brings code for the host, which TensorRT would run",
            found="a version-compatible engine, with TensorRT's lean runtime inside",
            expected="an engine with code for the GPU alone",
            fix=ALLOW,
        )


def _machine(name: str) -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())


def _runs_on(manifest: EngineManifest, version: str) -> bool:
    built, here = numbers(manifest.tensorrt), numbers(version)
    if not manifest.version_compatible:
        return built == here
    return here >= built and here[0] <= (11 if built[0] == 10 else built[0])


def _fits(manifest: EngineManifest, capability: str) -> bool:
    if manifest.hardware == "ampere-plus":
        return numbers(capability) >= (8, 0)
    return manifest.compute_capability == capability
