"""A family of models that keeps every promise, for every task: how light is each quarter of a picture?

Its two backends are numpy. Nothing is trained; what they find is true by arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lensmount.contracts.session import TensorSpec, check_feeds
from lensmount.errors import ClosedError, InputError
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    BackendStatus,
    ModelCard,
    ModelPackage,
    Preprocess,
    hookimpl,
)
from lensmount.specs.options import fraction, positive
from lensmount_vision.models.single_graph import SingleGraph
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    Keypoints,
    Masks,
    OrientedDetections,
    PromptedMasks,
)

TASKS = (
    "object-detection",
    "instance-segmentation",
    "keypoint-detection",
    "oriented-object-detection",
    "classification",
    "embedding",
    "open-vocabulary-detection",
    "interactive-segmentation",
)
NAMES = ("light", "grey", "dark", "none")
SIDE = 32


def probe(environment):
    return BackendStatus(usable=True, version="1", devices=("cpu",), precisions=(("cpu", ("fp32",)),))


class Session:
    backend = "spots"
    device, precision, provider = "cpu", "fp32", "numpy"
    inputs = (TensorSpec("images", ("batch", 3, SIDE, SIDE), "float32"),)
    outputs = (TensorSpec("light", ("batch", 4), "float32"),)
    shift = 0.0

    def __init__(self, request):
        self.closed = False
        self.metadata = {}

    def run(self, feeds):
        if self.closed:
            raise ClosedError("the session was closed")
        check_feeds(self.inputs, feeds, "spots")
        light = np.einsum("bchw,c->bhw", feeds["images"], np.array([0.6, 0.3, 0.1], np.float32))
        quarters = light.reshape(-1, 2, SIDE // 2, 2, SIDE // 2).mean(axis=(2, 4)).reshape(-1, 4)
        return {"light": (quarters * 0.9 + 0.02 + self.shift).astype(np.float32)}

    def close(self):
        self.closed = True


class Again(Session):
    """The second backend."""

    backend = "spots-again"


class Shifted(Session):
    """A backend that gets it wrong by a hundredth."""

    backend = "spots-shifted"
    shift = 0.01


def open_spots(request):
    return Session(request)


def open_again(request):
    return Again(request)


def open_shifted(request):
    return Shifted(request)


def plugin(factory="spots:build", names=NAMES):
    """The plugin, with another factory for what breaks a promise."""

    class Plugin:
        @hookimpl
        def lensmount_architectures(self):
            yield Architecture(name="spots", tasks=TASKS, factory=factory)

        @hookimpl
        def lensmount_backends(self):
            for name in ("spots", "spots_again", "spots_shifted"):
                opener = f"spots:open_{name.rpartition('_')[2]}"
                rank = (("cpu", 90 if name == "spots" else 50),)
                yield Backend(
                    name=name.replace("_", "-"), formats=("spots",), probe="spots:probe", opener=opener, preference=rank
                )

        @hookimpl
        def lensmount_model_cards(self):
            weights = Artifact(name="spots.py", uri=Path(__file__).absolute().as_uri())
            for task in TASKS:
                yield ModelCard(
                    id=f"spots-{task}",
                    architecture="spots",
                    task=task,
                    classes=() if task in ("embedding", "open-vocabulary-detection") else names,
                    licence="Apache-2.0",
                    packages=(ModelPackage(name="only", format="spots", artifacts=(weights,)),),
                )

    return Plugin()


def build(context):
    return (Prompted if context.card.task == "interactive-segmentation" else Spots)(context)


class Base(SingleGraph):
    """Quarters of a picture."""

    def __init__(self, context):
        super().__init__(context, Preprocess(size=(SIDE, SIDE), resize="stretch"))

    def light(self, pictures):
        return self.infer_pictures(pictures)[0]["light"] if pictures else np.zeros((0, 4), np.float32)

    def quarters(self, size):
        height, width = size
        y, x = height / 2, width / 2
        return np.array([[0, 0, x, y], [x, 0, width, y], [0, y, x, height], [x, y, width, height]], np.float32)

    def masks(self, size):
        dense = np.zeros((4, *size), bool)
        for mask, (x1, y1, x2, y2) in zip(dense, self.quarters(size).astype(int).tolist(), strict=True):
            mask[y1 : y2 + 1, x1 : x2 + 1] = True
        return Masks.from_dense(dense)


class Spots(Base):
    """All tasks but the prompted one."""

    def __call__(self, images, *, confidence=0.1, max_detections=300, classes=None, color=None):
        lowest, most = fraction("confidence", confidence), positive("max_detections", max_detections)
        pictures = self.load_images(images, color)
        names = tuple(classes or self.card.classes)
        return [
            self.answer(picture, light, lowest, most, names)
            for picture, light in zip(pictures, self.light(pictures), strict=True)
        ]

    def answer(self, picture, light, lowest, most, names):
        task, size = self.card.task, picture.size
        if task == "embedding":
            return Embeddings(vectors=light[None], normalized=False).normalize()
        common = {"image_size": size, "path": picture.path, "class_names": names}
        if task == "classification":
            return Classification(probabilities=light / light.sum(), **common)
        boxes = self.quarters(size)
        order = np.argsort(-light, kind="stable")
        order = order[light[order] >= lowest][:most]
        rows = {"confidence": light[order], "class_id": np.arange(4)[order] % len(names), **common}
        if task == "oriented-object-detection":
            turned = np.column_stack([(boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2, [0.3] * 4])
            return OrientedDetections.from_xywhr(
                turned[order], rows["confidence"], rows["class_id"], class_names=names, image_size=size,
                path=picture.path,
            )  # fmt: skip
        rows["xyxy"] = boxes[order]
        if task == "instance-segmentation":
            return InstanceSegmentation(masks=self.masks(size)[order], **rows)
        if task == "keypoint-detection":
            points = boxes.reshape(4, 2, 2)
            seen = np.broadcast_to(light[:, None, None], (4, 2, 1))
            return Keypoints(keypoints=np.concatenate([points, seen], axis=2)[order], **rows)
        return Detections(**rows)


class Prompted(Base):
    """The quarter that a point lies in."""

    def __call__(self, images, *, point_coordinates=None, color=None):
        pictures = self.load_images(images, color)
        points = np.asarray(point_coordinates, np.float32)
        if points.shape != (1, 2):
            raise InputError("one point is needed", found=str(points.shape), expected="(1, 2)")
        results = []
        for picture, light in zip(pictures, self.light(pictures), strict=True):
            height, width = picture.size
            index = int(points[0, 0] >= width / 2) + 2 * int(points[0, 1] >= height / 2)
            masks = self.masks(picture.size)[[index]]
            results.append(
                PromptedMasks(masks=masks, scores=light[[index]], image_size=picture.size, path=picture.path)
            )
        return results
