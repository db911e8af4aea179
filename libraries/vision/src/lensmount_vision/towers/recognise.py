"""Bare files of two-tower models become cards; the names of files next to them, and the keys of a graph's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import ModelFileError
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount_vision.models.processors import PROCESSOR_FILES

if TYPE_CHECKING:
    from lensmount_reading import FileFacts

#: Of these files, each one alone says that a folder has a tokeniser (`vocab.json` comes with `merges.txt`).
TOKENISERS = ("tokenizer.json", "vocab.json", "bpe_simple_vocab_16e6.txt.gz")
#: Files that lie next to weights in a Hugging Face or open_clip folder.
COMPANIONS = (
    "config.json",
    "open_clip_config.json",
    *PROCESSOR_FILES,
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "bpe_simple_vocab_16e6.txt.gz",
)
GRAPHS = ("visual.onnx", "textual.onnx")
#: Keys of the metadata that the torch networks have and the exported graphs embed.
ARCHITECTURE, SCALE, BIAS, CONTEXT, VOCABULARY, CLEANING = (
    "lensmount.architecture",
    "lensmount.logit_scale",
    "lensmount.logit_bias",
    "lensmount.context_length",
    "lensmount.vocabulary",
    "lensmount.cleaning",
)


def companions(weights: Path) -> tuple[Artifact, ...]:
    """The files of `COMPANIONS` in the folder of a weights file, as artifacts of role `data`."""
    found = (weights.parent / name for name in COMPANIONS)
    return tuple(
        Artifact(name=path.name, uri=path.absolute().as_uri(), role="data", size=path.stat().st_size)
        for path in found
        if path.is_file()
    )


def beside_files(weights: Path) -> dict[str, Path]:
    """The files of `COMPANIONS` in the folder of a weights file, by name."""
    return {name: weights.parent / name for name in COMPANIONS if (weights.parent / name).is_file()}


def weights_card(facts: FileFacts, architecture: str, *, notes: tuple[str, ...] = ()) -> ModelCard:
    """The card of a bare weights file and its companions."""
    weights = Artifact(
        name=facts.path.name, uri=facts.path.absolute().as_uri(), role="weights", size=facts.size, confidence="official"
    )
    package = ModelPackage(
        name=f"torch-{facts.precision}",
        format="torch",
        precision=facts.precision,
        artifacts=(weights, *companions(facts.path)),
    )
    return ModelCard(id="file", architecture=architecture, task="embedding", packages=(package,), notes=notes)


def pair_card(facts: FileFacts, architecture: str) -> ModelCard | None:
    """The card of a pair of exported graphs, of which `facts` is one; None for any other file.

    Raises:
        ModelFileError: The other graph is missing.
    """
    if facts.kind != "onnx" or facts.metadata.get(ARCHITECTURE) != architecture:
        return None
    folder = facts.path.parent
    for name in GRAPHS:
        if not (folder / name).is_file():
            raise ModelFileError(
                f"{facts.path.name} is one half of a pair", found=f"no {name} next to it", expected=" and ".join(GRAPHS)
            )
    files = [name for graph in GRAPHS for name in (graph, graph + ".data") if (folder / name).is_file()]
    graphs = tuple(
        Artifact(
            name=name,
            uri=(folder / name).absolute().as_uri(),
            role="graph" if name in GRAPHS else "data",
            size=(folder / name).stat().st_size,
        )
        for name in files
    )
    package = ModelPackage(
        name=f"onnx-{facts.precision}",
        format="onnx",
        precision=facts.precision,
        artifacts=(*graphs, *companions(facts.path)),
    )
    return ModelCard(id="file", architecture=architecture, task="embedding", packages=(package,))


def metadata_number(metadata: Mapping[str, str], key: str, default: float) -> float:
    """A number in a graph's metadata; `default` where the key is missing.

    Raises:
        ModelFileError: It is no number.
    """
    try:
        return float(metadata.get(key, default))
    except ValueError:
        raise ModelFileError(f"metadata {key!r} should be a number", found=metadata[key][:80]) from None
