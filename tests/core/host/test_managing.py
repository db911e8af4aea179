"""Bringing models, pinning them and carrying them to a machine without a network: through the facade."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lensmount.errors import (
    InputError,
    IntegrityError,
    LensmountError,
    ModelFileError,
    ModelNotFoundError,
    OfflineError,
    SourceError,
)
from lensmount.host.discovery import given
from lensmount.registry import Registry
from tiny_plugin import COMMIT, artifact, card, plugin, sha

W, EXTRA, OTHER, CHANGED = b"weights" * 999, b"extra" * 100, b"other package", b"WEIGHTS" * 999


@pytest.fixture
def registry(hub, home, monkeypatch):
    """`tiny` from a pinned repository (two packages), `moving` from a branch, `web` from plain http without a hash."""
    hub.put_repo("owner/tiny", {"w.bin": W, "sub/extra.bin": EXTRA, "other.bin": OTHER})
    at = f"hf://owner/tiny@{COMMIT}"
    cards = (
        card(
            "family/tiny",
            (
                "first",
                [artifact("w.bin", f"{at}/w.bin", W), artifact("sub/extra.bin", f"{at}/sub/extra.bin", role="data")],
            ),
            ("second", [artifact("w.bin", f"{at}/other.bin", OTHER)]),
            aliases=("tiny",),
        ),
        card("moving", ("only", [artifact("w.bin", "hf://owner/tiny/w.bin")])),
        card("web", ("only", [artifact("w.bin", hub.put("/w.bin", W))])),
    )
    return Registry(lambda: [given(plugin(*cards), "tiny-dist")])


def contents(model):
    return model.contents


# --- pull -------------------------------------------------------------------------------------------------------------


def test_pull_brings_the_package_that_would_run(registry, no_sockets_after):
    got = registry.pull("tiny")
    assert list(got) == ["first"]
    assert got["first"].sha256s == {"w.bin": sha(W), "sub/extra.bin": sha(EXTRA)}
    assert got["first"].revisions == {"w.bin": COMMIT, "sub/extra.bin": COMMIT}
    with no_sockets_after():
        model = registry.load("tiny", offline=True)
    assert contents(model) == {"w.bin": W, "sub/extra.bin": EXTRA}


def test_pull_one_or_all_packages(registry):
    assert list(registry.pull("tiny", package="second")) == ["second"]
    assert list(registry.pull("tiny", every=True)) == ["first", "second"]
    with pytest.raises(ModelNotFoundError, match="no package 'third'") as caught:
        registry.pull("tiny", package="third")
    assert caught.value.expected == "first, second"


def test_a_bundle_loads_by_its_path_without_store_or_network(registry, tmp_path, monkeypatch, no_sockets_after):
    folder = tmp_path / "carried"
    registry.pull("tiny", every=True, to=folder)
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "another-machine"))
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with no_sockets_after():
        assert contents(registry.load(folder)) == {"w.bin": W, "sub/extra.bin": EXTRA}
        assert contents(registry.load(str(folder), package="second")) == {"w.bin": OTHER}
        assert contents(registry.load(folder.as_uri())) == {"w.bin": W, "sub/extra.bin": EXTRA}
        assert registry.describe(folder).id == "family/tiny"


def test_a_bundle_in_a_folder_with_odd_letters(registry, tmp_path):
    folder = tmp_path / "ein Ordner %20 mit Ümlaut #1"
    registry.pull("tiny", to=folder)
    assert contents(registry.load(folder.as_uri()))["w.bin"] == W
    assert contents(registry.load(folder))["w.bin"] == W


def test_a_bundle_that_was_damaged_on_the_way_is_refused(registry, tmp_path):
    folder = tmp_path / "carried"
    registry.pull("tiny", to=folder)
    (folder / "first" / "w.bin").write_bytes(CHANGED)
    with pytest.raises(IntegrityError, match=r"w\.bin"):
        registry.load(folder)


def test_a_bundle_is_not_written_over_something(registry, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        registry.pull("tiny", to=tmp_path / "full")
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_plain_http_needs_the_flag(registry):
    with pytest.raises(SourceError, match="plain http") as caught:
        registry.pull("web")
    assert "allow" in str(caught.value)
    assert registry.pull("web", allow_insecure=True)["only"].sha256s == {"w.bin": sha(W)}


# --- lock -------------------------------------------------------------------------------------------------------------


def test_lock_is_honoured(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = registry.lock(["tiny", "moving"])
    assert path == Path("lensmount.lock")
    models = json.loads(path.read_text())["models"]
    assert set(models) == {"family/tiny", "moving"}
    assert models["moving"]["only"]["w.bin"] == {
        "revision": COMMIT, "sha256": sha(W), "size": len(W), "uri": "hf://owner/tiny/w.bin",
    }  # fmt: skip
    assert contents(registry.load("tiny", locked=True)) == {"w.bin": W, "sub/extra.bin": EXTRA}
    assert contents(registry.load("moving", locked=tmp_path / "lensmount.lock")) == {"w.bin": W}


def test_a_locked_branch_stays_at_its_commit_on_another_machine(registry, hub, tmp_path, monkeypatch):
    lock = registry.lock(["moving"], tmp_path / "lensmount.lock")
    hub.put_repo("owner/tiny", {"w.bin": CHANGED}, commit="b" * 40)
    elsewhere(tmp_path, monkeypatch)
    assert contents(registry.load("moving")) == {"w.bin": CHANGED}  # what the branch gives there today
    del hub.history["owner/tiny", COMMIT]
    with pytest.raises(LensmountError, match=r"[Rr]evision|commit"):  # the server forgot the old commit
        registry.load("moving", locked=lock)


def test_other_bytes_than_locked_are_refused(registry, hub, tmp_path, monkeypatch):
    lock = registry.lock(["moving"], tmp_path / "lensmount.lock")
    elsewhere(tmp_path, monkeypatch)
    hub.put_repo("owner/tiny", {"w.bin": CHANGED})  # the same commit, other bytes: a hub that lies
    with pytest.raises(IntegrityError) as caught:
        registry.load("moving", locked=lock)
    assert sha(W) in str(caught.value)


def test_a_card_that_was_published_anew_is_refused(registry, hub, tmp_path):
    lock = registry.lock(["tiny"], tmp_path / "lensmount.lock")
    at = f"hf://owner/tiny@{COMMIT}"
    newer = card("family/tiny", ("first", [artifact("w.bin", f"{at}/w.bin", CHANGED)]))
    with pytest.raises(IntegrityError, match="lensmount lock"):
        Registry(lambda: [given(plugin(newer), "tiny-dist")]).load("family/tiny", locked=lock)


def test_what_is_not_locked_is_refused(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match=r"lensmount\.lock cannot be read") as caught:
        registry.load("tiny", locked=True)
    assert caught.value.fix == "lensmount lock MODEL"
    registry.lock(["moving"])
    with pytest.raises(IntegrityError, match="not in the lock file") as caught:
        registry.load("tiny", locked=True)
    assert caught.value.fix == "lensmount lock family/tiny"


# --- offline ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "LENSMOUNT_OFFLINE", None])
def test_what_is_missing_is_listed_file_by_file(registry, variable, monkeypatch, no_sockets):
    if variable:
        monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineError) as caught:
        registry.load("tiny", offline=None if variable else True)
    said = str(caught.value)
    assert (variable or "offline=True") in said
    assert "2 files are not in the store" in said
    assert f"w.bin (hf://owner/tiny@{COMMIT}/w.bin, {len(W):,} bytes, sha256 {sha(W)}) -> " in said
    assert f"sub/extra.bin (hf://owner/tiny@{COMMIT}/sub/extra.bin, size unknown, no published sha256) -> " in said
    assert "lensmount pull MODEL --to DIR" in said


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "LENSMOUNT_OFFLINE"])
def test_what_is_cached_loads_for_ever(registry, variable, hub, monkeypatch, no_sockets_after):
    registry.pull("tiny")
    registry.pull("moving")
    registry.pull("web", allow_insecure=True)
    hub.close()
    monkeypatch.setenv(variable, "1")
    with no_sockets_after():
        assert contents(registry.load("tiny"))["w.bin"] == W
        assert contents(registry.load("moving"))["w.bin"] == W
        assert contents(registry.load("web", allow_insecure=True))["w.bin"] == W
        assert contents(registry.load("tiny", offline=False))["w.bin"] == W  # the environment has the last word
        with pytest.raises(OfflineError):
            registry.load("tiny", package="second", offline=False)


def test_a_file_of_the_hub_comes_with_the_command_that_brings_it(registry, no_sockets):
    with pytest.raises(OfflineError) as caught:
        registry.load("tiny", offline=True)
    assert f"hf download owner/tiny w.bin --revision {COMMIT}" in caught.value.missing[0].place


def test_a_file_brought_by_hand_goes_where_the_error_said(hub, monkeypatch, no_sockets):
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    web = [artifact("w.bin", "https://host.example/a/w.bin", W), artifact("x.bin", "https://host.example/b", EXTRA)]
    registry = Registry(lambda: [given(plugin(card("far", ("only", web))), "tiny-dist")])
    with pytest.raises(OfflineError) as caught:
        registry.load("far")
    assert [missing.name for missing in caught.value.missing] == ["w.bin", "x.bin"]
    for missing, content in zip(caught.value.missing, (CHANGED, EXTRA), strict=True):
        Path(missing.place).parent.mkdir(parents=True, exist_ok=True)
        Path(missing.place).write_bytes(content)
    with pytest.raises(LensmountError) as caught:  # the first one was not the file that was asked for
        registry.load("far")
    assert "w.bin" in str(caught.value)
    Path(caught.value.missing[0].place).write_bytes(W)
    assert contents(registry.load("far")) == {"w.bin": W, "x.bin": EXTRA}


def elsewhere(folder, monkeypatch):
    """Another machine: an empty store and an empty hub cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("LENSMOUNT_HOME", str(folder / "elsewhere"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "elsewhere-hub"))
