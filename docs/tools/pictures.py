"""Draws the pictures of the documentation with the sample model: `python docs/tools/pictures.py [FOLDER]`.

tests/docs/test_pictures.py draws them again and compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lensmount import registry
from lensmount.images import import_cv2

FOLDER = Path(__file__).resolve().parents[1] / "pictures"
SCENE = Path(__file__).resolve().parents[2] / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"


def main(folder: Path) -> None:
    """Writes `scene.jpg`, `shapes-nano.jpg` (its boxes and masks), and `boxes.jpg` (boxes of two classes alone)."""
    cv2 = import_cv2()
    folder.mkdir(parents=True, exist_ok=True)
    picture = cv2.imread(str(SCENE))
    with registry.load("shapes-nano", backend="onnx", device="cpu") as model:
        (result,) = model(picture, confidence=0.5)
    chosen = result.filter(classes=["star", "ring"])
    drawn = {
        "scene": picture,
        "shapes-nano": result.draw(picture),
        "boxes": chosen.draw(picture, masks=False, confidence=False),
    }
    for name, image in drawn.items():
        cv2.imwrite(str(folder / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
