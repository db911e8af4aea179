"""RF-DETR's pairs and masks on the device against the host's, on torch's CPU device."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lensmount import registry  # noqa: E402 - after the skip
from lensmount_rfdetr import on_device  # noqa: E402
from lensmount_rfdetr.postprocess import Filter, keep_pairs  # noqa: E402
from tensor_reads import downloads  # noqa: E402


def wanted(confidence=0.5, per_class=None, limit=None, classes=None):
    table = None if per_class is None else np.array(per_class, np.float32)
    ids = None if classes is None else np.array(classes, np.int64)
    return Filter(confidence=confidence, per_class=table, max_detections=limit, classes=ids)


@pytest.mark.parametrize(
    "asked",
    [
        wanted(),
        wanted(0.0),
        wanted(1.0),
        wanted(0.1, limit=5),
        wanted(0.1, limit=4000),
        wanted(0.3, classes=[0, 4]),
        wanted(0.3, classes=[]),
        wanted(0.2, per_class=[0.2, 0.9, 0.5, 0.3, 0.99, 0.7]),
    ],
)
def test_the_same_pairs(asked):
    for seed in range(4):
        random = np.random.default_rng(seed)
        boxes = random.uniform(0, 1, (3, 60, 4)).astype(np.float32)
        boxes[1, 7] = np.nan  # what an overflow leaves
        boxes[0, :30, 2] *= -1
        boxes[2, :, 3] *= -1
        # A few levels, far enough apart that the last bit of an exponential decides nothing; many ties.
        logits = (random.integers(-12, 12, (3, 60, 7)) / 2).astype(np.float32)
        logits[0, 3, 2] = 60
        made = on_device.keep_pairs(torch.from_numpy(boxes), torch.from_numpy(logits), asked, 6)
        for row, found in enumerate(made):
            expected = keep_pairs(boxes[row], logits[row], asked, 6)
            np.testing.assert_array_equal(found.queries, expected.queries)
            np.testing.assert_array_equal(found.class_ids, expected.class_ids)
            np.testing.assert_array_equal(found.boxes, expected.boxes)
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.parametrize("whole", [False, True])
def test_the_same_masks(mask_checkpoint, picture, whole):
    host, device = (
        registry.load(mask_checkpoint, backend="torch", device="cpu", device_path=way, whole_masks=whole)
        for way in (False, True)
    )
    batch, geometries = host.preprocess([picture, picture[::2]])
    raw = host.forward(batch)
    there = device.forward(torch.from_numpy(batch))
    expected = host.postprocess(raw, geometries, confidence=0)
    with downloads() as count:
        made = device.postprocess(there, geometries, confidence=0)
    assert count == [2]  # the pairs, then the masks of both pictures
    for one, other in zip(expected, made, strict=True):
        assert len(one) == 10
        assert one.xyxy.tolist() == other.xyxy.tolist()
        assert one.masks == other.masks
    with downloads() as count:
        made = device.postprocess(there, geometries, confidence=1.0)
    assert ([len(result.masks) for result in made], count) == ([0, 0], [1])
