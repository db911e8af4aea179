"""Networks that give NaN, infinity or boxes turned inside out: an error for those pictures, results for the others."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lensmount import registry
from lensmount.errors import BackendError
from lensmount_vision.models import NotFiniteError, numbers

SIDE, CELLS = 32, 21
GOOD, BAD = np.full((SIDE, SIDE, 3), 200, np.uint8), np.zeros((SIDE, SIDE, 3), np.uint8)


def graph(path: Path, kind: str, task: str = "detect") -> str:
    """A detector of one fixed box (or a classifier); of a black picture it gives what `kind` says."""
    if task == "detect":
        table = np.zeros((1, 6, CELLS), np.float32)
        table[0, :4, 0] = (16, 16, 8, 8)
        table[0, 4, 0] = 0.9
    else:
        table = np.array([[0.75, 0.25]], np.float32)
    wrong = table.copy()
    if kind == "negative":
        wrong[0, 2:4] *= -1
    elif kind == "some":
        wrong[..., -1:] = np.nan  # a single cell, far from any object
    else:
        wrong[:] = np.nan if kind == "nan" else np.inf
    shape = np.array([-1, *[1] * (table.ndim - 1)], np.int64)
    constants = {"table": table, "wrong": wrong, "shape": shape, "zero": np.zeros((), np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "shape"], ["level"]),
        helper.make_node("Equal", ["level", "zero"], ["black"]),
        helper.make_node("Where", ["black", "wrong", "table"], ["output0"]),
    ]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "made",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
            [helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", *table.shape[1:]])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    entries = {"names": "{0: 'a', 1: 'b'}", "task": task, "stride": "32", "imgsz": f"[{SIDE}, {SIDE}]"}
    helper.set_model_props(made, entries)
    onnx.save(made, path)
    return str(path)


def load(path: str) -> Any:
    return registry.load(path, backend="onnx", device="cpu", threads=1)


@pytest.mark.parametrize(
    ("kind", "task"),
    [("nan", "detect"), ("some", "detect"), ("inf", "detect"), ("negative", "detect"), ("nan", "classify")],
)
class TestOneOfThree:
    def test_a_call_names_the_picture_and_has_the_results_of_the_others(
        self, tmp_path: Path, kind: str, task: str
    ) -> None:
        with load(graph(tmp_path / "net.onnx", kind, task)) as model:
            fine = model([GOOD])
            with pytest.raises(NotFiniteError) as caught:
                model([GOOD, BAD, GOOD])
        error = caught.value
        assert isinstance(error, BackendError)
        assert error.page == "BackendError"
        assert list(error.faults) == list(error.errors) == [1]
        assert error.results[1] is None
        for index in (0, 2):
            assert repr(error.results[index]) == repr(fine[0])
        text = str(error)
        assert "picture 1" in text
        for named in (model.card.id, model.package.name, "onnx", "cpu"):
            assert named in text
        again = pickle.loads(pickle.dumps(error))
        assert again.faults == error.faults

    @pytest.mark.parametrize("batch_size", [1, 2, 3])
    def test_a_stream_gives_a_record_with_the_error_and_goes_on(
        self, tmp_path: Path, kind: str, task: str, batch_size: int
    ) -> None:
        with load(graph(tmp_path / "net.onnx", kind, task)) as model:
            pairs = list(model.stream([GOOD, BAD, GOOD, BAD], batch_size=batch_size))
        assert [result is None for _, result in pairs] == [False, True, False, True]
        assert [info.error is None for info, _ in pairs] == [True, False, True, False]
        assert "picture 3" in str(pairs[3][0].error)

    def test_stages_apart_say_the_same(self, tmp_path: Path, kind: str, task: str) -> None:
        with load(graph(tmp_path / "net.onnx", kind, task)) as model:
            batch, geometries = model.preprocess([BAD, GOOD])
            with pytest.raises(NotFiniteError) as caught:
                model.postprocess(model.forward(batch), geometries)
        assert list(caught.value.faults) == [0]


def test_the_path_is_named(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(BAD).save(tmp_path / "dark.png")
    with load(graph(tmp_path / "net.onnx", "nan")) as model, pytest.raises(NotFiniteError, match=r"dark\.png"):
        model([GOOD, tmp_path / "dark.png"])


def named(precision: str) -> Any:
    return SimpleNamespace(
        card=SimpleNamespace(id="m"),
        package=SimpleNamespace(name="p"),
        backend="torch",
        device="cuda:0",
        precision=precision,
    )


@pytest.mark.parametrize("precision", ["fp16", "fp32", "bf16"])
def test_half_precision_is_told_of_wider_ones(precision: str) -> None:
    fix = numbers.not_finite(named(precision), {0: "NaN"}).fix or ""
    assert ("bf16" in fix and "fp32" in fix) == (precision == "fp16")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_rows_are_found(dtype: Any, wrong: float) -> None:
    table = np.full((4, 3, 5), np.finfo(dtype).max, dtype)  # their sum is infinite, they are not
    ids = np.full((4, 2), 7, np.int64)
    assert numbers.bad_rows({"a": table, "ids": ids}, 4) == {}
    table[2, 1, 1] = wrong
    assert list(numbers.bad_rows({"a": table, "ids": ids}, 4)) == [2]
    assert list(numbers.bad_rows({"a": table[:3]}, 2)) == [0, 1]  # rows that are no pictures: none can be trusted


def test_tensors_are_looked_at_where_they_lie() -> None:
    torch = pytest.importorskip("torch")
    raw = {"a": torch.zeros((3, 2, 2), dtype=torch.bfloat16), "n": torch.zeros(3, dtype=torch.int64)}
    raw["a"][1, 0, 0] = float("nan")

    def make(part: Any, places: list[Any], where: list[Any]) -> list[Any]:
        if not bool(part["a"].isfinite().all()):
            raise ValueError("what a device says of it")
        return [f"{place} {len(part['a'])}" for place in places]

    with pytest.raises(NotFiniteError) as caught:
        numbers.finish(named("fp16"), raw, ["x", "y", "z"], None, make)  # type: ignore[list-item]
    assert caught.value.results == ["x 2", None, "z 2"]


def test_other_errors_stay_what_they_are() -> None:
    def make(part: Any, places: list[Any], where: list[Any]) -> list[Any]:
        raise KeyError("else")

    with pytest.raises(KeyError):
        numbers.finish(named("fp32"), {"a": np.zeros((1, 2), np.float32)}, ["x"], None, make)  # type: ignore[list-item]


def test_no_rows_are_no_fault() -> None:
    assert numbers.bad_rows({"a": np.zeros((0, 3), np.float32)}, 0) == {}
