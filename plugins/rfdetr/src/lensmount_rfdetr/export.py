"""Export: from weights to an ONNX graph, compared with the network before the file is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.contracts.model import ExportContext, NetworkContext
from lensmount.errors import BackendError, OptionError
from lensmount.specs.options import check_names, one_of, positive
from lensmount_rfdetr.checkpoint import build, load, metadata_of
from lensmount_rfdetr.names import NAMES, Said, chosen, place, to_metadata
from lensmount_rfdetr.networks.half import half_inside
from lensmount_rfdetr.options import LoadOptions
from lensmount_vision.models import exporting
from lensmount_vision.models.processors import PIXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Network

#: Largest differences of class logits that rounding may make: for the middle query, and for the worst twentieth. Where
#: two cells of the first stage tie, as they do on noise, their queries change places, and all others feel it a little;
#: in half precision many tie.
TOLERANCES = {"fp32": (2e-2, 0.2), "fp16": (0.5, float("inf"))}


def export(context: ExportContext) -> Path:
    """Writes the model as an ONNX graph of one input size.

    Names, shapes and meaning are those of rfdetr's own exporter: input `input` `(B, 3, H, W)` normalised RGB; outputs
    `dets` `(B, Q, 4)` cxcywh as fractions, `labels` `(B, Q, C)` class logits and, for segmentation, `masks`
    `(B, Q, h, w)` mask logits; opset 17. With `precision="fp16"` weights and computation inside are half, while inputs
    and outputs, and the arithmetic of boxes, stay float32.

    Settings: `input_size`, a number or `(height, width)`; else the size that the weights were trained at. `classes` and
    `class_offset`, as for a load, where the file does not say which column is which class.

    Raises:
        OptionError: A setting has a wrong value.
        UnknownOptionError: A setting that does not exist.
        MissingDependencyError: onnxruntime is not installed.
        BackendError: The graph does not give what the network gives; nothing is kept.
    """
    one_of("target", context.target, ("onnx",))
    precision = one_of("precision", context.precision, ("fp32", "fp16"))
    batch = 1 if context.dynamic else positive("batch", context.batch)
    options = _options(context.settings)
    exporting.require_packages("onnxruntime", fix='pip install "lensmount-rfdetr[onnx]"')
    loading = NetworkContext(card=context.card, package=context.package, files=context.files, options=options)
    contents, layout = load(loading)
    names = _names(context, contents.said, layout.columns, options)
    network = build(loading, contents, layout)
    metadata = {
        **metadata_of(layout),
        **{key: value for key, value in network.metadata.items() if key == PIXELS},
        NAMES: to_metadata(names),
        "lensmount.precision": precision,
    }
    exported = replace(half_inside(network) if precision == "fp16" else network, metadata=metadata)

    def check(path: Path) -> None:
        for count in {batch, 2} if context.dynamic else {batch}:
            _compare(path, network, count, TOLERANCES[precision])

    sizes = {} if context.dynamic else {"batch": batch}
    return exporting.write_checked(lambda path: exported.save(path, sizes), context.output, check)


def _options(values: Mapping[str, Any]) -> LoadOptions:
    check_names(values, ("input_size", "classes", "class_offset"), "exporting an RF-DETR model")
    size = values.get("input_size")
    if isinstance(size, list):
        size = tuple(size)
    if isinstance(size, tuple) and len(size) != 2:
        raise OptionError("input_size has the wrong type", found=repr(size), expected="a number or (height, width)")
    return LoadOptions(input_size=size, classes=values.get("classes"), class_offset=values.get("class_offset"))


def _names(context: ExportContext, said: Said, columns: int, options: LoadOptions) -> tuple[str, ...]:
    """The names that a load of the same model gives its columns."""
    where, card = context.card.id, context.card.classes
    package = card if "class_names.txt" in context.files else ()
    said = chosen(said, columns, where, package=package, graph=(), card=card)
    return place(said, columns, where, classes=options.classes, offset=options.class_offset).names


def _compare(path: Path, network: Network, batch: int, tolerance: tuple[float, float]) -> None:
    """Runs the file and the network in float32 on noise: in torch where it is installed, else as a graph in memory.

    Raises:
        BackendError: They differ.
    """
    names = [spec.name for spec in network.outputs]
    sides = (size for size in network.inputs[0].shape[1:] if isinstance(size, int))
    noise = np.random.default_rng(0).standard_normal((batch, *sides), np.float32)
    found, expected = _on_onnxruntime(str(path), {}, names, noise), _expected(network, names, noise)
    shapes = {name: (found[name].shape, expected[name].shape) for name in names}
    if any(got != wanted for got, wanted in shapes.values()):
        raise BackendError("the exported graph has outputs of other shapes than its network", found=str(shapes))
    middle, worst = _difference(found["labels"], expected["labels"])
    if not (middle <= tolerance[0] and worst <= tolerance[1]):
        raise BackendError(
            "the exported graph gives other results than its network; it was not kept",
            found=f"class logits differ by {middle:.2g} for the middle query, {worst:.2g} for the worst twentieth",
            expected=f"at most {tolerance[0]:g} and {tolerance[1]:g}",
        )


def _expected(network: Network, names: list[str], noise: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    if find_spec("torch") is None:
        made = network.graph()
        return _on_onnxruntime(made.model, made.initializers, names, noise)
    import torch

    with torch.inference_mode():
        outputs = network.torch().module(torch.from_numpy(noise))
    return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}


def _on_onnxruntime(
    model: str | bytes, initializers: Mapping[str, NDArray[Any]], names: list[str], noise: NDArray[np.float32]
) -> dict[str, NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in initializers.values()]
    if values:
        options.add_external_initializers(list(initializers), values)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"input": noise}), strict=True))


def _difference(found: NDArray[np.float32], expected: NDArray[np.float32]) -> tuple[float, float]:
    largest = np.abs(found - expected).max(-1).ravel()
    return float(np.median(largest)), float(np.quantile(largest, 0.95))
