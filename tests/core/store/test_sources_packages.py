"""Whole packages: finders by scheme, folders, fingerprints, offline lists, local files, files in wheels."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from core_finders import core_finders
from lensmount.contracts.finder import FetchOptions, Finder
from lensmount.errors import ArtifactNotFoundError, IntegrityError, ModelFileError, OfflineError, SourceError
from lensmount.registry import Registry
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount.specs.offline import is_offline
from lensmount.store import files
from lensmount.store.addresses import path_of
from lensmount.store.fetch import fetch_artifact, fetch_package, fetch_uri
from lensmount.store.store import Store, default_root

GRAPH, DATA = b"graph" * 1000, b"external" * 2000
HTTP = FetchOptions(allow_insecure=True, progress=False)


def sha(content):
    return hashlib.sha256(content).hexdigest()


def card_of(*artifacts, name="onnx-fp32"):
    package = ModelPackage(name=name, format="onnx", artifacts=artifacts)
    return ModelCard(id="family/small", architecture="yolo", task="object-detection", packages=(package,)), package


@pytest.fixture
def store(home):
    return Store(home)


@pytest.fixture
def finders(store):
    return core_finders(store)


@pytest.fixture
def pair(web):
    return card_of(
        Artifact(name="w.onnx", uri=web.put("/g", GRAPH), sha256=sha(GRAPH), size=len(GRAPH)),
        Artifact(name="data/w.bin", uri=web.put("/d", DATA), role="data"),
    )


def test_finders_keep_the_protocol(finders):
    assert set(finders) == {"hf", "https", "http", "file", "package"}
    assert all(isinstance(finder, Finder) for finder in finders.values())


def test_package_folder(web, store, finders, pair):
    got = fetch_package(*pair, finders, HTTP, store=store)
    assert got.folder == store.root / "models" / "family" / "small" / f"onnx-fp32-{got.fingerprint[:12]}"
    assert got.files["w.onnx"].read_bytes() == GRAPH
    assert got.files["data/w.bin"] == got.folder / "data" / "w.bin"
    assert got.files["data/w.bin"].samefile(store.blob_path(sha(DATA)))
    assert dict(got.sha256s) == {"w.onnx": sha(GRAPH), "data/w.bin": sha(DATA)}
    assert fetch_package(*pair, finders, HTTP, store=store) == got
    assert web.count() == 2


def test_files_of_one_package_lie_in_one_folder_for_external_data(web, store, finders, pair, monkeypatch):
    """onnxruntime refuses external data behind a symbolic link out of the graph's folder."""

    def refuse(*args, **kwargs):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    got = fetch_package(*pair, finders, HTTP, store=store)
    assert not any(path.is_symlink() for path in got.files.values())
    assert got.files["data/w.bin"].read_bytes() == DATA


@pytest.mark.parametrize("refused", [("link",), ("link", "symlink_to")])
def test_where_links_fail_files_are_copied(web, store, finders, monkeypatch, refused):
    pair = card_of(Artifact(name="w.onnx", uri=web.put("/g", GRAPH), sha256=sha(GRAPH)))

    def refuse(*args, **kwargs):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    if "symlink_to" in refused:
        monkeypatch.setattr(Path, "symlink_to", refuse)
    got = fetch_package(*pair, finders, HTTP, store=store)
    assert got.files["w.onnx"].read_bytes() == GRAPH
    assert got.files["w.onnx"].is_symlink() == (len(refused) == 1)
    again = fetch_package(*pair, finders, HTTP, store=store)
    assert again == got


def test_damaged_copy_in_the_folder_is_replaced(web, store, finders, pair, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    path = fetch_package(*pair, finders, HTTP, store=store).files["w.onnx"]
    path.write_bytes(b"x" * len(GRAPH))
    assert fetch_package(*pair, finders, HTTP, store=store).files["w.onnx"].read_bytes() == GRAPH


def test_fingerprint_is_of_the_content(web, store, finders):
    one = fetch_package(*card_of(Artifact(name="w", uri=web.put("/a", GRAPH))), finders, HTTP, store=store)
    two = fetch_package(*card_of(Artifact(name="w", uri=web.put("/b", GRAPH))), finders, HTTP, store=store)
    three = fetch_package(*card_of(Artifact(name="w", uri=web.put("/c", DATA))), finders, HTTP, store=store)
    assert one.fingerprint == two.fingerprint != three.fingerprint


def test_offline_lists_every_missing_file(store, finders, no_sockets):
    package = card_of(
        Artifact(name="w.onnx", uri="https://host.example/w.onnx?secret=1", sha256="1" * 64, size=1234),
        Artifact(name="c.json", uri="hf://owner/repo@main/c.json"),
        Artifact(name="n.txt", uri="https://host.example/n.txt"),
    )
    with pytest.raises(OfflineError) as caught:
        fetch_package(*package, finders, FetchOptions(offline=True), store=store)
    said = str(caught.value)
    assert str(store.blob_path("1" * 64)) in said
    assert "1,234 bytes" in said
    assert "hf://owner/repo@main/c.json" in said
    assert "https://host.example/n.txt" in said
    assert "3 files" in said
    assert "secret" not in said
    assert len(caught.value.missing) == 3


def test_offline_for_ever_once_fetched(web, store, finders, pair, request, monkeypatch):
    got = fetch_package(*pair, finders, HTTP, store=store)
    request.getfixturevalue("no_sockets")
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    assert fetch_package(*pair, finders, HTTP, store=store) == got


def test_a_file_brought_by_hand_is_verified(web, store, finders, pair, no_sockets):
    offline = FetchOptions(offline=True, allow_insecure=True)
    card, package = card_of(pair[1].artifacts[0])
    place = store.blob_path(sha(GRAPH))
    place.parent.mkdir(parents=True)
    place.write_bytes(b"wrong")
    with pytest.raises(OfflineError):
        fetch_package(card, package, finders, offline, store=store)
    place.write_bytes(GRAPH)
    assert fetch_package(card, package, finders, offline, store=store).files["w.onnx"].read_bytes() == GRAPH


def test_a_file_without_published_hash_is_adopted(tmp_path, store, finders, no_sockets):
    artifact = Artifact(name="n.txt", uri="https://host.example/n.txt")
    (tmp_path / "n.txt").write_bytes(b"names")
    store.adopt(tmp_path / "n.txt", address="https://host.example/n.txt")
    assert fetch_artifact(artifact, finders, FetchOptions(offline=True)).path.read_bytes() == b"names"


def test_read_only_store_still_loads(web, store, finders, pair, monkeypatch):
    first = fetch_package(*pair, finders, HTTP, store=store)
    import shutil

    shutil.rmtree(store.root / "models")
    shutil.rmtree(store.root / "verified")

    def refuse(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    monkeypatch.setattr(files, "temporary_beside", refuse)
    got = fetch_package(*pair, finders, FetchOptions(offline=True, allow_insecure=True), store=store)
    assert got.folder is None
    assert got.fingerprint == first.fingerprint
    assert got.files["w.onnx"].read_bytes() == GRAPH


def test_unknown_scheme(finders):
    with pytest.raises(SourceError, match="s3://") as caught:
        fetch_artifact(Artifact(name="w", uri="s3://bucket/w"), finders, FetchOptions())
    assert "https://" in caught.value.expected


# --- what the user types ----------------------------------------------------------------------------------------------


def test_typed_address_needs_its_hash(web, finders):
    uri = web.put("/w.onnx", GRAPH)
    with pytest.raises(SourceError, match="which content"):
        fetch_uri("https://host.example/w.onnx", finders, FetchOptions())
    with pytest.raises(SourceError, match="plain http"):
        fetch_uri(f"{uri}#sha256={sha(GRAPH)}", finders, FetchOptions())
    assert fetch_uri(f"{uri}#sha256={sha(GRAPH)}", finders, HTTP).path.read_bytes() == GRAPH
    assert fetch_uri(uri, finders, HTTP).sha256 == sha(GRAPH)
    with pytest.raises(IntegrityError):
        fetch_uri(f"{uri}#sha256={'0' * 64}", finders, HTTP)
    assert web.count() == 2


def test_catalogue_artifacts_over_plain_http_are_refused(web, finders):
    with pytest.raises(SourceError, match="plain http"):
        fetch_artifact(Artifact(name="w", uri=web.put("/w", GRAPH), sha256=sha(GRAPH)), finders, FetchOptions())
    assert web.count() == 0


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:pw@host.example/w.onnx#sha256=" + "0" * 64,
        "https://host.example/w.onnx#sha256=abc",
        "https://host.example/w.onnx#md5=" + "0" * 32,
        "https:///w.onnx",
    ],
)
def test_bad_web_addresses(finders, no_sockets, uri):
    with pytest.raises(SourceError) as caught:
        fetch_uri(uri, finders, HTTP)
    assert "pw" not in str(caught.value)


def test_typed_path(tmp_path, finders):
    (tmp_path / "my model.onnx").write_bytes(GRAPH)
    got = fetch_uri(str(tmp_path / "my model.onnx"), finders, FetchOptions())
    assert got.path == tmp_path / "my model.onnx"
    assert got.sha256 == sha(GRAPH)


# --- local files and files in wheels ----------------------------------------------------------------------------------


def test_local_files_stay_where_they_are(tmp_path, store, finders):
    (tmp_path / "a b").mkdir()
    path = tmp_path / "a b" / "w.onnx"
    path.write_bytes(GRAPH)
    assert path_of(path.as_uri()) == path
    got = fetch_package(*card_of(Artifact(name="w.onnx", uri=path.as_uri())), finders, FetchOptions(), store=store)
    assert (got.folder, got.files["w.onnx"]) == (path.parent, path)
    assert not (store.root / "blobs").exists()
    path.write_bytes(DATA)
    again = fetch_package(*card_of(Artifact(name="w.onnx", uri=path.as_uri())), finders, FetchOptions(), store=store)
    assert again.fingerprint != got.fingerprint


def test_local_promises(tmp_path, finders):
    path = tmp_path / "w.onnx"
    path.write_bytes(GRAPH)
    uri = path.as_uri()
    for promise in ({"sha256": "0" * 64}, {"size": 3}, {"md5": "0" * 32}):
        with pytest.raises(IntegrityError):
            fetch_artifact(Artifact(name="w", uri=uri, **promise), finders, FetchOptions())
    with pytest.raises(ArtifactNotFoundError):
        fetch_artifact(Artifact(name="w", uri=uri + "x"), finders, FetchOptions())
    with pytest.raises(SourceError, match="not a file"):
        fetch_artifact(Artifact(name="w", uri=tmp_path.as_uri()), finders, FetchOptions())
    with pytest.raises(SourceError, match="local file"):
        fetch_artifact(Artifact(name="w", uri="file://server/share/w"), finders, FetchOptions())


@pytest.fixture
def installed(tmp_path, monkeypatch):
    package = tmp_path / "site" / "wheel_with_weights"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "weights" / "w.onnx").write_bytes(GRAPH)
    monkeypatch.syspath_prepend(str(package.parent))
    yield package
    sys.modules.pop("wheel_with_weights", None)


def test_files_in_a_wheel(installed, store, finders, no_sockets):
    artifact = Artifact(name="w.onnx", uri="package://wheel_with_weights/weights/w.onnx", sha256=sha(GRAPH))
    got = fetch_package(*card_of(artifact), finders, FetchOptions(), store=store)
    assert got.files["w.onnx"] == installed / "weights" / "w.onnx"
    (installed / "weights" / "w.onnx").write_bytes(DATA)
    with pytest.raises(IntegrityError, match="package://"):
        fetch_artifact(artifact, finders, FetchOptions())


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("package://wheel_with_weights/weights/none.onnx", ArtifactNotFoundError),
        ("package://no_such_module_here/w.onnx", ArtifactNotFoundError),
        ("package://wheel_with_weights/../w.onnx", SourceError),
        ("package://wheel_with_weights", SourceError),
        ("package:///etc/hostname", SourceError),
    ],
)
def test_bad_package_addresses(installed, finders, uri, kind):
    with pytest.raises(kind):
        fetch_artifact(Artifact(name="w", uri=uri), finders, FetchOptions())


def test_files_in_a_zip_go_to_the_store(tmp_path, monkeypatch, store, finders):
    archive = tmp_path / "plugin.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("zipped_weights/__init__.py", "")
        out.writestr("zipped_weights/w.onnx", GRAPH)
    monkeypatch.syspath_prepend(str(archive))
    for artifact in (
        Artifact(name="w.onnx", uri="package://zipped_weights/w.onnx", sha256=sha(GRAPH)),
        Artifact(name="w.onnx", uri="package://zipped_weights/w.onnx"),
    ):
        got = fetch_artifact(artifact, finders, FetchOptions())
        assert got.path == store.blob_path(sha(GRAPH))
        assert got.path.read_bytes() == GRAPH


# --- settings ---------------------------------------------------------------------------------------------------------


def test_home(monkeypatch, tmp_path):
    import tempfile

    monkeypatch.delenv("LENSMOUNT_HOME", raising=False)
    assert "lensmount" in default_root().parts
    assert not default_root().is_relative_to(tempfile.gettempdir())
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "x"))
    assert default_root() == tmp_path / "x"


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_is_offline(home, monkeypatch, value):
    assert not is_offline()
    assert is_offline(True)
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "0")
    assert not is_offline()
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert is_offline()
    assert is_offline(False)


def test_progress_bar_on_demand_only(web, store, finders, capfd):
    artifact = Artifact(name="w.onnx", uri=web.put("/w", GRAPH))
    fetch_artifact(artifact, finders, FetchOptions(allow_insecure=True))
    assert capfd.readouterr() == ("", "")
    other = Artifact(name="v.onnx", uri=web.put("/v", DATA))
    fetch_artifact(other, finders, FetchOptions(allow_insecure=True, progress=True))
    out, err = capfd.readouterr()
    assert out == ""
    assert "v.onnx" in err


def test_importing_sources_is_light():
    import subprocess

    code = (
        "import sys, lensmount.store.fetch, lensmount.store.manifests, lensmount.store.cachetool, lensmount.store.hf;"
        "heavy = {'numpy', 'torch', 'cv2', 'onnxruntime', 'pydantic', 'huggingface_hub', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_folder_with_a_broken_manifest(tmp_path):
    (tmp_path / "lensmount.json").write_text("{")
    with pytest.raises(ModelFileError, match="not JSON"):
        Registry(list).describe(tmp_path.as_uri())
