"""Writes generated scenes as a COCO data set: `python -m lensmount_shapes.dataset FOLDER [--count 200]`.

The folder gets `images/` and `annotations.json` (boxes and outlines as run lengths), for `lensmount eval`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lensmount_shapes.scenes import CLASSES, make_scene
from lensmount_vision.results import Masks

#: The series that the model was not trained on.
HELD_OUT_SEED = 2


def write(folder: Path, count: int = 200, size: int = 256, seed: int = HELD_OUT_SEED) -> Path:
    """Writes scenes as PNG files, which keep every pixel, and their truth.

    Args:
        folder: Made where it is not there; files of the same names are overwritten.
        count: Number of scenes.
        size: Width and height in pixels.
        seed: Names the series.

    Returns:
        Path of the annotations.
    """
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    content: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    for index in range(count):
        scene = make_scene(seed, index, size, size)
        name = f"{index:05d}.png"
        done, encoded = cv2.imencode(".png", scene.image)
        if not done:
            raise OSError(f"{name} cannot be encoded")
        (images / name).write_bytes(encoded.tobytes())
        content["images"].append({"id": index, "file_name": name, "width": size, "height": size})
        outlines = Masks.from_dense(scene.masks).to_rle()
        for class_id, box, mask, outline in zip(scene.class_id, scene.xyxy, scene.masks, outlines, strict=True):
            x1, y1, x2, y2 = (float(value) for value in box)
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": index,
                    "category_id": int(class_id) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(np.count_nonzero(mask)),
                    "iscrowd": 0,
                    "segmentation": outline,
                }
            )
    path = folder / "annotations.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=256, help="width and height in pixels")
    arguments = parser.parse_args()
    print(write(arguments.folder, arguments.count, arguments.size))


if __name__ == "__main__":
    main()
