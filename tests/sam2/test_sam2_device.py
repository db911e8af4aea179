"""SAM 2's masks finished on the device against the host's, on torch's CPU device."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import sam2_tiny  # noqa: E402 - after the skip
from lensmount import registry  # noqa: E402
from lensmount.errors import InputError  # noqa: E402
from lensmount_sam2 import on_device  # noqa: E402
from lensmount_sam2.on_host import stability  # noqa: E402
from lensmount_sam2.selecting import choose  # noqa: E402
from tensor_reads import downloads  # noqa: E402

RNG = np.random.default_rng(3)
POINTS = [[[40.0, 60.0]], [[90.0, 90.0]]]


@pytest.fixture(scope="module")
def ways(tiny_folder):
    """The same weights, finished on the host and on the device."""
    models = [registry.load(tiny_folder, backend="torch", device="cpu", device_path=way) for way in (False, True)]
    assert [model.runner.on_device for model in models] == [False, True]
    yield models
    for model in models:
        model.close()


def maps(count: int) -> np.ndarray:
    """`(count, 4, h, w)` smooth logits; the first of every second prompt is steady, one is empty."""
    rows, columns = np.mgrid[:32, :32]
    made = np.stack([6 - np.hypot(rows - 3 * i, columns - 10).astype(np.float32) for i in range(4 * count)])
    made = made.reshape(count, 4, 32, 32) * 40
    made[::2, 0] /= 4000
    made[1, 2] = -1
    return made


@pytest.mark.parametrize("several", [False, True])
def test_the_same_masks_are_chosen(several: bool):
    logits, scores = maps(6), RNG.uniform(0, 1, (6, 4)).astype(np.float32)
    scores[3, 2:] = scores[3, 1]  # equal ones: the first
    expected = choose(logits, scores, several)
    with downloads() as count:
        made = choose(torch.from_numpy(logits), torch.from_numpy(scores), several)
    assert count == [0]
    for one, other in zip(expected, made, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
    if not several:
        taken = [int((logits[i] == expected[0][i]).all((1, 2)).argmax()) for i in range(6)]
        assert 0 in taken
        assert set(taken) != {0}


@pytest.mark.parametrize("threshold", [0.0, -0.3])
def test_stability_is_the_same(threshold: float):
    logits = np.concatenate([maps(3).reshape(-1, 32, 32), np.full((1, 32, 32), -9, np.float32)])
    expected = stability(logits, threshold, 1.0)
    assert expected[-1] == 1
    assert len(set(expected.tolist())) > 3
    np.testing.assert_array_equal(on_device.stability(torch.from_numpy(logits), threshold, 1.0).numpy(), expected)


@pytest.mark.parametrize("threshold", [0.0, 0.4])
@pytest.mark.parametrize("size", [(128, 128), (77, 203)])
def test_postprocess_takes_tensors(ways, size: tuple[int, int], threshold: float):
    host, device = ways
    (embedding,) = host.embed_images(np.zeros((*size, 3), np.uint8))
    logits = RNG.standard_normal((4, 3, 32, 32)).astype(np.float32) * 30
    logits[2, 1] = -40
    scores = RNG.uniform(0, 1, (4, 3)).astype(np.float32)
    one = host.postprocess(logits, scores, embedding.geometry, threshold=threshold, several=True)
    with downloads() as count:
        other = device.postprocess(
            torch.from_numpy(logits), torch.from_numpy(scores), embedding.geometry, threshold=threshold, several=True
        )
    assert count == [1]
    assert one.masks == other.masks
    assert one.masks.area[7] == 0 < one.masks.area[0]
    for name in ("scores", "logits", "prompt_id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    logits[0, 0, 0, 0] = np.nan
    for given in (logits, torch.from_numpy(logits)):
        with pytest.raises(InputError, match="mask logits are not finite"):
            device.postprocess(given, scores if given is logits else torch.from_numpy(scores), embedding.geometry)


def same(one, other) -> None:
    assert one.masks == other.masks
    np.testing.assert_array_equal(one.scores, other.scores)
    for name in ("logits", "prompt_id"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    "prompt",
    [
        {"point_coordinates": POINTS[0]},
        {"point_coordinates": POINTS},
        {"boxes": [70.0, 50.0, 110.0, 95.0], "multi_mask_output": False},
        {"point_coordinates": POINTS * 40, "multi_mask_output": False},  # in two runs
    ],
)
def test_a_call_is_one_download(ways, prompt: dict):
    host, device = ways
    frame = sam2_tiny.frames()[0][:100]
    given = host.embed_images(frame, color="rgb")  # the same maps, so that every bit of the logits is the same
    (plain,) = host(embeddings=given, **prompt)
    prompt["mask_threshold"] = float(np.median(plain.logits))  # untrained logits may all be on one side of 0
    (expected,) = host(embeddings=given, **prompt)
    with downloads() as count:
        (made,) = device(embeddings=given, **prompt)
    assert count == [1]
    assert expected.masks.area.any()
    same(expected, made)


def test_earlier_masks_are_kept_and_refined(ways):
    host, device = ways
    given = host.embed_images(sam2_tiny.frames()[1], color="rgb")
    first, more = {"point_coordinates": [[40.0, 60.0]]}, {"point_coordinates": [[40.0, 60.0], [50.0, 70.0]]}
    (plain,) = device(embeddings=given, **more)
    results = []
    for model in ways:
        model(embeddings=given, **first)
        results.append(model(embeddings=given, use_mask_input_cache=True, **more)[0])
    same(*results)
    assert not np.array_equal(plain.logits, results[1].logits)


def test_everything_in_a_picture(ways):
    host, device = ways
    frame = sam2_tiny.frames()[2]
    (embedding,) = host.embed_images(frame)
    device._embedder.cache.put(device._embedder.key(embedding.key), embedding.maps)
    settings = {
        "points_per_batch": 8,
        "predicted_iou_threshold": 0.0,
        "stability_threshold": 0.3,
        "box_iou_threshold": 1.0,
    }
    expected = host.generate(frame, 4, **settings)
    with downloads() as count:
        made = device.generate(frame, 4, **settings)
    assert count == [4]  # two batches of points, two downloads each: which masks are good, and those
    assert len(expected) > 1
    assert expected.masks == made.masks
    np.testing.assert_array_equal(expected.scores, made.scores)


@pytest.mark.slow
def test_graphs_are_finished_on_the_device(tiny_folder, tmp_path):
    pytest.importorskip("onnxruntime")
    written = registry.export(tiny_folder, to="onnx", output=tmp_path / "exported", dynamic=True)
    results = []
    for way in (False, True):
        with registry.load(written, backend="onnx", device="cpu", device_path=way) as model:
            given = model.embed_images(sam2_tiny.frames()[0], color="rgb")
            results.append(model(embeddings=given, point_coordinates=POINTS)[0])
            assert model.runner.on_device is way
    # A grey step of the picture's preparing is what may differ.
    assert np.diag(results[0].masks.iou(results[1].masks)).min() > 0.98
