"""The provider's packages as lensmount's: one for each manifest that a computer can run."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote

from lensmount.errors import LensmountError, ModelFileError, UnsupportedModelError
from lensmount.specs import MODEL_ID, Artifact, BatchPolicy, ModelCard, ModelPackage, Pairs, Preprocess, Requirements
from lensmount_roboflow import wire
from lensmount_roboflow.packages import config as mapping
from lensmount_roboflow.packages import schema
from lensmount_roboflow.packages.folder import CLASS_NAMES, INFERENCE_CONFIG, VARIANTS

Role = Literal["graph", "weights", "data"]
Bring = Callable[[Artifact], bytes]
_GRAPHS = (".onnx", ".plan", ".engine", ".torchscript")
_WEIGHTS = (".pt", ".pth", ".safetensors", ".bin")


def card_of(pages: list[wire.Metadata], bring: Bring) -> ModelCard:
    """The card of a model.

    Args:
        pages: What the provider says; packages of all pages add up.
        bring: Reads one of a package's small files (geometry, class names).

    Raises:
        UnsupportedModelError: No lensmount architecture of this name, or no package that a computer can run.
        SourceError: A small file cannot be had.
    """
    first = pages[0]
    notes: list[str] = []
    packages: list[ModelPackage] = []
    classes: tuple[str, ...] = ()
    task = architecture = ""
    for page in pages:
        for dependency in page.dependencies or []:
            notes.append(_dependency(dependency))
        for raw in page.packages:
            made = _package(first, raw, bring, notes)
            if made is None:
                continue
            package, identity, names = made
            architecture, task, classes = identity.architecture, identity.task, classes or names
            packages.append(package)
    if not packages:
        mapping.identify_names(first.architecture, first.task, "onnx", f"{first.model!r} on Roboflow")
        raise UnsupportedModelError(
            f"Roboflow has no package of {first.model!r} that lensmount can run",
            found="; ".join(notes) or "no packages",
            expected=", ".join(sorted(wire.MANIFESTS)),
        )
    return ModelCard(
        id=_model_id(first.model),
        architecture=architecture,
        task=task,
        packages=tuple(packages),
        classes=classes,
        settings=(("origin", "roboflow"), *((("variant", first.variant),) if first.variant else ())),
        recommended=mapping.recommended_of(first.recommended),
        description=f"{first.model} on Roboflow",
        notes=tuple(dict.fromkeys(notes)),
    )


def file_uri(model: str, package: str, handle: str) -> str:
    """The address of one file; it never changes, unlike the provider's signed ones."""
    return f"roboflow://{quote(model)}/-/{quote(package, safe='')}/{quote(handle)}"


def _dependency(raw: dict[str, Any]) -> str:
    if raw.get("type") != wire.DEPENDENCY:
        return f"a dependency of unknown kind was left out: {str(raw.get('type'))[:60]}"
    made = schema.parse(wire.Dependency, raw, "a dependency")
    return f"goes with {made.model} as its {made.name}"


def _package(
    model: wire.Metadata, raw: dict[str, Any], bring: Bring, notes: list[str]
) -> tuple[ModelPackage, mapping.Identity, tuple[str, ...]] | None:
    label = str(raw.get("packageId"))[:60]
    if raw.get("type") != wire.PACKAGE:
        notes.append(f"package {label} is of an unknown kind and was left out: {str(raw.get('type'))[:60]}")
        return None
    made = schema.parse(wire.Package, raw, f"package {label}")
    kind = str(made.manifest.get("type"))
    if kind.startswith(wire.ELSEWHERE):
        return None
    if kind not in wire.MANIFESTS:
        notes.append(f"package {label} has a manifest of an unknown kind and was left out: {kind[:60]}")
        return None
    form, usual = wire.MANIFESTS[kind]
    try:
        manifest = schema.parse(form, made.manifest, f"the manifest of package {label}")
        backend = usual if kind.startswith("ultralytics") else manifest.backend or usual
        identity = mapping.identify_names(model.architecture, model.task, backend, f"{model.model!r} on Roboflow")
        batch, batch_settings = _batch(manifest, label)
        artifacts = tuple(_artifact(model.model, made.id, file) for file in made.files)
    except (ModelFileError, UnsupportedModelError) as error:
        if isinstance(error, UnsupportedModelError) and "architecture" in error.problem:
            raise
        notes.append(f"package {label} was left out: {error.problem} ({error.found})")
        return None
    except LensmountError as error:  # a file name that leaves its folder, two files of one name
        notes.append(f"package {label} was left out: {error.problem} ({error.found})")
        return None
    settings = [*identity.settings, ("origin", "roboflow"), ("package_id", made.id), *batch_settings]
    settings += [("trusted_source", made.trusted)]
    variant = _variant(identity.architecture, model, artifacts, bring)
    settings += [("variant", variant)] if variant else []
    preprocess, extra, classes = _geometry(artifacts, bring)
    precision = mapping.precision_of(manifest.quantization)
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", made.id)
    package = ModelPackage(
        name=f"{identity.format}-{precision}-{safe}",
        format=identity.format,
        artifacts=artifacts,
        precision=precision,
        batch=batch,
        preprocess=preprocess,
        requirements=_requirements(manifest),
        settings=(*dict((*settings, *extra)).items(),),
        recommended=mapping.recommended_of(made.recommended or model.recommended),
    )
    return package, identity, classes


def _artifact(model: str, package: str, file: wire.File) -> Artifact:
    name = file.handle.lower()
    role: Role = "graph" if name.endswith(_GRAPHS) else "weights" if name.endswith(_WEIGHTS) else "data"
    return Artifact(
        name=file.handle,
        uri=file_uri(model, package, file.handle),
        role=role,
        md5=file.md5.lower() if file.md5 else None,
        confidence="official",
    )


def _batch(manifest: wire.Manifest, label: str) -> tuple[BatchPolicy, Pairs]:
    if bool(manifest.dynamic) == (manifest.static is not None):
        raise ModelFileError(
            f"the manifest of package {label} contradicts itself",
            found=f"dynamicBatchSize {manifest.dynamic}, staticBatchSize {manifest.static}",
            expected="exactly one of dynamicBatchSize: true and staticBatchSize",
        )
    if manifest.static is not None:
        return BatchPolicy(static=manifest.static), ()
    if isinstance(manifest, wire.Engine):
        low, best, high = manifest.low, manifest.best, manifest.high
        if low is None or best is None or high is None or not low <= best <= high:
            raise ModelFileError(
                f"the manifest of package {label} has no usable batch sizes",
                found=f"{low}, {best}, {high}",
                expected="minBatchSize <= optBatchSize <= maxBatchSize",
            )
        return BatchPolicy(maximum=high), (("batch_range", (low, best, high)),)
    return BatchPolicy(), ()


def _requirements(manifest: wire.Manifest) -> Requirements:
    if isinstance(manifest, wire.Onnx):
        return Requirements(excluded_providers=tuple(manifest.incompatible or ()))
    if isinstance(manifest, wire.TorchScript):
        # an archive of one torch version is read by it and by later ones
        version = f">={manifest.torch.partition('+')[0]}" if manifest.torch else None
        return Requirements(devices=tuple(manifest.devices), runtime_version=version)
    if isinstance(manifest, wire.Engine):
        return _engine_requirements(manifest)
    return Requirements()


def _engine_requirements(manifest: wire.Engine) -> Requirements:
    """An engine runs where it was built, unless it was made to travel."""
    jetson = manifest.machine == "jetson"
    specs = manifest.specs or wire.MachineSpecs()
    version = manifest.tensorrt
    if version is not None and manifest.forward and not manifest.lean_excluded:
        version = f">={version}"
    elif version is not None:
        version = f"=={version}"
    l4t = re.match(r"\d+\.\d+", specs.l4t or "") if jetson else None
    return Requirements(
        devices=("cuda",),
        systems=("linux",),
        machines=("aarch64",) if jetson else (),
        runtime_version=version,
        compute_capability=manifest.capability,
        gpu_name=None if manifest.same_capability else manifest.gpu or specs.device,
        l4t=l4t.group() if l4t else None,
    )


def _small(artifacts: tuple[Artifact, ...], name: str, bring: Bring) -> bytes | None:
    artifact = next((a for a in artifacts if a.name == name), None)
    return None if artifact is None else bring(artifact)


def _geometry(artifacts: tuple[Artifact, ...], bring: Bring) -> tuple[Preprocess | None, Pairs, tuple[str, ...]]:
    preprocess: Preprocess | None = None
    settings: Pairs = ()
    classes: tuple[str, ...] = ()
    content = _small(artifacts, INFERENCE_CONFIG, bring)
    if content is not None:
        config = schema.parse(schema.InferenceConfig, schema.decode_json(content, INFERENCE_CONFIG), INFERENCE_CONFIG)
        preprocess, settings = mapping.preprocess_of(config, INFERENCE_CONFIG), mapping.settings_of(config)
    content = _small(artifacts, CLASS_NAMES, bring)
    if content is not None:
        classes = mapping.classes_of(content.decode("utf-8-sig", "replace"), CLASS_NAMES)
    return preprocess, settings, classes


def _variant(architecture: str, model: wire.Metadata, artifacts: tuple[Artifact, ...], bring: Bring) -> str | None:
    name, key = VARIANTS.get(architecture, ("", ""))
    content = _small(artifacts, name, bring) if name else None
    if content is not None:
        data = schema.decode_json(content, name)
        value = data.get(key) if isinstance(data, dict) else None
        if isinstance(value, str) and value:
            return value
    return model.variant


def _model_id(model: str) -> str:
    return model if MODEL_ID.fullmatch(model) else re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-._") or "model"
