"""The stand-in is what the tests rest on: it has the described API, and notices what a real GPU would punish."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensorrt_machine import STUB, machine

ROOT = Path(__file__).resolve().parents[2]
FACTORY_MADE = ("IBuilderConfig", "ICudaEngine", "IExecutionContext", "INetworkDefinition", "ITensor", "ITimingCache")
ALLOWED = (
    # Nobody constructs these: TensorRT's factories do, and the stand-in's hand their parts over.
    *(f"tensorrt.{name}.__init__" for name in (*FACTORY_MADE, "ParserError")),
    # Python offers the buffer protocol to classes from 3.12 on; `bytes` stands for it.
    "tensorrt.IHostMemory",
    "tensorrt.IHostMemory.__buffer__",
    "tensorrt._Enum.__init_subclass__",
)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["tensorrt", "cuda.bindings.runtime"])
def test_stand_in_and_description_agree(module, tmp_path):
    """`mypy.stubtest` imports the stand-in and compares it with the file that mypy checks the backend against."""
    allowed = tmp_path / "allowed"
    allowed.write_text("\n".join(re.escape(name) for name in ALLOWED))
    environ = {**os.environ, "MYPYPATH": str(ROOT / "typings"), "PYTHONPATH": str(STUB)}
    command = [sys.executable, "-m", "mypy.stubtest", module, "--concise", "--ignore-missing-stub"]
    command += ["--allowlist", str(allowed), "--ignore-unused-allowlist", "--mypy-config-file", os.devnull]
    done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not [line for line in done.stdout.splitlines() if line.startswith(module)], done.stdout + done.stderr
    assert "usage" not in done.stderr, done.stderr


@pytest.fixture
def parts():
    """CUDA's functions and an engine that doubles (batch, 4)."""
    with machine() as made:
        from cuda.bindings import runtime as cuda

        trt = made.trt

        class Logger(trt.ILogger):
            def __init__(self):
                trt.ILogger.__init__(self)
                self.said = []

            def log(self, severity, msg):
                self.said.append(msg)

        logger = Logger()
        builder = trt.Builder(logger)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in "xy"]
        graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:])
        path = Path(os.environ.get("TMPDIR", "/tmp")) / f"standin-{os.getpid()}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
        assert trt.OnnxParser(network, logger).parse_from_file(str(path))
        path.unlink()
        config = builder.create_builder_config()
        profile = builder.create_optimization_profile()
        profile.set_shape("x", (1, 4), (2, 4), (4, 4))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        runtime = trt.Runtime(logger)
        made.logger, made.cuda = logger, cuda
        made.engine = runtime.deserialize_cuda_engine(plan)
        made.stream = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)[1]
        yield made
        # What these tests do wrong on purpose is not to fail them.
        made.gpu.reset()


def ready(parts, batch=2):
    """A context with everything set, and its buffers."""
    context = parts.engine.create_execution_context()
    assert context.set_input_shape("x", (batch, 4))
    size = batch * 16
    buffers = [parts.cuda.cudaMalloc(size)[1] for _ in range(2)]
    for name, address in zip("xy", buffers, strict=True):
        assert context.set_tensor_address(name, address)
    host = parts.cuda.cudaMallocHost(size)[1]
    view = parts.gpu.host(host, size).view(np.float32)
    view[:] = np.arange(batch * 4)
    up = parts.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    parts.cuda.cudaMemcpyAsync(buffers[0], host, size, up, parts.stream)
    return context, buffers, host, view


def download(parts, buffer, host, size=32):
    kind = parts.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
    return parts.cuda.cudaMemcpyAsync(host, buffer, size, kind, parts.stream)


def test_nothing_happens_before_somebody_waits(parts):
    context, buffers, host, view = ready(parts)
    assert context.execute_async_v3(int(parts.stream))
    download(parts, buffers[1], host)
    assert set(view.view(np.uint8)) == {0xCD}
    view[:] = np.arange(8)  # the upload reads it when its turn comes
    parts.cuda.cudaStreamSynchronize(parts.stream)
    assert view.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_an_event_covers_what_was_queued_before_it(parts):
    context, buffers, host, view = ready(parts)
    context.execute_async_v3(int(parts.stream))
    _, event = parts.cuda.cudaEventCreateWithFlags(0)
    parts.cuda.cudaEventRecord(event, parts.stream)
    download(parts, buffers[1], host)
    parts.cuda.cudaEventSynchronize(event)
    assert set(view.view(np.uint8)) == {0xCD}  # the copy stands behind the event


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda p, c, b: c.set_input_shape("x", (9, 4)), "does not satisfy any optimization profiles"),
        (lambda p, c, b: c.set_input_shape("x", (2, 5)), "Static dimension mismatch"),
        (lambda p, c, b: c.set_tensor_address("z", b[0]), "no tensor z"),
        (lambda p, c, b: p.engine.create_execution_context().execute_async_v3(int(p.stream)), "shape of x"),
    ],
)
def test_what_tensorrt_answers_false_to(parts, wrong, words):
    context, buffers, _, _ = ready(parts)
    parts.cuda.cudaStreamSynchronize(parts.stream)
    assert wrong(parts, context, buffers) is False
    assert words in parts.logger.said[-1]


def test_an_unbound_tensor(parts):
    context = parts.engine.create_execution_context()
    assert context.infer_shapes() == ["x"]
    context.set_input_shape("x", (2, 4))
    assert context.execute_async_v3(int(parts.stream)) is False
    assert "Address is not set for tensor x" in parts.logger.said[-1]


def test_an_input_of_another_type(parts):
    """Half as many bytes as the tensor takes: float16 for float32."""
    context, buffers, host, _ = ready(parts)
    up = parts.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
    parts.cuda.cudaMemcpyAsync(buffers[0], host, 16, up, parts.stream)
    context.execute_async_v3(int(parts.stream))
    with pytest.raises(parts.misuse, match="takes 32 bytes, 16 were copied"):
        parts.cuda.cudaStreamSynchronize(parts.stream)


def test_a_buffer_that_is_too_small(parts):
    context, _, _, _ = ready(parts, batch=2)
    parts.cuda.cudaStreamSynchronize(parts.stream)
    context.set_input_shape("x", (4, 4))
    with pytest.raises(parts.misuse, match="do not fit"):
        context.execute_async_v3(int(parts.stream))


def test_a_host_pointer_for_a_device_pointer(parts):
    context, _, host, _ = ready(parts)
    parts.cuda.cudaStreamSynchronize(parts.stream)
    context.set_tensor_address("x", host)
    with pytest.raises(parts.misuse, match="no device address"):
        context.execute_async_v3(int(parts.stream))


def test_a_device_pointer_for_a_host_pointer(parts):
    _, buffers, _, _ = ready(parts)
    with pytest.raises(parts.misuse, match="device pointer"):
        download(parts, buffers[1], buffers[0])


def test_freed_memory(parts):
    context, buffers, _, _ = ready(parts)
    with pytest.raises(parts.misuse, match="while queued work uses it"):
        parts.cuda.cudaFree(buffers[0])
    parts.cuda.cudaStreamSynchronize(parts.stream)
    parts.cuda.cudaFree(buffers[0])
    with pytest.raises(parts.misuse, match="freed memory"):
        context.execute_async_v3(int(parts.stream))
    assert parts.cuda.cudaFree(buffers[0])[0] == parts.cuda.cudaError_t.cudaErrorInvalidValue


def test_streams_wait_for_events_as_they_were(parts):
    cuda = parts.cuda
    _, buffers, _, _ = ready(parts)  # an upload is queued on the first stream
    _, event = cuda.cudaEventCreateWithFlags(0)
    _, other = cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)
    down = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
    _, second = cuda.cudaMallocHost(32)
    copied = parts.gpu.host(second, 32).view(np.float32)
    cuda.cudaMemcpyAsync(second, buffers[0], 32, down, other)
    cuda.cudaStreamSynchronize(other)
    assert set(copied.view(np.uint8)) == {0xCD}  # nobody ordered the streams: the upload has not happened
    cuda.cudaEventRecord(event, parts.stream)
    cuda.cudaStreamWaitEvent(other, event, 0)
    cuda.cudaEventRecord(event, other)  # the wait is for the event as it was
    cuda.cudaMemcpyAsync(second, buffers[0], 32, down, other)
    cuda.cudaStreamSynchronize(other)
    assert copied.tolist() == list(range(8))
    assert cuda.cudaStreamWaitEvent(cuda.cudaStream_t(0), event, 0)[0] == cuda.cudaError_t.cudaSuccess


def test_copies_on_the_device(parts):
    cuda = parts.cuda
    _, buffers, host, _ = ready(parts)
    cuda.cudaStreamSynchronize(parts.stream)
    aside = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    cuda.cudaMemcpyAsync(buffers[1], buffers[0], 32, aside, parts.stream)
    download(parts, buffers[1], host)
    cuda.cudaStreamSynchronize(parts.stream)
    assert parts.gpu.host(host, 32).view(np.float32).tolist() == list(range(8))
    with pytest.raises(parts.misuse, match="no device address"):
        cuda.cudaMemcpyAsync(buffers[1], host, 32, aside, parts.stream)
    with pytest.raises(parts.misuse, match="do not fit"):
        cuda.cudaMemcpyAsync(buffers[1], buffers[0], 64, aside, parts.stream)


def test_use_after_destruction(parts):
    context, _, _, _ = ready(parts)
    context.execute_async_v3(int(parts.stream))
    del context
    with pytest.raises(parts.misuse, match="destroyed before its work was done"):
        parts.cuda.cudaStreamSynchronize(parts.stream)
    _, other = parts.cuda.cudaStreamCreateWithFlags(0)
    parts.cuda.cudaStreamDestroy(other)
    with pytest.raises(parts.misuse, match="no such stream"):
        parts.cuda.cudaStreamSynchronize(other)


def test_two_streams_and_two_threads_on_one_context(parts):
    context, _, _, _ = ready(parts)
    context.execute_async_v3(int(parts.stream))
    _, other = parts.cuda.cudaStreamCreateWithFlags(0)
    with pytest.raises(parts.misuse, match="two streams"):
        context.execute_async_v3(int(other))
    caught = []
    start = threading.Barrier(2)

    def run():
        start.wait()
        for _ in range(40):
            try:
                context.execute_async_v3(int(parts.stream))
            except parts.misuse as error:
                caught.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "two threads" in caught[0]


def test_a_context_changed_behind_its_graph(parts):
    context, buffers, host, view = ready(parts)
    cuda = parts.cuda
    context.execute_async_v3(int(parts.stream))
    cuda.cudaStreamSynchronize(parts.stream)
    cuda.cudaStreamBeginCapture(parts.stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
    context.execute_async_v3(int(parts.stream))
    download(parts, buffers[1], host)
    _, graph = cuda.cudaStreamEndCapture(parts.stream)
    _, executable = cuda.cudaGraphInstantiate(graph, 0)
    assert view.tolist() == list(range(8))  # a capture runs nothing
    cuda.cudaGraphLaunch(executable, parts.stream)
    cuda.cudaStreamSynchronize(parts.stream)
    assert view.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    context.set_input_shape("x", (1, 4))
    cuda.cudaGraphLaunch(executable, parts.stream)
    with pytest.raises(parts.misuse, match="changed between capture"):
        cuda.cudaStreamSynchronize(parts.stream)


def test_what_spoils_a_capture(parts):
    cuda = parts.cuda
    mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    for call in (lambda: cuda.cudaMalloc(4), lambda: cuda.cudaStreamSynchronize(parts.stream)):
        cuda.cudaStreamBeginCapture(parts.stream, mode)
        assert call()[0] == cuda.cudaError_t.cudaErrorStreamCaptureUnsupported
        assert cuda.cudaStreamEndCapture(parts.stream)[0] == cuda.cudaError_t.cudaErrorStreamCaptureInvalidated


def test_the_versions_differ_where_the_real_ones_do(parts):
    trt = parts.trt
    assert "FP16" in trt.BuilderFlag.__members__
    assert int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 1
    parts.become("11.4.0.106")
    assert "FP16" not in trt.BuilderFlag.__members__
    assert not hasattr(trt.BuilderFlag, "FP16")
    assert int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) == 0


def test_a_strongly_typed_network_refuses_flags_that_lower_it(parts):
    builder = parts.trt.Builder(parts.logger)
    network = builder.create_network(1 << int(parts.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    network._inputs.append(parts.engine._inputs[0])
    config = builder.create_builder_config()
    config.set_flag(parts.trt.BuilderFlag.FP16)
    assert builder.build_serialized_network(network, config) is None
    assert "kFP16" in parts.logger.said[-1]
