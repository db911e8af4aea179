"""The contract of sources: ours keep it, and whatever breaks a promise fails in it, saying so."""

from __future__ import annotations

import pytest

from cases_source import CASES
from contract_cases import promises, run_cases
from fault_server import COMMIT
from lensmount_testing import SourceContract

CONTENT = bytes(range(256)) * 300


class TestFile(SourceContract):
    scheme = "file"
    local = True

    @pytest.fixture
    def served(self, tmp_path):
        path = tmp_path / "a file.onnx"
        path.write_bytes(CONTENT)
        return path.as_uri(), CONTENT


class TestPackage(SourceContract):
    scheme = "package"
    local = True

    @pytest.fixture
    def served(self, tmp_plugin):
        written = tmp_plugin("lensmount-holds-weights", "", files={"data/weights.onnx": CONTENT})
        return f"package://{written.package}/data/weights.onnx", CONTENT


class TestHttp(SourceContract):
    """One finder serves `http` and `https`; a server of this machine has no certificate."""

    scheme = "http"
    allow_insecure = True

    @pytest.fixture
    def served(self, web, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return web.put("/folder/weights.onnx", CONTENT), CONTENT

    @pytest.fixture
    def interrupted(self, web):
        return web.put("/folder/cut.onnx", CONTENT, cut_at=[30_000]), CONTENT


class TestHub(SourceContract):
    scheme = "hf"

    @pytest.fixture
    def served(self, hub):
        hub.put_repo("owner/repo", {"weights.onnx": CONTENT})
        return f"hf://owner/repo@{COMMIT}/weights.onnx", CONTENT


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_cases("cases_source", tmp_path_factory.mktemp("cases"))


def test_what_keeps_it_passes(outcomes):
    kept = outcomes.of_class("TestKeeps")
    assert {name.partition(".")[2] for name in kept} == set(promises(SourceContract))
    assert {name: r for name, r in kept.items() if any(what in ("failed", "error") for what, _ in r)} == {}
    passed = {name.partition(".")[2] for name, results in kept.items() if ("passed", "") in results}
    assert passed == set(promises(SourceContract))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_breaks_it_fails(case, outcomes):
    assert case.says in outcomes.said(case), outcomes.found.get((case.class_name, case.promise))


def test_each_promise_is_broken_by_something():
    assert {case.promise for case in CASES} == set(promises(SourceContract))
