"""TFLite graphs as ONNX graphs: every operator gives what LiteRT gives, and files that lie are refused, soon."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from lensmount.errors import LensmountError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_mediapipe.conversion import convert
from lensmount_mediapipe.operators import OPERATORS, windows
from tflite_bytes import Graph, Ints, Scalar, convolution, i8, i32
from tiny_faces import VARIANTS, tiny_face

ort = pytest.importorskip("onnxruntime")

TRUE = Scalar("?", True)


def on_onnx(path, feeds):
    graph = convert(path)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    kept = [ort.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    if kept:
        options.add_external_initializers(list(graph.initializers), kept)
    session = ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def on_litert(path, feeds):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    made = interpreter.Interpreter(
        model_content=path.read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    for detail in made.get_input_details():
        made.set_tensor(detail["index"], feeds[detail["name"]])
    made.invoke()
    return {detail["name"]: made.get_tensor(detail["index"]) for detail in made.get_output_details()}


class Steps:
    """A graph of one picture, built step by step."""

    def __init__(self, shape, seed=0):
        self.rng = np.random.default_rng(seed)
        self.graph = Graph()
        self.x = self.graph.tensor(shape, name="x")
        self.graph.inputs = [self.x]
        self.shape = shape

    def constant(self, shape):
        return self.graph.constant(self.rng.normal(size=shape).astype(np.float32))

    def add(self, code, inputs, shape, options=None, kind=1):
        y = self.graph.tensor(shape)
        self.graph.operator(code, inputs, [y], options, kind=kind)
        return y

    def bytes(self, *outputs):
        for number in outputs:
            self.graph.tensors[number][3] = f"y{number}"
        self.graph.outputs = list(outputs)
        return self.graph.write()


def convolutions(deep, same, stride, gap, kernel, activation):
    height, width, channels, made = 11, 14, 3, 6
    steps = Steps((1, height, width, channels))
    rows, columns = (windows(size, k, stride, gap, same)[0] for size, k in ((height, kernel), (width, kernel + 1)))
    shape = (1, kernel, kernel + 1, made) if deep else (made, kernel, kernel + 1, channels)
    inputs = [steps.x, steps.constant(shape), steps.constant((made,))]
    options = {0: i8(0 if same else 1), 1: i32(stride), 2: i32(stride)}
    options |= (
        {3: i32(2), 4: i8(activation), 5: i32(gap), 6: i32(gap)}
        if deep
        else {3: i8(activation), 4: i32(gap), 5: i32(gap)}
    )
    return steps.bytes(steps.add(4 if deep else 3, inputs, (1, rows, columns, made), options, 2 if deep else 1))


def pools(code, same, kernel, stride):
    steps = Steps((1, 9, 12, 4))
    rows, columns = (windows(size, kernel, stride, 1, same)[0] for size in (9, 12))
    options = {0: i8(0 if same else 1), 1: i32(stride), 2: i32(stride), 3: i32(kernel), 4: i32(kernel)}
    return steps.bytes(steps.add(code, [steps.x], (1, rows, columns, 4), options, 5))


def resized(aligned, halves, size):
    steps = Steps((1, 5, 7, 2))
    to = steps.graph.constant(np.array(size, np.int32))
    options = {number: TRUE for number, wanted in ((2, aligned), (3, halves)) if wanted}
    return steps.bytes(steps.add(23, [steps.x, to], (1, *size, 2), options, 15))


def pair(code, kind, other, activation=0):
    steps = Steps((1, 5, 6, 3))
    y = steps.constant(other) if other else steps.x
    return steps.bytes(steps.add(code, [steps.x, y], (1, 5, 6, 3), {0: i8(activation)}, kind))


def after_a_convolution(code, kind, shape, options, *constants, to=None):
    """A step on what a convolution gives: in the order that ONNX's convolutions have."""
    steps = Steps((1, 8, 6, 3))
    inputs = [steps.x, steps.constant((8, 1, 1, 3)), steps.constant((8,))]
    y = steps.add(3, inputs, (1, 8, 6, 8), {0: i8(0), 1: i32(1), 2: i32(1)})
    more = [steps.graph.constant(array) for array in constants]
    return steps.bytes(steps.add(code, [y, *more], shape, options, kind))


def joined(axis):
    steps = Steps((1, 4, 5, 6))
    y = steps.add(19, [steps.x], (1, 4, 5, 6))
    inputs = [y, steps.constant((8, 1, 1, 6)), steps.constant((8,))]
    z = steps.add(3, inputs, (1, 4, 5, 8), {0: i8(0), 1: i32(1), 2: i32(1)}) if axis in (3, -1) else steps.x
    sizes = [1, 4, 5, 6]
    sizes[axis] = sizes[axis] * 2 if z == steps.x else 14
    return steps.bytes(steps.add(2, [y, z], tuple(sizes), {0: i32(axis)}, 10))


def stored(sparse):
    """Weights in half, and sparsely: what is undone before a run."""
    from tflite_bytes import Scalar as Number

    steps = Steps((1, 6, 6, 3))
    weights = steps.rng.normal(size=(4, 1, 1, 3)).astype(np.float16)
    fields = {}
    data = weights
    if sparse:
        kept = np.ones((4, 3), bool)
        kept[1, :2] = kept[3, 0] = False
        weights[:, 0, 0][~kept] = 0
        data = weights[:, 0, 0][kept]
        level = {0: i8(1), 2: Number("B", 1), 3: {0: Ints(np.r_[0, kept.sum(1).cumsum()].tolist())}}
        level |= {4: Number("B", 1), 5: {0: Ints(np.nonzero(kept)[1].tolist())}}
        flat = [{0: i8(0), 1: i32(size)} for size in (4, 1, 1)]
        fields = {"f6": {0: Ints([0, 1, 2, 3]), 2: [*flat, level]}}
    kernel = steps.graph.tensor(weights.shape, "float16", data=data, **fields)
    if sparse:
        dense = steps.graph.tensor(weights.shape, "float16")
        steps.graph.operator(124, [kernel], [dense], {}, kind=99)
        kernel = dense
    wide = steps.add(6, [kernel], weights.shape, {}, 38)
    inputs = [steps.x, wide, steps.constant((4,))]
    return steps.bytes(steps.add(3, inputs, (1, 6, 6, 4), {0: i8(0), 1: i32(1), 2: i32(1)}))


CASES = {
    **{
        f"{'depthwise' if deep else 'conv'} same={same} stride={stride} gap={gap} kernel={kernel} act={act}": (
            convolutions(deep, same, stride, gap, kernel, act)
        )
        for deep in (False, True)
        for same in (False, True)
        for stride, gap, kernel, act in ((1, 1, 1, 0), (2, 1, 3, 1), (2, 1, 4, 3), (1, 2, 3, 0), (3, 1, 5, 2))
    },
    **{
        f"pool {code} same={same} {kernel}/{stride}": pools(code, same, kernel, stride)
        for code in (1, 17)
        for same in (False, True)
        for kernel, stride in ((2, 2), (3, 2), (3, 1))
    },
    **{
        f"resize aligned={aligned} halves={halves} {size}": resized(aligned, halves, size)
        for aligned, halves in ((False, False), (True, False), (False, True))
        for size in ((10, 14), (8, 9), (3, 4))
    },
    "add": pair(0, 11, None),
    "add one for each channel": pair(0, 11, (3,), activation=1),
    "add a picture": pair(0, 11, (1, 5, 6, 3), activation=2),
    "add a column": pair(0, 11, (1, 5, 1, 1)),
    "mul": pair(18, 21, (3,)),
    "mul a number": pair(18, 21, (1,), activation=3),
    "sub": pair(41, 28, (6, 3)),
    "relu": after_a_convolution(19, 1, (1, 8, 6, 8), None),
    "relu6": after_a_convolution(21, 1, (1, 8, 6, 8), None),
    "logistic": after_a_convolution(14, 1, (1, 8, 6, 8), None),
    "tanh": after_a_convolution(28, 1, (1, 8, 6, 8), None),
    "add after a convolution": after_a_convolution(0, 11, (1, 8, 6, 8), {}, np.arange(8, dtype=np.float32)),
    "prelu": after_a_convolution(54, 1, (1, 8, 6, 8), None, np.linspace(-1, 1, 8, dtype=np.float32).reshape(1, 1, 8)),
    "pad": after_a_convolution(34, 22, (1, 9, 9, 11), {}, np.array([[0, 0], [0, 1], [2, 1], [0, 3]], np.int32)),
    "reshape": after_a_convolution(22, 17, (1, 96, 4), {0: Ints([1, 96, 4])}, np.array([1, 96, 4], np.int32)),
    "depth to space": after_a_convolution(5, 94, (1, 16, 12, 2), {0: i32(2)}),
    **{f"join along {axis}": joined(axis) for axis in (1, 2, 3, -1)},
    "stored in half": stored(sparse=False),
    "stored sparsely": stored(sparse=True),
    **{f"tiny {variant}": tiny_face(variant) for variant in VARIANTS},
}


@pytest.fixture
def written(tmp_path):
    def write(data):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("name", CASES)
def test_operators_give_what_litert_gives(name, written):
    path = written(CASES[name])
    from lensmount_reading import read_tflite

    model = read_tflite(path)
    x = np.random.default_rng(1).normal(size=model.tensors[model.inputs[0]].shape).astype(np.float32)
    feeds = {model.tensors[model.inputs[0]].name: x}
    wanted, found = on_litert(path, feeds), on_onnx(path, feeds)
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        assert found[key].shape == array.shape
        np.testing.assert_allclose(found[key], array, atol=2e-5, rtol=1e-5)


def test_every_operator_is_tried():
    from lensmount_reading import read_tflite

    models = [read_tflite("a.tflite", content=data) for data in CASES.values()]
    kinds = {operator.kind for model in models for operator in model.operators}
    assert set(OPERATORS) == kinds


def test_a_convolution_by_numpy(written):
    """One without LiteRT: what stride, padding and channels mean."""
    path = written(convolution(size=8, channels=4).write())
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(4, 3, 3, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    x = np.random.default_rng(2).normal(size=(1, 8, 8, 3)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    wanted = np.zeros((1, 4, 4, 4), np.float32)
    for i in range(4):
        for j in range(4):
            window = padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            wanted[0, i, j] = np.maximum((weights * window).sum(axis=(1, 2, 3)) + bias, 0)
    np.testing.assert_allclose(on_onnx(path, {"input": x})["output"], wanted, atol=1e-4)


# --- refusals ---------------------------------------------------------------------------------------------------------


def edited(change):
    graph = convolution()
    change(graph)
    return graph.write()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda g: g.codes.__setitem__(0, 106), UnsupportedModelError, "not brought to ONNX"),
        (lambda g: g.operators[0].__setitem__(4, {0: i8(0), 1: i32(0), 2: i32(2)}), ModelFileError, "steps"),
        (lambda g: g.operators[0].__setitem__(4, {1: i32(2), 2: i32(2), 3: i8(9)}), ModelFileError, "activation 9"),
        (lambda g: g.operators[0].__setitem__(4, {1: i32(1), 2: i32(1)}), ModelFileError, "an output of shape"),
        (lambda g: g.operators[0].__setitem__(1, Ints([0, 0, 2])), ModelFileError, "computed weights"),
        (lambda g: g.operators[0].__setitem__(1, Ints([3, 1, 2])), ModelFileError, "before it is made"),
        (lambda g: g.operators[0].__setitem__(2, Ints([0])), ModelFileError, "there already"),
        (lambda g: g.operators.append(g.operators[0]), ModelFileError, "there already"),
        (lambda g: g.tensors[2].__setitem__(0, Ints([2, 2])), ModelFileError, "a bias"),
        (lambda g: g.tensors[0].__setitem__(1, i8(9)), UnsupportedModelError, "float32"),
        (lambda g: g.tensors[0].__setitem__(7, Ints([-1, 8, 8, 3])), UnsupportedModelError, "open"),
        (lambda g: g.tensors[0].__setitem__(0, Ints([1, 1 << 14, 1 << 14, 3])), UnsafeFileError, "refused"),
        (lambda g: g.tensors[3].__setitem__(0, Ints([1] * 9)), UnsafeFileError, "refused"),
    ],
)
def test_graphs_that_contradict_themselves(change, error, said, written):
    with pytest.raises(error, match=said):
        convert(written(edited(change)))


def test_a_small_file_that_unfolds_without_end(written):
    """Sparse weights of a few bytes and a large shape are refused before they are made."""
    steps = Steps((1, 2, 2, 1))
    huge = (1 << 13, 1 << 12, 1, 1)
    levels = [{0: i8(0), 1: i32(size)} for size in huge]
    numbers = []
    for _ in range(3):
        sparse = steps.graph.tensor(huge, "float16", data=np.zeros(1, np.float16), f6={0: Ints(range(4)), 2: levels})
        numbers.append(steps.add(124, [sparse], huge, {}, 99))
    start = time.perf_counter()
    with pytest.raises(ModelFileError):
        convert(written(steps.bytes(*numbers)))
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_end_soon(seed, written):
    """Changed bytes and cuts give a graph or a typed error: no other exception, and no run without end."""
    rng = random.Random(seed)
    names = [name for name in CASES if not name.startswith("tiny")]
    refused = 0
    for _ in range(120):
        data = bytearray(CASES[rng.choice(names)])
        for _ in range(rng.choice((1, 1, 2, 8))):
            at = rng.randrange(len(data))
            data[at] = rng.choice((0, 1, 0xFF, 0x7F, 0x80, rng.randrange(256)))
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        start = time.perf_counter()
        try:
            convert(written(bytes(data)))
        except LensmountError as error:
            assert isinstance(error, ModelFileError), error
            refused += 1
        assert time.perf_counter() - start < 5
    assert refused
