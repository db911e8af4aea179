"""The litert backend beyond the contract: whole numbers with a scale, free sizes, refusals, and silence."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from lensmount.contracts import BackendOptions, Environment, OpenRequest
from lensmount.errors import (
    BackendError,
    DeviceError,
    ModelFileError,
    OptionError,
    UnsupportedModelError,
)
from lensmount.specs import Artifact, ModelPackage
from lensmount_litert.backend import probe
from lensmount_testing import GRAPHS
from tflite_bytes import Floats, Graph, Longs, convolution, i8, i32
from tflite_forms import quantised, tflite_form

pytest.importorskip("ai_edge_litert")
from lensmount_litert.backend import open_session


@pytest.fixture
def opened(tmp_path):
    sessions = []

    def open_(content, device="cpu", name="model.tflite", **options):
        path = tmp_path / name
        path.write_bytes(content)
        artifact = Artifact(name=name, uri=path.as_uri(), role="graph")
        package = ModelPackage(name="tflite", format="tflite", artifacts=(artifact,))
        request = OpenRequest(
            package=package, path=path, device=device, precision="fp32", options=BackendOptions(**options)
        )
        sessions.append(open_session(request))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_whole_numbers_are_given_and_taken_as_real_ones(dtype, opened):
    """`2 x` in steps of 0.5 and of 1: halves go away from zero, and what is out of range to its end."""
    zero = {"int8": -3, "uint8": 100, "int16": 0}[dtype]
    session = opened(quantised(dtype, scale=0.5, zero=zero))
    assert [(spec.name, spec.dtype) for spec in (*session.inputs, *session.outputs)] == [
        ("x", "float32"),
        ("y", "float32"),
    ]
    assert session.precision == "int8"
    found = session.run({"x": np.array([[1.5, 0.25, -0.25, 1e6]], np.float32)})["y"]
    top = (np.iinfo(dtype).max - zero) * 0.5
    assert found.dtype == np.float32
    top_out = min(top * 2, float(np.iinfo(dtype).max - zero))
    np.testing.assert_array_equal(found, [[3.0, 1.0, -1.0, top_out]])


def test_scales_of_several_channels_stay_whole(opened):
    """A scale for each index is a constant's: an edge of the graph with several is given as the file has it."""
    graph = Graph()
    x = graph.tensor((1, 2), "int8", name="x", f4={2: Floats([0.5, 0.25]), 3: Longs([0, 0]), 6: i32(1)})
    y = graph.tensor((1, 2), "float32", name="y")
    graph.operator(53, [x], [y], {0: i8(9), 1: i8(0)}, kind=37)
    graph.inputs, graph.outputs = [x], [y]
    assert opened(graph.write()).inputs[0].dtype == "int8"


def test_free_sizes_change_from_run_to_run(opened):
    session = opened(tflite_form(GRAPHS["scale"]), contexts=1)
    for batch in (1, 4, 2, 4):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 8, 8)).astype(np.float32)
        np.testing.assert_allclose(session.run({"images": x})["scaled"], np.maximum(2 * x - 1, 0), atol=1e-6)
    with pytest.raises(BackendError, match="nothing"):
        session.run({"images": np.zeros((0, 3, 8, 8), np.float32)})


def test_names_that_two_tensors_have(opened):
    graph = Graph()
    x, y = (graph.tensor((1, 2), name="same") for _ in range(2))
    z = graph.tensor((1, 2), name="sum")
    graph.operator(0, [x, y], [z], {}, kind=11)
    graph.inputs, graph.outputs = [x, y], [z]
    session = opened(graph.write())
    assert [spec.name for spec in session.inputs] == ["same:0", "same:1"]
    feeds = {"same:0": np.ones((1, 2), np.float32), "same:1": np.full((1, 2), 2, np.float32)}
    np.testing.assert_array_equal(session.run(feeds)["sum"], [[3, 3]])


def test_weights_in_half_compute_in_float32(opened):
    """Weights that are stored in half are widened: the runtime computes in float32, and says so."""
    session = opened(convolution(dtype="float16").write())
    assert session.precision == "fp32"
    x = np.random.default_rng(1).normal(size=(1, 8, 8, 3)).astype(np.float32)
    assert session.run({"input": x})["output"].dtype == np.float32


@pytest.mark.parametrize(
    ("name", "said"), [("FlexErf", "FlexErf"), ("TFLite_Detection_PostProcess_of_mine", "libraries of custom")]
)
def test_operators_of_others_are_refused(name, said, opened):
    graph = convolution()
    graph.codes = [32]
    data = graph.write()
    plain = opened
    with pytest.raises(UnsupportedModelError, match="does not bring"):
        plain(data)
    graph = _custom(name)
    with pytest.raises(UnsupportedModelError, match=said):
        plain(graph)


def _custom(name):
    import struct

    from tflite_bytes import Ints, Writer, u32

    graph = convolution()
    table = {0: graph.tensors, 1: Ints(graph.inputs), 2: Ints(graph.outputs), 3: graph.operators}
    codes = [{0: i8(32), 1: name, 3: i32(32)}]
    writer = Writer()
    writer.data += bytes(4) + b"TFL3"
    buffers = [{0: data} if data else {} for data in graph.buffers]
    start = writer.table({0: u32(3), 1: codes, 2: [table], 4: buffers})
    struct.pack_into("<I", writer.data, 0, start)
    return bytes(writer.data)


def test_an_operator_that_nobody_has(opened):
    graph = convolution()
    graph.codes = [9999]
    with pytest.raises(ModelFileError):
        opened(graph.write())


def test_shapes_that_do_not_go_together(opened):
    """What the reader cannot know is found when memory is laid out: at load, not in a run."""
    graph = Graph()
    x, w = graph.tensor((1, 8, 8, 3), name="x"), graph.constant(np.zeros((4, 3, 3, 5), np.float32))
    y = graph.tensor((1, 4, 4, 4), name="y")
    graph.operator(3, [x, w, graph.constant(np.zeros(4, np.float32))], [y], {0: i8(0), 1: i32(2), 2: i32(2)})
    graph.inputs, graph.outputs = [x], [y]
    with pytest.raises(ModelFileError, match="cannot be opened"):
        opened(graph.write())


def test_only_the_cpu(opened):
    content = tflite_form(GRAPHS["scale"])
    with pytest.raises(DeviceError):
        opened(content, device="cuda:0")
    with pytest.raises(OptionError, match="no tensors"):
        opened(content, device_path=True)


def test_a_file_that_is_rewritten_harms_nobody(opened, tmp_path):
    session = opened(tflite_form(GRAPHS["convolution"]))
    feeds = GRAPHS["convolution"].feeds()
    before = session.run(feeds)["maps"]
    with (tmp_path / "model.tflite").open("r+b") as file:
        file.truncate(0)
    np.testing.assert_array_equal(session.run(feeds)["maps"], before)
    fresh = [None]
    feeds = GRAPHS["convolution"].feeds(3)

    def other():  # a second interpreter, made from the same bytes
        fresh[0] = session.run(feeds)["maps"]

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert fresh[0].shape[0] == 3


def test_more_callers_than_contexts_wait(opened):
    """One interpreter at a time where `contexts` says so, and every caller gets its own answer."""
    session = opened(tflite_form(GRAPHS["convolution"]), contexts=1)
    made = []
    plain = session._make
    session._make = lambda: made.append(1) or plain()
    wrong = []

    def work(seed):
        feeds = GRAPHS["convolution"].feeds(2, seed)
        wanted = GRAPHS["convolution"].reference(feeds)["maps"]
        for _ in range(10):
            if not np.allclose(session.run(feeds)["maps"], wanted, atol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (made, wrong) == ([], [])


def test_nothing_is_printed(tmp_path):
    """LiteRT's own notes stay away from the terminal; what others write to it meanwhile does not get lost."""
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite_form(GRAPHS["convolution"]))
    code = (
        "import os, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from lensmount.contracts import OpenRequest\n"
        "from lensmount.specs import Artifact, ModelPackage\n"
        "from lensmount_litert.backend import open_session\n"
        "from lensmount_litert.quiet import without_notes\n"
        "path = Path(sys.argv[1])\n"
        "package = ModelPackage(name='t', format='tflite', artifacts=(Artifact(name='m', uri=path.as_uri()),))\n"
        "open_session(OpenRequest(package=package, path=path, device='cpu', precision='fp32'))\n"
        "with without_notes():\n"
        "    os.write(2, b'INFO: a note\\nsomething else\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == "something else\n"
    assert done.stdout == ""


def test_probe_says_what_is_missing():
    status = probe(Environment())
    assert (status.usable, status.fix) == (False, 'pip install "lensmount[litert]"')
    musl = probe(Environment(libc="musl"))
    assert "musl" in musl.fix
