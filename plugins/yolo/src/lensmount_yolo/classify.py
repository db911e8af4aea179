"""Classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.tensors import host_array
from lensmount.errors import ModelFileError
from lensmount.specs import Preprocess
from lensmount_vision.models.numbers import Unusable, finish
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import Classification
from lensmount_yolo.metadata import parse
from lensmount_yolo.model import class_names, graph_channels, placed_names
from lensmount_yolo.options import LoadOptions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color

#: Short side to the input size with Pillow's antialiased bilinear kernel, then the middle: what the reference does.
PREPROCESS = Preprocess(size=(224, 224), resize="short-side-crop", interpolation="bilinear", antialias=True)


MISSING = {"none": "softmax", "log-softmax": "softmax"}
"""What is done to outputs, by what they went through last; the softmax of log-probabilities are the probabilities."""


def _fixed_size(context: BuildContext) -> tuple[int, int] | None:
    """`(height, width)` of a graph that leaves neither open, whatever it says of itself."""
    height, width = [*(value.shape for value in context.session.inputs), (None,) * 4][0][-2:]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


class YoloClassifier(SingleGraph):
    """Says what a picture shows.

    Call it on pictures, or take the three stages apart: `preprocess`, `forward`, `postprocess`.
    """

    def __init__(self, context: BuildContext) -> None:
        metadata = parse(context.session.metadata)
        options = context.options or LoadOptions()
        spec = context.package.preprocess or replace(
            PREPROCESS, size=metadata.size or _fixed_size(context) or PREPROCESS.size
        )
        size = spec.size if options.size is None else options.size
        antialias = spec.antialias if options.antialias is None else options.antialias
        spec = replace(spec, size=size, antialias=antialias)
        if context.package.preprocess is None:
            spec = replace(spec, channels=graph_channels(context, metadata))
        super().__init__(context, spec, reduced_decode=options.reduced_decode)
        outputs = context.session.outputs
        if len(outputs) != 1 or len(outputs[0].shape) != 2:
            raise ModelFileError(
                f"{context.card.id!r} is for classification, but its graph gives something else",
                found=str([(spec.name, spec.shape) for spec in outputs]),
                expected="one output (B, classes)",
            )
        self.output = outputs[0].name
        self._activation = options.activation or _missing(context, self.output)
        classes = outputs[0].shape[1]
        named = class_names(context, metadata)
        columns = classes if isinstance(classes, int) else None
        placed, self._card = placed_names(context, named, columns, options)
        self.names = placed.names

    def __call__(self, images: Any, *, color: Color | None = None) -> list[Classification]:
        """Classifies one or several pictures.

        Args:
            images: A picture or several: paths, URLs, bytes, PIL images, arrays, tensors; see
                `lensmount_vision.images.loading.load_many`.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.

        Returns:
            One result per picture.

        Raises:
            ImageError: A picture cannot be used.
            BackendError: The runtime failed.
        """
        return self.infer_batches(images, color, self._results)

    def postprocess(self, raw: Mapping[str, Any], geometries: Sequence[Geometry]) -> list[Classification]:
        """The network's outputs to results, one per picture."""
        return finish(self, raw, geometries, None, self._results)

    def _results(
        self, raw: Mapping[str, Any], geometries: Sequence[Geometry], paths: Sequence[str | None]
    ) -> list[Classification | Unusable]:
        table = _probabilities(host_array(raw[self.output]).astype(np.float32, copy=False), self._activation)
        return [
            _outside(row)
            or Classification(probabilities=row, class_names=self.names, image_size=geometry.original_size, path=path)
            for row, geometry, path in zip(table, geometries, paths, strict=True)
        ]


def _missing(context: BuildContext, output: str) -> str:
    """What a graph leaves to be done to its output."""
    graphs = [context.files[a.name] for a in context.package.artifacts if a.role == "graph"]
    if context.package.format != "onnx" or not graphs:
        return "none"
    from lensmount_reading import read_onnx

    return MISSING.get(read_onnx(graphs[0]).activations.get(output) or "", "none")


def _probabilities(table: NDArray[np.float32], activation: str) -> NDArray[np.float32]:
    if activation == "none":
        return table
    values = table.astype(np.float64)
    if activation == "sigmoid":
        made = 1 / (1 + np.exp(-values))
    else:
        shares = np.exp(values - values.max(axis=1, keepdims=True))
        made = shares / shares.sum(axis=1, keepdims=True)
        # A softmax that the graph hides well: logits are hardly ever between 0 and 1 with a sum of 1.
        finished = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < 1e-3)
        made[finished] = values[finished]
    return made.astype(np.float32)


def _outside(row: NDArray[np.float32]) -> Unusable | None:
    """What is wrong with probabilities that are none: 0..1, and a step of an int8 graph around it."""
    low, high = float(row.min(initial=0)), float(row.max(initial=0))
    if low >= -0.02 and high <= 1.02:
        return None
    return Unusable(f"scores of {low:.3g} to {high:.3g}, no probabilities: load it with activation='softmax'")
