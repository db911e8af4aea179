"""The tensorrt backend's builder: a package of engines from a model's ONNX graphs. Light until it builds."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.backend.devices import split_device
from lensmount.errors import DeviceError
from lensmount.specs import Artifact, BatchPolicy, ModelPackage, Requirements
from lensmount_tensorrt import api as tensorrt_api
from lensmount_tensorrt.settings import BuildSettings, settings_of

if TYPE_CHECKING:
    from lensmount.contracts import BuildRequest
    from lensmount_tensorrt.manifest import EngineManifest

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class EngineBuilder:
    """Builds engines; a `lensmount.contracts.Builder`."""

    format = "engine"
    precisions = PRECISIONS

    def accepts(self, package: ModelPackage, precision: str) -> bool:
        """Whether engines of a precision can be built from a package of graphs; TensorRT's version decides for some."""
        if package.format != "onnx":
            return False
        if package.precision == precision:
            return True
        tensorrt_api.require()
        from lensmount_tensorrt.build import weak_flag

        return package.precision == "fp32" and weak_flag(precision) is not None

    def key(self, request: BuildRequest) -> str:
        """All that decides what the engine is; the timing cache changes how long the build takes, not what comes out.

        Raises:
            MissingDependencyError: TensorRT or cuda-bindings is not installed.
            DeviceError: The device is not there.
            OptionError: A setting is not valid.
        """
        settings = settings_of(request.settings)
        tensorrt_api.require()
        import tensorrt

        from lensmount_tensorrt.cuda_memory import Cuda

        facts = {
            **asdict(settings),
            "timing_cache": None,
            "source": request.identity,
            "image_size": request.package.preprocess.size if request.package.preprocess else None,
            "precision": request.precision,
            "tensorrt": tensorrt.__version__,
            "compute_capability": Cuda(_index(request.device)).capability(),
            "system": platform.system(),
            "machine": platform.machine(),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def build(self, request: BuildRequest, folder: Path) -> ModelPackage:
        """Builds an engine from each graph.

        Args:
            request: What to build; its files are there.
            folder: Where engines and manifests go.

        Returns:
            The package; its artifacts lie in the folder under their names.

        Raises:
            LensmountError: As for `lensmount_tensorrt.build.build_engine`.
            StoreError: The folder cannot be written.
        """
        from lensmount.store.files import hash_file
        from lensmount_reading import inspect_graph, read_onnx
        from lensmount_tensorrt import manifest as tensorrt_manifest
        from lensmount_tensorrt.build import Source, build_engine
        from lensmount_tensorrt.cuda_memory import Cuda

        settings = settings_of(request.settings)
        cuda = Cuda(_index(request.device))
        artifacts: list[Artifact] = []
        manifest: EngineManifest | None = None
        for artifact in request.package.artifacts:
            if artifact.role != "graph":
                continue
            path = request.files[artifact.name]
            source = Source(
                model=request.card.id,
                path=path,
                sha256=hash_file(path)[0],
                precision=inspect_graph(path, request.package).precision,
                metadata=read_onnx(path).metadata,
                image_size=request.package.preprocess.size if request.package.preprocess else None,
                gpu=request.gpu,
            )
            engine, manifest = build_engine(source, request.precision, settings, cuda, progress=request.progress)
            name = f"{artifact.name.rpartition('.')[0] or artifact.name}.plan"
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(engine)
            tensorrt_manifest.path_beside(target).write_bytes(manifest.to_json())
            artifacts += [
                Artifact(name=name, uri="", role="graph"),
                Artifact(name=f"{name}.json", uri="", role="data"),
            ]
        assert manifest is not None, "a package of graphs has one"
        return ModelPackage(
            name=f"engine-{request.precision}",
            format=self.format,
            artifacts=tuple(artifacts),
            precision=request.precision,
            batch=_batch(manifest, settings),
            requirements=_requirements(manifest),
        )


def _index(device: str) -> int:
    kind, index = split_device(device)
    if kind != "cuda":
        raise DeviceError("TensorRT builds on CUDA devices only", found=device, expected="cuda:0 …")
    return index


def _batch(manifest: EngineManifest, settings: BuildSettings) -> BatchPolicy:
    """What the engine's first input takes."""
    low, _, high = next(iter(manifest.profiles[0].values()))
    return BatchPolicy(static=high[0]) if low[0] == high[0] else BatchPolicy(maximum=high[0])


def _requirements(manifest: EngineManifest) -> Requirements:
    return Requirements(
        devices=("cuda",),
        systems=(manifest.system,),
        machines=(manifest.machine,),
        runtime_version=manifest.runtime_version,
        # "Ampere and later" is no single capability; the manifest is checked before the engine is opened.
        compute_capability=manifest.compute_capability if manifest.hardware == "none" else None,
    )
