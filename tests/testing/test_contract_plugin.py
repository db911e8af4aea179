"""The contract of plugins: a plugin that keeps it passes, and whatever breaks a promise fails in it, saying so."""

from __future__ import annotations

import pytest

from cases_plugin import CASES
from contract_cases import promises, run_cases
from lensmount_testing import PluginContract


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_cases("cases_plugin", tmp_path_factory.mktemp("cases"))


def test_what_keeps_it_passes(outcomes):
    kept = outcomes.of_class("TestKeeps")
    assert len(kept) == len(promises(PluginContract))
    assert {name: r for name, r in kept.items() if any(outcome != "passed" for outcome, _ in r)} == {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_breaks_it_fails(case, outcomes):
    assert case.says in outcomes.said(case), outcomes.found.get((case.class_name, case.promise))


def test_each_promise_is_broken_by_something():
    assert {case.promise for case in CASES} == set(promises(PluginContract))
