"""Building engines from graphs, against the stand-in: typing, profiles, caches, progress, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from lensmount.errors import (
    BuildError,
    DeviceMemoryError,
    OptionError,
    StoreError,
    UnknownOptionError,
    UnsupportedModelError,
)
from lensmount_tensorrt.settings import profile_shapes, settings_of
from tensorrt_machine import machine


@pytest.fixture(params=["10.13.0.35", "11.4.0.106"])
def gpu(request):
    with machine() as made:
        made.become(request.param)
        yield made


def graph(path: Path, dtype: int = TensorProto.FLOAT, shape=("batch", 3, "h", "w"), quantised: bool = False) -> Path:
    weights = helper.make_tensor(
        "k", dtype, [1], np.array([2.0], helper.tensor_dtype_to_np_dtype(dtype)).tobytes(), raw=True
    )
    nodes = [helper.make_node("Mul", ["x", "k"], ["y"])]
    initializers = [weights]
    if quantised:
        initializers += [
            helper.make_tensor("s", TensorProto.FLOAT, [], [0.1]),
            helper.make_tensor("z", TensorProto.INT8, [], [0]),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("Mul", ["d", "k"], ["y"]),
        ]
    values = [helper.make_tensor_value_info(name, dtype, list(shape)) for name in "xy"]
    made = helper.make_graph(nodes, "g", values[:1], values[1:], initializer=initializers)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path


def source(path: Path, precision: str = "fp32", image_size=(8, 8)):
    from lensmount_tensorrt.build import Source

    return Source(
        model="toy", path=path, sha256="0" * 64, precision=precision, metadata={}, image_size=image_size, gpu="H200"
    )


def built(path: Path, precision: str = "fp32", stored: str = "fp32", image_size=(8, 8), **settings):
    """The engine's header as the stand-in wrote it, and the manifest."""
    from lensmount_tensorrt.build import build_engine
    from lensmount_tensorrt.cuda_memory import Cuda

    engine, manifest = build_engine(
        source(path, stored, image_size), precision, settings_of(settings), Cuda(0), progress=False
    )
    assert manifest.size == len(engine)
    start = len(b"STANDIN-PLAN") + 4
    return json.loads(engine[start : start + int.from_bytes(engine[start - 4 : start], "little")]), manifest


def test_a_float_graph_is_built_as_it_is(gpu, tmp_path):
    header, manifest = built(graph(tmp_path / "m.onnx"))
    assert header["strong"] is True
    assert header["flags"] == []  # TF32, which TensorRT allows by default, is off
    assert header["profiles"] == [{"x": [[1, 3, 8, 8], [4, 3, 8, 8], [16, 3, 8, 8]]}]
    assert (header["level"], header["workspace"], header["hardware"]) == (3, None, "NONE")
    assert (manifest.tensorrt, manifest.compute_capability) == (gpu.trt.__version__, "9.0")
    assert (manifest.precision, manifest.strongly_typed) == ("fp32", True)


@pytest.mark.parametrize(("dtype", "precision"), [(TensorProto.FLOAT16, "fp16"), (TensorProto.BFLOAT16, "bf16")])
def test_a_half_graph_is_built_strongly_typed_on_both(gpu, tmp_path, dtype, precision):
    header, manifest = built(graph(tmp_path / "m.onnx", dtype), precision, precision)
    assert (header["strong"], header["flags"], manifest.strongly_typed) == (True, [], True)


def test_a_float_graph_in_half_precision_depends_on_the_version(gpu, tmp_path):
    path = graph(tmp_path / "m.onnx")
    if gpu.trt.__version__.startswith("10"):
        header, manifest = built(path, "fp16")
        assert (header["strong"], header["flags"]) == (False, ["FP16"])
        assert (manifest.precision, manifest.strongly_typed) == ("fp16", False)
        return
    with pytest.raises(UnsupportedModelError, match=r"TensorRT 11\.4\.0\.106 cannot build a fp16 engine") as caught:
        built(path, "fp16")
    assert "lensmount export MODEL --to onnx --precision fp16" in str(caught.value.fix)


def test_int8_comes_from_quantised_graphs_only(gpu, tmp_path):
    header, _ = built(graph(tmp_path / "q.onnx", quantised=True), "int8", "int8")
    assert (header["strong"], header["flags"]) == (True, [])
    with pytest.raises(UnsupportedModelError, match="not calibrated") as caught:
        built(graph(tmp_path / "m.onnx"), "int8")
    assert "QuantizeLinear" in str(caught.value.expected)


def test_nothing_is_raised_to_more_than_the_graph_has(gpu, tmp_path):
    with pytest.raises(UnsupportedModelError):
        built(graph(tmp_path / "m.onnx", TensorProto.FLOAT16), "fp32", "fp16")


def test_settings_reach_the_builder(gpu, tmp_path):
    header, manifest = built(
        graph(tmp_path / "m.onnx"),
        batch=(1, 8, 32),
        workspace=1 << 28,
        optimization_level=5,
        version_compatible=True,
        hardware_compatible=True,
    )
    assert header["profiles"][0]["x"] == [[1, 3, 8, 8], [8, 3, 8, 8], [32, 3, 8, 8]]
    assert (header["workspace"], header["level"]) == (1 << 28, 5)
    assert (header["flags"], header["hardware"]) == (["VERSION_COMPATIBLE"], "AMPERE_PLUS")
    assert (manifest.version_compatible, manifest.hardware) == (True, "ampere-plus")
    assert manifest.rebuild == "lensmount export toy --to tensorrt --precision fp32 --batch 1,8,32"


def test_a_static_graph_needs_no_profile(gpu, tmp_path):
    header, manifest = built(graph(tmp_path / "m.onnx", shape=(2, 3, 8, 8)))
    assert header["profiles"] == []
    assert manifest.profiles == ({"x": ((2, 3, 8, 8),) * 3},)
    assert built(graph(tmp_path / "m.onnx", shape=(2, 3, 8, 8)), batch=2)
    with pytest.raises(OptionError, match="static batch"):
        built(graph(tmp_path / "m.onnx", shape=(2, 3, 8, 8)), batch=(1, 2, 4))


def test_an_operator_that_tensorrt_does_not_know_is_named(gpu, tmp_path):
    path = graph(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Fancy", ["x"], ["f"], name="late", domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, path)
    with pytest.raises(UnsupportedModelError) as caught:
        built(path)
    assert "Fancy 'late' (node 1)" in str(caught.value.found)
    assert "Plugin not found" in str(caught.value.found)


def test_a_file_that_is_no_graph(gpu, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"\x08\x09garbage")
    with pytest.raises(UnsupportedModelError, match="cannot read"):
        built(tmp_path / "m.onnx")


def test_too_little_memory_to_build(gpu, tmp_path):
    gpu.gpu.build_memory = 1 << 40
    with pytest.raises(DeviceMemoryError, match="building") as caught:
        built(graph(tmp_path / "m.onnx"))
    assert "--workspace" in str(caught.value.fix)


def test_what_tensorrt_refuses_is_said(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu.trt, "_why_not_built", lambda *_: "[x.cpp::f::1] Error Code 10: no implementation for node")
    with pytest.raises(BuildError) as caught:
        built(graph(tmp_path / "m.onnx"))
    assert caught.value.found == "Error Code 10: no implementation for node"


# --- timing cache, progress -----------------------------------------------------------------------------------------


def test_the_timing_cache_is_written_read_and_refused_elsewhere(gpu, tmp_path):
    cache = tmp_path / "below" / "timings"
    built(graph(tmp_path / "m.onnx"), timing_cache=cache)
    first = cache.read_bytes()
    assert first.startswith(b"TIMING")
    built(graph(tmp_path / "m.onnx"), timing_cache=str(cache))
    assert cache.read_bytes() == first
    gpu.become(gpu.trt.__version__, capability=(8, 6))
    with pytest.raises(OptionError, match="does not fit this machine"):
        built(graph(tmp_path / "m.onnx"), timing_cache=cache)
    assert cache.read_bytes() == first


def test_a_timing_cache_that_cannot_be_written(gpu, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="timing cache"):
        built(graph(tmp_path / "m.onnx"), timing_cache=tmp_path / "file" / "timings")


def test_progress_is_shown_and_ctrl_c_stops_the_build(gpu, tmp_path, capsys, monkeypatch):
    from lensmount_tensorrt import build as tensorrt_build
    from lensmount_tensorrt import progress as tensorrt_progress
    from lensmount_tensorrt.cuda_memory import Cuda

    path = graph(tmp_path / "m.onnx")
    tensorrt_build.build_engine(source(path), "fp32", settings_of({}), Cuda(0), progress=True)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"building toy for TensorRT {gpu.trt.__version__}" in shown.err
    assert "Timing graph nodes" in shown.err
    seen: list[tuple[str, int, int]] = []

    def stopped(name: str, done: int, total: int) -> None:
        seen.append((name, done, total))
        if done == 2:
            raise KeyboardInterrupt

    monitor = tensorrt_progress.Progress(stopped)
    monkeypatch.setattr(tensorrt_build, "Progress", lambda show: monitor)
    with pytest.raises(KeyboardInterrupt):
        tensorrt_build.build_engine(source(path), "fp32", settings_of({}), Cuda(0), progress=False)
    assert ("Timing graph nodes", 2, 3) in seen
    assert ("Timing graph nodes", 3, 3) not in seen[: seen.index(("Timing graph nodes", 2, 3))]


# --- settings and shapes: no TensorRT at all -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"batch": 0},
        {"batch": (4, 2, 8)},
        {"batch": (1, 2)},
        {"batch": True},
        {"optimization_level": 6},
        {"workspace": 0},
        {"shapes": {"x": "1x3,2x3"}},
        {"shapes": {"x": "2x3,1x3,4x3"}},
        {"shapes": {"x": "wide"}},
        {"version_compatible": "yes"},
    ],
)
def test_settings_that_are_not_valid(values):
    with pytest.raises(OptionError):
        settings_of(values)


def test_a_setting_that_does_not_exist():
    with pytest.raises(UnknownOptionError, match="timing_cash"):
        settings_of({"timing_cash": "f"})


def shapes(inputs, image_size=None, **values):
    return profile_shapes(inputs, settings_of(values), image_size, "graph 'm.onnx'")


def test_shapes_of_a_profile():
    dynamic = {"images": (-1, 3, -1, -1)}
    assert shapes(dynamic, (4, 6), batch=8) == {"images": ((8, 3, 4, 6),) * 3}
    assert shapes(dynamic, None, shapes={"images": "1x3x4x4,2x3x8x8,4x3x9x9"}) == {
        "images": ((1, 3, 4, 4), (2, 3, 8, 8), (4, 3, 9, 9))
    }
    assert shapes({"a": (-1, 77), "b": (5,)}, None) == {"a": ((1, 77), (4, 77), (16, 77)), "b": ((5,), (5,), (5,))}


def test_a_size_that_nobody_knows_asks_for_the_option():
    with pytest.raises(OptionError, match="leaves sizes") as caught:
        shapes({"tokens": (-1, -1)})
    assert "--shape tokens=MIN,BEST,MAX" in str(caught.value.fix)
    assert caught.value.found == "?x?"


@pytest.mark.parametrize("given", ["1x4x8x8", "1x3x8"])
def test_shapes_that_contradict_the_graph(given):
    with pytest.raises(OptionError, match="does not take"):
        shapes({"images": (-1, 3, -1, -1)}, shapes={"images": given})


def test_shapes_of_an_input_that_there_is_not():
    with pytest.raises(OptionError, match="no input 'image'"):
        shapes({"images": (-1, 3, -1, -1)}, shapes={"image": "1x3x8x8"})
