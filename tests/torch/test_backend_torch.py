"""The torch backend on small networks made here."""

from __future__ import annotations

import copy
import os
import sys
import threading
import types
import warnings

import numpy as np
import pytest

from lensmount.backend.torch_place import check_device
from lensmount.contracts import BackendOptions, OpenRequest, Session, TensorSpec
from lensmount.contracts.session import TorchNetwork
from lensmount.errors import (
    BackendError,
    ClosedError,
    DeviceError,
    DeviceMemoryError,
    InputError,
    MissingDependencyError,
    ModelFileError,
    OptionError,
)
from lensmount.machine.environment import Environment, Gpu
from lensmount.specs import Artifact, ModelPackage
from lensmount_torch import placing
from lensmount_torch.backend import open_session, probe

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(11)
PACKAGE = ModelPackage(name="p", format="torch", artifacts=(Artifact(name="w.safetensors", uri="file://w"),))


def small_net():
    torch.manual_seed(3)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.SiLU(), torch.nn.Conv2d(8, 4, 3, 1, 1), torch.nn.Sigmoid()
    )


class Own(torch.nn.Module):
    """A module around a function, with one weight."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.arange(4, dtype=torch.float32))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def network(module=None, *, float32_outputs=True, outputs=1, inputs=None):
    return TorchNetwork(
        module=module or small_net(),
        inputs=inputs or (TensorSpec("images", ("n", 3, None, None), "float32"),),
        outputs=tuple(TensorSpec(f"y{i}", ("n", None, None, None), "float32") for i in range(outputs)),
        metadata={"stride": "2"},
        float32_outputs=float32_outputs,
    )


def request(net=None, device="cpu", precision="fp32", **options):
    return OpenRequest(
        package=PACKAGE,
        path=None,
        device=device,
        precision=precision,
        options=BackendOptions(**options),
        network=net or network(),
    )


def vector(function, **settings):
    """A session of a function of one vector of 4."""
    inputs = (TensorSpec("x", (4,), "float32"),)
    return open_session(request(network(Own(function), inputs=inputs, **settings)))


def images(count=1, size=16):
    return RNG.random((count, 3, size, size), dtype=np.float32)


X4 = np.array([-1, 0, 1, 2], np.float32)


# --- running ----------------------------------------------------------------------------------------------------------


def test_a_network_is_described_and_runs():
    module = small_net()
    wanted_of = copy.deepcopy(module).eval()
    session = open_session(request(network(module)))
    assert isinstance(session, Session)
    assert (session.backend, session.device, session.precision) == ("torch", "cpu", "fp32")
    assert session.provider == f"torch {torch.__version__} cpu"
    assert session.metadata == {"stride": "2"}
    assert session.inputs[0].name == "images"
    assert session.outputs == (TensorSpec("y0", ("n", None, None, None), "float32"),)
    assert session.module is module
    x = images(2)
    result = session.run({"images": x})["y0"]
    assert (result.dtype, result.shape, result.flags.c_contiguous) == (np.float32, (2, 4, 8, 8), True)
    with torch.no_grad():
        # Channels-last sums in another order: float32 rounding of 72 products.
        np.testing.assert_allclose(result, wanted_of(torch.from_numpy(x)).numpy(), atol=1e-5)


@pytest.mark.parametrize("layout", [True, False])
def test_the_memory_layout_can_be_chosen(layout):
    session = open_session(request(channels_last=layout))
    assert session.channels_last is layout
    weight = session.module[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is layout
    assert session.run({"images": images()})["y0"].flags.c_contiguous


def test_the_memory_layout_chosen_by_itself():
    """Networks of convolutions, not transformers with one patch embedding."""
    vit = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Flatten(2), torch.nn.Linear(16, 512))
    assert open_session(request()).channels_last is True
    assert open_session(request(network(vit))).channels_last is False


def test_bf16_comes_back_as_float32():
    x = images()
    wanted = open_session(request()).run({"images": x})["y0"]
    for keep in (True, False):
        session = open_session(request(network(float32_outputs=keep), precision="bf16"))
        assert (session.precision, session.outputs[0].dtype) == ("bf16", "float32")
        assert session.module[0].weight.dtype == torch.bfloat16
        result = session.run({"images": x})["y0"]
        assert result.dtype == np.float32
        # bfloat16 has 8 bits of mantissa; the outputs lie in 0..1.
        np.testing.assert_allclose(result, wanted, atol=0.01)
        assert not np.array_equal(result, wanted)


def test_fp16_on_a_cpu_without_it_is_refused(monkeypatch):
    monkeypatch.setattr(placing, "_cpu_has_fp16", lambda torch: False)
    with pytest.raises(OptionError, match="ten times slower") as caught:
        open_session(request(precision="fp16"))
    assert caught.value.fix


@pytest.mark.parametrize("keep", [True, False])
def test_fp16_on_a_cpu_with_it(monkeypatch, keep):
    monkeypatch.setattr(placing, "_cpu_has_fp16", lambda torch: True)
    session = open_session(request(network(float32_outputs=keep), precision="fp16"))
    result = session.run({"images": images()})["y0"]
    assert session.precision == "fp16"
    assert str(result.dtype) == session.outputs[0].dtype == ("float32" if keep else "float16")


def test_a_precision_that_torch_does_not_compute_in():
    with pytest.raises(OptionError, match="int8"):
        open_session(request(precision="int8"))


def test_gradients_are_off():
    def check(module, x):
        assert torch.is_inference_mode_enabled()
        assert not module.training
        return module.weight * x

    assert vector(check).run({"x": X4})["y0"].tolist() == [0, 0, 2, 6]


def test_arrays_of_any_layout():
    session = open_session(request())
    x = images(2)
    wanted = session.run({"images": x})["y0"]
    frozen = x.copy()
    frozen.flags.writeable = False
    flipped = x[:, :, ::-1].copy()[:, :, ::-1]
    nhwc = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for array in (frozen, flipped, nhwc, np.asfortranarray(x)):
            np.testing.assert_allclose(session.run({"images": array})["y0"], wanted, atol=1e-6)


def test_an_input_in_place_is_not_copied():
    seen = []
    session = vector(lambda module, x: (seen.append(x.data_ptr()), x + 1)[1])
    x = X4.copy()
    session.run({"x": x})
    assert seen == [x.ctypes.data]


def test_results_never_share_memory_with_weights_or_inputs():
    session = vector(lambda module, x: (module.weight, x, module.weight[1:], x[1:]), outputs=4)
    x = X4.copy()
    for array in session.run({"x": x}).values():
        array[:] = 99
    assert session.run({"x": x})["y0"].tolist() == [0, 1, 2, 3]
    assert x.tolist() == X4.tolist()


def test_integer_inputs_keep_their_type():
    inputs = (TensorSpec("x", (4,), "uint8"), TensorSpec("i", (2,), "int64"))
    module = Own(lambda module, x, i: (x.float() / 255, i.to(torch.int64)))
    outputs = (TensorSpec("y", (4,), "float32"), TensorSpec("j", (2,), "int64"))
    session = open_session(request(TorchNetwork(module=module, inputs=inputs, outputs=outputs), precision="bf16"))
    assert [spec.dtype for spec in session.outputs] == ["float32", "int64"]
    result = session.run({"x": np.array([0, 51, 102, 255], np.uint8), "i": np.array([1, 2**40])})
    np.testing.assert_allclose(result["y"], [0, 0.2, 0.4, 1], atol=1e-6)
    assert result["j"].tolist() == [1, 2**40]


def test_outputs_stay_on_the_device():
    session = open_session(request())
    x = images()
    kept = session.run_on_device({"images": x})["y0"]
    assert isinstance(kept, torch.Tensor)
    again = session.run_on_device({"images": torch.from_numpy(x)})["y0"]
    assert torch.equal(kept, again)
    np.testing.assert_array_equal(kept.numpy(), session.run({"images": x})["y0"])
    with pytest.raises(BackendError, match="wrong inputs"):
        session.run_on_device({"picture": x})


# --- what does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"x": np.zeros((1, 3, 16, 16), np.float32)},
        {"images": np.zeros((1, 3, 16, 16), np.float64)},
        {"images": np.zeros((1, 16, 16, 3), np.float32)},
        {"images": np.zeros((3, 16, 16), np.float32)},
        {"images": [1.0]},
    ],
)
def test_feeds_that_do_not_fit(feeds):
    with pytest.raises(BackendError) as caught:
        open_session(request()).run(feeds)
    assert caught.value.found
    assert caught.value.expected


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda module, x: (x, x), "Tensor"),
        (lambda module, x: [], "[]"),
        (lambda module, x: (None,), "NoneType"),
    ],
)
def test_other_outputs_than_declared(function, found):
    with pytest.raises(BackendError, match="other outputs") as caught:
        vector(function).run({"x": X4})
    assert found in (caught.value.found or "")


def raising(error):
    def function(module, x):
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), DeviceMemoryError),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), DeviceMemoryError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), DeviceMemoryError),
        (RuntimeError("CUDA error: no kernel image is available for execution"), DeviceError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), BackendError),
        (KeyError("oops"), BackendError),
        (InputError("ours"), InputError),
    ],
)
def test_what_a_network_raises(error, kind):
    with pytest.raises(kind) as caught:
        vector(raising(error)).run({"x": X4})
    assert type(caught.value) is kind


def test_no_network():
    with pytest.raises(ModelFileError, match="without a network"):
        open_session(OpenRequest(package=PACKAGE, path=None, device="cpu", precision="fp32"))


@pytest.mark.parametrize("device", ["cuda:7", "mps", "tpu", "", "cuda:x"])
def test_a_device_that_is_not_there(device):
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(DeviceError):
        open_session(request(device=device))


def test_a_module_that_moves_only_in_part():
    class Sticky(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(2, device="meta"))
            self.other = torch.nn.Parameter(torch.ones(2))

        def to(self, *args, **kwargs):
            return self

    with pytest.raises(DeviceError, match="does not lie") as caught:
        open_session(request(network(Sticky())))
    assert caught.value.found == "cpu, meta"


def test_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_session(request(TorchNetwork(module=object(), inputs=(), outputs=())))
    assert caught.value.fix == 'pip install "lensmount[torch]"'


# --- threads, closing, compiling --------------------------------------------------------------------------------------


def test_threads_are_set_only_when_asked(monkeypatch):
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    open_session(request())
    assert calls == []
    open_session(request(threads=2))
    monkeypatch.setenv("LENSMOUNT_THREADS", "3")
    open_session(request())
    assert calls == [2, 3]
    with pytest.raises(OptionError):
        open_session(request(threads=0))


def test_two_threads_at_once():
    session = open_session(request())
    batches = [images(1 + i % 2) for i in range(8)]
    wanted = [session.run({"images": x})["y0"] for x in batches]
    wrong: list[int] = []

    def work():
        for _ in range(5):
            for i, x in enumerate(batches):
                # Another number of threads inside torch may sum in another order.
                if not np.allclose(session.run({"images": x})["y0"], wanted[i], atol=1e-6):
                    wrong.append(i)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_session():
    session = open_session(request())
    session.close()
    session.close()
    assert session.module is None
    for call in (session.run, session.run_on_device):
        with pytest.raises(ClosedError):
            call({"images": images()})


def test_compiling_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendError, match=r"C\+\+ compiler"):
        open_session(request(compile=True))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a C++ compiler")
def test_a_compiled_network_gives_the_same():
    import shutil

    if not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("needs a C++ compiler")
    net = network(Own(lambda module, x: torch.tanh(x * module.weight)), inputs=(TensorSpec("x", (4,), "float32"),))
    session = open_session(request(net, compile=True))
    assert session.provider.endswith(", compiled")
    np.testing.assert_allclose(session.run({"x": X4})["y0"], np.tanh(X4 * np.arange(4)), atol=1e-6)


def test_a_failing_compilation(monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def compiled(module):
        def call(*inputs):
            raise BackendCompilerFailed("inductor", ValueError("no"), None)

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr("shutil.which", lambda name: name)
    with pytest.raises(BackendError, match="cannot compile") as caught:
        open_session(request(compile=True)).run({"images": images()})
    assert caught.value.fix == "load without compile=True"


# --- on a GPU, as far as it can be told without one -------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ok"), [("cuda:0", True), ("cuda:1", True), ("cuda", True), ("cuda:2", False)])
def test_the_number_of_a_gpu(monkeypatch, name, ok):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if ok:
        assert check_device(torch, name).type == "cuda"
    else:
        with pytest.raises(DeviceError) as caught:
            check_device(torch, name)
        assert caught.value.found == "cuda:0, cuda:1, cpu"


@pytest.mark.parametrize(
    ("kind", "dtype", "expected"),
    [
        ("cpu", torch.float32, True),
        ("cuda", torch.float16, True),
        ("cuda", torch.float32, False),
        ("mps", torch.float16, False),
    ],
)
def test_where_channels_last_pays(kind, dtype, expected):
    assert placing._pays(torch, small_net(), types.SimpleNamespace(type=kind), dtype) is expected


def test_tf32_is_told():
    assert placing.may_use_tf32(torch, "cpu") is False
    stand_in = types.SimpleNamespace(
        backends=types.SimpleNamespace(cudnn=types.SimpleNamespace(conv=types.SimpleNamespace(fp32_precision="ieee")))
    )
    assert placing.may_use_tf32(stand_in, "cuda:0") is False
    stand_in.backends.cudnn.conv.fp32_precision = "tf32"
    assert placing.may_use_tf32(stand_in, "cuda:0") is True


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_on_a_gpu(precision):
    x = images(2)
    wanted = open_session(request()).run({"images": x})["y0"]
    session = open_session(request(device="cuda:0", precision=precision))
    assert (session.device, session.precision) == ("cuda:0", precision)
    np.testing.assert_allclose(session.run({"images": x})["y0"], wanted, atol=0.01)


# --- probing ----------------------------------------------------------------------------------------------------------

T4, A100 = Gpu(name="Tesla T4", compute_capability="7.5"), Gpu(name="A100", compute_capability="8.0")


@pytest.mark.parametrize(
    ("environment", "devices", "reason"),
    [
        (Environment(packages=(("torch", "2.13.0+cpu"),)), ("cpu",), None),
        (Environment(gpus=(T4,), packages=(("torch", "2.13.0+cpu"),)), ("cpu",), "build without"),
        (Environment(gpus=(T4,), cuda="13.0", packages=(("torch", "2.13.0+cu130"),)), ("cuda:0", "cpu"), None),
        (Environment(gpus=(T4,), cuda="12.8", packages=(("torch", "2.13.0+cu130"),)), ("cpu",), "needs a driver"),
        (Environment(cuda="13.0", packages=(("torch", "2.13.0+cu130"),)), ("cpu",), None),
        (
            Environment(gpus=(A100,), cuda="12.6", packages=(("torch", "2.5.0a0+87.nv24.08.cu126"),)),
            ("cuda:0", "cpu"),
            None,
        ),
        (
            Environment(system="darwin", machine="arm64", mps=True, packages=(("torch", "2.13.0"),)),
            ("mps", "cpu"),
            None,
        ),
    ],
)
def test_probe(environment, devices, reason):
    status = probe(environment)
    assert (status.usable, status.devices) == (True, devices)
    assert (status.reason is None) if reason is None else (reason in (status.reason or ""))
    assert (status.fix is None) is (reason is None)


def test_probe_knows_which_gpus_have_bfloat16():
    for gpu, expected in ((T4, ("fp32", "fp16")), (A100, ("fp32", "fp16", "bf16"))):
        status = probe(Environment(gpus=(gpu,), packages=(("torch", "2.13.0+cu130"),)))
        assert dict(status.precisions)["cuda"] == expected


def test_probe_without_torch():
    status = probe(Environment())
    assert (status.usable, status.fix) == (False, 'pip install "lensmount[torch]"')
