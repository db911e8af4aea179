"""The v8 networks: sizes as published, parity with reference outputs, folding, any size, export."""

from __future__ import annotations

import io
import lzma
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from lensmount_reading import as_torch_state_dict, module_state_dict, read_checkpoint  # noqa: E402
from lensmount_yolo.networks import v8  # noqa: E402 - after the skips
from lensmount_yolo.networks.blocks import BATCH_NORM_EPS, Conv  # noqa: E402
from lensmount_yolo.networks.build import (  # noqa: E402
    Scale,
    YoloNetwork,
    build_network,
    rebuild_network,
    scale_layers,
)
from lensmount_yolo.networks.fuse import fuse_conv_bn  # noqa: E402
from lensmount_yolo.networks.heads import RawOutputs  # noqa: E402

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
ROWS = {"detect": v8.DETECT, "segment": v8.SEGMENT}


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


def lively(task: str = "segment", classes: int = 3, scale: Scale = TINY, seed: int = 0) -> YoloNetwork:
    """A small network whose batch statistics are not the identity, so that folding has something to do."""
    torch.manual_seed(seed)
    network = build_network(ROWS[task], classes, scale)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.2, 1.5)
    return network.eval()


@pytest.mark.parametrize(("task", "scale"), sorted(PUBLISHED))
def test_parameter_counts_are_the_published_ones(task, scale):
    with torch.device("meta"):
        network = build_network(ROWS[task], 80, v8.SCALES[scale])
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert round(millions, 1) == PUBLISHED[task, scale]


@pytest.mark.parametrize("form", ["export", "checkpoint", "checkpoint, folded"])
@pytest.mark.parametrize("name", ["yolov8n", "yolov8n-seg"])
def test_outputs_equal_the_reference(goldens, tmp_path, name, form):
    tensors = from_export(goldens, name) if form == "export" else from_checkpoint(goldens, name, tmp_path)
    rows = v8.SEGMENT if "seg" in name else v8.DETECT
    network = rebuild_network(rows, {key: value.shape for key, value in tensors.items()})
    assert network.layers == scale_layers(rows, v8.SCALES["n"])
    if form == "export":
        fuse_conv_bn(network)
    network.eval().load_state_dict(tensors)  # strict: no tensor missing, none left over
    if "folded" in form:
        fuse_conv_bn(network)

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
        "model.9.cv2.bn.num_batches_tracked",
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
        fuse_conv_bn(network)
        after = network(pictures)
        fuse_conv_bn(network)  # twice is as good as once
        again = network(pictures)
    before, after, again = (x if isinstance(x, tuple) else (x,) for x in (before, after, again))
    for a, b, c in zip(before, after, again, strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3)  # boxes are in pixels, up to 128
        assert torch.equal(b, c)
    assert not any(".bn." in name for name in network.state_dict())


def test_folding_is_the_formula():
    conv = Conv(4, 6, 3).eval()
    conv.bn.running_var.uniform_(0.1, 2)
    conv.bn.running_mean.normal_()
    weight = conv.conv.weight.detach().clone()
    gain = conv.bn.weight / torch.sqrt(conv.bn.running_var + BATCH_NORM_EPS)
    fuse_conv_bn(conv)
    assert torch.allclose(conv.conv.weight, weight * gain.view(-1, 1, 1, 1), atol=1e-6)
    assert BATCH_NORM_EPS == 1e-3


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
def test_any_scale_is_rebuilt_from_shapes(task, scale):
    first = build_network(ROWS[task], 5, scale)
    second = rebuild_network(ROWS[task], {key: value.shape for key, value in first.state_dict().items()})
    assert second.layers == first.layers
    assert second.classes == 5
    second.load_state_dict(first.state_dict())


def test_another_version_is_not_mistaken_for_v8():
    shapes = {key: value.shape for key, value in lively().state_dict().items() if not key.startswith("model.12.")}
    with pytest.raises(KeyError):
        rebuild_network(v8.SEGMENT, shapes)


@pytest.mark.parametrize("dynamic", [False, True])
def test_export_gives_the_same_numbers(dynamic):
    runtime = pytest.importorskip("onnxruntime")
    network = fuse_conv_bn(lively())
    names = ["output0", "output1"]
    axes = {"images": {0: "batch", 2: "height", 3: "width"}, **{name: {0: "batch"} for name in names}}
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, 3, 64, 64),),
            stream,
            input_names=["images"],
            output_names=names,
            dynamic_axes=axes if dynamic else None,
            opset_version=17,
            dynamo=False,
        )
    session = runtime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    for shape in [(1, 3, 64, 64), (2, 3, 96, 160)] if dynamic else [(1, 3, 64, 64)]:
        pictures = torch.rand(shape)
        with torch.inference_mode():
            expected = network(pictures)
        for got, want in zip(session.run(names, {"images": pictures.numpy()}), expected, strict=True):
            assert got.shape == want.shape
            assert np.abs(got - want.numpy()).max() <= 1e-3  # boxes are in pixels, up to about 160
