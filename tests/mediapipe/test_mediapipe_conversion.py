"""TFLite graphs as ONNX graphs: every operator gives what LiteRT gives, and files that lie are refused, soon."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from lensmount.errors import LensmountError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_mediapipe.conversion import convert
from lensmount_mediapipe.operators import OPERATORS
from tflite_bytes import Ints, convolution, i8, i32
from tflite_cases import CASES, Steps

ort = pytest.importorskip("onnxruntime")


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
