"""The tensorrt backend's sessions, against the stand-in: results, types, threads, graphs, memory, and every refusal."""

from __future__ import annotations

import gc
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from lensmount.contracts.session import BackendOptions, Session
from lensmount.errors import (
    BackendError,
    ClosedError,
    DeviceError,
    DeviceMemoryError,
    EngineMismatchError,
    MissingDependencyError,
    ModelFileError,
    OptionError,
    UnsafeFileError,
    UnsupportedModelError,
)
from lensmount_tensorrt import backend as backend
from tensorrt_engines import TYPES, X, build, doubling, graph, nonzero, opened, request
from tensorrt_machine import machine


@pytest.fixture
def gpu():
    with machine() as made:
        yield made


def without_manifest(path: Path) -> Path:
    path.with_name(path.name + ".json").unlink()
    return path


def test_a_session_runs_and_says_what_it_is(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    assert isinstance(session, Session)
    assert (session.backend, session.device, session.precision) == ("tensorrt", "cuda:0", "fp32")
    assert session.provider == "TensorRT 10.13.0.35 cuda:0 (compute capability 9.0)"
    assert session.metadata == {"names": "{0: 'cat'}"}
    (spec,) = session.inputs
    assert (spec.name, spec.shape, spec.dtype) == ("x", ("batch", 4), "float32")
    for _ in range(4):
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()
    session.close()
    with pytest.raises(ClosedError):
        session.run({"x": X})


@pytest.mark.parametrize("dtype", TYPES)
def test_types_that_numpy_has(gpu, tmp_path, dtype):
    path = graph(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (TYPES[dtype], [3])},
        {"y": (TYPES[dtype], [3])},
    )
    session = opened(build(path, tmp_path / "e.plan"))
    x = np.array([1, 2, 60], dtype)
    y = session.run({"x": x})["y"]
    assert (session.inputs[0].dtype, y.dtype) == (dtype, np.dtype(dtype))
    np.testing.assert_array_equal(y, x + x)
    session.close()


def test_bool(gpu, tmp_path):
    nodes = [helper.make_node("Not", ["x"], ["y"])]
    path = graph(tmp_path / "m.onnx", nodes, {"x": (TensorProto.BOOL, [3])}, {"y": (TensorProto.BOOL, [3])})
    session = opened(build(path, tmp_path / "e.plan"))
    assert session.run({"x": np.array([True, False, True])})["y"].tolist() == [False, True, False]
    session.close()


@pytest.mark.parametrize(
    ("kind", "name"), [(TensorProto.BFLOAT16, "bfloat16"), (TensorProto.FLOAT8E4M3FN, "float8_e4m3fn")]
)
def test_types_that_numpy_lacks_are_seen_as_float32(gpu, tmp_path, kind, name):
    import ml_dtypes

    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "half"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=kind),
    ]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    path = graph(tmp_path / "m.onnx", nodes, {"x": (kind, ["batch", 3])}, {"y": (kind, ["batch", 3])}, (half,))
    session = opened(build(path, tmp_path / "e.plan"))
    assert (session.inputs[0].dtype, session.outputs[0].dtype) == ("float32", "float32")
    x = np.array([[0.3, -7.7, 200.0]], np.float32)
    y = session.run({"x": x})["y"]
    narrow = np.dtype(getattr(ml_dtypes, name))
    expected = (x.astype(narrow).astype(np.float32) / 2).astype(narrow).astype(np.float32)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, expected)
    session.close()


def test_inputs_that_do_not_fit_are_refused_by_name(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    with pytest.raises(BackendError, match="wrong inputs"):
        session.run({"z": X})
    with pytest.raises(BackendError, match=r"float64"):
        session.run({"x": X.astype(np.float64)})
    with pytest.raises(BackendError, match="wrong shape"):
        session.run({"x": X[:, :3].copy()})
    session.close()


def test_shapes_outside_the_profile_say_what_was_built(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan", batch=(1, 2, 4)))
    session.run({"x": np.zeros((4, 4), np.float32)})
    with pytest.raises(BackendError) as caught:
        session.run({"x": np.zeros((5, 4), np.float32)})
    assert caught.value.found == "x (5, 4)"
    assert caught.value.expected == "x (1, 4) to (4, 4)"
    assert caught.value.fix == "lensmount export toy --to tensorrt --precision fp32 --batch 1,2,4"
    session.close()


def test_a_batch_below_the_smallest_is_padded_and_cut(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan", batch=(4, 4, 8)))
    y = session.run({"x": X})["y"]
    np.testing.assert_array_equal(y, 2 * X)
    session.close()


def test_the_second_run_of_a_shape_is_captured_and_later_ones_are_one_launch(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    for i in range(5):
        np.testing.assert_array_equal(session.run({"x": X + i})["y"], 2 * (X + i))
    calls = gpu.gpu.calls
    assert (calls["captures"], calls["graph launches"]) == (1, 4)
    assert calls["execute_async_v3"] == 2  # the first run, and the capture
    wide = np.ones((3, 4), np.float32)
    for i in range(3):
        np.testing.assert_array_equal(session.run({"x": wide * i})["y"], 2 * wide * i)
        np.testing.assert_array_equal(session.run({"x": X - i})["y"], 2 * (X - i))  # the first graph is still right
    assert calls["captures"] == 2
    session.close()


def test_every_copy_is_of_page_locked_memory_and_buffers_are_made_once(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"), cuda_graphs=False)
    session.run({"x": X})
    made = (gpu.gpu.calls["cudaMalloc"], gpu.gpu.calls["cudaMallocHost"])
    for _ in range(5):
        session.run({"x": X})
    assert (gpu.gpu.calls["cudaMalloc"], gpu.gpu.calls["cudaMallocHost"]) == made
    assert "copies of pageable memory" not in gpu.gpu.calls
    assert "captures" not in gpu.gpu.calls
    assert gpu.gpu.calls["cudaEventSynchronize"] == 6
    assert "cudaStreamSynchronize" not in gpu.gpu.calls  # the event is waited for, not the stream
    session.close()


def test_the_shapes_kept_are_bounded(gpu, tmp_path):
    from lensmount_tensorrt.lanes import SHAPES_PER_LANE

    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    for _ in range(2):
        for batch in range(1, 9):
            x = np.full((batch, 4), batch, np.float32)
            for _ in range(3):
                np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)
    assert len(gpu.gpu.executables) == SHAPES_PER_LANE
    assert sum(b.alive for b in gpu.gpu.blocks.values()) == 2 * SHAPES_PER_LANE + 1
    session.close()


def test_results_are_the_callers_own(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    first = session.run({"x": X})["y"]
    session.run({"x": X + 100})
    np.testing.assert_array_equal(first, 2 * X)
    first[:] = 0
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()


@pytest.mark.parametrize("contexts", [1, 3])
def test_threads_share_a_bounded_number_of_contexts(gpu, tmp_path, contexts):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"), contexts=contexts)
    wrong: list[object] = []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        try:
            start.wait()
            for i in range(12):
                x = np.full((1 + seed % 2, 4), seed * 100 + i, np.float32)
                if not np.array_equal(session.run({"x": x})["y"], 2 * x):
                    wrong.append((seed, i))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert gpu.gpu.calls["contexts"] <= 2 * contexts  # one for each of the two shapes
    assert len(gpu.gpu.streams) <= contexts
    session.close()


def test_closing_while_a_run_is_under_way_lets_it_end(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    with session._lanes.lane() as lane:
        session.close()
        np.testing.assert_array_equal(lane.run({"x": X})["y"], 2 * X)
    with pytest.raises(ClosedError):
        session.run({"x": X})


def test_who_waits_for_a_lane_hears_of_the_closing(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"), contexts=1)
    heard: list[BaseException] = []

    def waiting() -> None:
        try:
            session.run({"x": X})
        except ClosedError as error:
            heard.append(error)

    with session._lanes.lane():
        thread = threading.Thread(target=waiting)
        thread.start()
        session.close()
        thread.join(20)
    assert len(heard) == 1


def test_a_session_that_nobody_closes_gives_its_memory_back(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    session.run({"x": X})
    assert gpu.gpu.leaks()
    del session
    gc.collect()
    assert gpu.gpu.leaks() == []


def test_the_threads_own_device_is_put_back(gpu, tmp_path):
    gpu.become(devices=2)
    gpu.gpu.current.device = 1
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    session.run({"x": X})
    assert gpu.gpu.current.device == 1
    session.close()
    assert gpu.gpu.current.device == 1


# --- outputs whose size depends on the data -------------------------------------------------------------------------


@pytest.mark.parametrize("understated", [False, True])
def test_outputs_of_a_size_that_depends_on_the_data(gpu, tmp_path, understated):
    gpu.trt._understate_bounds = understated
    session = opened(build(nonzero(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    for x in (X, X * 0, X % 3, np.ones_like(X)):
        np.testing.assert_array_equal(session.run({"x": x})["y"], np.array(np.nonzero(x)))
    assert "captures" not in gpu.gpu.calls
    session.close()


def test_a_graph_that_is_demanded_and_cannot_be_had(gpu, tmp_path):
    session = opened(build(nonzero(tmp_path / "m.onnx"), tmp_path / "e.plan"), cuda_graphs=True)
    session.run({"x": X})
    with pytest.raises(BackendError, match="cannot be captured"):
        session.run({"x": X})
    session.close()


# --- memory ---------------------------------------------------------------------------------------------------------


def test_no_memory_for_a_batch_says_which_would_fit(gpu, tmp_path):
    gpu.become(memory=40_000)
    path = graph(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 1000])},
        {"y": (TensorProto.FLOAT, ["batch", 1000])},
    )
    session = opened(build(path, tmp_path / "e.plan", batch=(1, 1, 64)))
    with pytest.raises(DeviceMemoryError) as caught:
        session.run({"x": np.zeros((32, 1000), np.float32)})
    assert "128,000 bytes" in caught.value.problem
    assert caught.value.fix is not None
    assert "batches of at most 4" in caught.value.fix
    x = np.ones((4, 1000), np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)
    session.close()


def test_memory_that_other_shapes_hold_is_given_back_first(gpu, tmp_path):
    gpu.become(memory=40_000)
    path = graph(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "x"], ["y"])],
        {"x": (TensorProto.FLOAT, ["batch", 1000])},
        {"y": (TensorProto.FLOAT, ["batch", 1000])},
    )
    session = opened(build(path, tmp_path / "e.plan", batch=(1, 1, 64)))
    for batch in (1, 2, 3, 4, 1, 4):
        x = np.full((batch, 1000), batch, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)
    session.close()


def test_no_memory_for_a_lane(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    gpu.become(memory=1000)
    session = opened(path)
    for _ in range(3):  # the failed lane is not counted as made
        with pytest.raises(DeviceMemoryError, match="activations"):
            session.run({"x": X})
    session.close()


def test_no_page_locked_memory(gpu, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    gpu.gpu.pinned_limit = 10
    with pytest.raises(DeviceMemoryError, match="page-locking 32 bytes"):
        session.run({"x": X})
    session.close()


# --- what an engine was built for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", [True, False])
def test_an_engine_of_another_version(gpu, tmp_path, manifest):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    gpu.become("10.9.0.34")
    with pytest.raises(EngineMismatchError) as caught:
        opened(path if manifest else without_manifest(path))
    if manifest:
        assert (caught.value.found, caught.value.expected) == (
            "TensorRT 10.13.0.35",
            "TensorRT 10.9.0.34, which is installed",
        )
        assert caught.value.fix == "lensmount export toy --to tensorrt --precision fp32 --batch 1,4,16"
    else:
        assert caught.value.found == "serialisation version 10130"
        assert "lensmount export MODEL --to tensorrt" in str(caught.value)


@pytest.mark.parametrize("manifest", [True, False])
def test_an_engine_of_another_gpu(gpu, tmp_path, manifest):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    gpu.become(capability=(7, 5))
    with pytest.raises(EngineMismatchError, match="another GPU") as caught:
        opened(path if manifest else without_manifest(path))
    assert caught.value.found == "compute capability 9.0" + " (Simulated H200)" * manifest
    assert caught.value.expected == "compute capability 7.5, of 'cuda:0'"
    assert ("--batch 1,4,16" in str(caught.value.fix)) is manifest


def test_a_build_of_the_same_release_is_another_version_too(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    gpu.become("10.13.0.36")
    with pytest.raises(EngineMismatchError):
        opened(path)


def test_an_engine_of_another_system(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    beside = path.with_name("e.plan.json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "machine": "aarch64"}))
    with pytest.raises(EngineMismatchError, match="another system"):
        opened(path)


def test_a_hardware_compatible_engine_runs_from_ampere_on(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan", hardware_compatible=True)
    gpu.become(capability=(8, 6))
    session = opened(path)
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()
    gpu.become(capability=(7, 5))
    with pytest.raises(EngineMismatchError):
        opened(path)


@pytest.mark.parametrize("manifest", [True, False])
def test_host_code_is_refused_unless_allowed(gpu, tmp_path, manifest):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan", version_compatible=True)
    if not manifest:
        without_manifest(path)
    gpu.become("10.14.1.48")
    with pytest.raises(UnsafeFileError, match="code for the host") as caught:
        opened(path)
    assert "allow_host_code=True" in str(caught.value.fix)
    session = opened(path, allow_host_code=True)
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()
    gpu.become("10.12.0.36")  # older than what built it
    with pytest.raises(EngineMismatchError):
        opened(path, allow_host_code=True)


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ("10.3.0", "10.3.0", True),
        ("10.3.0", "10.4.0", True),
        ("10.3.0", "11.4.0", True),
        ("10.3.0", "10.2.0", False),
        ("11.0.0", "11.4.0", True),
        ("11.0.0", "12.0.0", False),
        ("9.3.0", "10.3.0", False),
    ],
)
def test_version_compatible_engines_follow_nvidias_matrix(built, here, runs):
    from dataclasses import replace

    from packaging.specifiers import SpecifierSet

    from lensmount_tensorrt.manifest import EngineManifest, _runs_on

    manifest = EngineManifest(
        model="m",
        graph="g",
        graph_sha256="0",
        tensorrt=built,
        compute_capability="9.0",
        gpu="",
        system="linux",
        machine="x86_64",
        precision="fp32",
        strongly_typed=True,
        profiles=(),
        version_compatible=True,
    )
    assert _runs_on(manifest, here) is runs
    assert SpecifierSet(manifest.runtime_version).contains(here) is runs
    plain = replace(manifest, version_compatible=False)
    assert SpecifierSet(plain.runtime_version).contains(here) is (built == here)


def test_a_missing_plugin_is_named(gpu, tmp_path):
    gpu.trt._known_plugins.add("EfficientNMS_TRT")
    nodes = [
        helper.make_node("Add", ["x", "x"], ["y"]),
        helper.make_node("EfficientNMS_TRT", ["x"], ["z"], domain="trt"),
    ]
    path = graph(
        tmp_path / "m.onnx", nodes, {"x": (TensorProto.FLOAT, [2])}, {"y": (TensorProto.FLOAT, [2])}, domains=("trt",)
    )
    engine = build(path, tmp_path / "e.plan")
    gpu.become()
    with pytest.raises(UnsupportedModelError, match="plugin") as caught:
        opened(engine)
    assert caught.value.found == "EfficientNMS_TRT"


# --- files ----------------------------------------------------------------------------------------------------------


def test_files_that_are_no_engine(gpu, tmp_path):
    path = tmp_path / "e.plan"
    path.write_bytes(b"not an engine at all")
    with pytest.raises(ModelFileError, match="not a whole TensorRT engine"):
        opened(path)
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match="empty"):
        opened(path)
    with pytest.raises(ModelFileError, match="not there"):
        opened(tmp_path / "absent.plan")
    with pytest.raises(ModelFileError, match="no engine to open"):
        backend.open_session(request(None))


def test_a_manifest_of_another_file(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(ModelFileError, match="not the file that its manifest describes"):
        opened(path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format": "lensmount-engine", "format_version": 2}',
        '{"format": "lensmount-engine", "format_version": 1}',
        '{"format": "lensmount-engine", "format_version": 1, "tensorrt": 10}',
        '{"format": "lensmount-engine", "format_version": 1, "profiles": [{"x": [[1]]}]}',
        "[" * 100_000,
    ],
)
def test_manifests_that_are_none(gpu, tmp_path, content):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    path.with_name("e.plan.json").write_text(content)
    with pytest.raises(ModelFileError):
        opened(path)


def test_the_header_that_other_exporters_write_is_read_and_passed_over(gpu, tmp_path):
    path = without_manifest(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    header = json.dumps({"stride": 32, "task": "detect"}).encode()
    path.write_bytes(len(header).to_bytes(4, "little") + header + path.read_bytes())
    session = opened(path, precision="fp16")
    assert session.metadata == {"stride": "32", "task": "detect"}
    assert session.precision == "fp16"  # the package's word, where there is no manifest
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()


def test_other_devices(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    with pytest.raises(DeviceError, match="CUDA devices only"):
        backend.open_session(request(path, "cpu"))
    with pytest.raises(DeviceError, match="no device 'cuda:3'"):
        backend.open_session(request(path, "cuda:3"))
    gpu.gpu.driver = False
    with pytest.raises(DeviceError, match="CUDA does not start") as caught:
        backend.open_session(request(path))
    assert "cudaErrorInsufficientDriver" in str(caught.value.found)


def test_versions_that_are_not_supported(gpu, tmp_path):
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    for version in ("8.6.1", "10.0.1", "12.0.0"):
        gpu.become(version)
        with pytest.raises(MissingDependencyError, match=version):
            opened(path)


def test_without_tensorrt(tmp_path):
    with pytest.raises(MissingDependencyError, match="tensorrt") as caught:
        backend.open_session(request(tmp_path / "e.plan"))
    assert caught.value.fix == 'pip install "lensmount[tensorrt]"'


@pytest.mark.parametrize(
    "options", [{"build": "always"}, {"contexts": 0}, {"allow_host_code": 1}, {"cuda_graphs": "yes"}]
)
def test_options_of_the_wrong_kind(options):
    with pytest.raises(OptionError):
        BackendOptions(**options)
