"""Views: what models and results are called in inference-models, over ours."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from lensmount import AutoModel, registry
from lensmount.errors import MissingDependencyError, OptionError
from lensmount_vision.moving import Detections, DetectorView, InstancesRLEMasks, KeyPoints, view_of
from lensmount_vision.moving.predictions import HostTensor, prediction_of, tensor
from lensmount_vision.results import Classification, Keypoints, Masks, PromptedMasks

SIZE = (240, 320)


def scene():
    """BGR: a red square and a blue circle."""
    picture = np.full((*SIZE, 3), 40, np.uint8)
    picture[40:120, 40:120] = (20, 20, 220)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    picture[(rows - 160) ** 2 + (columns - 230) ** 2 < 45**2] = (220, 60, 20)
    return picture


@pytest.fixture(scope="module")
def model():
    with AutoModel.from_pretrained("shapes-nano", backend="onnx", device="cpu") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def ours(model):
    return model.model(scene(), confidence=0.4, iou_threshold=0.3, max_detections=300)[0]


def test_a_call_means_what_it_means_there(model, ours):
    """Its defaults are 0.4, 0.3 and 300; `infer` and a call are one."""
    for predictions in (model(scene()), model.infer(scene()), model(scene(), confidence="default")):
        (prediction,) = predictions
        assert len(prediction) == len(ours) >= 2
        assert np.array_equal(prediction.xyxy.cpu().numpy(), ours.xyxy)
        assert np.array_equal(prediction.confidence.cpu().numpy(), ours.confidence)
        assert prediction.class_id.tolist() == ours.class_id.tolist()
        assert np.array_equal(prediction.mask.cpu().numpy(), ours.masks.dense())
    few = model(scene(), confidence=0.4, max_detections=1)
    assert len(few[0]) == 1
    assert model.class_names == list(ours.class_names) and isinstance(model.class_names, list)


def test_our_defaults_stay_ours(model):
    """0.25 is the confidence of `registry.load`'s models."""
    assert len(registry.load("shapes-nano", backend="onnx", device="cpu")(scene())[0]) >= len(model(scene())[0])
    assert model.model is not model and model.card.id == "shapes-nano" and model.backend == "onnx"


def test_the_color_of_arrays_can_be_said(model):
    bgr = model(scene())[0]
    rgb = model(np.ascontiguousarray(scene()[..., ::-1]), input_color_format="rgb")[0]
    assert np.array_equal(np.asarray(bgr.xyxy), np.asarray(rgb.xyxy))


def test_stages_give_what_a_call_gives(model):
    batch, meta = model.pre_process(scene(), input_color_format="bgr")
    predictions = model.post_process(model.forward(batch), meta, confidence=0.4, class_agnostic_nms=False)
    whole = model(scene())
    assert np.array_equal(np.asarray(predictions[0].xyxy), np.asarray(whole[0].xyxy))
    assert np.array_equal(np.asarray(predictions[0].mask), np.asarray(whole[0].mask))


def test_masks_as_run_lengths(model, ours):
    (prediction,) = model(scene(), mask_format="rle")
    assert isinstance(prediction.mask, InstancesRLEMasks) and prediction.mask.image_size == SIZE
    rows = [{**row, "counts": row["counts"].decode()} for row in prediction.mask.to_coco_rle_masks()]
    assert Masks.from_rle(rows) == ours.masks
    assert [row[1]["counts"] for row in prediction] == prediction.mask.masks
    with pytest.raises(OptionError, match="mask_format"):
        model(scene(), mask_format="polygons")


def test_rows_of_a_prediction(model, ours):
    (prediction,) = model(scene())
    rows = list(prediction)
    assert len(rows) == len(ours)
    xyxy, mask, class_id, confidence, tracker_id, data, metadata = rows[0]
    assert xyxy.shape == (4,) and mask.shape == SIZE and tracker_id is None and metadata == {}
    assert int(class_id) == ours.class_id[0] and float(confidence) == pytest.approx(ours.confidence[0])
    assert data == {"class_name": ours.class_name[0]} == prediction.bboxes_metadata[0]
    assert prediction.draw(scene()).shape == scene().shape  # whatever our results have
    with pytest.raises(AttributeError, match="no_such_thing"):
        prediction.no_such_thing  # noqa: B018 - it is the look-up that fails


def test_supervision_gets_what_the_fields_hold(model, ours, monkeypatch):
    sv = pytest.importorskip("supervision")
    monkeypatch.setattr(Masks, "dense", lambda self: pytest.fail("a dense array was made"))
    (prediction,) = model(scene())
    for number, row in enumerate(prediction.bboxes_metadata):
        row["tracker_id"] = 10 + number
    prediction.xyxy += 1
    made = prediction.to_supervision()
    assert isinstance(made.mask, sv.CompactMask) and np.array_equal(made.xyxy, ours.xyxy + 1)
    assert made.tracker_id.tolist() == [10 + i for i in range(len(ours))]
    assert made.data["class_name"].tolist() == ours.class_name.tolist()
    prediction.mask = np.zeros((len(ours), *SIZE), bool)
    assert not np.asarray(prediction.to_supervision().mask).any()


def test_without_torch_values_have_the_methods_of_tensors(monkeypatch):
    monkeypatch.setattr("lensmount_vision.moving.predictions.find_spec", lambda name: None)
    value = tensor([[1.5, 2]])
    assert isinstance(value, HostTensor)
    plain = value.detach().cpu().numpy()
    assert type(plain) is np.ndarray and plain.tolist() == [[1.5, 2]]


def test_with_torch_values_are_tensors_of_their_own(ours):
    torch = pytest.importorskip("torch")
    prediction = prediction_of(ours)
    assert all(torch.is_tensor(value) for value in (prediction.xyxy, prediction.class_id, prediction.mask))
    prediction.xyxy.zero_()
    assert ours.xyxy.any()


def test_without_supervision_says_what_to_install(model, monkeypatch):
    (prediction,) = model(scene())
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingDependencyError):
        prediction.to_supervision()


class Fixed:
    """A model that answers with results that were given to it."""

    card = registry.describe("shapes-nano")
    package = card.packages[0]
    names = ("a", "b")

    def __init__(self, *results):
        self.results = list(results)

    def __call__(self, images, *, confidence=0.1, max_detections=5):
        return self.results

    def postprocess(self, raw, geometries, *, confidence=0.1, max_detections=5):
        return self.results


def test_keypoints_come_with_their_boxes():
    points = np.random.default_rng(0).random((2, 3, 3)).astype(np.float32)
    result = Keypoints(
        xyxy=[[0, 0, 9, 9], [1, 1, 5, 5]], confidence=[0.9, 0.8], class_id=[0, 1], class_names=("a", "b"),
        image_size=(20, 20), keypoints=points, keypoint_names=("x", "y", "z"), skeleton=(),
    )  # fmt: skip
    found, boxes = view_of(Fixed(result))("picture")
    assert isinstance(found[0], KeyPoints) and isinstance(boxes[0], Detections)
    assert np.array_equal(np.asarray(found[0].xy), points[..., :2])
    assert np.array_equal(np.asarray(found[0].confidence), points[..., 2])
    assert np.asarray(found[0].detection_confidence).tolist() == np.float32([0.9, 0.8]).tolist()


def test_classifiers_give_one_prediction_of_the_batch():
    rows = [[0.1, 0.9], [0.7, 0.3]]
    results = [Classification(probabilities=row, class_names=("a", "b"), image_size=(9, 9)) for row in rows]
    prediction = view_of(Fixed(*results))(["one", "two"])
    assert prediction.class_id.tolist() == [1, 0]
    assert np.allclose(np.asarray(prediction.confidence), rows)


def test_options_of_other_families_are_not_forced_on_a_model():
    view = view_of(Fixed())
    assert isinstance(view, DetectorView) and view("picture") == []
    with pytest.raises(TypeError, match="iou_threshold"):
        view("picture", iou_threshold=0.5)


def test_prompted_masks_of_several_prompts_keep_their_axes():
    from lensmount_vision.moving import SAM2Prediction

    crops = [(np.ones((2, 2), bool), (i, i)) for i in range(6)]
    common = {"masks": Masks.from_crops(crops, (20, 20)), "scores": np.arange(6), "image_size": (20, 20)}
    one = SAM2Prediction(PromptedMasks(**common, logits=np.zeros((6, 4, 4))))
    assert one.masks.shape == (6, 20, 20) and one.scores.shape == (6,) and one.logits.shape == (6, 4, 4)
    two = SAM2Prediction(PromptedMasks(**common, logits=np.zeros((6, 4, 4)), prompt_id=[0, 0, 0, 1, 1, 1]))
    assert two.masks.shape == (2, 3, 20, 20) and two.scores.shape == (2, 3) and two.logits.shape == (2, 3, 4, 4)
