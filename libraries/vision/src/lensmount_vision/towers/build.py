"""One architecture of two towers, described as data: building its model, its networks and its export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from lensmount.contracts.model import NetworkContext
from lensmount.contracts.session import GraphNetwork, TorchNetwork
from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs.imports import import_string
from lensmount.specs.options import build_options
from lensmount_networks import Network, fitting
from lensmount_vision.towers.configs import require_size
from lensmount_vision.towers.export import export_graphs
from lensmount_vision.towers.model import EmbeddingModel, tower
from lensmount_vision.towers.recognise import BIAS, CONTEXT, SCALE, VOCABULARY, metadata_number
from lensmount_vision.towers.tokens import ClipTokenizer, cleaning_of
from lensmount_vision.towers.vocabulary import OPENAI_SPECIALS, load_vocabulary

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext, ExportContext
    from lensmount.specs import Preprocess
    from lensmount_vision.towers.weights import TowerWeights

M = TypeVar("M", bound=EmbeddingModel)
CPU_BATCH, GPU_BATCH = 16, 64
USUAL_SIDE = 224


def weights_path(context: NetworkContext) -> Path:
    """The file with the package's weights."""
    return next(context.files[a.name] for a in context.package.artifacts if a.role == "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTowers(Generic[M]):
    """What one architecture of an image and a text tower has of its own.

    Its methods are what an `Architecture` names: `build` as factory, `network`, `graph`, and `export` as exporter.

    Attributes:
        architecture: Its name: `clip`.
        label: Its name in messages: `CLIP`.
        model: Class of its models.
        options: Class of its load options.
        weights: Import string of a function that reads them: `(checkpoint, files, options)` to `TowerWeights`.
        preprocess: How images become the input; the size is that which the image tower takes.
        configured: Changes `preprocess` as the files next to the weights say; a size that they name must be the
            network's.
        specials: Texts of the start and end token; see `ClipTokenizer`.
        context_length: Most tokens of a text, for graphs that do not say.
        logit_scale: Factor of the calibrated scores, for graphs that do not say.
    """

    architecture: str
    label: str
    model: type[M]
    options: type[Any]
    weights: str
    preprocess: Preprocess
    configured: Callable[[Preprocess, Mapping[str, Path]], Preprocess] | None = None
    specials: tuple[str, str] = OPENAI_SPECIALS
    context_length: int
    logit_scale: float

    def build(self, context: BuildContext) -> M:
        """Makes the model.

        Raises:
            UnsupportedModelError: The task is not `embedding`.
            ModelFileError: The graphs are not those of two towers, or a configuration is malformed.
            OptionError: An option that a graph cannot follow.
        """
        card, package = context.card, context.package
        if card.task != "embedding":
            raise UnsupportedModelError(
                f"{card.id!r} has a task that this architecture does not have", found=card.task, expected="embedding"
            )
        if package.format != "torch" and context.options not in (None, self.options()):
            raise OptionError(
                f"package {package.name!r} is a graph, in which heads and activation are fixed",
                found=repr(context.options),
                fix="leave these options out, or load a package of format torch",
            )
        visual, metadata = tower(context, "visual"), tower(context, "textual").metadata
        # Read when a text is first tokenised: images alone need no vocabulary.
        vocabulary = partial(
            load_vocabulary,
            dict(context.files),
            int(metadata_number(metadata, VOCABULARY, 0)),
            card.id,
            otherwise="embed_images works without them",
        )
        return self.model(
            context,
            self._preprocess(context),
            ClipTokenizer(
                vocabulary,
                int(metadata_number(metadata, CONTEXT, self.context_length)),
                self.specials,
                cleaning=cleaning_of(metadata),
            ),
            logit_scale=metadata_number(visual.metadata, SCALE, self.logit_scale),
            logit_bias=metadata_number(visual.metadata, BIAS, 0.0),
            image_batch=CPU_BATCH if visual.device == "cpu" else GPU_BATCH,
        )

    def _preprocess(self, context: BuildContext) -> Preprocess:
        """The package's own, else the architecture's at the size that the image tower takes."""
        if context.package.preprocess is not None:
            return context.package.preprocess
        spec = self.configured(self.preprocess, context.files) if self.configured else self.preprocess
        height, width = tower(context, "visual").inputs[0].shape[-2:]
        if isinstance(height, int) and isinstance(width, int):
            require_size(spec, (height, width), context.card.id)
            return replace(spec, size=(height, width))
        return replace(spec, size=spec.size or (USUAL_SIDE, USUAL_SIDE))

    def networks(self, context: NetworkContext) -> dict[str, Network]:
        """Reads both towers, `visual` and `textual`, from the package's weights.

        Raises:
            ModelFileError: The file is corrupt, or its tensors contradict one another.
            UnsupportedModelError: The tensors are not those of this architecture.
        """
        from lensmount_reading import read_checkpoint

        read: Callable[..., TowerWeights] = import_string(self.weights, f"architecture {self.architecture!r}")
        path = weights_path(context)
        checkpoint = read_checkpoint(path)
        with fitting(path, f"a {self.label}"):
            weights = read(checkpoint, context.files, context.options or self.options())
            weights.require_all(path.name)
            return weights.networks(self.architecture)

    def network(self, context: NetworkContext) -> dict[str, TorchNetwork]:
        """Both towers as torch modules; raises as `networks`."""
        with fitting(weights_path(context), f"a {self.label}"):
            return {name: network.torch() for name, network in self.networks(context).items()}

    def graph(self, context: NetworkContext) -> dict[str, GraphNetwork]:
        """Both towers as ONNX graphs; raises as `networks`."""
        with fitting(weights_path(context), f"a {self.label}"):
            return {name: network.graph() for name, network in self.networks(context).items()}

    def export(self, context: ExportContext) -> Path:
        """Writes a folder with `visual.onnx`, `textual.onnx`, the tokeniser and `lensmount.json`.

        The batch is free in both graphs, and the length of texts too; `context.batch` above 1 fixes the batch unless
        `context.dynamic`. Settings are the load options, which say what the files leave open. See `export_graphs` for
        what else is raised.

        Raises:
            UnknownOptionError: A setting that is no load option.
            OptionError: A setting has a wrong value.
        """
        chosen = build_options(self.options, context.settings, f"the export of {context.card.id!r}")
        asked = NetworkContext(card=context.card, package=context.package, files=context.files, options=chosen)
        return export_graphs(
            context,
            partial(self.networks, asked),
            fixed=("visual", "textual"),
            preprocess=context.package.preprocess,
            magnitude=lambda vectors: float(np.abs(vectors).max()),
        )
