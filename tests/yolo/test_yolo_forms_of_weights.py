"""Official weights as torch modules and as ONNX graphs: one network, one answer, one error; exports without torch."""

from __future__ import annotations

import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount.errors import BackendError, LensmountError, MissingDependencyError  # noqa: E402
from lensmount_yolo.checkpoint import load_network  # noqa: E402
from tiny_networks import classifier, lively, official_tree, pyramid, stand_ins  # noqa: E402

PLANS = {
    "boxes": (pyramid(), {}),
    "from stride 4": (pyramid(finest=2), {}),
    "grey": (pyramid(channels=1), {}),
    "rows": (pyramid(single=True), {"end_to_end": True}),
    "rows without bins": (pyramid(single=True, bins=1), {"end_to_end": True}),
    "keypoints": (pyramid(classes=1, extra=15), {}),
    "angles": (pyramid(extra=1), {}),
    "classes": (classifier(), {}),
}
BOTH = ("torch", "onnx")


def saved(folder, plan):
    """A file with the tensors of a plan, and the options to load it with."""
    shapes, options = PLANS[plan]
    torch.save(lively(shapes)[1].state_dict(), folder / "weights.pt")
    return folder / "weights.pt", options


@pytest.fixture
def without_torch(monkeypatch):
    """From here on `import torch` fails, and nobody finds it."""

    def forget():
        monkeypatch.setitem(sys.modules, "torch", None)

    return forget


@pytest.mark.parametrize("plan", PLANS)
def test_both_forms_agree_at_any_batch_and_size(tmp_path, plan):
    path, options = saved(tmp_path, plan)
    one, other = (registry.load(path, backend=backend, device="cpu", **options) for backend in BOTH)
    seen = load_network(path, end_to_end=options.get("end_to_end")).network()
    assert [(spec.name, spec.shape[0]) for spec in seen.inputs] == [("images", "batch")]
    channels = seen.inputs[0].shape[1]
    for shape in [(1, channels, 64, 64), (3, channels, 128, 192)]:
        picture = np.random.default_rng(1).random(shape, np.float32)
        mine, theirs = one.forward(picture), other.forward(picture)
        assert mine.keys() == theirs.keys()
        for name, wanted in mine.items():
            got = theirs[name]
            assert got.shape == wanted.shape
            if "rows" in plan:  # equal scores may change places
                wanted, got = wanted[..., 4], got[..., 4]
            assert np.abs(got - wanted).max() <= 1e-4 * max(1.0, float(np.ptp(wanted)))


@pytest.mark.parametrize("plan", ["boxes", "classes"])
def test_modules_move_and_halve_as_torch_modules_do(tmp_path, plan):
    path, _ = saved(tmp_path, plan)
    module = load_network(path).folded().network().torch().module
    picture = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = module(picture)
        halved = module.half()(picture.half())
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float16}
    if plan == "boxes":  # decoded in float32
        assert halved.dtype == torch.float32
    assert (halved.float() - wanted).abs().max() <= 0.03 * (wanted.max() - wanted.min())
    assert module.to("meta").model[0].conv.weight.is_meta


def broken(folder, fault):
    """A file that is damaged in one way."""
    path = folder / "broken.pt"
    node, network = lively(PLANS["boxes"][0])
    state = dict(network.state_dict())
    if fault in ("rows", "source", "huge step", "no groups", "endless upsampling"):
        with stand_ins() as make:
            tree = official_tree(make, node, network, names=["a", "b", "c"])
            rows = list(tree.model)
            if fault == "rows":  # what is joined has another size
                joined = next(row for row in rows if isinstance(row.f, list))
                joined.f = [joined.f[0], 0]
            elif fault == "source":
                rows[1].f = 7
            elif fault == "huge step":
                rows[1].conv.stride = (10**6, 10**6)
            elif fault == "no groups":
                rows[1].conv.groups = 0
            else:
                for row in rows:
                    if hasattr(row, "scale_factor"):
                        row.scale_factor = 64.0
            torch.save({"model": tree}, path)
        return path
    if fault == "missing":
        del state["model.2.cv1.conv.weight"]
    elif fault == "shape":
        state["model.1.conv.weight"] = torch.zeros(8, 9, 3, 3)
    elif fault == "statistics":
        state["model.1.bn.running_var"] = torch.ones(5)
    elif fault == "surplus":
        state["model.1.conv.lora"] = torch.ones(5)
    torch.save(state, path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


FAULTS = ["rows", "source", "huge step", "no groups", "endless upsampling", "missing", "shape", "statistics", "surplus",
          "truncated"]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_the_same_error_either_way(tmp_path, fault):
    path, said = broken(tmp_path, fault), []
    for backend in BOTH:
        with pytest.raises(LensmountError) as caught:
            registry.load(path, backend=backend, device="cpu", architecture="yolo")
        said.append((type(caught.value), str(caught.value)))
    assert said[0] == said[1]


EXPORTS = [
    ("boxes", {}, {}),
    ("boxes", {"dynamic": True}, {}),
    ("boxes", {"precision": "fp16"}, {}),
    ("boxes", {}, {"nms": "embedded"}),
    ("keypoints", {"dynamic": True}, {"nms": "embedded", "confidence": 0.1}),
    ("rows", {"dynamic": True}, {"end_to_end": True}),
    ("rows without bins", {"precision": "fp16"}, {"end_to_end": True}),
    ("angles", {"batch": 2}, {}),
    ("classes", {}, {}),
]


@pytest.mark.parametrize(("plan", "options", "settings"), EXPORTS)
def test_exports_without_torch_are_those_with_it(tmp_path, without_torch, plan, options, settings):
    path, _ = saved(tmp_path, plan)
    settings = settings if plan == "classes" else {"input_size": 96, **settings}
    written = []
    for name in ("with.onnx", "without.onnx"):
        out = registry.export(path, to="onnx", output=tmp_path / name, settings=settings, **options)
        written.append(out.read_bytes())
        without_torch()
    assert written[0] == written[1]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["weights.pt", "with.onnx", "without.onnx"]


@pytest.mark.parametrize("settings", [{}, {"nms": "embedded"}])
@pytest.mark.parametrize("torch_is_there", [True, False])
def test_a_wrong_graph_is_not_kept(tmp_path, monkeypatch, without_torch, settings, torch_is_there):
    """With torch the network itself says so; without it, the network before folding."""
    from lensmount_networks import Network
    from lensmount_yolo.networks import fuse

    path, _ = saved(tmp_path, "boxes")
    if torch_is_there:  # the file is other than the network
        save = Network.save

        def wrong(self, path, sizes=None):
            bent = {n: t * np.float32(3) if ".cv2.0.2.weight" in n else t for n, t in self.tensors.items()}
            object.__setattr__(self, "tensors", bent)
            save(self, path, sizes)

        monkeypatch.setattr(Network, "save", wrong)
    else:
        right = fuse._affine

        def bent(*given):
            gain, addend = right(*given)
            return gain, addend + 1

        monkeypatch.setattr(fuse, "_affine", bent)
        without_torch()
    with pytest.raises(BackendError, match="graph"):
        registry.export(path, to="onnx", output=tmp_path / "out.onnx", settings={"input_size": 96, **settings})
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("dynamic", [False, True])
def test_weights_of_large_exports_lie_beside_the_graph(tmp_path, monkeypatch, dynamic):
    monkeypatch.setattr("lensmount_networks.network.EMBEDDED_BYTES", 5_000)
    path, _ = saved(tmp_path, "boxes")
    out = tmp_path / "sub" / "large.onnx"
    out.parent.mkdir()
    registry.export(path, to="onnx", output=out, settings={"input_size": 96}, dynamic=dynamic)
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["large.onnx", "large.onnx.data"]
    held = sum(array.nbytes for array in load_network(path).folded().tensors.values() if array.nbytes > 1024)
    assert out.with_name("large.onnx.data").stat().st_size >= held
    moved = out.parent.rename(tmp_path / "moved") / out.name
    graph, weights = registry.load(moved, backend="onnx"), registry.load(path, backend="torch", input_size=96)
    picture = np.random.default_rng(2).random((1, 3, 96, 96), np.float32)
    assert np.abs(graph.forward(picture)["output0"] - weights.forward(picture)["output0"]).max() <= 2e-3


def test_fixed_exports_say_all_their_sizes(tmp_path):
    path, _ = saved(tmp_path, "boxes")
    out = registry.export(path, to="onnx", output=tmp_path / "out.onnx", settings={"input_size": 96}, batch=2)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [tuple(spec.shape) for spec in session.get_inputs()] == [(2, 3, 96, 96)]
    assert [tuple(spec.shape) for spec in session.get_outputs()] == [(2, 7, 144 + 36 + 9)]


def test_export_names_what_it_needs(tmp_path, monkeypatch):
    path, _ = saved(tmp_path, "boxes")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="onnxruntime"):
        registry.export(path, to="onnx", output=tmp_path / "out.onnx")
