"""The inference server's names for OWLv2, and its few-shot files."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lensmount import AutoModel
from lensmount.errors import InputError, ModelFileError, UnsafeFileError
from lensmount_owlv2.server import OwlV2, SerializedOwlV2, bank_of
from lensmount_vision.moving import ReferenceBoundingBox, ReferenceExample


def box_on(model, image, row=0, cls="thing", negative=False):
    """An example box that lies on one of the network's own proposals."""
    (seen,) = model.propose([image])
    x1, y1, x2, y2 = (seen.boxes[row] * max(seen.image_size)).tolist()
    return {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1, "cls": cls, "negative": negative}


@pytest.fixture
def training_data(model, pictures):
    """Two classes on two pictures, one with a negative box."""
    one, two = (str(path) for path in pictures[:2])
    return [
        {"image": one, "boxes": [box_on(model, one, 0, "cat"), box_on(model, one, 3, "dog")]},
        {"image": two, "boxes": [box_on(model, two, 1, "cat"), box_on(model, two, 2, "dog", negative=True)]},
    ]


def test_the_steps_give_what_infer_gives(model, pictures, training_data):
    owl = OwlV2(model)
    embeddings = owl.make_class_embeddings_dict(training_data, 0.3)
    assert embeddings["cat"]["positive"].shape[0] == 2 and embeddings["cat"]["negative"] is None
    assert embeddings["dog"]["positive"].shape[0] == embeddings["dog"]["negative"].shape[0] == 1
    key = owl.embed_image(str(pictures[2]))
    found = owl.infer_from_embed(key, embeddings, confidence=0.6, iou_threshold=0.3)
    (result,) = owl.infer(str(pictures[2]), training_data, confidence=0.6)
    assert [row["class_name"] for row in found] == result.class_name.tolist() and found
    height, width = owl.get_image_size(key)
    centres = np.array([[row["x"], row["y"], row["w"], row["h"]] for row in found]) * max(height, width)
    corners = np.concatenate([centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2], 1)
    assert np.allclose(np.clip(corners, 0, [width, height] * 2), result.xyxy, atol=0.01)
    assert np.allclose([row["confidence"] for row in found], result.confidence, atol=1e-6)


def test_a_box_gives_the_embedding_of_its_proposal(model, pictures, training_data):
    owl = OwlV2(model)
    key = owl.embed_image(str(pictures[0]))
    box, side = training_data[0]["boxes"][0], max(owl.get_image_size(key))
    shares = [box[name] / side for name in ("x", "y", "w", "h")]
    made = owl.get_query_embedding({key: [shares, [5, 5, 0.01, 0.01]]}, 0.3)
    (seen,) = model.propose([str(pictures[0])])
    assert made.shape == (1, seen.embeddings.shape[1]) and np.allclose(made[0], seen.embeddings[0], atol=1e-5)
    assert owl.get_query_embedding({key: [[5, 5, 0.01, 0.01]]}) is None


def test_what_was_dropped_is_said(model, pictures):
    owl = OwlV2(model)
    key = owl.embed_image(str(pictures[0]))
    owl.reset_cache()
    with pytest.raises(InputError, match="was not embedded"):
        owl.get_image_size(key)
    for wrong in ({}, {"cat": {"positive": None}}, {"cat": {"positive": np.zeros((0, 4))}}):
        with pytest.raises(InputError):
            bank_of(wrong)


def test_a_request_of_the_server(model, pictures, training_data):
    owl = OwlV2(model)
    data = [{**row, "image": {"type": "file", "value": row["image"]}} for row in training_data]
    image = {"type": "base64", "value": base64.b64encode(pictures[2].read_bytes()).decode()}
    (answer,) = owl.infer_from_request({"image": image, "training_data": data, "confidence": 0.6})
    (result,) = owl.infer(str(pictures[2]), training_data, confidence=0.6)
    assert answer["image"] == {"width": 140, "height": 90}
    assert [row["class"] for row in answer["predictions"]] == result.class_name.tolist()
    first, box = answer["predictions"][0], result.xyxy[0]
    assert first["x"] == pytest.approx((box[0] + box[2]) / 2) and first["width"] == pytest.approx(box[2] - box[0])
    with pytest.raises(InputError, match="wrong keys"):
        owl.infer_from_request({"image": image, "training_dat": data})


def test_reference_examples_of_inference_models(tiny, pictures, training_data):
    with AutoModel.from_pretrained(tiny, backend="torch", device="cpu") as model:
        examples = [
            ReferenceExample(row["image"], [ReferenceBoundingBox(**box) for box in row["boxes"]])
            for row in training_data
        ]
        (found,) = model.infer_with_reference_examples(str(pictures[2]), examples, confidence=0.6)
        (result,) = model.model.infer(str(pictures[2]), training_data, confidence=0.6)
        assert np.array_equal(np.asarray(found.xyxy), result.xyxy)
        assert [row["class_name"] for row in found.bboxes_metadata] == result.class_name.tolist()
        shares = []
        for row in training_data:
            scale = {"x": 140, "w": 140, "y": 90, "h": 90}
            boxes = [
                {**{key: box[key] / scale[key] for key in scale}, "cls": box["cls"], "negative": box["negative"],
                 "absolute": False}
                for box in row["boxes"]
            ]  # fmt: skip
            shares.append({"image": row["image"], "boxes": boxes})
        (same,) = model.infer_with_reference_examples(str(pictures[2]), shares, confidence=0.6)
        assert np.allclose(np.asarray(same.xyxy), result.xyxy, atol=0.01)
        assert model.infer(str(pictures[2]), ["a cat"], confidence=0.0)[0].class_names == ("a cat",)


# --- files ------------------------------------------------------------------------------------------------------------


def serialized(path, embeddings, **more):
    """A few-shot file as the server writes it."""
    torch = pytest.importorskip("torch")
    data = {
        name: {kind: None if rows is None else torch.from_numpy(np.array(rows)) for kind, rows in entry.items()}
        for name, entry in embeddings.items()
    }
    row = (torch.zeros(3), torch.zeros(3, 4), torch.zeros(3, 8), torch.zeros(3), torch.zeros(3))
    document = {
        "huggingface_id": "google/owlv2-base-patch16-ensemble", "train_data_dict": data,
        "class_names": list(embeddings), "roboflow_id": "owlv2/owlv2-base-patch16-ensemble",
        "image_embeds": {"0a": row}, **more,
    }  # fmt: skip
    torch.save({key: value for key, value in document.items() if value is not ...}, path)
    return path


def test_the_servers_file_finds_what_its_examples_find(model, pictures, training_data, tmp_path):
    owl = OwlV2(model)
    path = serialized(tmp_path / "weights.pt", owl.make_class_embeddings_dict(training_data))
    saved = SerializedOwlV2(model, path)
    assert saved.class_names == ["cat", "dog"]
    (found,) = saved.infer(str(pictures[2]), confidence=0.6)
    (result,) = owl.infer(str(pictures[2]), training_data, confidence=0.6)
    assert np.allclose(found.xyxy, result.xyxy, atol=0.01) and found.class_id.tolist() == result.class_id.tolist()
    folder = saved.save_small_model_without_image_embeds(tmp_path / "small")
    (again,) = SerializedOwlV2(model, folder).infer(str(pictures[2]), confidence=0.6)
    assert np.array_equal(again.xyxy, found.xyxy)
    saved.reset_cache()


def test_our_folder_is_written_and_read(model, pictures, training_data, tmp_path):
    owl = OwlV2(model)
    path = owl.serialize_training_data(training_data, "google/owlv2-base-patch16-ensemble", 0.3, tmp_path / "detector")
    more = [*training_data, {"image": str(pictures[3]), "boxes": [box_on(model, str(pictures[3]), 0, "cat")]}]
    again = owl.serialize_training_data(more, save_dir=tmp_path / "more", previous_embeddings_file=path)
    for file, count in ((path, 4), (again, 5)):
        assert len(SerializedOwlV2(model, file).detector.bank.class_id) == count


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"train_data_dict": ...}, "no file of few-shot"),
        ({"class_names": ["cat"]}, "classes"),
        (
            {"train_data_dict": {"cat": {"positive": None, "negative": None}}, "class_names": ["cat"]},
            "embeddings of 'cat'",
        ),
    ],
)
def test_malformed_files_are_refused(model, training_data, tmp_path, more, says):
    embeddings = OwlV2(model).make_class_embeddings_dict(training_data)
    with pytest.raises(ModelFileError, match=says):
        model.read_detector(serialized(tmp_path / "weights.pt", embeddings, **more))


def test_embeddings_of_another_length_are_refused(model, tmp_path):
    rows = {"cat": {"positive": np.ones((2, 3), np.float32), "negative": None}}
    with pytest.raises(ModelFileError, match="cannot be used"):
        model.read_detector(serialized(tmp_path / "weights.pt", rows))


def test_another_network_is_refused_where_the_id_tells(model, training_data):
    from dataclasses import replace

    from lensmount_owlv2.serialized import require_network

    card = replace(model.card, id="owlv2/large-patch14", aliases=("google/owlv2-large-patch14",))
    require_network(card, "google/owlv2-large-patch14", "f")
    with pytest.raises(ModelFileError, match="another network"):
        require_network(card, "google/owlv2-base-patch16-ensemble", "f")


def test_code_in_a_file_is_refused(model, tmp_path):
    torch = pytest.importorskip("torch")

    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    torch.save({"huggingface_id": Evil()}, tmp_path / "weights.pt")
    with pytest.raises(UnsafeFileError):
        model.read_detector(tmp_path / "weights.pt")
