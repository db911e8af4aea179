"""Classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.backend.dtypes import host_array
from lensmount.errors import ModelFileError
from lensmount.specs import Preprocess
from lensmount_vision.models.numbers import finish
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import Classification
from lensmount_yolo.metadata import parse
from lensmount_yolo.model import class_names, graph_channels, placed_names
from lensmount_yolo.options import LoadOptions

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color

#: Short side to the input size with Pillow's antialiased bilinear kernel, then the middle: what the reference does.
PREPROCESS = Preprocess(size=(224, 224), resize="short-side-crop", interpolation="bilinear", antialias=True)


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
    ) -> list[Classification]:
        table = host_array(raw[self.output]).astype(np.float32, copy=False)
        return [
            Classification(probabilities=row, class_names=self.names, image_size=geometry.original_size, path=path)
            for row, geometry, path in zip(table, geometries, paths, strict=True)
        ]
