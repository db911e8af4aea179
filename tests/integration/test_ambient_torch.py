"""What the caller has set torch to changes no model: neither its load nor its calls, texts, streams and trackers."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import device_models  # noqa: E402 - after the skip
import sam2_tiny  # noqa: E402
from ambient_torch import STATES, ambient  # noqa: E402
from lensmount import registry  # noqa: E402

POINT = [[40.0, 60.0]]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def numbers(answers):
    """All that a model answered, with masks as pixels."""
    found = []
    for answer in answers:
        found += [answer.numbers[name] for name in sorted(answer.numbers)]
        if answer.masks is not None:
            found.append(answer.masks.area)
    return found


def told(name, model, given):
    """Whatever a family can be asked: pictures, texts, and frames of a stream and a tracker."""
    found = numbers(device_models.ask(name, model, given))
    kind = name.partition("-")[0]
    if kind == "perception":  # its small text tower is of another vocabulary than the tokeniser's
        found.append(model.forward_text(np.array([[1, 5, 9, 2], [3, 4, 599, 0]])))
    if kind == "clip":
        found.append(model.embed_text(["a nut", "two bolts in a box"]).vectors)
        found += [result.probabilities for result in model.classify(given[:1], ["a nut", "a bolt"])]
    if kind == "sam2":
        found += followed(model)
    else:
        options = {"classes": ["a thing"], "confidence": 0.0} if kind == "owlv2" else {}
        with model.stream(given, batch_size=2, workers=1, **options) as results:
            for _, result in results:
                kinds = ("confidence", "probabilities", "vectors")
                table = next(getattr(result, kind) for kind in kinds if hasattr(result, kind))
                found.append(np.asarray(table))
    return found


def followed(model):
    frames = sam2_tiny.frames(4)
    tracker = model.track(total_frames=len(frames))
    results = [tracker.prompt(frames[0], points=POINT, color="rgb")]
    results += [tracker.step(frame, color="rgb") for frame in frames[:2]]
    mask = np.zeros(frames[2].shape[:2], bool)
    mask[40:80, 30:70] = True
    results.append(tracker.prompt(frames[2], mask=mask, object_id=1, color="rgb"))
    results.append(tracker.prompt(points=[[90.0, 90.0]], object_id=2))
    results += [tracker.step(frame, color="rgb") for frame in frames[2:]]
    results += list(model.propagate(frames, {1: {"points": POINT}}, reverse=True, color="rgb"))
    found = [array for result in results for array in (result.logits, result.scores, result.masks.area)]
    return [*found, model.generate(frames[0], points_per_side=2, color="rgb").scores]


@pytest.fixture(scope="module")
def known(tmp_path_factory, embedding_goldens):
    """By family and way: what to load, and what it answers when nobody has set anything."""
    kept = {}

    def get(name, way):
        if (name, way) not in kept:
            path, options = device_models.write(name, tmp_path_factory.mktemp("ambient"), embedding_goldens)
            arguments = {"backend": "torch", "device": "cpu", "device_path": way, **options}
            with registry.load(path, **arguments) as model:
                kept[name, way] = path, arguments, told(name, model, device_models.pictures())
        return kept[name, way]

    return get


def assert_same(made, expected):
    assert len(made) == len(expected)
    for one, other in zip(made, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


# The host's way shares all but preparing and finishing with the device's; those states stand for the others there.
WAYS = [(True, state) for state in STATES] + [(False, state) for state in ("autocast", "float64", "device")]


@pytest.mark.parametrize("name", device_models.NAMES)
@pytest.mark.parametrize(("way", "state"), WAYS)
def test_loads_and_calls_are_the_same(known, name, way, state):
    path, arguments, expected = known(name, way)
    with STATES[state]():
        before = ambient()
        with registry.load(path, **arguments) as model:
            made = told(name, model, device_models.pictures())
        assert ambient() == before
    assert_same(made, expected)


@pytest.mark.parametrize("name", device_models.NAMES)
def test_a_model_that_was_loaded_elsewhere(known, name):
    """What was made in one state serves in another: nothing of a caller's stays in weights and caches."""
    path, arguments, expected = known(name, True)
    with STATES["inference"](), STATES["autocast"](), STATES["float64"]():
        model = registry.load(path, **arguments)
        told(name, model, device_models.pictures())
    with model:
        assert_same(told(name, model, device_models.pictures()), expected)


@pytest.mark.parametrize("state", ["autocast", "float64", "device"])
def test_exports_are_the_same(tmp_path, embedding_goldens, state):
    path, _ = device_models.write("yolo", tmp_path, embedding_goldens)
    written = []
    for name in ("nothing", state):
        with STATES.get(name, contextlib.nullcontext)():
            written.append(registry.export(path, output=tmp_path / f"{name}.onnx").read_bytes())
    assert written[0] == written[1]


def test_code_of_a_call_shuts_out_the_caller_and_not_gradients_alone():
    root = Path(__file__).resolve().parents[2]
    files = [file for part in ("core", "libraries", "plugins") for file in (root / part).rglob("src/**/*.py")]
    assert len(files) > 200
    found = [file.name for file in files if "@torch.inference_mode" in file.read_text(encoding="utf-8")]
    assert found == []  # lensmount.backend.settled does more
