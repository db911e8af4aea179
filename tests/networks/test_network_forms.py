"""One network in its two forms: a real torch module, and a graph whose constants are those of the file."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lensmount.contracts import TensorSpec
from lensmount.errors import UnsupportedModelError
from lensmount_networks import Graph, Layer, Network, fitting, ops
from lensmount_networks.layers import BatchNorm2d, Conv2d, Layers, Linear, Sequential, declared, parameter

IN, OUT = TensorSpec("x", ("batch", 3, 8, 8), "float32"), TensorSpec("y", ("batch", 5), "float32")


class Tiny(Layer):
    """A convolution, a normalisation, two linear layers."""

    def __init__(self) -> None:
        self.stem = Sequential(Conv2d(3, 4, 3, 2, 1, bias=False), BatchNorm2d(4))
        self.heads = Layers(Linear(4, 5) for _ in range(2))
        self.gain = parameter(5)
        self.extra = None

    def forward(self, x):
        x = ops.relu(self.stem(x)).mean((2, 3))
        return sum(head(x) for head in self.heads[1:]) * self.gain + self.heads[0](x)


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {name: random.random(d.shape, dtype=np.float32) + 0.1 for name, _, _, d in declared(Tiny())}


def network(tensors=None) -> Network:
    return Network(layer=Tiny, tensors=tensors or arrays(), inputs=(IN,), outputs=(OUT,), metadata={"kind": "tiny"})


def test_the_torch_form_is_a_module() -> None:
    torch = pytest.importorskip("torch")
    tensors = arrays()
    module = network(tensors).torch().module
    assert isinstance(module, torch.nn.Module) and isinstance(module, Tiny) and type(module).__name__ == "Tiny"
    assert list(module.state_dict()) == list(tensors)
    assert {name for name, _ in module.named_buffers()} == {"stem.1.running_mean", "stem.1.running_var"}
    assert {name for name, _ in module.named_children()} == {"stem", "heads"}
    assert module.gain.data_ptr() == tensors["gain"].ctypes.data  # no copy
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert module.double().gain.dtype == torch.float64 and module.half().stem[0].weight.dtype == torch.float16
    module.float().load_state_dict({name: torch.zeros_like(value) for name, value in module.state_dict().items()})
    assert module(torch.ones(2, 3, 8, 8)).abs().max() == 0


def test_the_torch_form_learns() -> None:
    torch = pytest.importorskip("torch")
    module = network().torch().module.train().requires_grad_(True)
    before = module.stem[1].running_mean.clone()
    seen = []
    module.heads[0].register_forward_hook(lambda *_: seen.append(1))
    module(torch.rand(2, 3, 8, 8)).square().mean().backward()
    assert seen == [1] and all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    assert not torch.equal(before, module.stem[1].running_mean)  # the batch's statistics were taken


@pytest.mark.slow
def test_the_torch_form_compiles() -> None:
    torch = pytest.importorskip("torch")
    module = network().torch().module
    x = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        whole = torch.compile(module, fullgraph=True, backend="eager")
        assert torch.equal(whole(x), module(x))


def test_a_graph_holds_the_constants_of_the_file() -> None:
    tensors = arrays() | {"heads.0.weight": np.zeros((5, 4), np.float32)}

    class Wide(Layer):
        def __init__(self) -> None:
            self.weight = parameter(700, 5)
            self.unused = parameter(700, 5)

        def forward(self, x):
            return ops.linear(x, self.weight[:600])

    weights = {"weight": np.random.default_rng(0).random((700, 5), dtype=np.float32)}
    graph = Network(
        layer=Wide,
        tensors=weights | {"unused": weights["weight"]},
        inputs=(TensorSpec("x", ("n", 5), "float32"),),
        outputs=(TensorSpec("y", ("n", 600), "float32"),),
    ).graph()
    (held,) = graph.initializers.values()
    assert held.shape == (600, 5) and np.shares_memory(held, weights["weight"])
    assert len(graph.model) < 1000
    assert network(tensors).graph().initializers == {}  # small ones lie in the model


def test_written_files_open(tmp_path, monkeypatch) -> None:
    """Alone, and with their constants in a second file; with a fixed batch where one is asked for."""
    ort = pytest.importorskip("onnxruntime")
    from lensmount_networks import graph
    from lensmount_networks import network as module

    x = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    network().save(tmp_path / "one.onnx")
    monkeypatch.setattr(graph, "EMBEDDED", 16)
    monkeypatch.setattr(module, "EMBEDDED_BYTES", 0)
    network().save(tmp_path / "two.onnx", {"batch": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.onnx", "two.onnx", "two.onnx.data"]
    sessions = [ort.InferenceSession(str(tmp_path / f"{name}.onnx")) for name in ("one", "two")]
    assert [session.get_inputs()[0].shape for session in sessions] == [["batch", 3, 8, 8], [2, 3, 8, 8]]
    assert [session.get_modelmeta().custom_metadata_map for session in sessions] == [{"kind": "tiny"}] * 2
    first, second = (session.run(None, {"x": x})[0] for session in sessions)
    assert np.array_equal(first, second) and first.std() > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gain": None}, "missing: gain"),
        ({"other": np.zeros(1, np.float32)}, "not expected: other"),
        ({"gain": np.zeros(4, np.float32)}, r"of another shape: gain \(4,\) instead of \(5,\)"),
    ],
)
@pytest.mark.parametrize("form", ["graph", "torch"])
def test_tensors_of_another_network_are_refused(changes, said: str, form: str, tmp_path) -> None:
    if form == "torch":
        pytest.importorskip("torch")
    tensors = {name: value for name, value in (arrays() | changes).items() if value is not None}
    with pytest.raises(UnsupportedModelError, match=said), fitting(tmp_path / "w.pt", "a Tiny"):
        getattr(network(tensors), form)()


def test_outputs_are_those_declared() -> None:
    wrong = Network(layer=Tiny, tensors=arrays(), inputs=(IN,), outputs=(TensorSpec("y", ("batch", 6), "float32"),))
    with pytest.raises(ValueError, match="'y' is float32"):
        wrong.graph()


def test_what_a_graph_cannot_know_is_refused() -> None:
    graph = Graph()
    x = graph.input(TensorSpec("x", ("batch", 4), "float32"))
    with pytest.raises(TypeError, match="is free"):
        range(x.shape[0])
    with pytest.raises(TypeError, match="choose with ops"):
        bool(x > 0)
    with pytest.raises(TypeError, match="two dtypes"):
        x + ops.arange(4, like=x, dtype="int64")
    with pytest.raises(TypeError, match="do not go together"):
        x + ops.full((3,), 1.0, like=x)
    with pytest.raises(TypeError, match=r"ops\.gather"):
        x[x > 0]


def test_equal_nodes_are_written_once_and_unused_ones_not_at_all() -> None:
    graph = Graph(["y"])
    x = graph.input(TensorSpec("x", ("batch", 4), "float32"))
    ops.exp(x)
    made = ops.sin(x) + ops.sin(x)
    assert [node.operator for node in graph.nodes] == ["Exp", "Sin", "Add"]
    written = graph.finish([made], [TensorSpec("y", ("batch", 4), "float32")])
    assert b"Exp" not in written.model and b"Sin" in written.model


def test_a_graph_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['onnx'] = None\n"
        "import lensmount_networks; assert 'numpy' not in sys.modules\n"
        "import numpy as np\n"
        "from lensmount.contracts import TensorSpec as S\n"
        "from lensmount_networks import Network\n"
        "from lensmount_networks.layers import Linear\n"
        "w = {'weight': np.ones((4, 3), np.float32), 'bias': np.ones(4, np.float32)}\n"
        "io = dict(inputs=(S('x', ('n', 3), 'float32'),), outputs=(S('y', ('n', 4), 'float32'),))\n"
        "print(len(Network(layer=lambda: Linear(3, 4), tensors=w, **io).graph().model))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100
