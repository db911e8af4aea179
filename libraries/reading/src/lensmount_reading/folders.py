"""Which file of a folder is the model: of a local folder and of a repository alike."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import AmbiguousModelError, ModelFileError
from lensmount_reading.safetensors_file import shard_names
from lensmount_reading.text import listing, printable

if TYPE_CHECKING:
    from lensmount.contracts import ReadRequest, Repository

OFFICIAL = (
    "model.safetensors", "model.safetensors.index.json", "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)  # fmt: skip
"""Names that transformers and open_clip give to a model's weights; the first that is there is taken."""

BESIDE = (
    "config.json", "open_clip_config.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt", "bpe_simple_vocab_16e6.txt.gz",
)  # fmt: skip
"""Other files that models read; of a repository, those that it has are brought along."""

_MOST_YAML = 8
"""Files that say how a checkpoint without an official name was made."""
SUFFIXES = (".onnx", ".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".engine", ".plan", ".torchscript")
_INDEX = re.compile(r"\.index(\.[\w-]+)?\.json$")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$")
_STATE = re.compile(r"^(optimizer|scheduler|scaler|training_args|rng_state(_\d+)?)\.(pt|pth|bin)$")
"""What transformers' trainer saves beside a model, to go on training."""


def is_index(name: str) -> bool:
    """Whether a file is an index of shards, by its name (`model.safetensors.index.json`)."""
    return _INDEX.search(name) is not None


def find_checkpoint(path: Path) -> Path:
    """Return the file that a path stands for: itself, or the model in a folder.

    Raises:
        ModelFileError: A folder without one, or with shards and no index of them.
        AmbiguousModelError: A folder with several, of which none has a name that says it is the model.
    """
    if not path.is_dir():
        return path
    names = sorted(file.name for file in path.iterdir() if file.is_file())
    return path / choose(names, str(path), f"{path}/")


def choose(names: Collection[str], where: str, prefix: str) -> str:
    """Choose the model among the files of a folder.

    Args:
        names: The files; in folders below, with forward slashes. Those are looked at where there is none above.
        where: The folder, for messages.
        prefix: What makes an address of a name, for messages.

    Returns:
        One of the names.

    Raises:
        ModelFileError: None is a model.
        AmbiguousModelError: Several may be.
    """
    found = [name for name in names if name.lower().endswith(SUFFIXES) or is_index(name)]
    found = [name for name in found if not _STATE.match(name.rpartition("/")[2])]
    top = [name for name in found if "/" not in name] or found
    official = next((name for name in OFFICIAL if name in top), None)
    whole = [name for name in top if not _SHARD.search(name)]
    if any(name.endswith(".onnx") for name in whole):  # a graph's tensors may lie in a file of any name
        whole = [name for name in whole if not name.endswith(".bin")]
    if official is not None or len(whole) == 1:
        return official or whole[0]
    if whole:
        kind = "graphs" if all(name.endswith(".onnx") for name in whole) else "model files"
        raise AmbiguousModelError(
            f"{where} holds several {kind}",
            found=listing(map(printable, whole), 20),
            expected="one, or one with a name such as " + ", ".join(OFFICIAL[:3]),
            fix=f"name one: {prefix}{whole[-1]}",
        )
    what = "shards without an index" if top else "no model file"
    raise ModelFileError(
        f"{where} holds no checkpoint: {what}",
        found=listing(map(printable, top or names), 20) or "an empty folder",
        expected=f"one of {', '.join(OFFICIAL)}, or a single file that ends in {', '.join(SUFFIXES)}",
        fix="bring the whole folder" if top else "name the model file itself",
    )


def bring_model(request: ReadRequest, repository: Repository) -> tuple[ReadRequest, Path]:
    """Bring the model of a repository, the shards of an index, and the files beside them that models read.

    Returns:
        The request, with `bring` for the folder that the model lies in, and the model's file.

    Raises:
        ModelFileError: The repository has no model, or lacks a shard.
        AmbiguousModelError: It has several.
        SourceError: As for `Finder.fetch`.
    """
    names, uri = repository.names(), repository.uri
    known = (name for name in OFFICIAL if request.bring(name) is not None)
    name = next(known, None) if names is None else choose(names, uri, f"{uri}/")
    path = None if name is None else request.bring(name)
    if name is None or path is None:
        raise _lacking(uri, [name or " or ".join(OFFICIAL)])
    above = name[: name.rfind("/") + 1]

    def bring(other: str) -> Path | None:
        return request.bring(above + other)

    absent = [shard for shard in shard_names(path) if bring(shard) is None] if is_index(name) else []
    if absent:
        raise _lacking(uri, absent)
    there = [other.removeprefix(above) for other in names or () if other.startswith(above)]
    yaml = [other for other in there if other.lower().endswith((".yaml", ".yml")) and "/" not in other]
    for other in (*BESIDE, *(() if name in OFFICIAL else sorted(yaml)[:_MOST_YAML])):
        if names is None or above + other in names:
            bring(other)
    return replace(request, bring=bring), path


def _lacking(uri: str, names: Iterable[str]) -> ModelFileError:
    return ModelFileError(
        f"{uri} lacks files of the model",
        found="missing: " + listing(map(printable, names), 20),
        fix=f"name a model file of it: {uri}/path/to/file",
    )
