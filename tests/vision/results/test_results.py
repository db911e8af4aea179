"""Results: what they check, how rows are chosen, and the forms of others."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from lensmount.errors import InputError, MissingDependencyError, OptionError
from lensmount_vision.results.kinds import (
    Classification,
    Detections,
    Embeddings,
    InstanceSegmentation,
    KeypointDetections,
    Keypoints,
    OrientedDetections,
    PromptedMasks,
    from_dict,
)
from lensmount_vision.results.masks import Masks

NAMES = ("person", "car", "dog")
SIZE = (60, 80)
COMMON = {
    "xyxy": [[1.5, 2, 30.25, 40], [10, 10, 20, 20], [0, 0, 80, 60]],
    "confidence": [0.9, 0.5, 0.25],
    "class_id": [2, 0, 7],
    "class_names": NAMES,
    "image_size": SIZE,
    "path": "a.jpg",
}


def dense_masks(count=3):
    dense = np.zeros((count, *SIZE), bool)
    for i in range(count):
        dense[i, 5 + i : 20 + 2 * i, 8:30] = True
        dense[i, 10, 10] = False
    return dense


def make(kind):
    if kind is Detections:
        return Detections(**COMMON)
    if kind is InstanceSegmentation:
        return InstanceSegmentation(**COMMON, masks=Masks.from_dense(dense_masks()))
    if kind is Keypoints:
        points = np.random.default_rng(0).random((3, 4, 3)) * (80, 60, 1)
        return Keypoints(**COMMON, keypoints=points, keypoint_names=("a", "b", "c", "d"), skeleton=((0, 1), (2, 3)))
    if kind is OrientedDetections:
        return OrientedDetections(**COMMON, xywhr=[[20, 20, 10, 4, 0.5], [50, 30, 9, 9, -1], [5, 5, 3, 2, 0]])
    if kind is Classification:
        return Classification(probabilities=[0.1, 0.7, 0.15, 0.05], class_names=NAMES, image_size=SIZE)
    if kind is Embeddings:
        return Embeddings(vectors=np.random.default_rng(0).normal(size=(3, 8)), normalized=False)
    logits = np.random.default_rng(0).normal(size=(3, 4, 4))
    return PromptedMasks(
        masks=Masks.from_dense(dense_masks()),
        scores=[0.2, 0.9, 0.4],
        image_size=SIZE,
        logits=logits,
        prompt_id=[0, 0, 0],
    )


BOXES = (Detections, InstanceSegmentation, Keypoints, OrientedDetections)
ROWS = (*BOXES, PromptedMasks, Embeddings)
ALL = (*ROWS, Classification)


@pytest.mark.parametrize("kind", BOXES)
def test_dtypes_and_names(kind):
    result = make(kind)
    assert (result.xyxy.dtype, result.confidence.dtype, result.class_id.dtype) == (np.float32, np.float32, np.int64)
    assert result.xyxy[0].tolist() == [1.5, 2, 30.25, 40]  # not rounded
    assert result.class_name.tolist() == ["dog", "person", "class_7"]
    assert len(result) == 3 and result.image_size == SIZE and result.path == "a.jpg"


@pytest.mark.parametrize("kind", ROWS)
def test_choosing_rows_gives_the_same_type(kind):
    result = make(kind)
    for key, expected in (
        (1, [1]),
        (-1, [2]),
        (slice(0, 2), [0, 1]),
        ([2, 0], [2, 0]),
        (np.array([True, False, True]), [0, 2]),
        (slice(0, 0), []),
    ):
        part = result[key]
        assert type(part) is kind and len(part) == len(expected)
        for name in result.row_fields:
            whole = getattr(result, name)
            if whole is None:  # nothing was tracked
                assert getattr(part, name) is None
                continue
            whole, found = (x.dense() if isinstance(x, Masks) else x for x in (whole, getattr(part, name)))
            assert np.array_equal(found, whole[np.array(expected, int)])
    assert [len(one) for one in result] == [1, 1, 1]
    for wrong in (3, [0, 5], "x", np.ones(2, bool), 0.5, (0, 1), None):
        with pytest.raises(InputError):
            result[wrong]


@pytest.mark.parametrize("kind", ALL)
def test_equality(kind):
    assert make(kind) == make(kind)
    assert make(kind) != make(Detections if kind is not Detections else Embeddings)
    with pytest.raises(TypeError):
        hash(make(kind))


def test_equality_sees_every_field():
    base = make(Detections)
    for name, value in (
        ("confidence", [0.9, 0.5, 0.26]),
        ("class_names", ("x",)),
        ("path", None),
        ("class_id", [2, 0, 1]),
    ):
        assert Detections(**(COMMON | {name: value})) != base


@pytest.mark.parametrize("kind", ALL)
def test_dict_round_trip_through_json(kind):
    result = make(kind)
    text = json.dumps(result.to_dict(), allow_nan=False)
    back = from_dict(json.loads(text))
    if kind is PromptedMasks:
        assert back.logits is None
        assert back.masks == result.masks and np.array_equal(back.scores, result.scores)
        return
    assert back == result
    if kind in BOXES:
        first = json.loads(text)["objects"][0]
        assert first["class_name"] == "dog" and first["confidence"] == 0.9  # not 0.8999999761581421


@pytest.mark.parametrize("kind", ROWS)
def test_no_rows_at_all(kind):
    none = make(kind)[:0]
    assert len(none) == 0
    if kind is not Embeddings:
        assert from_dict(json.loads(json.dumps(none.to_dict()))).image_size == SIZE
        assert none.to_coco() == []
    if kind in BOXES:
        assert none.xyxy.shape == (0, 4) and none.class_name.shape == (0,)
        assert none.filter(confidence=0.5) == none
    empty = Detections.empty(SIZE, NAMES)
    assert empty.xyxy.shape == (0, 4) and empty.xyxy.dtype == np.float32 and empty.class_id.dtype == np.int64


def test_lists_of_nothing_are_taken():
    none = Detections(xyxy=[], confidence=[], class_id=[], class_names=(), image_size=SIZE)
    assert none.xyxy.shape == (0, 4) and none.class_id.dtype == np.int64


def test_filter():
    result = make(InstanceSegmentation)
    assert result.filter(confidence=0.5).class_id.tolist() == [2, 0]
    assert result.filter(classes="person").class_id.tolist() == [0]
    assert result.filter(classes=["dog", 7], confidence=0.5).class_id.tolist() == [2]
    assert result.filter(classes=[]).class_id.tolist() == []
    assert result.filter(classes=np.int64(7)).masks == result.masks[2]
    assert result.filter() == result
    # 0.9 in float32 is less than 0.9 in float64; the user means the same number.
    assert len(result.filter(confidence=0.9)) == 1
    for options in (
        {"classes": "cat"},
        {"classes": [1.5]},
        {"classes": [True]},
        {"confidence": 2},
        {"confidence": "a"},
    ):
        with pytest.raises(OptionError):
            result.filter(**options)
    with pytest.raises(TypeError):
        result.filter(confidense=0.5)


def test_two_classes_of_one_name_are_both_meant():
    result = Detections(**(COMMON | {"class_names": ("a", "a", "b"), "class_id": [0, 1, 2]}))
    assert result.filter(classes="a").class_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"xyxy": [[1, 2, 3]] * 3}, "xyxy"),
        ({"xyxy": [[1, 2, 3, np.nan]] * 3}, "finite"),
        ({"confidence": [0.5]}, "confidence"),
        ({"confidence": [0.5, np.inf, 0.1]}, "finite"),
        ({"class_id": [0, 1]}, "class ids"),
        ({"class_id": [0, 1, 0.5]}, "whole"),
        ({"class_names": "person"}, "names"),
        ({"class_names": (1, 2)}, "names"),
        ({"image_size": (3,)}, "image_size"),
        ({"image_size": None}, "image_size"),
    ],
)
def test_detections_refuse(change, word):
    with pytest.raises(InputError, match=word):
        Detections(**(COMMON | change))


def test_other_kinds_refuse():
    masks = Masks.from_dense(dense_masks())
    for wrong in (masks[:2], Masks.from_dense(np.zeros((3, 9, 9))), dense_masks()):
        with pytest.raises(InputError, match="masks"):
            InstanceSegmentation(**COMMON, masks=wrong)
    for points, options in (
        (np.zeros((3, 4)), {}),
        (np.zeros((2, 4, 3)), {}),
        (np.zeros((3, 4, 4)), {}),
        (np.zeros((3, 4, 3)), {"keypoint_names": ("a",)}),
        (np.zeros((3, 4, 3)), {"skeleton": ((0, 4),)}),
    ):
        with pytest.raises(InputError):
            Keypoints(**COMMON, keypoints=points, **options)
    with pytest.raises(InputError, match="xywhr"):
        OrientedDetections(**COMMON, xywhr=np.zeros((2, 5)))
    with pytest.raises(InputError, match="differ in number"):
        Classification(probabilities=[0.5], class_names=NAMES, image_size=SIZE)
    with pytest.raises(InputError, match="length 1"):
        Embeddings(vectors=[[3, 4]], normalized=True)
    with pytest.raises(InputError, match="shape"):
        Embeddings(vectors=[3, 4], normalized=False)
    with pytest.raises(InputError, match="logits"):
        PromptedMasks(masks=masks, scores=[1, 1, 1], image_size=SIZE, logits=np.zeros((2, 4, 4)))
    with pytest.raises(InputError, match="masks"):
        PromptedMasks(masks=masks, scores=[1, 1, 1], image_size=(1, 1))
    with pytest.raises(TypeError):
        Detections(**COMMON, score=1)


def test_results_are_frozen():
    with pytest.raises(AttributeError):
        make(Detections).xyxy = None


@pytest.mark.parametrize(
    "data",
    [{}, {"type": "x"}, 3, {"type": "detections"}, {"type": "detections", "image_size": [1, 2], "class_names": []}],
)
def test_from_dict_refuses(data):
    with pytest.raises(InputError):
        from_dict(data)


# --- the kinds' own ---------------------------------------------------------------------------------------------------


def test_classification():
    result = make(Classification)
    assert result.top(2) == [(1, "car", pytest.approx(0.7)), (2, "dog", pytest.approx(0.15))]
    assert result.class_id.tolist() == [1, 2, 0, 3] and result.class_name.tolist() == [
        "car",
        "dog",
        "person",
        "class_3",
    ]
    assert len(result.top(100)) == 4


def test_embeddings():
    result = Embeddings(vectors=[[3, 4], [0, 2]], normalized=False)
    unit = result.normalize()
    assert unit.normalized and np.allclose(unit.vectors, [[0.6, 0.8], [0, 1]])
    np.testing.assert_allclose(result.similarity(unit), [[1, 0.8], [0.8, 1]], rtol=1e-6)
    with pytest.raises(InputError, match="zero vector"):
        Embeddings(vectors=[[0, 0]], normalized=False).normalize()
    with pytest.raises(InputError, match="dimension"):
        result.similarity(Embeddings(vectors=[[1, 2, 3]], normalized=False))


def test_prompted_masks_best():
    result = make(PromptedMasks)
    assert result.best.scores.tolist() == pytest.approx([0.9]) and result.best.masks == result.masks[1]
    assert np.array_equal(result.best.logits, result.logits[1:2])
    assert len(result[:0].best) == 0


def test_oriented_from_xywhr():
    result = OrientedDetections.from_xywhr(
        [[10, 10, 8, 2, np.pi / 2], [0, 30, 10, 10, 0]], [0.5, 0.4], [0, 1], class_names=NAMES, image_size=SIZE
    )
    np.testing.assert_allclose(result.xyxy, [[9, 6, 11, 14], [0, 25, 5, 35]], atol=1e-5)
    assert result.corners.shape == (2, 4, 2)
    assert OrientedDetections.from_xywhr([], [], [], class_names=NAMES, image_size=SIZE).xyxy.shape == (0, 4)


def test_both_names_of_keypoints():
    assert KeypointDetections is Keypoints


# --- forms of others --------------------------------------------------------------------------------------------------


def test_coco_is_what_the_coco_api_reads():
    coco = pytest.importorskip("faster_coco_eval")
    api = pytest.importorskip("faster_coco_eval.core.mask")
    result = make(InstanceSegmentation)
    annotations = json.loads(
        json.dumps(result.to_coco(image_id=5, annotation_start=10, category_ids={2: 18, 0: 1, 7: 8}))
    )
    assert [a["id"] for a in annotations] == [10, 11, 12] and {a["image_id"] for a in annotations} == {5}
    assert [a["category_id"] for a in annotations] == [18, 1, 8]
    assert annotations[0]["bbox"] == [1.5, 2, 28.75, 38] and annotations[0]["score"] == 0.9
    for annotation, mask in zip(annotations, dense_masks(), strict=True):
        segmentation = annotation["segmentation"]
        packed = {"size": segmentation["size"], "counts": segmentation["counts"].encode()}
        assert np.array_equal(api.decode(packed).astype(bool), mask)
        assert annotation["area"] == float(mask.sum())
    dataset = coco.COCO(
        {
            "images": [{"id": 5, "height": 60, "width": 80}],
            "annotations": annotations,
            "categories": [{"id": i, "name": str(i)} for i in (18, 1, 8)],
        }
    )
    assert (
        len(
            dataset.loadRes(
                [{k: a[k] for k in ("image_id", "category_id", "segmentation", "score")} for a in annotations]
            ).anns
        )
        == 3
    )


def test_coco_of_the_other_kinds():
    plain = make(Detections).to_coco()
    assert plain[1]["area"] == 100 and [a["category_id"] for a in plain] == [2, 0, 7] and "segmentation" not in plain[0]
    points = make(Keypoints).to_coco()[0]
    assert len(points["keypoints"]) == 12 and points["num_keypoints"] == 4 and set(points["keypoints"][2::3]) <= {1, 2}
    oriented = make(OrientedDetections).to_coco()[1]
    assert len(oriented["segmentation"][0]) == 8 and oriented["area"] == 81
    prompted = make(PromptedMasks).to_coco(category_id=3)
    assert [a["category_id"] for a in prompted] == [3, 3, 3] and prompted[0]["bbox"] == [8, 5, 22, 15]
    json.dumps([plain, points, oriented, prompted])
    assert [a["category_id"] for a in make(Detections)[:2].to_coco(category_ids=[1, 2, 3])] == [3, 1]
    with pytest.raises(OptionError, match="class 7"):
        make(Detections).to_coco(category_ids=[1, 2, 3])


def test_supervision_keeps_class_names():
    sv = pytest.importorskip("supervision")
    for kind in (Detections, InstanceSegmentation, OrientedDetections):
        result = make(kind)
        other = result.to_supervision()
        assert isinstance(other, sv.Detections)
        assert np.array_equal(other.xyxy, result.xyxy) and np.array_equal(other.class_id, result.class_id)
        assert other.data["class_name"].tolist() == ["dog", "person", "class_7"]
        assert other[other.confidence > 0.4].data["class_name"].tolist() == ["dog", "person"]
        empty = result[:0].to_supervision()
        assert len(empty) == 0 and empty.xyxy.shape == (0, 4)
        other.xyxy[:] = 0
        assert result.xyxy.any()
    assert np.array_equal(np.asarray(make(InstanceSegmentation).to_supervision().mask), dense_masks())
    oriented = make(OrientedDetections)
    assert np.array_equal(oriented.to_supervision().data["xyxyxyxy"], oriented.corners)


def test_supervision_of_the_other_kinds():
    sv = pytest.importorskip("supervision")
    points = make(Keypoints).to_supervision()
    assert isinstance(points, sv.KeyPoints) and points.xy.shape == (3, 4, 2)
    assert np.array_equal(points.keypoint_confidence, make(Keypoints).keypoints[..., 2])
    assert points.data["class_name"].tolist() == ["dog", "person", "class_7"]
    classes = make(Classification).to_supervision()
    assert isinstance(classes, sv.Classifications) and classes.get_top_k(1)[0].tolist() == [1]
    prompted = make(PromptedMasks).to_supervision()
    assert np.array_equal(np.asarray(prompted.mask), dense_masks()) and prompted.xyxy[0].tolist() == [8, 5, 30, 20]
    assert len(make(PromptedMasks)[:0].to_supervision()) == 0


def scattered(count, size, seed=0):
    """Masks of every form: with holes, of one pixel, at the edges, empty, the whole picture."""
    rng = np.random.default_rng(seed)
    crops = [(np.ones(size, bool), (0, 0)), (np.zeros((0, 0), bool), (0, 0)), (np.zeros((4, 3), bool), (5, 6))]
    crops.append((np.ones((1, 1), bool), (size[1] - 1, size[0] - 1)))
    while len(crops) < count:
        height, width = (int(rng.integers(1, side // 2)) for side in size)
        place = int(rng.integers(0, size[1] - width + 1)), int(rng.integers(0, size[0] - height + 1))
        crops.append((rng.random((height, width)) < rng.choice([0.1, 0.5, 0.95]), place))
    return Masks.from_crops(crops[:count], size)


def segmentation(masks):
    """Boxes around masks."""
    count = len(masks)
    return InstanceSegmentation(
        xyxy=masks.boxes, confidence=np.linspace(0.9, 0.1, count), class_id=np.arange(count) % 3, class_names=NAMES,
        image_size=masks.image_size, masks=masks,
    )  # fmt: skip


def test_masks_stay_compact_in_supervision(monkeypatch):
    sv = pytest.importorskip("supervision")
    masks = scattered(40, SIZE)
    dense, result = masks.dense(), segmentation(masks)
    for kind in (InstanceSegmentation, PromptedMasks):
        monkeypatch.setattr(Masks, "dense", lambda self: pytest.fail("a dense array was made"))
        if kind is InstanceSegmentation:
            other = result.to_supervision()
        else:
            other = PromptedMasks(masks=masks, scores=np.ones(40), image_size=SIZE).to_supervision()
        assert isinstance(other.mask, sv.CompactMask)
        monkeypatch.undo()
        assert np.array_equal(other.mask.to_dense(), dense)
        assert other.mask.area.tolist() == masks.area.tolist()
        some = other[[5, 2, 9]]
        assert isinstance(some.mask, sv.CompactMask) and np.array_equal(np.asarray(some.mask), dense[[5, 2, 9]])
        assert isinstance(other[:0].mask, sv.CompactMask)
    none = segmentation(masks[:0]).to_supervision()
    assert isinstance(none.mask, sv.CompactMask) and none.mask.shape == (0, *SIZE)


def test_supervision_draws_the_same_from_compact_masks_as_from_dense_ones():
    sv = pytest.importorskip("supervision")
    masks = scattered(30, (120, 160), seed=1)[4:]  # without the one that covers all
    result = segmentation(masks)
    compact = result.to_supervision()
    dense = sv.Detections(
        xyxy=compact.xyxy, confidence=compact.confidence, class_id=compact.class_id, mask=masks.dense()
    )
    picture = np.random.default_rng(2).integers(0, 255, (120, 160, 3), np.uint8)
    for annotator in (sv.MaskAnnotator(), sv.PolygonAnnotator(), sv.HaloAnnotator()):
        one, two = (annotator.annotate(picture.copy(), detections) for detections in (compact, dense))
        assert np.array_equal(one, two) and not np.array_equal(one, picture), type(annotator).__name__


def test_older_supervision_gets_dense_masks(monkeypatch):
    sv = pytest.importorskip("supervision")
    monkeypatch.delattr(sv, "CompactMask")
    assert np.array_equal(make(InstanceSegmentation).to_supervision().mask, dense_masks())


def test_no_form_makes_masks_dense(monkeypatch):
    result = segmentation(scattered(12, SIZE))
    prompted = PromptedMasks(masks=result.masks, scores=np.ones(12), image_size=SIZE)
    monkeypatch.setattr(Masks, "dense", lambda self: pytest.fail("a dense array was made"))
    picture = np.zeros((*SIZE, 3), np.uint8)
    for one in (result, prompted):
        assert len(one.to_coco()) == 12 and one.draw(picture).any()
        assert from_dict(json.loads(json.dumps(one.to_dict()))).masks == one.masks


def test_without_supervision_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    for kind in (Detections, Classification, PromptedMasks):
        with pytest.raises(MissingDependencyError, match=r'pip install "lensmount\[supervision\]"'):
            make(kind).to_supervision()


def test_results_need_numpy_alone():
    code = (
        "import sys, lensmount_vision.results.kinds; "
        "print([m for m in ('cv2', 'torch', 'supervision', 'PIL', 'onnxruntime', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keypoints_without_visibility():
    """Models that say where points are, and not whether they can be seen, have two values of a point everywhere."""
    points = np.random.default_rng(0).random((3, 4, 2)) * (80, 60)
    result = Keypoints(**COMMON, keypoints=points, keypoint_names=("a", "b", "c", "d"), skeleton=((0, 1),))
    assert result.point_values == 2 and result.keypoints.shape == (3, 4, 2)
    data = json.loads(json.dumps(result.to_dict()))
    assert from_dict(data) == result and len(data["objects"][0]["keypoints"][0]) == 2
    assert from_dict(json.loads(json.dumps(result[:0].to_dict()))) == result[:0]
    assert result[:0].keypoints.shape == (0, 4, 2)
    rows = result.to_coco(image_id=1)
    assert [row["keypoints"][2::3] for row in rows] == [[2, 2, 2, 2]] * 3
    seen = Keypoints(**COMMON, keypoints=np.concatenate([points, np.ones((3, 4, 1))], axis=2), skeleton=((0, 1),))
    picture = np.zeros((*SIZE, 3), np.uint8)
    np.testing.assert_array_equal(result.draw(picture), seen.draw(picture))
    old = {key: value for key, value in seen.to_dict().items() if key != "point_values"}
    assert from_dict(old) == seen  # as it was written before there were points of two values


def test_supervision_of_keypoints_without_visibility():
    pytest.importorskip("supervision")
    found = Keypoints(**COMMON, keypoints=np.ones((3, 4, 2))).to_supervision()
    assert found.xy.shape == (3, 4, 2)
