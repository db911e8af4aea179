"""Export: from official weights to an ONNX graph, or to safetensors, checked before the file is kept."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.contracts.model import ExportContext
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs.options import check_names, flag, fraction, is_whole, one_of, positive
from lensmount_vision.models.exporting import require_packages, write_checked
from lensmount_yolo.metadata import parse

if TYPE_CHECKING:
    from lensmount_yolo.checkpoint import Loaded

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
    a picture of 640 would otherwise come in steps of half a pixel, and every runtime and reader takes float32.

    Raises:
        OptionError: A setting has a wrong value, or does not go with the model.
        UnknownOptionError: A setting that does not exist.
        MissingDependencyError: onnx, onnxruntime or torch is not installed.
        BackendError: The graph does not give what the network gives; nothing is kept.
    """
    one_of("target", context.target, TARGETS)
    settings = _settings(context.settings)
    if context.target == "safetensors":
        return _safetensors(context)
    require_packages("onnx", "onnxruntime", "torch", fix='pip install "lensmount-yolo[export]"')
    import torch

    from lensmount_yolo.checkpoint import branches, load_network
    from lensmount_yolo.export_check import check_graph
    from lensmount_yolo.networks.fuse import fuse

    loaded = load_network(_weights(context), end_to_end=branches(context.package, settings.end_to_end))
    network = _prepared(fuse(loaded.module), loaded, settings)
    exact = copy.deepcopy(network).double()
    size = _size(settings, loaded)
    batch = 1 if context.dynamic else positive("batch", context.batch)
    if one_of("precision", context.precision, ("fp32", "fp16")) == "fp16":
        network = _half(network, loaded.module)
    channels = loaded.module_channels
    example = torch.zeros(batch, channels, *size)
    names = ["output0", *(["output1"] if len(loaded.outputs) > 1 else [])]
    stream = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracing exporter is the one that needs no further package
        torch.onnx.export(
            network,
            (example,),
            stream,  # type: ignore[arg-type]  # the tracing exporter takes streams; the stubs speak of the other
            input_names=["images"],
            output_names=names,
            dynamic_axes=_dynamic_axes(loaded, settings) if context.dynamic else None,
            opset_version=OPSET,
            dynamo=False,
        )
    shapes = _output_shapes(loaded, settings) if context.dynamic else {}
    graph = _with_metadata(stream.getvalue(), _metadata(context, settings, loaded, size), shapes)

    def check(path: Path) -> None:
        half = context.precision == "fp16"
        check_graph(path, network, exact, (batch, channels, *size), dynamic=context.dynamic, half=half)

    return write_checked(graph, context.output, check)


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


def _prepared(network: Any, loaded: Loaded, settings: Settings) -> Any:
    from lensmount_yolo.networks.heads import Detect
    from lensmount_yolo.networks.suppress import WithSuppression
    from lensmount_yolo.networks.task_heads import OBB

    if settings.nms == "none":
        return network
    head = loaded.module.head
    if not isinstance(head, Detect) or isinstance(head, OBB) or head.end_to_end:
        why = "its rows are final already" if isinstance(head, Detect) and head.end_to_end else type(head).__name__
        raise OptionError(
            "nms='embedded' does not go with this model", found=why, expected="boxes that need suppression"
        )
    return WithSuppression(
        network,
        head.classes,
        confidence=settings.confidence,
        iou_threshold=settings.iou_threshold,
        max_detections=settings.max_detections,
    ).eval()


def _half(network: Any, module: Any) -> Any:
    """Weights and computation in half, from the float32 input to the maps that the head decodes."""
    from lensmount_yolo.networks.half import HalfInside

    return HalfInside(network, module).eval()


def _size(settings: Settings, loaded: Loaded) -> tuple[int, int]:
    metadata = parse(loaded.described.metadata)
    size = settings.input_size or metadata.size or (640, 640)
    stride = metadata.stride or 32
    if metadata.task != "classification" and any(side % stride for side in size):
        raise OptionError("input_size does not go with the network", found=str(size), expected=f"multiples of {stride}")
    return size


def _output_shapes(loaded: Loaded, settings: Settings) -> dict[str, tuple[int | str | None, ...]]:
    """Fixed numbers and names of free ones, for the outputs of a dynamic graph."""
    shapes = {spec.name: spec.shape for spec in loaded.outputs}
    if settings.nms == "embedded":
        classes = getattr(loaded.module.head, "classes", 0)
        values = loaded.outputs[0].shape[1]
        assert isinstance(values, int)
        shapes["output0"] = ("batch", settings.max_detections, values - classes + 2)
    return shapes


def _dynamic_axes(loaded: Loaded, settings: Settings) -> dict[str, dict[int, str]]:
    axes = {
        name: {i: size for i, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in _output_shapes(loaded, settings).items()
    }
    return {"images": {0: "batch", 2: "height", 3: "width"}, **axes}


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


def _with_metadata(
    graph: bytes, metadata: Mapping[str, str], shapes: Mapping[str, tuple[int | str | None, ...]]
) -> bytes:
    import onnx

    model = onnx.load_from_string(graph)
    for output in model.graph.output:
        for dimension, size in zip(output.type.tensor_type.shape.dim, shapes.get(output.name, ()), strict=False):
            if isinstance(size, int):  # the exporter leaves what it cannot follow free
                dimension.dim_value = size
    for node in model.graph.node:
        node.doc_string = ""  # else paths of the machine that it was made on
    model.producer_name = "lensmount"
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    serialised: bytes = model.SerializeToString()
    return serialised


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
