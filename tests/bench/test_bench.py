"""The benchmark harness: its numbers, its processes, its warnings, its command."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from lensmount.errors import BackendError, ImageError, InputError, OptionError
from lensmount_bench import harness as bench
from lensmount_bench.machine import Moment, fingerprint, memory, warnings_between
from lensmount_bench.report import summarise
from lensmount_bench.worker import synthetic

ROWS = [(32, 32, 8, 16, 0, 0.9)]
PHASES = ["python", "import", "find", "fetch", "open", "first result", "total"]


@pytest.fixture
def model(graph, raw):
    return graph({"output0": raw(ROWS)})


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((64, 64, 3), 60 * i, np.uint8))
    return folder


def test_every_number_is_there_and_they_fit_together(model, pictures):
    seen = []
    report = bench.run(
        model, source=pictures, batch=(1, 2), seconds=0.4, rounds=2, cold=1, progress=lambda *a: seen.append(a)
    )
    assert [v.error for v in report.variants] == [None, None]
    for variant in report.variants:
        assert list(variant.cold) == PHASES
        parts = [variant.cold[name].p50 for name in PHASES[:-1]]
        assert all(part >= 0 for part in parts)
        # Nothing between the phases is left out: what is missing is the time that our own lines take.
        assert 0.8 * variant.cold["total"].p50 <= sum(parts) <= variant.cold["total"].p50 + 1
        assert list(variant.stages) == ["decode", "preprocess", "network", "postprocess"]
        assert variant.call.p50 <= variant.call.p95 <= variant.call.p99 <= variant.call.most
        assert len(variant.round_medians) == 2
        assert variant.images_per_second > 1
        assert variant.stream_images_per_second > 1
        assert variant.cpu_ms_per_image > 0
        assert variant.effective["provider"] == "CPUExecutionProvider"
        assert variant.device_memory is None
        if sys.platform == "linux":
            assert 20e6 < variant.rss_loaded <= variant.rss_peak < 2e9
    assert [c.label for c in report.comparisons] == [report.variants[1].variant.label]
    assert seen[-1][1:] == (6, 6)
    plain = json.loads(report.to_json())
    assert plain["variants"][1]["variant"]["batch"] == 2
    assert "cold start" in str(report)


def test_turns_are_taken_and_ratios_are_of_turns(model, graph, raw, monkeypatch):
    other = graph({"output0": raw(ROWS)}, name="other.onnx")
    order = []
    ask = bench._Process.ask

    def noted(self, command):
        if "seconds" in command:
            order.append(self._spec["model"][-10:-5])
        return ask(self, command)

    monkeypatch.setattr(bench._Process, "ask", noted)
    report = bench.run(model, compare=other, seconds=0.5, rounds=3, cold=1)
    assert order == ["model", "other"] * 3
    first, second = report.variants
    pairs = [b / a for a, b in zip(first.round_medians, second.round_medians, strict=True)]
    assert report.comparisons[0].ratio == pytest.approx(statistics.median(pairs))
    assert report.comparisons[0].least <= report.comparisons[0].ratio <= report.comparisons[0].most


def test_threads_that_call_at_once(model, pictures):
    variant = bench.run(model, source=pictures, concurrency=3, threads=1, seconds=0.4, rounds=1, cold=1).variants[0]
    assert variant.call.count >= 6
    assert variant.images_per_second > 1


def test_a_variant_that_cannot_run_is_reported_beside_those_that_can(model, pictures):
    report = bench.run(model, source=pictures, backends=["onnx", "torch"], seconds=0.2, rounds=1, cold=1)
    assert report.variants[0].error is None
    assert "NoPackageError" in report.variants[1].error
    assert "not measured" in str(report)
    with pytest.raises(BackendError, match="no variant"):
        bench.run(model, source=pictures, backends=["torch"], seconds=0.2, rounds=1, cold=1)


def test_a_process_that_dies_is_reported(model, pictures, monkeypatch):
    monkeypatch.setattr(bench.sys, "executable", "/bin/false" if os.name == "posix" else sys.executable)
    if os.name != "posix":
        pytest.skip("needs a program that fails")
    with pytest.raises(BackendError, match="no variant") as caught:
        bench.run(model, source=pictures, seconds=0.2, rounds=1, cold=1)
    assert "its process ended" in str(caught.value)


def test_a_picture_that_cannot_be_read_is_an_error(model, pictures):
    (pictures / "1.png").write_bytes(b"no picture")
    with pytest.raises(BackendError, match="no variant") as caught:
        bench.run(model, source=pictures, seconds=0.3, rounds=1, cold=1)
    assert "1.png" in str(caught.value)


def test_mistakes_are_refused_before_anything_runs(model, tmp_path):
    with pytest.raises(OptionError, match="rounds"):
        bench.run(model, rounds=0)
    with pytest.raises(OptionError, match="batch"):
        bench.run(model, batch=[0])
    with pytest.raises(InputError, match="too short"):
        bench.run(model, seconds=0.1)
    with pytest.raises(ImageError, match="no images"):
        bench.run(model, source=tmp_path / ".." / tmp_path.name / "x*")
    with pytest.raises(InputError, match="does not exist"):
        bench.run(model, source="nothing.jpg")


def test_percentiles_are_numpys():
    values = np.random.default_rng(0).random(57)
    found = summarise(values.tolist())
    assert [found.p50, found.p95, found.p99] == pytest.approx(np.percentile(values, [50, 95, 99]))
    assert (found.least, found.most, found.count) == (values.min(), values.max(), 57)
    with pytest.raises(ValueError, match="no times"):
        summarise([])


def test_busy_machines_are_told():
    before = Moment(clock=0, busy=100, steal=0, own=0, load=0.3)
    quiet = Moment(clock=10, busy=118, steal=0.1, own=17.5, load=2)
    assert warnings_between(before, quiet, 2, 2) == []
    busy = Moment(clock=10, busy=119, steal=2, own=10, load=2)
    told = warnings_between(before, busy, 2, 2)
    assert "45% of the machine" in told[0]
    assert "10% of the processor time" in told[1]
    loaded = Moment(clock=0, busy=None, steal=0, own=0, load=3)
    assert "3.0" in warnings_between(loaded, Moment(10, None, 0, 9, 3), 2, 2)[0]


def test_the_counters_are_read(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  100 20 30 999 5 6 7 8 0 0\ncpu0 1 1 1\n")
    moment = Moment.now(tmp_path)
    if sys.platform != "win32":
        ticks = os.sysconf("SC_CLK_TCK")
        assert (moment.busy, moment.steal) == (163 / ticks, 8 / ticks)
    (tmp_path / "proc/stat").write_text("what")
    assert Moment.now(tmp_path).busy is None
    now, peak = memory()
    assert now is None or peak >= now > 1e6


def test_the_fingerprint_and_the_pictures_are_plain():
    assert json.loads(json.dumps(fingerprint()))["cores"] >= 1
    first, second = synthetic(1), synthetic(2)
    assert first[0] == second[0] != second[1]
    assert 100_000 < len(first[0]) < 1_000_000


def test_the_command(model, pictures, tmp_path):
    report = tmp_path / "bench.json"
    command = [sys.executable, "-m", "lensmount", "bench", str(model), "--source", str(pictures)]
    environ = {**os.environ, "NO_COLOR": "1"}
    quick = ["--seconds", "0.3", "--rounds", "1", "--cold", "1", "--batch", "1,2", "--json", str(report)]
    done = subprocess.run([*command, *quick], capture_output=True, text=True, env=environ, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for text in ("whole call", "postprocess", "cold start", "images/s", "p99", "of the first's time"):
        assert text in done.stdout
    assert len(json.loads(report.read_text())["variants"]) == 2
    bad = subprocess.run([*command, "--batch", "x"], capture_output=True, text=True, env=environ, check=False)
    assert bad.returncode == 1
    assert "--batch" in bad.stderr
