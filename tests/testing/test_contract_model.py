"""The contract of models: models of every task keep it, and whatever breaks a promise fails in it, saying so."""

from __future__ import annotations

import pytest

from cases_model import CASES
from contract_cases import promises, run_cases
from lensmount_testing import ModelContract


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_cases("cases_model", tmp_path_factory.mktemp("cases"))


def test_what_keeps_it_passes(outcomes):
    kept = outcomes.of_class("TestKeeps")
    assert {name.partition(".")[2] for name in kept} == set(promises(ModelContract))
    assert {name: r for name, r in kept.items() if any(what in ("failed", "error") for what, _ in r)} == {}
    passed = {name.partition(".")[2] for name, results in kept.items() if ("passed", "") in results}
    assert passed == set(promises(ModelContract))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_breaks_it_fails(case, outcomes):
    assert case.says in outcomes.said(case), outcomes.found.get((case.class_name, case.promise))


def test_each_promise_is_broken_by_something():
    assert {case.promise for case in CASES} == set(promises(ModelContract))
