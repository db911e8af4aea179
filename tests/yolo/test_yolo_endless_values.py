"""Settings and names of a checkpoint that hold one another: refused at once, however short the file."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError
from lensmount_rfdetr.names import names_of
from lensmount_yolo.networks.nodes import setting
from lensmount_yolo.official import _names


def doubling() -> object:
    value: object = ()
    for _ in range(60):
        value = (value, value)
    return value


def own() -> object:
    value: list[object] = []
    value.append(value)
    return value


def wide() -> object:
    return (tuple(range(600)),) * 2


@pytest.mark.parametrize("value", [doubling(), own(), wide()], ids=["doubling", "own", "wide"])
def test_settings_have_few_parts(value):
    with pytest.raises(ModelFileError, match="a type that none has"):
        setting(value)


def test_settings_are_plain():
    assert setting([1, [2.5, "a"], (True, None)]) == (1, (2.5, "a"), (True, None))


@pytest.mark.parametrize("value", [doubling(), own()], ids=["doubling", "own"])
def test_names_are_texts_or_numbers(value):
    for table in ([value], {0: value}):
        with pytest.raises(ModelFileError, match="names cannot be read"):
            _names(table)
        assert names_of({0: value}) == ()
    assert _names(["a", 1]) == {0: "a", 1: "1"}
