"""Call and load options: everything out of range is refused, nothing is swallowed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lensmount.errors import OptionError, UnknownOptionError
from lensmount.specs.options import build_options, class_ids, class_thresholds, flag, fraction, one_of, positive

NAMES = ("cat", "dog", "hot dog")


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, 0.25, np.float32(0.5), np.int64(1)])
def test_fraction_takes_numbers_as_they_stand(value):
    assert fraction("confidence", value) == float(value)


@pytest.mark.parametrize("value", [-0.1, 1.1, True, "0.5", None, float("nan"), float("inf"), [0.5]])
def test_fraction_refuses(value):
    with pytest.raises(OptionError, match="confidence"):
        fraction("confidence", value)


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3", None])
def test_positive_refuses(value):
    with pytest.raises(OptionError):
        positive("max_detections", value)


def test_flag_is_no_number():
    assert flag("x", True) is True
    with pytest.raises(OptionError):
        flag("x", 1)


def test_one_of_suggests():
    with pytest.raises(OptionError, match="letterbox"):
        one_of("resize", "leterbox", ["stretch", "letterbox"])


def test_class_ids_by_name_and_id():
    assert class_ids(None, NAMES) is None
    assert class_ids("dog", NAMES).tolist() == [1]
    assert class_ids(2, NAMES).tolist() == [2]
    assert class_ids(["dog", 0, "dog"], NAMES).tolist() == [0, 1]
    assert class_ids([], NAMES).tolist() == []


@pytest.mark.parametrize("classes", ["dgo", ["cat", "bird"], 3, -1, [True], [1.5e9]])
def test_class_ids_refuses(classes):
    with pytest.raises(OptionError):
        class_ids(classes, NAMES)


def test_unknown_class_suggests_the_near_one():
    with pytest.raises(OptionError, match="did you mean dog"):
        class_ids("dgo", NAMES)


def test_thresholds_per_class_use_the_default_for_the_rest():
    lowest, table = class_thresholds({"dog": 0.7, 0: 0.1}, NAMES, 0.3)
    assert lowest == pytest.approx(0.1)
    assert table.tolist() == pytest.approx([0.1, 0.7, 0.3])
    assert class_thresholds(1, NAMES, 0.3) == (1.0, None)


@dataclass
class Options:
    size: int = 1


def test_unknown_option_is_a_type_error_that_suggests():
    assert build_options(Options, {"size": 3}, "it").size == 3
    with pytest.raises(TypeError, match="did you mean 'size'") as caught:
        build_options(Options, {"sise": 3}, "it")
    assert isinstance(caught.value, UnknownOptionError)
    with pytest.raises(UnknownOptionError, match="threads"):
        build_options(Options, {"thread": 3}, "it", also=["threads"])
