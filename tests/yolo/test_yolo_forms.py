"""Forms of graphs beyond the plain ones: oriented rows, many channels, no task, and other YOLOs, which are refused."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import ImageError, ModelFileError, OptionError, UnsupportedModelError
from lensmount_yolo.pose import PERSON, SKELETON

pytest.importorskip("onnxruntime")

PICTURE = np.zeros((64, 64, 3), np.uint8)
NAMES = "{0: 'cat', 1: 'dog'}"


# --- oriented rows ----------------------------------------------------------------------------------------------------


def oriented_rows(*rows):
    table = np.zeros((300, 7), np.float32)
    for i, row in enumerate(rows):
        table[i] = row
    return table


def test_rows_of_oriented_boxes_are_final(graph):
    rows = oriented_rows(
        (32, 16, 20, 8, 0.9, 1, 0.5),
        (32, 16, 20, 8, 0.8, 1, 0.5),  # the same box: what is final is not suppressed again
        (30, 40, 4, 4, 0.1, 0, 0.0),  # below the threshold
    )
    metadata = {"names": NAMES, "task": "obb", "end2end": "True"}
    tall = np.zeros((128, 64, 3), np.uint8)  # shrunk by 2, padded by 16 at left and right
    with registry.load(graph({"output0": rows}, metadata=metadata)) as model:
        (result,) = model(tall)
        assert result.class_name.tolist() == ["dog", "dog"]
        np.testing.assert_allclose(result.xywhr[0], (32, 32, 40, 16, 0.5), atol=1e-4)
        np.testing.assert_allclose(result.confidence, (0.9, 0.8), atol=1e-6)
        assert len(model(tall, max_detections=1)[0]) == 1
        assert len(model(tall, classes="cat", confidence=0.05)[0]) == 1
    with registry.load(graph({"output0": rows}, metadata={**metadata, "end2end": "False"})) as model:
        assert len(model(tall)[0]) == 2


def test_rows_and_raw_predictions_give_the_same_oriented_boxes(graph, raw):
    from itertools import product

    spread = enumerate(product((0.9, 0.6), (0.3, 1.2)))
    boxes = [(20 + 3 * i, 30, 10, 4, score - i / 100, i % 2, angle) for i, (score, angle) in spread]
    kept = sorted(boxes, key=lambda row: -row[4])
    plain = raw([(x, y, w, h, c, s, a) for x, y, w, h, s, c, a in boxes], classes=2, extra=1)
    results = []
    for output in (oriented_rows(*kept), plain):
        with registry.load(graph({"output0": output}, metadata={"names": NAMES, "task": "obb"})) as model:
            results.append(model(PICTURE, iou_threshold=1.0)[0])
    for field in ("xywhr", "confidence", "class_id"):
        np.testing.assert_allclose(getattr(results[0], field), getattr(results[1], field), atol=1e-5)


# --- channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 4, 5, 7, 16])
def test_networks_of_many_channels_take_arrays_of_as_many(tmp_path, channels):
    """The graph's score is a weighted mean of the channels: each one comes in at its place, scaled like any other."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weights = np.arange(1, channels + 1, dtype=np.float32)
    weights /= weights.sum()
    blank = np.zeros((1, 5, 84), np.float32)
    blank[0, :4, 0] = 16, 16, 8, 8
    place = np.zeros((1, 5, 84), np.float32)
    place[0, 4, 0] = 1
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=1),
        helper.make_node("Conv", ["mean", "weights"], ["score4"]),
        helper.make_node("Squeeze", ["score4", "axis"], ["score"]),
        helper.make_node("Mul", ["score", "place"], ["scores"]),
        helper.make_node("Add", ["scores", "blank"], ["output0"]),
    ]
    tensors = {
        "weights": weights.reshape(1, -1, 1, 1), "axis": np.array([3]), "place": place, "blank": blank,
    }  # fmt: skip
    made = helper.make_graph(
        nodes,
        "many",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", channels, 32, 32])],
        [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 5, 84])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in {"names": "['x']", "task": "detect", "channels": str(channels)}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(tmp_path / "m.onnx"))
    values = np.linspace(40, 250, channels).round().astype(np.uint8)
    picture = np.broadcast_to(values, (48, 48, channels))  # square, but of another size: it is resized
    expected = float((values / 255 * weights).sum())
    with registry.load(tmp_path / "m.onnx") as loaded:
        assert loaded.picture_channels == channels
        loaded.warmup()
        torch = pytest.importorskip("torch")
        tensor = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        for given in (picture, tensor, tensor.float() / 255):
            assert loaded(given, confidence=0)[0].confidence[0] == pytest.approx(expected, abs=1e-4)
        assert len(loaded(np.stack([picture] * 2), confidence=0)) == 2
        streamed = list(loaded.stream([picture, picture], confidence=0))
        assert [float(result.confidence[0]) for _, result in streamed] == pytest.approx([expected] * 2, abs=1e-4)
        for wrong in (PICTURE, PICTURE[..., 0], picture.transpose(2, 0, 1), np.zeros((8, 8, channels + 1), np.uint8)):
            with pytest.raises(ImageError, match="channels of this network"):
                loaded(wrong)
        with pytest.raises(ImageError, match="decoded pictures do not have"):
            loaded(tmp_path / "photo.jpg")
        with pytest.raises(OptionError, match="colours"):
            loaded(picture, color="rgb")


def test_weights_of_many_channels(tmp_path):
    import torch

    from tiny_networks import lively, pyramid

    _, network = lively(pyramid(channels=6))
    torch.save(network.state_dict(), tmp_path / "m.pt")
    picture = np.random.default_rng(3).integers(0, 255, (96, 64, 6), np.uint8)
    with registry.load(tmp_path / "m.pt", backend="torch", input_size=64) as model:
        batch, _ = model.preprocess(picture)
        assert batch.shape == (1, 6, 64, 64)
        assert len(model(picture, confidence=0.01)[0]) > 0
        with pytest.raises(ImageError, match="channels of this network"):
            model(PICTURE)


def test_channels_of_a_dynamic_graph_come_from_its_metadata(graph, raw):
    output = raw([(32, 32, 8, 16, 0, 0.9)], classes=2)
    metadata = {"names": NAMES, "task": "detect", "channels": "4"}
    with registry.load(graph({"output0": output}, metadata=metadata, channels="c")) as model:
        assert len(model(np.zeros((64, 64, 4), np.uint8))[0]) == 1
    with registry.load(graph({"output0": output}, metadata={"names": NAMES, "task": "detect"}, channels="c")) as model:
        assert len(model(PICTURE)[0]) == 1


def test_many_channels_without_a_word_of_a_yolo_are_none(graph, raw):
    output = raw([(32, 32, 8, 16, 0, 0.9)], classes=2)
    with pytest.raises(UnsupportedModelError):
        registry.load(graph({"output0": output}, metadata={}, channels=4))


# --- no task in the metadata ------------------------------------------------------------------------------------------


FORMS = {
    "object-detection": ([(6, 84), (300, 6)], {}),
    "oriented-object-detection": ([(7, 84), (300, 7)], {}),
    "keypoint-detection": ([(6 + 15, 84), (300, 6 + 15)], {"kpt_shape": "[5, 3]"}),
    "classification": ([(2,)], {}),
}


@pytest.mark.parametrize(
    ("task", "shape", "more"), [(task, shape, more) for task, (shapes, more) in FORMS.items() for shape in shapes]
)
def test_shapes_tell_the_task(graph, task, shape, more):
    with registry.load(graph({"output0": np.zeros(shape, np.float32)}, metadata={"names": NAMES, **more})) as model:
        assert model.card.task == task
        model(PICTURE)


def test_shapes_tell_a_segmenter(graph):
    outputs = {"output0": np.zeros((38, 84), np.float32), "output1": np.zeros((32, 16, 16), np.float32)}
    with registry.load(graph(outputs, metadata={"names": NAMES})) as model:
        assert model.card.task == "instance-segmentation"


@pytest.mark.parametrize("shape", [(8, 84), (3,), (300, 9)])
def test_shapes_that_fit_no_task_are_not_guessed(graph, shape):
    with pytest.raises(ModelFileError):
        registry.load(graph({"output0": np.zeros(shape, np.float32)}, metadata={"names": NAMES}))


# --- other YOLOs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({"output0": (252, 7)}, "original YOLOv5"),
        ({"output": (252, 85)}, "original YOLOv5"),
        ({"a": (3, 8, 8, 7), "b": (3, 4, 4, 7), "c": (3, 2, 2, 7)}, "original YOLOv5"),
        ({"output": (252, 7), "a": (3, 8, 8, 7)}, "original YOLOv5"),
        ({"output": (7,)}, "YOLOv7's graph with suppression"),
        ({"output": (84, 20)}, "a row for each cell"),
        ({"boxes": (84, 4), "scores_": (84, 80)}, "YOLO-NAS or PP-YOLOE"),
    ],
)
@pytest.mark.parametrize("metadata", [{}, {"names": NAMES, "stride": "32"}])
def test_other_yolos_are_refused_by_name(graph, shapes, what, metadata):
    outputs = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(UnsupportedModelError, match=what) as caught:
        registry.load(graph(outputs, metadata=metadata))
    said = str(caught.value)
    assert "pip install" not in said and "found: " in said and "fix: " in said


@pytest.mark.parametrize("task", ["depth", "semantic", "pose3d"])
def test_tasks_that_no_yolo_here_has(graph, raw, task):
    path = graph({"output0": raw([], classes=2)}, metadata={"names": NAMES, "task": task})
    with pytest.raises(UnsupportedModelError, match=f"metadata task {task}"):
        registry.load(path)


def test_a_yolo_of_pixels_last_is_refused_by_name(graph, raw):
    path = graph({"output0": raw([], classes=2)}, metadata={"names": NAMES}, channels=64, size=(64, 3))
    with pytest.raises(UnsupportedModelError, match="whose input is no picture"):
        registry.load(path)


# --- keypoints --------------------------------------------------------------------------------------------------------


def pose(graph, count, names=NAMES, **metadata):
    rows = np.zeros((300, 6 + 3 * count), np.float32)
    rows[0, :6] = 8, 8, 40, 40, 0.9, 0
    given = {"names": names, "task": "pose", "kpt_shape": f"[{count}, 3]", **metadata}
    with registry.load(graph({"output0": rows}, metadata=given)) as model:
        (result,) = model(PICTURE)
        assert result.keypoints.shape == (1, count, 3)
        result.draw(PICTURE.copy())
        return result.keypoint_names, result.skeleton, model.card.notes


@pytest.mark.parametrize(
    "text", ["['nose', 'tail']", "{0: 'nose', 1: 'tail'}", "{0: ['nose', 'tail']}", "{'0': ['nose', 'tail']}",
             "{0: ['nose', 'tail'], 1: ['nose', 'tail']}", '{"0": ["nose", "tail"]}', "[['nose', 'tail']]"]
)  # fmt: skip
def test_names_of_keypoints_are_the_files(graph, text):
    assert pose(graph, 2, kpt_names=text)[0] == ("nose", "tail")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[0, 1], [1, 2]]", ((0, 1), (1, 2))),
        ("((0, 2),)", ((0, 2),)),
        ("[[1, 2], [2, 3]]", ((0, 1), (1, 2))),  # from 1, as COCO counts: there is no point 3
        ("[[1, 2]]", ((1, 2),)),
        ("[]", ()),
    ],
)
def test_lines_between_keypoints_are_the_files(graph, text, expected):
    assert pose(graph, 3, skeleton=text)[1] == expected


@pytest.mark.parametrize(
    "metadata",
    [{"kpt_names": text} for text in ("['a']", "['a', 'b', 'c']", "3", "{0: 3}", "{'x': ['a', 'b']}", "[['a'], 'b']")]
    + [{"skeleton": text} for text in ("[[0, 2]]", "[[0, -1]]", "[0, 1]", "[[0, 1, 1]]", "{0: 1}", "[[0, 2], [0, 1]]")],
)
def test_senseless_keypoints_are_refused(graph, metadata):
    with pytest.raises(ModelFileError, match=r"kpt_names|skeleton"):
        pose(graph, 2, **metadata)


def test_cocos_people_are_for_people_alone(graph):
    assert pose(graph, 17, names="{0: 'person'}")[:2] == (PERSON, SKELETON)
    assert pose(graph, 17, names="{0: 'tiger'}")[:2] == ((), ())
    assert pose(graph, 17, names="{0: 'person', 1: 'tiger'}")[:2] == ((), ())
    assert pose(graph, 17, kpt_names=str(list(PERSON)))[:2] == (PERSON, SKELETON)
    assert pose(graph, 17, names="{0: 'person'}", skeleton="[[0, 1]]")[:2] == (PERSON, ((0, 1),))
    assert pose(graph, 5, names="{0: 'person'}")[:2] == ((), ())


def test_names_that_differ_by_class_are_told(graph):
    names, _, notes = pose(graph, 2, kpt_names="{0: ['nose', 'tail'], 1: ['beak', 'wing']}")
    assert names == () and any("2 lists" in note for note in notes)


def test_keypoints_of_official_files(tmp_path):
    import torch

    from tiny_networks import lively, official_tree, pyramid, stand_ins

    node, network = lively(pyramid(classes=1, extra=15))
    with stand_ins() as make:
        tree = official_tree(make, node, network, names={0: "dog"})
        tree.kpt_names = {0: ["nose", "a", "b", "c", "tail"]}
        tree.skeleton = [[0, 1], [1, 4]]
        torch.save({"model": tree}, tmp_path / "pose.pt")
    with registry.load(tmp_path / "pose.pt", backend="torch") as model:
        (result,) = model(PICTURE, confidence=0)
    assert result.keypoint_names == ("nose", "a", "b", "c", "tail") and result.skeleton == ((0, 1), (1, 4))


# --- official files whose model is held by something else -------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrappers", "inner"),
    [
        ([("ultralytics.utils.torch_utils", "ModelEMA")], "ema"),
        ([("ultralytics.models.yolo.model", "YOLO")], "model"),
        ([("ultralytics.nn.autobackend", "AutoBackend")], "model"),
        ([("ultralytics.nn.autobackend", "AutoBackend"), ("ultralytics.models.yolo.model", "YOLO")], "model"),
    ],
)
@pytest.mark.parametrize("key", ["model", "ema", None])
def test_models_inside_their_tools_are_found(tmp_path, wrappers, inner, key):
    import torch

    from tiny_networks import lively, official_tree, pyramid, stand_ins

    node, network = lively(pyramid(classes=2))
    with stand_ins() as make:
        held = official_tree(make, node, network, names=["a", "b"])
        for module, name in wrappers:
            holder = make(module, name)()
            setattr(holder, inner, held)
            held = holder
        torch.save(held if key is None else {key: held}, tmp_path / "m.pt")
    with registry.load(tmp_path / "m.pt", backend="torch", input_size=64) as model:
        assert model.card.classes == ("a", "b") and len(model(PICTURE, confidence=0.01)[0]) > 0
