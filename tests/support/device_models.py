"""A small model of every plugin, what it answers to three pictures, and how far two answers lie apart.

Used for the host's way against the device's on torch's CPU device, and for the CPU against CUDA.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
SCENE = TESTS.parent / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"
NAMES = (
    "yolo", "yolo-points", "yolo-angles", "yolo-classes", "rfdetr", "rfdetr-masks", "sam2", "owlv2", "clip",
    "perception-encoder",
)  # fmt: skip


def _module(path: str) -> Any:
    """A test module or conftest, for the small networks that it makes."""
    name = "device_models_" + path.replace("/", "_").removesuffix(".py")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, TESTS / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def write(name: str, folder: Path, goldens: Any) -> tuple[Path, dict[str, Any]]:
    """Writes a model's weights.

    Args:
        name: One of `NAMES`.
        folder: Where to.
        goldens: The fixture `embedding_goldens`.

    Returns:
        What to load, with which options.
    """
    import torch

    kind, _, part = name.partition("-")
    if kind == "yolo":
        import tiny_networks as tiny

        extra = {"points": 15, "angles": 1}.get(part)
        shapes = tiny.classifier() if part == "classes" else tiny.pyramid(classes=1 if extra == 15 else 3, extra=extra)
        torch.save(tiny.lively(shapes)[1].state_dict(), folder / "weights.pt")
        return folder / "weights.pt", {"input_size": 64 if part == "classes" else 160}
    if kind == "rfdetr":
        kit = _module("rfdetr/conftest.py")
        masks = 2 if part else 0
        args = {**kit.ARGS, "segmentation_head": bool(masks), "class_names": ["nut", "bolt", "gear"]}
        return kit.write_checkpoint(folder / "tuned.pth", kit.tensors(masks=masks), args), {}
    if kind == "sam2":
        import sam2_tiny

        return sam2_tiny.write_folder(folder / "model"), {}
    if kind == "owlv2":
        return _module("owlv2/conftest.py").write_folder(folder / "tiny-owl"), {}
    if kind == "clip":
        torch.save(_module("clip/test_clip_models.py").tiny_state(goldens.recipe), folder / "tiny.pt")
        return folder / "tiny.pt", {}
    return _perception_encoder(folder, goldens), {}


def _perception_encoder(folder: Path, goldens: Any) -> Path:
    import torch

    case = next(case for case in goldens.shapes if case.startswith("pe"))
    state = goldens.recipe.weights({key: tuple(shape) for key, shape in goldens.shapes[case].items()})
    torch.save({key: torch.from_numpy(value) for key, value in state.items()}, folder / "pe.pt")
    return folder / "pe.pt"


@dataclass(frozen=True)
class Answer:
    """Numbers of one call that may differ by rounding, by what they are; and the masks."""

    numbers: dict[str, np.ndarray]
    masks: Any = None


def pictures() -> list[np.ndarray]:
    """Two sizes, one of them twice, BGR."""
    import cv2

    scene = cv2.imread(str(SCENE))
    return [scene, scene[::2, ::3], np.ascontiguousarray(scene[:, ::-1])]


def ask(name: str, model: Any, given: list[Any]) -> list[Answer]:
    """What a model says to pictures; every object, however unsure, so that none is lost to a threshold."""
    kind = name.partition("-")[0]
    if kind == "sam2":
        points = [[size[1] / 2, size[0] / 2] for size in (picture.shape[:2] for picture in pictures())]
        found = model.segment_images(given, point_coordinates=[[point] for point in points])
        return [Answer({"scores": result.scores, "logits": result.logits}, result.masks) for result in found]
    if kind in ("clip", "perception"):
        return [Answer({"vectors": result.vectors}) for result in model(given)]
    if name == "yolo-classes":
        return [Answer({"probabilities": result.probabilities}) for result in model(given)]
    if kind == "owlv2":
        found = model(given, classes=["a thing", "another"], confidence=0.0, max_detections=20)
    else:
        # Untrained scores lie close together; without suppression their order is all that may change.
        found = model(given, confidence=0.0, **({"iou_threshold": 1.0, "max_detections": 50} if kind == "yolo" else {}))
    return [
        Answer({"confidence": result.confidence, "boxes": result.xyxy}, getattr(result, "masks", None))
        for result in found
    ]


def drift(one: Answer, other: Answer) -> dict[str, float]:
    """Largest differences: of scores and vectors as they are; of boxes and logits as a share of their range.

    Rows of nearly equal scores may change places: boxes are compared with their nearest.
    """
    found: dict[str, float] = {}
    for key, expected in one.numbers.items():
        made = other.numbers[key]
        assert made.shape == expected.shape, key
        if key == "boxes":
            distance = np.abs(expected[:, None] - made[None]).max(2).min(1)
            found[key] = float(np.median(distance) / max(np.ptp(expected), 1)) if len(expected) else 0.0
        elif key == "logits":
            found[key] = float(np.abs(made - expected).max() / np.ptp(expected))
        else:
            found[key] = float(np.abs(made - expected).max(initial=0))
    if one.masks is not None and len(one.masks) == len(other.masks):
        areas = np.maximum(np.maximum(one.masks.area, other.masks.area), 1)
        found["mask areas"] = float((np.abs(one.masks.area - other.masks.area) / areas).mean()) if len(areas) else 0.0
    return found
