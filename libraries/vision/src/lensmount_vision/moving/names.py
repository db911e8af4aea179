"""Small classes and types that callers of inference-models write: enumerations, overrides, reference examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

ColorFormat = Literal["rgb", "bgr"]
Confidence = float | Literal["best", "default"]
InstanceSegmentationMaskFormat = Literal["dense", "rle"]


class BackendType(str, Enum):
    """Words for `backend`."""

    TORCH = "torch"
    TORCH_SCRIPT = "torch-script"
    ONNX = "onnx"
    TRT = "trt"
    HF = "hugging-face"
    ULTRALYTICS = "ultralytics"
    CUSTOM = "custom"
    VLLM = "vllm"
    COREML = "coreml"


class Quantization(str, Enum):
    """Words for `quantization`."""

    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"
    INT8 = "int8"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PreProcessingOverrides:
    """Steps of a package's preparation to leave out in one call. Ours are fixed at load: any that is set is refused."""

    disable_contrast_enhancement: bool = False
    disable_grayscale: bool = False
    disable_static_crop: bool = False


@dataclass(frozen=True)
class ReferenceBoundingBox:
    """An example box: centre, width and height.

    Attributes:
        x: Centre, in pixels; 0..1 of the width where `absolute` is False.
        y: Centre, likewise.
        w: Width, likewise.
        h: Height, likewise.
        cls: Class name.
        negative: What is in it is not the class.
        absolute: Whether the numbers are pixels.
    """

    x: float
    y: float
    w: float
    h: float
    cls: str
    negative: bool = False
    absolute: bool = True


@dataclass(frozen=True)
class ReferenceExample:
    """A picture with example boxes.

    Attributes:
        image: Whatever `lensmount_vision.images.load` takes.
        boxes: Its boxes.
    """

    image: Any
    boxes: list[ReferenceBoundingBox] = field(default_factory=list)
