"""Pictures with their truth: COCO annotation files, and folders of one folder per class."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lensmount.errors import InputError


@dataclass(frozen=True, slots=True)
class CocoData:
    """An annotation file, checked, with the pictures that it names.

    Attributes:
        content: The file's `images`, `annotations` and `categories`, for the pictures kept.
        paths: Path of every picture, in the order of `content["images"]`.
        names: Category name by category id.
    """

    content: dict[str, Any]
    paths: tuple[Path, ...]
    names: dict[int, str]

    @property
    def image_ids(self) -> list[int]:
        """Ids in the order of `paths`."""
        return [image["id"] for image in self.content["images"]]

    @property
    def has_masks(self) -> bool:
        """Whether every object has an outline."""
        objects = self.content["annotations"]
        return bool(objects) and all(annotation.get("segmentation") for annotation in objects)


def read_coco(file: str | os.PathLike[str], images: str | os.PathLike[str], limit: int | None = None) -> CocoData:
    """Reads COCO annotations and finds their pictures.

    Args:
        file: JSON file with `images`, `annotations` and `categories`.
        images: Folder that its `file_name`s are in; a name may hold folders.
        limit: Keep only the first so many pictures.

    Raises:
        InputError: Not such a file, or pictures are missing.
    """
    path = Path(file)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as annotations", found=str(error), expected="COCO's JSON") from error
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in ("images", "annotations", "categories")
    ):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise InputError(
            f"{path} holds no COCO annotations",
            found=str(found),
            expected="lists 'images', 'annotations', 'categories'",
        )
    kept = content["images"] if limit is None else content["images"][:limit]
    if not kept:
        raise InputError(f"{path} names no pictures", expected="COCO's JSON with `images`")
    try:
        paths = tuple(Path(images) / image["file_name"] for image in kept)
        wanted = {image["id"] for image in kept}
        objects = [_object(annotation) for annotation in content["annotations"] if annotation["image_id"] in wanted]
        names = {int(category["id"]): str(category["name"]) for category in content["categories"]}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds no sound COCO annotations",
            found=f"{type(error).__name__}: {error}",
            expected="COCO's JSON: images, annotations, categories",
        ) from error
    missing = [p for p in paths if not p.is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(paths)} pictures are not in {images}",
            found=f"no file {missing[0]}",
            fix="pass the folder that the annotations' file names are relative to",
        )
    return CocoData({"images": kept, "annotations": objects, "categories": content["categories"]}, paths, names)


def _object(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation with the fields that evaluators rely on."""
    x, y, width, height = (float(value) for value in annotation["bbox"])
    return {"area": width * height, "iscrowd": 0, **annotation, "bbox": [x, y, width, height]}


def read_folders(images: str | os.PathLike[str], limit: int | None = None) -> tuple[list[Path], list[str], list[str]]:
    """Reads a folder that has one folder of pictures per class (torchvision's ImageFolder).

    Args:
        images: The folder.
        limit: Keep only so many pictures, as many of each class as may be.

    Returns:
        Paths, the class name of each, and all class names in order.

    Raises:
        InputError: No folders, or no pictures in them.
    """
    from lensmount_vision.images.sources import IMAGE_SUFFIXES

    root = Path(images)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    classes = {
        folder.name: sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        for folder in folders
    }
    classes = {name: paths for name, paths in classes.items() if paths}
    if not classes:
        raise InputError(
            f"{root} holds no folders of pictures",
            expected="one folder per class, or --annotations with a COCO file",
        )
    longest = max(len(paths) for paths in classes.values())
    pairs = [(paths[i], name) for i in range(longest) for name, paths in classes.items() if i < len(paths)]
    pairs = sorted(pairs[:limit])
    return [path for path, _ in pairs], [name for _, name in pairs], list(classes)


def same_name(name: str) -> str:
    """A name as it is compared: upper case, underscores and hyphens do not matter."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def map_classes(
    model_names: Sequence[str], truth: Mapping[Any, str] | Iterable[str], renamed: Mapping[str, str] | None = None
) -> dict[int, Any]:
    """Which class of the truth each class of a model is, by name.

    Args:
        model_names: The model's names by class id.
        truth: Names by category id, or names alone (whose ids are their places).
        renamed: Model's name to the truth's name, where they differ.

    Returns:
        Category id by class id; classes that the truth does not have are left out.

    Raises:
        InputError: No class in common, or a name in `renamed` that neither has.
    """
    by_id = dict(truth) if isinstance(truth, Mapping) else dict(enumerate(truth))
    ids = {same_name(name): key for key, name in by_id.items()}
    own = {same_name(name) for name in model_names}
    other = {same_name(old): same_name(new) for old, new in (renamed or {}).items()}
    for old, new in other.items():
        if old not in own or new not in ids:
            raise InputError(
                "a class to rename is not there",
                found=f"{old}={new}",
                expected="a class of the model = a class of the annotations",
            )
    found = {}
    for class_id, name in enumerate(model_names):
        key = other.get(same_name(name), same_name(name))
        if key in ids:
            found[class_id] = ids[key]
    if not found:
        raise InputError(
            "model and annotations have no class in common",
            found=f"model: {', '.join(list(model_names)[:8])}",
            expected=f"annotations: {', '.join(list(by_id.values())[:8])}",
            fix="--map 'model name=annotation name'",
        )
    return found
