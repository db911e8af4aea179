"""The tensorrt backend on torch tensors, against the stand-ins of TensorRT, CUDA and torch: nothing visits the host."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from onnx import TensorProto, helper  # noqa: E402 - after the skip

from lensmount.contracts.session import Session, TensorSession  # noqa: E402
from lensmount.errors import (  # noqa: E402
    BackendError,
    ClosedError,
    DeviceError,
    DeviceMemoryError,
    MissingDependencyError,
)
from simulated_torch import simulated  # noqa: E402
from tensorrt_engines import TYPES, X, build, doubling, graph, nonzero, opened  # noqa: E402
from tensorrt_machine import machine  # noqa: E402


@pytest.fixture
def gpu():
    with machine() as made:
        yield made


@pytest.fixture
def there(gpu, monkeypatch):
    """torch on the simulated GPU; its functions are watched."""
    import lensmount_tensorrt.session  # noqa: F401 - what looks for torch has to be there

    with simulated(gpu, monkeypatch) as made, made:
        yield made


@pytest.fixture
def session(there, tmp_path):
    made = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    yield made
    made.close()


def lanes_first(gpu) -> None:
    """Has the device come to the lanes before it comes to torch's stream."""
    for stream in [*gpu.gpu.streams.values()]:
        if stream.number != 77:
            gpu.gpu.drain(stream)


def waits(gpu) -> int:
    return sum(gpu.gpu.calls.get(name, 0) for name in ("cudaEventSynchronize", "cudaStreamSynchronize"))


def test_tensors_in_tensors_out_and_nothing_visits_the_host(gpu, there, session):
    assert isinstance(session, Session)
    assert isinstance(session, TensorSession)
    assert (session.tensor_device, session.channels_last) == ("cuda:0", False)
    made = [session.run_tensors({"x": torch.tensor(X + i)})["y"] for i in range(5)]
    calls = gpu.gpu.calls
    assert waits(gpu) == 0
    assert (calls["captures"], calls["graph launches"]) == (1, 4)
    assert calls["execute_async_v3"] == 2  # the first run, and the capture
    assert calls["copies on the device"] == 10
    assert not {"cudaMallocHost", "copies of page-locked memory", "copies of pageable memory"} & set(calls)
    for i, tensor in enumerate(made):  # each its own, though nobody waited in between
        np.testing.assert_array_equal(there.host(tensor), 2 * (X + i))


@pytest.mark.parametrize("graphs", [None, False])
@pytest.mark.parametrize("own", [False, True])
def test_the_streams_of_the_caller_are_respected(gpu, there, tmp_path, own: bool, graphs):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"), cuda_graphs=graphs)
    if own:
        there.stream = gpu.gpu.streams.setdefault(77, type(gpu.gpu.default)(77))

    def bytes_of(tensor) -> np.ndarray:
        return gpu.gpu.blocks[tensor.data_ptr()].data

    for i in range(4):
        x, value = torch.zeros(2, 4), (X + i).view(np.uint8).ravel()
        # Whoever makes the picture has not come to it yet.
        there.queue(partial(np.copyto, bytes_of(x), value))
        y = session.run_tensors({"x": x})["y"]
        if i % 2:
            lanes_first(gpu)
        later = torch.zeros(2, 4)
        # A kernel that reads the output, behind the run.
        there.queue(partial(np.copyto, bytes_of(later), bytes_of(y)))
        np.testing.assert_array_equal(there.host(later), 2 * (X + i))
    session.close()
    gpu.gpu.streams.pop(77, None)


def test_memory_that_torch_gives_to_others_is_read_and_written_in_order(gpu, there, session, monkeypatch):
    """Inputs are gone when the call returns, and outputs lie where others have been, who may not have ended."""
    from lensmount_tensorrt.tensors import PreparedTensors

    launch, others = PreparedTensors._launch, []

    def meanwhile(self) -> None:
        launch(self)
        others.clear()  # another thread gives memory back, into which torch's stream still writes

    monkeypatch.setattr(PreparedTensors, "_launch", meanwhile)
    for i in range(6):
        others.append(torch.tensor(X))
        y = session.run_tensors({"x": torch.tensor(X + i)})["y"]  # the input goes: torch's stream will write there
        if i % 2:
            lanes_first(gpu)
        np.testing.assert_array_equal(there.host(y), 2 * (X + i))
        del y


def test_runs_of_both_kinds_take_turns(gpu, there, session):
    for i in range(4):
        y = session.run_tensors({"x": torch.tensor(X + i)})["y"]
        np.testing.assert_array_equal(session.run({"x": X - i})["y"], 2 * (X - i))
        np.testing.assert_array_equal(there.host(y), 2 * (X + i))


@pytest.mark.parametrize("dtype", [*TYPES, "bool"])
def test_types_that_numpy_has(there, tmp_path, dtype: str):
    kind = TensorProto.BOOL if dtype == "bool" else TYPES[dtype]
    node = helper.make_node("Not", ["x"], ["y"]) if dtype == "bool" else helper.make_node("Add", ["x", "x"], ["y"])
    session = opened(build(graph(tmp_path / "m.onnx", [node], {"x": (kind, [3])}, {"y": (kind, [3])}), tmp_path / "e"))
    x = np.array([1, 0, 60], dtype)
    y = session.run_tensors({"x": torch.tensor(x)})["y"]
    assert y.dtype == getattr(torch, dtype)
    np.testing.assert_array_equal(there.host(y), ~x if dtype == "bool" else x + x)
    session.close()


def halving(path, kind: int):
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "half"], ["h"]),
        helper.make_node("Cast", ["h"], ["y"], to=kind),
    ]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    return graph(path, nodes, {"x": (kind, ["batch", 3])}, {"y": (kind, ["batch", 3])}, (half,))


def test_bfloat16_is_seen_as_float32(there, tmp_path):
    session = opened(build(halving(tmp_path / "m.onnx", TensorProto.BFLOAT16), tmp_path / "e.plan"))
    x = np.array([[0.3, -7.7, 200.0]], np.float32)
    y = session.run_tensors({"x": torch.tensor(x)})["y"]
    assert y.dtype == torch.float32
    np.testing.assert_array_equal(there.host(y), session.run({"x": x})["y"])
    session.close()


def test_float8_keeps_to_the_host(there, tmp_path):
    session = opened(build(halving(tmp_path / "m.onnx", TensorProto.FLOAT8E4M3FN), tmp_path / "e.plan"))
    assert session.tensor_device is None
    with pytest.raises(BackendError, match="takes no tensors"):
        session.run_tensors({"x": torch.zeros(1, 3)})
    session.close()


def test_floating_types_are_cast_and_strides_may_be_anything(there, session):
    x = torch.tensor(X.T.copy(), dtype=torch.float64).T
    assert not x.is_contiguous()
    np.testing.assert_array_equal(there.host(session.run_tensors({"x": x})["y"]), 2 * X)


def test_a_batch_below_the_smallest_is_padded_and_cut(there, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan", batch=(4, 4, 8)))
    y = session.run_tensors({"x": torch.tensor(X)})["y"]
    np.testing.assert_array_equal(there.host(y), 2 * X)
    session.close()


@pytest.mark.parametrize("understated", [False, True])
def test_outputs_of_a_size_that_depends_on_the_data(gpu, there, tmp_path, understated: bool):
    gpu.trt._understate_bounds = understated
    session = opened(build(nonzero(tmp_path / "m.onnx"), tmp_path / "e.plan"))
    for x in (X, X * 0, X % 3, np.ones_like(X)):
        y = session.run_tensors({"x": torch.tensor(x)})["y"]
        np.testing.assert_array_equal(there.host(y), np.array(np.nonzero(x)))
    assert "captures" not in gpu.gpu.calls
    assert waits(gpu) == 4  # before the context may be told where an output lies now
    session.close()


def test_what_does_not_fit_is_refused_by_name(gpu, there, session, tmp_path):
    with pytest.raises(BackendError, match="wrong inputs"):
        session.run_tensors({"z": torch.zeros(2, 4)})
    with pytest.raises(BackendError, match=r"torch\.int32"):
        session.run_tensors({"x": torch.zeros(2, 4, dtype=torch.int32)})
    with pytest.raises(BackendError, match="lies on another device") as caught:
        session.run_tensors({"x": torch.zeros(2, 4, device="meta")})
    assert caught.value.found == "meta"
    with pytest.raises(BackendError, match="was not built for these shapes"):
        session.run_tensors({"x": torch.zeros(2, 5)})
    np.testing.assert_array_equal(there.host(session.run_tensors({"x": torch.tensor(X)})["y"]), 2 * X)
    session.close()
    with pytest.raises(ClosedError):
        session.run_tensors({"x": torch.zeros(2, 4)})


def test_torch_without_memory_for_the_outputs(there, session, monkeypatch):
    def nothing(*_: object, **__: object):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    with monkeypatch.context() as patch:
        patch.setattr(there, "empty", nothing)
        with pytest.raises(DeviceMemoryError) as caught:
            session.run_tensors({"x": torch.tensor(X)})
    assert caught.value.requested == 2**31
    np.testing.assert_array_equal(there.host(session.run_tensors({"x": torch.tensor(X)})["y"]), 2 * X)


def test_closing_waits_for_what_is_queued(there, session):
    y = session.run_tensors({"x": torch.tensor(X)})["y"]
    session.close()
    np.testing.assert_array_equal(there.host(y), 2 * X)


# --- whether tensors are taken --------------------------------------------------------------------------------------


def test_tensors_are_not_taken_where_they_are_not_wanted(there, tmp_path):
    session = opened(build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan"), device_path=False)
    assert session.tensor_device is None
    session.close()


@pytest.mark.parametrize("installed", [False, True])
def test_a_machine_whose_torch_has_no_cuda_keeps_to_the_host(gpu, tmp_path, installed: bool, monkeypatch):
    def missing():
        raise MissingDependencyError("the torch backend needs torch")

    from lensmount.backend import device_tensors

    monkeypatch.delenv("LENSMOUNT_DEVICE_PATH", raising=False)
    if not installed:
        monkeypatch.setattr(device_tensors, "import_torch", missing)
    elif torch.cuda.is_available():
        pytest.skip("this torch has CUDA")
    path = build(doubling(tmp_path / "m.onnx"), tmp_path / "e.plan")
    session = opened(path)
    assert session.tensor_device is None
    np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
    session.close()
    with pytest.raises(DeviceError if installed else MissingDependencyError):
        opened(path, device_path=True)
