"""Networks of several plans and files of several layouts, made up on the spot."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from lensmount import registry  # noqa: E402
from lensmount.errors import ModelFileError, OptionError, UnknownOptionError, UnsupportedModelError  # noqa: E402
from lensmount_yolo.checkpoint import load_network  # noqa: E402
from lensmount_yolo.networks.nodes import Node  # noqa: E402
from tiny_networks import classifier, folded, lively, official_tree, pyramid, stand_ins  # noqa: E402 - after the skips
from wrapped import WAYS, wrapped  # noqa: E402 - after the skips

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


#: Plans with both pairs of branches, of which the second is looked at.
BOTH = {"without suppression": True, "no bins": True}


def module(loaded):
    """The network of a file in torch."""
    return loaded.network().torch().module


def run(network, picture):
    with torch.inference_mode():
        out = network(picture)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("plan", PLANS)
def test_folding_changes_nothing(plan):
    node, network = lively(PLANS[plan])
    picture = torch.rand(2, 3, 128, 192)
    before, fused = run(network, picture), folded(node, network)
    after = run(fused, picture)
    if before.ndim == 3 and before.shape[2] == 6:  # rows of nearly equal scores may change places
        before, after = before[..., 4], after[..., 4]
    assert torch.allclose(before, after, rtol=1e-4, atol=2e-3)
    assert not any(".bn." in name for name in fused.state_dict())


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
        loaded = load_network(path, end_to_end=BOTH.get(plan))
        assert torch.equal(run(module(loaded), picture), expected)
    assert load_network(bare).described.network == load_network(described).described.network


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("plan", ["three levels", "without suppression", "classes"])
def test_wrappers_of_training_change_nothing(tmp_path, plan, way):
    _, network = lively(PLANS[plan])
    torch.save({"ema": wrapped(network.state_dict(), way)}, tmp_path / "wrapped.pt")
    picture = torch.rand(1, 3, 128, 128)
    assert torch.equal(
        run(module(load_network(tmp_path / "wrapped.pt", end_to_end=BOTH.get(plan))), picture), run(network, picture)
    )
    assert registry.describe(tmp_path / "wrapped.pt").architecture == "yolo"


def test_a_pickled_model_inside_data_parallel(tmp_path):
    node, network = lively(PLANS["three levels"])
    with stand_ins() as make:
        tree = official_tree(make, node, network, names=["a", "b", "c"])
        tree.model[1] = torch.nn.DataParallel(tree.model[1])
        tree.model[1].f, tree.model[1].i = tree.model[1].module.f, tree.model[1].module.i
        torch.save({"model": torch.nn.DataParallel(tree)}, tmp_path / "best.pt")
    picture = torch.rand(1, 3, 128, 128)
    assert torch.equal(run(module(load_network(tmp_path / "best.pt")), picture), run(network, picture))


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
    with pytest.raises(ModelFileError, match="3 classes, 2 names"):
        registry.load(tmp_path / "names.pt")


@pytest.mark.parametrize("plan", ["three levels", "without suppression", "angles", "keypoints", "classes"])
@pytest.mark.parametrize("options", [{}, {"dynamic": True}, {"precision": "fp16"}])
def test_exports_equal_the_network(tmp_path, plan, options):
    pytest.importorskip("onnx")
    _, network = lively(PLANS[plan])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    settings = {} if plan == "classes" and options else {"input_size": 160}
    chosen = {"end_to_end": True} if plan in BOTH else {}
    settings = {**settings, **chosen}
    written = registry.export(
        tmp_path / "weights.pt", to="onnx", output=tmp_path / "out.onnx", settings=settings, **options
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "weights.pt"]
    graph = registry.load(written, backend="onnx")
    weights = registry.load(tmp_path / "weights.pt", backend="torch", **chosen)
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
        export(tmp_path / "weights.pt", to="onnx", output=out, settings={"nms": "embedded", "end_to_end": True})
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


def area_attention(channels, *, area, apart, seed=0):
    """A block of area attention with weights."""
    from lensmount_networks import torch_module
    from lensmount_networks.layers import declared
    from lensmount_yolo.networks.assemble import assemble
    from lensmount_yolo.networks.shapes_of_blocks import inner

    def convolution(out, into, kernel=1):
        return {"conv": {"weight": (out, into, kernel, kernel), "bias": (out,)}}

    projections = {"qk": convolution(2 * channels, channels), "v": convolution(channels, channels)}
    together = {"qkv": convolution(3 * channels, channels)}
    tree = {
        **(projections if apart else together),
        "proj": convolution(channels, channels),
        "pe": convolution(channels, 1, 5 if apart else 7),
    }
    block = inner({"attn": tree, "mlp": {"0": convolution(8, channels), "1": convolution(channels, 8)}})
    node = block.parts["attn"]
    node = Node(node.kind, {**node.settings, "area": area}, node.parts)
    layer = assemble(Node("Network", {"sources": (-1,)}, {"0": node}))
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: d.shape for name, _, _, d in declared(layer)}
    tensors = {name: torch.randn(s, generator=generator) / math.prod(s[1:]) ** 0.5 for name, s in shapes.items()}
    return torch_module(layer, tensors).model[0]


@pytest.mark.parametrize("area", [1, 4])
def test_area_attention_of_the_authors_layout(area):
    """By the definition, head by head and stretch by stretch: queries first, then keys, values by themselves."""
    block = area_attention(64, area=area, apart=True)
    x = torch.randn(2, 64, 4, 6)
    packed, values = block.qk(x).flatten(2), block.v(x).flatten(2)
    mixed = torch.zeros_like(values)
    for head in range(2):
        channels = slice(32 * head, 32 * head + 32)
        for cells in torch.arange(24).chunk(area):
            query, key = packed[:, :64][:, channels][..., cells], packed[:, 64:][:, channels][..., cells]
            weights = torch.einsum("bcq,bck->bqk", query, key).div(32**0.5).softmax(2)
            mixed[:, channels, cells] = torch.einsum("bqk,bck->bcq", weights, values[:, channels][..., cells])
    expected = block.proj((mixed + block.pe(values.view(2, 64, 4, 6)).flatten(2)).view(2, 64, 4, 6))
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("area", [1, 4])
def test_both_layouts_of_area_attention_say_the_same(area):
    apart, together = area_attention(64, area=area, apart=True), area_attention(64, area=area, apart=False)
    query, key = apart.qk.conv.weight.view(2, 2, 32, 64)
    value = apart.v.conv.weight.view(2, 32, 64)
    together.qkv.conv.weight.copy_(torch.stack((query, key, value), 1).reshape(192, 64, 1, 1))
    query, key = apart.qk.conv.bias.view(2, 2, 32)
    together.qkv.conv.bias.copy_(torch.stack((query, key, apart.v.conv.bias.view(2, 32)), 1).flatten())
    together.proj.load_state_dict(apart.proj.state_dict())
    together.pe = apart.pe
    x = torch.randn(2, 64, 4, 6)
    assert torch.allclose(apart(x), together(x), atol=1e-5)


def test_what_is_described_can_be_put_together():
    """The table of parts has every block, and no other; whatever it asks for is enough, or the settings are refused."""
    from lensmount_yolo.networks import assemble, parts

    assert set(parts.PARTS) == set(assemble.BLOCKS)
    assert set(assemble.LAYERS) <= parts.LAYERS
    assert {"Network", "Sequential", "ModuleList"} | set(assemble.LAYERS) == parts.LAYERS


@pytest.mark.parametrize("kind", ["AAttn", "C2f", "SPPF", "Proto", "Detect", "RepConv", "Attention"])
def test_blocks_of_another_form_are_refused_without_torch(kind):
    from lensmount_yolo.networks.parts import PARTS, require_parts

    for wanted in PARTS[kind]:
        have = {name: Node("Identity") for name in wanted}
        require_parts(Node(kind, {}, have))
        for name in wanted:
            with pytest.raises(UnsupportedModelError, match=kind):
                require_parts(Node(kind, {}, {other: part for other, part in have.items() if other != name}))
    with pytest.raises(UnsupportedModelError, match="Unheard"):
        require_parts(Node("Network", {}, {"0": Node("Unheard", {}, {})}))


def test_a_file_with_a_block_of_another_form_is_not_described(tmp_path):
    node, network = lively(PLANS["three levels"])
    with stand_ins() as make:
        tree = official_tree(make, node, network, names=["a", "b", "c"])
        chain = next(row for row in tree.model if hasattr(row, "cv2") and hasattr(row, "m"))
        chain.add_module("cv5", chain.cv2)
        del chain.cv2
        torch.save({"model": tree}, tmp_path / "odd.pt")
    for look in (registry.describe, registry.load):
        with pytest.raises(UnsupportedModelError, match="another form"):
            look(tmp_path / "odd.pt")


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize(
    ("plan", "options", "left"),
    [
        ("angles", {}, [0]),
        ("angles", {"suppression": "greedy"}, [0, 2]),
        ("three levels", {}, [0, 2]),
        ("three levels", {"suppression": "fast"}, [0]),
    ],
)
def test_suppression_of_a_chain(tmp_path, plan, options, left, where):
    """Three boxes, each overlapping the next by more than the threshold, the first and the last by less."""
    _, network = lively(PLANS[plan])
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    model = registry.load(tmp_path / "weights.pt", backend="torch", input_size=96, **options)
    _, geometries = model.preprocess(np.zeros((96, 96, 3), np.uint8))
    raw = np.zeros((1, 4 + model.head.classes + model.head.extra, 10), np.float32)
    for i in range(3):
        raw[0, :5, i] = (20 + 20 * i, 40, 60, 20, 0.9 - 0.1 * i)
    outputs = {"output0": torch.from_numpy(raw) if where == "device" else raw}
    (result,) = model.postprocess(outputs, geometries, iou_threshold=0.45)
    assert np.allclose(result.confidence, [0.9 - 0.1 * i for i in left])
    with pytest.raises(OptionError, match="suppression"):
        registry.load(tmp_path / "weights.pt", backend="torch", suppression="quick")


@pytest.mark.parametrize("name", ["adapter.0.weight", "model.0.conv.lora_A.weight", "extra"])
def test_tensors_without_a_place_are_refused(tmp_path, name):
    _, network = lively(PLANS["three levels"])
    torch.save({**network.state_dict(), name: torch.ones(3)}, tmp_path / "weights.pt")
    with pytest.raises(ModelFileError):
        registry.load(tmp_path / "weights.pt", backend="torch", device="cpu")
