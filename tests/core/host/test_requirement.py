"""Requirements on lensmount's distributions, and that the quick path answers as packaging does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement

from lensmount.host.requirement import unmet

INSTALLED = {"lensmount": "0.1.0", "lensmount-vision": "0.3.1", "lensmount_odd": "1.0rc1"}


def satisfied(line, version):
    """Whether a requirement holds with this core."""
    return unmet(line, {**INSTALLED, "lensmount": version, "LensMount": version}.get) is None


RELEASES = st.lists(st.integers(0, 12), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))


@pytest.mark.parametrize(
    ("line", "holds"),
    [
        ("lensmount>=0.1,<0.2", True),
        ("lensmount <0.2,>=0.1", True),
        ("lensmount (>=0.1.0)", True),
        ("LensMount>=0.2", False),
        ("lensmount", True),
        ("lensmount==0.1.*", True),
        ("lensmount~=0.1.0", True),
        ("lensmount!=0.1.0", False),
        ("lensmount[onnx]>=9", False),
        ("lensmount[onnx]>=9; extra == 'onnx'", True),
        ('lensmount[onnx]>=9; python_version >= "3.8" and extra == "onnx"', True),
        ('lensmount>=9; python_version >= "3.8"', False),
        ('lensmount>=9; python_version < "3.8"', True),
        ("lensmount-yolo>=9", False),
        ("lensmount-yolo", False),
        ("lensmount-yolo; extra == 'yolo'", True),
        ("lensmount-vision>=0.3,<0.4", True),
        ("lensmount-vision[supervision]>=0.3", True),
        ("lensmount-vision (<0.3)", False),
        ("lensmount_odd>=1.0rc1", True),
        ("lensmount_odd>=1.0", False),
        ("lensmounting>=9", True),
        ("numpy>=99", True),
    ],
)
def test_lines(line, holds):
    assert satisfied(line, "0.1.0") is holds


def test_a_development_core_counts_as_its_release_line():
    assert satisfied("lensmount>=0.1", "0.2.0.dev1")
    assert not satisfied("lensmount>=0.2", "0.2.0.dev1")


def test_nonsense_is_an_error():
    with pytest.raises(InvalidRequirement):
        satisfied("lensmount >=>= 1", "0.1.0")


@given(RELEASES, st.lists(st.tuples(st.sampled_from([">=", "<=", "<", ">"]), RELEASES), max_size=3))
def test_as_packaging_does(version, clauses):
    line = "lensmount" + ",".join(operator + bound for operator, bound in clauses)
    assert satisfied(line, version) is Requirement(line).specifier.contains(version, prereleases=True)
