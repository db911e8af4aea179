"""Each operation on torch tensors and in a graph on onnxruntime: one code, one result, whatever is fixed or free."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from lensmount.contracts import TensorSpec
from lensmount_networks import Layer, Network, ops
from lensmount_networks.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Embedding,
    GroupNorm,
    LayerNorm,
    Linear,
    buffer,
    constant,
    declared,
    parameter,
)

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

SIX = np.arange(6, dtype=np.float32)
RANDOM = np.random.default_rng(7)


class Case(Layer):
    """A function as a layer."""

    def __init__(self, function, **parts) -> None:
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def floats(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def run_graph(graph, feeds):
    """A graph on onnxruntime, its large constants handed over by name."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    options.add_external_initializers(list(graph.initializers), values)
    session = ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def both(make, inputs, free, tolerance=2e-5):
    """Runs a layer in torch and as a graph whose axes `free` (input, axis) are free; the declared shapes hold, too."""
    layer = make()
    tensors = {
        name: np.abs(floats(*d.shape)) + 0.5 if name.endswith("running_var") else floats(*d.shape)
        for name, _, _, d in declared(layer)
        if d.array is None
    }
    specs = []
    for i, array in enumerate(inputs):
        shape = tuple(f"free{i}_{axis}" if (i, axis) in free else size for axis, size in enumerate(array.shape))
        specs.append(TensorSpec(f"x{i}", shape, str(array.dtype)))
    names = [TensorSpec("y", (), "float32")]
    network = Network(layer=make, tensors=tensors, inputs=tuple(specs), outputs=tuple(names))
    module = network.torch().module
    with torch.inference_mode():
        given = module(*(torch.from_numpy(array.copy()) for array in inputs))
    expected = [t.numpy() for t in (given if isinstance(given, tuple | list) else [given])]
    outputs = tuple(
        TensorSpec(f"y{i}", tuple(f"o{i}_{a}" for a in range(e.ndim)) if free else e.shape, str(e.dtype))
        for i, e in enumerate(expected)
    )
    graph = Network(layer=make, tensors=tensors, inputs=tuple(specs), outputs=outputs).graph()
    if not graph.initializers:  # the checker looks for their file
        onnx.checker.check_model(onnx.load_from_string(graph.model))
    found = run_graph(graph, {f"x{i}": array for i, array in enumerate(inputs)})
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == wanted.shape and got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)
    return graph


def axes(*inputs):
    """Which axes are free: none, the batch, all."""
    everything = {(i, axis) for i, array in enumerate(inputs) for axis in range(array.ndim)}
    return [set(), {(i, 0) for i in range(len(inputs))}, everything]


UNARY = {
    "relu": ops.relu, "leaky_relu": lambda x: ops.leaky_relu(x, 0.2), "elu": ops.elu, "silu": ops.silu,
    "gelu": ops.gelu, "hardswish": ops.hardswish, "softplus": ops.softplus, "sigmoid": ops.sigmoid,
    "tanh": ops.tanh, "erf": ops.erf, "exp": ops.exp, "sin": ops.sin, "cos": ops.cos, "abs": ops.abs,
    "floor": ops.floor, "ceil": ops.ceil, "clamp": lambda x: ops.clamp(x, -0.5, 0.5),
    "clamp_low": lambda x: ops.clamp(x, low=0.1), "clamp_high": lambda x: ops.clamp(x, high=0.1),
    "log": lambda x: ops.log(ops.abs(x) + 0.1), "sqrt": lambda x: ops.sqrt(ops.abs(x)),
    "softmax": ops.softmax, "softmax_1": lambda x: ops.softmax(x, 1), "neg": lambda x: -x, "power": lambda x: x**2,
    "exponent": lambda x: 3**x, "contiguous": lambda x: ops.contiguous(x.transpose(1, 3)),
    "numbers": lambda x: (2 - x) / 3 + 1 / (ops.abs(x) + 1.5) * 2 - 0.5, "reverse": lambda x: 1 - x,
    "mean": lambda x: x.mean(1), "mean_all": lambda x: x.mean((1, -1), keepdim=True), "sum": lambda x: x.sum(-1),
    "amax": lambda x: x.amax(-1, keepdim=True), "amin": lambda x: x.amin(1), "argmax": lambda x: x.argmax(-1),
    "int": lambda x: ops.cast(x * 3, "int64"), "half": lambda x: ops.cast(ops.cast(x, "float64"), "float32"),
    "flatten": lambda x: x.flatten(1), "flatten_all": lambda x: x.flatten(), "permute": lambda x: x.permute(0, 3, 1, 2),
    "transpose": lambda x: x.transpose(1, 2), "turned": lambda x: x.mT, "unsqueeze": lambda x: x.unsqueeze(-1),
    "squeeze": lambda x: x.mean(1, keepdim=True).squeeze(1), "last": lambda x: x[..., -1], "first": lambda x: x[:, 0],
    "none": lambda x: x[:, None, :, 1:3], "step": lambda x: x[:, ::2, 1::2], "cut": lambda x: x[:, :-1, :, -3:],
    "chunk": lambda x: tuple(x[..., :4].reshape(-1, 4).chunk(2, -1)), "concat": lambda x: ops.concat((x, x * 2), 1),
    "stack": lambda x: ops.stack((x, -x), -1), "stack_1": lambda x: ops.stack((x, -x), 1),
    "expand": lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1), "twice": lambda x: (x, x, x * 1),
    "split_heads": lambda x: x.reshape(x.shape[0], x.shape[1], 2, x.shape[2] // 2, x.shape[3]).transpose(2, 3),
    "rows": lambda x: x.reshape(-1, x.shape[-1]), "joined": lambda x: x.reshape(x.shape[0] * x.shape[1], -1),
    "windows": lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, -1).permute(0, 2, 1, 3).flatten(0, 1),
    "arange": lambda x: ops.arange(x.shape[1], like=x)[:, None, None] + x,
    "full": lambda x: ops.full((x.shape[0], 1, x.shape[2], x.shape[3]), 0.5, like=x) * x,
    "where": lambda x: ops.where((x > 0) & ~(x >= 1), x, -1.0), "equal": lambda x: ops.where(x == 0.0, 1.0, 0.0),
    "or": lambda x: ops.where((x < -1) | (x > 1), 0.0, x), "where_both": lambda x: ops.where(x < 0.1, x, x * 2),
    "not_equal": lambda x: ops.cast(x != 0.0, "float32"), "less_equal": lambda x: ops.cast(x <= 0.3, "int32"),
    "maximum": lambda x: ops.maximum(x, x[:, :1]), "minimum": lambda x: ops.minimum(x, x.mT.mT * 0.5),
    "topk": lambda x: ops.topk(x, 3), "topk_1": lambda x: ops.topk(x, 2, 1)[0],
    "take": lambda x: ops.take(x, ops.arange(2, like=x, dtype="int64") + 1, 1),
    "gather": lambda x: ops.gather(x, 3, ops.topk(x, 3, 3)[1]), "matmul": lambda x: x @ x.mT,
    "floor_division": lambda x: ops.cast(x * 9, "int64") // 4, "remainder": lambda x: ops.cast(x * 9, "int64") % 4,
    "put": lambda x: ops.put(x[0, 0], ops.arange(4, like=x, dtype="int64").reshape(2, 2), x[0, 0, 0, :2]),
    "sized": lambda x: x * x.shape[1], "pad": lambda x: ops.pad(x, (1, 2, 0, 1), value=0.5),
    "reflect": lambda x: ops.pad(x, (1, 2, 1, 0), "reflect"), "replicate": lambda x: ops.pad(x, (1, 2, 1, 0), "replicate"),  # noqa: E501
}  # fmt: skip


@pytest.mark.parametrize("free", [0, 1, 2], ids=["fixed", "batch", "free"])
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_tensor(name: str, free: int) -> None:
    x = floats(2, 4, 6, 5)
    both(lambda: Case(lambda layer, x: UNARY[name](x)), [x], axes(x)[free])


MAPS = {
    "nearest": lambda x: ops.resize(x, scale=2), "bilinear": lambda x: ops.resize(x, scale=2, mode="bilinear"),
    "to": lambda x: ops.resize(x, (9, 13), mode="bilinear"), "nearest_to": lambda x: ops.resize(x, (9, 13)),
    "corners": lambda x: ops.resize(x, (9, 13), mode="bilinear", align_corners=True),
    "bicubic": lambda x: ops.resize(x, (9, 13), mode="bicubic"), "smaller": lambda x: ops.resize(x, (3, 2), mode="bilinear"),  # noqa: E501
    "bicubic_smaller": lambda x: ops.resize(x, (3, 2), mode="bicubic"),
    "like": lambda x: ops.resize(x[:, :, ::2, ::2], x.shape[2:], mode="bilinear"),
    "max": lambda x: ops.max_pool2d(x, 5, 1, 2), "max_2": lambda x: ops.max_pool2d(x, 2),
    "max_ceil": lambda x: ops.max_pool2d(x, 3, 2, ceil=True), "mean": lambda x: ops.avg_pool2d(x, 2),
    "mean_pad": lambda x: ops.avg_pool2d(x, 3, 1, 1),
    "cells": lambda x: ops.concat((ops.arange(x.shape[3], like=x).expand(x.shape[2], x.shape[3]).flatten()[None],
                                   x[0, :1].flatten(1))),
}  # fmt: skip


@pytest.mark.parametrize("free", [0, 1, 2], ids=["fixed", "batch", "free"])
@pytest.mark.parametrize("name", MAPS)
def test_functions_of_feature_maps(name: str, free: int) -> None:
    x = floats(2, 4, 8, 7)
    both(lambda: Case(lambda layer, x: MAPS[name](x)), [x], axes(x)[free] - {(0, 1)}, 1e-4)


LAYERS = {
    "linear": (lambda: Linear(6, 40), (2, 5, 6)), "linear_2": (lambda: Linear(6, 4, bias=False), (5, 6)),
    "linear_4": (lambda: Linear(6, 300), (2, 3, 5, 6)), "layer_norm": (lambda: LayerNorm(6, 1e-6), (2, 5, 6)),
    "group_norm": (lambda: GroupNorm(2, 4), (2, 4, 5, 6)), "batch_norm": (lambda: BatchNorm2d(4, 1e-3), (2, 4, 5, 6)),
    "table": (lambda: Case(lambda s, x: x + s.t[1:3].reshape(-1) + s.c, t=parameter(4, 3), c=constant(SIX)), (5, 6)),
    "part": (lambda: Case(lambda s, x: ops.linear(x, s.w[4:], s.b[4:]) @ s.w[:6, :2].T.T, w=parameter(10, 6), b=buffer(10)), (2, 3, 6)),  # noqa: E501
    "fixed": (lambda: Case(lambda s, x: (s.w * 2).transpose(0, 1) @ s.w + x, w=parameter(600, 6)), (6, 6)),
    **{
        f"conv_{k}_{s}_{p}_{d}_{g}": (lambda k=k, s=s, p=p, d=d, g=g: Conv2d(4, 8, k, s, p, dilation=d, groups=g), (2, 4, 9, 8))  # noqa: E501
        for k, s, p, d, g in [(1, 1, 0, 1, 1), (3, 2, 1, 1, 1), (3, 1, 2, 2, 1), (3, 1, 1, 1, 4), ((3, 5), (1, 2), (1, 2), 1, 2)]  # noqa: E501
    },
    **{
        f"up_{k}_{s}_{p}_{o}": (lambda k=k, s=s, p=p, o=o: ConvTranspose2d(4, 6, k, s, p, output_padding=o), (2, 4, 5, 6))  # noqa: E501
        for k, s, p, o in [(2, 2, 0, 0), (4, 2, 1, 0), (3, 2, 1, 1)]
    },
}  # fmt: skip


@pytest.mark.parametrize("free", [0, 1], ids=["fixed", "batch"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, free: int) -> None:
    make, shape = LAYERS[name]
    x = floats(*shape)
    both(make, [x], set() if name == "fixed" else axes(x)[free], 1e-4)


@pytest.mark.parametrize("sides", [set(), {(0, 0), (0, 2), (0, 3)}], ids=["fixed", "free"])
def test_sizes_of_a_pyramid_agree(sides: set) -> None:
    x = floats(1, 4, 16, 24)

    def pyramid(layer, x):
        deep = layer.two(layer.one(x))
        return ops.concat((ops.resize(deep, scale=2), layer.one(x)), 1).flatten(2).transpose(1, 2)

    both(lambda: Case(pyramid, one=Conv2d(4, 8, 3, 2, 1), two=Conv2d(8, 8, 3, 2, 1)), [x], sides, 1e-4)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize(("padding", "corners"), list(itertools.product(["zeros", "border"], [True, False])))
def test_grid_sample(mode: str, padding: str, corners: bool) -> None:
    x, grid = floats(2, 3, 6, 5), (RANDOM.random((2, 4, 3, 2)) * 2.4 - 1.2).astype(np.float32)
    sample = lambda layer, x, g: ops.grid_sample(x, g, mode=mode, padding=padding, align_corners=corners)  # noqa: E731
    for free in axes(x, grid)[:2]:
        both(lambda: Case(sample), [x, grid], free, 1e-4)


@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "float", "scale"])
@pytest.mark.parametrize("free", [0, 1, 2], ids=["fixed", "batch", "free"])
def test_attention(kind: str, free: int) -> None:
    q, k, v = floats(2, 3, 7, 8), floats(2, 3, 7, 8), floats(2, 3, 7, 8)
    seen = RANDOM.random((2, 1, 7, 7)) > 0.4
    seen[..., 0] = True
    masks = {"bool": seen, "float": floats(2, 1, 7, 7)}
    inputs = [q, k, v, *([masks[kind]] if kind in masks else [])]
    settings = {"causal": {"causal": True}, "scale": {"scale": 0.3}}.get(kind, {})
    chosen = axes(*inputs)[free] - {(i, 3) for i in range(3)}
    both(lambda: Case(lambda s, *x: ops.attention(*x, **settings)), inputs, chosen)


def test_embedding_and_integers() -> None:
    ids = RANDOM.integers(0, 90, (2, 5))
    for free in axes(ids):
        both(lambda: Embedding(90, 6), [ids], free)


def test_where_of_two_numbers_and_infinity() -> None:
    x = floats(2, 4)
    x[:, 0] = 1.0
    both(lambda: Case(lambda s, x: ops.softmax(x + ops.where(x > 0, 0.0, -math.inf))), [x], set())


@pytest.mark.parametrize("free", [0, 1, 2], ids=["fixed", "batch", "free"])
def test_non_max_suppression(free: int) -> None:
    corner = RANDOM.random((2, 30, 2)).astype(np.float32) * 4
    boxes = np.concatenate((corner, corner + 1 + RANDOM.random((2, 30, 2)).astype(np.float32)), 2)
    scores = RANDOM.random((2, 3, 30)).astype(np.float32)
    suppress = lambda layer, b, s: ops.non_max_suppression(b, s, most=4, overlap=0.3, lowest=0.5)  # noqa: E731
    count = {}

    def kept(layer, b, s):
        """Rows that stay, as a map, since their order is the runtime's."""
        found = suppress(layer, b, s)
        count["rows"] = found.shape[0]
        return ops.put(s * 0, found, ops.full((found.shape[0],), 1.0, like=s))

    both(lambda: Case(kept), [boxes, scores], axes(boxes, scores)[free] - {(0, 2)})
    assert not isinstance(count["rows"], int)  # the graph was written last


WRONG = {
    "convolution": lambda x: ops.conv2d(x, x.graph.constant(np.zeros((8, 3, 1, 1), np.float32))),
    "groups": lambda x: ops.conv2d(x, x.graph.constant(np.zeros((5, 2, 1, 1), np.float32)), groups=2),
    "window": lambda x: ops.conv2d(x, x.graph.constant(np.zeros((8, 4, 9, 9), np.float32))),
    "pooling": lambda x: ops.max_pool2d(x, 9),
    "transposed": lambda x: ops.conv_transpose2d(x, x.graph.constant(np.zeros((3, 8, 2, 2), np.float32))),
    "linear": lambda x: ops.linear(x, x.graph.constant(np.zeros((8, 5), np.float32))),
    "normalisation": lambda x: ops.batch_norm(x, *[x.graph.constant(np.ones(3, np.float32))] * 4),
    "joined": lambda x: ops.concat((x, x[:, :, 1:]), 1), "product": lambda x: x @ x[:, :, 1:],
    "reshaped": lambda x: x.reshape(2, 5, 6, 6), "split": lambda x: x.split([1, 2], 1), "sum": lambda x: x + x[..., 1:],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_parts_that_do_not_fit_are_told_while_a_graph_is_written(name: str) -> None:
    """No runtime is needed to find out."""
    spec = TensorSpec("x", (2, 4, 6, 6), "float32")
    network = Network(layer=lambda: Case(lambda s, x: WRONG[name](x)), tensors={}, inputs=(spec,), outputs=())
    with pytest.raises(TypeError, match=r"do not|too few"):
        network.shapes({})
