"""The few-shot files (`.pt`) of Roboflow's inference server, read without unpickling anything.

A dict: `huggingface_id`, `train_data_dict` (class name -> `positive` and `negative` embeddings `(n, D)`, None for
none), `class_names`, `roboflow_id`, `image_embeds`. Embeddings of pictures are left out: they are keyed by a hash of
pixels without their shape, and are not needed to find anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import ModelFileError
from lensmount_owlv2.options import CONFIDENCE, IOU_THRESHOLD
from lensmount_owlv2.proposals import Floats, normalise
from lensmount_owlv2.references import Fitted, Parameters
from lensmount_owlv2.scoring import Bank

if TYPE_CHECKING:
    from lensmount.specs import ModelCard

EXPECTED = "a dict of huggingface_id, train_data_dict and class_names"


def read_serialized(path: str | os.PathLike[str], card: ModelCard, dimension: int | None) -> Fitted:
    """Reference embeddings of such a file.

    Args:
        path: The `.pt` file.
        card: The network that they are to be used with.
        dimension: Length of its embeddings; None where the network does not say.

    Returns:
        The embeddings, with the server's thresholds (0.99, 0.3).

    Raises:
        ModelFileError: The file is of another form, or was made with another network.
        UnsafeFileError: It asks for code.
    """
    from lensmount_reading import read_checkpoint

    where = Path(path)
    tree = read_checkpoint(where).tree
    if not isinstance(tree, Mapping) or not isinstance(tree.get("train_data_dict"), Mapping):
        found = ", ".join(map(str, tree))[:80] if isinstance(tree, Mapping) else type(tree).__name__
        raise ModelFileError(f"{where} is no file of few-shot embeddings", found=found, expected=EXPECTED)
    require_network(card, tree.get("huggingface_id"), str(where))
    given = tree["train_data_dict"]
    dimension = dimension or _width(given)
    names = _names(tree.get("class_names"), given, where)
    parts: list[Floats] = []
    ids: list[int] = []
    negative: list[bool] = []
    for number, name in enumerate(names):
        for kind in ("positive", "negative"):
            rows = _rows(given[name], name, kind, dimension, where)
            parts.append(rows)
            ids += [number] * len(rows)
            negative += [kind == "negative"] * len(rows)
    bank = Bank.of(np.concatenate(parts), ids, negative, names)
    return Fitted(bank=bank, parameters=Parameters.of(CONFIDENCE, IOU_THRESHOLD, None, "warn"))


def require_network(card: ModelCard, name: Any, where: str) -> None:
    """Compares the network that a file or a caller names with the one that is there, as far as its id tells.

    Raises:
        ModelFileError: They differ.
    """
    known = {word for word in (card.id, card.base, *card.aliases) if word}
    official = {word for word in known if word.startswith(("google/", "owlv2/"))}
    if isinstance(name, str) and official and name not in known and f"google/{name}" not in known:
        raise ModelFileError(
            f"{where} is for another network than {card.id!r}",
            found=repr(name)[:80],
            expected="embeddings of the same network: those of different networks cannot be compared",
            fix=f"registry.load({name!r})",
        )


def _names(listed: Any, given: Mapping[Any, Any], where: Path) -> tuple[str, ...]:
    names = tuple(listed) if isinstance(listed, Sequence) and not isinstance(listed, str) else tuple(given)
    if not names or not all(isinstance(name, str) for name in names) or set(names) != set(given):
        raise ModelFileError(
            f"the classes of {where} do not fit its embeddings",
            found=f"{list(names)[:8]} and {list(given)[:8]}"[:160],
            expected="the same names",
        )
    return names


def _width(given: Mapping[Any, Any]) -> int:
    """Length of the first positive embedding."""
    for entry in given.values():
        shape = getattr(entry.get("positive"), "shape", ()) if isinstance(entry, Mapping) else ()
        if shape:
            return int(shape[-1])
    return 0


def _rows(entry: Any, name: str, kind: str, dimension: int, where: Path) -> Floats:
    from lensmount_reading import TensorRef

    value = entry.get(kind) if isinstance(entry, Mapping) else None
    if value is None and kind == "negative":
        return np.zeros((0, dimension), np.float32)
    rows = value.numpy() if isinstance(value, TensorRef) else np.zeros(0, np.float32)
    rows = np.asarray(rows, np.float32).reshape(-1, rows.shape[-1]) if rows.size else rows
    if kind == "negative" and not rows.size:
        return np.zeros((0, dimension), np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension or not np.isfinite(rows).all():
        raise ModelFileError(
            f"the {kind} embeddings of {name!r} in {where} cannot be used",
            found=str(rows.shape) if isinstance(value, TensorRef) else type(value).__name__,
            expected=f"finite numbers (n, {dimension})",
        )
    return normalise(rows)
