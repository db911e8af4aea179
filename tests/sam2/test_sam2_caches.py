"""What is cached, for whom, and what it saves."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import sam2_tiny
from lensmount import registry
from lensmount.caches.memory import MemoryCache
from lensmount.errors import OptionError
from lensmount_sam2.caches import (
    MaskCache,
    Sam2ImageEmbeddingsInMemoryCache,
    Sam2LowResolutionMasksInMemoryCache,
)
from lensmount_sam2.prompts import check_prompts

BLACK = np.zeros((100, 200, 3), np.uint8)
FRAMES = sam2_tiny.frames()


@pytest.fixture
def load(tiny_folder):
    made = []

    def load(**options):
        made.append(registry.load(tiny_folder, backend="torch", **options))
        return made[-1]

    yield load
    for model in made:
        model.close()


@pytest.fixture
def counted(monkeypatch):
    """Pictures that were encoded."""
    from lensmount_sam2.runner import Runner

    seen = []
    encode = Runner.encode

    def count(self, batch):
        seen.extend([1] * len(batch))
        return encode(self, batch)

    monkeypatch.setattr(Runner, "encode", count)
    return seen


def test_a_picture_is_encoded_once(load, counted):
    model = load()
    first = model(FRAMES[0], boxes=[10, 10, 60, 60])[0]
    again = model(FRAMES[0].copy(), boxes=[10, 10, 60, 60])[0]
    assert len(counted) == 1
    assert again == first
    model.embed_images([FRAMES[0], FRAMES[1], FRAMES[1]])
    assert len(counted) == 2
    model.embed_images(FRAMES[0], use_embeddings_cache=False)
    assert len(counted) == 3


def test_same_bytes_in_another_shape_are_another_picture(load, counted):
    model = load()
    (wide,), (high,) = model.embed_images(BLACK), model.embed_images(BLACK.reshape(200, 100, 3))
    assert len(counted) == 2
    assert wide.key != high.key
    assert wide.image_size == (100, 200)
    assert high.image_size == (200, 100)


def test_channel_order_counts(load, counted):
    model = load()
    model.embed_images(FRAMES[0], color="rgb")
    model.embed_images(FRAMES[0], color="bgr")
    assert len(counted) == 2


def test_boxes_with_one_x1_are_different_prompts(load):
    model = load()
    results = [model(FRAMES[0], boxes=[10, y, x, 100])[0] for x, y in ((60, 10), (60, 40), (120, 10))]
    assert len({result.logits.tobytes() for result in results}) == 3


def test_the_least_recently_used_goes(load, counted):
    model = load(caches={"embeddings": Sam2ImageEmbeddingsInMemoryCache.init(size_limit=2)})
    model.embed_images(FRAMES[0])
    model.embed_images(FRAMES[1])
    model.embed_images(FRAMES[0])  # now the second is the oldest
    model.embed_images(FRAMES[2])
    assert len(counted) == 3
    model.embed_images(FRAMES[0])
    assert len(counted) == 3
    model.embed_images(FRAMES[1])
    assert len(counted) == 4


def test_bytes_bound(load, counted):
    side = sam2_tiny.SIDE
    one = 4 * (256 * (side // 16) ** 2 + 32 * (side // 4) ** 2 + 64 * (side // 8) ** 2)
    cache = MemoryCache(None, int(2.5 * one))
    model = load(caches={"embeddings": cache})
    model.embed_images(FRAMES[:4])  # encoded in one batch: each must own its share of it
    assert len(cache) == 2
    assert 2 * one <= cache.nbytes <= 2.5 * one


def test_models_share_a_cache(load, counted):
    cache = MemoryCache(10)
    same, other = load(caches={"embeddings": cache}), load(caches={"embeddings": cache}, image_size=64)
    same.embed_images(FRAMES[0])
    other.embed_images(FRAMES[0])
    assert len(counted) == 2
    assert len(cache) == 2
    load(caches={"embeddings": cache}).embed_images(FRAMES[0])  # the same weights and size
    assert len(counted) == 2


def test_from_disk(load, counted, tmp_path):
    from lensmount.caches.disk import DiskCache

    model = load(caches={"embeddings": DiskCache(tmp_path / "kept")})
    first = model(FRAMES[0], point_coordinates=[[40, 60]])[0]
    model = load(caches={"embeddings": DiskCache(tmp_path / "kept")})
    assert model(FRAMES[0], point_coordinates=[[40, 60]])[0] == first
    assert len(counted) == 1


def test_unknown_use_is_refused(load):
    with pytest.raises(OptionError, match="no use"):
        load(caches={"text": MemoryCache(1)})


def test_threads(load):
    model = load(caches={"embeddings": MemoryCache(2)})
    expected = [model(frame, boxes=[10, 10, 60, 60])[0].logits for frame in FRAMES]
    wrong, errors = [], []

    def work(offset):
        try:
            for index in range(8):
                at = (index + offset) % len(FRAMES)
                logits = model(FRAMES[at], boxes=[10, 10, 60, 60], use_mask_input_cache=False)[0].logits
                if np.abs(logits - expected[at]).max() > 1e-4:
                    wrong.append(at)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert not wrong


# --- masks of earlier prompts -----------------------------------------------------------------------------------------


def test_a_longer_prompt_refines_the_earlier_mask(load):
    model = load()
    one, two = [[40.0, 60.0]], [[40.0, 60.0], [80.0, 60.0]]
    first = model(FRAMES[0], point_coordinates=one)[0]
    plain = model(FRAMES[0], point_coordinates=two)[0]
    refined = model(FRAMES[0], point_coordinates=two, use_mask_input_cache=True)[0]
    by_hand = model(FRAMES[0], point_coordinates=two, mask_input=first.best.logits)[0]
    assert refined == by_hand
    assert np.abs(refined.logits - plain.logits).max() > 1e-3
    # The same prompt again is no longer one: it refines what it refined before, not its own answer.
    assert model(FRAMES[0], point_coordinates=two, use_mask_input_cache=True)[0] == by_hand


def test_other_pictures_labels_and_boxes_do_not_count(load):
    model = load()
    model(FRAMES[0], point_coordinates=[[40, 60]])
    for picture, prompt in (
        (FRAMES[1], {"point_coordinates": [[40, 60], [80, 60]]}),
        (FRAMES[0], {"point_coordinates": [[40, 60], [80, 60]], "point_labels": [0, 1]}),
        (FRAMES[0], {"boxes": [40, 60, 100, 100]}),
    ):
        with_cache = model(picture, use_mask_input_cache=True, **prompt)[0]
        assert with_cache == model(picture, **prompt)[0]


def test_the_largest_earlier_set_is_found():
    cache = MaskCache(Sam2LowResolutionMasksInMemoryCache.init(size_limit=50), "weights")

    def prompts(*points, box=None):
        return check_prompts(
            np.array(points, np.float32) if points else None,
            None,
            box,
            None,
            image_size=(100, 100),
            mask_size=(4, 4),
        )

    maps = [np.full((4, 4), value, np.float32) for value in range(4)]
    cache.put("picture", prompts((1, 1)), 0, maps[0])
    cache.put("picture", prompts((2, 2), (1, 1)), 0, maps[1])
    cache.put("picture", prompts((1, 1), box=[0, 0, 5, 5]), 0, maps[2])
    cache.put("other", prompts((1, 1), (2, 2), (3, 3)), 0, maps[3])
    wanted = prompts((1, 1), (2, 2), (3, 3), (4, 4))
    assert cache.find("picture", wanted, 0)[0, 0] == 1
    assert cache.find("picture", prompts((1, 1), (9, 9), box=[0, 0, 5, 5]), 0)[0, 0] == 2
    assert cache.find("picture", prompts((1, 1), (9, 9), box=[0, 0, 5, 6]), 0)[0, 0] == 0
    assert cache.find("picture", prompts((1, 1)), 0) is None
    assert cache.find("nowhere", wanted, 0) is None


def test_evicted_masks_are_passed_over():
    store = MemoryCache(None)
    cache = MaskCache(store, "weights")
    points = [np.array([[1, 1], [2, 2], [3, 3]][:n], np.float32) for n in (1, 2, 3)]
    prompts = [check_prompts(p, None, None, None, image_size=(9, 9), mask_size=(2, 2)) for p in points]
    cache.put("picture", prompts[0], 0, np.zeros((2, 2), np.float32))
    cache.put("picture", prompts[1], 0, np.ones((2, 2), np.float32))
    assert cache.find("picture", prompts[2], 0)[0, 0] == 1
    store._first.take(cache._key("picture", prompts[1].elements(0)))
    assert cache.find("picture", prompts[2], 0)[0, 0] == 0
