"""Manifests, bundles, lock files and looking after the store."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_finders import core_finders
from lensmount.contracts.finder import FetchOptions
from lensmount.errors import (
    InputError,
    IntegrityError,
    LensmountError,
    ModelFileError,
    ModelNotFoundError,
    UnsafeFileError,
)
from lensmount.registry import Registry
from lensmount.specs import Artifact, BatchPolicy, ModelCard, ModelPackage, Preprocess, Requirements
from lensmount.store import cachetool
from lensmount.store.bundle import write_bundle
from lensmount.store.fetch import fetch_package
from lensmount.store.lock import Lock, make_lock, read_lock, write_lock
from lensmount.store.manifests import parse_manifest, read_manifest, write_manifest
from lensmount.store.store import Store

GRAPH, DATA = b"graph" * 1000, b"external" * 2000
HTTP = FetchOptions(allow_insecure=True, progress=False)


def sha(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(home):
    return Store(home)


@pytest.fixture
def finders(store):
    return core_finders(store)


@pytest.fixture
def card(web):
    onnx = ModelPackage(
        name="onnx-fp32",
        format="onnx",
        artifacts=(
            Artifact(name="w.onnx", uri=web.put("/g?sig=secret", GRAPH), sha256=sha(GRAPH), confidence="published"),
            Artifact(name="extra/w.data", uri=web.put("/d", DATA), role="data"),
        ),
        batch=BatchPolicy(maximum=8),
        preprocess=Preprocess(size=(384, 640), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), resize="stretch"),
        requirements=Requirements(devices=("cpu", "cuda"), excluded_providers=("CoreMLExecutionProvider",)),
        settings=(("fused_nms", True), ("strides", (8, 16, 32)), ("pairs", (("a", 1), ("b", 2.5)))),
    )
    web.files["/g"] = web.files["/g?sig=secret"]
    torch = ModelPackage(
        name="torch", format="torch", artifacts=(Artifact(name="w.onnx", uri=web.put("/t", b"torch"), role="weights"),)
    )
    return ModelCard(
        id="family/small",
        architecture="yolo",
        task="object-detection",
        packages=(onnx, torch),
        aliases=("small",),
        classes=("crème brûlée", "dog"),
        licence="Apache-2.0",
        published=(("coco_ap", 48.4),),
        notes=("a note",),
    )


@pytest.fixture
def fetched(card, store, finders):
    return {p.name: fetch_package(card, p, finders, HTTP, store=store) for p in card.packages}


def without_uris(card):
    def strip(package):
        return replace(package, artifacts=tuple(replace(a, uri="", sha256=None, size=None) for a in package.artifacts))

    return replace(card, packages=tuple(strip(p) for p in card.packages))


# --- manifests and bundles --------------------------------------------------------------------------------------------


def test_bundle_round_trip(card, fetched, tmp_path, finders, store, no_sockets):
    folder = write_bundle(card, fetched, tmp_path / "stick" / "small")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == [
        "lensmount.json",
        "onnx-fp32/extra/w.data",
        "onnx-fp32/w.onnx",
        "torch/w.onnx",
    ]
    assert "secret" not in (folder / "lensmount.json").read_text()
    assert [p.name for p in folder.parent.iterdir()] == ["small"]
    read = read_manifest(folder)
    assert without_uris(read) == without_uris(card)
    assert hash(read) == hash(read_manifest(folder))
    assert Registry(list).describe(folder.as_uri()) == read
    got = fetch_package(read, read.packages[0], finders, FetchOptions(offline=True), store=store)
    assert got.folder == folder / "onnx-fp32"
    assert got.fingerprint == fetched["onnx-fp32"].fingerprint
    assert got.files["extra/w.data"].read_bytes() == DATA


def test_bundle_of_one_package(card, fetched, tmp_path):
    folder = write_bundle(card, {"torch": fetched["torch"]}, tmp_path / "b")
    assert [p.name for p in read_manifest(folder).packages] == ["torch"]
    with pytest.raises(InputError, match="not empty"):
        write_bundle(card, {"torch": fetched["torch"]}, folder)
    with pytest.raises(InputError, match="needs packages"):
        write_bundle(card, {"other": fetched["torch"]}, tmp_path / "c")
    with pytest.raises(InputError):
        write_bundle(card, {}, tmp_path / "c")


def test_damaged_bundle_is_not_loaded(card, fetched, tmp_path, finders, store):
    folder = write_bundle(card, fetched, tmp_path / "b")
    (folder / "torch" / "w.onnx").write_bytes(b"t0rch")
    read = read_manifest(folder)
    with pytest.raises(IntegrityError):
        fetch_package(read, read.packages[1], finders, FetchOptions(), store=store)
    (folder / "torch" / "w.onnx").unlink()
    with pytest.raises(ModelFileError, match="missing"):
        read_manifest(folder)


def test_bundle_is_written_whole_or_not_at_all(card, fetched, tmp_path, monkeypatch):
    from lensmount.store import manifests

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifests, "write_manifest", full)
    with pytest.raises(LensmountError, match="no room left"):
        write_bundle(card, fetched, tmp_path / "out" / "b")
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_changed_since_it_was_fetched_is_not_bundled(card, fetched, tmp_path):
    path = fetched["torch"].files["w.onnx"]
    path.chmod(0o644)
    path.write_bytes(b"t0rch")
    with pytest.raises(IntegrityError):
        write_bundle(card, fetched, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_manifest_of_ones_own_folder(tmp_path):
    (tmp_path / "w.onnx").write_bytes(GRAPH)
    package = ModelPackage(name="onnx", format="onnx", artifacts=(Artifact(name="w.onnx", uri="file:///x"),))
    mine = ModelCard(id="mine", architecture="yolo", task="object-detection", packages=(package,))
    write_manifest(mine, tmp_path)
    (artifact,) = read_manifest(tmp_path).packages[0].artifacts
    assert (artifact.sha256, artifact.size) == (sha(GRAPH), len(GRAPH))
    with pytest.raises(ModelFileError, match="missing"):
        write_manifest(mine, tmp_path / "elsewhere")
    wrong = replace(mine, packages=(replace(package, artifacts=(replace(package.artifacts[0], sha256="0" * 64),)),))
    with pytest.raises(IntegrityError):
        write_manifest(wrong, tmp_path)


def described(**artifact):
    facts = {"name": "w.onnx", "size": len(GRAPH), "sha256": sha(GRAPH), **artifact}
    package = {"name": "onnx", "format": "onnx", "artifacts": [facts]}
    return {
        "format": "lensmount",
        "format_version": 1,
        "card": {"id": "mine", "architecture": "yolo", "task": "t", "packages": [package]},
    }


def parse(data):
    return parse_manifest(json.dumps(data).encode(), base_uri="file:///b")


@pytest.mark.parametrize("path", ["../w", "/etc/passwd", "a/../../w", "C:/w", "a\\..\\w", "", "a//b", 7, ["w"], "a\0b"])
def test_paths_out_of_the_folder(path):
    if path == "":
        assert parse(described(path="")).packages[0].artifacts[0].uri == "file:///b/w.onnx"
        return
    with pytest.raises(UnsafeFileError):
        parse(described(path=path))


def test_links_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(GRAPH)
    (tmp_path / "in" / "lensmount.json").write_text(json.dumps(described()))
    (tmp_path / "in" / "w.onnx").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeFileError, match="link out of"):
        read_manifest(tmp_path / "in")
    (tmp_path / "in" / "w.onnx").unlink()
    (tmp_path / "in" / "w.onnx").symlink_to("w.onnx")
    with pytest.raises(ModelFileError):
        read_manifest(tmp_path / "in")
    (tmp_path / "in" / "w.onnx").unlink()
    (tmp_path / "in" / "real").write_bytes(GRAPH)
    (tmp_path / "in" / "w.onnx").symlink_to("real")
    assert read_manifest(tmp_path / "in").id == "mine"


def test_bad_manifests_name_the_key():
    data = described()
    with pytest.raises(ModelFileError, match=r"artifacts\[0\] has keys") as caught:
        parse(described(sha265="x"))
    assert "sha265" in caught.value.found
    with pytest.raises(ModelFileError, match="no sha256"):
        parse(described(sha256=None))
    with pytest.raises(ModelFileError, match="size"):
        parse(described(size="large"))
    with pytest.raises(ModelFileError):
        parse(described(sha256="xyz"))
    with pytest.raises(ModelFileError, match="another format version") as caught:
        parse({**data, "format_version": 2})
    assert "upgrade" in caught.value.fix
    for broken in ({**data, "card": None}, {**data, "card": []}, {**data, "extra": 1}, {}, [], {"format": "lensmount"}):
        with pytest.raises(ModelFileError):
            parse(broken)
    with pytest.raises(ModelFileError):
        parse_manifest(b"[" * 100_000, base_uri="file:///b")
    with pytest.raises(ModelFileError):
        parse_manifest(b"\xff\xfe", base_uri="file:///b")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
ANY = st.recursive(LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["card", "id", "packages", "artifacts", "batch", "preprocess", "settings", "name", "uri"]), ANY)
def test_any_value_gives_a_card_or_a_typed_error(key, value):
    data = described()
    package = data["card"]["packages"][0]
    holder = {"card": data, "artifacts": package, "batch": package, "preprocess": package, "settings": package}
    holder.get(key, package["artifacts"][0] if key in ("name", "uri") else data["card"])[key] = value
    with contextlib.suppress(LensmountError):
        assert isinstance(parse(data), ModelCard)


# --- lock files -------------------------------------------------------------------------------------------------------


def test_lock_round_trip(card, fetched, tmp_path):
    lock = make_lock((card, p, fetched[p.name]) for p in card.packages)
    path = write_lock(lock, tmp_path / "lensmount.lock")
    first = path.read_bytes()
    assert read_lock(path) == lock
    write_lock(read_lock(path), path)
    assert path.read_bytes() == first
    assert b"secret" not in first
    for package in card.packages:
        lock.check(card, package, fetched[package.name])
    bound = lock.apply(card)
    assert [a.sha256 for p in bound.packages for a in p.artifacts] == [sha(GRAPH), sha(DATA), sha(b"torch")]


def test_lock_refuses_what_changed(card, fetched, tmp_path):
    onnx, torch = card.packages
    lock = make_lock([(card, onnx, fetched["onnx-fp32"])])
    assert [p.name for p in lock.apply(card).packages] == ["onnx-fp32"]
    with pytest.raises(IntegrityError, match="not in the lock") as caught:
        lock.apply(replace(card, id="other"))
    assert caught.value.fix == "lensmount lock other"
    with pytest.raises(IntegrityError, match="not in the lock"):
        lock.check(card, torch, fetched["torch"])
    changed = replace(fetched["onnx-fp32"], sha256s={"w.onnx": "0" * 64, "extra/w.data": sha(DATA)})
    with pytest.raises(IntegrityError, match="not what was locked") as caught:
        lock.check(card, onnx, changed)
    assert "w.onnx: " + "0" * 64 in caught.value.found
    assert "extra" not in caught.value.found
    anew = replace(onnx, artifacts=(replace(onnx.artifacts[0], sha256="0" * 64), onnx.artifacts[1]))
    with pytest.raises(IntegrityError, match="published again"):
        lock.apply(replace(card, packages=(anew,)))
    with pytest.raises(IntegrityError, match="other files"):
        lock.apply(replace(card, packages=(replace(onnx, artifacts=onnx.artifacts[:1]),)))
    with pytest.raises(IntegrityError, match="no longer has"):
        lock.apply(replace(card, packages=(torch,)))


def test_lock_pins_hub_commits(hub, store, finders):
    hub.put_repo("o/r", {"w.onnx": GRAPH})
    package = ModelPackage(name="p", format="onnx", artifacts=(Artifact(name="w.onnx", uri="hf://o/r/w.onnx"),))
    card = ModelCard(id="m", architecture="yolo", task="t", packages=(package,))
    got = fetch_package(card, package, finders, HTTP, store=store)
    lock = make_lock([(card, package, got)])
    assert lock.apply(card).packages[0].artifacts[0].uri == f"hf://o/r@{'a' * 40}/w.onnx"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 2, "models": {}}',
        '{"format_version": 1, "models": []}',
        '{"format_version": 1, "models": {"m": 1}}',
        '{"format_version": 1, "models": {"m": {"p": {"w": {"uri": "x", "sha256": "y", "size": 1}}}}}',
        '{"format_version": 1, "models": {"m": {"p": {"w": 1}}}}',
    ],
)
def test_bad_lock_files(tmp_path, content):
    path = tmp_path / "lensmount.lock"
    path.write_text(content)
    with pytest.raises(ModelFileError):
        read_lock(path)


def test_no_lock_file(tmp_path):
    with pytest.raises(ModelFileError) as caught:
        read_lock(tmp_path / "lensmount.lock")
    assert "lensmount lock" in caught.value.fix
    assert Lock({}).models == {}


# --- looking after the store ------------------------------------------------------------------------------------------


def test_list_and_size(card, fetched, store):
    packages = cachetool.list_packages(store)
    assert [(p.id, p.package, p.complete) for p in packages] == [
        ("family/small", "onnx-fp32", True),
        ("family/small", "torch", True),
    ]
    assert packages[0].size == len(GRAPH) + len(DATA)
    measured = cachetool.size(store)
    assert measured.blobs == len(GRAPH) + len(DATA) + len(b"torch")
    assert measured.partials == 0
    assert measured.total > measured.blobs
    assert len(list(store.root.glob("references/*/*.json"))) == 3


def test_verify_and_remove_damaged(fetched, store, card, finders):
    assert {f.state for f in cachetool.verify(store)} == {"sound"}
    path = store.blob_path(sha(b"torch"))
    stamp = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"t0rch")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time: only a hash can tell
    findings = cachetool.verify(store)
    assert [f.path for f in findings if f.state == "damaged"] == [path]
    planned = cachetool.remove_damaged(findings)
    assert planned.dry_run
    assert path.exists()
    assert cachetool.remove_damaged(findings, dry_run=False).paths == (path,)
    assert not path.exists()
    again = fetch_package(card, card.packages[1], finders, HTTP, store=store)
    assert again.files["w.onnx"].read_bytes() == b"torch"


def test_remove_model_keeps_what_others_use(card, fetched, store, finders):
    other = replace(card, id="family/copy", aliases=(), packages=card.packages[:1])
    kept = fetch_package(other, other.packages[0], finders, HTTP, store=store)
    planned = cachetool.remove_model(store, "family/small")
    assert planned.dry_run
    assert all(path.exists() for path in planned.paths)
    done = cachetool.remove_model(store, "family/small", dry_run=False)
    assert done.paths == planned.paths
    assert done.size == planned.size
    assert kept.files["w.onnx"].read_bytes() == GRAPH
    assert not store.blob_path(sha(b"torch")).exists()
    assert [p.id for p in cachetool.list_packages(store)] == ["family/copy"]
    with pytest.raises(ModelNotFoundError, match="not in the store"):
        cachetool.remove_model(store, "family/small")


def test_prune(card, fetched, store):
    stray = store.root / "stray"
    stray.write_bytes(b"stray")
    lone = store.adopt(stray, address="https://host.example/stray")
    folder = store.root / "partials" / ("1" * 64)
    folder.mkdir(parents=True)
    (folder / "x.part").write_bytes(b"half")
    (folder / "x.lease").write_text('{"released": true}')
    (folder / "y.part").write_bytes(b"half")
    (folder / "y.lease").write_text('{"host": "elsewhere", "pid": 1}')
    assert lone.path not in cachetool.prune(store).paths  # too young
    planned = cachetool.prune(store, min_age=0)
    assert set(planned.paths) == {lone.path, folder / "x.part", folder / "x.lease"}
    assert planned.size == len(b"stray") + len(b"half") + len('{"released": true}')
    assert lone.path.exists()
    cachetool.prune(store, dry_run=False, min_age=0)
    assert not lone.path.exists()
    assert sorted(p.name for p in folder.iterdir()) == ["y.lease", "y.part"]
    assert {f.state for f in cachetool.verify(store)} == {"sound"}
    assert len(cachetool.list_packages(store)) == 2


def test_removed_size_is_what_the_disk_gets_back(card, fetched, store):
    planned = cachetool.remove_model(store, "family/small")
    before = cachetool.size(store).total
    cachetool.remove_model(store, "family/small", dry_run=False)
    records = sum(p.stat().st_size for p in (store.root / "models").rglob("*") if p.is_file())
    freed = before - cachetool.size(store).total
    assert records == 0
    assert planned.size >= freed > len(GRAPH)


def test_empty_store(store):
    assert cachetool.list_packages(store) == ()
    assert cachetool.size(store).total == 0
    assert cachetool.verify(store) == ()
    assert cachetool.prune(store).paths == ()
