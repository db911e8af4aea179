"""Options by the names of other libraries are refused with their names here, in every call of every model."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from lensmount.errors import UnknownOptionError
from lensmount.specs.options import shipped
from lensmount_owlv2.detector import FewShotDetector
from lensmount_owlv2.model import Owlv2
from lensmount_rfdetr.model import RFDETRDetector
from lensmount_sam2.model import Sam2
from lensmount_vision.models import LoadedModel, stream
from lensmount_vision.towers.model import EmbeddingModel
from lensmount_yolo.classify import YoloClassifier
from lensmount_yolo.model import YoloDetector

CALLS = (
    YoloDetector.__call__, YoloClassifier.__call__, RFDETRDetector.__call__, Owlv2.__call__, Owlv2.infer,
    FewShotDetector.__call__, Sam2.segment_images, Sam2.embed_images, EmbeddingModel.__call__,
    EmbeddingModel.embed_images,
)  # fmt: skip
TABLE = shipped("foreign_names")
PLACE = SimpleNamespace(card=SimpleNamespace(id="some-model"))


def ours_of(foreign: str, method: object) -> str | None:
    """What a call has for a foreign word, or None where it has nothing for it."""
    names = inspect.signature(method).parameters
    return None if foreign in names else next((w for w in TABLE["options"][foreign] if w in names), None)


@pytest.mark.parametrize("foreign", TABLE["options"])
def test_each_foreign_name_is_refused_with_ours(foreign):
    calls = [(method, ours_of(foreign, method)) for method in CALLS]
    for method, ours in calls:
        if foreign in inspect.signature(method).parameters:
            continue
        with pytest.raises(UnknownOptionError) as caught:
            method(PLACE, "street.jpg", **{foreign: 0.5})
        assert f"no option {foreign!r}" in str(caught.value)
        assert "some-model" in str(caught.value)
        if ours is not None:
            assert caught.value.fix == f"did you mean {ours!r}?"


def test_every_name_here_that_is_offered_is_an_option_of_a_call_or_a_load():
    known = {name for method in (*CALLS, stream) for name in inspect.signature(method).parameters}
    known |= {"input_size", "image_size", "threads"}
    assert {word for words in TABLE["options"].values() for word in words} <= known


@pytest.mark.parametrize("foreign", sorted(set(TABLE["elsewhere"]) - set(TABLE["options"])))
def test_what_is_done_elsewhere_says_where(foreign):
    with pytest.raises(UnknownOptionError) as caught:
        YoloDetector.__call__(PLACE, "street.jpg", **{foreign: True})
    assert caught.value.fix == TABLE["elsewhere"][foreign]


def test_size_of_a_call_belongs_to_the_load():
    with pytest.raises(UnknownOptionError, match=r"registry\.load.*input_size=640"):
        YoloDetector.__call__(PLACE, "street.jpg", imgsz=640)


class Model(LoadedModel):
    def warmup(self):
        return

    def __call__(self, images, *, confidence=0.5):
        return [confidence] * len(images)


def test_a_stream_refuses_them_as_a_call_does():
    model = Model(SimpleNamespace(id="tiny"), None, None)
    with pytest.raises(UnknownOptionError, match="did you mean 'confidence'"):
        stream(model, "street.jpg", conf=0.2)
    with pytest.raises(UnknownOptionError, match="did you mean 'batch_size'"):
        stream(model, "street.jpg", batch=2)


def test_a_third_partys_model_gets_it_by_deriving():
    model = Model(SimpleNamespace(id="tiny"), None, None)
    assert model(["a", "b"], confidence=0.25) == [0.25, 0.25]
    with pytest.raises(TypeError, match="a call of 'tiny' has no option 'thresh'"):
        model(["a"], thresh=0.1)
    assert str(inspect.signature(model)) == "(images, *, confidence=0.5)"
