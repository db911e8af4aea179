"""Files around a two-tower model: recognising bare ones, and what their metadata says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import ModelFileError
from lensmount.specs import Artifact, ModelCard, ModelPackage

if TYPE_CHECKING:
    from lensmount_reading import FileFacts

#: Next to weights, where a Hugging Face folder has them.
COMPANIONS = (
    "config.json",
    "open_clip_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "bpe_simple_vocab_16e6.txt.gz",
)
GRAPHS = ("visual.onnx", "textual.onnx")
#: Keys of the metadata that this project's torch networks have and its exported graphs embed.
ARCHITECTURE, SCALE, BIAS, CONTEXT, VOCABULARY = (
    "lensmount.architecture",
    "lensmount.logit_scale",
    "lensmount.logit_bias",
    "lensmount.context_length",
    "lensmount.vocabulary",
)


def companions(weights: Path, names: tuple[str, ...] = COMPANIONS) -> tuple[Artifact, ...]:
    """Files that lie next to a weights file, as artifacts of role `data`."""
    found = (weights.parent / name for name in names)
    return tuple(
        Artifact(name=path.name, uri=path.absolute().as_uri(), role="data", size=path.stat().st_size)
        for path in found
        if path.is_file()
    )


def weights_card(facts: FileFacts, architecture: str, *, notes: tuple[str, ...] = ()) -> ModelCard:
    """The card of a bare weights file and the files next to it."""
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
    """The card of one graph of a pair that this project exported; the other one lies next to it.

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


def number(metadata: Mapping[str, str], key: str, default: float) -> float:
    """A number that a graph embeds.

    Raises:
        ModelFileError: It is no number.
    """
    try:
        return float(metadata.get(key, default))
    except ValueError:
        raise ModelFileError(f"metadata {key!r} should be a number", found=metadata[key][:80]) from None
