"""What the files of a package mean, in lensmount's words: geometry, batches, settings, recommended options.

Settings that packages of this origin carry (a pair is there only where the file says something):

| pair | value | meaning |
|---|---|---|
| `origin` | `"inference-models"` | whose package it is |
| `family` | `"yolov8"` … | version within the architecture, for `yolo` |
| `variant` | `"rfdetr-nano"`, `"sam2.1_hiera_t"`, `"PE-Core-L14-336"` | the network's size |
| `layout` | `"hugging-face"` | how the weights' tensors are named, where not the architecture's own way |
| `activation` | `"softmax"` or `"sigmoid"` | post-processing of a classifier's logits |
| `fused_activation` | bool | whether the graph applies it already |
| `fused_nms` | bool | whether the graph ends in NMS: rows `x1, y1, x2, y2, confidence, class` |
| `nms_max_detections` | int | with `fused_nms`: the graph's own limit |
| `nms_confidence` | float | with `fused_nms`: rows below it never leave the graph |
| `nms_iou_threshold` | float | with `fused_nms`: the graph's own threshold |
| `nms_class_agnostic` | bool | with `fused_nms`: whether classes suppress one another |
| `removed_classes` | names | classes that are in `classes` and are not to be reported |
| `auto_orient` | bool | whether training pictures were turned as their EXIF data say |
| `dynamic_size` | `"pad-to-be-divisible"`, `"any-size"` | the graph takes other sizes than `Preprocess.size` |
| `dataset_size` | `(height, width)` | what the training set was resized to before the network's own resize |
| `batch_range` | `(min, opt, max)` | batch sizes of an engine's optimisation profile |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount.specs import BatchPolicy, Pairs, Preprocess, Requirements, ResizeMode
from lensmount_roboflow.packages.strangers import OTHER, STRANGERS, TASKS_OF

if TYPE_CHECKING:
    from lensmount_roboflow.packages.schema import (
        ForwardPass,
        InferenceConfig,
        ModelConfig,
        PostProcessing,
        RecommendedParameters,
        StaticCrop,
        TrtConfig,
    )

#: Architecture name -> (ours, its `family`).
ARCHITECTURES: dict[str, tuple[str, str | None]] = {
    "yolov8": ("yolo", "yolov8"),
    "yolov9": ("yolo", "yolov9"),
    "yolov10": ("yolo", "yolov10"),
    "yolov11": ("yolo", "yolo11"),
    "yolov12": ("yolo", "yolo12"),
    "yolo26": ("yolo", "yolo26"),
    "rfdetr": ("rfdetr", None),
    "sam2": ("sam2", None),
    "clip": ("clip", None),
    "perception-encoder": ("perception_encoder", None),
    "owlv2": ("owlv2", None),
}
#: Task names that differ.
TASKS = {
    "interactive-instance-segmentation": "interactive-segmentation",
    "open-vocabulary-object-detection": "open-vocabulary-detection",
}
#: Task of an architecture where the file names none.
DEFAULT_TASKS = {
    "rfdetr": "object-detection",
    "yolo": "object-detection",
    "sam2": "interactive-segmentation",
    "clip": "embedding",
    "perception_encoder": "embedding",
    "owlv2": "open-vocabulary-detection",
}
RESIZE_MODES: dict[str, ResizeMode] = {
    "stretch": "stretch",
    "letterbox": "letterbox",
    "letterbox-reflect-edges": "letterbox-reflect",
    "center-crop": "center-crop",
    "fit-longer-edge": "fit",
}
CONTRASTS: dict[str, Literal["adaptive-equalization", "contrast-stretching", "histogram-equalization"]] = {
    "Adaptive Equalization": "adaptive-equalization",
    "Contrast Stretching": "contrast-stretching",
    "Histogram Equalization": "histogram-equalization",
}
#: Backend type -> package format. A Hugging Face folder holds weights, which is what `torch` packages are made of.
FORMATS = {"onnx": "onnx", "trt": "engine", "torch-script": "torchscript", "torch": "torch", "hugging-face": "torch"}
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a package is: our architecture, task and format, and the settings that follow from that."""

    architecture: str
    task: str
    format: str
    settings: Pairs


def identify(config: ModelConfig, where: str) -> Identity:
    """Architecture, task and format of a package.

    Raises:
        UnsafeFileError: The package brings its own code.
        ModelFileError: A name is missing.
        UnsupportedModelError: Nothing here knows the architecture or the backend.
    """
    if config.model_module or config.model_class or config.backend_type == "custom":
        raise UnsafeFileError(
            f"{where} wants to run code from its folder",
            found=f"model_module {config.model_module!r}, model_class {config.model_class!r}",
            expected="a package of files that are only read",
            fix="put the code into a plugin (a distribution with an entry point of group 'lensmount') and install it",
        )
    return identify_names(config.model_architecture, config.task_type, config.backend_type, where)


def identify_names(architecture: str | None, task: str | None, backend: str | None, where: str) -> Identity:
    """`identify` for a provider's metadata, whose names are the same.

    Raises:
        ModelFileError: A name is missing.
        UnsupportedModelError: Nothing here knows the architecture or the backend.
    """
    for key, value in (("model_architecture", architecture), ("backend_type", backend)):
        if not value:
            raise ModelFileError(f"{where} is malformed at {key}", found="nothing", expected="a name")
    if architecture not in ARCHITECTURES:
        what, instead = STRANGERS.get(architecture or "", (None, None))
        raise UnsupportedModelError(
            f"{where} is of an architecture that lensmount does not {'run' if what else 'know'}",
            found=f"{architecture!r}: {what}" if what else repr(architecture),
            expected=", ".join(ARCHITECTURES),
            fix=instead,
        )
    name, family = ARCHITECTURES[architecture]
    ours = TASKS.get(task, task) if task else DEFAULT_TASKS[name]
    if ours not in TASKS_OF[name]:
        raise UnsupportedModelError(
            f"{where} is of a task that lensmount does not run with the architecture {architecture!r}",
            found=repr(task),
            expected=", ".join(TASKS_OF[name]),
            fix=OTHER,
        )
    if backend not in FORMATS:
        raise UnsupportedModelError(
            f"{where} is for a backend that lensmount does not know", found=repr(backend), expected=", ".join(FORMATS)
        )
    settings: list[tuple[str, Any]] = [("origin", "inference-models")]
    if family is not None:
        settings.append(("family", family))
    if backend == "hugging-face":
        settings.append(("layout", "hugging-face"))
    return Identity(name, ours, FORMATS[backend], tuple(settings))


def preprocess_of(config: InferenceConfig, where: str) -> Preprocess:
    """How pictures become the network's input.

    Scaled sizes are truncated and padding is black where no value is given, as the package's makers do.

    Raises:
        ModelFileError: Values contradict one another.
        UnsupportedModelError: The network takes neither one nor three channels.
    """
    network = config.network_input
    before = config.image_pre_processing
    channels = network.input_channels
    if channels not in (1, 3):
        raise UnsupportedModelError(
            f"{where}: network_input.input_channels is not supported", found=str(channels), expected="1 or 3"
        )
    mean, std = network.normalization or (None, None)
    for values in (mean, std):
        if values is not None and len(values) != channels:
            raise ModelFileError(
                f"{where} is malformed at network_input.normalization",
                found=f"{len(values)} values",
                expected=f"{channels}, one per channel",
            )
    mode = network.dynamic_spatial_size_mode if network.dynamic_spatial_size_supported else None
    size = network.training_input_size
    if size is None and (mode is None or mode.type != "any-size"):
        raise ModelFileError(
            f"{where} is malformed at network_input.training_input_size",
            found="nothing",
            expected="height and width, or dynamic_spatial_size_mode any-size",
        )
    crop = before.static_crop if before and before.static_crop and before.static_crop.enabled else None
    contrast = before.contrast if before and before.contrast and before.contrast.enabled else None
    return Preprocess(
        size=None if size is None else (size.height, size.width),
        resize="none" if size is None else RESIZE_MODES[network.resize_mode],
        rounding="truncate",
        divisible_by=mode.value if mode is not None and mode.type == "pad-to-be-divisible" else None,
        padding_value=network.padding_value or 0,
        scale=1.0 if network.scaling_factor is None else 1.0 / network.scaling_factor,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
        color=network.color_mode,
        grayscale=bool(before and before.grayscale and before.grayscale.enabled),
        channels=channels,
        static_crop=None if crop is None else _crop(crop, where),
        contrast=None if contrast is None else CONTRASTS[contrast.type],
    )


def _crop(crop: StaticCrop, where: str) -> tuple[float, float, float, float]:
    if crop.x_min >= crop.x_max or crop.y_min >= crop.y_max:
        raise ModelFileError(
            f"{where} is malformed at image_pre_processing.static-crop",
            found=f"x {crop.x_min}..{crop.x_max}, y {crop.y_min}..{crop.y_max}",
            expected="minima below maxima",
        )
    return (crop.x_min, crop.y_min, crop.x_max, crop.y_max)


def settings_of(config: InferenceConfig) -> Pairs:
    """The settings that an `inference_config.json` gives; see the table above."""
    pairs: list[tuple[str, Any]] = []
    if config.post_processing is not None:
        pairs += _post_processing(config.post_processing)
    if config.class_names_operations:
        pairs.append(("removed_classes", tuple(o.class_name for o in config.class_names_operations)))
    before, network = config.image_pre_processing, config.network_input
    if before is not None and before.auto_orient is not None:
        pairs.append(("auto_orient", before.auto_orient.enabled))
    if network.dynamic_spatial_size_supported and network.dynamic_spatial_size_mode is not None:
        pairs.append(("dynamic_size", network.dynamic_spatial_size_mode.type))
    if network.dataset_version_resize_dimensions is not None:
        size = network.dataset_version_resize_dimensions
        pairs.append(("dataset_size", (size.height, size.width)))
    return tuple(pairs)


def _post_processing(post: PostProcessing) -> list[tuple[str, Any]]:
    if post.type != "nms":
        return [("activation", post.type), ("fused_activation", post.fused)]
    pairs: list[tuple[str, Any]] = [("fused_nms", post.fused)]
    given = post.nms_parameters
    if post.fused and given is not None:
        pairs += [
            ("nms_max_detections", given.max_detections),
            ("nms_confidence", given.confidence_threshold),
            ("nms_iou_threshold", given.iou_threshold),
            ("nms_class_agnostic", bool(given.class_agnostic)),
        ]
    return pairs


def batch_of(forward: ForwardPass | None, model: ModelConfig | None = None) -> BatchPolicy | None:
    """Batch policy from `forward_pass`, else from the model's own keys, else None: to be read from the graph."""
    if forward is not None and forward.static_batch_size is not None:
        return BatchPolicy(static=forward.static_batch_size)
    if forward is not None and forward.max_dynamic_batch_size is not None:
        return BatchPolicy(maximum=forward.max_dynamic_batch_size)
    if model is not None and model.dynamic_batch_size_supported:
        return BatchPolicy()
    if model is not None and model.static_batch_size is not None:
        return BatchPolicy(static=model.static_batch_size)
    return None


def engine_of(config: TrtConfig, where: str) -> tuple[BatchPolicy, Pairs, Requirements]:
    """Batch policy, settings and requirements of a TensorRT engine.

    Raises:
        ModelFileError: The batch sizes are incomplete or contradict one another.
    """
    needs = Requirements(devices=("cuda",))
    if config.static_batch_size is not None:
        return BatchPolicy(static=config.static_batch_size), (), needs
    sizes = (config.dynamic_batch_size_min, config.dynamic_batch_size_opt, config.dynamic_batch_size_max)
    low, best, high = sizes
    if low is None or best is None or high is None or not low <= best <= high:
        raise ModelFileError(
            f"{where} is malformed at dynamic_batch_size_min, dynamic_batch_size_opt, dynamic_batch_size_max",
            found=str(sizes),
            expected="static_batch_size, or three sizes with min <= opt <= max",
        )
    return BatchPolicy(maximum=high), (("batch_range", (low, best, high)),), needs


def recommended_of(parameters: RecommendedParameters | None) -> Pairs:
    """Default call options: `confidence` and `per_class_confidence`, as pairs of class name and threshold."""
    pairs: list[tuple[str, Any]] = []
    if parameters is not None and parameters.confidence is not None:
        pairs.append(("confidence", parameters.confidence))
    if parameters is not None and parameters.per_class_confidence:
        pairs.append(("per_class_confidence", tuple(parameters.per_class_confidence.items())))
    return tuple(pairs)


def precision_of(quantization: str | None) -> str:
    """Precision of the stored weights; `unknown` where the package does not say."""
    return quantization if quantization in PRECISIONS else "unknown"


def classes_of(text: str, where: str) -> tuple[str, ...]:
    """Class names from `class_names.txt`: one per line, stripped, blank lines dropped.

    Raises:
        ModelFileError: There is none.
    """
    names = tuple(line.strip() for line in re.split(r"\r\n|\r|\n", text) if line.strip())
    if not names:
        raise ModelFileError(f"{where} names no class", found="no line with text", expected="one class name per line")
    return names
