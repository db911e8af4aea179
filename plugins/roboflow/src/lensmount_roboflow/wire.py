"""The provider's wire format: forms of its answers. Unknown keys are tolerated, unknown kinds are kept apart."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from lensmount_roboflow.packages.schema import Form, RecommendedParameters

METADATA = "external-model-metadata-v1"
PACKAGE = "external-model-package-v1"
DEPENDENCY = "model-dependency-v1"
#: Kinds of manifests that no backend of a computer opens; left out without a word.
ELSEWHERE = ("oak-", "tfjs-", "mediapipe-")

Count = Annotated[StrictInt, Field(gt=0)]


class File(Form):
    """One file of a package."""

    handle: Annotated[StrictStr, Field(alias="fileHandle", min_length=1)]
    url: StrictStr | None = Field(alias="downloadUrl", default=None)
    md5: Annotated[StrictStr, Field(pattern=r"^[0-9a-fA-F]{32}$")] | None = Field(alias="md5Hash", default=None)


class Package(Form):
    """`external-model-package-v1`; the manifest is read by its own type."""

    type: Literal["external-model-package-v1"]
    id: Annotated[StrictStr, Field(alias="packageId", min_length=1)]
    manifest: dict[str, Any] = Field(alias="packageManifest")
    files: Annotated[list[File], Field(alias="packageFiles", min_length=1)]
    features: dict[str, Any] | None = Field(alias="modelFeatures", default=None)
    trusted: StrictBool = Field(alias="trustedSource", default=False)
    recommended: RecommendedParameters | None = Field(alias="recommendedParameters", default=None)


class Dependency(Form):
    """`model-dependency-v1`: another model that this one needs."""

    type: Literal["model-dependency-v1"]
    name: StrictStr
    model: StrictStr = Field(alias="modelId")


class Metadata(Form):
    """`external-model-metadata-v1`: one page of what the provider says of a model."""

    type: Literal["external-model-metadata-v1"]
    model: Annotated[StrictStr, Field(alias="modelId", min_length=1)]
    architecture: StrictStr = Field(alias="modelArchitecture")
    variant: StrictStr | None = Field(alias="modelVariant", default=None)
    task: StrictStr | None = Field(alias="taskType", default=None)
    dependencies: list[dict[str, Any]] | None = Field(alias="modelDependencies", default=None)
    packages: list[dict[str, Any]] = Field(alias="modelPackages", default_factory=list)
    recommended: RecommendedParameters | None = Field(alias="recommendedParameters", default=None)
    next_page: StrictStr | None = Field(alias="nextPage", default=None)


class Manifest(Form):
    """What all manifests have: exactly one of `dynamicBatchSize: true` and `staticBatchSize: n`."""

    backend: StrictStr | None = Field(alias="backendType", default=None)
    quantization: StrictStr | None = None
    dynamic: StrictBool | None = Field(alias="dynamicBatchSize", default=None)
    static: Count | None = Field(alias="staticBatchSize", default=None)


class Onnx(Manifest):
    """`onnx-model-package-v1`."""

    opset: Count | None = None
    incompatible: list[StrictStr] | None = Field(alias="incompatibleProviders", default=None)


class TorchScript(Manifest):
    """`torch-script-model-package-v1`."""

    devices: list[StrictStr] = Field(alias="supportedDeviceTypes", default_factory=list)
    torch: StrictStr | None = Field(alias="torchVersion", default=None)
    torchvision: StrictStr | None = Field(alias="torchVisionVersion", default=None)


class MachineSpecs(Form):
    """The machine that an engine was built on."""

    driver: StrictStr | None = Field(alias="driverVersion", default=None)
    system: StrictStr | None = Field(alias="osVersion", default=None)
    l4t: StrictStr | None = Field(alias="l4tVersion", default=None)
    device: StrictStr | None = Field(alias="deviceName", default=None)


class Engine(Manifest):
    """`trt-model-package-v1`."""

    low: Count | None = Field(alias="minBatchSize", default=None)
    best: Count | None = Field(alias="optBatchSize", default=None)
    high: Count | None = Field(alias="maxBatchSize", default=None)
    gpu: StrictStr | None = Field(alias="cudaDeviceType", default=None)
    capability: StrictStr | None = Field(alias="cudaDeviceCC", default=None)
    cuda: StrictStr | None = Field(alias="cudaVersion", default=None)
    tensorrt: StrictStr | None = Field(alias="trtVersion", default=None)
    same_capability: StrictBool = Field(alias="sameCCCompatible", default=False)
    forward: StrictBool = Field(alias="trtForwardCompatible", default=False)
    lean_excluded: StrictBool = Field(alias="trtLeanRuntimeExcluded", default=False)
    machine: StrictStr | None = Field(alias="machineType", default=None)
    specs: MachineSpecs | None = Field(alias="machineSpecs", default=None)


#: Manifest type -> (form, the backend's name where the manifest names none).
MANIFESTS: dict[str, tuple[type[Manifest], str]] = {
    "onnx-model-package-v1": (Onnx, "onnx"),
    "torch-model-package-v1": (Manifest, "torch"),
    "hf-model-package-v1": (Manifest, "hugging-face"),
    "torch-script-model-package-v1": (TorchScript, "torch-script"),
    "trt-model-package-v1": (Engine, "trt"),
    "ultralytics-model-package-v1": (Manifest, "torch"),
}
