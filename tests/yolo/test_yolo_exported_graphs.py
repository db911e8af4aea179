"""Graphs that we write: the check that keeps them, and forms that other runtimes do not compile."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount_yolo.export_check import suppression_faults  # noqa: E402
from lensmount_yolo.networks.suppress import Suppression  # noqa: E402
from tiny_networks import classifier, lively, pyramid  # noqa: E402

CLASSES, EXTRA = 3, 2


def suppressed(raw, rows=40):
    rule = Suppression(CLASSES, confidence=0.25, iou_threshold=0.5, max_detections=rows)
    return rule, rule(torch.from_numpy(raw)[None])[0].numpy()


def predictions(seed, count=200):
    """Boxes in heaps; many scores equal, or at the threshold; some overlaps at theirs."""
    random = np.random.default_rng(seed)
    heap = random.integers(0, 8, count)
    centre = np.stack((heap % 4 * 100 + 80, heap // 4 * 100 + 80)) + random.normal(0, 8, (2, count))
    size = random.uniform(40, 60, (2, count))
    scores = random.uniform(0, 1, (CLASSES, count)) ** 3
    scores[:, ::4] = np.round(scores[:, ::4], 1)
    scores[0, 1::9] = 0.25
    centre[:, 100:150], size[:, 100:150] = centre[:, :50], size[:, :50]
    centre[0, 100:150] += size[0, :50] / 3  # of two equal boxes, a third of a side apart, the overlap is a half
    return np.concatenate((centre, size, scores, random.normal(0, 1, (EXTRA, count)))).astype(np.float32)


@pytest.mark.parametrize("rows", [10, 40, 200])
@pytest.mark.parametrize("seed", range(12))
def test_rounding_is_no_fault(seed, rows):
    raw = predictions(seed)
    rule, mine = suppressed(raw, rows)
    assert suppression_faults(mine, raw, rule) == 0
    noise = np.random.default_rng(100 + seed).uniform(-1, 1, raw.shape)
    noise[:4] *= 0.01
    noise[4:] *= 5e-4
    _, theirs = suppressed((raw + noise).astype(np.float32), rows)
    assert not np.array_equal(mine[:, 4] > 0, theirs[:, 4] > 0) or np.abs(mine - theirs).max() > 0
    assert suppression_faults(theirs, raw, rule) == 0


def wrong(rows):
    """Rows that no rounding explains."""
    full = int((rows[:, 4] > 0).sum())
    lost = np.concatenate((rows[1:], rows[:1] * 0))
    moved, scored, other, doubled, carried, below = (rows.copy() for _ in range(6))
    moved[full // 2, :4] += 30
    scored[0, 4] -= 0.05
    other[0, 5] = (other[0, 5] + 1) % CLASSES
    doubled[full] = doubled[0]
    carried[1, 6] += 0.5
    below[full] = [10, 10, 30, 30, 0.2, 0, 0, 0]
    outside = rows.copy()
    outside[0, 5] = CLASSES
    return {"lost": lost, "moved": moved, "scored": scored, "class": other, "twice": doubled, "extras": carried,
            "below the threshold": below, "no such class": outside, "empty": rows * 0}  # fmt: skip


@pytest.mark.parametrize("fault", list(wrong(np.zeros((40, 8)))))
@pytest.mark.parametrize("seed", range(4))
def test_wrong_rows_are_faults(seed, fault):
    raw = predictions(seed)
    raw[4:7, 0] = (0.99, 0.1, 0.1)  # stands out, so that its class and score are certain
    rule, rows = suppressed(raw, 100)
    assert 0 < (rows[:, 4] > 0).sum() < 100
    assert suppression_faults(wrong(rows)[fault], raw, rule) > 0


GRAPHS = {
    "boxes": (pyramid(), {}),
    "suppressed": (pyramid(), {"nms": "embedded"}),
    "rows": (pyramid(single=True), {"end_to_end": True}),
    "rows without bins": (pyramid(single=True, bins=1), {"end_to_end": True}),
    "keypoints": (pyramid(classes=1, extra=15), {}),
    "keypoints, suppressed": (pyramid(classes=1, extra=15), {"nms": "embedded"}),
    "angles": (pyramid(extra=1), {}),
    "classes": (classifier(), None),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Exports of small networks, each made once."""
    made = {}

    def get(name, dynamic):
        if (name, dynamic) not in made:
            folder = tmp_path_factory.mktemp("graphs")
            shapes, settings = GRAPHS[name]
            torch.save(lively(shapes)[1].state_dict(), folder / "weights.pt")
            settings = {} if settings is None else {"input_size": 96, **settings}
            made[name, dynamic] = registry.export(
                folder / "weights.pt", to="onnx", output=folder / "out.onnx", dynamic=dynamic, settings=settings
            )
        return made[name, dynamic]

    return get


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_no_tensor_is_sliced_twice(written, name, dynamic):
    """OpenVINO makes one split of two slices of a tensor, and a wrong one where a slice has no end."""
    graph = onnx.load(written(name, dynamic)).graph
    sliced = Counter(node.input[0] for node in graph.node if node.op_type == "Slice")
    assert [tensor for tensor, count in sliced.items() if count > 1] == []


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", GRAPHS)
def test_openvino_compiles_and_agrees(written, name, dynamic):
    openvino, onnxruntime = pytest.importorskip("openvino"), pytest.importorskip("onnxruntime")
    path = str(written(name, dynamic))
    sides = [side.dim_value or 96 for side in onnx.load(path).graph.input[0].type.tensor_type.shape.dim[2:]]
    picture = np.random.default_rng(3).random((1, 3, *sides), np.float32)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ours = list(compiled([picture]).values())

    def run(graph):
        session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
        return session.run(None, {"images": picture})

    if "suppressed" in name:  # near ties may be decided otherwise; both are right
        (raw,) = run(written("keypoints" if "keypoints" in name else "boxes", dynamic))
        classes = 1 if "keypoints" in name else 3
        rule = SimpleNamespace(classes=classes, confidence=0.25, iou_threshold=0.7)
        assert (ours[0][0, :, 4] > 0).any()
        assert suppression_faults(ours[0][0], raw[0], rule) == 0
        return
    for one, other in zip(ours, run(path), strict=True):
        assert one.shape == other.shape
        if "rows" in name:  # equal scores may change places
            one, other = one[..., 4], other[..., 4]
        assert np.abs(one - other).max() <= 2e-3 * max(1, float(np.ptp(other)))
