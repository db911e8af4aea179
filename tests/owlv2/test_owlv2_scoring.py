"""The scoring rule against a plain restatement in float64, and the three wrong results that others give."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.errors import InputError
from lensmount_owlv2.proposals import Proposals
from lensmount_owlv2.references import UnmatchedBox, make_bank
from lensmount_owlv2.scoring import Bank, by_query, few_shot
from lensmount_owlv2.training import TrainBox, TrainingImage, read_training_data

CASES = 10_000


def proposals_of(boxes, embeddings, size=(100, 100)):
    count = len(boxes)
    return Proposals(
        boxes=np.asarray(boxes, np.float32),
        embeddings=np.asarray(embeddings, np.float32),
        objectness=np.linspace(2, -2, count, dtype=np.float32),
        shift=np.zeros(count, np.float32),
        scale=np.ones(count, np.float32),
        image_size=size,
    )


def restated_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


def restated(boxes, embeddings, references, names, confidence, threshold, most, edges):
    """The README's rule, word for word, with Python's numbers."""
    survivors = []
    for number in range(len(names)):
        candidates = []
        for row, box in enumerate(boxes):
            if not (min(box[2], edges[0]) > max(box[0], 0) and min(box[3], edges[1]) > max(box[1], 0)):
                continue
            best = {False: -1.0, True: -1.0}
            for vector, class_id, negative in references:
                if class_id == number:
                    cosine = sum(float(p) * float(q) for p, q in zip(embeddings[row], vector, strict=True))
                    best[negative] = max(best[negative], min(max((cosine + 1) / 2, 0.0), 1.0))
            wins = best[False] > best[True]
            value = max(best.values())
            if value >= confidence:
                candidates.append((-value, wins, row))
        kept = []
        for candidate in sorted(candidates):
            if all(restated_iou(boxes[candidate[2]], boxes[other[2]]) <= threshold for other in kept):
                kept.append(candidate)
        survivors += [(value, number, row) for value, wins, row in kept if wins]
    final = []
    for item in sorted(survivors):
        if all(restated_iou(boxes[item[2]], boxes[other[2]]) <= threshold for other in final):
            final.append(item)
    return [(row, number, -value) for value, number, row in final[:most]]


def random_case(random):
    """Vectors of halves and whole boxes: exact in float32, with many ties."""
    count, dimension = int(random.integers(1, 14)), 4
    corners = random.integers(0, 12, (count, 2)) / 16
    boxes = np.concatenate((corners, corners + random.integers(1, 8, (count, 2)) / 16), axis=1)
    signs = np.array([[a, b, c, d] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1) for d in (-1, 1)]) / 2
    units = np.concatenate((signs, np.eye(dimension), -np.eye(dimension)))
    embeddings = units[random.integers(0, len(units), count)]
    names = ["a", "b", "c"][: int(random.integers(1, 4))]
    references = []
    for number in range(len(names)):
        positives, negatives = int(random.integers(0, 4)), int(random.integers(0, 3))
        flags = [False] * positives + [True] * negatives
        references += [(units[random.integers(0, len(units))], number, flag) for flag in flags]
    random.shuffle(references)
    return boxes, embeddings, references, names


def test_float64_restatement():
    random = np.random.default_rng(20)
    compared = negatives = ties = empty = 0
    for _ in range(CASES):
        boxes, embeddings, references, names = random_case(random)
        confidence = float(random.choice([0.25, 0.5, 0.625, 0.75, 1.0]))
        threshold = float(random.choice([0.0, 0.25, 0.3, 0.5, 1.0]))
        most = int(random.integers(1, 8))
        width, height = int(random.choice([60, 100])), 100
        expected = restated(boxes, embeddings, references, names, confidence, threshold, most, (width / 100, 1.0))
        if not references:
            assert expected == []
            empty += 1
            continue
        bank = Bank.of(
            np.array([r[0] for r in references]), [r[1] for r in references], [r[2] for r in references], names
        )
        found = few_shot(
            proposals_of(boxes, embeddings, (height, width)),
            bank,
            thresholds=confidence,
            iou_threshold=threshold,
            max_detections=most,
        )
        got = list(zip(found.rows.tolist(), found.class_id.tolist(), found.scores.tolist(), strict=True))
        assert got == expected
        compared += len(expected)
        negatives += any(r[2] for r in references)
        ties += len({e[2] for e in expected}) < len(expected)
        empty += len({r[1] for r in references if not r[2]}) < len(names)
    assert compared > 5000 and negatives > 3000 and ties > 1000 and empty > 1000  # the cases are not vacuous


def test_float32_is_near_float64():
    random = np.random.default_rng(3)
    vectors = random.standard_normal((300, 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:50] + 0.05 * random.standard_normal((50, 512))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    corners = random.uniform(0, 0.9, (300, 2))
    seen = proposals_of(np.concatenate((corners, corners + 0.05), axis=1), vectors)
    bank = Bank.of(queries, np.arange(50) % 5, np.zeros(50, bool), "abcde")
    found = few_shot(seen, bank, thresholds=0.0, iou_threshold=1.0, max_detections=300)
    exact = (vectors @ queries.T + 1) / 2
    for row, score, number in zip(found.rows, found.scores, found.class_id, strict=True):
        assert abs(exact[row][np.arange(50) % 5 == number].max() - score) <= 1e-6


@pytest.mark.parametrize("nearer", ["negative", "positive", "neither"])
def test_a_box_nearer_the_negative_is_dropped(nearer):
    """Negatives are compared with the negative embedding, not with the positive one."""
    positive, negative = np.array([1.0, 0, 0]), np.array([0.9, np.sqrt(1 - 0.81), 0])
    middle = positive + negative
    vector = {"negative": negative, "positive": positive, "neither": middle / np.linalg.norm(middle)}[nearer]
    bank = Bank.of(np.stack((positive, negative)), [0, 0], [False, True], ["cat"])
    found = few_shot(
        proposals_of([[0.1, 0.1, 0.4, 0.4]], [vector]), bank, thresholds=0.9, iou_threshold=0.3, max_detections=300
    )
    assert len(found.rows) == (nearer == "positive" or (nearer == "neither" and found.scores.size))
    if nearer == "negative":
        assert not len(found.rows)


def test_a_class_of_negatives_alone_is_an_error_that_says_so():
    boxes = [
        {"x": 5, "y": 5, "w": 4, "h": 4, "cls": "cat"},
        {"x": 5, "y": 5, "w": 4, "h": 4, "cls": "dog", "negative": True},
    ]
    with pytest.raises(InputError, match="class 'dog' has negative boxes only"):
        read_training_data([{"image": "a.jpg", "boxes": boxes}])


def test_an_unmatched_box_shifts_no_label():
    """The first box matches nothing; those after it keep their own class."""
    seen = proposals_of([[0.5, 0.5, 0.7, 0.7], [0.1, 0.5, 0.3, 0.7]], np.eye(2))
    image = TrainingImage(
        "unused",
        (
            TrainBox(50, 5, 4, 4, "cat"),
            TrainBox(60, 60, 20, 20, "dog"),
            TrainBox(20, 60, 20, 20, "cat"),
        ),
    )
    bank, unmatched = make_bank([image], [seen], iou_threshold=0.3, on_unmatched="warn")
    assert bank.class_names == ("cat", "dog")
    assert bank.class_id.tolist() == [0, 1]
    assert bank.embeddings.tolist() == [[0, 1], [1, 0]]
    assert [(item.image, item.box) for item in unmatched] == [(0, image.boxes[0])]


def test_unmatched_policies():
    seen = proposals_of([[0.5, 0.5, 0.7, 0.7], [0.1, 0.5, 0.3, 0.7]], np.eye(2))
    near = TrainBox(12, 45, 4, 4, "cat")
    images = [TrainingImage("unused", (near,))]
    bank, unmatched = make_bank(images, [seen], iou_threshold=0.3, on_unmatched="nearest")
    assert bank.embeddings.tolist() == [[0, 1]]
    assert unmatched == (UnmatchedBox(0, near, 0.0, True),)
    with pytest.raises(InputError, match="no positive reference box of 'cat'"):
        make_bank(images, [seen], iou_threshold=0.3, on_unmatched="warn")
    with pytest.raises(InputError, match="reference boxes match nothing"):
        make_bank(images, [seen], iou_threshold=0.3, on_unmatched="error")


def test_references_are_measured_by_the_longer_side():
    """Boxes are shares of the padded square, also on a wide picture."""
    seen = proposals_of([[0.5, 0.2, 0.7, 0.4], [0.1, 0.1, 0.2, 0.2]], np.eye(2), size=(100, 200))
    image = TrainingImage("unused", (TrainBox(120, 60, 40, 40, "a"),))
    bank, unmatched = make_bank([image], [seen], iou_threshold=0.99, on_unmatched="warn")
    assert bank.embeddings.tolist() == [[1, 0]] and not unmatched
    with pytest.raises(InputError, match="outside its picture"):
        make_bank(
            [TrainingImage("unused", (TrainBox(120, 160, 40, 40, "a"),))], [seen], iou_threshold=0.3,
            on_unmatched="warn",
        )  # fmt: skip


def test_per_class_thresholds_and_overlap_between_classes():
    seen = proposals_of([[0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.45], [0.6, 0.6, 0.9, 0.9]], [[1, 0], [0, 1], [0, 1]])
    bank = Bank.of(np.eye(2), [0, 1], [False, False], ["a", "b"])
    found = few_shot(seen, bank, thresholds=0.9, iou_threshold=0.3, max_detections=300)
    assert list(zip(found.rows.tolist(), found.class_id.tolist(), strict=True)) == [(0, 0), (2, 1)]
    limits = np.array([1.1, 0.9], np.float32)
    found = few_shot(seen, bank, thresholds=limits, iou_threshold=0.3, max_detections=300)
    assert found.rows.tolist() == [1, 2]


def test_words_take_the_best_query():
    seen = proposals_of([[0.1, 0.1, 0.4, 0.4], [0.1, 0.1, 0.4, 0.41]], [[1, 0], [0.8, 0.6]])
    queries = np.eye(2, dtype=np.float32)
    found = by_query(seen, queries, thresholds=0.5, iou_threshold=None, max_detections=300)
    assert found.rows.tolist() == [0, 1] and found.class_id.tolist() == [0, 0]
    assert found.scores == pytest.approx(1 / (1 + np.exp([-1, -0.8])), abs=1e-6)
    assert by_query(seen, queries, thresholds=0.5, iou_threshold=0.5, max_detections=300).rows.tolist() == [0]
    assert len(by_query(seen, queries, thresholds=0.5, iou_threshold=None, max_detections=1).rows) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no reference box"),
        ([{"image": "a.jpg", "boxes": []}], "no reference box"),
        ({"image": "a.jpg"}, "should be a list"),
        (["a.jpg"], r"training_data\[0\] is not a picture"),
        ([{"boxes": []}], r"training_data\[0\] has the wrong keys"),
        ([{"image": None, "boxes": []}], "has no image"),
        ([{"image": "a", "boxes": [{"x": 1, "y": 1, "w": 1, "h": 1}]}], r"boxes\[0\] has the wrong keys"),
        ([{"image": "a", "boxes": [{"x": 1, "y": 1, "w": 0, "h": 1, "cls": "a"}]}], r"boxes\[0\] has no area"),
        ([{"image": "a", "boxes": [{"x": 1, "y": float("nan"), "w": 1, "h": 1, "cls": "a"}]}], "y is no number"),
        ([{"image": "a", "boxes": [{"x": "1", "y": 1, "w": 1, "h": 1, "cls": "a"}]}], "x is no number"),
        ([{"image": "a", "boxes": [{"x": 1, "y": 1, "w": 1, "h": 1, "cls": " "}]}], "has no class"),
        ([{"image": "a", "boxes": [{"x": 1, "y": 1, "w": 1, "h": 1, "cls": "a", "negativ": 1}]}], "wrong keys"),
        ([{"image": {"type": "numpy", "value": 1}, "boxes": []}], "numpy is not known"),
    ],
)
def test_bad_training_data(data, message):
    with pytest.raises(InputError, match=message):
        read_training_data(data)


def test_images_of_the_inference_server():
    boxes = [{"x": 1, "y": 1, "w": 1, "h": 1, "cls": "a", "negative": False}]
    url, coded = read_training_data(
        [
            {"image": {"type": "url", "value": "https://example.com/a.jpg"}, "boxes": boxes},
            {"image": {"type": "base64", "value": "AAAA"}, "boxes": boxes},
        ]
    )
    assert url.image == "https://example.com/a.jpg" and coded.image == "data:;base64,AAAA"
