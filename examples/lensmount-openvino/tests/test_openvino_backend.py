"""The backend on small graphs made here: right numbers, what is read back, what is refused."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

from lensmount.contracts import Environment, Session, TensorSpec
from lensmount.errors import (
    BackendError,
    ClosedError,
    DeviceError,
    DeviceMemoryError,
    MissingDependencyError,
    ModelFileError,
    OptionError,
    UnsafeFileError,
    UnsupportedModelError,
)

ov = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after importorskip
from openvino_graphs import (  # noqa: E402 - after importorskip
    conv_model,
    convolved,
    external_model,
    images,
    make_model,
    one_node,
    package,
    request,
    save,
    value,
)

from lensmount_openvino import backend, errors  # noqa: E402 - after importorskip
from lensmount_openvino.backend import choose_device, open_session  # noqa: E402 - after importorskip
from lensmount_openvino.probing import accelerators, probe  # noqa: E402 - after importorskip

# --- running ----------------------------------------------------------------------------------------------------------


def test_a_dynamic_graph_is_described_and_runs(tmp_path):
    metadata = {"names": "{0: 'cat'}", "stride": "32"}
    session = open_session(request(save(tmp_path, conv_model(metadata=metadata))))
    assert isinstance(session, Session)
    assert session.inputs == (TensorSpec("x", ("n", 3, 8, 8), "float32"),)
    assert session.outputs == (TensorSpec("y", ("n", 4, 8, 8), "float32"),)
    assert (session.backend, session.device, session.precision) == ("openvino", "cpu", "fp32")
    assert session.provider.startswith("OpenVINO 20")
    assert session.provider.endswith(" CPU")
    assert session.metadata == metadata
    for count in (1, 3, 1):
        x = images(count)
        result = session.run({"x": x})
        assert list(result) == ["y"]
        np.testing.assert_allclose(result["y"], convolved(x), atol=1e-4)


def test_a_static_graph_refuses_another_batch(tmp_path):
    session = open_session(request(save(tmp_path, conv_model(batch=2))))
    assert session.inputs[0].shape == (2, 3, 8, 8)
    np.testing.assert_allclose(session.run({"x": (x := images(2))})["y"], convolved(x), atol=1e-4)
    with pytest.raises(BackendError, match="wrong shape"):
        session.run({"x": images(1)})


def test_outputs_are_the_callers_own(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    x, other = images(), images()
    first = session.run({"x": x})["y"]
    kept = first.copy()
    session.run({"x": other})
    np.testing.assert_array_equal(first, kept)
    first[:] = 0  # writeable, and of no consequence
    np.testing.assert_array_equal(session.run({"x": x})["y"], kept)


def test_an_output_that_is_an_input_and_one_that_is_another_output(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["z"])]
    values = [value(name, ["n", 3]) for name in "yzx"]
    path = save(tmp_path, make_model(nodes, [value("x", ["n", 3]), value("unused", ["n"])], values))
    x = np.array([[-1, 0, 2]], np.float32)
    result = open_session(request(path)).run({"unused": np.zeros(1, np.float32), "x": x})
    assert list(result) == ["y", "z", "x"]
    np.testing.assert_array_equal(result["y"], [[0, 0, 2]])
    np.testing.assert_array_equal(result["z"], [[0, 0, 2]])
    np.testing.assert_array_equal(result["x"], x)


def test_arrays_of_any_layout_and_left_as_they_are(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    x = images(2)
    wanted = session.run({"x": x})["y"]
    frozen = x.copy()
    frozen.flags.writeable = False
    for array in (frozen, np.asfortranarray(x), x[:, :, ::-1].copy()[:, :, ::-1]):
        before = array.copy()
        np.testing.assert_array_equal(session.run({"x": array})["y"], wanted)
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    "name", ["float32", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
)
def test_every_dtype(tmp_path, name):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    path = save(tmp_path, one_node("Add", kind, inputs=("a", "b")))
    session = open_session(request(path))
    assert [spec.dtype for spec in (*session.inputs, *session.outputs)] == [name] * 3
    a, b = np.array([[1, 2, 3]], name), np.array([[4, 5, 60]], name)
    result = session.run({"a": a, "b": b})["y"]
    assert result.dtype == name
    np.testing.assert_array_equal(result, a + b)


def test_booleans_and_scalars(tmp_path):
    nodes = [helper.make_node("Where", ["c", "a", "b"], ["y"])]
    inputs = [value("c", [3], TensorProto.BOOL), value("a", [3], TensorProto.INT64), value("b", [], TensorProto.INT64)]
    session = open_session(request(save(tmp_path, make_model(nodes, inputs, [value("y", [3], TensorProto.INT64)]))))
    assert [spec.dtype for spec in session.inputs] == ["bool", "int64", "int64"]
    result = session.run({"c": np.array([True, False, True]), "a": np.arange(3), "b": np.array(7)})
    np.testing.assert_array_equal(result["y"], [0, 7, 2])


@pytest.mark.parametrize("style", ["qdq", "dynamic"])
def test_int8_graphs(tmp_path, style):
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, path = save(tmp_path, conv_model(batch=1), "float.onnx"), tmp_path / "g.onnx"
    x = images()
    if style == "dynamic":
        kind = quantization.QuantType.QUInt8
        quantization.quantize_dynamic(source, path, op_types_to_quantize=["Conv"], weight_type=kind)
    else:

        class Reader(quantization.CalibrationDataReader):
            def __init__(self):
                self.left = [{"x": x}]

            def get_next(self):
                return self.left.pop() if self.left else None

        # Seven bits of weights: OpenVINO's kernels for x86 without VNNI add two products in 16 bits, and saturate.
        quantization.quantize_static(
            source, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True, reduce_range=True
        )
    session = open_session(request(path, precision="int8", pack=package(precision="int8")))
    assert session.precision == "int8"
    wanted = convolved(x)
    error = np.abs(session.run({"x": x})["y"] - wanted).max() / np.abs(wanted).max()
    # 7 or 8 bits of weights and activations: steps of 1/64 to 1/127, a few of them together.
    assert 0 < error < 0.04


# --- precision: nothing is narrowed without a word --------------------------------------------------------------------


def test_an_fp16_graph_says_what_it_computes_in(tmp_path):
    path = save(tmp_path, conv_model(kind=TensorProto.FLOAT16))
    session = open_session(request(path, precision="fp16", pack=package(precision="fp16")))
    native = "FP16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert session.precision == ("fp16" if native else "fp32")
    assert (session.inputs[0].dtype, session.outputs[0].dtype) == ("float16", "float16")
    x = images(dtype=np.float16)
    result = session.run({"x": x})["y"]
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, convolved(x), atol=0.05)


def test_the_precision_is_fixed_whatever_openvino_would_choose(tmp_path, monkeypatch):
    """On a processor with bfloat16 its default is bfloat16; here that default is put in its place."""
    asked = []

    class Core(ov.Core):
        def compile_model(self, model, device, config):
            asked.append(config)
            return super().compile_model(model, device, config)

    monkeypatch.setattr(ov, "Core", Core)
    open_session(request(save(tmp_path, conv_model()), threads=1))
    assert asked[0]["INFERENCE_PRECISION_HINT"] == "f32"
    assert asked[0]["EXECUTION_MODE_HINT"] == "ACCURACY"
    assert asked[0]["INFERENCE_NUM_THREADS"] == 1


@pytest.mark.parametrize("hint", ["bf16", "f32"])
def test_a_graph_that_computes_in_less_is_refused(tmp_path, hint, monkeypatch):
    """Asked for bfloat16, OpenVINO computes in it where the processor can (x86 from AVX-512 on), else in float32."""
    settings = backend._settings

    def narrowed(kind, precision, threads):
        return {**settings(kind, precision, threads), "INFERENCE_PRECISION_HINT": hint}

    monkeypatch.setattr(backend, "_settings", narrowed)
    path = save(tmp_path, conv_model())
    x = images()
    (found,) = ov.Core().compile_model(str(path), "CPU", narrowed("cpu", "fp32", None))([x]).values()
    # 27 products of values near 1: float32 errs by 1e-6, bfloat16 with its 8 bits by 1e-2.
    if np.abs(found - convolved(x)).max() < 1e-4:
        session = open_session(request(path))
        assert session.precision == "fp32"
        np.testing.assert_allclose(session.run({"x": x})["y"], convolved(x), atol=1e-4)
        return
    assert hint == "bf16"
    with pytest.raises(BackendError, match="would not compute") as caught:
        open_session(request(path))
    assert "precision hint bf16" in (caught.value.found or "")
    assert "Convolution" in (caught.value.found or "")


@pytest.mark.parametrize(("hint", "ran"), [("bf16", "f32"), ("f32", "bf16"), ("f32", "f16"), ("f32", "f32")])
def test_what_was_compiled_is_read_back(hint, ran):
    """Whatever this processor can: OpenVINO's answers are put in their place."""

    class Text(str):
        def astype(self, kind):
            return kind(self)

    def node(layer, precision):
        facts = {"layerType": Text(layer), "runtimePrecision": Text(precision)}
        return types.SimpleNamespace(get_rt_info=lambda: facts, get_friendly_name=lambda: "y")

    nodes = [node("Input", "bf16"), node("Convolution", ran)]
    compiled = types.SimpleNamespace(
        get_property=lambda name: types.SimpleNamespace(get_type_name=lambda: hint),
        get_runtime_model=lambda: types.SimpleNamespace(get_ordered_ops=lambda: nodes),
    )
    if (hint, ran) == ("f32", "f32"):
        backend._check_precision(compiled, "fp32", "graph 'g.onnx'")
        return
    with pytest.raises(BackendError, match="would not compute") as caught:
        backend._check_precision(compiled, "fp32", "graph 'g.onnx'")
    assert caught.value.found == f"precision hint {hint}" + ("" if ran == "f32" else f"; Convolution 'y' in {ran}")


def test_float64_is_refused(tmp_path):
    with pytest.raises(UnsupportedModelError, match="float64") as caught:
        open_session(request(save(tmp_path, one_node("Add", TensorProto.DOUBLE, inputs=("a", "b")))))
    assert "backend='onnx'" in (caught.value.fix or "")


def test_float64_that_is_only_cast_runs(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), helper.make_node("Relu", ["f"], ["y"])]
    path = save(tmp_path, make_model(nodes, [value("x", [3], TensorProto.DOUBLE)], [value("y", [3])]))
    result = open_session(request(path)).run({"x": np.array([-1.0, 0.5, 2])})
    np.testing.assert_array_equal(result["y"], [0, 0.5, 2])


@pytest.mark.parametrize(("name", "number"), [("int64", 2**40), ("int64", -(2**31) - 1), ("uint64", 2**63)])
def test_integers_that_would_be_cut_are_refused(tmp_path, name, number):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    session = open_session(request(save(tmp_path, one_node("Add", kind, inputs=("a", "b")))))
    small = np.array([[1, 2, 3]], name)
    with pytest.raises(BackendError, match="cut to 32 bits") as caught:
        session.run({"a": np.array([[number, 0, 0]], name), "b": small})
    assert str(number) in (caught.value.found or "")
    np.testing.assert_array_equal(session.run({"a": small, "b": small})["y"], small + small)


@pytest.mark.parametrize("kind", [TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.COMPLEX64])
def test_types_that_numpy_or_openvino_lacks(tmp_path, kind):
    with pytest.raises(UnsupportedModelError, match="'x'"):
        open_session(request(save(tmp_path, one_node("Identity", kind))))


# --- feeds that do not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"y": np.zeros((1, 3, 8, 8), np.float32)},
        {"x": np.zeros((1, 3, 8, 8), np.float32), "z": np.zeros(1)},
        {"x": np.zeros((1, 3, 8, 8), np.float64)},
        {"x": np.zeros((1, 8, 8, 3), np.float32)},
        {"x": np.zeros((3, 8, 8), np.float32)},
        {"x": [[1.0]]},
        {"x": None},
    ],
)
def test_feeds_that_do_not_fit(tmp_path, feeds):
    session = open_session(request(save(tmp_path, conv_model())))
    with pytest.raises(BackendError) as caught:
        session.run(feeds)
    assert caught.value.found
    assert caught.value.expected


def test_a_run_that_openvino_refuses(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = numpy_helper.from_array(np.array([2, 2]), "shape")
    session = open_session(
        request(save(tmp_path, make_model(nodes, [value("x", ["n"])], [value("y", [2, 2])], [shape])))
    )
    for _ in range(2):  # a failed run spoils no later one
        assert session.run({"x": np.arange(4, dtype=np.float32)})["y"].shape == (2, 2)
        with pytest.raises(BackendError, match="failed to run") as caught:
            session.run({"x": np.arange(5, dtype=np.float32)})
        assert "src/" not in (caught.value.found or "")
        assert "reshape" in (caught.value.found or "")


# --- several threads, closing -----------------------------------------------------------------------------------------


def test_several_threads_at_once(tmp_path):
    session = open_session(request(save(tmp_path, conv_model()), threads=1))
    batches = [images(1 + i % 3) for i in range(12)]
    wanted = [session.run({"x": x})["y"] for x in batches]
    wrong: list[int] = []

    def work():
        for _ in range(10):
            wrong.extend(i for i, x in enumerate(batches) if not np.array_equal(session.run({"x": x})["y"], wanted[i]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 1 <= len(session._idle) <= 4


def test_a_closed_session(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    session.run({"x": images()})
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.run({"x": images()})
    assert not session._idle


def test_a_run_under_way_when_the_session_closes(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    x = images()
    taken = session._take()
    session.close()
    session._give_back(taken)
    assert not session._idle  # the request goes with its run
    with pytest.raises(ClosedError):
        session.run({"x": x})


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_closing_frees_the_weights(tmp_path):
    weight = numpy_helper.from_array(np.ones((2048, 8192), np.float32), "w")  # 64 MiB
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = save(tmp_path, make_model([node], [value("x", ["n", 2048])], [value("y", ["n", 8192])], [weight]))

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def once():
        session = open_session(request(path))
        session.run({"x": np.ones((1, 2048), np.float32)})
        held = resident()
        session.close()
        return held

    once()  # what the runtime keeps for itself
    before = resident()
    held = once()
    assert held - before > 32 * 2**20
    assert resident() - before < 16 * 2**20


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads(tmp_path, monkeypatch, threads):
    path = save(tmp_path, conv_model())

    def effective(**options):
        return open_session(request(path, **options))._compiled.get_property("INFERENCE_NUM_THREADS")

    monkeypatch.setattr("lensmount.backend.devices.cpu_quota", lambda: None)
    assert effective(threads=threads) == threads
    monkeypatch.setenv("LENSMOUNT_THREADS", str(threads))
    assert effective() == threads
    assert effective(threads=3 - threads) == 3 - threads
    monkeypatch.delenv("LENSMOUNT_THREADS")
    monkeypatch.setattr("lensmount.backend.devices.cpu_quota", lambda: 1)
    monkeypatch.setattr("lensmount.backend.devices.cpu_count", lambda: 1)
    assert effective() == 1


@pytest.mark.parametrize("threads", [0, -3, True, "2", 1.0])
def test_a_wrong_threads_option(tmp_path, threads):
    with pytest.raises(OptionError, match="threads"):
        open_session(request(save(tmp_path, conv_model()), threads=threads))


def test_runs_leave_the_process_on_all_its_processors(tmp_path):
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    session = open_session(request(save(tmp_path, conv_model()), threads=1))
    session.run({"x": images()})
    assert os.sched_getaffinity(0) == before
    assert session._compiled.get_property("ENABLE_CPU_PINNING") is False


# --- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a graph at all" * 50, b"\x08\x0aabc" * 10, b"PK\x03\x04" * 9])
def test_corrupt_files(tmp_path, content, capfd):
    path = tmp_path / "g.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        open_session(request(path))
    assert capfd.readouterr().err == ""


def test_truncated_files(tmp_path):
    whole = conv_model().SerializeToString()
    path = tmp_path / "g.onnx"
    for length in range(1, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            open_session(request(path))


def test_a_sound_file_with_an_unsound_graph(tmp_path, capfd):
    path = save(
        tmp_path, make_model([helper.make_node("Relu", ["absent"], ["y"])], [value("x", [3])], [value("y", [3])])
    )
    with pytest.raises(ModelFileError) as caught:
        open_session(request(path))
    assert "src/" not in (caught.value.found or "")
    assert capfd.readouterr().err == ""


def test_a_missing_file_and_no_file(tmp_path):
    for path in (tmp_path / "g.onnx", tmp_path):
        with pytest.raises(ModelFileError, match="is not there"):
            open_session(request(path))
    with pytest.raises(ModelFileError, match="no graph"):
        open_session(request(None))


@pytest.mark.parametrize("model", [one_node("Nope"), one_node("Own", domain="com.example")])
def test_operators_that_openvino_lacks(tmp_path, model):
    with pytest.raises(UnsupportedModelError, match="operator") as caught:
        open_session(request(save(tmp_path, model)))
    assert any(name in (caught.value.found or "") for name in ("Nope", "Own"))
    assert "backend='onnx'" in (caught.value.fix or "")


DATA = np.array([1, 2, 3], np.float32).tobytes()
ZEROS = {"x": np.zeros((1, 3), np.float32)}


def test_external_data_beside_the_graph(tmp_path):
    path = save(tmp_path, external_model("g.data"))
    (tmp_path / "g.data").write_bytes(DATA)
    np.testing.assert_array_equal(open_session(request(path)).run(ZEROS)["y"], [[1, 2, 3]])


@pytest.mark.parametrize("location", ["../g.data", "sub/../../g.data", "/{folder}/g.data"])
def test_external_data_outside_the_folder(tmp_path, location):
    path = save(tmp_path / "package", external_model(location.format(folder=tmp_path)))
    (tmp_path / "package/sub").mkdir()
    (tmp_path / "g.data").write_bytes(DATA)
    with pytest.raises(UnsafeFileError):
        open_session(request(path))


def test_external_data_through_a_link_that_nobody_vouches_for(tmp_path):
    path = save(tmp_path / "package", external_model("g.data"))
    (tmp_path / "secret").write_bytes(DATA)
    (tmp_path / "package/g.data").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError):
        open_session(request(path))


@pytest.mark.parametrize("content", [None, DATA[:8]], ids=["missing", "short"])
def test_external_data_missing_or_short(tmp_path, content):
    path = save(tmp_path, external_model("g.data"))
    if content:
        (tmp_path / "g.data").write_bytes(content)
    with pytest.raises(ModelFileError):
        open_session(request(path))


@pytest.mark.parametrize("copies", [False, True], ids=["hard links", "copies"])
@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["soft", "hard"])
@pytest.mark.parametrize("blobs", [("aa", "bb"), ("aa", "aa")], ids=["apart", "together"])
def test_declared_files_may_be_links_into_a_store(tmp_path, monkeypatch, link, blobs, copies):
    """OpenVINO follows no link out of the graph's folder: the backend gathers the files."""
    graph = save(tmp_path / "blobs" / blobs[0], external_model("sub/g.data"), "1")
    data = tmp_path / "blobs" / blobs[1] / "2"
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(DATA)
    folder = tmp_path / "models/p/onnx"
    (folder / "sub").mkdir(parents=True)
    link(graph, folder / "g.onnx")
    link(data, folder / "sub/g.data")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(backend.tempfile, "tempdir", str(temporary))
    if copies:

        def refuse(*_):
            raise OSError("across devices")

        monkeypatch.setattr(backend.os, "link", refuse)
    declared = package("onnx/g.onnx", "onnx/sub/g.data")
    session = open_session(request(folder / "g.onnx", pack=declared))
    assert list(temporary.iterdir()) == []
    np.testing.assert_array_equal(session.run(ZEROS)["y"], [[1, 2, 3]])


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["xpu:7", "npu:3", "cuda:0", "mps", "tpu", "cpu:1"])
def test_a_device_that_openvino_does_not_report(tmp_path, device):
    with pytest.raises(DeviceError, match="does not report") as caught:
        open_session(request(save(tmp_path, conv_model()), device=device))
    assert "CPU" in (caught.value.found or "")
    assert caught.value.fix


@pytest.mark.parametrize("device", ["cuda:x", "", "cpu:zero", "0"])
def test_what_is_no_device(tmp_path, device):
    with pytest.raises(DeviceError):
        open_session(request(save(tmp_path, conv_model()), device=device))


@pytest.mark.parametrize(
    ("kind", "index", "available", "chosen"),
    [
        ("cpu", 0, ["CPU", "GPU"], "CPU"),
        ("xpu", 0, ["CPU", "GPU"], "GPU"),
        ("xpu", 0, ["CPU", "GPU.0", "GPU.1"], "GPU.0"),
        ("xpu", 1, ["CPU", "GPU.0", "GPU.1"], "GPU.1"),
        ("npu", 0, ["CPU", "NPU"], "NPU"),
    ],
)
def test_names_of_devices(kind, index, available, chosen):
    assert choose_device(kind, index, available) == chosen


def test_a_graph_that_openvino_puts_elsewhere():
    compiled = types.SimpleNamespace(get_property=lambda name: ["CPU"])
    with pytest.raises(DeviceError, match="elsewhere"):
        backend._check_device(compiled, "GPU", "graph 'g.onnx'")
    backend._check_device(types.SimpleNamespace(get_property=lambda name: ["GPU.0"]), "GPU", "graph 'g.onnx'")


def test_providers_are_not_openvinos(tmp_path):
    with pytest.raises(OptionError, match="onnxruntime"):
        open_session(request(save(tmp_path, conv_model()), providers=("CPUExecutionProvider",)))


def test_no_openvino(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_session(request(save(tmp_path, conv_model())))
    assert caught.value.fix == "pip install lensmount-openvino"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Exception from src/x.cpp:1: std::bad_alloc", DeviceMemoryError),
        ("[GPU] CL_OUT_OF_RESOURCES", DeviceMemoryError),
        ("Cannot load library libopenvino_intel_gpu_plugin.so: libOpenCL.so.1: no such file", DeviceError),
        ("something new", BackendError),
    ],
)
def test_what_openvino_raises(text, kind):
    for translate in (errors.opening, errors.running):
        error = translate(RuntimeError(text), "graph 'g.onnx'", "xpu:0")
        assert type(error) is kind
        assert "src/" not in (error.found or "")


# --- probing ----------------------------------------------------------------------------------------------------------


def test_probe_without_openvino():
    status = probe(Environment())
    assert (status.usable, status.fix) == (False, "pip install lensmount-openvino")


def test_probe_imports_no_openvino():
    code = (
        "import sys; from importlib.metadata import version\n"
        "from lensmount.contracts import Environment; from lensmount_openvino.probing import probe\n"
        "here = Environment(packages=(('openvino', version('openvino')),))\n"
        "status = probe(here); assert status.usable and status.devices[0] == 'cpu', status\n"
        "assert not {'openvino', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("vendors", "devices"),
    [
        ({}, ()),
        ({"drm/renderD128": "0x8086"}, ("xpu:0",)),
        ({"drm/renderD128": "0x10de", "drm/card0": "0x8086"}, ()),
        (
            {"drm/renderD128": "0x8086", "drm/renderD129": "0x8086", "accel/accel0": "0x8086"},
            ("xpu:0", "xpu:1", "npu"),
        ),
    ],
)
def test_accelerators_from_the_kernels_files(tmp_path, vendors, devices):
    for name, vendor in vendors.items():
        path = tmp_path / "sys/class" / name / "device"
        path.mkdir(parents=True)
        (path / "vendor").write_text(f"{vendor}\n")
    assert accelerators("linux", tmp_path) == devices


def test_accelerators_of_other_systems():
    assert accelerators("darwin") == ()
    assert accelerators("windows") == ("xpu:0", "npu")


def test_no_socket_is_opened(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    session = open_session(request(save(tmp_path, conv_model())))
    session.run({"x": images()})
