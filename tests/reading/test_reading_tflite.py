"""TFLite files are read without a runtime: what is in them, and that no damage gets past the reader."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile

import numpy as np
import pytest

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import inspect_file, read_tflite
from tflite_bytes import Graph, Ints, Scalar, convolution, i8, i32


@pytest.fixture
def written(tmp_path):
    def write(data, name="model.tflite"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_graph_is_read(dtype, written):
    model = read_tflite(written(convolution(dtype=dtype).write()))
    kinds = [operator.kind for operator in model.operators]
    assert kinds == (["CONV_2D"] if dtype == "float32" else ["DEQUANTIZE", "CONV_2D"])
    assert [model.tensors[i].shape for i in (*model.inputs, *model.outputs)] == [(1, 8, 8, 3), (1, 4, 4, 4)]
    options = model.operators[-1].options
    assert [options.integer(0, "int8"), options.integer(1), options.integer(2), options.integer(3, "int8")] == [
        0,
        2,
        2,
        1,
    ]
    assert options.integer(4, default=1) == 1
    rng = np.random.default_rng(0)
    kernel = next(tensor for tensor in model.tensors if tensor.name == "kernel")
    np.testing.assert_array_equal(model.constant(kernel.index), rng.normal(size=(4, 3, 3, 3)).astype(dtype))
    assert model.constant(model.inputs[0]) is None


def test_inspection_knows_it_by_content(written):
    facts = inspect_file(written(convolution(dtype="float16").write(), "anything.bin"))
    assert (facts.kind, facts.error, facts.precision) == ("tflite", None, "fp16")
    assert facts.inputs[0].shape == (1, 8, 8, 3)
    assert "a TFLite model" in facts.summary()
    assert {fact.dtype for fact in facts.tensors.values()} == {"float16", "float32"}


def test_whole_numbers_say_what_they_stand_for(written):
    graph = Graph()
    x = graph.tensor((1, 4), "int8", scale=0.5, zero=-3)
    graph.constant(np.ones((2, 4), np.int8), scale=[0.1, 0.2])
    graph.inputs = graph.outputs = [x]
    path = written(graph.write())
    first, second = read_tflite(path).tensors
    assert (first.quantisation.scales, first.quantisation.zero_points) == ((0.5,), (-3,))
    assert second.quantisation.scales == pytest.approx((0.1, 0.2))
    assert inspect_file(path).precision == "int8"


def test_free_sizes(written):
    graph = Graph()
    x = graph.tensor((1, 8, 8, 3), free=(-1, 8, 8, 3))
    graph.inputs = graph.outputs = [x]
    path = written(graph.write())
    assert read_tflite(path).tensors[0].shape == (-1, 8, 8, 3)
    assert inspect_file(path).inputs[0].shape == (None, 8, 8, 3)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [1, 4])
def test_sparse_constants(seed, block, written):
    """Rows that are stored compressed come back dense, with blocks of one and of four."""
    rng = np.random.default_rng(seed)
    rows, columns = 6, 8
    dense = rng.normal(size=(rows, columns)).astype(np.float32)
    kept = rng.random((rows, columns // block)) < 0.4
    dense *= np.repeat(kept, block, axis=1)
    segments = np.concatenate([[0], np.cumsum(kept.sum(1))]).tolist()
    indices = np.nonzero(kept)[1].tolist()
    stored = dense.reshape(rows, columns // block, block)[kept].reshape(-1)
    vector = lambda values: {0: Ints(values)}  # noqa: E731
    levels = [
        {0: i8(0), 1: i32(rows)},
        {0: i8(1), 2: Scalar("B", 1), 3: vector(segments), 4: Scalar("B", 1), 5: vector(indices)},
    ]
    sparsity = {0: Ints([0, 1]), 2: levels}
    if block > 1:
        sparsity = {0: Ints([0, 1, 2]), 1: Ints([1]), 2: [*levels, {0: i8(0), 1: i32(block)}]}
    graph = Graph()
    index = graph.tensor((rows, columns), data=stored.astype(np.float32), f6=sparsity)
    graph.inputs = graph.outputs = [graph.tensor((1,))]
    np.testing.assert_array_equal(read_tflite(written(graph.write())).constant(index), dense)


def test_metadata_behind_the_graph(written):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"task": "detect", "names": {"0": "cat"}}))
    facts = inspect_file(written(convolution().write() + buffer.getvalue()))
    assert facts.metadata == {"task": "detect", "names": '{"0": "cat"}'}


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"version": 2}, UnsupportedModelError, "another version"),
        ({"graphs": 2}, UnsupportedModelError, "several graphs"),
        ({"identifier": b"TFL2"}, ModelFileError, "no TFLite model"),
    ],
)
def test_other_forms_are_named(change, error, said, written):
    with pytest.raises(error, match=said):
        read_tflite(written(convolution().write(**change)))


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        (lambda graph: graph.tensors[0].update({0: Ints([1, -5, 8, 3])}), UnsafeFileError),
        (lambda graph: graph.tensors[0].update({0: Ints([1 << 20, 1 << 20, 1 << 20])}), UnsafeFileError),
        (lambda graph: graph.tensors[0].update({1: i8(99)}), UnsupportedModelError),
        (lambda graph: graph.tensors[1].update({2: Scalar("I", 999)}), ModelFileError),
        (lambda graph: graph.outputs.append(999), ModelFileError),
        (lambda graph: graph.inputs.clear(), ModelFileError),
        (lambda graph: graph.operators[0].update({1: Ints([77])}), ModelFileError),
        (lambda graph: graph.operators[0].update({0: Scalar("I", 9)}), ModelFileError),
    ],
)
def test_numbers_that_stand_for_nothing(edit, error, written):
    graph = convolution()
    edit(graph)
    with pytest.raises(error):
        read_tflite(written(graph.write()))


def test_constants_that_do_not_fit_their_shape(written):
    graph = convolution()
    graph.buffers[1] = graph.buffers[1][:-4]
    model = read_tflite(written(graph.write()))
    with pytest.raises(ModelFileError, match="do not fit"):
        model.constant(1)


def test_no_damage_is_more_than_a_typed_error(written):
    """Bytes and offsets are changed at random, files are cut: facts, or a `ModelFileError`; never anything else."""
    whole = convolution(dtype="float16").write()
    rng = random.Random(5)
    refused = 0
    for number in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 2, 5))):
            at = rng.randrange(8, len(data) - 4)
            if rng.random() < 0.5:
                data[at] = rng.randrange(256)
            else:
                struct.pack_into("<i", data, at, rng.choice((-1, 0, 1, 2**31 - 1, -(2**31), rng.randrange(len(data)))))
        if number % 7 == 0:
            del data[rng.randrange(8, len(data)) :]
        facts = inspect_file(written(bytes(data)))
        refused += facts.error is not None
        if facts.tflite is not None:
            for index in range(len(facts.tflite.tensors)):
                try:
                    facts.tflite.constant(index)
                except ModelFileError:
                    refused += 1
    assert refused > 300
