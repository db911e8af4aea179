"""onnxruntime on torch tensors, on the CPU's execution provider."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")
from onnx import TensorProto, helper  # noqa: E402 - after the skips

from lensmount.contracts import BackendOptions, OpenRequest  # noqa: E402
from lensmount.contracts.session import TensorSession  # noqa: E402
from lensmount.errors import BackendError, ClosedError, DeviceMemoryError  # noqa: E402
from lensmount.specs import Artifact, ModelPackage  # noqa: E402
from lensmount_onnx import binding as onnx_binding  # noqa: E402
from lensmount_onnx.backend import open_session  # noqa: E402


def write(path, kind=TensorProto.FLOAT):
    """Two inputs; their sum, whether it is positive, and how many rows there are."""
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["nought"], value=helper.make_tensor("n", TensorProto.FLOAT, [], [0])),
        helper.make_node("Greater", ["float", "nought"], ["positive"]),
        helper.make_node("Shape", ["sum"], ["shape"]),
    ]
    inputs = [helper.make_tensor_value_info(name, kind, ["n", 3]) for name in "ab"]
    outputs = [
        helper.make_tensor_value_info("sum", kind, ["n", 3]),
        helper.make_tensor_value_info("positive", TensorProto.BOOL, ["n", 3]),
        helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, str(path))
    return path


def opened(path, **options):
    package = ModelPackage(name="p", format="onnx", artifacts=(Artifact(name="g.onnx", uri="file:///g.onnx"),))
    return open_session(
        OpenRequest(package=package, path=path, device="cpu", precision="fp32", options=BackendOptions(**options))
    )


@pytest.fixture
def session(tmp_path):
    return opened(write(tmp_path / "g.onnx"), device_path=True)


def feeds(rows=4):
    return {"a": torch.rand(rows, 3) - 0.5, "b": torch.rand(rows, 3) - 0.5}


def test_tensors_in_and_out(session):
    assert isinstance(session, TensorSession)
    assert session.tensor_device == "cpu"
    given = feeds()
    made = session.run_tensors(given)
    torch.testing.assert_close(made["sum"], given["a"] + given["b"])
    assert made["positive"].dtype == torch.bool
    assert (made["positive"] == (made["sum"] > 0)).all()
    assert made["shape"].tolist() == [4, 3]


def test_strided_and_half_precision_inputs_are_cast(session):
    given = {"a": torch.rand(3, 4).T, "b": torch.rand(8, 3)[::2].half()}
    made = session.run_tensors(given)["sum"]
    torch.testing.assert_close(made, given["a"] + given["b"].float())
    with pytest.raises(BackendError, match="cannot take"):
        session.run_tensors({"a": torch.ones(4, 3, dtype=torch.int64), "b": torch.ones(4, 3)})


def test_outputs_outlive_the_session_and_the_next_runs(session):
    given = feeds()
    first = session.run_tensors(given)["sum"]
    for _ in range(20):
        session.run_tensors(feeds())
    session.close()
    gc.collect()
    torch.testing.assert_close(first, given["a"] + given["b"])
    with pytest.raises(ClosedError):
        session.run_tensors(given)


def test_threads_share_a_session(session):
    wrong = []

    def work():
        for rows in range(1, 40):
            given = feeds(rows)
            if not torch.equal(session.run_tensors(given)["sum"], given["a"] + given["b"]):
                wrong.append(rows)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_old_releases_without_dlpack_go_over_the_host(session, monkeypatch):
    class Old:
        def __init__(self, value):
            self.numpy = value.numpy

    plain = onnx_binding._as_tensor
    monkeypatch.setattr(onnx_binding, "_as_tensor", lambda torch, value, *rest: plain(torch, Old(value), *rest))
    given = feeds()
    made = session.run_tensors(given)
    torch.testing.assert_close(made["sum"], given["a"] + given["b"])
    assert made["positive"].dtype == torch.bool


def test_wrong_names_and_shapes(session):
    with pytest.raises(BackendError, match="wrong inputs"):
        session.run_tensors({"a": torch.ones(2, 3)})
    with pytest.raises(BackendError):
        session.run_tensors({"a": torch.ones(2, 5), "b": torch.ones(2, 5)})


def test_on_a_cpu_only_where_asked(tmp_path):
    path = write(tmp_path / "g.onnx")
    plain = opened(path)
    assert plain.tensor_device is None
    with pytest.raises(BackendError, match="device_path"):
        plain.run_tensors(feeds())


def test_memory_that_runs_out(session, monkeypatch):
    def fail(given):
        raise RuntimeError("Failed to allocate memory for requested buffer of size 1073741824")

    monkeypatch.setattr(session._tensors, "run", fail)
    with pytest.raises(DeviceMemoryError, match="ran out of memory") as caught:
        session.run_tensors(feeds())
    assert caught.value.requested == 2**30
    assert "batch of 4" in str(caught.value)


def test_runs_lie_between_what_torch_does_before_and_after(session):
    log = []

    class Order:
        def before(self, tensors):
            log.append(("before", len(tensors)))

        def after(self):
            log.append("after")

    session.take_tensors(Order())
    session.run_tensors(feeds())
    assert log == [("before", 2), "after"]


def test_numpy_is_not_touched_by_a_run(session, monkeypatch):
    # What a run brings to the host would be a silent copy on a GPU.
    monkeypatch.setattr(torch.Tensor, "numpy", lambda *_: pytest.fail("a tensor went to the host"))
    monkeypatch.setattr(torch.Tensor, "cpu", lambda *_: pytest.fail("a tensor went to the host"))
    assert np.isfinite(float(session.run_tensors(feeds())["sum"].sum()))
