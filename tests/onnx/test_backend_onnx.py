"""The onnx backend on small graphs made here."""

from __future__ import annotations

import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from lensmount.backend import devices
from lensmount.contracts import BackendOptions, OpenRequest, Session, TensorSpec
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
from lensmount.machine.environment import Environment, Gpu
from lensmount.specs import Artifact, ModelPackage, Requirements
from lensmount_onnx import backend as backend
from lensmount_onnx import saturation
from lensmount_onnx.backend import open_session, probe

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402 - after importorskip

RNG = np.random.default_rng(7)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
FLOATS = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}


def make_model(nodes, inputs, outputs, initializers=(), opset=17, ir=10, metadata=None, domains=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = ir
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return model


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def conv_model(batch="n", kind=TensorProto.FLOAT, size=8, metadata=None, **settings):
    weight = numpy_helper.from_array(WEIGHT.astype(FLOATS[kind]), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    return make_model(
        [node], [value("x", [batch, 3, size, size], kind)], [value("y", [batch, 4, size, size], kind)], [weight],
        metadata=metadata, **settings,
    )  # fmt: skip


def relu_model(kind=TensorProto.FLOAT, op="Relu", domain="", **settings):
    node = helper.make_node(op, ["x"], ["y"], domain=domain)
    domains = (domain,) if domain else ()
    return make_model([node], [value("x", ["n", 3], kind)], [value("y", ["n", 3], kind)], domains=domains, **settings)


def save(folder: Path, model, name="g.onnx") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def package(*names: str, precision="fp32", **settings) -> ModelPackage:
    artifacts = tuple(Artifact(name=name, uri=f"file://{name}") for name in names or ("g.onnx",))
    return ModelPackage(name="p", format="onnx", artifacts=artifacts, precision=precision, **settings)


def request(path: Path | None, device="cpu", precision="fp32", pack=None, **options) -> OpenRequest:
    return OpenRequest(
        package=pack or package(), path=path, device=device, precision=precision, options=BackendOptions(**options)
    )


def images(count=1, dtype=np.float32):
    return RNG.normal(size=(count, 3, 8, 8)).astype(dtype)


def reference(x):
    """The convolution in float64 by its definition."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, WEIGHT.astype(np.float64))


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_dynamic_graph_is_described_and_runs(tmp_path):
    session = open_session(request(save(tmp_path, conv_model(metadata={"names": "{0: 'cat'}", "stride": "32"}))))
    assert isinstance(session, Session)
    assert session.inputs == (TensorSpec("x", ("n", 3, 8, 8), "float32"),)
    assert session.outputs == (TensorSpec("y", ("n", 4, 8, 8), "float32"),)
    assert (session.backend, session.device, session.provider) == ("onnx", "cpu", "CPUExecutionProvider")
    assert session.precision == "fp32"
    assert session.metadata == {"names": "{0: 'cat'}", "stride": "32"}
    for count in (1, 3):
        x = images(count)
        result = session.run({"x": x})
        assert list(result) == ["y"]
        np.testing.assert_allclose(result["y"], reference(x), atol=1e-4)


def test_a_static_graph_refuses_another_batch(tmp_path):
    session = open_session(request(save(tmp_path, conv_model(batch=2))))
    assert session.inputs[0].shape == (2, 3, 8, 8)
    np.testing.assert_allclose(session.run({"x": (x := images(2))})["y"], reference(x), atol=1e-4)
    with pytest.raises(BackendError, match="wrong shape") as caught:
        session.run({"x": images(1)})
    assert caught.value.expected is not None
    assert "(2, 3, 8, 8)" in caught.value.expected


def test_an_fp16_graph_takes_and_gives_fp16(tmp_path):
    path = save(tmp_path, conv_model(kind=TensorProto.FLOAT16))
    session = open_session(request(path, precision="fp16", pack=package(precision="fp16")))
    assert (session.precision, session.inputs[0].dtype, session.outputs[0].dtype) == ("fp16", "float16", "float16")
    x = images()
    with pytest.raises(BackendError, match="wrong shape or dtype"):
        session.run({"x": x})
    half = x.astype(session.inputs[0].dtype)
    result = session.run({"x": half})["y"]
    assert result.dtype == np.float16
    # 27 products of values near 1 in half precision: 2**-11 relative each.
    np.testing.assert_allclose(result, reference(x), atol=0.05)


@pytest.mark.parametrize("style", ["qdq", "dynamic"])
def test_int8_graphs(tmp_path, style):
    quantization = pytest.importorskip("onnxruntime.quantization")
    source, path = save(tmp_path, conv_model(batch=1), "float.onnx"), tmp_path / "g.onnx"
    x = images()
    if style == "dynamic":
        # Unsigned weights: onnxruntime's oldest supported version has no ConvInteger for signed ones.
        kind = quantization.QuantType.QUInt8
        quantization.quantize_dynamic(source, path, op_types_to_quantize=["Conv"], weight_type=kind)
    else:

        class Reader(quantization.CalibrationDataReader):
            def __init__(self):
                self.left = [{"x": x}]

            def get_next(self):
                return self.left.pop() if self.left else None

        quantization.quantize_static(
            source, path, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
        )
    session = open_session(request(path, precision="int8", pack=package(precision="int8")))
    assert session.precision == "int8"
    wanted = reference(x)
    error = np.abs(session.run({"x": x})["y"] - wanted).max() / np.abs(wanted).max()
    # 8 bits of weights and activations: steps of 1/127, a few of them together.
    assert 0 < error < 0.04


@pytest.mark.parametrize("saturates", [False, True])
def test_int8_kernels_are_exact_where_fast_ones_saturate(tmp_path, monkeypatch, saturates):
    monkeypatch.setattr(saturation, "saturates", lambda: saturates)
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    weight = numpy_helper.from_array(np.full((64, 2), 127, np.int8), "w")
    edges = [value("x", ["n", 64], TensorProto.UINT8)], [value("y", ["n", 2], TensorProto.INT32)]
    path = save(tmp_path, make_model([node], *edges, [weight]))
    session = open_session(request(path, precision="int8", pack=package(precision="int8")))
    entries = session._session.get_session_options()
    assert session.precision == "int8"
    if saturates:
        assert entries.get_session_config_entry("session.x64quantprecision") == "1"
        result = session.run({"x": np.full((3, 64), 255, np.uint8)})["y"]
        np.testing.assert_array_equal(result, 64 * 255 * 127)  # whole numbers
    else:
        with pytest.raises(RuntimeError, match="x64quantprecision"):
            entries.get_session_config_entry("session.x64quantprecision")
    plain = open_session(request(save(tmp_path, relu_model(), "plain.onnx")))._session.get_session_options()
    with pytest.raises(RuntimeError, match="x64quantprecision"):
        plain.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("stored", [2 * 32767, 4 * 255 * 127, None])
def test_saturation_is_read_from_the_kernel(monkeypatch, stored):
    """What x86 without VNNI gives, what it ought to be, and a build of onnxruntime without the operator."""
    onnx.checker.check_model(onnx.load_from_string(saturation._GRAPH))
    opened = []

    class Fake:
        def __init__(self, graph, options, providers):
            opened.append((graph, providers))
            if stored is None:
                raise RuntimeError("no such operator")

        def run(self, names, feeds):
            assert (feeds["a"] == 255).all()
            return [np.array([[stored]], np.int32)]

    saturation.saturates.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(ort, "InferenceSession", Fake)
        found = [saturation.saturates() for _ in range(2)]
    saturation.saturates.cache_clear()
    assert found == [stored != 4 * 255 * 127] * 2
    assert opened == [(saturation._GRAPH, ["CPUExecutionProvider"])]


def test_outputs_stay_on_the_device_for_a_next_graph(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    x = images(2)
    bound = session.run_on_device({"x": x})
    np.testing.assert_array_equal(bound["y"].numpy(), session.run({"x": x})["y"])
    second = open_session(request(save(tmp_path, relu_model_4d(), "second.onnx")))
    chained = second.run_on_device({"y": bound["y"]})
    np.testing.assert_array_equal(chained["z"].numpy(), np.maximum(bound["y"].numpy(), 0))


def relu_model_4d():
    shape = ["n", 4, 8, 8]
    return make_model([helper.make_node("Relu", ["y"], ["z"])], [value("y", shape)], [value("z", shape)])


def test_arrays_of_any_layout(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    x = images(2)
    wanted = session.run({"x": x})["y"]
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.asfortranarray(x)
    flipped = x[:, :, ::-1].copy()[:, :, ::-1]
    for array in (frozen, strided, flipped):
        np.testing.assert_array_equal(session.run({"x": array})["y"], wanted)
        np.testing.assert_array_equal(session.run_on_device({"x": array})["y"].numpy(), wanted)


def test_integer_and_boolean_inputs(tmp_path):
    node = helper.make_node("Where", ["c", "a", "b"], ["y"])
    inputs = [value("c", [3], TensorProto.BOOL), value("a", [3], TensorProto.INT64), value("b", [3], TensorProto.INT64)]
    session = open_session(request(save(tmp_path, make_model([node], inputs, [value("y", [3], TensorProto.INT64)]))))
    assert [spec.dtype for spec in session.inputs] == ["bool", "int64", "int64"]
    result = session.run({"c": np.array([True, False, True]), "a": np.arange(3), "b": -np.arange(3)})
    np.testing.assert_array_equal(result["y"], [0, -1, 2])


# --- feeds that do not fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"y": np.zeros((1, 3, 8, 8), np.float32)},
        {"x": np.zeros((1, 3, 8, 8), np.float32), "z": np.zeros(1)},
        {"x": np.zeros((1, 3, 8, 8), np.float64)},
        {"x": np.zeros((1, 3, 8, 8), ">f4")},
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


def test_a_run_that_the_runtime_refuses(tmp_path, capfd):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = numpy_helper.from_array(np.array([2, 2]), "shape")
    session = open_session(
        request(save(tmp_path, make_model(nodes, [value("x", ["n"])], [value("y", [2, 2])], [shape])))
    )
    assert session.run({"x": np.arange(4, dtype=np.float32)})["y"].shape == (2, 2)
    with pytest.raises(BackendError, match="failed to run") as caught:
        session.run({"x": np.arange(5, dtype=np.float32)})
    assert "/onnxruntime_src" not in str(caught.value)
    assert "cannot be reshaped" in str(caught.value)
    assert capfd.readouterr().err == ""


# --- several threads, closing -----------------------------------------------------------------------------------------


def test_two_threads_at_once(tmp_path):
    session = open_session(request(save(tmp_path, conv_model()), threads=1))
    batches = [images(1 + i % 3) for i in range(16)]
    wanted = [session.run({"x": x})["y"] for x in batches]
    wrong: list[int] = []

    def work():
        for _ in range(10):
            for i, x in enumerate(batches):
                if not np.array_equal(session.run({"x": x})["y"], wanted[i]):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_session(tmp_path):
    session = open_session(request(save(tmp_path, conv_model())))
    session.close()
    session.close()
    for call in (session.run, session.run_on_device):
        with pytest.raises(ClosedError):
            call({"x": images()})


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads(tmp_path, monkeypatch, threads):
    path = save(tmp_path, conv_model())
    options = open_session(request(path, threads=threads))._session.get_session_options()
    assert options.intra_op_num_threads == threads
    monkeypatch.setenv("LENSMOUNT_THREADS", str(threads))
    assert open_session(request(path))._session.get_session_options().intra_op_num_threads == threads
    assert open_session(request(path, threads=3))._session.get_session_options().intra_op_num_threads == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_a_wrong_number_of_threads(tmp_path, monkeypatch, text):
    monkeypatch.setenv("LENSMOUNT_THREADS", text)
    with pytest.raises(OptionError, match="LENSMOUNT_THREADS"):
        open_session(request(save(tmp_path, conv_model())))


@pytest.mark.parametrize("threads", [0, -3, True, "2", 1.0])
def test_a_wrong_threads_option(tmp_path, threads):
    with pytest.raises(OptionError, match="threads"):
        open_session(request(save(tmp_path, conv_model()), threads=threads))


def test_a_container_quota_limits_the_threads(tmp_path, monkeypatch):
    path = save(tmp_path, conv_model())
    monkeypatch.setattr(devices, "cpu_count", lambda: 1)
    for quota, threads in ((1, 1), (None, 0)):
        monkeypatch.setattr(devices, "cpu_quota", lambda quota=quota: quota)
        assert open_session(request(path))._session.get_session_options().intra_op_num_threads == threads
    monkeypatch.setattr(devices, "cpu_quota", lambda: 1)
    assert open_session(request(path, threads=3))._session.get_session_options().intra_op_num_threads == 3


def test_worker_threads_do_not_spin():
    options = backend._session_options(ort, None)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"


# --- files that cannot be used ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a graph at all" * 50, b"\x08\x0aabc" * 10, b"PK\x03\x04" * 9])
def test_corrupt_files(tmp_path, content):
    path = tmp_path / "g.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        open_session(request(path))
    assert "Traceback" not in str(caught.value)


def test_truncated_files(tmp_path):
    whole = conv_model().SerializeToString()
    path = tmp_path / "g.onnx"
    for length in range(1, len(whole), 23):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            open_session(request(path))


def test_a_missing_file_and_no_file(tmp_path):
    with pytest.raises(ModelFileError, match="is not there"):
        open_session(request(tmp_path / "g.onnx"))
    with pytest.raises(ModelFileError, match="is not there"):
        open_session(request(tmp_path))
    with pytest.raises(ModelFileError, match="no graph"):
        open_session(request(None))


@pytest.mark.parametrize("model", [relu_model(opset=99), relu_model(ir=99)], ids=["opset", "ir"])
def test_a_graph_newer_than_the_runtime(tmp_path, model):
    with pytest.raises(UnsupportedModelError, match="newer") as caught:
        open_session(request(save(tmp_path, model)))
    assert caught.value.fix == "pip install --upgrade onnxruntime"
    assert "99" in (caught.value.found or "")
    assert "onnxruntime_src" not in str(caught.value)


@pytest.mark.parametrize("model", [relu_model(op="Nope"), relu_model(op="Own", domain="com.example")])
def test_operators_that_the_runtime_lacks(tmp_path, model):
    with pytest.raises(UnsupportedModelError, match="operator") as caught:
        open_session(request(save(tmp_path, model)))
    assert "custom operators are not loaded" in (caught.value.expected or "")


def test_types_that_numpy_lacks(tmp_path):
    cast = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    model = make_model([cast], [value("x", [3], TensorProto.BFLOAT16)], [value("y", [3])])
    with pytest.raises(UnsupportedModelError, match="'x'"):
        open_session(request(save(tmp_path, model)))


# --- external data ----------------------------------------------------------------------------------------------------


def external_model(location: str, length=12):
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, text
    node = helper.make_node("Add", ["x", "w"], ["y"])
    return make_model([node], [value("x", ["n", 3])], [value("y", ["n", 3])], [weight])


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


def test_external_data_missing_or_short(tmp_path):
    path = save(tmp_path, external_model("g.data"))
    with pytest.raises(ModelFileError, match="missing"):
        open_session(request(path))
    (tmp_path / "g.data").write_bytes(DATA[:8])
    with pytest.raises(ModelFileError):
        open_session(request(path))


@pytest.mark.parametrize("link", [os.symlink, os.link], ids=["soft", "hard"])
@pytest.mark.parametrize("blobs", [("aa", "bb"), ("aa", "aa")], ids=["apart", "together"])
def test_declared_files_may_be_links_into_a_store(tmp_path, link, blobs):
    """A store keeps files by content and links them into the package's folder, side by side or not."""
    graph = save(tmp_path / "blobs" / blobs[0], external_model("g.data"), "1")
    data = tmp_path / "blobs" / blobs[1] / "2"
    data.parent.mkdir(exist_ok=True)
    data.write_bytes(DATA)
    folder = tmp_path / "models/p/onnx"
    folder.mkdir(parents=True)
    link(graph, folder / "g.onnx")
    link(data, folder / "g.data")
    declared = package("onnx/g.onnx", "onnx/g.data")
    session = open_session(request(folder / "g.onnx", pack=declared))
    np.testing.assert_array_equal(session.run(ZEROS)["y"], [[1, 2, 3]])


# --- devices and providers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "mps"])
def test_a_device_that_this_build_lacks(tmp_path, device):
    if {"CUDAExecutionProvider", "CoreMLExecutionProvider"} & set(ort.get_available_providers()):
        pytest.skip("this onnxruntime has the provider")
    with pytest.raises(DeviceError) as caught:
        open_session(request(save(tmp_path, conv_model()), device=device))
    assert caught.value.fix


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "", "cpu:zero", "0"])
def test_what_is_no_device(tmp_path, device):
    with pytest.raises(DeviceError):
        open_session(request(save(tmp_path, conv_model()), device=device))


@pytest.mark.parametrize("providers", [(), ("CPUExecutionProvider",) * 2])
def test_wrong_providers(tmp_path, providers):
    with pytest.raises(OptionError):
        open_session(request(save(tmp_path, conv_model()), providers=providers))


def test_an_unknown_provider(tmp_path):
    with pytest.raises(DeviceError, match="NopeExecutionProvider"):
        open_session(request(save(tmp_path, conv_model()), providers=("NopeExecutionProvider",)))


def test_the_plain_provider_by_name(tmp_path):
    session = open_session(request(save(tmp_path, conv_model()), providers=("CPUExecutionProvider",)))
    tells = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
    assert session.assignment == ({"CPUExecutionProvider": 1} if tells else {})


def test_a_provider_that_the_package_excludes(tmp_path):
    pack = package(requirements=Requirements(excluded_providers=("CPUExecutionProvider",)))
    with pytest.raises(OptionError, match="wrong results"):
        open_session(request(save(tmp_path, conv_model()), pack=pack))


class FakeRuntime(types.ModuleType):
    """onnxruntime as if built with GPU providers: opens on the CPU, and says what the test wants it to say."""

    def __init__(self, got, device_id=0, assigned=None, fails=None):
        super().__init__("onnxruntime")
        self.SessionOptions, self.RunOptions = ort.SessionOptions, ort.RunOptions
        self.GraphOptimizationLevel = ort.GraphOptimizationLevel
        self.asked: list[tuple[str, dict[str, object]]] = []
        outer = self

        class FakeSession(ort.InferenceSession):
            def __init__(self, path, options, providers, enable_fallback):
                outer.asked = providers
                assert enable_fallback == 0
                if fails is not None:
                    raise fails
                super().__init__(path, options, providers=["CPUExecutionProvider"], enable_fallback=0)

            def get_providers(self):
                return got

            def get_provider_options(self):
                return {name: {"device_id": str(device_id)} for name in got}

            def get_provider_graph_assignment_info(self):
                counts = assigned if assigned is not None else {got[0]: 2}
                return [
                    types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
                    for name, count in counts.items()
                ]

        self.InferenceSession = FakeSession

    def get_available_providers(self):
        return [
            "TensorrtExecutionProvider",
            "CUDAExecutionProvider",
            "CoreMLExecutionProvider",
            "CPUExecutionProvider",
        ]


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def test_a_silent_fall_back_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime([CPU]))
    with pytest.raises(DeviceError, match="fell back from CUDAExecutionProvider to CPUExecutionProvider"):
        open_session(request(save(tmp_path, conv_model()), device="cuda:0"))


def test_a_partial_fall_back_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime([CUDA, CPU]))
    names = ("TensorrtExecutionProvider", CUDA)
    with pytest.raises(DeviceError, match="fell back"):
        open_session(request(save(tmp_path, conv_model()), device="cuda:0", providers=names))


def test_another_gpu_than_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime([CUDA, CPU], device_id=0))
    with pytest.raises(DeviceError, match="another GPU"):
        open_session(request(save(tmp_path, conv_model()), device="cuda:1"))


def test_a_provider_that_gets_no_node(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime([CUDA, CPU], assigned={CPU: 9}))
    with pytest.raises(DeviceError, match="none of the graph's nodes"):
        open_session(request(save(tmp_path, conv_model()), device="cuda:0"))


def test_what_cuda_is_asked_for(tmp_path, monkeypatch):
    fake = FakeRuntime([CUDA, CPU], device_id=1, assigned={CUDA: 5, CPU: 1})
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    session = open_session(request(save(tmp_path, conv_model()), device="cuda:1"))
    assert (session.device, session.provider, session.assignment) == ("cuda:1", CUDA, {CUDA: 5, CPU: 1})
    (name, options), *rest = fake.asked
    assert (name, options["device_id"], options["use_tf32"], rest) == (CUDA, 1, 0, [])


def test_tensorrt_in_half_precision(tmp_path, monkeypatch):
    fake = FakeRuntime(["TensorrtExecutionProvider", CUDA, CPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    names = ("TensorrtExecutionProvider", CUDA)
    session = open_session(request(save(tmp_path, conv_model()), device="cuda:0", precision="fp16", providers=names))
    assert session.precision == "fp16"
    assert [name for name, _ in fake.asked] == list(names)
    assert fake.asked[0][1]["trt_fp16_enable"] is True


def test_coreml(tmp_path, monkeypatch):
    fake = FakeRuntime(["CoreMLExecutionProvider", CPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    session = open_session(request(save(tmp_path, conv_model()), device="mps"))
    assert (session.device, session.provider) == ("mps", "CoreMLExecutionProvider")
    assert fake.asked[0][1]["MLComputeUnits"] == "CPUAndGPU"
    with pytest.raises(OptionError, match="does not run on 'cpu'"):
        open_session(request(save(tmp_path, conv_model()), providers=("CoreMLExecutionProvider",)))


class Fail(Exception):  # noqa: N818 - onnxruntime's name
    """Named like onnxruntime's own."""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "[ONNXRuntimeError] : 6 : FAIL : Failed to allocate memory for requested buffer",
            DeviceMemoryError,
        ),
        ("CUDA failure 2: out of memory ; GPU=0", DeviceMemoryError),
        ("std::bad_alloc", DeviceMemoryError),
        ("Failed to load library libonnxruntime_providers_cuda.so: libcudnn.so.9: cannot open", DeviceError),
        ("CUDA failure 101: invalid device ordinal", DeviceError),
        ("something new", BackendError),
    ],
)
def test_what_the_runtime_raises_at_opening(tmp_path, monkeypatch, text, kind):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime([CUDA], fails=Fail(text)))
    with pytest.raises(BackendError) as caught:
        open_session(request(save(tmp_path, conv_model()), device="cuda:0"))
    assert type(caught.value) is kind


def test_no_onnxruntime(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_session(request(save(tmp_path, conv_model())))
    assert caught.value.fix == 'pip install "lensmount[onnx]"'


# --- probing ----------------------------------------------------------------------------------------------------------

GPU = (Gpu(name="Tesla T4", compute_capability="7.5"),)


def test_probe_without_onnxruntime():
    status = probe(Environment())
    assert (status.usable, status.fix) == (False, 'pip install "lensmount[onnx]"')
    assert probe(Environment(gpus=GPU)).fix == 'pip install "lensmount[onnx-gpu]"'


def test_probe_on_a_cpu_build():
    status = probe(Environment(packages=(("onnxruntime", "1.31.1"),)))
    assert (status.usable, status.version, status.devices) == (True, "1.31.1", ("cpu",))
    assert status.reason is None
    beside_a_gpu = probe(Environment(gpus=GPU, packages=(("onnxruntime", "1.31.1"),)))
    assert beside_a_gpu.devices == ("cpu",)
    assert "build without" in (beside_a_gpu.reason or "")


def test_probe_on_a_gpu_build():
    both = (("onnxruntime", "1.31.1"), ("onnxruntime-gpu", "1.31.0"))
    assert probe(Environment(gpus=GPU, packages=both)).devices == ("cuda:0", "cpu")
    # Both are installed and the CPU build has overwritten the other's files.
    assert probe(Environment(gpus=GPU, packages=both, onnxruntime="onnxruntime")).devices == ("cpu",)
    assert probe(Environment(packages=both)).devices == ("cpu",)


def test_probe_on_a_mac():
    status = probe(Environment(system="darwin", machine="arm64", mps=True, packages=(("onnxruntime", "1.31.1"),)))
    assert status.devices == ("cpu", "mps")
