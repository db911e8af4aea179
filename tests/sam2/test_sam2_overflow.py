"""SAM 2's networks overflow: pictures, frames and objects are named, the others have results, nothing wrong is kept."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import sam2_tiny  # noqa: E402
from lensmount import registry  # noqa: E402
from lensmount.caches.memory import MemoryCache  # noqa: E402
from lensmount_vision.models import NotFiniteError  # noqa: E402

POINT = [[40.0, 60.0]]
BLACK = np.zeros((sam2_tiny.SIDE, sam2_tiny.SIDE, 3), np.uint8)
FRAMES = sam2_tiny.frames(4)


@pytest.fixture(params=["nan", "inf", "-inf"])
def value(request):
    return float(request.param)


@pytest.fixture
def caches():
    return {"embeddings": MemoryCache(8), "masks": MemoryCache(64)}


@pytest.fixture(params=[True, False], ids=["device", "host"])
def model(request, tiny_folder, value, caches):
    """A model whose encoder gives no numbers for black pictures, in one of its maps each time."""
    with registry.load(tiny_folder, backend="torch", device="cpu", device_path=request.param, caches=caches) as made:
        encoder, turn = made.runner.encoder.module, iter(range(99))
        original = encoder.maps

        def maps(batch):
            found = [part.clone() for part in original(batch)]
            black = batch[:, 0].flatten(1).std(1) < 1e-6
            found[next(turn) % 3][black, 0, 0, 0] = value
            return tuple(found)

        encoder.maps = maps
        yield made
        del encoder.maps


def kept(cache):
    return len(cache)


def test_embeddings(model, caches):
    fine = model.embed_images([FRAMES[0], FRAMES[1]])
    before = kept(caches["embeddings"])
    for _ in range(3):
        with pytest.raises(NotFiniteError, match="picture 1") as caught:
            model.embed_images([FRAMES[0], BLACK, FRAMES[1]])
        first, nothing, second = caught.value.results
        assert nothing is None
        assert list(caught.value.errors) == [1]
        for made, expected in ((first, fine[0]), (second, fine[1])):
            for one, other in zip(made.maps, expected.maps, strict=True):
                np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert kept(caches["embeddings"]) == before


def test_prompts(model, caches):
    points = [POINT, POINT, POINT]
    with pytest.raises(NotFiniteError, match="picture 1") as caught:
        model([FRAMES[0], BLACK, FRAMES[1]], point_coordinates=points)
    expected = model([FRAMES[0], FRAMES[1]], point_coordinates=points[:2])
    first, nothing, second = caught.value.results
    assert nothing is None
    for made, wanted in zip((first, second), expected, strict=True):
        np.testing.assert_array_equal(made.logits, wanted.logits)


def test_generate(model):
    with pytest.raises(NotFiniteError, match="picture 0"):
        model.generate(BLACK, points_per_side=2)


@pytest.mark.parametrize("part", ["logits", "scores"])
def test_generate_with_a_decoder_that_overflows(tiny_model, monkeypatch, part, value):
    original = tiny_model.runner.decode

    def decode(*arguments):
        logits, scores = original(*arguments)
        (logits if part == "logits" else scores)[0, 1] = value
        return logits, scores

    monkeypatch.setattr(tiny_model.runner, "decode", decode)
    with pytest.raises(NotFiniteError, match=part):
        tiny_model.generate(FRAMES[0], points_per_side=2)


def test_a_frame_of_a_tracker(model):
    tracker, plain = model.track(), model.track()
    for one in (tracker, plain):
        one.prompt(FRAMES[0], points=POINT)
        one.step(FRAMES[0])
    with pytest.raises(NotFiniteError, match="frame 1"):
        tracker.step(BLACK)
    made = tracker.step(FRAMES[2])
    assert made.frame == 2
    assert np.isfinite(made.logits).all()
    assert len(made.object_ids) == 1
    with pytest.raises(NotFiniteError, match="frame 3"):
        tracker.prompt(BLACK, points=POINT)


@pytest.mark.parametrize("part", ["pointer", "remember"])
def test_an_object_of_a_tracker(tiny_model, value, part):
    def followed(number):
        """Masks of three frames; on the second one object's memory is no number."""
        tracker = tiny_model.track()
        tracker.prompt(FRAMES[0], points=[POINT, [[90.0, 90.0]]])
        tracker.step(FRAMES[0])
        memory = tiny_model.runner.memory.module
        original = getattr(memory, part)

        def poisoned(*arguments):
            made = original(*arguments).clone()
            if number is not None:
                made[number].view(-1)[0] = value
            return made

        setattr(memory, part, poisoned)
        try:
            if number is None:
                return tracker, tracker.step(FRAMES[1])
            with pytest.raises(NotFiniteError, match=f"frame 1, object {number + 1}") as caught:
                tracker.step(FRAMES[1])
            assert list(caught.value.faults) == [number + 1]
            return tracker, caught.value.results[0]
        finally:
            delattr(memory, part)

    _, expected = followed(None)
    for number in (0, 1):
        tracker, made = followed(number)
        assert made.object_ids.tolist() == [2 - number]
        np.testing.assert_array_equal(made.logits[0], expected.logits[1 - number])
        after = tracker.step(FRAMES[2])
        assert after.object_ids.tolist() == [1, 2]
        assert np.isfinite(after.logits).all()
        assert np.isfinite(after.scores).all()


def test_a_prompt_that_overflows_is_not_remembered(tiny_model, value):
    tracker = tiny_model.track()
    memory = tiny_model.runner.memory.module
    original = memory.pointer
    memory.pointer = lambda *arguments: original(*arguments) * value
    try:
        for prompt in ({"points": POINT}, {"mask": np.ones(FRAMES[0].shape[:2], bool)}):
            with pytest.raises(NotFiniteError, match="object 1"):
                tracker.prompt(FRAMES[0], **prompt)
            assert tracker.object_ids == ()
    finally:
        del memory.pointer
    assert tracker.prompt(points=POINT).object_ids.tolist() == [1]
