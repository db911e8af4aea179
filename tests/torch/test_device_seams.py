"""What is particular to CUDA, behind its seams: pinned buffers, streams, recorded graphs, memory that runs out."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount.backend import device_tensors, memory  # noqa: E402
from lensmount.backend.devices import requested_device_path  # noqa: E402
from lensmount.contracts.session import (  # noqa: E402
    BackendOptions,
    OpenRequest,
    TensorSession,
    TensorSpec,
    TorchNetwork,
)
from lensmount.errors import DeviceMemoryError, OptionError  # noqa: E402
from lensmount.specs import Artifact, ModelPackage, Preprocess  # noqa: E402
from lensmount_onnx import binding as onnx_binding  # noqa: E402
from lensmount_torch import memory as torch_memory  # noqa: E402 - after the skip
from lensmount_torch.backend import open_session  # noqa: E402
from lensmount_torch.graphs import Recorded  # noqa: E402
from lensmount_vision.device import staging  # noqa: E402
from lensmount_vision.device.preparing import DevicePreparer  # noqa: E402
from lensmount_vision.device.staging import Staging  # noqa: E402
from lensmount_vision.images.on_device import DeviceImage  # noqa: E402

WEIGHTS = Artifact(name="weights", uri="file:///weights.pt")

# --- pinned buffers ---------------------------------------------------------------------------------------------------


class Marker:
    def __init__(self, log):
        self.log, self.waited = log, False

    def synchronize(self):
        self.waited = True
        self.log.append(("wait", self))


class FakeRuntime:
    """A device whose copies, events and claims are written down; `meta` keeps staging from its way for the CPU."""

    def __init__(self):
        self.device = SimpleNamespace(type="fake")
        self.log, self.made = [], []

    def current(self):
        return nullcontext()

    def pinned(self, count):
        self.log.append(("pinned", count))
        self.made.append(torch.empty(count, dtype=torch.uint8))
        return self.made[-1]

    def mark(self):
        marker = Marker(self.log)
        self.log.append(("mark", marker))
        return marker

    def after(self, marker):
        self.log.append(("after", marker))

    def claim(self, tensor):
        self.log.append(("claim", tensor))


@pytest.fixture
def fake(monkeypatch):
    """A staging whose device is the host in disguise."""
    runtime = FakeRuntime()
    empty = torch.empty
    monkeypatch.setattr(staging.torch, "empty", lambda *size, device=None, **more: empty(*size, **more), raising=True)
    return runtime, Staging(runtime)


def test_buffers_are_used_again_after_their_events(fake):
    runtime, stage = fake
    arrays = [np.random.default_rng(i).integers(0, 256, (10, 12, 3), np.uint8) for i in range(3 * staging.SLOTS)]
    made = stage.upload(arrays)
    np.testing.assert_array_equal(made.numpy(), np.stack(arrays))
    kinds = [kind for kind, _ in runtime.log]
    assert kinds.count("pinned") == staging.SLOTS  # one for each slot, however many arrays
    assert kinds.count("mark") == len(arrays)
    # From the second round on, a buffer is filled only after the event behind its last copy: in turn.
    marks = [marker for kind, marker in runtime.log if kind == "mark"]
    waits = [marker for kind, marker in runtime.log if kind == "wait"]
    assert waits == marks[: len(arrays) - staging.SLOTS]


def test_a_buffer_is_not_written_before_its_event(fake):
    runtime, stage = fake
    seen = []

    class Checking(Marker):
        def synchronize(self):
            super().synchronize()
            seen.append(runtime.made[0][:4].tolist())

    runtime.mark = lambda: Checking(runtime.log)
    for value in range(staging.SLOTS + 1):
        stage.upload([np.full(4, value, np.uint8)])
    assert seen == [[0, 0, 0, 0]]  # the first slot still held its first array when it was waited for


def test_buffers_grow_and_stay_bounded(fake, monkeypatch):
    runtime, stage = fake
    monkeypatch.setattr(staging, "SLOT_BYTES", 100)
    rows = np.random.default_rng(0).integers(0, 256, (50, 7), np.uint8)
    long = np.random.default_rng(1).integers(0, 256, (2, 345), np.uint8)
    np.testing.assert_array_equal(stage.upload([rows, rows]).numpy(), np.stack((rows, rows)))
    np.testing.assert_array_equal(stage.upload([long]).numpy()[0], long)
    assert max(count for kind, count in runtime.log if kind == "pinned") <= 100


def test_each_thread_has_its_own_buffers(fake):
    runtime, stage = fake
    stage.upload([np.zeros(5, np.uint8)])
    thread = threading.Thread(target=stage.upload, args=([np.zeros(5, np.uint8)],))
    thread.start()
    thread.join()
    assert [kind for kind, _ in runtime.log].count("pinned") == 2
    assert not [kind for kind, _ in runtime.log if kind == "wait"]


def test_a_picture_on_the_device_is_waited_for_and_claimed():
    # The tensor may come from another stream: what prepares it must run behind it, and its memory must outlive that.
    from lensmount_vision.images.torch_streams import HostRuntime

    class Watched(HostRuntime):
        def __init__(self, device):
            super().__init__(device)
            self.log = []

        def after(self, marker):
            self.log.append(("after", marker))

        def claim(self, tensor):
            self.log.append(("claim", tensor))

    runtime = Watched(torch.device("cpu"))
    picture = DeviceImage(torch.zeros(8, 8, 3, dtype=torch.uint8))
    DevicePreparer(Preprocess(size=(8, 8)), runtime, "float32")([picture])
    assert runtime.log[0] == ("after", picture.ready)
    assert runtime.log[1][1] is picture.tensor


# --- recorded graphs --------------------------------------------------------------------------------------------------


class FakeGraph:
    """Replays as CUDA does: reads its own entries, writes its own exits."""

    made: ClassVar[list] = []

    def __init__(self, network, inputs):
        self.network = network
        self.entries = tuple(tensor.clone() for tensor in inputs)
        self.exits = tuple(network(*self.entries))
        self.replays = 0
        self.made.append(self)

    def replay(self, inputs):
        for entry, tensor in zip(self.entries, inputs, strict=True):
            entry.copy_(tensor)
        for exit_, value in zip(self.exits, self.network(*self.entries), strict=True):
            exit_.copy_(value)
        self.replays += 1
        return tuple(tensor.clone() for tensor in self.exits)


@pytest.fixture
def graphs():
    FakeGraph.made = []
    return FakeGraph.made


def test_each_shape_is_recorded_once_and_outputs_are_copies(graphs):
    recorded = Recorded(lambda x: (x * 2,), FakeGraph)
    (first,) = recorded(torch.ones(2, 3))
    (second,) = recorded(torch.full((2, 3), 5.0))
    assert (len(graphs), graphs[0].replays) == (1, 2)
    assert first.tolist() == [[2.0] * 3] * 2  # the second run did not change it
    assert second.tolist() == [[10.0] * 3] * 2
    recorded(torch.ones(4, 3))
    recorded(torch.ones(2, 3, dtype=torch.float64))
    recorded(torch.ones(2, 1, 2, 2).contiguous(memory_format=torch.channels_last))
    assert len(graphs) == 4


def test_recordings_are_bounded_and_the_oldest_goes(graphs):
    recorded = Recorded(lambda x: (x,), FakeGraph, most=2)
    for size in (1, 2, 1, 3):
        recorded(torch.ones(size))
    assert len(recorded) == 2
    recorded(torch.ones(1))  # used after 2, hence still there
    assert len(graphs) == 3
    recorded(torch.ones(2))
    assert len(graphs) == 4


def test_threads_take_turns_on_one_recording(graphs):
    recorded, wrong = Recorded(lambda x: (x + 1,), FakeGraph), []

    def work(value):
        for _ in range(50):
            (made,) = recorded(torch.full((64,), float(value)))
            if not (made == value + 1).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(graphs) == 1


# --- the torch session ------------------------------------------------------------------------------------------------


def request(**options) -> OpenRequest:
    module = torch.nn.Conv2d(3, 4, 3, padding=1)
    spec = TensorSpec("images", ("batch", 3, None, None), "float32")
    network = TorchNetwork(
        module=module, inputs=(spec,), outputs=(TensorSpec("out", ("batch", 4, None, None), "float32"),)
    )
    package = ModelPackage(name="p", format="torch", artifacts=(WEIGHTS,))
    return OpenRequest(
        package=package, path=None, device="cpu", precision="fp32", options=BackendOptions(**options), network=network
    )


def test_tensors_are_taken_where_asked(monkeypatch):
    assert open_session(request()).tensor_device is None  # on a CPU the host's way is the quicker one
    assert open_session(request(device_path=False)).tensor_device is None
    session = open_session(request(device_path=True))
    assert isinstance(session, TensorSession)
    assert session.tensor_device == "cpu"
    batch = torch.rand(2, 3, 8, 8)
    expected = session.run({"images": batch.numpy()})["out"]
    np.testing.assert_array_equal(session.run_tensors({"images": batch})["out"].numpy(), expected)
    monkeypatch.setenv("LENSMOUNT_DEVICE_PATH", "1")
    assert open_session(request()).tensor_device == "cpu"
    assert open_session(request(device_path=False)).tensor_device is None


@pytest.mark.parametrize("value", ["1", "on", "0", "off", "", "maybe"])
def test_the_environment_says_it_too(value: str, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_DEVICE_PATH", value)
    if value == "maybe":
        with pytest.raises(OptionError, match="LENSMOUNT_DEVICE_PATH"):
            requested_device_path(request())
    else:
        expected = {"1": True, "on": True, "0": False, "off": False, "": None}[value]
        assert requested_device_path(request()) is expected


def test_options_that_contradict_one_another():
    with pytest.raises(OptionError, match="do not go together"):
        open_session(request(compile=True, cuda_graphs=True))
    with pytest.raises(OptionError, match="device_path"):
        open_session(request(device_path="yes"))


def test_graphs_do_nothing_on_a_cpu():
    assert "graphs" not in open_session(request(cuda_graphs=True)).provider


# --- memory that runs out ---------------------------------------------------------------------------------------------


class FakeMeter:
    """A network that takes 100 bytes and 50 for each picture, on a device with so many free."""

    def __init__(self, free, each=50, fixed=100):
        self.bytes, self.each, self.fixed, self.size = free, each, fixed, 0

    def free(self):
        return self.bytes

    def peak_of(self, run):
        run()
        return self.fixed + self.each * self.size

    def run(self, size):
        self.size = size
        if self.fixed + size * self.each > self.bytes:
            raise RuntimeError("CUDA out of memory")


@pytest.mark.parametrize(("free", "batch", "fits"), [(2000, 64, 34), (2000, 8, 7), (120, 64, 0), (250, 64, 2)])
def test_the_batch_that_fits_follows_from_one_and_two_pictures(free: int, batch: int, fits: int):
    meter = FakeMeter(free)
    found = memory.fitting_batch(meter.run, batch, meter)
    assert found == fits
    if fits:
        meter.run(found)  # it does


@pytest.mark.parametrize(("free", "fits"), [(2000, 32), (150, 1), (120, 0)])
def test_without_a_meter_batches_are_halved(free: int, fits: int):
    assert memory.fitting_batch(FakeMeter(free).run, 64, None) == fits


def test_one_picture_that_does_not_fit():
    assert memory.fitting_batch(FakeMeter(10).run, 1, FakeMeter(10)) == 0


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8 GiB", int(2.5 * 2**30)),
        ("Tried to allocate 20.00 MiB", 20 * 2**20),
        ("you tried to allocate 655360 bytes. Error code 12", 655360),
        ("BFCArena: Failed to allocate memory for requested buffer of size 123456", 123456),
        ("CUDA error: out of memory", None),
    ],
)
def test_what_was_asked_for_is_read_from_the_message(said: str, count: int | None):
    assert memory.asked(said) == count


def test_the_error_says_all_of_it():
    error = memory.shortage("network 'Net'", "cuda:0", "Tried to allocate 2.50 GiB", batch=64, fits=23, free=3 * 2**28)
    assert isinstance(error, DeviceMemoryError)
    text = str(error)
    for part in ("batch of 64", "2.50 GiB asked for", "768.0 MiB free", "at most 23", "batch_size=23"):
        assert part in text
    assert (error.fitting_batch, error.requested, error.free) == (23, int(2.5 * 2**30), 3 * 2**28)
    assert "memory for one picture" in str(memory.shortage("n", "cuda:0", "x", batch=1, fits=0, free=None))
    import pickle

    assert pickle.loads(pickle.dumps(error)).fitting_batch == 23


class FakeCuda:
    """`torch.cuda` with a card of so many bytes, of which each picture takes `each`."""

    def __init__(self, total, each):
        self.total, self.each, self.peak = total, each, 0

    def mem_get_info(self, device):
        return self.total, self.total

    def memory_reserved(self, device):
        return 0

    memory_allocated = memory_reserved

    def reset_peak_memory_stats(self, device):
        self.peak = 0

    def max_memory_allocated(self, device):
        return self.peak

    def synchronize(self, device):
        pass

    def empty_cache(self):
        pass


def test_torch_measures_on_the_device_that_ran_out():
    cuda = FakeCuda(1000, 100)
    runs = []

    def forward(feeds):
        runs.append(len(feeds["images"]))
        cuda.peak = cuda.each * runs[-1]

    try:
        raise RuntimeError("CUDA out of memory. Tried to allocate 5.00 MiB")
    except RuntimeError as raised:
        error = torch_memory.shortage(
            SimpleNamespace(cuda=cuda), raised, "network", "cuda:0", (TensorSpec("images", ("b", 3), "float32"),),
            {"images": np.zeros((64, 3), np.float32)}, forward,
        )  # fmt: skip
    assert runs == [1, 2]
    assert (error.fitting_batch, error.free) == (9, 1000)  # a tenth is left for the allocator's blocks


def test_inputs_that_differ_in_batch_are_not_measured():
    specs = (TensorSpec("a", ("b", 2), "float32"), TensorSpec("b", ("n", 2), "float32"))
    assert memory.batch_of(specs, {"a": np.zeros((4, 2)), "b": np.zeros((1, 2))}) is None
    assert memory.batch_of((TensorSpec("a", (4, 2), "float32"),), {"a": np.zeros((4, 2))}) is None
    assert memory.batch_of(specs, {"a": np.zeros((4, 2)), "b": np.zeros((4, 2))}) == 4


class Starved(torch.nn.Module):
    def forward(self, pictures):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


def test_a_session_turns_it_into_its_error():
    asked = request(device_path=True)
    asked.network.module.forward = Starved().forward
    session = open_session(asked)
    with pytest.raises(DeviceMemoryError) as caught:
        session.run({"images": np.zeros((2, 3, 8, 8), np.float32)})
    assert caught.value.requested == 2**30
    with pytest.raises(DeviceMemoryError, match="ran out of memory"):
        session.run_tensors({"images": torch.zeros(2, 3, 8, 8)})


# --- onnxruntime's stream ---------------------------------------------------------------------------------------------


class FakeStreams:
    """`torch.cuda` as far as ordering goes: who waits for whom is written down."""

    def __init__(self):
        self.log = log = []

        class Stream:
            def __init__(self, device=None, name="compute"):
                self.cuda_stream, self.name = 4242, name

            def wait_stream(self, other):
                log.append(f"{self.name} waits for {other.name}")

            def synchronize(self):
                log.append("host waits")

        self.Stream = Stream
        self.here = Stream(name="current")

    def current_stream(self, device):
        return self.here


class Recorder:
    def __init__(self, log):
        self.log = log

    def record_stream(self, stream):
        self.log.append(f"kept for {stream.name}")


def test_the_compute_stream_waits_for_torch_and_torch_for_it(monkeypatch):
    cuda = FakeStreams()
    monkeypatch.setattr(onnx_binding, "import_torch", lambda: SimpleNamespace(cuda=cuda))
    chosen = [("CUDAExecutionProvider", {"device_id": 0})]
    stream = onnx_binding.share_stream(chosen, "cuda:0")
    assert chosen[0][1]["user_compute_stream"] == "4242"
    taken = {"CUDAExecutionProvider": {"user_compute_stream": "4242"}}
    session = SimpleNamespace(get_provider_options=lambda: taken)
    assert onnx_binding.ordering(session, "CUDAExecutionProvider", "cuda:0", stream) is stream
    stream.before([Recorder(cuda.log)])
    stream.after()
    assert cuda.log == ["compute waits for current", "kept for compute", "current waits for compute"]


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider"])
def test_a_session_that_did_not_take_the_stream_is_waited_for(provider: str, monkeypatch):
    cuda = FakeStreams()
    monkeypatch.setattr(onnx_binding, "import_torch", lambda: SimpleNamespace(cuda=cuda))
    stream = onnx_binding.share_stream([(provider, {})], "cuda:0")
    session = SimpleNamespace(get_provider_options=lambda: {provider: {"user_compute_stream": "0"}})
    order = onnx_binding.ordering(session, provider, "cuda:0", stream)
    order.before([])
    order.after()
    assert cuda.log == ["host waits"]


def test_an_installation_without_torch_keeps_to_the_host(monkeypatch):
    from lensmount.errors import MissingDependencyError

    def missing():
        raise MissingDependencyError("the torch backend needs torch")

    monkeypatch.setattr(device_tensors, "import_torch", missing)
    package = ModelPackage(name="p", format="onnx", artifacts=(WEIGHTS,))
    asked = OpenRequest(package=package, path=None, device="cuda:0", precision="fp32")
    assert device_tensors.tensors_wanted(asked) is False
    with pytest.raises(MissingDependencyError):
        device_tensors.tensors_wanted(
            OpenRequest(
                package=package, path=None, device="cuda:0", precision="fp32", options=BackendOptions(device_path=True)
            )
        )
