"""numpy's integers are taken wherever an integer is, and become Python's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from lensmount.backend.devices import requested_threads
from lensmount.caches import DiskCache, MemoryCache
from lensmount.contracts.session import BackendOptions, OpenRequest
from lensmount.errors import LensmountError, OptionError
from lensmount.specs.options import class_ids, class_thresholds, fraction, is_whole, positive

KINDS = [*{np.dtype(code).type for code in np.typecodes["AllInteger"]}, int]
NUMBERS = [True, False, np.bool_(True), 2.0, np.float64(2), "2", None, np.array([2]), 2j]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_integer(kind, tmp_path):
    assert is_whole(kind(3))
    assert type(positive("batch", kind(3))) is int
    assert fraction("confidence", kind(1)) == 1.0
    assert class_ids(kind(1), ["cat", "dog"]).tolist() == [1]
    assert class_ids([kind(1), "cat"], ["cat", "dog"]).tolist() == [0, 1]
    lowest, table = class_thresholds({kind(1): 0.5}, ["cat", "dog"], 0.25)
    assert lowest == 0.25
    assert table.tolist() == [0.25, 0.5]
    assert DiskCache(tmp_path / "cache", kind(100)).max_bytes == 100
    MemoryCache(max_entries=kind(3), max_bytes=kind(100))
    request = OpenRequest(
        package=None, path=None, device="cpu", precision="fp32", options=BackendOptions(threads=kind(3))
    )
    assert type(requested_threads(request)) is int


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_what_is_none(value, tmp_path):
    assert not is_whole(value)
    with pytest.raises(OptionError):
        DiskCache(tmp_path / "cache", value)
    if value is not None:
        with pytest.raises(OptionError):
            MemoryCache(max_entries=value)


@dataclass(frozen=True)
class Table:
    size: int
    share: float = 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_tables(kind):
    from lensmount.specs.parsing import from_dict

    made = from_dict(Table, {"size": kind(3), "share": kind(1)}, "a table")
    assert (type(made.size), type(made.share)) == (int, float)
    with pytest.raises(LensmountError):
        from_dict(Table, {"size": np.bool_(True)}, "a table")
