"""The fuzz targets for a moment each: their seeds, what fuzzing once found, and some hundred damaged inputs.

`python3 dev.py fuzz` runs them for minutes, by coverage where it can; see docs/security.md.
"""

from __future__ import annotations

import json
import os
import random
import time

import pytest

SECONDS = float(os.environ.get("LENSMOUNT_FUZZ_TEST_SECONDS", "1.2"))  # for each target
SLOWEST = 5.0  # seconds for one input, on a machine that does other things as well

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("safetensors")
pytest.importorskip("lensmount_yolo")
pytest.importorskip("lensmount_roboflow")

import fuzz_seeds  # noqa: E402  (it needs the packages above)
import fuzz_targets  # noqa: E402  (ditto)

NAMES = sorted(fuzz_targets.TARGETS)


def graph(**texts):
    """A document of the target `metadata`."""
    outputs = [["output0", "float32", [1, 84, 8400]]]
    return json.dumps({"inputs": [["x", "float32", [1, 3, 640, 640]]], "outputs": outputs, "metadata": texts}).encode()


#: What fuzzing found, by target: each made an untyped error, or took minutes, when it was found.
FOUND = {
    "image": [
        b"P4 " + b"\x0b" * 33 + b"\x9f" * 60,  # a pattern that tried every way to read it: minutes
        b"P5" + b"#\n " * 5000 + b"x",
        b"II+\0" + b"\xff" * 60,  # an offset beyond 2**63
    ],
    "manifest": [
        fuzz_seeds.manifests()["full"].replace(b'"path": "weights.bin"', b'"path": "\\ud800"'),
        fuzz_seeds.manifests()["full"].replace(b'"cat"', b'"\\udfff"'),
    ],
    "metadata": [
        graph(stride="1e999", task="detect"),
        graph(stride="[1, 'a']", task="detect"),
        graph(stride="-1", task="detect"),
        graph(names="{{}, {}}", task="detect"),
        graph(names="{1e999: 'a'}", task="detect"),
        graph(names="[0x" + "f" * 8000 + "]", task="detect"),
        graph(names="(" * 5000, task="detect"),
        graph(imgsz="[0, 0]", task="detect"),
    ],
    "texts": [b'"http://["', b'"~f://a/b"', b'"https://h:99999999/x"', b'"file://[/x"'],
}


@pytest.fixture(scope="module")
def seeds():
    return fuzz_seeds.seeds()


def test_there_are_seeds_for_every_target(seeds):
    assert sorted(seeds) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_seeds_are_taken(name, seeds):
    """Most of them whole; damage to what is refused anyway would find little."""
    taken = [key for key, content in seeds[name].items() if fuzz_targets.run(name, content)]
    assert len(taken) >= len(seeds[name]) * 0.75


@pytest.mark.parametrize("name", sorted(FOUND))
def test_what_was_found_once(name):
    for content in FOUND[name]:
        started = time.perf_counter()
        fuzz_targets.run(name, content)
        assert time.perf_counter() - started < SLOWEST


@pytest.mark.parametrize("name", NAMES)
def test_damaged_inputs(name, seeds, record_property):
    target, pool, source = fuzz_targets.TARGETS[name], list(seeds[name].values()), random.Random(name)
    runs, ends = 0, time.monotonic() + SECONDS
    while time.monotonic() < ends:
        data = target.mutate(source.choice(pool), source)[: 1 << 15]
        started = time.perf_counter()
        try:
            taken = fuzz_targets.run(name, data)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__} for {data!r}") from error
        assert time.perf_counter() - started < SLOWEST, data
        if taken:
            pool.append(data)
        runs += 1
    record_property("inputs", runs)
    assert runs > 5
