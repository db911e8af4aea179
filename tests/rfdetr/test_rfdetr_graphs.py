"""Graphs: rfdetr's own exports, ours, packages of inference-models; recognised, run, refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow

from lensmount import registry
from lensmount.errors import BackendError, ModelFileError, OptionError, UnknownOptionError, UnsupportedModelError
from lensmount_rfdetr.head import read_head

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

BOXES = np.array([[0.5, 0.5, 0.2, 0.4], [0.25, 0.25, 0.1, 0.1], [1.0, 1.0, 0.5, 0.5]], np.float32)


def logits(columns, **found):
    table = np.full((3, columns), -9, np.float32)
    for key, value in found.items():
        query, column = map(int, key.removeprefix("q").split("_"))
        table[query, column] = value
    return table


def test_export_of_rfdetr(tmp_path, rfdetr_kit, picture):
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(91, q0_18=3, q1_90=2))
    model = registry.load(path, device="cpu")
    assert model.card.architecture == "rfdetr" and model.card.task == "object-detection"
    result = model(picture)[0]
    assert [result.class_names[i] for i in result.class_id] == ["dog", "toothbrush"]
    np.testing.assert_allclose(result.xyxy[0], [56, 28.8, 84, 67.2], atol=1e-4)


@pytest.mark.parametrize("named", ["dets", "labels", "both"])
@pytest.mark.parametrize("dimensions", [(0,), (0, 1), (0, 1, 2), (2,), (1, 2)])
def test_graphs_whose_dimensions_have_names(tmp_path, rfdetr_kit, picture, named, dimensions):
    """As `export(dynamic_batch=True)` of rfdetr writes them; only the number of classes has to be there."""
    onnx = pytest.importorskip("onnx")
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(4, q0_1=3))
    expected = registry.load(path, device="cpu")(picture)[0]
    model = onnx.load(path)
    for output in model.graph.output:
        for index in dimensions:
            if named in (output.name, "both") and (output.name, index) != ("labels", 2):
                output.type.tensor_type.shape.dim[index].dim_param = f"{output.name}_dim_{index}"
    onnx.save(model, path)
    loaded = registry.load(path, device="cpu")
    assert loaded.card.architecture == "rfdetr"
    np.testing.assert_array_equal(loaded(picture)[0].xyxy, expected.xyxy)


def test_boxes_are_clipped_to_the_picture(tmp_path, rfdetr_kit, picture):
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(91, q2_1=3))
    assert registry.load(path, device="cpu")(picture)[0].xyxy.tolist() == [[105, 72, 140, 96]]


def test_segmentation_export(tmp_path, rfdetr_kit, picture):
    masks = np.full((3, 16, 16), -5, np.float32)
    masks[0, :8] = 5
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(91, q0_18=3), masks)
    model = registry.load(path, device="cpu")
    result = model(picture)[0]
    dense = result.masks.dense()[0]
    assert dense[30:46, 58:82].all()  # inside the box, in the upper half
    assert not dense[:, :55].any() and not dense[50:].any()
    whole = registry.load(path, device="cpu", whole_masks=True)(picture)[0].masks.dense()[0]
    assert whole[:46].all() and not whole[50:].any()


def test_large_jpegs_decoded_at_reduced_size(tmp_path, rfdetr_kit):
    masks = np.full((3, 16, 16), 5, np.float32)
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(91, q0_18=3, q2_1=2), masks)
    exif = Pillow.Exif()
    exif[0x0112] = 3  # upside down: what libjpeg rounds up lies at the left and the top
    Pillow.new("RGB", (1283, 961)).save(tmp_path / "large.jpg", exif=exif)
    with registry.load(path, device="cpu", reduced_decode=True) as model:
        (image,) = model.load_images(tmp_path / "large.jpg", None)
        step = image.reduced.denominator
        assert step > 1 and image.pixels.shape[:2] == (-(-961 // step), -(-1283 // step))
        (result,) = model(tmp_path / "large.jpg")
    width, height = -(-1283 // step) * step, -(-961 // step) * step
    left, top = 1283 - width, 961 - height
    expected = [
        [0.4 * width + left, 0.3 * height + top, 0.6 * width + left, 0.7 * height + top],
        [0.75 * width + left, 0.75 * height + top, 1283, 961],
    ]
    np.testing.assert_allclose(result.xyxy, expected, atol=1e-3)
    assert result.image_size == (961, 1283) and result.masks.dense().shape == (2, 961, 1283)
    with pytest.raises(OptionError, match="reduced_decode should be a flag"):
        registry.load(path, device="cpu", reduced_decode="yes")


def test_named_after_our_metadata(tmp_path, rfdetr_kit, picture):
    metadata = {"lensmount.architecture": "rfdetr", "lensmount.classes": json.dumps(["nut", "bolt", "gear"])}
    names = ("a", "b")
    path = rfdetr_kit.make_graph(
        tmp_path / "model.onnx", BOXES, logits(5, q0_1=3, q1_3=9, q1_4=9), metadata=metadata, names=names
    )
    model = registry.load(path, device="cpu")
    assert model.card.classes == ("nut", "bolt", "gear", "class_3", "class_4")
    assert model(picture, confidence=0.999)[0].class_id.tolist() == [3, 4]  # columns beyond the names are reported


def test_other_detectors_are_not_taken(tmp_path, rfdetr_kit):
    table = logits(91)
    for names, why in ((("pred_boxes", "logits"), "is a graph of a DETR"), (("boxes", "scores"), "no installed")):
        path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, table, names=names)
        with pytest.raises(UnsupportedModelError, match=why):
            registry.load(path, device="cpu")
    five = np.zeros((3, 5), np.float32)
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", five, table)
    with pytest.raises(ModelFileError):
        registry.load(path, device="cpu")


def test_which_output_is_which():
    head = read_head([("labels", ("batch", 300, 4)), ("dets", ("batch", 300, 4)), ("masks", ("batch", 300, 78, 78))])
    assert (head.boxes, head.logits, head.masks, head.queries, head.columns) == ("dets", "labels", "masks", 300, 4)
    head = read_head([("x", (1, 300, 91)), ("y", (1, 300, 4))])
    assert (head.boxes, head.logits, head.masks) == ("y", "x", None)
    head = read_head([("x", (1, 300, 4)), ("y", (1, 300, 4))])
    assert (head.boxes, head.logits) == ("x", "y")
    for outputs in ([], [("x", (1, 300, 4))], [("x", (1, 84, 8400))], [("x", (1, 300, 91)), ("y", (1, 300, 91))]):
        with pytest.raises(ModelFileError):
            read_head(outputs)


def test_a_segmenter_needs_masks(tmp_path, rfdetr_kit, picture):
    folder = write_package(tmp_path, rfdetr_kit, task="instance-segmentation")
    with pytest.raises(UnsupportedModelError, match="gives no masks"):
        registry.load(folder, device="cpu")


def test_input_size_of_a_graph_is_fixed(tmp_path, rfdetr_kit):
    path = rfdetr_kit.make_graph(tmp_path / "model.onnx", BOXES, logits(91))
    with pytest.raises(OptionError, match="size is fixed"):
        registry.load(path, device="cpu", input_size=96)


def write_package(tmp_path, kit, *, task="object-detection", names=("nut", "bolt", "gear"), backend="onnx", **network):
    folder = tmp_path / "package"
    folder.mkdir()
    config = {
        "model_architecture": "rfdetr",
        "task_type": task,
        "backend_type": backend,
        "recommended_parameters": {"confidence": 0.3},
    }
    (folder / "model_config.json").write_text(json.dumps(config))
    (folder / "class_names.txt").write_text("\n".join(names))
    settings = {
        "network_input": {
            "training_input_size": {"height": 64, "width": 64},
            "dynamic_spatial_size_supported": False,
            "color_mode": "rgb",
            "resize_mode": "stretch",
            "input_channels": 3,
            "scaling_factor": 255,
            "normalization": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]],
            **network,
        },
        "forward_pass": {"max_dynamic_batch_size": 4},
        "post_processing": {"type": "nms", "fused": False},
        "class_names_operations": [{"type": "class_name_removal", "class_name": "gear"}],
    }
    (folder / "inference_config.json").write_text(json.dumps(settings))
    if backend == "onnx":
        kit.make_graph(folder / "weights.onnx", BOXES, logits(4, q0_1=-0.5, q1_2=5))
    return folder


def test_package_of_inference_models(tmp_path, rfdetr_kit, picture):
    model = registry.load(write_package(tmp_path, rfdetr_kit), device="cpu")
    result = model(picture)[0]
    assert result.class_id.tolist() == [1]  # 0.38 >= 0.3; the removed class is left out
    assert model.preprocess_spec.resize == "stretch"


def test_package_geometry_is_obeyed(tmp_path, rfdetr_kit, picture):
    folder = write_package(tmp_path, rfdetr_kit, resize_mode="letterbox", padding_value=0)
    model = registry.load(folder, device="cpu")
    assert model.preprocess_spec.resize == "letterbox"
    box = model(picture)[0].xyxy[0]  # the frame's height of 64 shows 43 rows of the picture
    assert 56 <= box[0] <= 57 and box[1] < 28


def test_torch_package_of_inference_models(tmp_path, rfdetr_kit, picture):
    pytest.importorskip("torch")
    folder = write_package(tmp_path, rfdetr_kit, backend="torch")
    rfdetr_kit.write_checkpoint(folder / "weights.pth", rfdetr_kit.tensors(), rfdetr_kit.ARGS)
    (folder / "model_type.json").write_text(json.dumps({"model_type": "rfdetr-tiny"}))
    model = registry.load(folder, device="cpu")
    assert model.card.classes == ("nut", "bolt", "gear", "__background__")
    assert model(picture, confidence=0)[0].xyxy.shape == (10, 4)


def test_export_runs_like_the_network(checkpoint, mask_checkpoint, tmp_path, picture):
    pytest.importorskip("torch")
    for source in (checkpoint, mask_checkpoint):
        path = registry.export(source, output=tmp_path / f"{source.stem}.onnx", dynamic=True)
        graph = registry.load(path, backend="onnx", device="cpu")
        network = registry.load(source, backend="torch", device="cpu")
        assert graph.card.classes == ("nut", "bolt", "gear", "__background__")
        pictures = [picture, picture[:50], picture[:, ::2]]
        for a, b in zip(graph(pictures, confidence=0), network(pictures, confidence=0), strict=True):
            np.testing.assert_allclose(a.xyxy, b.xyxy, atol=0.05)
            np.testing.assert_allclose(a.confidence, b.confidence, atol=1e-4)
            assert a.class_id.tolist() == b.class_id.tolist()
            if source is mask_checkpoint:
                assert (a.masks.dense() != b.masks.dense()).mean() < 1e-3


def test_export_in_a_fresh_process(checkpoint, tmp_path):
    """Nothing that is found out at the first run may end up in the graph."""
    pytest.importorskip("torch")
    code = "import sys; from lensmount import registry; registry.export(sys.argv[1], output=sys.argv[2])"
    target = tmp_path / "fresh.onnx"
    subprocess.run([sys.executable, "-c", code, str(checkpoint), str(target)], check=True, timeout=300)
    assert target.stat().st_size > 0


def test_export_options(checkpoint, tmp_path, picture):
    pytest.importorskip("torch")
    path = registry.export(checkpoint, output=tmp_path / "x.onnx", batch=2, settings={"input_size": 96})
    model = registry.load(path, backend="onnx", device="cpu")
    assert model.preprocess_spec.size == (96, 96) and model.batch.static == 2
    assert len(model([picture] * 3, confidence=0)) == 3
    half = registry.export(checkpoint, output=tmp_path / "half.onnx", precision="fp16")
    assert half.stat().st_size < 0.75 * path.stat().st_size
    found = registry.load(half, backend="onnx", device="cpu")(picture, confidence=0)[0]
    assert found.xyxy.shape == (10, 4)
    for settings, error in (({"input_size": 100}, OptionError), ({"imgsz": 64}, UnknownOptionError)):
        with pytest.raises(error):
            registry.export(checkpoint, output=tmp_path / "y.onnx", settings=settings)
    with pytest.raises(OptionError):
        registry.export(checkpoint, output=tmp_path / "y.onnx", precision="int8")
    assert sorted(p.name for p in tmp_path.glob("*y.onnx*")) == []


def test_a_graph_that_differs_is_not_kept(checkpoint, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from lensmount_rfdetr import export

    monkeypatch.setattr(export, "TOLERANCES", {"fp32": (1e-12, 1e-12), "fp16": (1e-12, 1e-12)})
    with pytest.raises(BackendError, match="not kept"):
        registry.export(checkpoint, output=tmp_path / "y.onnx")
    assert [p.name for p in tmp_path.iterdir() if "y.onnx" in p.name] == []
