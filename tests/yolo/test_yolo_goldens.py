"""Against what independent implementations answer on the same weights, from the picture's bytes to results.

Tolerances (float32 on a CPU, other kernels): network outputs 1e-3 of their range; every box within 0.5 px and 0.005 of
score, counts equal but for rows within 0.005 of the threshold; masks IoU 0.99.
"""

from __future__ import annotations

import lzma

import numpy as np
import pytest

from lensmount import registry
from lensmount_vision.images.geometry import Geometry

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def goldens(reference_data):
    return reference_data / "goldens"


@pytest.fixture(scope="module")
def unpack(goldens, tmp_path_factory):
    """Unpacks a golden's weights once."""
    folder = tmp_path_factory.mktemp("weights")

    def path(name):
        made = folder / name
        if not made.exists():
            made.write_bytes(lzma.decompress((goldens / f"{name}.xz").read_bytes()))
        return made

    return path


def match(result, boxes):
    """Pairs every reference row with a row of the result; returns `(reference, result)` index pairs."""
    pairs, used = [], set()
    for i, (*box, score, label) in enumerate(boxes):
        near = np.abs(result.xyxy - np.array(box, np.float32)).max(1)
        near[(result.class_id != int(label)) | (np.abs(result.confidence - score) > 0.005)] = np.inf
        near[list(used)] = np.inf
        best = int(near.argmin()) if len(near) else -1
        assert near[best] <= 0.5, f"row {i} of the reference has no partner: {box} {score:.3f} {int(label)}"
        used.add(best)
        pairs.append((i, best))
    left = [score for j, score in enumerate(result.confidence) if j not in used]
    assert all(abs(score - 0.25) <= 0.005 for score in left), f"surplus rows {left}"
    return pairs


def test_detection_from_bytes_to_boxes(goldens, unpack):
    model = registry.load(unpack("yolov8n.onnx"))
    (result,) = model((goldens / "img" / "truck.jpg").read_bytes())
    with np.load(goldens / "yolov8n.npz") as golden:
        assert len(match(result, golden["boxes"])) == 97


def test_network_input_is_equal_bit_for_bit(goldens, unpack):
    model = registry.load(unpack("yolov8n.onnx"))
    batch, (geometry,) = model.preprocess(goldens / "img" / "truck.jpg")
    with np.load(goldens / "yolov8n.npz") as golden:
        assert (np.rint(batch * 255).astype(np.uint8) == golden["x_uint8"]).all()
        raw = model.forward(batch)["output0"][:, :, ::5]
        assert np.abs(raw - golden["raw_every_5th_anchor"]).max() <= 1e-3 * np.ptp(golden["raw_every_5th_anchor"])
    assert geometry.scale == (640 / 1800, 427 / 1200)


def test_segmentation_from_bytes_to_masks(goldens, unpack):
    """The reference's masks are of the network's frame, so ours are decoded there too, through the same code."""
    model = registry.load(unpack("yolov8n-seg.onnx"))
    picture = goldens / "img" / "truck.jpg"
    batch, (geometry,) = model.preprocess(picture)
    raw = model.forward(batch)
    (result,) = model.postprocess(raw, [geometry])
    frame = Geometry(original_size=(640, 640), network_size=(640, 640))
    (in_frame,) = model.postprocess(raw, [frame])
    with np.load(goldens / "yolov8n-seg.npz") as golden:
        boxes = golden["boxes"]
        masks = np.unpackbits(golden["masks_packed"], axis=-1)[..., : golden["masks_shape"][-1]].astype(bool)
    pairs = match(result, boxes)
    assert len(pairs) == 75
    dense = in_frame.masks.dense()
    worst = 1.0
    for i, j in pairs:
        same = np.flatnonzero((in_frame.class_id == result.class_id[j]) & (in_frame.confidence == result.confidence[j]))
        both, either = (dense[same[0]] & masks[i]).sum(), (dense[same[0]] | masks[i]).sum()
        worst = min(worst, both / either if either else 1.0)
    assert worst >= 0.99
    # and at the picture's own resolution they cover the same places: sampled back, with no shift
    assert result.masks.image_size == (1200, 1800)
    shared = total = 0
    for j, mask in enumerate(result.masks.dense()):
        same = (in_frame.class_id == result.class_id[j]) & (in_frame.confidence == result.confidence[j])
        band = dense[np.flatnonzero(same)[0]][106:533]
        small = sampled(mask)
        shared, total = shared + (small & band).sum(), total + (small | band).sum()
    assert shared / total > 0.98


def sampled(mask):
    """A mask of the picture at the size it has in the network's frame, by sampling."""
    rows = ((np.arange(427) + 0.5) * 1200 / 427).astype(int)
    columns = ((np.arange(640) + 0.5) * 1800 / 640).astype(int)
    return mask[rows][:, columns]


@pytest.mark.parametrize("name", ["yolov10n", "yolo26n"])
def test_heads_without_suppression(goldens, unpack, name):
    model = registry.load(unpack(f"{name}-e2e.onnx"))
    with np.load(goldens / "yolov8n.npz") as same_input, np.load(goldens / f"{name}.npz") as golden:
        batch = same_input["x_uint8"].astype(np.float32) / 255
        rows = golden["e2e"][0]
    raw = model.forward(batch)
    got = raw["output0"][0]
    assert np.abs(got[:, 4] - rows[:, 4]).max() <= 0.005
    (result,) = model(goldens / "img" / "truck.jpg", confidence=0.25)
    wanted = rows[rows[:, 4] >= 0.25]
    boxes = wanted[:, :4] - np.array([0, 106, 0, 106])
    boxes = np.clip(boxes / np.array([640 / 1800, 427 / 1200] * 2), 0, [1800, 1200, 1800, 1200])
    visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    match(result, np.concatenate([boxes, wanted[:, 4:]], 1)[visible])


@pytest.mark.parametrize(
    ("file", "tolerance", "scores"),
    [
        ("yolov8n_dq.onnx", 0.02, [0.92, 0.90, 0.90, 0.40]),
        # the weakest person of the quantised graph: bare onnxruntime gives the same 0.31 on the same input
        ("yolov8n_int8_640_op20.onnx", 0.05, [0.92, 0.90, 0.90]),
    ],
)
def test_real_weights_find_the_bus_and_its_people(reference_data, tmp_path, file, tolerance, scores):
    path = reference_data / "weights" / file
    if not path.exists():
        packed = path.with_name(f"{file}.xz")
        path = tmp_path / file
        path.write_bytes(lzma.decompress(packed.read_bytes()))
    (result,) = registry.load(path)(reference_data / "images" / "bus.jpg")
    assert [str(name) for name in result.class_name].count("person") == 4
    bus = result.confidence[result.class_name == "bus"]
    assert bus == pytest.approx([0.82], abs=tolerance)
    people = result.confidence[result.class_name == "person"][: len(scores)]
    assert people == pytest.approx(scores, abs=tolerance)
