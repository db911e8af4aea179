"""Addresses on the hub that name no commit: what a moved branch, no network and a hub that is down do to them."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lensmount import registry
from lensmount.contracts import FetchOptions
from lensmount.errors import ArtifactNotFoundError, InputError, ModelFileError, OfflineError, SourceError, SourceNotice
from lensmount.specs import Artifact
from lensmount.store import Store
from lensmount.store.hf import HubFinder
from lensmount_vision.towers.vectors import read_vectors

safetensors = pytest.importorskip("safetensors.numpy")

OLD, NEW = "a" * 40, "b" * 40
FILE, REPOSITORY = "hf://me/m/model.safetensors", "hf://me/m"
SUBJECTS = (FILE, REPOSITORY)


@pytest.fixture(scope="module")
def weights(embedding_goldens):
    """Two networks that differ in one number."""
    arrays = embedding_goldens.recipe.weights(embedding_goldens.shapes["pe-timm"])
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    other = {**arrays, "logit_scale": np.asarray(arrays["logit_scale"]) + 1}
    return safetensors.save(arrays), safetensors.save(other)


@pytest.fixture
def moved(hub, weights):
    """A repository whose branch moved after the first load; call it to move it."""
    old, new = weights
    hub.put_repo("me/m", {"model.safetensors": old, "README.md": b"1"})

    def move(content=new):
        hub.put_repo("me/m", {"model.safetensors": content, "README.md": b"2"}, commit=NEW)

    return move


def commit(subject, **options):
    """The commit of the weights that an address stands for."""
    card = registry.describe(subject)
    (fetched,) = registry.pull(subject, **options).values()
    (path,) = fetched.files.values()
    assert registry.describe(subject).packages == card.packages or options
    return path.parent.name


def said(action):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = action()
    return result, sorted({str(w.message) for w in caught if issubclass(w.category, SourceNotice)})


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_first_commit_stays_until_refresh(hub, moved, subject):
    assert said(lambda: commit(subject)) == (OLD, [])
    moved()
    found, notices = said(lambda: commit(subject))
    assert found == OLD
    (notice,) = notices
    for part in (subject, "newer commit", NEW[:12], OLD[:12], "refresh=True", "--refresh"):
        assert part in notice
    assert "\n" not in notice
    assert commit(subject, refresh=True) == NEW
    assert said(lambda: commit(subject)) == (NEW, [])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_refresh_on_the_command_line(hub, moved, subject, lensmount):
    commit(subject)
    moved()
    old = lensmount("pull", subject)
    assert OLD in old.out
    assert old.err.count("newer commit") == 1
    assert NEW in lensmount("pull", "--refresh", subject).out


@pytest.mark.parametrize("subject", SUBJECTS)
def test_commands_that_run_a_model_can_take_the_newer_commit(hub, moved, subject, lensmount, tmp_path):
    """`embed` for those of all tests of the command line that need no other weights."""
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())

    def fingerprint(name, *options):
        done = lensmount(
            "embed", subject, tmp_path / "a.png", "--out", tmp_path / f"{name}.npz", "--device", "cpu", *options
        )
        assert done.status == 0, done.err
        return read_vectors(tmp_path / f"{name}.npz").fingerprint

    first = fingerprint("first")
    moved()
    assert fingerprint("again") == first
    newer = fingerprint("newer", "--refresh")
    assert newer != first
    assert fingerprint("after") == newer


RUNS = {
    "predict": ("p.png",),
    "embed": ("p.png", "--out", "v.npz"),
    "track": ("clip.mp4", "--point", "3,3"),
    "few-shot": ("p.png", "--reference", "r.json"),
}


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize("refresh", [False, True])
def test_refresh_reaches_the_load(command, refresh, lensmount, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("p.png", np.zeros((8, 8, 3), np.uint8))
    clip = cv2.VideoWriter("clip.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (32, 32))
    for _ in range(3):
        clip.write(np.zeros((32, 32, 3), np.uint8))
    clip.release()
    Path("r.json").write_text("[]", encoding="utf-8")
    asked = []

    def load(model, **options):
        asked.append(options["refresh"])
        raise InputError("enough")

    monkeypatch.setattr(registry, "load", load)
    done = lensmount(command, "hf://me/m", *RUNS[command], *["--refresh"] * refresh)
    assert "enough" in done.err
    assert asked == [refresh]


def test_a_commit_that_left_the_file_alone_is_not_told(hub, moved, weights):
    commit(FILE)
    moved(weights[0])
    assert said(lambda: commit(FILE)) == (OLD, [])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_commit_in_the_address_is_never_compared(hub, moved, subject, no_sockets_after):
    pinned = subject.replace("me/m", f"me/m@{OLD}")
    commit(pinned)
    moved()
    with no_sockets_after():
        assert said(lambda: commit(pinned)) == (OLD, [])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_refresh_needs_a_network(hub, moved, subject, monkeypatch):
    commit(subject)
    with pytest.raises(OfflineError, match="offline"):
        registry.load(subject, refresh=True, offline=True)
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with pytest.raises(OfflineError, match="offline"):
        registry.pull(subject, refresh=True)


@pytest.fixture
def down(hub, monkeypatch):
    """A hub that refuses every connection."""

    def stop():
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("time.sleep", lambda seconds: None)

    return stop


@pytest.mark.parametrize("state", ["offline", "down", "out of order"])
@pytest.mark.parametrize("filled_by", ["lensmount", "another tool", "a commit alone", "lensmount, at a commit"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_everything_cached_loads(hub, moved, down, subject, filled_by, state, monkeypatch, tmp_path):
    from huggingface_hub import hf_hub_download

    if filled_by == "lensmount":
        commit(subject)
    elif filled_by == "lensmount, at a commit":
        commit(subject.replace("me/m", f"me/m@{OLD}"))
    else:
        hf_hub_download("me/m", "model.safetensors", revision=OLD if filled_by == "a commit alone" else None)
    if state == "down":
        down()
    elif state == "out of order":
        hub.repo_status["me/m"] = (503, {})
    else:
        monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    card, notices = said(lambda: registry.describe(subject))
    assert card.architecture == "perception_encoder"
    assert commit(subject) == OLD
    assert len(notices) == (state != "offline")
    for notice in notices:
        assert "is taken from the hub's cache" in notice and "\n" not in notice


@pytest.mark.parametrize("filled_by", ["nobody", "a file of it"])
@pytest.mark.parametrize("state", ["offline", "down"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_what_is_missing_is_named(hub, moved, down, subject, state, filled_by, monkeypatch, caplog):
    from huggingface_hub import hf_hub_download

    if filled_by != "nobody":
        hf_hub_download("me/m", "README.md")
    if state == "down":
        down()
    else:
        monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with caplog.at_level(logging.WARNING, "huggingface_hub"), pytest.raises(SourceError) as caught:
        registry.load(subject)
    assert "lensmount.json" not in str(caught.value).replace("hf://me/m/lensmount.json", "") or state == "down"
    if state == "offline":
        assert "hf download me/m" in str(caught.value)
        assert isinstance(caught.value, OfflineError)
    assert len([line for record in caplog.records for line in record.getMessage().splitlines()]) <= 2


def test_offline_the_files_of_a_repository_are_known_by_name(hub, weights, tmp_path, no_sockets_after):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    arrays = safetensors.load(weights[0])
    keys = sorted(arrays)
    halves = [{key: arrays[key] for key in keys[i::2]} for i in range(2)]
    index = json.dumps({"weight_map": {key: names[i % 2] for i, key in enumerate(keys)}}).encode()
    files = {name: safetensors.save(half) for name, half in zip(names, halves, strict=True)}
    hub.put_repo("me/m", {"model.safetensors.index.json": index, **files})
    registry.pull(REPOSITORY)
    (snapshot,) = hub.hub_cache.glob("models--me--m/snapshots/*")
    (snapshot / names[1]).unlink()
    with no_sockets_after(), pytest.raises(OfflineError) as caught:
        registry.load(REPOSITORY, offline=True)
    assert f"hf download me/m {names[1]}" in str(caught.value)
    shutil.rmtree(hub.hub_cache)
    with no_sockets_after(), pytest.raises(OfflineError) as caught:
        registry.load(REPOSITORY, offline=True)
    assert "hf download me/m model.safetensors.index.json" in str(caught.value)


def test_a_short_commit_is_found_in_the_cache(hub, moved, no_sockets_after):
    commit(f"hf://me/m@{OLD}")
    with no_sockets_after():
        artifact = registry.describe(f"hf://me/m@{OLD[:10]}", offline=True).packages[0].artifacts[0]
    assert artifact.uri == f"hf://me/m@{OLD}/model.safetensors"


def test_two_commits_without_a_branch_are_not_guessed_between(hub, moved):
    from huggingface_hub import hf_hub_download

    hf_hub_download("me/m", "model.safetensors", revision=OLD)
    moved()
    hf_hub_download("me/m", "model.safetensors", revision=NEW)
    finder = HubFinder(Store())
    artifact = Artifact(name="model.safetensors", uri=FILE)
    with pytest.raises(OfflineError):
        finder.fetch(artifact, FetchOptions(offline=True))
    for revision in (OLD, NEW):
        pinned = replace(artifact, uri=FILE.replace("me/m", f"me/m@{revision}"))
        assert finder.fetch(pinned, FetchOptions(offline=True)).revision == revision


# --- what is no model file is not remembered --------------------------------------------------------------------------

PAGES = {
    "a page": b"<!DOCTYPE html><html><body>Please log in</body></html>",
    "a page in capitals": b"\r\n  <HTML><HEAD><TITLE>Sign in</TITLE></HEAD></HTML>",
    "an answer": b'{"error": "log in first"}',
    "a pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "cut": None,
    "text": b"Access denied",
}


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_in_a_models_place_does_not_block_the_web_address(web, home, weights, kind):
    content = PAGES[kind] or weights[0][:-100]
    url = web.put("/model.safetensors", content)
    for _ in range(2):
        with pytest.raises((ModelFileError, SourceError)) as caught:
            registry.load(url, allow_insecure=True)
        assert "cache rm --address" in str(caught.value) or "nothing was kept" in str(caught.value)
    web.put("/model.safetensors", weights[0])
    (fetched,) = registry.pull(url, allow_insecure=True).values()
    assert next(iter(fetched.files.values())).read_bytes() == weights[0]


@pytest.mark.parametrize("kind", PAGES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_page_in_a_models_place_does_not_block_the_address_on_the_hub(hub, moved, weights, subject, kind):
    hub.put_repo("me/m", {"model.safetensors": PAGES[kind] or weights[0][:-100]})
    with pytest.raises(ModelFileError) as caught:
        registry.load(subject)
    assert f"cache rm --address {subject}" in str(caught.value)
    moved()
    assert said(lambda: commit(subject)) == (NEW, [])


def test_a_sound_file_that_nothing_recognises_stays_remembered(web, home):
    url = web.put("/model.safetensors", safetensors.save({"unknown": np.ones(3, np.float32)}))
    for _ in range(2):
        with pytest.raises(ModelFileError, match="no installed architecture") as caught:
            registry.load(url, allow_insecure=True)
        assert "cache rm" not in str(caught.value)
    assert web.count() == 1


def test_refresh_of_a_web_address(web, home, weights):
    url = web.put("/model.safetensors", weights[0])

    def content(**options):
        (fetched,) = registry.pull(url, allow_insecure=True, **options).values()
        return next(iter(fetched.files.values())).read_bytes()

    assert content() == weights[0]
    web.put("/model.safetensors", weights[1])
    assert content() == weights[0]
    assert content(refresh=True) == weights[1]
    assert content() == weights[1]
    del web.files["/model.safetensors"]
    with pytest.raises(ArtifactNotFoundError):
        content(refresh=True)
    assert content() == weights[1]  # what failed took nothing away
