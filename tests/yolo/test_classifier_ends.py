"""Classifiers' graphs end with softmax, without it, with its parts or with something else: probabilities come out."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from lensmount import registry  # noqa: E402
from lensmount.errors import OptionError  # noqa: E402
from lensmount_reading import read_onnx  # noqa: E402
from lensmount_vision.models.numbers import NotFiniteError  # noqa: E402

LOGITS = np.array([1.0, 5.0, -2.0, 2.0], np.float32)
SHARES = np.exp(LOGITS - LOGITS.max())
SOFTMAX = (SHARES / SHARES.sum()).astype(np.float32)
SIGMOID = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)
PICTURE = np.zeros((40, 60, 3), np.uint8)

# Nodes behind the logits `z`, each `(operator, inputs, output, attributes)`; the last output is the graph's.
ENDS = {
    "none": [],
    "softmax": [("Softmax", ["z"], "o", {"axis": 1})],
    "log-softmax": [("LogSoftmax", ["z"], "o", {"axis": 1})],
    "sigmoid": [("Sigmoid", ["z"], "o", {})],
}
PARTS = {
    "softmax": [("Exp", ["z"], "e", {}), ("ReduceSum", ["e", "axis"], "s", {}), ("Div", ["e", "s"], "o", {})],
    "softmax of shifted": [
        ("ReduceMax", ["z"], "top", {"axes": [1]}),
        ("Sub", ["z", "top"], "low", {}),
        ("Exp", ["low"], "e", {}),
        ("ReduceSum", ["e", "axis"], "s", {}),
        ("Clip", ["s", "tiny"], "s1", {}),
        ("Div", ["e", "s1"], "o", {}),
    ],
    "softmax by logarithm": [("LogSoftmax", ["z"], "l", {"axis": 1}), ("Exp", ["l"], "o", {})],
    "log-softmax": [("Softmax", ["z"], "s", {"axis": 1}), ("Log", ["s"], "o", {})],
    "log-softmax by sum": [
        ("Exp", ["z"], "e", {}),
        ("ReduceSum", ["e", "axis"], "s", {}),
        ("Log", ["s"], "l", {}),
        ("Sub", ["z", "l"], "o", {}),
    ],
    "log-softmax by reduction": [("ReduceLogSumExp", ["z"], "l", {"axes": [1]}), ("Sub", ["z", "l"], "o", {})],
    "sigmoid": [
        ("Neg", ["z"], "n", {}),
        ("Exp", ["n"], "e", {}),
        ("Add", ["e", "one"], "a", {}),
        ("Div", ["one", "a"], "o", {}),
    ],
}
BEHIND = {
    "": [],
    "Identity": [("Identity", {})],
    "Cast": [("Cast", {"to": TensorProto.FLOAT})],
    "Reshape": [("Reshape", {})],
    "Flatten": [("Flatten", {})],
    "Dropout": [("Dropout", {})],
    "Cast and back": [("Cast", {"to": TensorProto.DOUBLE}), ("Cast", {"to": TensorProto.FLOAT}), ("Identity", {})],
    "quantised": [("QuantizeLinear", {}), ("DequantizeLinear", {})],
    "many": [("Identity", {})] * 12,
}


def write(path, nodes, behind=(), logits=LOGITS):
    """A graph that gives the logits of each picture, with nodes and operators that change no value behind them."""
    made = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["mean", "nought"], ["blank"]),
        helper.make_node("Flatten", ["blank"], ["flat"]),
        helper.make_node("Add", ["flat", "logits"], ["z"]),
    ]
    last = "z"
    for operator, inputs, output, attributes in nodes:
        made.append(helper.make_node(operator, inputs, [output], **attributes))
        last = output
    for index, (operator, attributes) in enumerate(behind):
        more = {"Reshape": ["shape"], "QuantizeLinear": ["step", "zero"], "DequantizeLinear": ["step", "zero"]}
        made.append(helper.make_node(operator, [last, *more.get(operator, [])], [f"p{index}"], **attributes))
        last = f"p{index}"
    made.append(helper.make_node("Identity", [last], ["output0"]))
    constants = {
        "nought": np.zeros((), np.float32),
        "logits": logits[None],
        "axis": np.array([1], np.int64),
        "tiny": np.float32(1e-12),
        "one": np.ones((1,), np.float32),
        "shape": np.array([-1, len(logits)], np.int64),
        "step": np.float32(1 / 16),
        "zero": np.int8(0),
    }
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", len(logits)])
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(made, "g", [images], [output], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in {"task": "classify", "names": "{0:'a',1:'b',2:'c',3:'d'}", "imgsz": "[32, 32]"}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, str(path))
    return path


def probabilities(path, **options):
    with registry.load(path, backend="onnx", device="cpu", **options) as model:
        return [result.probabilities for result in model([PICTURE, PICTURE])]


def check(path, end, tolerance=1e-6):
    assert read_onnx(path).activations == {"output0": end}
    expected = SIGMOID if end == "sigmoid" else SOFTMAX
    for row in probabilities(path):
        np.testing.assert_allclose(row, expected, atol=tolerance)


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("end", ENDS)
def test_ends(tmp_path, end, behind):
    path = write(tmp_path / "m.onnx", ENDS[end], BEHIND[behind])
    # A step of 1/16 of a logit or a probability.
    check(path, end, 0.04 if behind == "quantised" else 1e-6)


@pytest.mark.parametrize("name", PARTS)
def test_parts(tmp_path, name):
    check(write(tmp_path / "m.onnx", PARTS[name]), name.partition(" ")[0])


SAYS = {"none": "softmax", "log-softmax": "logarithms", "sigmoid": "of its own"}


@pytest.mark.parametrize(("end", "says"), SAYS.items())
def test_the_card_says_so(tmp_path, end, says):
    card = registry.describe(write(tmp_path / "m.onnx", ENDS[end]))
    assert any(says in note for note in card.notes)
    assert not any("softmax" in note for note in registry.describe(write(tmp_path / "s.onnx", ENDS["softmax"])).notes)


def test_the_mean_of_two_softmaxes_stays(tmp_path):
    two = [
        ("Softmax", ["z"], "s", {"axis": 1}),
        ("Softmax", ["z"], "t", {"axis": 1}),
        ("Mean", ["s", "t"], "o", {}),
    ]
    path = write(tmp_path / "m.onnx", two)
    assert read_onnx(path).activations == {"output0": None}
    np.testing.assert_allclose(probabilities(path)[0], SOFTMAX, atol=1e-6)


def test_the_caller_has_the_last_word(tmp_path):
    path = write(tmp_path / "m.onnx", [])
    np.testing.assert_allclose(probabilities(path, activation="sigmoid")[0], SIGMOID, atol=1e-6)
    np.testing.assert_allclose(probabilities(path, activation="softmax")[0], SOFTMAX, atol=1e-6)
    with pytest.raises(NotFiniteError, match="no probabilities"):
        probabilities(path, activation="none")
    with pytest.raises(OptionError, match="activation"):
        probabilities(path, activation="tanh")


def test_large_logits_do_not_overflow(tmp_path):
    path = write(tmp_path / "m.onnx", [], logits=np.array([900.0, -900.0, 0.0, 899.0], np.float32))
    np.testing.assert_allclose(probabilities(path)[0], [0.7310586, 0, 0, 0.26894143], atol=1e-6)


def test_a_classifier_of_logits(reference_data):
    path = reference_data / "cases" / "onnx" / "cls_logits.onnx"
    (result,) = registry.load(path)(PICTURE)
    expected = np.exp([1.0, 5.0, 2.0]) / np.exp([1.0, 5.0, 2.0]).sum()
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-6)
