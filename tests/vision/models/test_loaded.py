"""What loaded models and detectors share, without a network."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from lensmount.contracts import TensorSpec
from lensmount.contracts.model import BuildContext, Model
from lensmount.errors import ClosedError, OptionError, UnsupportedModelError
from lensmount.specs import Artifact, BatchPolicy, ModelCard, ModelPackage, Preprocess
from lensmount_vision.models import Detector, Filter, Kept, LoadedModel, read_class_names
from lensmount_vision.models.loaded import class_of_task
from lensmount_vision.results import Detections, InstanceSegmentation, Masks

ARTIFACT = Artifact(name="weights.onnx", uri="file:///weights.onnx", role="graph")
PACKAGE = ModelPackage(name="onnx", format="onnx", artifacts=(ARTIFACT,), batch=BatchPolicy(maximum=2))
CARD = ModelCard(
    id="mine", architecture="mine", task="object-detection", classes=("cat", "dog", "cow"), packages=(PACKAGE,)
)


class Session:
    """Gives back the mean of each picture."""

    backend, device, precision, provider = "mine", "cpu", "fp32", "numpy"
    inputs = (TensorSpec("images", ("batch", 3, "height", "width"), "float32"),)
    outputs = (TensorSpec("means", ("batch", 1), "float32"),)
    metadata: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.closed = 0

    def run(self, feeds):
        self.sizes.append(feeds["images"].shape)
        return {"means": feeds["images"].mean(axis=(1, 2, 3))[:, None]}

    def close(self) -> None:
        self.closed += 1


class Means(Detector[Filter, Kept]):
    """One box per picture, of the class that is asked for first; its score is the mean."""

    names = CARD.classes

    def __call__(self, images, *, confidence=None, classes=None):
        return self._detect(images, Filter(**self._wanted(confidence, classes)), None)

    def _choose(self, raw, geometries, wanted):
        self.asked = wanted
        label = 0 if wanted.classes is None else int(wanted.classes[0])
        box = np.array([[0, 0, 4, 4]], np.float32)
        return [Kept(box, row.astype(np.float32), np.array([label])) for row in raw["means"]]


class Outlines(Means):
    def _masks(self, kept, boxes, raw, geometries):
        return [Masks.from_dense(np.ones((1, *geometry.original_size), bool)) for geometry in geometries]


def context(package=PACKAGE, **files) -> BuildContext:
    return BuildContext(card=CARD, package=package, sessions={"network": Session()}, files=files)


def made(kind=Means, package=PACKAGE, **geometry):
    return kind(context(package=package), Preprocess(**{"size": (8, 8), **geometry}), confidence=0.3)


def pictures(*sizes):
    return [np.full((*size, 3), 20 * i + 20, np.uint8) for i, size in enumerate(sizes)]


def test_facts_and_end():
    model = made()
    session = model._session
    assert isinstance(model, Model)
    assert (model.backend, model.device, model.precision, model.provider) == ("mine", "cpu", "fp32", "numpy")
    assert repr(model) == "<mine object-detection on mine cpu fp32>"
    with model as itself:
        assert itself is model
    assert session.closed == 1
    for call in (model, model.preprocess, model.load_images, lambda _: model.check_open()):
        with pytest.raises(ClosedError, match="'mine' was closed"):
            call(pictures((8, 8))[0])


def test_a_model_says_how_it_warms_up():
    class Cold(LoadedModel):
        pass

    with pytest.raises(TypeError, match="warmup"):
        Cold(CARD, PACKAGE, Session())


def test_results_are_in_the_order_of_the_pictures():
    model = made(size=(12, 12), rectangular=True, divisible_by=4)
    sizes = [(8, 8), (4, 12), (8, 8), (8, 8), (4, 12)]
    results = model(pictures(*sizes))
    assert [result.image_size for result in results] == sizes
    assert np.allclose([result.confidence[0] for result in results], np.arange(20, 120, 20) / 255, atol=1e-6)
    assert sorted(count for count, *_ in model._session.sizes) == [1, 2, 2]


def test_the_callers_word_comes_before_the_packages_before_the_models():
    model = made(package=replace(PACKAGE, recommended=(("confidence", 0.4),)))
    model(pictures((8, 8)))
    assert (model.asked.confidence, model.asked.per_class, model.asked.classes) == (0.4, None, None)
    model(pictures((8, 8)), confidence={"dog": 0.9}, classes="cow")
    assert np.allclose(model.asked.per_class, (0.4, 0.9, 0.4))
    assert model.asked.classes.tolist() == [2]
    plain = made()
    plain(pictures((8, 8)))
    assert plain.asked.confidence == 0.3
    with pytest.raises(OptionError, match="pig"):
        model(pictures((8, 8)), classes="pig")


def test_masks_make_it_a_segmentation():
    (boxes,), (outlines,) = made()(pictures((8, 8))), made(Outlines)(pictures((8, 8)))
    assert type(boxes) is Detections
    assert type(outlines) is InstanceSegmentation
    assert outlines.masks.area.tolist() == [64]


def test_class_names_of_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat\n\n  dog \n".encode())
    assert read_class_names(context(**{"class_names.txt": file})) == ("cat", "dog")
    assert read_class_names(SimpleNamespace(files={})) == ()


def test_a_task_that_no_class_has():
    assert class_of_task(CARD, {"object-detection": Means}, "my") is Means
    with pytest.raises(UnsupportedModelError, match="a task that my models here do not have") as caught:
        class_of_task(CARD, {"classification": Means, "embedding": Means}, "my")
    assert "classification, embedding" in str(caught.value)
