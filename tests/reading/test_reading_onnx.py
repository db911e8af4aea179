"""ONNX descriptions, against the onnx library; external data that lead elsewhere are refused."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from lensmount.errors import ModelFileError, UnsafeFileError
from lensmount_reading import check_external_data, inspect_file, read_checkpoint, read_onnx, require_usable

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  (after the check that onnx is there)


def value(name, dtype=TensorProto.FLOAT, shape=(1, "height", None)):
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes=(), initializers=(), inputs=None, outputs=None, **options):
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        inputs or [value("x")],
        outputs or [value("y")],
        list(initializers),
    )
    return helper.make_model(graph, **options)


def write(path, proto):
    path.write_bytes(proto.SerializeToString())
    return path


def test_what_the_library_writes_is_read(tmp_path):
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    half = helper.make_tensor("h", TensorProto.BFLOAT16, [2], [1.0, 2.0])
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(2), "inner"))],
        "then",
        [],
        [value("c", TensorProto.DOUBLE, (2,))],
    )
    nodes = [
        helper.make_node("MatMul", ["w", "x"], ["m"]),
        helper.make_node("If", ["k"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Gelu", ["m"], ["y"], domain="com.microsoft"),
        helper.make_node("Relu", ["m"], ["z"]),
        helper.make_node("Relu", ["z"], ["z2"], domain="ai.onnx"),
    ]
    function = helper.make_function(
        "mine",
        "F",
        ["a"],
        ["b"],
        [helper.make_node("Neg", ["a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    inputs = [
        value("x"),
        value("w", TensorProto.FLOAT, (4, 3)),
        value("k", TensorProto.BOOL, ()),
        value("u", TensorProto.UINT8, None),
    ]
    proto = model(
        nodes,
        [weights, half],
        inputs,
        [
            value("y", TensorProto.FLOAT16, (0, -1)),
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None),
        ],
        producer_name="tests",
        producer_version="1.2",
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
        functions=[function],
        ir_version=9,
    )
    helper.set_model_props(proto, {"names": "{0: 'ball'}", "stride": "32", "note": "naïve"})
    path = write(tmp_path / "m.bin", proto)
    facts = read_onnx(path)
    assert facts.ir_version == 9
    assert facts.opsets == {"": 17, "com.microsoft": 1}
    assert facts.producer == "tests 1.2"
    assert facts.metadata == {"names": "{0: 'ball'}", "stride": "32", "note": "naïve"}
    assert [(each.name, each.dtype, each.shape, each.ranked) for each in facts.inputs] == [
        ("x", "float32", (1, "height", None), True),
        ("k", "bool", (), True),
        ("u", "uint8", (), False),
    ]
    assert [(each.name, each.dtype, each.shape) for each in facts.outputs] == [
        ("y", "float16", (0, None)),
        ("s", "sequence", ()),
    ]
    assert {name: (fact.dtype, fact.shape) for name, fact in facts.initializers.items()} == {
        "w": ("float32", (4, 3)),
        "h": ("bfloat16", (2,)),
    }
    assert facts.operators == {
        "Constant": 2, "If": 1, "MatMul": 1, "Neg": 1, "Relu": 2, "com.microsoft::Gelu": 1
    }  # fmt: skip
    assert facts.custom_domains == ("com.microsoft",)
    assert facts.functions == ("mine::F",)
    found = inspect_file(path)
    assert (found.kind, found.precision, found.metadata["stride"]) == ("onnx", "fp32", "32")
    assert "x float32 1xheightx?" in found.summary()
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("dtype", [d for d in TensorProto.DataType.values() if d not in (0, 8)])
def test_every_element_type_has_the_name_that_onnx_gives_it(tmp_path, dtype):
    facts = read_onnx(write(tmp_path / "m", model(inputs=[value("x", dtype, (1,))])))
    expected = TensorProto.DataType.Name(dtype).lower()
    names = {"float": "float32", "double": "float64", "float8e8m0": "float8e8m0fnu"}
    assert facts.inputs[0].dtype.replace("_", "") == names.get(expected, expected).replace("_", "")


def test_quantised_graphs(tmp_path):
    path = write(tmp_path / "m", model([helper.make_node("ConvInteger", ["x", "x"], ["y"])]))
    assert inspect_file(path).precision == "int8"


def test_every_truncation_and_garbage(tmp_path):
    whole = model(initializers=[numpy_helper.from_array(np.ones(3), "w")]).SerializeToString()
    path = tmp_path / "m.onnx"
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        try:
            read_onnx(path)
        except ModelFileError:
            continue
        # A cut between two fields of the model leaves a model, for the library too.
        onnx.ModelProto.FromString(whole[:size])
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelFileError):
        require_usable(inspect_file(path))
    for data in (
        b"\x08",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x08\x07",
        b"\x08\x08\x3b",
        b"\x00" * 20,
    ):
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            read_onnx(path)
        assert inspect_file(path).error is not None


def test_graphs_that_nest_without_end(tmp_path):
    def field(number, content):
        size, length = len(content), b""
        while size >= 0x80:
            length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    for levels in (10, 40, 5000):
        graph = b""
        for _ in range(levels):
            graph = field(1, field(5, field(6, graph)))  # a node with an attribute that is a graph
        path = tmp_path / "m"
        path.write_bytes(b"\x08\x08" + field(7, graph))
        if levels == 10:
            assert read_onnx(path).operators == {"": 10}
            continue
        with pytest.raises(UnsafeFileError, match="nest deeper"):
            read_onnx(path)


def test_two_graphs(tmp_path):
    data = model().SerializeToString()
    (tmp_path / "m").write_bytes(data + data)
    with pytest.raises(UnsafeFileError, match="two graphs"):
        read_onnx(tmp_path / "m")


def external(location, name="w", size=4, **entries):
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[size], data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **entries}.items():
        if text is not None:
            tensor.external_data.add(key=key, value=str(text))
    return tensor


def test_external_data_are_found_wherever_they_hide(tmp_path):
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "i", [], [], [external("a", "1")])
    sparse = onnx.SparseTensorProto(values=external("b", "2"), indices=external("c", "3"), dims=[4])
    function = helper.make_function(
        "f", "F", [], ["o"], [helper.make_node("Constant", [], ["o"], value=external("d", "4"))], []
    )
    nodes = [
        helper.make_node("Loop", [], [], body=inner),
        helper.make_node("X", [], [], ts=[external("e", "5"), external("f", "6")], gs=[inner]),
        helper.make_node("Constant", [], ["q"], sparse_value=sparse),
    ]
    proto = model(nodes, [external("g", "7")], functions=[function])
    proto.graph.sparse_initializer.add().CopyFrom(
        onnx.SparseTensorProto(values=external("h", "8"), indices=external("i", "9"), dims=[4])
    )
    hidden = external("j", "10")
    hidden.data_location = TensorProto.DEFAULT  # entries without the mark count too
    proto.graph.initializer.append(hidden)
    training = proto.training_info.add()
    training.algorithm.initializer.append(external("k", "11"))
    facts = read_onnx(write(tmp_path / "m", proto))
    assert {each.location for each in facts.external_data} == set("abcdefghijk")


def test_external_data_that_are_there(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(64))
    (tmp_path / "sub" / "v.bin").write_bytes(bytes(16))
    tensors = [
        external("w.bin"),
        external("w.bin", "o", offset=48, length=16),
        external("sub/v.bin", "v"),
    ]
    facts = read_onnx(write(tmp_path / "m.onnx", model(initializers=tensors)))
    assert facts.external_data[1].offset == 48
    assert check_external_data(facts, tmp_path) == (
        (tmp_path / "w.bin").resolve(),
        (tmp_path / "sub" / "v.bin").resolve(),
    )


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd", "../secret.bin", "sub/../../secret.bin", "sub/../w.bin", "C:\\secret", "..\\secret.bin", "c:x",
        "\\\\host\\share\\x", "", ".", "a//b", "./w.bin", "w.bin\0", "*/_ORT_MEM_ADDR_/*", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_external_data_elsewhere_are_refused(tmp_path, location):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "w.bin", tmp_path / "secret.bin"):
        path.write_bytes(bytes(64))
    facts = read_onnx(write(folder / "m.onnx", model(initializers=[external(location)])))
    with pytest.raises(UnsafeFileError, match="lie elsewhere"):
        check_external_data(facts, folder)


@pytest.mark.parametrize(
    "entries",
    [{"offset": 1}, {"offset": 64}, {"length": 65}, {"offset": 60, "length": 8}, {"size": 17}, {"size": 2**60}],
)
def test_external_ranges_beyond_the_file(tmp_path, entries):
    (tmp_path / "w.bin").write_bytes(bytes(16 if entries.get("offset") == 1 else 64))
    facts = read_onnx(write(tmp_path / "m.onnx", model(initializers=[external("w.bin", **entries)])))
    with pytest.raises(UnsafeFileError):
        check_external_data(facts, tmp_path)


@pytest.mark.parametrize(
    "entries", [{"offset": -1}, {"offset": "0x10"}, {"length": "1e3"}, {"length": "٣"}, {"offset": "9" * 30}]
)
def test_external_numbers_that_are_none(tmp_path, entries):
    with pytest.raises(UnsafeFileError):
        read_onnx(write(tmp_path / "m.onnx", model(initializers=[external("w.bin", **entries)])))


def test_external_entries_without_or_with_two_locations(tmp_path):
    with pytest.raises(UnsafeFileError, match="no location"):
        read_onnx(write(tmp_path / "m.onnx", model(initializers=[external(None)])))
    twice = external("w.bin")
    twice.external_data.add(key="location", value="/etc/passwd")
    with pytest.raises(UnsafeFileError, match="same key twice"):
        read_onnx(write(tmp_path / "m.onnx", model(initializers=[twice])))


def test_missing_external_data(tmp_path):
    facts = read_onnx(write(tmp_path / "m.onnx", model(initializers=[external("w.bin")])))
    with pytest.raises(ModelFileError, match=r"w\.bin of the ONNX model is missing"):
        check_external_data(facts, tmp_path)
    (tmp_path / "w.bin").mkdir()
    with pytest.raises(UnsafeFileError):
        check_external_data(facts, tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_that_leave_the_folder(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "secret.bin").write_bytes(bytes(64))
    facts = read_onnx(write(folder / "m.onnx", model(initializers=[external("w.bin")])))
    (folder / "w.bin").symlink_to(other / "secret.bin")
    with pytest.raises(UnsafeFileError, match="a link"):
        check_external_data(facts, folder)
    assert check_external_data(facts, folder, allowed_roots=[other]) == ((other / "secret.bin").resolve(),)
    (folder / "w.bin").unlink()
    os.link(other / "secret.bin", folder / "w.bin")
    with pytest.raises(UnsafeFileError, match="hard links"):
        check_external_data(facts, folder)
    check_external_data(facts, folder, allowed_roots=[other])
    (other / "secret.bin").unlink()
    os.link(folder / "w.bin", folder / "again.bin")
    check_external_data(facts, folder)
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to("w.bin")
    with pytest.raises(ModelFileError):
        check_external_data(facts, folder)
    (folder / "w.bin").unlink()
    (folder / "sub").symlink_to(other)
    (other / "v.bin").write_bytes(bytes(64))
    facts = read_onnx(write(folder / "m.onnx", model(initializers=[external("sub/v.bin")])))
    with pytest.raises(UnsafeFileError, match="a link"):
        check_external_data(facts, folder)


def test_neither_onnx_nor_numpy_is_needed(tmp_path):
    path = write(tmp_path / "m.onnx", model())
    program = f"""
import sys
for name in ("onnx", "onnxruntime", "numpy", "torch", "google.protobuf"):
    sys.modules[name] = None
from lensmount_reading import inspect_file
assert inspect_file({str(path)!r}).inputs[0].name == "x"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_weights_are_skipped_not_loaded(tmp_path):
    import tracemalloc

    weights = numpy_helper.from_array(np.zeros(16 << 20, np.float32), "w")
    path = write(tmp_path / "m.onnx", model(initializers=[weights]))
    tracemalloc.start()
    assert read_onnx(path).initializers["w"].shape == (16 << 20,)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
