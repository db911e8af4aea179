"""Networks of several plans and files of several layouts, made up on the spot."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lensmount import registry  # noqa: E402
from lensmount.errors import ModelFileError, OptionError, UnknownOptionError, UnsupportedModelError  # noqa: E402
from lensmount_yolo.checkpoint import load_network  # noqa: E402
from lensmount_yolo.networks.fuse import fuse  # noqa: E402
from tiny_networks import classifier, lively, official_tree, pyramid, stand_ins  # noqa: E402 - after the skips

PLANS = {
    "three levels": pyramid(),
    "from stride 4": pyramid(finest=2),
    "to stride 64": pyramid(deepest=6),
    "one class": pyramid(classes=1),
    "without suppression": pyramid(single=True),
    "no bins": pyramid(single=True, bins=1),
    "keypoints": pyramid(classes=1, extra=15),
    "angles": pyramid(extra=1),
    "classes": classifier(),
}
PICTURE = np.random.default_rng(5).integers(0, 255, (96, 160, 3), np.uint8)


def run(network, picture):
    with torch.inference_mode():
        out = network(picture)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("plan", PLANS)
def test_folding_changes_nothing(plan):
    _, network = lively(PLANS[plan])
    picture = torch.rand(2, 3, 128, 192)
    before = run(network, picture)
    after = run(fuse(network), picture)
    if before.ndim == 3 and before.shape[2] == 6:  # rows of nearly equal scores may change places
        before, after = before[..., 4], after[..., 4]
    assert torch.allclose(before, after, rtol=1e-4, atol=2e-3)
    assert not any(".bn." in name for name in network.state_dict())


@pytest.mark.parametrize("plan", PLANS)
def test_a_bare_state_dict_and_our_safetensors_load_and_agree(tmp_path, plan):
    _, network = lively(PLANS[plan])
    bare = tmp_path / "bare.pt"
    torch.save(network.state_dict(), bare)
    described = tmp_path / "described.safetensors"
    registry.export(bare, to="safetensors", output=described)
    picture = torch.rand(1, 3, 128, 128)
    expected = run(network, picture)
    for path in (bare, described):
        loaded = load_network(path)
        assert torch.equal(run(loaded.module, picture), expected)
    assert load_network(bare).described.network == load_network(described).described.network


@pytest.mark.parametrize(
    ("layout", "half", "old"),
    [("model", True, False), ("ema", True, False), ("both", False, False), ("model", False, True)],
)
def test_official_layouts(tmp_path, layout, half, old):
    node, network = lively(PLANS["one class"])
    with stand_ins() as make:
        tree = official_tree(make, node, network, names={0: "volleyball"}, old=old)
        tree = tree.half() if half else tree
        wrong = official_tree(make, *lively(PLANS["one class"], seed=9), names=["other"], old=old)
        holders = {"model": (tree, None), "ema": (None, tree), "both": (wrong, tree)}
        model, ema = holders[layout]
        texts = {"train_args": {"imgsz": 128}, "license": "AGPL-3.0 License (x)"}
        torch.save({"model": model, "ema": ema, **texts}, tmp_path / "best.pt")
    loaded = registry.load(tmp_path / "best.pt", backend="torch")
    assert loaded.card.classes == ("volleyball",)
    assert loaded.card.licence == "AGPL-3.0"
    assert loaded.preprocess_spec.size == (128, 128)
    network = network.half().float() if half else network
    batch, _ = loaded.preprocess(PICTURE)
    expected = run(network, torch.from_numpy(batch)).numpy()
    got = loaded.forward(batch)["output0"]
    assert np.abs(got - expected).max() <= 2e-3
    loaded(PICTURE)


def test_original_yolov5_is_refused_by_name(tmp_path):
    with stand_ins() as make:
        model = make("models.yolo", "Model")()
        model.model = torch.nn.Sequential(make("models.common", "Conv")())
        torch.save({"model": model}, tmp_path / "v5.pt")
    with pytest.raises(UnsupportedModelError, match="YOLOv5"):
        registry.load(tmp_path / "v5.pt")


@pytest.mark.parametrize("kind", ["RTDETRDecoder", "WorldDetect", "Segment26"])
def test_unknown_heads_are_refused_by_name(tmp_path, kind):
    node, network = lively(PLANS["three levels"])
    with stand_ins() as make:
        tree = official_tree(make, node, network, names=["a", "b", "c"])
        head = make("ultralytics.nn.modules.head", kind)()
        head.f, head.i = [1, 2], 99
        tree.model.append(head)
        torch.save({"model": tree}, tmp_path / "odd.pt")
    with pytest.raises(UnsupportedModelError, match=kind):
        registry.load(tmp_path / "odd.pt")


def test_tensors_that_do_not_fit_are_an_error(tmp_path):
    _, network = lively(PLANS["three levels"])
    for name, change in {
        "missing": lambda state: state.pop("model.2.cv1.conv.weight"),
        "shape": lambda state: state.update({"model.1.conv.weight": torch.zeros(8, 9, 3, 3)}),
    }.items():
        state = dict(network.state_dict())
        change(state)
        torch.save(state, tmp_path / f"{name}.pt")
        with pytest.raises(ModelFileError):
            load_network(tmp_path / f"{name}.pt")


def test_names_must_fit_the_classes(tmp_path):
    node, network = lively(PLANS["three levels"])
    with stand_ins() as make:
        torch.save({"model": official_tree(make, node, network, names=["a", "b"])}, tmp_path / "names.pt")
    with pytest.raises(ModelFileError, match="2 names, 3 classes"):
        registry.load(tmp_path / "names.pt")


@pytest.mark.parametrize("plan", ["three levels", "without suppression", "angles", "keypoints", "classes"])
@pytest.mark.parametrize("options", [{}, {"dynamic": True}, {"precision": "fp16"}])
def test_exports_equal_the_network(tmp_path, plan, options):
    pytest.importorskip("onnx")
    _, network = lively(PLANS[plan])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    settings = {} if plan == "classes" and options else {"input_size": 160}
    written = registry.export(
        tmp_path / "weights.pt", to="onnx", output=tmp_path / "out.onnx", settings=settings, **options
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "weights.pt"]
    graph = registry.load(written, backend="onnx")
    weights = registry.load(tmp_path / "weights.pt", backend="torch")
    assert graph.card.task == weights.card.task
    assert graph.names == weights.names
    if not options:
        batch, _ = graph.preprocess(PICTURE)
        for name, expected in weights.forward(batch).items():
            got = graph.forward(batch)[name]
            if plan == "without suppression":  # equal scores may change places
                assert np.abs(got[..., 4] - expected[..., 4]).max() <= 1e-3
            else:
                assert np.abs(got - expected).max() <= 2e-3


def test_suppression_in_the_graph_equals_ours(tmp_path):
    pytest.importorskip("onnx")
    _, network = lively(PLANS["three levels"])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    settings = {"nms": "embedded", "input_size": 160, "confidence": 0.5, "iou_threshold": 0.6}
    registry.export(tmp_path / "weights.pt", to="onnx", output=tmp_path / "out.onnx", dynamic=True, settings=settings)
    graph = registry.load(tmp_path / "out.onnx")
    assert graph.head.kind == "rows"
    weights = registry.load(tmp_path / "weights.pt", backend="torch", input_size=160)
    square = np.random.default_rng(6).integers(0, 255, (160, 160, 3), np.uint8)
    (a,), (b,) = graph(square, confidence=0.5), weights(square, confidence=0.5, iou_threshold=0.6)
    assert len(a) == len(b) > 5
    assert np.abs(np.sort(a.confidence) - np.sort(b.confidence)).max() <= 1e-3


def test_senseless_export_settings_are_refused(tmp_path):
    pytest.importorskip("onnx")
    _, network = lively(PLANS["without suppression"])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    export = registry.export
    out = tmp_path / "out.onnx"
    with pytest.raises(UnknownOptionError, match="nsm"):
        export(tmp_path / "weights.pt", to="onnx", output=out, settings={"nsm": "embedded"})
    with pytest.raises(OptionError, match="embedded"):
        export(tmp_path / "weights.pt", to="onnx", output=out, settings={"nms": "embedded"})
    with pytest.raises(OptionError, match="multiples of 32"):
        export(tmp_path / "weights.pt", to="onnx", output=out, settings={"input_size": 100})
    with pytest.raises(OptionError):
        export(tmp_path / "weights.pt", to="tflite", output=out)
    assert not out.exists()


def test_rectangles_and_mixed_sizes(tmp_path):
    _, network = lively(PLANS["three levels"])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    model = registry.load(tmp_path / "weights.pt", backend="torch", rectangular=True, input_size=128)
    wide, tall = PICTURE, np.ascontiguousarray(PICTURE.transpose(1, 0, 2))
    assert model.preprocess(wide)[0].shape == (1, 3, 96, 128)
    assert model.preprocess(tall)[0].shape == (1, 3, 128, 96)
    pictures = model.load_images([wide, tall, wide], None)
    assert model.batches(pictures, 16) == [[0, 2], [1]]
    assert [len(group) for group in model.groups(pictures, 16)] == [1, 1, 1]
    together = model([wide, tall, wide], confidence=0.01)
    for result, picture in zip(together, (wide, tall, wide), strict=True):
        (alone,) = model(picture, confidence=0.01)
        assert np.allclose(result.xyxy, alone.xyxy, atol=0.01)
        assert result.image_size == picture.shape[:2]


def test_oriented_boxes_and_keypoints_come_back_in_the_picture(tmp_path):
    for plan in ("angles", "keypoints"):
        _, network = lively(PLANS[plan])
        torch.save(network.state_dict(), tmp_path / f"{plan}.pt")
    (turned,) = registry.load(tmp_path / "angles.pt", backend="torch", input_size=160)(PICTURE, confidence=0.3)
    assert len(turned) > 0
    assert turned.corners.shape == (len(turned), 4, 2)
    assert (turned.xyxy[:, 2] <= 160).all()
    assert (turned.xyxy[:, 3] <= 96).all()
    (posed,) = registry.load(tmp_path / "keypoints.pt", backend="torch", input_size=160)(PICTURE, confidence=0.1)
    assert posed.keypoints.shape == (len(posed), 5, 3)


def test_turned_boxes_keep_their_corners_under_unequal_scales():
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.results.rotated_boxes import xywhr_to_corners
    from lensmount_yolo.oriented import boxes_to_image

    geometry = Geometry((100, 200), (64, 64), scale=(0.32, 0.3217), offset=(0.0, 16.0))
    boxes = np.array([[30, 30, 20, 8, 0.7], [10, 40, 5, 9, 0.0], [10, 40, 5, 9, np.pi / 2]], np.float32)
    corners = geometry.points_to_image(xywhr_to_corners(boxes))
    assert np.abs(xywhr_to_corners(boxes_to_image(boxes, geometry)) - corners).max() < 0.3
    assert np.allclose(xywhr_to_corners(boxes_to_image(boxes, geometry))[1:], corners[1:], atol=1e-3)


@pytest.mark.parametrize("name", ["adapter.0.weight", "model.0.conv.lora_A.weight", "extra"])
def test_tensors_without_a_place_are_refused(tmp_path, name):
    _, network = lively(PLANS["three levels"])
    torch.save({**network.state_dict(), name: torch.ones(3)}, tmp_path / "weights.pt")
    with pytest.raises(ModelFileError):
        registry.load(tmp_path / "weights.pt", backend="torch", device="cpu")
