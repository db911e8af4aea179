"""Evaluation: numbers that are known beforehand, classes by name, bad data, the command."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("faster_coco_eval")

from lensmount import registry
from lensmount.errors import InputError, OptionError
from lensmount_bench.accuracy import evaluate
from lensmount_bench.confusion import Confusion
from lensmount_bench.truth import map_classes, read_coco, read_folders

ROWS = [(32, 32, 8, 16, 0, 0.9), (12, 40, 8, 8, 2, 0.5)]  # every picture: a cat, and a bird
CAT, BIRD = [28, 24, 8, 16], [8, 36, 8, 8]  # xywh of these


@pytest.fixture
def model(graph, raw):
    return graph({"output0": raw(ROWS)})


@pytest.fixture
def data(tmp_path):
    """Writes pictures and annotations; `objects` are (picture, category name, xywh)."""

    def make(objects, names=("zebra", "Bird", "dog", "CAT"), count=2, size=(64, 64), **more):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for i in range(count):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((*size, 3), 90 * i, np.uint8))
        ids = {name: 10 * place + 7 for place, name in enumerate(names)}
        content = {
            "images": [{"id": i + 100, "file_name": f"{i}.png", "width": 64, "height": 64} for i in range(count)],
            "categories": [{"id": key, "name": name} for name, key in ids.items()],
            "annotations": [
                {"id": i + 1, "image_id": 100 + picture, "category_id": ids[name], "bbox": box, **more}
                for i, (picture, name, box) in enumerate(objects)
            ],
        }
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(content))
        return folder, path

    return make


def test_average_precision_that_is_known(model, data):
    folder, truth = data(
        [(0, "CAT", CAT), (1, "CAT", CAT), (0, "Bird", BIRD), (1, "Bird", [50, 50, 8, 8]), (0, "dog", [1, 1, 9, 9])]
    )
    report = evaluate(model, folder, truth)
    row = report.rows[0]
    assert row.classes["CAT"] == pytest.approx(1)
    # One of two birds found, one of two bird boxes right, equal scores: precision 1 up to recall 0.5, then nothing.
    assert row.classes["Bird"] == pytest.approx(51 / 101)
    assert row.classes["dog"] == 0
    assert math.isnan(row.classes["zebra"])  # nothing to judge
    assert row.boxes["AP"] == pytest.approx((1 + 51 / 101 + 0) / 3)
    assert (row.images, row.failed, row.masks) == (2, [], {})
    counts = {pair[:2]: pair[2] for pair in row.confusion.worst()}
    assert counts == {("Bird", "(nothing)"): 1, ("(nothing)", "Bird"): 1, ("dog", "(nothing)"): 1}
    assert any("zebra" in text for text in row.warnings)
    json.loads(json.dumps(report.to_dict()))


def test_a_box_half_right_counts_at_the_low_thresholds_only(model, data):
    # IoU of two equal boxes shifted by a fifth of their width: 0.8 / 1.2 = 2/3, above 4 of the 10 thresholds.
    folder, truth = data([(i, "cat", [28, 24 + 3.2, 8, 16]) for i in range(2)], names=("cat",))
    row = evaluate(model, folder, truth).rows[0]
    assert (row.boxes["AP50"], row.boxes["AP75"]) == (pytest.approx(1), 0)
    assert row.boxes["AP"] == pytest.approx(0.4)
    assert any("2 classes of the model are not annotated" in text for text in row.warnings)


def test_nothing_found_is_nought_and_not_an_error(graph, raw, data):
    folder, truth = data([(0, "CAT", CAT)])
    row = evaluate(graph({"output0": raw([])}), folder, truth).rows[0]
    assert row.boxes["AP"] == 0


def test_a_bad_picture_is_named_and_counts_as_empty(model, data):
    folder, truth = data([(0, "CAT", CAT), (1, "CAT", CAT)])
    (folder / "1.png").write_bytes(b"no picture")
    row = evaluate(model, folder, truth).rows[0]
    assert len(row.failed) == 1
    assert row.boxes["AP"] == pytest.approx(51 / 101)


def test_limit_size_mismatch_and_a_loaded_model(model, data):
    folder, truth = data([(0, "CAT", CAT), (1, "CAT", [1, 1, 5, 5])], size=(32, 64))
    with registry.load(model) as loaded:
        row = evaluate(loaded, folder, truth, limit=1).rows[0]
    assert row.images == 1
    assert any("another size" in text for text in row.warnings)
    assert row.label == "model"


def test_several_backends_and_one_that_cannot_run(model, data):
    folder, truth = data([(0, "CAT", CAT)])
    report = evaluate(model, folder, truth, backends=["onnx", "torch"])
    assert [row.error is None for row in report.rows] == [True, False]
    assert "not evaluated" in str(report)
    with pytest.raises(Exception, match="no package"):
        evaluate(model, folder, truth, backends=["torch"])


def test_classes_are_matched_by_name():
    assert map_classes(["TV", "traffic light", "cow"], {5: "traffic_light", 9: "tv"}) == {0: 9, 1: 5}
    assert map_classes(["tvmonitor"], {9: "tv"}, {"tvmonitor": "tv"}) == {0: 9}
    with pytest.raises(InputError, match="no class in common"):
        map_classes(["a"], {1: "b"})
    with pytest.raises(InputError, match="rename"):
        map_classes(["a"], {1: "a"}, {"x": "a"})


def test_annotations_that_cannot_be_used(model, data, tmp_path):
    folder, truth = data([(0, "CAT", CAT)])
    with pytest.raises(InputError, match="outlines"):
        evaluate(model, folder, truth, task="instance-segmentation")
    with pytest.raises(OptionError, match="task"):
        evaluate(model, folder, truth, task="embedding")
    with pytest.raises(InputError, match="annotations"):
        evaluate(model, folder)
    (folder / "1.png").unlink()
    with pytest.raises(InputError, match="1 of 2 pictures"):
        evaluate(model, folder, truth)
    for content in ("[]", "{}", "no", '{"images": [{}], "annotations": [], "categories": []}'):
        truth.write_text(content)
        with pytest.raises(InputError, match="annotations"):
            read_coco(truth, folder)
    with pytest.raises(InputError, match="cannot be read"):
        read_coco(tmp_path / "missing.json", folder)


def test_masks(graph, raw, data):
    """A mask that fills its box, against an outline of the box's left half: IoU 0.5, right at one threshold of ten."""
    prototypes = np.zeros((32, 16, 16), np.float32)
    prototypes[0] = 1
    row = (32, 32, 16, 16, 0, 0.9, 9.0)
    output = raw([row], extra=32)
    path = graph(
        {"output0": output, "output1": prototypes},
        metadata={"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "segment", "stride": "32", "imgsz": "[64, 64]"},
    )
    square = [24, 24, 40, 24, 40, 40, 24, 40]
    folder, truth = data([(0, "CAT", [24, 24, 16, 16])], count=1, segmentation=[square])
    whole = evaluate(path, folder, truth).rows[0]
    assert whole.boxes["AP"] == pytest.approx(1)
    assert whole.masks["AP"] == pytest.approx(1)
    half = [24, 24, 32, 24, 32, 40, 24, 40]
    folder, truth = data([(0, "CAT", [24, 24, 16, 16])], count=1, segmentation=[half])
    row = evaluate(path, folder, truth).rows[0]
    assert row.boxes["AP"] == pytest.approx(1)
    assert 0.05 <= row.masks["AP"] <= 0.2
    assert row.masks["AP75"] == 0
    alone = evaluate(path, folder, truth, task="object-detection").rows[0]
    assert (alone.boxes["AP"], alone.masks) == (pytest.approx(1), {})


# --- classification ---------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    root = tmp_path / "classes"
    for name, count in (("Dog", 3), ("cat", 1)):
        (root / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(root / name / f"{i}.png"), np.full((64, 64, 3), 40 * i, np.uint8))
    (root / "empty").mkdir()
    return root


def test_accuracy_of_a_classifier(graph, folders):
    path = graph(
        {"output0": np.array([0.2, 0.7, 0.1], np.float32)},
        metadata={"names": "{0: 'cat', 1: 'dog', 2: 'bird'}", "task": "classify", "imgsz": "[64, 64]"},
    )
    row = evaluate(path, folders).rows[0]
    assert row.accuracy == {"top-1": 0.75, "top-5": 1.0}
    assert row.classes == {"Dog": 1.0, "cat": 0.0}
    assert row.confusion.worst() == [("cat", "Dog", 1)]
    assert len(read_folders(folders, limit=2)[0]) == 2
    assert set(read_folders(folders, limit=2)[1]) == {"Dog", "cat"}
    with pytest.raises(InputError, match="folders"):
        read_folders(folders / "empty")


def test_zero_shot_accuracy_of_an_embedding_model(folders):
    """Brightness as the embedding: dark pictures are cats."""

    class Embedder:
        device = backend = "cpu"
        precision = "fp32"
        card = SimpleNamespace(id="embedder", task="embedding", classes=())

        def embed_labels(self, labels):
            return list(labels)

        def embed_images(self, images):
            return [float(image.pixels.mean()) for image in images]

        def compare(self, values, words):
            dark = np.array(values) < 20
            rows = [[0.9 if (word == "cat") == d else 0.1 for word in words] for d in dark]
            return SimpleNamespace(probabilities=np.array(rows, np.float32))

    row = evaluate(Embedder(), folders).rows[0]
    assert row.accuracy["top-1"] == pytest.approx(3 / 4)


def test_confusion_pairs_the_best_overlap_first():
    confusion = Confusion(["a", "b"])
    truth = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    boxes = np.array([[0, 0, 10, 8], [0, 0, 10, 10], [40, 40, 50, 50]], np.float32)
    confusion.add(truth, np.array([0, 1]), boxes, np.array([0, 1, 1]))
    assert confusion.counts.tolist() == [[0, 1, 0], [0, 0, 1], [1, 1, 0]]
    confusion.add(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), boxes[:0], np.zeros(0, np.int64))
    assert confusion.counts.sum() == 4


def test_the_command(model, data, tmp_path):
    folder, truth = data([(0, "CAT", CAT), (0, "Bird", BIRD)], count=1)
    command = [sys.executable, "-m", "lensmount", "eval", str(model), "--images", str(folder)]
    report = tmp_path / "report.json"
    done = subprocess.run(
        [*command, "--annotations", str(truth), "--json", str(report)],
        capture_output=True,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "box AP50" in done.stdout
    assert "1.0000" in done.stdout
    assert json.loads(report.read_text())["rows"][0]["boxes"]["AP"] == pytest.approx(1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "--annotations" in done.stderr
    assert "Traceback" not in done.stderr
