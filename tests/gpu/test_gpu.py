"""What only a CUDA device can show: the same answers as the CPU, graphs, streams, pinned buffers, memory that runs out.

    pytest -m gpu tests/gpu -s        # -s shows the drift of half precision

Skipped without a CUDA device.
"""

from __future__ import annotations

import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import device_models  # noqa: E402 - after the skip
from lensmount import registry  # noqa: E402
from lensmount.errors import DeviceMemoryError  # noqa: E402
from lensmount.specs import Preprocess  # noqa: E402
from lensmount_torch.graphs import MOST  # noqa: E402
from lensmount_vision.device.preparing import DevicePreparer  # noqa: E402
from lensmount_vision.device.staging import SLOT_BYTES, Staging  # noqa: E402
from lensmount_vision.images.image import Image  # noqa: E402
from lensmount_vision.images.loading import load  # noqa: E402
from lensmount_vision.images.torch_streams import runtime_for  # noqa: E402
from lensmount_vision.images.transforms import prepare  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = "cuda:0"
LONG = 100_000_000  # cycles of a busy device: some 50 ms
RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def whole_floats():
    """Without TF32: parity is of fp32."""
    before = torch.backends.cudnn.conv.fp32_precision
    torch.backends.cudnn.conv.fp32_precision = "ieee"
    yield
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.fixture(scope="session")
def weights(tmp_path_factory, embedding_goldens):
    """Path and options of a model by name; each is written once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = device_models.write(name, tmp_path_factory.mktemp(name), embedding_goldens)
        return made[name]

    return get


def opened(weights, name, device=CUDA, **options):
    path, own = weights(name)
    return registry.load(path, backend="torch", device=device, **own, **options)


# --- the same answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", device_models.NAMES)
@pytest.mark.parametrize("way", [False, True], ids=["host", "device"])
def test_fp32_is_that_of_the_cpu(name: str, way: bool, weights):
    given = device_models.pictures()
    with opened(weights, name, "cpu", device_path=way) as model:  # the same pictures for both: the same way
        expected = device_models.ask(name, model, given)
    with opened(weights, name, device_path=way) as model:
        assert (model.device, model.precision) == (CUDA, "fp32")
        made = device_models.ask(name, model, given)
    for one, other in zip(expected, made, strict=True):
        found = device_models.drift(one, other)
        assert max(found.values()) < 1e-3, found


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("name", device_models.NAMES)
def test_the_drift_of_half_precision(name: str, precision: str, weights, record_property):
    if precision == "bf16" and torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no bfloat16 in hardware")
    given = device_models.pictures()
    with opened(weights, name) as model:
        expected = device_models.ask(name, model, given)
    with opened(weights, name, precision=precision) as model:
        made = device_models.ask(name, model, given)
    worst: dict[str, float] = {}
    for one, other in zip(expected, made, strict=True):
        for key, value in device_models.drift(one, other).items():
            worst[key] = max(worst.get(key, 0.0), value)
    print(f"\n{name} {precision}: " + ", ".join(f"{key} {value:.2g}" for key, value in worst.items()))
    record_property("drift", repr(worst))
    assert all(np.isfinite(value) for value in worst.values())
    # Untrained networks amplify; this only catches what is broken. The figures are what the run is for.
    assert worst.get("confidence", worst.get("vectors", worst.get("scores", 0.0))) < 0.25


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "area", "lanczos", "gaussian-bilinear"])
@pytest.mark.parametrize("mode", ["letterbox", "letterbox-reflect", "stretch", "short-side-crop", "pad-square"])
def test_preparing_is_that_of_the_host(mode: str, kernel: str):
    for antialias in (False, True):
        spec = Preprocess(size=(96, 128), resize=mode, interpolation=kernel, antialias=antialias)
        given = [Image(RNG.integers(0, 256, size, np.uint8)) for size in ((270, 480, 3), (480, 270, 3), (50, 60, 3))]
        made, _ = DevicePreparer(spec, runtime_for(CUDA), "float32")(given)
        assert np.abs(made.cpu().numpy() - prepare(given, spec)[0]).max() <= 1 / 255 + 1e-6


# --- streams and buffers ----------------------------------------------------------------------------------------------


def test_pinned_buffers_are_not_overwritten_under_a_slow_copy():
    stage = Staging(runtime_for(CUDA))
    arrays = [RNG.integers(0, 256, (257, 1031, 3), np.uint8) for _ in range(24)]
    arrays.append(RNG.integers(0, 256, (SLOT_BYTES // 3000 + 100, 1000, 3), np.uint8))  # goes in pieces
    torch.cuda._sleep(LONG)  # every copy waits behind this
    made = [stage.upload([array]) for array in arrays]
    for tensor, array in zip(made, arrays, strict=True):
        assert (tensor[0].cpu().numpy() == array).all()


def test_a_picture_made_on_another_stream_is_waited_for(weights):
    with opened(weights, "yolo") as model:
        picture = load(device_models.SCENE).array("rgb")
        (expected,) = model(picture, color="rgb", confidence=0.0, iou_threshold=1.0)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            blank = torch.zeros(picture.shape, dtype=torch.uint8, device=CUDA)
            source = torch.from_numpy(picture).pin_memory()
            torch.cuda._sleep(LONG)
            blank.copy_(source, non_blocking=True)
            there = load(blank.permute(2, 0, 1))  # marks the place in this stream
        (made,) = model(there, confidence=0.0, iou_threshold=1.0)  # on the usual one
        np.testing.assert_allclose(made.confidence, expected.confidence, atol=1e-5)


def test_a_call_runs_on_the_callers_stream(weights):
    with opened(weights, "yolo") as model:
        picture = load(device_models.SCENE).array("rgb")
        (expected,) = model(picture, color="rgb", confidence=0.0, iou_threshold=1.0)
        with torch.cuda.stream(torch.cuda.Stream()):
            blank = torch.zeros(picture.shape, dtype=torch.uint8, device=CUDA)
            torch.cuda._sleep(LONG)
            blank.copy_(torch.from_numpy(picture).pin_memory(), non_blocking=True)
            (made,) = model(blank.permute(2, 0, 1), confidence=0.0, iou_threshold=1.0)
        np.testing.assert_allclose(made.confidence, expected.confidence, atol=1e-5)


@pytest.mark.parametrize("name", ["yolo", "rfdetr", "clip"])
def test_nothing_waits_for_the_device_before_results(name: str, weights):
    with opened(weights, name) as model:
        given = model.load_images(device_models.pictures()[0], None)
        model.infer_pictures(given)  # weights of the resampling go up once
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            model.infer_pictures(given)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_threads_on_streams_of_their_own(weights):
    given = device_models.pictures()
    with opened(weights, "yolo", cuda_graphs=True) as model:
        expected = [result.confidence for result in model(given, confidence=0.0, iou_threshold=1.0)]
        wrong = []

        def work(offset):
            with torch.cuda.stream(torch.cuda.Stream()):
                for step in range(20):
                    index = (step + offset) % len(given)
                    (made,) = model(given[index], confidence=0.0, iou_threshold=1.0)
                    if not np.allclose(made.confidence, expected[index], atol=1e-4):
                        wrong.append(index)

        threads = [threading.Thread(target=work, args=(offset,)) for offset in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in device_models.NAMES if name != "sam2"])
def test_recorded_networks_answer_alike(name: str, weights):
    given = device_models.pictures()
    with opened(weights, name) as plain, opened(weights, name, cuda_graphs=True) as recorded:
        assert "CUDA graphs" in recorded.provider
        for pictures in (given[:1], given, given[1:2], given[:1]):
            pairs = zip(
                device_models.ask(name, plain, pictures), device_models.ask(name, recorded, pictures), strict=True
            )
            for one, other in pairs:
                found = device_models.drift(one, other)
                assert max(found.values()) < 1e-3, found


def test_more_shapes_than_are_kept(weights):
    with opened(weights, "clip", cuda_graphs=True) as model:
        picture = device_models.pictures()[0]
        expected = model(picture)[0].vectors
        for count in range(1, MOST + 3):
            made = model([picture] * count, batch_size=count)
            np.testing.assert_allclose(made[-1].vectors, expected, atol=1e-4)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_running_out_of_memory_names_a_batch_that_fits(weights):
    total = torch.cuda.get_device_properties(0).total_memory
    with opened(weights, "yolo", input_size=640) as model:
        session = model._session
        batch = torch.rand(512, 3, 640, 640)
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, 3 * 2**30 / total))
        try:
            with pytest.raises(DeviceMemoryError) as caught:
                session.run_on_device({session.inputs[0].name: batch})
            fits = caught.value.fitting_batch
            assert caught.value.requested
            assert fits is not None and 0 < fits < 512
            session.run_on_device({session.inputs[0].name: batch[:fits]})
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()


# --- onnxruntime ------------------------------------------------------------------------------------------------------


@pytest.fixture
def onnxruntime_on_cuda():
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("needs onnxruntime-gpu")


def test_onnxruntime_takes_tensors_on_torchs_stream(onnxruntime_on_cuda):
    from lensmount_onnx.binding import SharedStream

    host, device = (registry.load("shapes-nano", backend="onnx", device=CUDA, device_path=way) for way in (False, True))
    assert device.tensor_device == CUDA
    assert isinstance(device._session._tensors._order, SharedStream)
    for one, other in zip(host([device_models.SCENE] * 3), device([device_models.SCENE] * 3), strict=True):
        np.testing.assert_array_equal(one.class_id, other.class_id)
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=0.5)
        assert np.diag(one.masks.iou(other.masks)).min() > 0.98


def test_onnxruntime_waits_for_a_busy_stream(onnxruntime_on_cuda):
    model = registry.load("shapes-nano", backend="onnx", device=CUDA, device_path=True)
    picture = load(device_models.SCENE).array("rgb")
    (expected,) = model(picture, color="rgb")
    with torch.cuda.stream(torch.cuda.Stream()):
        blank = torch.zeros(picture.shape, dtype=torch.uint8, device=CUDA)
        torch.cuda._sleep(LONG)
        blank.copy_(torch.from_numpy(picture).pin_memory(), non_blocking=True)
        (made,) = model(blank.permute(2, 0, 1))
    np.testing.assert_array_equal(made.class_id, expected.class_id)
    np.testing.assert_allclose(made.xyxy, expected.xyxy, atol=0.5)


def test_arrays_of_cupy_are_pictures(weights):
    cupy = pytest.importorskip("cupy")
    picture = device_models.pictures()[0]
    with opened(weights, "yolo") as model:
        (one,) = model(picture, confidence=0.0, iou_threshold=1.0)
        (other,) = model(cupy.asarray(picture), confidence=0.0, iou_threshold=1.0)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-5)
