"""Forms of the JSON files in a package folder. Unknown keys are tolerated; what is known must be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from lensmount.errors import ModelFileError, UnsafeFileError

#: No configuration comes near this; class lists of hundreds of thousands of names stay below it.
MAX_BYTES = 16 * 2**20

Count = Annotated[StrictInt, Field(gt=0)]
Percent = Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class Form(BaseModel):
    """Base: keys as in the file, others ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True, protected_namespaces=())


class Switch(Form):
    """`{"enabled": bool}`."""

    enabled: StrictBool


class StaticCrop(Switch):
    """A crop in percent of the picture's sides."""

    x_min: Percent
    x_max: Percent
    y_min: Percent
    y_max: Percent


class Contrast(Switch):
    """Contrast normalisation."""

    type: Literal["Adaptive Equalization", "Contrast Stretching", "Histogram Equalization"]


class ImagePreProcessing(Form):
    """`image_pre_processing`: what happens before the resize."""

    auto_orient: Switch | None = Field(alias="auto-orient", default=None)
    static_crop: StaticCrop | None = Field(alias="static-crop", default=None)
    contrast: Contrast | None = None
    grayscale: Switch | None = None


class Size(Form):
    """Height and width in pixels."""

    height: Count
    width: Count


class PadToBeDivisible(Form):
    """Sides are padded to a multiple."""

    type: Literal["pad-to-be-divisible"]
    value: Count


class AnySize(Form):
    """Any size goes."""

    type: Literal["any-size"]


class NetworkInput(Form):
    """`network_input`: what the network takes."""

    training_input_size: Size | None = None
    dataset_version_resize_dimensions: Size | None = None
    dynamic_spatial_size_supported: StrictBool = False
    dynamic_spatial_size_mode: PadToBeDivisible | AnySize | None = Field(default=None, discriminator="type")
    color_mode: Literal["bgr", "rgb"]
    resize_mode: Literal["stretch", "letterbox", "center-crop", "fit-longer-edge", "letterbox-reflect-edges"]
    padding_value: Annotated[StrictInt, Field(ge=0, le=255)] | None = None
    input_channels: Count = 3
    scaling_factor: Positive | None = None
    normalization: (
        tuple[Annotated[list[Number], Field(min_length=1)], Annotated[list[Positive], Field(min_length=1)]] | None
    ) = None


class ForwardPass(Form):
    """`forward_pass`: batch sizes."""

    static_batch_size: Count | None = None
    max_dynamic_batch_size: Count | None = None


class NmsParameters(Form):
    """What a graph with NMS in it was exported with."""

    max_detections: Count
    confidence_threshold: Share
    iou_threshold: Share
    class_agnostic: StrictBool | Literal[0, 1]


class PostProcessing(Form):
    """`post_processing`: what is left to do after the graph."""

    type: Literal["nms", "softmax", "sigmoid"]
    fused: StrictBool
    nms_parameters: NmsParameters | None = None


class ClassNameRemoval(Form):
    """A class that is not reported."""

    type: Literal["class_name_removal"]
    class_name: StrictStr


class InferenceConfig(Form):
    """`inference_config.json`."""

    image_pre_processing: ImagePreProcessing | None = None
    network_input: NetworkInput
    forward_pass: ForwardPass | None = None
    post_processing: PostProcessing | None = None
    class_names_operations: list[ClassNameRemoval] | None = None


class RecommendedParameters(Form):
    """Call options that the model's trainer recommends."""

    confidence: Share | None = None
    per_class_confidence: dict[StrictStr, Share] | None = Field(alias="perClassConfidence", default=None)


class ModelConfig(Form):
    """`model_config.json`."""

    model_architecture: StrictStr | None = None
    task_type: StrictStr | None = None
    backend_type: StrictStr | None = None
    model_module: StrictStr | None = None
    model_class: StrictStr | None = None
    model_id: StrictStr | None = None
    recommended_parameters: RecommendedParameters | None = None
    quantization: StrictStr | None = None
    dynamic_batch_size_supported: StrictBool | None = None
    static_batch_size: Count | None = None


class TrtConfig(Form):
    """`trt_config.json`: batch sizes that an engine was built for."""

    static_batch_size: Count | None = None
    dynamic_batch_size_min: Count | None = None
    dynamic_batch_size_opt: Count | None = None
    dynamic_batch_size_max: Count | None = None


FormT = TypeVar("FormT", bound=Form)


def parse(form: type[FormT], data: object, where: str) -> FormT:
    """Checks plain data against a form.

    Args:
        form: One of this module's classes.
        data: Parsed JSON.
        where: Names the file for messages.

    Returns:
        The filled form.

    Raises:
        ModelFileError: Naming each key that is wrong, what was found and what was expected.
    """
    if not isinstance(data, dict):
        raise ModelFileError(f"{where} should hold a JSON object", found=_short(data), expected="an object")
    try:
        return form.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        keys = [".".join(str(part) for part in detail["loc"]) for detail in details]
        found = ["nothing" if d["type"] == "missing" else _short(d["input"]) for d in details]
        wanted = [d["msg"] for d in details]
        raise ModelFileError(
            f"{where} is malformed at {', '.join(keys)}", found="; ".join(found), expected="; ".join(wanted)
        ) from None


def read_json(path: Path, where: str) -> Any:
    """Reads a JSON file of a sensible size.

    Raises:
        UnsafeFileError: It is absurdly large.
        ModelFileError: It cannot be read, or is not JSON.
    """
    return decode_json(read_bytes(path, where), where)


def read_bytes(path: Path, where: str) -> bytes:
    """Reads a small file whole.

    Raises:
        UnsafeFileError: It is absurdly large.
        ModelFileError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelFileError(f"{where} cannot be read", found=error.strerror or str(error)) from error
    if len(content) > MAX_BYTES:
        raise UnsafeFileError(f"{where} is too large", found=f"more than {MAX_BYTES} bytes", expected="a small file")
    return content


def decode_json(content: bytes, where: str) -> Any:
    """Decodes JSON.

    Raises:
        ModelFileError: It is none.
    """
    try:
        return json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{where} is not JSON", found=_short(error), expected="JSON in UTF-8") from error


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
