"""int8 exports: quantised with the pictures of a folder, compared with float, loadable, refused with reasons."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import (
    BackendError,
    ImageError,
    InputError,
    MissingDependencyError,
    OptionError,
    UnsupportedModelError,
)
from lensmount_bench import int8_check as quantizing_check
from lensmount_bench.int8 import quantize
from lensmount_bench.int8_check import read_agreement
from lensmount_reading import read_onnx
from lensmount_shapes.scenes import make_scene
from lensmount_yolo.float_nodes import float_nodes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twenty scenes that training never saw."""
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(20):
        assert cv2.imwrite(str(folder / f"{index:02}.png"), make_scene(7, index, 256, 256).image)
    return folder


@pytest.fixture(scope="module")
def exported(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("int8") / "shapes.onnx"
    return registry.export("shapes-nano", precision="int8", calibration=pictures, calibration_count=12, output=path)


@pytest.fixture
def graph():
    return str(resources.files("lensmount_shapes") / "data" / "shapes-nano.onnx")


def test_the_file_says_what_it_is(exported, graph):
    facts, original = read_onnx(exported), read_onnx(graph)
    assert registry.describe(exported).packages[0].precision == "int8"
    assert exported.stat().st_size < 0.8 * Path(graph).stat().st_size
    own = ("lensmount.precision", "lensmount.int8")
    assert {k: v for k, v in facts.metadata.items() if k not in own} == {
        k: v for k, v in original.metadata.items() if k not in own
    }
    assert facts.metadata["lensmount.precision"] == "int8"
    figures = read_agreement(exported)
    assert (figures.calibration, figures.pictures, figures.held_out) == (12, 8, True)
    assert figures.agreement >= 0.9 and figures.box_iou > 0.9 and figures.mask_iou > 0.85


def test_weights_are_int8_per_channel_and_the_tail_is_float(exported):
    model = onnx.load(exported)
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {item.name: item for item in model.graph.initializer}
    kernels = [makers[node.input[1]] for node in model.graph.node if node.op_type == "Conv" and node.input[1] in makers]
    assert len(kernels) == 75 and all(kernel.op_type == "DequantizeLinear" for kernel in kernels)
    assert all(values[kernel.input[0]].data_type == onnx.TensorProto.INT8 for kernel in kernels)
    assert all(values[kernel.input[1]].dims == [values[kernel.input[0]].dims[0]] for kernel in kernels)
    # Seven bits: 2 * 255 * 64 fits 16 bits, in which x86 processors without VNNI add two products.
    assert max(abs(onnx.numpy_helper.to_array(values[kernel.input[0]]).astype(int)).max() for kernel in kernels) == 64
    last = next(node for node in model.graph.node if "output0" in node.output)
    assert last.op_type == "Concat"
    assert {makers[name].op_type for name in last.input} == {"Mul", "Sigmoid", "Concat"}
    plain = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in values]
    assert len(plain) == 1 and list(values[plain[0].input[1]].dims) == [1, 16, 1, 1]  # the mean of the bins


def test_operators_and_the_kind_of_activations_can_be_chosen(graph):
    batches = np.random.default_rng(0).random((2, 1, 3, 256, 256), np.float32)

    def made(**choices):
        model = onnx.load_from_string(quantize(Path(graph), batches, float_nodes, **choices))
        makers = {name: node.op_type for node in model.graph.node for name in node.output}
        values = {item.name: item.data_type for item in model.graph.initializer}
        zeros = {values[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"}
        weights = [item for item in model.graph.initializer if item.data_type == onnx.TensorProto.INT8 and item.dims]
        largest = max(abs(onnx.numpy_helper.to_array(item).astype(int)).max() for item in weights)
        return zeros, largest, {makers[node.input[0]] for node in model.graph.node if node.op_type == "Resize"}

    assert made() == ({onnx.TensorProto.UINT8}, 64, {"DequantizeLinear"})
    assert made(full_range=True) == ({onnx.TensorProto.UINT8}, 127, {"DequantizeLinear"})
    assert made(operators=("Conv",), activations="int8") == ({onnx.TensorProto.INT8}, 127, {"Mul"})


def test_it_finds_what_float_finds_and_is_lossy_to_selection(exported, pictures):
    with registry.load(exported, backend="onnx") as small, registry.load("shapes-nano", backend="onnx") as exact:
        assert small.precision == "int8" and small.package.precision == "int8"
        assert small.card.classes == exact.card.classes and small.preprocess_spec == exact.preprocess_spec
        scene = make_scene(9, 1, 256, 256)
        (a,), (b,) = exact(scene.image, confidence=0.5), small(scene.image, confidence=0.35)
        assert len(a) > 1
        for box, kind in zip(a.xyxy, a.class_id, strict=True):
            assert np.abs(b.xyxy[b.class_id == kind] - box).max(1).min() < 6
        assert b.image_size == (256, 256) and b.masks.shape == (len(b), 256, 256)


def test_other_outputs_than_the_float_graph_s(exported, graph):
    """Quantised it is: the numbers are near, not equal."""
    import onnxruntime

    picture = make_scene(9, 2, 256, 256).image[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    found = [
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"images": picture})
        for path in (graph, exported)
    ]
    difference = np.abs(found[0][0] - found[1][0])
    assert 0 < difference[:, 4:10].max() < 0.5 and np.median(difference[:, :4]) < 4


def test_command_line(lensmount, graph, pictures, tmp_path):
    output = tmp_path / "out.onnx"
    done = lensmount(
        "export", graph, "--precision", "int8", "--calibration", pictures, "--calibration-count", "4", "-o", output
    )
    assert done.status == 0, done.err
    assert "agreement" in done.err and "on 16 other pictures" in done.err
    assert done.out.split() == [str(output)] and read_agreement(output).calibration == 4


def test_a_graph_that_finds_other_objects_is_not_kept(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing_check, "LOWEST_BOX_IOU", 0.9999)
    with pytest.raises(BackendError, match="not kept"):
        registry.export(
            "shapes-nano", precision="int8", calibration=pictures, calibration_count=2, output=tmp_path / "bad.onnx"
        )
    assert list(tmp_path.iterdir()) == []


def test_calibration_on_what_the_model_never_sees_is_refused(tmp_path):
    folder = tmp_path / "black"
    folder.mkdir()
    assert cv2.imwrite(str(folder / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(InputError, match="cannot be judged"):
        registry.export("shapes-nano", precision="int8", calibration=folder, output=tmp_path / "bad.onnx")
    assert not (tmp_path / "bad.onnx").exists()


def test_what_is_missing_is_named(pictures, tmp_path, monkeypatch, graph):
    def export(name="shapes-nano", precision="int8", **options):
        options.setdefault("output", tmp_path / "bad.onnx")
        return registry.export(name, precision=precision, **options)

    with pytest.raises(OptionError, match="--calibration FOLDER"):
        export()
    with pytest.raises(InputError, match="does not exist"):
        export(calibration=tmp_path / "nowhere")
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(InputError, match="is no folder"):
        export(calibration=tmp_path / "file.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="has no images"):
        export(calibration=tmp_path / "empty")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_bytes(b"x")
    with pytest.raises(ImageError, match="no pictures to calibrate with"):
        export(calibration=tmp_path / "videos")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        export(calibration=tmp_path / "broken")
    with pytest.raises(OptionError, match="calibration_count"):
        export(calibration=pictures, calibration_count=0)
    with pytest.raises(OptionError, match="int8 alone"):
        export(calibration=pictures, precision="fp16")
    with pytest.raises(UnsupportedModelError, match="nothing that int8 could be made from"):
        export(graph, calibration=pictures, dynamic=True)
    monkeypatch.setattr(
        "lensmount_vision.models.exporting.find_spec", lambda name: None if name == "onnx" else object()
    )
    with pytest.raises(MissingDependencyError, match=r"lensmount\[int8\]"):
        export(calibration=pictures)
    assert not (tmp_path / "bad.onnx").exists()


def test_from_weights_with_a_dynamic_batch(pictures, tmp_path):
    pytest.importorskip("torch")
    path = registry.export(
        "shapes-nano",
        precision="int8",
        calibration=pictures,
        calibration_count=4,
        dynamic=True,
        output=tmp_path / "dynamic.onnx",
    )
    assert isinstance(read_onnx(path).inputs[0].shape[0], str)
    with registry.load(path, backend="onnx") as model:
        scenes = [make_scene(9, index, 256, 256).image for index in (1, 2)]
        assert model.precision == "int8"
        assert [len(result) for result in model(scenes)] == [len(model(scene)[0]) for scene in scenes]


def test_an_int8_graph_is_not_quantised_again(exported, pictures, tmp_path):
    with pytest.raises(UnsupportedModelError, match="nothing that int8 could be made from"):
        registry.export(exported, precision="int8", calibration=pictures, output=tmp_path / "bad.onnx")


def test_architectures_without_float_nodes_refuse(pictures):
    with pytest.raises(OptionError, match="cannot be exported in int8"):
        registry.export("rfdetr-nano", precision="int8", calibration=pictures)
