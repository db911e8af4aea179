"""Models of the plugins with the example's Redis cache: what one process computed, another finds."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

import sam2_tiny

pytest.importorskip("redis")
torch = pytest.importorskip("torch")

from lensmount import registry  # noqa: E402 - after the skips
from lensmount_redis_cache.cache import RedisCacheWarning  # noqa: E402 - after the skips

SECOND = """
import json, sys
import numpy as np
from lensmount import registry

job = json.loads(sys.argv[1])
cache = ("redis", {"url": job["url"], "prefix": job["prefix"]})
if job["kind"] == "sam2":
    from lensmount_sam2.runner import Runner

    def refuse(self, batch):
        raise AssertionError("the picture was encoded again")

    Runner.encode = refuse
    model = registry.load(job["weights"], backend="torch", caches={"embeddings": cache})
    frame = np.load(job["picture"])
    print(json.dumps(model(frame, point_coordinates=[[40, 60]])[0].scores.tolist()))
else:
    from lensmount_vision.towers.text import TextEncoder

    def refuse(self, tokens):
        raise AssertionError("the text was embedded again")

    TextEncoder.forward = refuse
    model = registry.load(job["weights"], backend="torch", caches={"text": cache})
    print(json.dumps(model.embed_text(job["texts"]).vectors.tolist()))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Redis server of this module's own; gives its URL and a way to end it."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--bind", "127.0.0.1", "--port", str(port), "--dir", str(tmp_path_factory.mktemp("redis"))]
    process = subprocess.Popen(
        [program, *place, "--save", "", "--appendonly", "no"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    for _ in range(600):
        with socket.socket() as ask:
            if ask.connect_ex(("127.0.0.1", port)) == 0:
                break
        assert process.poll() is None, "redis-server ended"
        time.sleep(0.1)
    yield f"redis://127.0.0.1:{port}/0", process
    process.terminate()
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def sam2_folder(tmp_path_factory):
    return sam2_tiny.write_folder(tmp_path_factory.mktemp("sam2") / "model")


@pytest.fixture(scope="module")
def clip_weights(tmp_path_factory, embedding_goldens):
    weights = embedding_goldens.recipe.weights(embedding_goldens.shapes["open_clip-resnet"])
    width = weights["token_embedding.weight"].shape[1]  # as many tokens as CLIP's own tokeniser has
    weights["token_embedding.weight"] = np.random.default_rng(5).normal(size=(49408, width)).astype(np.float32)
    path = tmp_path_factory.mktemp("clip") / "weights.pt"
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, path)
    return path


def second_process(**job):
    done = subprocess.run([sys.executable, "-c", SECOND, json.dumps(job)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


def test_sam2_encodes_a_picture_once_for_all_processes(server, sam2_folder, tmp_path):
    url, _ = server
    frame = sam2_tiny.frames(1)[0]
    np.save(tmp_path / "frame.npy", frame)
    caches = {
        "embeddings": ("redis", {"url": url, "prefix": "sam2"}),
        "masks": ("redis", {"url": url, "prefix": "sam2-masks", "max_entries": 50}),
    }
    with registry.load(sam2_folder, backend="torch", caches=caches) as model:
        first = model(frame, point_coordinates=[[40, 60]])[0]
        again = model(frame, point_coordinates=[[40, 60]])[0]
        # The mask of the first prompt, from the server, is where the second begins.
        refined = model(frame, point_coordinates=[[40, 60], [90, 90]], point_labels=[1, 0], use_mask_input_cache=True)[
            0
        ]
    assert again == first
    with registry.load(sam2_folder, backend="torch") as model:  # caches in memory
        model(frame, point_coordinates=[[40, 60]])
        wanted = model(frame, point_coordinates=[[40, 60], [90, 90]], point_labels=[1, 0], use_mask_input_cache=True)[0]
    assert refined == wanted
    scores = second_process(
        kind="sam2", url=url, prefix="sam2", weights=str(sam2_folder), picture=str(tmp_path / "frame.npy")
    )
    np.testing.assert_array_equal(scores.astype(np.float32), first.scores)


def test_clip_embeds_a_text_once_for_all_processes(server, clip_weights):
    url, _ = server
    texts = ["a photo of a dog", "ein Hund am Strand"]
    with registry.load(
        clip_weights, backend="torch", caches={"text": ("redis", {"url": url, "prefix": "clip"})}
    ) as model:
        first = model.embed_text(texts).vectors
        np.testing.assert_array_equal(model.embed_text(texts[::-1]).vectors[::-1], first)
    found = second_process(kind="clip", url=url, prefix="clip", weights=str(clip_weights), texts=texts)
    np.testing.assert_array_equal(found.astype(np.float32), first)


def test_a_server_that_dies_stops_no_model(server, clip_weights):
    """The last test of this module: it ends the server."""
    url, process = server
    settings = {"url": url, "prefix": "dying", "timeout": 0.5}
    with registry.load(clip_weights, backend="torch", caches={"text": ("redis", settings)}) as model:
        before = model.embed_text(["a dog"]).vectors
        process.terminate()
        process.wait(timeout=60)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            after = model.embed_text(["a dog", "a cat"]).vectors
        # In one batch with another text the sums may come in another order.
        np.testing.assert_allclose(after[:1], before, atol=1e-6)
        assert [w.category for w in caught] == [RedisCacheWarning]
