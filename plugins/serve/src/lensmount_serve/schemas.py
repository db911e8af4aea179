"""Bodies of the protocol's requests: every field that clients send, with the protocol's defaults.

Fields that ask for nothing that this server does (`disable_active_learning`, `source` …) are taken and have no effect;
unknown fields are refused, so that a misspelt one is not taken for obeyed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Count = Annotated[int, Field(ge=1, le=100_000)]
Number = Annotated[float, Field(ge=-1e6, le=1e6)]
PICTURE = "/9j/4AAQSkZJRg…"


class Body(BaseModel):
    """What all bodies share."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class ImageField(Body):
    """A picture: base64 of a file (a `data:` prefix is taken off), or an address where the server allows it."""

    type: str = Field(examples=["base64"], max_length=40)
    value: Any = Field(examples=[PICTURE])


class Keyed(Body):
    """What every request may hold."""

    api_key: str | None = None
    id: Annotated[str | None, Field(max_length=200)] = None
    source: str | None = None
    source_info: str | None = None
    disable_model_monitoring: bool | None = False


class AddModel(Keyed):
    """`POST /model/add`."""

    model_id: Name = Field(examples=["coco/3"])
    model_type: str | None = None


class RemoveModel(Keyed):
    """`POST /model/remove`."""

    model_id: Name


class InferBody(Keyed):
    """What the four `/infer/…` routes share."""

    model_id: Name = Field(examples=["shapes-nano"])
    model_type: str | None = None
    image: ImageField | list[ImageField]
    confidence: Fraction | Literal["best", "default"] | None = 0.4
    class_filter: list[Annotated[str, Field(max_length=200)]] | None = None
    fix_batch_size: bool | None = False
    visualize_predictions: bool | None = False
    visualization_labels: bool | None = False
    visualization_stroke_width: Annotated[int, Field(ge=1, le=100)] | None = 1
    disable_preproc_auto_orient: bool | None = False
    disable_preproc_contrast: bool | None = False
    disable_preproc_grayscale: bool | None = False
    disable_preproc_static_crop: bool | None = False
    disable_active_learning: bool | None = False
    active_learning_target_dataset: str | None = None
    include_anomaly_map: bool | None = False


class DetectionBody(InferBody):
    """`POST /infer/object_detection`."""

    class_agnostic_nms: bool | None = False
    iou_threshold: Fraction | None = 0.3
    max_detections: Count | None = 300
    max_candidates: Count | None = 3000


class SegmentationBody(DetectionBody):
    """`POST /infer/instance_segmentation`. Masks are always decoded accurately, whatever speed was asked for."""

    mask_decode_mode: Literal["accurate", "fast", "tradeoff"] | None = "accurate"
    tradeoff_factor: Fraction | None = 0.0
    response_mask_format: Literal["polygon", "rle"] | None = "polygon"
    enforce_dense_masks_in_inference_models: bool | None = False
    allow_reduced_mask_resolution: bool | None = False


class KeypointsBody(DetectionBody):
    """`POST /infer/keypoints_detection`."""

    confidence: Fraction | Literal["default"] | None = 0.4
    keypoint_confidence: Fraction | None = 0.0


class ClassificationBody(InferBody):
    """`POST /infer/classification`."""


class ExampleBox(Body):
    """An example box, by its centre, in pixels."""

    x: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
    y: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
    w: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
    h: Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
    cls: Annotated[str, Field(max_length=200)]
    negative: bool = False


class ExamplePicture(Body):
    """A picture with example boxes."""

    image: ImageField
    boxes: list[ExampleBox]


class Owlv2Body(Keyed):
    """`POST /owlv2/infer`."""

    owlv2_version_id: Name = "owlv2-base-patch16-ensemble"
    model_id: Name | None = None
    image: ImageField | list[ImageField]
    training_data: list[ExamplePicture]
    confidence: Fraction | None = 0.99
    visualize_predictions: bool | None = False
    visualization_labels: bool | None = False
    visualization_stroke_width: Annotated[int, Field(ge=1, le=100)] | None = 1


class GroundingBody(Keyed):
    """`POST /grounding_dino/infer`."""

    image: ImageField | list[ImageField]
    text: list[str]
    box_threshold: Fraction | None = 0.5
    text_threshold: Fraction | None = 0.5
    class_agnostic_nms: bool | None = False
    grounding_dino_version_id: Name | None = None
    model_id: Name | None = None


class ClipImageBody(Keyed):
    """`POST /clip/embed_image`."""

    image: ImageField | list[ImageField]
    clip_version_id: Name | None = "ViT-B-16"
    model_id: Name | None = None


class ClipTextBody(Keyed):
    """`POST /clip/embed_text`."""

    text: str | list[str]
    clip_version_id: Name | None = "ViT-B-16"
    model_id: Name | None = None


class CompareBody(Keyed):
    """`POST …/compare`: one subject, and one prompt, a list, or a dict of them."""

    subject: ImageField | str
    subject_type: Literal["image", "text"] = "image"
    prompt: ImageField | str | list[ImageField | str] | dict[str, ImageField | str]
    prompt_type: Literal["image", "text"] = "text"
    clip_version_id: Name | None = "ViT-B-16"
    perception_encoder_version_id: Name | None = "PE-Core-L14-336"
    model_id: Name | None = None


class PerceptionImageBody(Keyed):
    """`POST /perception_encoder/embed_image`."""

    image: ImageField | list[ImageField]
    perception_encoder_version_id: Name | None = "PE-Core-L14-336"
    model_id: Name | None = None


class PerceptionTextBody(Keyed):
    """`POST /perception_encoder/embed_text`."""

    text: str | list[str]
    perception_encoder_version_id: Name | None = "PE-Core-L14-336"
    model_id: Name | None = None


class PromptBox(Body):
    """A box by its centre, in pixels."""

    x: Number
    y: Number
    width: Number
    height: Number


class PromptPoint(Body):
    """A point on the object, or off it."""

    x: Number
    y: Number
    positive: bool


class Prompt(Body):
    """What points at one object."""

    box: PromptBox | None = None
    points: list[PromptPoint] | None = None


class PromptSet(Body):
    """Several prompts."""

    prompts: list[Prompt] | None = None


class Sam2EmbedBody(Keyed):
    """`POST /sam2/embed_image`."""

    image: ImageField
    image_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sam2_version_id: Name = "hiera_large"
    model_id: Name | None = None


class Sam2SegmentBody(Keyed):
    """`POST /sam2/segment_image`."""

    image: ImageField | None = None
    image_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    sam2_version_id: Name = "hiera_large"
    model_id: Name | None = None
    format: Literal["json", "rle", "binary"] = "json"
    multimask_output: bool = True
    save_logits_to_cache: bool = False
    load_logits_from_cache: bool = False
    prompts: PromptSet | list[Prompt] | Prompt = Field(default_factory=PromptSet)
