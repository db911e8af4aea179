"""`hf://` through huggingface_hub, against a local server that speaks the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest

from lensmount.contracts.finder import FetchOptions
from lensmount.errors import (
    ArtifactNotFoundError,
    AuthenticationError,
    IntegrityError,
    MissingDependencyError,
    OfflineError,
    SourceError,
)
from lensmount.registry import Registry
from lensmount.specs import Artifact
from lensmount.store.addresses import HubAddress, parse_hub
from lensmount.store.hf import HubFinder
from lensmount.store.store import Store

WEIGHTS = b"weights" * 10_000
SHA = hashlib.sha256(WEIGHTS).hexdigest()
COMMIT, OTHER = "a" * 40, "b" * 40
REPO = "owner/model"
OPTIONS = FetchOptions(progress=False)
OFFLINE = FetchOptions(progress=False, offline=True)


def artifact(uri=f"hf://{REPO}/w.onnx", **promises):
    return Artifact(name="w.onnx", uri=uri, **promises)


@pytest.fixture
def finder(hub, home):
    hub.put_repo(REPO, {"w.onnx": WEIGHTS})
    return HubFinder(Store(home))


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("hf://o/r", HubAddress("o/r")),
        ("hf://o/r@main", HubAddress("o/r", "main")),
        ("hf://o/r@v1.0/a/b.onnx", HubAddress("o/r", "v1.0", "a/b.onnx")),
        ("hf://o/r/a/b.onnx", HubAddress("o/r", None, "a/b.onnx")),
        ("hf://o/r@refs/pr/3/w.pt", HubAddress("o/r", "refs/pr/3", "w.pt")),
        ("hf://o/r@feature%2Fx/w.pt", HubAddress("o/r", "feature/x", "w.pt")),
    ],
)
def test_addresses(uri, parsed):
    assert parse_hub(uri) == parsed
    assert parse_hub(str(parsed)) == parsed


@pytest.mark.parametrize("uri", ["hf://o", "hf://", "hf://o/r/../x", "hf://o/r//x", "https://o/r", "hf://o/r@/x"])
def test_bad_addresses(uri):
    with pytest.raises(SourceError):
        parse_hub(uri)


def test_fetch_stays_in_the_hub_cache(finder, hub, home):
    got = finder.fetch(artifact(sha256=SHA, size=len(WEIGHTS)), OPTIONS)
    assert got.path.is_relative_to(hub.hub_cache)
    assert got.path.read_bytes() == WEIGHTS
    assert (got.sha256, got.revision) == (SHA, COMMIT)
    assert not (home / "blobs").exists()


def test_cached_with_hash_asks_nobody(finder, hub, request):
    finder.fetch(artifact(sha256=SHA), OPTIONS)
    request.getfixturevalue("no_sockets")
    finder.fetch(artifact(sha256=SHA), OPTIONS)
    finder.fetch(artifact(sha256=SHA), OFFLINE)


def test_what_another_tool_cached_is_used_offline(finder, hub, request):
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, "w.onnx")
    request.getfixturevalue("no_sockets")
    assert finder.fetch(artifact(), OFFLINE).sha256 == SHA


def test_hash_is_taken_once(finder, monkeypatch):
    from lensmount.store import store

    finder.fetch(artifact(sha256=SHA), OPTIONS)
    monkeypatch.setattr(store, "hash_file", lambda path: pytest.fail("hashed again"))
    finder.fetch(artifact(sha256=SHA), OPTIONS)


def test_changed_file_in_the_cache_is_noticed_and_repaired(finder, hub):
    path = finder.fetch(artifact(sha256=SHA), OPTIONS).path.resolve()
    path.chmod(0o644)
    path.write_bytes(b"x" * len(WEIGHTS))
    with pytest.raises(OfflineError):
        finder.fetch(artifact(sha256=SHA), OFFLINE)
    assert finder.fetch(artifact(sha256=SHA), OPTIONS).path.read_bytes() == WEIGHTS


def test_wrong_hash(finder):
    with pytest.raises(IntegrityError) as caught:
        finder.fetch(artifact(sha256="0" * 64), OPTIONS)
    assert "@<commit>" in caught.value.fix
    with pytest.raises(IntegrityError):
        finder.fetch(artifact(size=3), OPTIONS)


def test_an_address_without_commit_keeps_its_first_commit(finder, hub, request):
    assert finder.fetch(artifact(), OPTIONS).revision == COMMIT
    hub.put_repo(REPO, {"w.onnx": b"retrained"}, commit=OTHER)
    got = finder.fetch(artifact(), OPTIONS)
    assert (got.sha256, got.revision) == (SHA, COMMIT)
    assert finder.fetch(artifact(f"hf://{REPO}@{OTHER}/w.onnx"), OPTIONS).path.read_bytes() == b"retrained"


def test_first_download_is_checked_when_the_cache_was_emptied(finder, hub):
    import shutil

    finder.fetch(artifact(), OPTIONS)
    shutil.rmtree(hub.hub_cache)
    hub.put_repo(REPO, {"w.onnx": b"changed under the same commit"})
    with pytest.raises(IntegrityError) as caught:
        finder.fetch(artifact(), OPTIONS)
    assert "first download" in caught.value.fix


def test_offline_names_what_to_bring(finder, hub, no_sockets):
    with pytest.raises(OfflineError) as caught:
        finder.fetch(artifact(sha256=SHA, size=len(WEIGHTS)), OFFLINE)
    said = str(caught.value)
    for part in (f"hf://{REPO}/w.onnx", SHA, f"{len(WEIGHTS):,}", "hf download owner/model w.onnx", "pull MODEL --to"):
        assert part in said


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "LENSMOUNT_OFFLINE"])
def test_offline_by_environment(finder, monkeypatch, no_sockets, name):
    monkeypatch.setenv(name, "1")
    with pytest.raises(OfflineError):
        finder.fetch(artifact(), FetchOptions(offline=False))
    with pytest.raises(OfflineError):
        finder.repository(f"hf://{REPO}", OPTIONS)


@pytest.mark.parametrize(
    ("status", "headers", "kind", "said"),
    [
        (
            403,
            {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"},
            AuthenticationError,
            "HF_TOKEN",
        ),
        (401, {"X-Error-Code": "GatedRepo"}, AuthenticationError, "hf auth login"),
        (401, {}, SourceError, "HF_TOKEN"),
        (404, {"X-Error-Code": "RepoNotFound"}, ArtifactNotFoundError, "private"),
        (403, {}, AuthenticationError, "HF_TOKEN"),
        (403, {"X-Error-Message": "Access to this resource is disabled."}, SourceError, "disabled"),
    ],
)
def test_refusals_say_what_to_do(finder, hub, status, headers, kind, said):
    hub.repo_status[REPO] = (status, headers)
    with pytest.raises(kind) as caught:
        finder.fetch(artifact(), OPTIONS)
    assert said in str(caught.value)


def test_missing_revision_and_file(finder):
    with pytest.raises(ArtifactNotFoundError, match="revision 'nope'"):
        finder.fetch(artifact(f"hf://{REPO}@nope/w.onnx"), OPTIONS)
    with pytest.raises(ArtifactNotFoundError, match=r"no x\.onnx in"):
        finder.fetch(artifact(f"hf://{REPO}/x.onnx"), OPTIONS)
    with pytest.raises(SourceError, match="a file is needed"):
        finder.fetch(artifact(f"hf://{REPO}"), OPTIONS)


def test_hub_out_of_reach(finder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SourceError) as caught:
        finder.fetch(artifact(), OPTIONS)
    assert "HF_ENDPOINT" in caught.value.fix


def test_token(finder, hub):
    finder.fetch(artifact(), FetchOptions(progress=False, credentials={"hf": "hf_secret"}))
    sent = {k.lower(): v for k, v in hub.requests[0][2].items()}
    assert sent["authorization"] == "Bearer hf_secret"


def manifest():
    described = {
        "id": "mine/shapes",
        "architecture": "yolo",
        "task": "object-detection",
        "packages": [
            {
                "name": "onnx-fp32",
                "format": "onnx",
                "artifacts": [{"name": "w.onnx", "path": "onnx/w.onnx", "sha256": SHA, "size": len(WEIGHTS)}],
            }
        ],
    }
    return json.dumps({"format": "lensmount", "format_version": 1, "card": described}).encode()


def described(uri, **options):
    return Registry(list).describe(uri, **options)


@pytest.mark.parametrize("lists_files", [True, False])
def test_a_manifest_is_read_at_its_commit(finder, hub, request, lists_files):
    hub.lists_files = lists_files
    hub.put_repo("me/shapes", {"lensmount.json": manifest(), "onnx/w.onnx": WEIGHTS})
    card = described("hf://me/shapes")
    (found,) = card.packages[0].artifacts
    assert found.uri == f"hf://me/shapes@{COMMIT}/onnx/w.onnx"
    assert finder.fetch(found, OPTIONS).path.read_bytes() == WEIGHTS
    request.getfixturevalue("no_sockets")
    assert described("hf://me/shapes", offline=True) == card
    assert finder.fetch(found, OFFLINE).path.read_bytes() == WEIGHTS


@pytest.mark.parametrize("lists_files", [True, False])
def test_a_repository(finder, hub, request, lists_files):
    hub.lists_files = lists_files
    hub.put_repo("me/clip", {"config.json": b"{}", "sub/w.bin": WEIGHTS})
    repository = finder.repository("hf://me/clip", OPTIONS)
    assert repository.bring("lensmount.json") is None
    assert repository.bring("sub/w.bin").read_bytes() == WEIGHTS
    assert repository.uri == f"hf://me/clip@{COMMIT}"
    assert (repository.names() is not None) == lists_files
    assert finder.repository("hf://me/clip/config.json", OPTIONS) is None
    request.getfixturevalue("no_sockets")
    offline = finder.repository("hf://me/clip", OFFLINE)
    assert offline.uri == repository.uri
    assert offline.bring("sub/w.bin") == repository.bring("sub/w.bin")
    assert "sub/w.bin" in offline.names()


@pytest.mark.parametrize("lists_files", [True, False])
def test_a_missing_repository_is_told_from_a_missing_manifest(finder, hub, lists_files):
    hub.lists_files = lists_files
    with pytest.raises(ArtifactNotFoundError):
        described("hf://nobody/nothing")
    with pytest.raises(MissingDependencyError, match="model file without a manifest"):  # the core alone reads none
        described(f"hf://{REPO}")


def test_sixteen_threads(finder, hub):
    import threading

    got, threads = [], []
    for _ in range(16):
        threads.append(threading.Thread(target=lambda: got.append(finder.fetch(artifact(sha256=SHA), OPTIONS))))
        threads[-1].start()
    for thread in threads:
        thread.join(30)
    assert len(got) == 16
    assert {g.sha256 for g in got} == {SHA}


def test_quiet(finder, capfd):
    finder.fetch(artifact(), OPTIONS)
    assert capfd.readouterr() == ("", "")


def test_a_blob_that_is_not_what_its_name_says_is_not_used(finder, hub, home, tmp_path):
    """Another tool's download was damaged, and nothing is remembered of it: the hub's own name for it tells."""
    blob = finder.fetch(artifact(), OPTIONS).path.resolve()
    assert blob.name == SHA
    blob.chmod(0o644)
    for damage in (b"x" * len(WEIGHTS), WEIGHTS[:-1], WEIGHTS + b"\0", b""):
        blob.write_bytes(damage)
        for finder_of_a_new_home in (HubFinder(Store(tmp_path / f"offline{len(damage)}")), finder):
            with pytest.raises(OfflineError) as caught:
                finder_of_a_new_home.fetch(artifact(), OFFLINE)
            assert "is damaged" in str(caught.value)
            assert "w.onnx" in str(caught.value)
    assert HubFinder(Store(tmp_path / "online")).fetch(artifact(), OPTIONS).path.read_bytes() == WEIGHTS


def test_what_was_remembered_of_a_damaged_blob_does_not_make_it_good(finder, hub):
    got = finder.fetch(artifact(), OPTIONS)
    blob = got.path.resolve()
    blob.chmod(0o644)
    blob.write_bytes(b"x" * len(WEIGHTS))
    wrong = replace(got, sha256=hashlib.sha256(blob.read_bytes()).hexdigest())
    finder._store.ledger.remember(f"hf://{REPO}/w.onnx", wrong, published=False)
    with pytest.raises(OfflineError, match="is damaged"):
        finder.fetch(artifact(), OFFLINE)
    with pytest.raises(IntegrityError) as caught:  # mended, but not what this store trusted before
        finder.fetch(artifact(), OPTIONS)
    assert "cache rm --address" in caught.value.fix
