"""Draws the pictures of the documentation: `python docs/tools/pictures.py [FOLDER]`.

Those of YOLO are drawn by the sample model, that of RF-DETR by the small network of `examples/rfdetr-shapes`. The other
families have no trained weights here: their pictures show the form of their results, filled with the truth about
generated scenes, and the pages say so.

tests/docs/test_pictures.py draws them again and compares.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lensmount import registry
from lensmount_shapes.scenes import CLASSES, Scene, make_scene
from lensmount_vision.cli.search import save_grid
from lensmount_vision.images import import_cv2
from lensmount_vision.results import Detections, Masks, PromptedMasks

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/pictures"
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
RFDETR = ROOT / "examples/rfdetr-shapes"
SERIES = 11
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def main(folder: Path) -> None:
    """Writes all pictures to the folder."""
    cv2 = import_cv2()
    folder.mkdir(parents=True, exist_ok=True)
    truth = make_scene(SERIES, 6, 480, 360, count=7)
    drawn = {**sample_model(), "rfdetr": rfdetr(), "prompts": prompts(truth), "examples": examples(truth)}
    for name, image in drawn.items():
        quality = 92 if name == "rfdetr" else 88  # the first is what --save writes
        cv2.imwrite(str(folder / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    search(folder / "search.jpg")


def sample_model() -> dict[str, Any]:
    """The sample scene, its boxes and masks, and the boxes of two classes alone."""
    picture = import_cv2().imread(str(SCENE))
    with registry.load("shapes-nano", backend="onnx", device="cpu") as model:
        (result,) = model(picture, confidence=0.5)
    chosen = result.filter(classes=["star", "ring"])
    return {
        "scene": picture,
        "shapes-nano": result.draw(picture),
        "boxes": chosen.draw(picture, masks=False, confidence=False),
    }


def rfdetr() -> Any:
    """What `lensmount predict … --confidence 0.4 --save` draws, as the example's README has it."""
    picture = import_cv2().imread(str(RFDETR / "scene.jpg"))
    with registry.load(RFDETR / "weights", backend="torch", device="cpu") as model:
        (result,) = model(picture, confidence=0.4)
    return result.draw(picture)


def prompts(scene: Scene) -> Any:
    """A point on each of four shapes, and the masks that answer them."""
    cv2 = import_cv2()
    masks = scene.masks[:4]
    image_size = scene.image.shape[:2]
    result = PromptedMasks(
        masks=Masks.from_dense(masks),
        scores=np.ones(len(masks), np.float32),
        image_size=image_size,
        prompt_id=np.arange(len(masks)),
    )
    drawn = result.draw(scene.image, confidence=False)
    for mask in masks:
        depth = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        cv2.circle(drawn, (int(x), int(y)), 6, WHITE, -1, cv2.LINE_AA)
        cv2.circle(drawn, (int(x), int(y)), 4, BLACK, -1, cv2.LINE_AA)
    return drawn


def examples(scene: Scene) -> Any:
    """Left the example box on one shape, right the boxes of all shapes of its class."""
    cv2 = import_cv2()
    other = make_scene(SERIES, 14, 480, 360, count=7)
    wanted = CLASSES.index("cross")
    left, right = scene.image.copy(), other.image
    x1, y1, x2, y2 = (round(float(v)) for v in scene.xyxy[scene.class_id == wanted][0])
    for colour, width in ((BLACK, 5), (WHITE, 2)):
        cv2.rectangle(left, (x1, y1), (x2, y2), colour, width)
    found = other.class_id == wanted
    result = Detections(
        xyxy=other.xyxy[found],
        confidence=np.ones(int(found.sum()), np.float32),
        class_id=other.class_id[found],
        class_names=CLASSES,
        image_size=right.shape[:2],
    )
    return np.hstack((left, result.draw(right, confidence=False)))


def search(target: Path) -> None:
    """Six of thirty scenes as `lensmount search --save` lays them out, ranked by their share of star."""
    scenes = [make_scene(SERIES, index, 240, 240) for index in range(30)]
    star = CLASSES.index("star")
    shares = [float(scene.masks[scene.class_id == star].mean(axis=(1, 2)).sum()) for scene in scenes]
    best = sorted(range(len(scenes)), key=lambda i: -shares[i])[:6]
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder) / f"{i}.png") for i in best]
        for path, i in zip(paths, best, strict=True):
            import_cv2().imwrite(path, scenes[i].image)
        save_grid(paths, [shares[i] for i in best], target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
