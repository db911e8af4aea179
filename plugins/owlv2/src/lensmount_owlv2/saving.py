"""Detectors on disk: safetensors for numbers, JSON for the rest, and a manifest that names the network.

lensmount.json          card with `base`: the network that the detector is built on
detector.json           format_version 1: network, class names, parameters, unmatched boxes, reference pictures
detector.safetensors    embeddings (R, D) float32, class_id (R) int64, negative (R) uint8; and, where kept, for each
reference picture i: image.i.boxes, .embeddings, .objectness, .shift, .scale
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmount.errors import InputError, LensmountError, ModelFileError
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount.specs.options import class_thresholds, positive
from lensmount_owlv2.layout import read_json
from lensmount_owlv2.options import CONFIDENCE
from lensmount_owlv2.proposals import Proposals
from lensmount_owlv2.references import Fitted, Parameters, UnmatchedBox
from lensmount_owlv2.scoring import Bank
from lensmount_owlv2.training import TrainBox

FORMAT, VERSION = "lensmount-owlv2-detector", 1
NAMES = ("detector.json", "detector.safetensors")
_FIELDS = ("boxes", "embeddings", "objectness", "shift", "scale")


def save_detector(
    folder: Path,
    fitted: Fitted,
    images: Mapping[str, Proposals],
    *,
    network: str,
    card: ModelCard,
    package: ModelPackage,
) -> Path:
    """Writes a detector's folder, whole or not at all.

    Args:
        folder: Made if missing; a detector in it is replaced.
        fitted: What the example boxes gave.
        images: Proposals of the reference pictures by content key.
        network: Digest of the network that they are for.
        card: The network's card.
        package: The network's package.

    Returns:
        The folder.

    Raises:
        InputError: The folder cannot be written, or holds something else.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / NAMES[0]).is_file())):
        raise InputError(f"{folder} holds something else", expected="a new folder, or a detector to replace")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as made:
            building = Path(made) / "new"
            building.mkdir()
            _write(building, fitted, images, network, card, base_of(card, package))
            if folder.exists():
                folder.rename(Path(made) / "old")
            building.rename(folder)
    except OSError as error:
        if isinstance(error, LensmountError):
            raise
        raise InputError(
            f"cannot write {folder}",
            found=str(error),
            fix="check that the folder exists and may be written, and that there is room",
        ) from error
    return folder


def _write(
    folder: Path, fitted: Fitted, images: Mapping[str, Proposals], network: str, card: ModelCard, base: str
) -> None:
    from lensmount.store.manifests import write_manifest
    from lensmount_reading import to_safetensors

    bank, parameters = fitted.bank, fitted.parameters
    arrays: dict[str, NDArray[Any]] = {
        "embeddings": bank.embeddings,
        "class_id": bank.class_id,
        "negative": bank.negative.astype(np.uint8),
    }
    for number, proposals in enumerate(images.values()):
        arrays |= {f"image.{number}.{name}": getattr(proposals, name) for name in _FIELDS}
    to_safetensors({name: _reference(name, array) for name, array in arrays.items()}, folder / NAMES[1], metadata={})
    confidence = parameters.confidence
    document = {
        "format": FORMAT,
        "format_version": VERSION,
        "network": {"id": card.base or card.id, "digest": network},
        "class_names": list(bank.class_names),
        "parameters": {
            **asdict(parameters),
            "confidence": [list(p) for p in confidence.items()] if isinstance(confidence, Mapping) else confidence,
        },
        "unmatched": [asdict(item) for item in fitted.unmatched],
        "images": [{"key": key, "image_size": list(item.image_size)} for key, item in images.items()],
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, default=float)
    (folder / NAMES[0]).write_text(text + "\n", encoding="utf-8")
    artifacts = tuple(Artifact(name=name, uri=f"file:///{name}", role="data") for name in NAMES)
    own = ModelCard(
        id="detector",
        architecture="owlv2",
        task=card.task,
        classes=bank.class_names,
        licence=card.licence,
        description=f"few-shot detector of {len(bank.class_names)} classes on {card.base or card.id}",
        base=base,
        packages=(ModelPackage(name="detector", format="data", artifacts=artifacts),),
    )
    write_manifest(own, folder)


def base_of(card: ModelCard, package: ModelPackage) -> str:
    """What `registry.load` would be given for the network alone: its id, or where its files lie."""
    from lensmount.store.addresses import path_of

    if card.base is not None:
        return card.base
    main = next((a for a in package.artifacts if a.role != "data"), package.artifacts[0])
    if not main.uri.startswith("file://"):
        return card.id
    path = path_of(main.uri)
    described = ("config.json", "lensmount.json", "model_config.json")
    return str(path.parent if any((path.parent / name).exists() for name in described) else path)


def _reference(name: str, array: NDArray[Any]) -> Any:
    from lensmount_reading import Storage, TensorRef

    packed = np.ascontiguousarray(array)
    storage = Storage(name, str(packed.dtype), packed.size, packed.tobytes())
    stride = tuple(step // packed.itemsize for step in packed.strides)
    return TensorRef(storage, str(packed.dtype), 0, packed.shape, stride)


def load_detector(files: Mapping[str, Path], network: str, model_id: str) -> tuple[Fitted, Path]:
    """Reads a package's `detector.json` and `detector.safetensors`.

    Args:
        files: The package's files by artifact name.
        network: Digest of the network that the detector is to run on.
        model_id: Its id, for messages.

    Returns:
        What was saved, and the folder that the files are in.

    Raises:
        ModelFileError: A file is missing, malformed, or made with another network.
    """
    try:
        where, document = files[NAMES[0]], read_json(files[NAMES[0]])
        arrays = _arrays(files[NAMES[1]])
        _check(document, network, model_id, where)
        fitted = _parse(document, arrays)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, LensmountError):
            raise
        raise ModelFileError(
            "the saved detector is malformed", found=f"{type(error).__name__}: {error}"[:200], fix="save it again"
        ) from error
    folder = Path(os.path.realpath(where)).parent
    if not (folder / NAMES[1]).is_file():  # in the store, where files lie apart
        folder = where.parent
    return fitted, folder


def read_image_embeddings(source: str | os.PathLike[str], network: str, model_id: str) -> dict[str, Proposals]:
    """Proposals of a saved detector's reference pictures by content key.

    Args:
        source: The folder, or a file in it.
        network: Digest of the network that they are for.
        model_id: Its id, for messages.

    Returns:
        Empty for one that was saved without.

    Raises:
        ModelFileError: Missing, malformed, or of another network.
    """
    folder = Path(source)
    folder = folder if folder.is_dir() else folder.parent
    for name in NAMES:
        if not (folder / name).is_file():
            raise ModelFileError(f"{folder} holds no detector", found=f"no {name}", expected=" and ".join(NAMES))
    document = read_json(folder / NAMES[0])
    _check(document, network, model_id, folder / NAMES[0])
    arrays = _arrays(folder / NAMES[1])
    found = {}
    try:
        for number, item in enumerate(document["images"]):
            parts = {name: np.array(arrays[f"image.{number}.{name}"], np.float32) for name in _FIELDS}
            height, width = (int(side) for side in item["image_size"])
            count = len(parts["boxes"])
            whole = all(len(part) == count for part in parts.values()) and parts["embeddings"].ndim == 2
            if parts["boxes"].shape != (count, 4) or not whole or min(height, width) < 1:
                raise ValueError(f"the shapes of picture {number} do not fit")
            found[str(item["key"])] = Proposals(**parts, image_size=(height, width))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the reference pictures of {folder} are malformed", found=str(error)[:200]) from error
    return found


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    from lensmount_reading import read_checkpoint

    return {name: np.array(ref.numpy()) for name, ref in read_checkpoint(path).tensors.items()}


def _check(document: Mapping[str, Any], network: str, model_id: str, where: Path) -> None:
    if document.get("format") != FORMAT or document.get("format_version") != VERSION:
        raise ModelFileError(
            f"{where} is not a detector that can be read",
            found=f"{document.get('format')!r} version {document.get('format_version')!r}"[:80],
            expected=f"{FORMAT!r} version {VERSION}",
            fix="pip install -U lensmount-owlv2",
        )
    made = document.get("network")
    if not isinstance(made, dict) or made.get("digest") != network:
        name = made.get("id") if isinstance(made, dict) else None
        raise ModelFileError(
            f"the embeddings in {where.parent} are another network's than {model_id!r}",
            found=f"made with {name!r}"[:80],
            expected=f"embeddings made with {model_id!r}; those of different networks cannot be compared",
            fix=f"registry.load({name!r}), or fit the training data again",
        )


def _parse(document: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Fitted:
    names = tuple(str(name) for name in document["class_names"])
    vectors, ids, negative = arrays["embeddings"], arrays["class_id"], arrays["negative"].astype(np.bool_)
    if vectors.ndim != 2 or not len(vectors) == len(ids) == len(negative) or not np.isfinite(vectors).all():
        raise ValueError(f"shapes do not fit: {vectors.shape}, {ids.shape}, {negative.shape}")
    if set(ids[~negative].tolist()) != set(range(len(names))) or not np.isin(ids, np.arange(len(names))).all():
        raise ValueError("class ids do not fit the class names")
    raw = document["parameters"]
    confidence = dict(map(tuple, raw["confidence"])) if isinstance(raw["confidence"], list) else raw["confidence"]
    parameters = Parameters.of(
        confidence, raw["iou_threshold"], positive("max_detections", raw["max_detections"]), raw["on_unmatched"]
    )
    class_thresholds(parameters.confidence, names, CONFIDENCE)
    unmatched = tuple(UnmatchedBox(**{**item, "box": TrainBox(**item["box"])}) for item in document["unmatched"])
    return Fitted(bank=Bank.of(vectors, ids, negative, names), parameters=parameters, unmatched=unmatched)
