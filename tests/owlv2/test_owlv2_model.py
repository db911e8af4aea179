"""The model's calls, its caches, what it shares, what it saves, and what it refuses."""

from __future__ import annotations

import gc
import io
import json
import shutil
import threading
import warnings

import numpy as np
import pytest

from lensmount import registry
from lensmount.caches.memory import MemoryCache
from lensmount.errors import (
    ClosedError,
    ImageError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    OptionError,
    UnknownOptionError,
)
from lensmount_owlv2.references import UnmatchedBoxWarning
from lensmount_owlv2.training import TrainBox, TrainingImage
from wrapped import WAYS, wrapped


def box_on(model, image, row=0, cls="thing", negative=False):
    """A reference box that lies on one of the network's own proposals, as a dictionary."""
    seen = next(iter(model._images.stream([image], None, None))).proposals
    side = max(seen.image_size)
    x1, y1, x2, y2 = (seen.boxes[row] * side).tolist()
    made = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "w": x2 - x1, "h": y2 - y1, "cls": cls}
    return {**made, "negative": True} if negative else made


def same_to_rounding(one, other):
    """The same objects, from pictures that the network ran in batches of other sizes.

    Kernels for another size may add in another order: on AVX2 boxes then differ by 1e-5 pixels.
    """
    assert {**one.to_dict(), "objects": None} == {**other.to_dict(), "objects": None}
    assert one.class_id.tolist() == other.class_id.tolist()
    np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3, rtol=0)
    np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-5, rtol=0)


def visible_rows(model, image, count):
    seen = next(iter(model._images.stream([image], None, None))).proposals
    return np.flatnonzero(seen.visible)[:count].tolist()


@pytest.fixture
def counted(model, data):
    """The model, and the sizes of the batches that its image tower ran."""
    runs = []
    forward = model._images._forward

    def run(batch):
        runs.append(len(batch))
        return forward(batch)

    model._images._forward = run
    return model, runs


@pytest.fixture
def data(model, pictures):
    """Two classes on three pictures."""
    made = []
    for path in pictures[:3]:
        rows = visible_rows(model, path, 2)
        made.append({"image": path, "boxes": [box_on(model, path, row, "ab"[i]) for i, row in enumerate(rows)]})
    model.reset_cache()
    return made


def test_results(model, pictures):
    first, second = model(pictures[:2], classes=["a cat", "a dog"], confidence=0.0)
    assert first.class_names == ("a cat", "a dog")
    assert first.path == str(pictures[0]) and second.image_size == (90, 140)
    assert len(first) > 5 and (np.diff(first.confidence) <= 0).all()
    assert (first.xyxy[:, 2:] > first.xyxy[:, :2]).all()
    assert (first.xyxy >= 0).all() and (first.xyxy <= [140, 90, 140, 90]).all()
    assert model([], classes=["a"]) == []


def test_a_box_finds_itself(model, pictures, data):
    (result,) = model.infer(pictures[0], data, confidence=0.999)
    wanted = data[0]["boxes"][0]
    best = result[result.class_id == 0]
    centers = (best.xyxy[:, :2] + best.xyxy[:, 2:]) / 2
    assert best.confidence[0] == pytest.approx(1, abs=1e-5)
    assert len(best) and result.class_names == ("a", "b")
    clipped = np.clip([wanted["x"], wanted["y"]], 0, [140, 90])
    assert np.abs(centers - clipped).min() < 60


def test_infer_and_fit_agree(model, pictures, data):
    detector = model.fit(data, confidence=0.8)
    typed = [TrainingImage(item["image"], tuple(TrainBox(**box) for box in item["boxes"])) for item in data]
    for one, other in zip(detector(pictures), model.infer(pictures, typed, confidence=0.8), strict=True):
        assert np.array_equal(one.xyxy, other.xyxy) and np.array_equal(one.confidence, other.confidence)
    loose = detector(pictures, confidence=0.0, iou_threshold=0.9)
    assert sum(map(len, loose)) > sum(map(len, detector(pictures)))
    assert all(len(result) <= 2 for result in detector(pictures, confidence=0.0, max_detections=2))
    assert detector.class_names == ("a", "b") and detector.card.classes == ("a", "b")
    by_class = detector(pictures, confidence={"a": 1.0, "b": 0.0})
    assert all((result.confidence[result.class_id == 0] >= 0.9999).all() for result in by_class)


def test_every_input_form_gives_the_same(model, pictures):
    from PIL import Image as PilImage

    from lensmount_vision.images.loading import load

    array = load(pictures[0]).array("bgr")
    reference = model(pictures[0], classes=["a"], confidence=0.0)[0]
    forms = [
        (str(pictures[0]), None),
        (pictures[0].read_bytes(), None),
        (io.BytesIO(pictures[0].read_bytes()), None),
        (PilImage.open(pictures[0]), None),
        (array, None),
        (array[..., ::-1], "rgb"),
    ]
    for source, color in forms:
        (result,) = model(source, classes=["a"], confidence=0.0, color=color)
        # In another order of colours the planes' rows lie at other places of the float32 products that resample them,
        # and there kernels may add in another order (on AVX2 they do: 3e-5 pixels, 5e-7 of a score).
        np.testing.assert_allclose(result.xyxy, reference.xyxy, atol=1e-3, rtol=0, err_msg=str(type(source)))
        np.testing.assert_allclose(result.confidence, reference.confidence, atol=1e-5, rtol=0)
    (swapped,) = model(array, classes=["a"], confidence=0.0, color="rgb")  # a colour argument that is obeyed
    count = min(len(swapped), len(reference))
    assert np.abs(swapped.confidence[:count] - reference.confidence[:count]).max() > 0.05


# --- caches -----------------------------------------------------------------------------------------------------------


def test_references_share_one_run_and_new_ones_pay_for_themselves(counted, pictures, data):
    model, runs = counted
    model.infer(pictures[0], data)
    assert runs == [3]  # picture 0 is among the references
    model.infer(pictures[3], data)
    assert runs == [3, 1]
    more = [*data, {"image": pictures[4], "boxes": []}]
    model.infer(pictures[3], more)
    assert runs == [3, 1, 1]
    model.infer(pictures, more)
    assert runs == [3, 1, 1]
    model.reset_cache()
    model.infer(pictures[0], data)
    assert runs[3:] == [3]


def test_pictures_of_one_call_share_runs(tiny, pictures):
    with registry.load(tiny, backend="torch", device="cpu", batch=2) as model:
        runs = []
        forward = model._images._forward
        model._images._forward = lambda batch: (runs.append(len(batch)), forward(batch))[1]
        together = model([*pictures, pictures[0]], classes=["a"], confidence=0.0)
        assert runs == [2, 2, 1]
        alone = [model(path, classes=["a"], confidence=0.0)[0] for path in pictures]
        for one, other in zip(together, alone, strict=False):
            assert np.abs(one.confidence - other.confidence).max() < 1e-6


def test_words_after_boxes_and_boxes_after_words(counted, pictures, data):
    """All proposals serve for a few; a few do not serve for all."""
    model, runs = counted
    model(pictures[0], classes=["a"])
    model.infer(pictures[0], data[:1], max_detections=5)
    assert runs == [1]
    model.reset_cache()
    model.infer(pictures[0], data[:1], max_detections=30)
    model.infer(pictures[0], data[:1], max_detections=20)
    model(pictures[0], classes=["a"])
    assert runs == [1, 1, 1, 1]


def test_keys_cover_every_parameter(model, pictures, data):
    def answer(**options):
        (result,) = model.infer(pictures[3], data, confidence=0.0, **options)
        return result.xyxy.tolist(), result.confidence.tolist()

    variants = [{}, {"max_detections": 4}, {"iou_threshold": 0.9}]
    first = [answer(**options) for options in variants]
    assert [answer(**options) for options in reversed(variants)] == first[::-1]
    fresh = []
    for options in variants:
        model.reset_cache()
        fresh.append(answer(**options))
    assert fresh == first and len({str(item) for item in first}) == 3


def test_equal_bytes_of_another_shape_are_another_picture(model):
    flat, tall = np.zeros((100, 200, 3), np.uint8), np.zeros((200, 100, 3), np.uint8)
    assert model(flat, classes=["a"])[0].image_size == (100, 200)
    assert model(tall, classes=["a"])[0].image_size == (200, 100)


def test_a_changed_array_is_another_picture(model):
    image = np.random.default_rng(7).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    before = model(image, classes=["a"], confidence=0.0)[0]
    image[10:80, 10:80] ^= 128
    after = model(image, classes=["a"], confidence=0.0)[0]
    assert not np.array_equal(before.confidence, after.confidence)


def test_a_rewritten_file_is_another_picture(model, pictures):
    before = model(pictures[0], classes=["a"], confidence=0.0)[0]
    pictures[0].write_bytes(pictures[1].read_bytes())
    after = model(pictures[0], classes=["a"], confidence=0.0)[0]
    assert not np.array_equal(before.confidence, after.confidence)


def test_a_thousand_pictures_stay_within_the_bound(tiny):
    bound = 400_000
    with registry.load(tiny, backend="torch", device="cpu", image_cache_bytes=bound, batch=50) as model:
        cells, random = 36, np.random.default_rng(0)
        raw = {
            "objectness_logits": random.standard_normal((50, cells)).astype(np.float32),
            "boxes": random.uniform(0.1, 0.3, (50, cells, 4)).astype(np.float32),
            "class_embeds": random.standard_normal((50, cells, 32)).astype(np.float32),
            "logit_shift": np.zeros((50, cells), np.float32),
            "logit_scale": np.ones((50, cells), np.float32),
        }
        model._images._forward = lambda batch: raw  # the network is not what is tested
        seen = []

        def images():
            for number in range(1000):
                image = np.full((48, 48, 3), number % 250, np.uint8)
                image[0, 0] = number // 250
                seen.append(number)
                yield image

        stream = model._images.stream(images(), 20, None)
        next(stream)
        assert len(seen) == 50  # lazily: a batch at a time
        for item in stream:
            parts = (item.proposals.boxes, item.proposals.embeddings, item.proposals.scale)
            assert all(part.base is None or part.base.nbytes < 10_000 for part in parts)  # no batch is kept alive
        cache = model._images.cache
        assert 20 < len(cache) < 1000
        assert cache.nbytes <= bound


def test_caches_of_ones_own(tiny, pictures):
    caches = {"embeddings": MemoryCache(1), "text": "memory"}
    with registry.load(tiny, backend="torch", device="cpu", caches=caches) as model:
        model(pictures[:3], classes=["a"])
        assert len(caches["embeddings"]) == 1


def test_environment(tiny, other, pictures, monkeypatch):
    monkeypatch.setenv("OWLV2_IMAGE_CACHE_SIZE", "1")
    monkeypatch.setenv("OWLV2_CPU_IMAGE_CACHE_SIZE", "1")
    monkeypatch.setenv("OWLV2_MODEL_CACHE_SIZE", "0")
    monkeypatch.setenv("MAX_DETECTIONS", "3")
    with registry.load(tiny, backend="torch", device="cpu") as model:
        results = model(pictures, classes=["a"], confidence=0.0)
        assert len(model._images.cache) == 2
        assert [len(result) for result in results] == [3] * 5
        monkeypatch.setenv("MAX_DETECTIONS", "many")
        with pytest.raises(OptionError, match="MAX_DETECTIONS"):
            model(pictures[0], classes=["a"])
    monkeypatch.setenv("OWLV2_COMPILE_MODEL", "perhaps")
    with pytest.raises(OptionError, match="OWLV2_COMPILE_MODEL"):
        registry.load(other, backend="torch", device="cpu")


def test_preload(tiny, monkeypatch):
    from lensmount_owlv2.preload import preload

    assert preload(registry.load) == []
    monkeypatch.setenv("PRELOAD_HF_IDS", f"{tiny}, ")
    (held,) = preload(registry.load, device="cpu")
    with registry.load(tiny, device="cpu") as model:
        assert model._session._opened is held._session._opened
    held.close()


# --- one network for all ----------------------------------------------------------------------------------------------


def test_models_share_one_network(other, pictures):
    first = registry.load(other, backend="torch", device="cpu")
    second = registry.load(other, backend="torch", device="cpu", image_cache_entries=0)
    half = registry.load(other, backend="torch", device="cpu", precision="bf16")
    opened = first._session._opened
    module = opened.sessions["image"].module
    assert second._session._opened is opened and half._session._opened is not opened
    assert module is not None
    first.close()
    with pytest.raises(ClosedError):
        first(pictures[0], classes=["a"])
    assert len(second(pictures[0], classes=["a"], confidence=0.0)[0])
    session = opened.sessions["image"]
    del opened
    second.close()
    gc.collect()
    assert session.module is None  # closed with the last model
    half.close()
    third = registry.load(other, backend="torch", device="cpu")
    assert third._session._opened.sessions["image"] is not session
    third.close()


def test_dropping_the_last_model_frees_the_network(other):
    model = registry.load(other, backend="torch", device="cpu")
    session = model._session._opened.sessions["image"]
    del model
    gc.collect()
    assert session.module is None


def test_threads_open_one_network(other):
    models = []
    threads = [
        threading.Thread(target=lambda: models.append(registry.load(other, backend="torch", device="cpu")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(model._session._opened) for model in models}) == 1
    for model in models:
        model.close()


def test_threads_get_the_same_answers(model, pictures, data):
    expected = [result.to_dict() for result in model.infer(pictures, data, confidence=0.5)]
    model.reset_cache()
    wrong = []

    def work():
        for _ in range(5):
            if [result.to_dict() for result in model.infer(pictures, data, confidence=0.5)] != expected:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- unmatched boxes --------------------------------------------------------------------------------------------------


def test_unmatched_boxes_are_reported(model, pictures, data):
    far = {"x": 70, "y": 45, "w": 1, "h": 1, "cls": "a"}
    spoilt = [{**data[0], "boxes": [far, *data[0]["boxes"]]}, *data[1:]]
    for _ in range(2):  # from the cache as well
        with pytest.warns(UnmatchedBoxWarning, match="picture 0: 'a' at 70,45"):
            result = model.infer(pictures[3], spoilt, confidence=0.5)[0]
    assert result.to_dict() == model.infer(pictures[3], data, confidence=0.5)[0].to_dict()
    with pytest.warns(UnmatchedBoxWarning):
        assert [item.box.x for item in model.fit(spoilt).unmatched] == [70]
    with pytest.raises(InputError, match="match nothing"):
        model.infer(pictures[3], spoilt, on_unmatched="error")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert model.fit(spoilt, on_unmatched="nearest").unmatched[0].replaced


def test_a_negative_suppresses(model, pictures, data):
    """The same proposal as positive and as negative: nothing like it is found any more."""
    box = data[0]["boxes"][0]
    alone = [{"image": pictures[0], "boxes": [box]}]
    before = model.infer(pictures[0], alone, confidence=0.999)[0]
    assert len(before) >= 1
    other = {**data[0]["boxes"][1], "cls": "a"}
    both = [{"image": pictures[0], "boxes": [other, {**box, "negative": True}]}]
    after = model.infer(pictures[0], both, confidence=0.999)[0]
    top = before.xyxy[0]
    assert not any(np.allclose(row, top) for row in after.xyxy)


# --- saving -----------------------------------------------------------------------------------------------------------


def test_save_and_load(model, pictures, data, tmp_path):
    detector = model.fit(data, confidence={"a": 0.7, "b": 0.6}, iou_threshold=0.4, max_detections=30)
    folder = detector.save(tmp_path / "saved")
    assert sorted(path.name for path in folder.iterdir()) == ["detector.json", "detector.safetensors", "lensmount.json"]
    with registry.load(folder) as loaded:
        assert loaded.parameters == detector.parameters and loaded.class_names == ("a", "b")
        assert loaded.card.base == str(model.package.artifacts[0].uri.removeprefix("file://").rpartition("/")[0])
        for one, other in zip(detector(pictures), loaded(pictures), strict=True):
            same_to_rounding(one, other)
        kept = loaded.image_embeddings
        assert len(kept) == 3
        for key, seen in detector.image_embeddings.items():
            assert np.array_equal(seen.embeddings, kept[key].embeddings)
        small = loaded.save_small_model_without_image_embeds()
        assert small.name == "saved-small"
        assert (small / "detector.safetensors").stat().st_size < (folder / "detector.safetensors").stat().st_size / 2
        with registry.load(str(small)) as again:
            same_to_rounding(again(pictures[3])[0], detector(pictures[3])[0])
            assert again.image_embeddings == {}
    detector.save(folder, include_image_embeddings=False)  # replaces
    described = json.loads((folder / "detector.json").read_text())
    assert described["format_version"] == 1 and described["class_names"] == ["a", "b"]
    assert described["network"]["digest"] == model.network


def test_serialise_only_embeds_what_is_new(counted, pictures, data, tmp_path):
    model, runs = counted
    first = model.serialize_training_data(data, tmp_path / "one")
    assert first == tmp_path / "one" / "detector.safetensors" and runs == [3]
    model.reset_cache()
    moved = [{**item, "image": tmp_path / f"moved{i}.png"} for i, item in enumerate(data)]
    for old, new in zip(data, moved, strict=True):
        shutil.copyfile(old["image"], new["image"])
    more = [*moved, {"image": pictures[3], "boxes": []}]
    model.serialize_training_data(more, tmp_path / "two", previous_embeddings_file=first)
    assert runs == [3, 1]
    with registry.load(tmp_path / "two", backend="torch") as loaded:
        assert len(loaded.image_embeddings) == 4
        expected = model.infer(pictures[4], data, confidence=0.5)[0]
        assert loaded(pictures[4], confidence=0.5)[0].to_dict() == expected.to_dict()


def test_another_networks_embeddings_are_refused(model, other, data, tmp_path):
    folder = model.fit(data).save(tmp_path / "saved")
    with (
        registry.load(other, backend="torch", device="cpu") as stranger,
        pytest.raises(ModelFileError, match="another network"),
    ):
        stranger.serialize_training_data(data, tmp_path / "new", previous_embeddings_file=folder)
    manifest = json.loads((folder / "lensmount.json").read_text())
    manifest["card"]["base"] = str(other)
    (folder / "lensmount.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match="another network"):
        registry.load(folder)
    manifest["card"]["base"] = str(tmp_path / "gone")
    (folder / "lensmount.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelNotFoundError, match="cannot be found"):
        registry.load(folder)
    manifest["card"]["base"] = "https://example.com/weights.safetensors"
    (folder / "lensmount.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match="built on an address"):
        registry.load(folder)


@pytest.mark.parametrize("damage", ["version", "names", "cut", "confidence"])
def test_damaged_detectors(model, data, tmp_path, damage):
    folder = model.fit(data).save(tmp_path / "saved")
    document = json.loads((folder / "detector.json").read_text())
    if damage == "version":
        document["format_version"] = 2
    elif damage == "names":
        document["class_names"].append("c")
    elif damage == "confidence":
        document["parameters"]["confidence"] = 7
    (folder / "detector.json").write_text(json.dumps(document))
    if damage == "cut":
        content = (folder / "detector.safetensors").read_bytes()
        (folder / "detector.safetensors").write_bytes(content[: len(content) // 2])
    manifest = json.loads((folder / "lensmount.json").read_text())
    import hashlib

    for item in manifest["card"]["packages"][0]["artifacts"]:
        content = (folder / item["name"]).read_bytes()
        item.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "lensmount.json").write_text(json.dumps(manifest))
    with pytest.raises((ModelFileError, OptionError)):
        registry.load(folder)


def test_nothing_is_overwritten_by_mistake(model, data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else"):
        model.fit(data).save(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_refusals(model, tiny, pictures, data):
    with pytest.raises(OptionError, match="no words"):
        model(pictures[0])
    with pytest.raises(OptionError, match="named twice"):
        model(pictures[0], classes=["a", "a"])
    with pytest.raises(InputError, match="too long"):
        model(pictures[0], classes=["many " * 20])
    with pytest.raises(ImageError, match=r"missing\.png"):
        model.infer(pictures[0], [{**data[0], "image": "missing.png"}])
    with pytest.raises(InputError, match="outside its picture"):
        model.fit([{"image": pictures[0], "boxes": [{"x": 900, "y": 20, "w": 5, "h": 5, "cls": "a"}]}])
    with pytest.raises(OptionError, match="on_unmatched"):
        model.infer(pictures[0], data, on_unmatched="ignore")
    with pytest.raises(OptionError, match="confidence"):
        model.infer(pictures[0], data, confidence=1.5)
    with pytest.raises(TypeError):
        model.infer(pictures[0], data, confidense=0.5)
    with pytest.raises(UnknownOptionError):
        registry.load(tiny, image_cache_entrys=3)
    with pytest.raises(OptionError, match="image_cache_bytes"):
        registry.load(tiny, image_cache_bytes=-1)


def test_one_shot_with_a_box(model, pictures, data):
    box = {key: value for key, value in data[0]["boxes"][0].items() if key != "cls"}
    (result,) = model.image_guided_detection(pictures[0], pictures[0], box=box, confidence=0.0)
    assert result.class_names == ("query",) and len(result)
    (named,) = model.image_guided_detection(pictures[0], pictures[0], box=TrainBox(**box, cls="mug"), confidence=0.0)
    assert named.class_names == ("mug",) and np.array_equal(named.xyxy, result.xyxy)
    with pytest.raises(InputError, match="match nothing"):
        model.image_guided_detection(pictures[0], pictures[0], box={"x": 70, "y": 45, "w": 1, "h": 1})


@pytest.mark.parametrize("way", WAYS)
def test_wrappers_of_training_change_nothing(tmp_path, tiny, way):
    from lensmount_owlv2.checkpoint import identify
    from lensmount_reading import as_torch_state_dict, inspect_file, read_checkpoint, to_safetensors

    folder = tmp_path / "wrapped-owl"
    folder.mkdir()
    shutil.copyfile(tiny / "config.json", folder / "config.json")
    tensors = read_checkpoint(tiny / "model.safetensors").tensors
    to_safetensors(wrapped(tensors, way), folder / "model.safetensors")
    assert set(inspect_file(folder / "model.safetensors").tensors) == set(tensors)
    with registry.load(folder, backend="torch", device="cpu") as loaded:
        assert loaded.card.architecture == "owlv2"
        assert loaded._images is not None
    state = as_torch_state_dict(read_checkpoint(folder))
    assert identify(state) == identify(as_torch_state_dict(tensors))
