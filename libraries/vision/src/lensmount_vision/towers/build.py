"""What two-tower plugins share when they build: tokeniser, metadata, torch networks with names. Imports no torch."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from lensmount.contracts.session import TensorSpec, TorchNetwork
from lensmount.errors import ModelFileError, OptionError, UnsupportedModelError
from lensmount_vision.towers.model import EmbeddingModel, tower
from lensmount_vision.towers.recognise import ARCHITECTURE, BIAS, CONTEXT, SCALE, VOCABULARY, number
from lensmount_vision.towers.tokens import ClipTokenizer
from lensmount_vision.towers.vocabulary import Vocabulary, read_merges, read_vocabulary

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext
    from lensmount.specs import Preprocess

M = TypeVar("M", bound=EmbeddingModel)
MERGES = "merges.txt.gz"  # in the wheel of each plugin that tokenises as CLIP does
CPU_BATCH, GPU_BATCH = 16, 64


def build_model(
    kind: type[M],
    context: BuildContext,
    *,
    preprocess: Preprocess,
    vocabulary_package: str,
    specials: tuple[str, str],
    context_length: int,
    logit_scale: float,
    defaults: Any,
) -> M:
    """Makes a model of two towers.

    Args:
        kind: Class of the model.
        context: What the core handed to the factory.
        preprocess: How pictures become its input.
        vocabulary_package: Plugin whose wheel holds CLIP's merges, for packages without a tokeniser.
        specials: See `ClipTokenizer`.
        context_length: For graphs that do not say.
        logit_scale: Likewise.
        defaults: Load options that mean nothing special; others are refused for graphs.

    Raises:
        UnsupportedModelError: The task is not `embedding`.
        ModelFileError: The graphs are not those of two towers.
        OptionError: An option that a graph cannot follow.
    """
    if context.card.task != "embedding":
        raise UnsupportedModelError(
            f"{context.card.id!r} has a task that this architecture does not have",
            found=context.card.task,
            expected="embedding",
        )
    if context.package.format != "torch" and context.options not in (None, defaults):
        raise OptionError(
            f"package {context.package.name!r} is a graph, in which heads and activation are fixed",
            found=repr(context.options),
            fix="leave these options out, or load a package of format torch",
        )
    metadata = tower(context, "textual").metadata
    visual = tower(context, "visual")
    length = int(number(metadata, CONTEXT, context_length))
    rows = int(number(metadata, VOCABULARY, 0))
    tokenizer = ClipTokenizer(_Loader(context, vocabulary_package, rows), length, specials)
    return kind(
        context,
        preprocess,
        tokenizer,
        logit_scale=number(visual.metadata, SCALE, logit_scale),
        logit_bias=number(visual.metadata, BIAS, 0.0),
        image_batch=CPU_BATCH if visual.device == "cpu" else GPU_BATCH,
    )


class _Loader:
    """Gives the vocabulary when a text is first tokenised: pictures alone need none."""

    def __init__(self, context: BuildContext, package: str, rows: int) -> None:
        self._files = dict(context.files)
        self._package = package
        self._rows = rows
        self._id = context.card.id

    def __call__(self) -> Vocabulary:
        found = read_vocabulary(self._files) or packaged_vocabulary(self._package)
        if self._rows and found.size != self._rows:
            raise ModelFileError(
                f"the tokeniser does not fit the text tower of {self._id!r}",
                found=f"a vocabulary of {found.size} tokens for an embedding of {self._rows}",
                expected="the model's own tokenizer.json, or vocab.json and merges.txt, next to its weights",
                fix="put the tokeniser's files in the folder of the weights; embed_images works without them",
            )
        return found


def packaged_vocabulary(package: str) -> Vocabulary:
    """CLIP's vocabulary of 49,408 tokens, from a plugin's wheel.

    Raises:
        ModelFileError: The wheel lacks it.
    """
    try:
        content = pkgutil.get_data(package, MERGES)
    except (OSError, ImportError):
        content = None
    if content is None:
        raise ModelFileError(f"{package} lacks {MERGES}", fix=f"pip install --force-reinstall {package}")
    return read_merges(content, f"{package}/{MERGES}")


def visual_network(
    module: Any, architecture: str, side: int, dimension: int, metadata: Mapping[str, str]
) -> TorchNetwork:
    """An image tower with names for what goes in and comes out."""
    return TorchNetwork(
        module=module,
        inputs=(TensorSpec("images", ("batch", 3, side, side), "float32"),),
        outputs=(TensorSpec("image_embeddings", ("batch", dimension), "float32"),),
        metadata={ARCHITECTURE: architecture, **metadata},
    )


def text_network(
    module: Any, architecture: str, geometry: Mapping[str, int], metadata: Mapping[str, str]
) -> TorchNetwork:
    """A text tower likewise; `geometry` is that of `text_geometry`."""
    facts = {ARCHITECTURE: architecture, CONTEXT: str(geometry["context"]), VOCABULARY: str(geometry["vocabulary"])}
    return TorchNetwork(
        module=module,
        inputs=(TensorSpec("tokens", ("batch", "length"), "int64"),),
        outputs=(TensorSpec("text_embeddings", ("batch", geometry["dimension"]), "float32"),),
        metadata={**facts, **metadata},
    )
