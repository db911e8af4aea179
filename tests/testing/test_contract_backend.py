"""The contract of backends: ours keep it, and whatever breaks a promise fails in it, saying so."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from cases_backend import CASES
from contract_cases import promises, run_cases
from lensmount_testing import BackendContract
from lensmount_testing.graphs import GRAPHS, convolve, unknown_operator


class TestOnnx(BackendContract):
    backend = "onnx"


class TestTorch(BackendContract):
    backend = "torch"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return run_cases("cases_backend", tmp_path_factory.mktemp("cases"))


def test_what_keeps_it_passes(outcomes):
    kept = outcomes.of_class("TestKeeps")
    assert {name.partition(".")[2] for name in kept} == set(promises(BackendContract))
    assert {name: r for name, r in kept.items() if any(what != "passed" for what, _ in r)} == {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_what_breaks_it_fails(case, outcomes):
    assert case.says in outcomes.said(case), outcomes.found.get((case.class_name, case.promise))


def test_each_promise_is_broken_by_something():
    assert {case.promise for case in CASES} == set(promises(BackendContract))


# --- the kit's graphs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_are_what_onnx_takes_them_for(name):
    """The bytes are written by hand: the onnx package reads them, checks them, and runs them by its own rules."""
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    graph = GRAPHS[name]
    model = onnx.load_from_string(graph.onnx)
    onnx.checker.check_model(model, full_check=name != "mismatch")
    assert {entry.key: entry.value for entry in model.metadata_props} == dict(graph.metadata)
    feeds = graph.feeds(batch=2)
    found = ReferenceEvaluator(model).run(None, feeds)
    wanted = graph.reference(feeds)
    assert [spec.name for spec in graph.outputs] == list(wanted)
    for spec, array in zip(graph.outputs, found, strict=True):
        assert str(array.dtype) == spec.dtype == str(wanted[spec.name].dtype)
        np.testing.assert_allclose(array, wanted[spec.name], atol=1e-5)


def test_the_unknown_operator_is_all_that_is_wrong():
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(unknown_operator())
    assert [node.op_type for node in model.graph.node] == ["NoSuchOperator"]
    with pytest.raises(onnx.checker.ValidationError, match="NoSuchOperator"):
        onnx.checker.check_model(model)


def test_convolve():
    """By hand: one pixel of 1 under a kernel of 0..8; with stride 2 and a border of 1, window (0, 0) ends at it."""
    images = np.zeros((1, 1, 4, 4), np.float32)
    images[0, 0, 1, 1] = 1
    weights = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    assert convolve(images, weights)[0, 0].tolist() == [[8, 6], [2, 0]]


def test_feeds_are_the_same_each_time_and_differ_by_seed():
    first, again, other = (GRAPHS["scale"].feeds(seed=seed)["images"] for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert (first > 0.5).any() and (first < 0.5).any()  # both sides of the rectifier


def test_graphs_need_no_onnx_package():
    assert "onnx" not in sys.modules or importlib.util.find_spec("onnx")
    code = "import sys; sys.modules['onnx'] = None; from lensmount_testing.graphs import GRAPHS; "
    code += "[g.onnx for g in GRAPHS.values()]; assert 'torch' not in sys.modules"
    import subprocess

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
