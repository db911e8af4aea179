"""Matching what two models find: figures against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from lensmount.errors import BackendError, InputError
from lensmount_bench.int8_check import Agreement, compare, read_agreement, require_agreement
from lensmount_bench.int8_export import choose_pictures
from lensmount_vision.results.kinds import Detections


def found(*rows):
    """A model that finds these: x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)

    def model(picture, *, confidence):
        kept = table[table[:, 4] >= confidence]
        return [
            Detections(
                xyxy=kept[:, :4],
                confidence=kept[:, 4],
                class_id=kept[:, 5].astype(np.int64),
                class_names=("a", "b"),
                image_size=(100, 100),
            )
        ]

    return model


def figures(exact, small, pictures=("p",)):
    return compare(exact, small, pictures, calibration=1, held_out=True)


def test_equal_models_agree():
    model = found((0, 0, 10, 10, 0.9, 0), (50, 50, 80, 80, 0.5, 1))
    result = figures(model, model, ["p", "q"])
    assert (result.objects, result.lost, result.added, result.pictures) == (4, 0, 0, 2)
    assert (result.agreement, result.box_iou, result.score_difference) == (1.0, 1.0, 0.0)
    require_agreement(result)


def test_moved_boxes_and_scores_are_measured():
    result = figures(found((0, 0, 10, 10, 0.9, 0)), found((0, 0, 10, 8, 0.8, 0)))
    assert (result.lost, result.added) == (0, 0)
    assert result.box_iou == pytest.approx(0.8) and result.score_difference == pytest.approx(0.1)
    with pytest.raises(BackendError, match="not kept"):
        require_agreement(result)


@pytest.mark.parametrize(
    ("other", "lost", "added"),
    [
        ((0, 0, 10, 10, 0.9, 1), 1, 1),  # another class
        ((30, 30, 40, 40, 0.9, 0), 1, 1),  # elsewhere
        ((0, 0, 10, 10, 0.2, 0), 1, 0),  # too weak to count
        ((0, 0, 10, 10, 0.26, 0), 0, 0),  # weaker, but there
        ((0, 0, 10, 4, 0.9, 0), 1, 1),  # overlap of 0.4
    ],
)
def test_lost_and_added_objects(other, lost, added):
    result = figures(found((0, 0, 10, 10, 0.9, 0)), found(other))
    assert (result.lost, result.added) == (lost, added)


def test_one_object_is_no_partner_of_two():
    result = figures(found((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 9, 0.8, 0)), found((0, 0, 10, 10, 0.9, 0)))
    assert (result.objects, result.lost) == (2, 1)
    assert result.agreement == pytest.approx(2 / 3, abs=1e-4)


def test_unsure_objects_need_no_partner():
    result = figures(found((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.3, 0)), found((0, 0, 10, 10, 0.9, 0)))
    assert (result.objects, result.lost, result.agreement) == (1, 0, 1.0)


def test_nothing_found_judges_nothing():
    with pytest.raises(InputError, match="cannot be judged"):
        figures(found((0, 0, 10, 10, 0.3, 0)), found())


def test_too_many_lost_are_refused():
    rows = [(10 * i, 0, 10 * i + 8, 8, 0.9, 0) for i in range(10)]
    require_agreement(figures(found(*rows), found(*rows[:9])))
    with pytest.raises(BackendError, match="3 lost"):
        require_agreement(figures(found(*rows), found(*rows[:7])))


def test_pictures_are_spread_and_held_out():
    pictures = [f"{i:03}" for i in range(200)]
    chosen, compared, held_out = choose_pictures(pictures, 100)
    assert chosen == pictures[::2] and held_out
    assert len(compared) == 32 and not set(chosen) & set(compared)
    assert compared[0] < "010" and compared[-1] > "190"


def test_few_pictures_serve_twice():
    assert choose_pictures(["a", "b"], 5) == (["a", "b"], ["a", "b"], False)


def test_figures_of_other_tools_are_no_figures(tmp_path):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", value[:1], value[1:]))
    path = tmp_path / "g.onnx"
    expected = Agreement(
        calibration=1,
        pictures=2,
        held_out=False,
        objects=3,
        lost=0,
        added=0,
        agreement=1.0,
        box_iou=0.9,
        mask_iou=None,
        score_difference=0.01,
    )
    for metadata, wanted in (
        ({}, None),
        ({"lensmount.int8": "{"}, None),
        ({"lensmount.int8": '{"pictures": 1}'}, None),
        (expected.to_metadata(), expected),
    ):
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        assert read_agreement(path) == wanted
