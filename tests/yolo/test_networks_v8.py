"""The v8 networks: sizes as published, parity with reference outputs, folding, any size, export."""

from __future__ import annotations

import lzma
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from lensmount_networks import layers  # noqa: E402
from lensmount_reading import as_torch_state_dict, module_state_dict, read_checkpoint  # noqa: E402
from lensmount_yolo.networks.build import build_network  # noqa: E402
from lensmount_yolo.networks.fuse import fuse  # noqa: E402
from lensmount_yolo.networks.heads import RawOutputs  # noqa: E402
from lensmount_yolo.networks.nodes import Node  # noqa: E402
from lensmount_yolo.networks.shapes_of_blocks import conv  # noqa: E402
from lensmount_yolo.networks.tensors import measure  # noqa: E402
from lensmount_yolo.networks.v8 import SCALES, Scale, v8  # noqa: E402
from tiny_networks import folded  # noqa: E402

TINY = Scale(0.33, 0.125, 256)
# Millions of parameters, from the published tables of the models.
PUBLISHED = {
    ("detect", "n"): 3.2,
    ("detect", "s"): 11.2,
    ("detect", "m"): 25.9,
    ("detect", "l"): 43.7,
    ("detect", "x"): 68.2,
    ("segment", "n"): 3.4,
    ("segment", "s"): 11.8,
    ("segment", "m"): 27.3,
    ("segment", "l"): 46.0,
    ("segment", "x"): 71.8,
}


@pytest.fixture
def goldens(reference_data: Path) -> Path:
    return reference_data / "goldens"


def from_export(goldens: Path, name: str) -> dict[str, Any]:
    """The exported graph's initialisers bear the same names as the folded network's tensors."""
    graph = onnx.load_from_string(lzma.decompress((goldens / f"{name}.onnx.xz").read_bytes())).graph
    return {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}


def from_checkpoint(goldens: Path, name: str, folder: Path) -> dict[str, Any]:
    """The tensors of a released-layout file: half precision, batch normalisation not folded."""
    path = folder / f"{name}.pt"
    path.write_bytes(lzma.decompress((goldens / f"{name}.pt.xz").read_bytes()))
    model = read_checkpoint(path, modules="records").tree["model"]
    return as_torch_state_dict(module_state_dict(model), dtype=torch.float32)


def lively(task: str = "segment", classes: int = 3, scale: Scale = TINY, seed: int = 0) -> Any:
    """A small network whose batch statistics are not the identity, so that folding has something to do."""
    torch.manual_seed(seed)
    network = build_network(v8(task, classes, scale))
    for module in network.modules():
        if isinstance(module, layers.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.2, 1.5)
    return network.eval()


def fused(network: Any) -> Any:
    """The same network, folded."""
    return folded(measure({name: tensor.shape for name, tensor in network.state_dict().items()}), network)


@pytest.mark.parametrize(("task", "scale"), sorted(PUBLISHED))
def test_parameter_counts_are_the_published_ones(task, scale):
    shapes = v8(task, 80, SCALES[scale])
    assert measure(shapes).parts["22"].kind.lower() == task
    millions = sum(math.prod(shape) for name, shape in shapes.items() if "running" not in name) / 1e6
    assert round(millions, 1) == PUBLISHED[task, scale]


@pytest.mark.parametrize("form", ["export", "checkpoint", "checkpoint, folded"])
@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-seg"])
def test_outputs_equal_the_reference(goldens, tmp_path, name, form):
    tensors = from_export(goldens, name) if form == "export" else from_checkpoint(goldens, name, tmp_path)
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    if form != "export":
        published = v8("segment" if "seg" in name else "detect", 80, SCALES["n"])
        assert {key: shape for key, shape in shapes.items() if not key.endswith("num_batches_tracked")} == published
    network = build_network(shapes).eval()
    counters = {key for key in tensors if key.endswith("num_batches_tracked")}  # of use to training alone
    network.load_state_dict({key: value for key, value in tensors.items() if key not in counters})  # strict
    if "folded" in form:
        network = fused(network)

    truth = np.load(goldens / f"{name}.npz")
    pictures = torch.from_numpy(np.load(goldens / "yolov8n.npz")["x_uint8"]).float() / 255
    with torch.inference_mode():
        out = network(pictures)
    main, prototypes = out if isinstance(out, tuple) else (out, None)
    expected = truth["raw_every_5th_anchor"]
    got = main[:, :, ::5].numpy()
    # The reference data's own tolerances: boxes 0.05 px, anything else 1e-3 of a range that is at most about 1.
    assert np.abs(got[:, :4] - expected[:, :4]).max() <= 0.05
    assert np.abs(got[:, 4:] - expected[:, 4:]).max() <= 1e-3 * np.ptp(expected[:, 4:])
    if prototypes is not None:
        strided = truth["proto_strided"]
        assert np.abs(prototypes[..., ::4, ::4].numpy() - strided).max() <= 1e-3 * np.ptp(strided)


def test_tensor_names_are_the_official_ones():
    names = set(lively().state_dict())
    for name in (
        "model.0.conv.weight",
        "model.0.bn.running_var",
        "model.2.m.0.cv1.conv.weight",
        "model.9.cv2.bn.running_mean",
        "model.22.cv2.0.2.bias",
        "model.22.cv4.2.1.bn.weight",
        "model.22.dfl.conv.weight",
        "model.22.proto.upsample.weight",
    ):
        assert name in names
    assert not any(name.startswith(("model.10.", "model.11.", "model.13.")) for name in names)


@pytest.mark.parametrize("task", ["detect", "segment"])
def test_folding_changes_nothing(task):
    network = lively(task)
    pictures = torch.rand(2, 3, 96, 128)
    with torch.inference_mode():
        before = network(pictures)
        network = fused(network)
        after = network(pictures)
        network = fused(network)  # twice is as good as once
        again = network(pictures)
    before, after, again = (x if isinstance(x, tuple) else (x,) for x in (before, after, again))
    for a, b, c in zip(before, after, again, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)  # boxes are in pixels, up to 128
        assert torch.equal(b, c)
    assert not any(".bn." in name for name in network.state_dict())


def test_folding_is_the_formula():
    random = np.random.default_rng(0)
    shapes = {"conv": {"weight": (6, 4, 3, 3)}, "bn": {"weight": (6,)}}
    tensors = {"conv.weight": random.normal(size=(6, 4, 3, 3)).astype(np.float32)}
    tensors |= {f"bn.{name}": random.uniform(0.1, 2, 6).astype(np.float32) for name in ("weight", "bias")}
    tensors |= {f"bn.running_{name}": random.uniform(0.1, 2, 6).astype(np.float32) for name in ("mean", "var")}
    before = {name: tensor.copy() for name, tensor in tensors.items()}
    node, made = fuse(conv(shapes), tensors)
    gain = tensors["bn.weight"] / np.sqrt(tensors["bn.running_var"] + 1e-3)
    assert np.allclose(made["conv.weight"], tensors["conv.weight"] * gain[:, None, None, None], atol=1e-6)
    assert np.allclose(made["conv.bias"], tensors["bn.bias"] - tensors["bn.running_mean"] * gain, atol=1e-6)
    assert set(made) == {"conv.weight", "conv.bias"}
    assert set(node.parts) == {"conv", "act"}
    assert node.parts["conv"].settings["bias"]
    assert all(np.array_equal(before[name], tensor) for name, tensor in tensors.items())  # what was given stays


def test_branches_of_another_form_are_not_merged():
    shapes = {
        name: {"conv": {"weight": (6, 6, side, side), "bias": (6,)}} for name, side in (("conv1", 3), ("conv2", 1))
    }
    made = {name: conv(tree, act=False) for name, tree in shapes.items()}
    tensors = {
        f"{name}.conv.{part}": np.zeros(tree["conv"][part], np.float32)
        for name, tree in shapes.items()
        for part in tree["conv"]
    }
    assert set(fuse(Node("RepConv", {}, made), tensors)[1]) == {"conv.weight", "conv.bias"}
    strided = conv(shapes["conv1"], act=False, stride=2)
    with pytest.raises(ValueError, match="stride"):
        fuse(Node("RepConv", {}, {**made, "conv1": strided}), tensors)
    with pytest.raises(ValueError, match="plain"):
        fuse(Node("RepConv", {}, {**made, "conv1": conv(shapes["conv1"])}), tensors)


def test_training_mode_gives_what_evaluation_decodes():
    network = lively("segment")
    pictures = torch.rand(1, 3, 64, 96)
    head = network.model[-1]
    with torch.inference_mode():
        main, prototypes = network(pictures)
        head.training = True  # the head alone, so that batch statistics stay
        raw = network(pictures)
    assert isinstance(raw, RawOutputs)
    assert [tuple(level.shape) for level in raw.distances] == [(1, 64, 8, 12), (1, 64, 4, 6), (1, 64, 2, 3)]
    assert torch.equal(head.decode(raw), main[:, :7])
    assert torch.equal(raw.prototypes, prototypes)


def test_boxes_follow_from_the_distances():
    # All mass on bin 2 to the left and above, on bin 3 to the right and below.
    head = lively("detect", classes=1).model[-1]
    distances = []
    for side in (4, 2, 1):
        level = torch.full((1, 64, side, side), -50.0)
        for index, value in enumerate((2, 2, 3, 3)):
            level[:, index * 16 + value] = 50.0
        distances.append(level)
    scores = [torch.zeros(1, 1, side, side) for side in (4, 2, 1)]
    out = head.decode(RawOutputs(distances, scores, (8, 16, 32), []))[0]
    assert out.shape == (5, 21)
    # First cell of the finest level: centre (4, 4); left 4 - 16, right 4 + 24.
    assert out[:, 0].tolist() == pytest.approx([8, 8, 40, 40, 0.5])
    # Sixth cell: row 1, column 1, centre (12, 12).
    assert out[:2, 5].tolist() == pytest.approx([16, 16])
    # The only cell of the coarsest level.
    assert out[:4, 20].tolist() == pytest.approx([32, 32, 160, 160])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 160), (320, 256)])
def test_any_multiple_of_32(height, width):
    with torch.inference_mode():
        main, prototypes = lively()(torch.rand(1, 3, height, width))
    assert main.shape == (1, 4 + 3 + 32, height * width // 64 + height * width // 256 + height * width // 1024)
    assert prototypes.shape == (1, 32, height // 4, width // 4)


@pytest.mark.parametrize("scale", [TINY, Scale(0.67, 0.3, 300), Scale(1.0, 0.125, 128)])
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_a_network_of_any_scale_learns(task, scale):
    """Its tensors are those that were asked for; all of them but the bins' numbers get gradients."""
    shapes = v8(task, 5, scale)
    network = build_network(shapes)
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == shapes
    raw = network(torch.rand(2, 3, 64, 64))
    parts = [*raw.distances, *raw.scores, *raw.coefficients, *([] if raw.prototypes is None else [raw.prototypes])]
    sum(part.square().mean() for part in parts).backward()
    still = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == ["model.22.dfl.conv.weight"]
    assert network.model[0].bn.running_mean.any()  # statistics follow the batches
