"""The contract of caches: ours keep it, and whatever breaks a promise fails in it, saying so."""

from __future__ import annotations

import pytest

from cases_cache import CASES
from contract_cases import promises, run_cases
from lensmount_testing import CacheContract


class TestMemory(CacheContract):
    cache = "memory"
    shares_values = True  # device tensors and embeddings of megabytes are not copied at each look


class TestDisk(CacheContract):
    cache = "disk"
    entries_setting = None
    persistent = True

    @pytest.fixture
    def cache_settings(self, tmp_path):
        return {"folder": tmp_path / "cache"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_cases("cases_cache", tmp_path_factory.mktemp("cases"))


def test_what_keeps_it_passes(outcomes):
    kept = outcomes.of_class("TestKeeps")
    assert {name.partition(".")[2] for name in kept} == set(promises(CacheContract))
    assert {name: r for name, r in kept.items() if any(what in ("failed", "error") for what, _ in r)} == {}
    passed = {name.partition(".")[2] for name, results in kept.items() if ("passed", "") in results}
    assert passed == set(promises(CacheContract))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_breaks_it_fails(case, outcomes):
    assert case.says in outcomes.said(case), outcomes.found.get((case.class_name, case.promise))


def test_each_promise_is_broken_by_something():
    assert {case.promise for case in CASES} == set(promises(CacheContract))
