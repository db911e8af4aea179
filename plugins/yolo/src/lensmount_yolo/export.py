"""Export: from official weights to an ONNX graph, or to safetensors, checked before the file is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import ExportContext
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs.options import check_names, flag, fraction, is_whole, one_of, positive
from lensmount_vision.models.exporting import keep_checked, require_packages
from lensmount_yolo.metadata import parse
from lensmount_yolo.official import class_count

if TYPE_CHECKING:
    from lensmount_networks import Network
    from lensmount_yolo.checkpoint import Loaded
    from lensmount_yolo.export_check import Answers
    from lensmount_yolo.networks.suppress import Suppression

OPSET = 17
TARGETS = ("onnx", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an export may be told in addition to the common options.

    Attributes:
        nms: `none` leaves the raw predictions; `embedded` makes suppression part of the graph.
        input_size: `(height, width)` of the graph; None for the training size.
        confidence: For `embedded`: scores must be above it.
        iou_threshold: For `embedded`: overlap, within a class, above which the weaker box goes.
        max_detections: For `embedded`: rows per picture.
        end_to_end: For heads that have both branches (v10, 26): whether the graph gives final rows, by the branches
            that need no suppression; None for what the package says, else raw predictions by the others.
    """

    nms: str = "none"
    input_size: tuple[int, int] | None = None
    confidence: float = 0.25
    iou_threshold: float = 0.7
    max_detections: int = 300
    end_to_end: bool | None = None


def export(context: ExportContext) -> Path:
    """Writes the model in another format.

    ONNX graphs have the names, shapes and metadata of ultralytics' exports, opset 17: input `images` float32
    `(B, 3, H, W)` RGB in 0..1, outputs `output0` (and `output1` for masks) in float32. With `precision="fp16"` the
    weights and the computation inside are half, inputs and outputs and the decoding of boxes stay float32: pixels of
    a picture of 640 would otherwise come in steps of half a pixel, and every runtime and reader takes float32. Weights
    of more than 1.9 GB lie in a second file, with `.data` behind the graph's name.

    Raises:
        OptionError: A setting has a wrong value, or does not go with the model.
        UnknownOptionError: A setting that does not exist.
        MissingDependencyError: onnxruntime is not installed.
        BackendError: The graph does not give what the network gives; nothing is kept.
    """
    one_of("target", context.target, TARGETS)
    settings = _settings(context.settings)
    if context.target == "safetensors":
        return _safetensors(context)
    require_packages("onnxruntime", fix='pip install "lensmount-yolo[onnx]"')
    from lensmount_yolo.checkpoint import branches, load_network
    from lensmount_yolo.export_check import check_graph

    half = one_of("precision", context.precision, ("fp32", "fp16")) == "fp16"
    loaded = load_network(_weights(context), end_to_end=branches(context.package, settings.end_to_end))
    rule = _suppression(loaded, settings)
    size = _size(settings, loaded)
    batch = 1 if context.dynamic else positive("batch", context.batch)
    network = _network(loaded.folded(), rule, half)
    network = replace(network, metadata=_metadata(context, settings, loaded, size))
    sizes = {"batch": batch, "height": size[0], "width": size[1]}
    shape = (batch, loaded.channels, *size)
    for spec, found in zip(network.outputs, network.shapes(sizes), strict=True):
        sizes.update({name: n for name, n in zip(spec.shape, found, strict=True) if isinstance(name, str)})

    def check(path: Path) -> None:
        check_graph(path, _answers(loaded, rule, half), shape, dynamic=context.dynamic, half=half)

    return keep_checked(context.output, lambda path: network.save(path, {} if context.dynamic else sizes), check)


def _network(loaded: Loaded, rule: Suppression | None, half: bool) -> Network:
    """The network as it is exported; in half from the float32 input to the maps that the head decodes."""
    from lensmount_yolo.networks.assemble import Network as Layers

    def layer() -> Layers:
        made = loaded.layer()
        made.narrow, made.last = half, rule
        return made

    outputs = list(loaded.outputs)
    if rule is not None:
        values: Any = outputs[0].shape[1]
        outputs[0] = replace(outputs[0], shape=("batch", rule.max_detections, values - rule.classes + 2))
    tensors = {name: tensor.astype("float16" if half else "float32") for name, tensor in loaded.tensors.items()}
    return replace(loaded.network(), layer=layer, tensors=tensors, outputs=tuple(outputs))


def _answers(loaded: Loaded, rule: Suppression | None, half: bool) -> Answers:
    """The network's own: in torch; where that is not installed, in onnxruntime before anything is folded."""
    from lensmount_yolo.export_check import Answers, in_onnx, in_torch

    if find_spec("torch") is None:
        plain = _network(loaded, None, half)
        exact = in_onnx(_network(loaded, None, False), optimised=False)
        return Answers(in_onnx(_network(loaded, rule, half)), in_onnx(plain) if rule else None, exact, rule)
    folded = loaded.folded()
    plain = _network(folded, None, half)
    exact = in_torch(_network(folded, None, False), "float64")
    return Answers(in_torch(_network(folded, rule, half)), in_torch(plain) if rule else None, exact, rule)


def _settings(values: Mapping[str, Any]) -> Settings:
    known = ("nms", "input_size", "confidence", "iou_threshold", "max_detections", "end_to_end")
    check_names(values, known, "exporting a YOLO model")
    size = values.get("input_size")
    if is_whole(size):
        size = (size, size)
    if size is not None and not (isinstance(size, tuple | list) and len(size) == 2):
        raise OptionError("input_size has the wrong type", found=repr(size), expected="a number or (height, width)")
    end_to_end = values.get("end_to_end")
    return Settings(
        end_to_end=None if end_to_end is None else flag("end_to_end", end_to_end),
        nms=one_of("nms", values.get("nms", "none"), ("none", "embedded")),
        input_size=None if size is None else (positive("input_size", size[0]), positive("input_size", size[1])),
        confidence=fraction("confidence", values.get("confidence", 0.25)),
        iou_threshold=fraction("iou_threshold", values.get("iou_threshold", 0.7)),
        max_detections=positive("max_detections", values.get("max_detections", 300)),
    )


def _weights(context: ExportContext) -> Path:
    return next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")


def _suppression(loaded: Loaded, settings: Settings) -> Suppression | None:
    from lensmount_yolo.networks.suppress import Suppression

    if settings.nms == "none":
        return None
    kind = loaded.head.kind
    if kind in ("OBB", "Classify") or loaded.end_to_end:
        why = "its rows are final already" if loaded.end_to_end else kind
        raise OptionError(
            "nms='embedded' does not go with this model", found=why, expected="boxes that need suppression"
        )
    return Suppression(
        class_count(loaded.head),
        confidence=settings.confidence,
        iou_threshold=settings.iou_threshold,
        max_detections=settings.max_detections,
    )


def _size(settings: Settings, loaded: Loaded) -> tuple[int, int]:
    metadata = parse(loaded.described.metadata)
    size = settings.input_size or metadata.size or (640, 640)
    stride = metadata.stride or 32
    if metadata.task != "classification" and any(side % stride for side in size):
        raise OptionError("input_size does not go with the network", found=str(size), expected=f"multiples of {stride}")
    return size


def _metadata(context: ExportContext, settings: Settings, loaded: Loaded, size: tuple[int, int]) -> dict[str, str]:
    """The keys of ultralytics' exports, which other tools read, and ours."""
    arguments = {
        "batch": context.batch,
        "half": context.precision == "fp16",
        "dynamic": context.dynamic,
        "simplify": False,
        "opset": OPSET,
        "nms": settings.nms == "embedded",
    }
    return {
        **loaded.described.metadata,
        "batch": str(context.batch),
        "imgsz": str(list(size)),
        "args": str(arguments),
        "lensmount.architecture": "yolo",
        "lensmount.precision": context.precision,
    }


def _safetensors(context: ExportContext) -> Path:
    """The same tensors, with the description of the network in the header: no pickle, no guessing."""
    from lensmount_reading import read_checkpoint, to_safetensors
    from lensmount_yolo.checkpoint import NETWORK_KEY, describe
    from lensmount_yolo.networks.nodes import to_json

    if context.precision != "fp32" or context.dynamic or context.settings:
        raise UnsupportedModelError(
            "safetensors keeps the weights as they are", found="precision, dynamic or settings", expected="none of them"
        )
    described, tensors = describe(read_checkpoint(_weights(context), modules="records"))
    metadata = {**described.metadata, "format": "pt", NETWORK_KEY: to_json(described.network)}
    return to_safetensors(tensors, context.output, metadata=metadata)
