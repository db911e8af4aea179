"""Vectors of texts and pictures that are not finite: named, kept in no cache, and harmless to the others."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import device_models  # noqa: E402
from lensmount import registry  # noqa: E402
from lensmount.caches.memory import MemoryCache  # noqa: E402
from lensmount_vision.models import NotFiniteError  # noqa: E402

TEXTS = ["a nut", "a long bolt", "a gear"]
BLACK = np.zeros((64, 64, 3), np.uint8)


@pytest.fixture(params=["nan", "inf", "-inf"])
def value(request):
    return float(request.param)


class Poisoned:
    """A session one of whose rows is no number: the one that `wrong` picks from the input."""

    def __init__(self, session, wrong, value):
        self._session, self.wrong, self.value = session, wrong, value

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, feeds):
        made = dict(self._session.run(feeds))
        name, (given,) = next(iter(made)), feeds.values()
        made[name] = np.array(made[name])
        for row in np.flatnonzero([self.wrong(item) for item in given]):
            made[name][row].reshape(-1)[0] = self.value
        return made


def load(name, folder, goldens, **caches):
    path, options = device_models.write(name, folder, goldens)
    return registry.load(path, backend="torch", device="cpu", device_path=False, caches=caches, **options)


def black(picture):
    return float(picture.std(axis=(1, 2)).max()) < 1e-6


def test_clip_texts(tmp_path, embedding_goldens, value):
    cache = MemoryCache(64)
    with load("clip", tmp_path, embedding_goldens, text=cache) as model:
        encoder = model.text_encoder
        expected = model.embed_text(TEXTS).vectors
        cache.clear()
        tokens = [encoder.tokenize([text])[0] for text in TEXTS]
        encoder._session = Poisoned(encoder._session, lambda row: tokens[1][2] in row, value)
        for _ in range(2):
            with pytest.raises(NotFiniteError, match=r"text 1 .*a long bolt") as caught:
                model.embed_text(TEXTS)
            assert [None if one is None else one.vectors.shape for one in caught.value.results] == [
                (1, 12),
                None,
                (1, 12),
            ]
            np.testing.assert_allclose(caught.value.results[2].vectors[0], expected[2], atol=1e-6)
        assert len(cache) == 2
        with pytest.raises(NotFiniteError, match="text 1") as caught:
            model.forward_text(encoder.tokenize(TEXTS))
        assert [one is None for one in caught.value.results] == [False, True, False]
        with pytest.raises(NotFiniteError, match="a long bolt"):
            model.classify(BLACK + 9, TEXTS, templates="{}")
        encoder._session = encoder._session._session
        np.testing.assert_allclose(model.embed_text(TEXTS).vectors, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["clip", "perception-encoder"])
def test_pictures(tmp_path, embedding_goldens, name, value):
    given = device_models.pictures()
    with load(name, tmp_path, embedding_goldens) as model:
        expected = [one.vectors for one in model([given[0], given[2]])]
        model._session = Poisoned(model._session, black, value)
        with pytest.raises(NotFiniteError, match="picture 1") as caught:
            model([given[0], BLACK, given[2]])
        first, nothing, second = caught.value.results
        assert nothing is None
        np.testing.assert_allclose([first.vectors, second.vectors], expected, atol=1e-5)
        batch, _ = model.preprocess([given[0], BLACK])
        with pytest.raises(NotFiniteError, match="picture 1"):
            model.forward_images(batch)
        if name == "clip":
            with pytest.raises(NotFiniteError, match="picture 1") as caught:
                model.classify([given[0], BLACK, given[2]], TEXTS)
            made = [None if one is None else round(float(one.probabilities.sum()), 5) for one in caught.value.results]
            assert made == [1.0, None, 1.0]


def test_owlv2_texts(tmp_path, embedding_goldens, value):
    cache = MemoryCache(64)
    given = device_models.pictures()[:1]
    with load("owlv2", tmp_path, embedding_goldens, text=cache) as model:
        expected = np.asarray(model.embed_text(TEXTS))
        texts = model._texts
        cache.clear()
        wanted = texts._tokenizer.encode([TEXTS[1]])[0][2]
        texts._session = Poisoned(texts._session, lambda row: wanted in row, value)
        for _ in range(2):
            with pytest.raises(NotFiniteError, match=r"text 1 .*a long bolt") as caught:
                model(given, classes=TEXTS)
            np.testing.assert_allclose(caught.value.results[2], expected[2], atol=1e-6)
            assert caught.value.results[1] is None
        assert len(cache) == 2
        texts._session = texts._session._session
        np.testing.assert_allclose(model.embed_text(TEXTS), expected, atol=1e-6)


def test_owlv2_query_pictures(tmp_path, embedding_goldens, value):
    given = device_models.pictures()
    kept = MemoryCache(64)
    with load("owlv2", tmp_path, embedding_goldens, embeddings=kept) as model:
        images = model._images
        forward = images._forward

        def poisoned(batch):
            made = {name: np.array(array) for name, array in forward(batch).items()}
            for row in np.flatnonzero([black(picture) for picture in batch]):
                made["class_embeds"][row].reshape(-1)[0] = value
            return made

        images._forward = poisoned
        with pytest.raises(NotFiniteError, match="reference picture 0"):
            model.image_guided_detection(given[:1], BLACK)
        assert len(kept) == 0
        box = {"cls": "nut", "x": 30, "y": 30, "w": 20, "h": 20}
        with pytest.raises(NotFiniteError, match="reference picture"):
            model.infer(given[:1], training_data=[{"image": BLACK, "boxes": [box]}])
        assert model.image_guided_detection(given[:1], given[0])
        with pytest.raises(NotFiniteError, match="picture 1") as caught:
            model.image_guided_detection([given[0], BLACK], given[0])
        assert [one is None for one in caught.value.results] == [False, True]
