"""Downloads through a server with faults: the right file, or a typed error and no file."""

from __future__ import annotations

import hashlib
import random
import time

import pytest

from core_finders import core_finders
from lensmount.contracts.finder import FetchOptions
from lensmount.errors import ArtifactNotFoundError, AuthenticationError, IntegrityError, SourceError, StoreError
from lensmount.specs import Artifact
from lensmount.store.download import DownloadRequest
from lensmount.store.fetch import fetch_artifact
from lensmount.store.https import HttpsFinder
from lensmount.store.store import Store
from lensmount.store.transport import Policy

QUICK = Policy(base=0.001, cap=0.01, timeout=2.0, retry_after_cap=2.0)
INSECURE = FetchOptions(allow_insecure=True)
DATA = random.Random(1).randbytes(600_001)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(home):
    return Store(home, policy=QUICK)


def wanted(url, **promises):
    return DownloadRequest(address=url, url=url, name="weights.bin", **promises)


def bring(store, url, **promises):
    return store.obtain(wanted(url, **promises), FetchOptions())


def blobs(store):
    return [p for p in (store.root / "blobs").rglob("*") if p.is_file()]


def test_plain_download(web, store):
    url = web.put("/w.bin", DATA)
    got = bring(store, url, sha256=SHA, size=len(DATA))
    assert got.path.read_bytes() == DATA
    assert (got.sha256, got.size) == (SHA, len(DATA))
    assert got.path == store.blob_path(SHA)
    assert got.path.stat().st_mode & 0o222 == 0
    bring(store, url, sha256=SHA)
    assert web.count() == 1
    assert not list((store.root / "partials").iterdir())


def test_same_content_at_another_address_is_not_downloaded(web, store):
    bring(store, web.put("/w.bin", DATA), sha256=SHA)
    other = web.put("/other.bin", DATA)
    assert bring(store, other, sha256=SHA).path == store.blob_path(SHA)
    assert web.count(containing="other") == 0


@pytest.mark.parametrize("seed", range(10))
def test_cuts_at_random_bytes(web, store, seed):
    web.random.seed(seed)
    url = web.put("/w.bin", DATA, cut=0.8)
    assert bring(store, url, sha256=SHA).path.read_bytes() == DATA


def test_a_cut_download_is_resumed_with_range_and_if_range(web, store):
    url = web.put("/w.bin", DATA, cut_at=[200_000])
    bring(store, url)
    (_, _, first), (_, _, second) = web.requests
    assert "Range" not in first
    assert second["If-Range"] == web.files["/w.bin"].etag
    start = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= 200_000
    assert store.blob_path(SHA).read_bytes() == DATA


def test_resumed_by_the_next_run(web, store):
    url = web.put("/w.bin", DATA, cut_at=[300_000] + [0] * 20)
    with pytest.raises(SourceError, match="cut off") as caught:
        bring(store, url, sha256=SHA)
    assert "goes on" in caught.value.fix
    assert not blobs(store)
    web.files["/w.bin"].cut_at.clear()
    sent = web.bytes_sent
    bring(store, url, sha256=SHA)
    assert web.bytes_sent - sent < len(DATA)
    assert store.blob_path(SHA).read_bytes() == DATA


@pytest.mark.parametrize("promised", [True, False])
def test_server_that_ignores_range(web, store, promised):
    url = web.put("/w.bin", DATA, ranges=False, cut_at=[10_000, 400_000, 5])
    assert bring(store, url, **({"sha256": SHA} if promised else {})).sha256 == SHA


@pytest.mark.parametrize("ignore_if_range", [False, True])
@pytest.mark.parametrize("promised", [True, False])
def test_file_that_changes_between_requests(web, store, promised, ignore_if_range):
    new = random.Random(2).randbytes(len(DATA))
    url = web.put("/w.bin", DATA, cut_at=[300_000], changed=new, change_after=1, ignore_if_range=ignore_if_range)
    digest = hashlib.sha256(new).hexdigest()
    got = bring(store, url, **({"sha256": digest} if promised else {}))
    assert got.path.read_bytes() == new


def test_changed_file_is_not_the_promised_one(web, store):
    url = web.put("/w.bin", DATA, cut_at=[300_000], changed=DATA[::-1], change_after=1)
    with pytest.raises(IntegrityError):
        bring(store, url, sha256=SHA)
    assert not blobs(store)


def test_pieces_of_two_files_without_validators_are_not_put_together(web, store):
    new = random.Random(3).randbytes(len(DATA))
    url = web.put("/w.bin", DATA, cut_at=[300_000], changed=new, change_after=1, ignore_if_range=True)
    web.files["/w.bin"].etag = None

    def drop_etag():
        web.files["/w.bin"].etag = None

    got = None
    drop_etag()
    got = bring(store, url)
    assert got.path.read_bytes() in (DATA, new)


@pytest.mark.parametrize("length", [len(DATA) + 1000, len(DATA) - 1000])
def test_wrong_content_length(web, store, length):
    url = web.put("/w.bin", DATA, length=length)
    with pytest.raises(SourceError):
        bring(store, url, sha256=SHA, size=len(DATA))
    with pytest.raises(SourceError):
        bring(store, url, sha256="0" * 64)
    assert not blobs(store)


def test_wrong_hash_is_not_kept(web, store):
    url = web.put("/w.bin", DATA)
    with pytest.raises(IntegrityError) as caught:
        bring(store, url, sha256="0" * 64)
    assert SHA in caught.value.found
    assert "0" * 64 in caught.value.expected
    assert not blobs(store)
    assert not list((store.root / "partials").iterdir())
    assert web.count() == 1  # a whole wrong file is not asked for again


def test_wrong_md5_is_not_kept(web, store):
    url = web.put("/w.bin", DATA)
    with pytest.raises(IntegrityError, match="not what was promised"):
        bring(store, url, md5="0" * 32)
    assert bring(store, url, md5=hashlib.md5(DATA).hexdigest()).sha256 == SHA


def test_wrong_size_is_known_before_the_download(web, store):
    url = web.put("/w.bin", DATA)
    with pytest.raises(IntegrityError):
        bring(store, url, size=len(DATA) + 1)
    assert web.bytes_sent <= len(DATA)
    assert not blobs(store)


def test_chunked_and_cut(web, store):
    url = web.put("/w.bin", DATA, chunked=True, cut_at=[400_000])
    assert bring(store, url).sha256 == SHA


def test_length_unknown(web, store):
    url = web.put("/w.bin", DATA, no_length=True)
    with pytest.raises(SourceError, match="how long"):
        bring(store, url)
    assert bring(store, url, sha256=SHA).sha256 == SHA


def test_length_unknown_and_cut(web, store):
    url = web.put("/w.bin", DATA, no_length=True, cut_at=[1000] * 50)
    with pytest.raises(SourceError):
        bring(store, url, sha256=SHA)
    assert not blobs(store)


def test_compressed_answer_is_refused(web, store):
    with pytest.raises(SourceError, match="compressed"):
        bring(store, web.put("/w.bin", DATA, encoding="gzip"), sha256=SHA)


def test_slow_drip_is_given_up(web, home):
    store = Store(home, policy=Policy(base=0.001, cap=0.01, stall_seconds=0.2, stall_bytes=10**6, attempts=1))
    url = web.put("/w.bin", DATA, drip=0.01)
    started = time.monotonic()
    with pytest.raises(SourceError, match="cut off") as caught:
        bring(store, url, sha256=SHA)
    assert time.monotonic() - started < 10
    assert "bytes in" in caught.value.found


def test_silent_server_is_given_up(web, home):
    store = Store(home, policy=Policy(base=0.001, cap=0.01, timeout=0.2, attempts=2))
    url = web.put("/w.bin", DATA, drip=1.0)
    with pytest.raises(SourceError):
        bring(store, url, sha256=SHA)


def test_redirects(web, store):
    web.redirects["/a"] = "/b"
    web.redirects["/b"] = "/w.bin"
    web.put("/w.bin", DATA)
    assert bring(store, f"{web.url}/a", sha256=SHA).sha256 == SHA


def test_redirect_loop(web, store):
    web.redirects["/a"] = "/b"
    web.redirects["/b"] = "/a"
    with pytest.raises(SourceError, match="loop"):
        bring(store, f"{web.url}/a", sha256=SHA)


def test_redirect_to_another_scheme(web, store):
    web.redirects["/a"] = "file:///etc/hostname"
    with pytest.raises(SourceError, match="away from https"):
        bring(store, f"{web.url}/a", sha256=SHA)


def test_redirect_never_leaves_https():
    import urllib.request

    from lensmount.store.transport import _Redirects

    request = urllib.request.Request("https://a.example/x", headers={"Authorization": "Bearer t"})
    with pytest.raises(SourceError, match="away from https"):
        _Redirects().redirect_request(request, None, 302, "", {}, "http://a.example/x")
    elsewhere = _Redirects().redirect_request(request, None, 302, "", {}, "https://b.example/x")
    assert "Authorization" not in elsewhere.headers
    same = _Redirects().redirect_request(request, None, 302, "", {}, "https://a.example/y")
    assert same.headers["Authorization"] == "Bearer t"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_server_errors_are_tried_again(web, store, status):
    url = web.put("/w.bin", DATA, statuses=[(status, {})] * 3)
    assert bring(store, url, sha256=SHA).sha256 == SHA
    assert web.count() == 4


def test_server_errors_end(web, store):
    url = web.put("/w.bin", DATA, statuses=[(503, {})] * 50)
    with pytest.raises(SourceError, match="out of order"):
        bring(store, url, sha256=SHA)
    assert web.count() == QUICK.attempts


def test_too_many_requests_waits_as_asked(web, store):
    url = web.put("/w.bin", DATA, statuses=[(429, {"Retry-After": "1"})])
    started = time.monotonic()
    assert bring(store, url, sha256=SHA).sha256 == SHA
    assert time.monotonic() - started >= 1.0


def test_too_many_requests_does_not_wait_for_ever(web, store):
    url = web.put("/w.bin", DATA, statuses=[(429, {"Retry-After": "86400"})])
    with pytest.raises(SourceError, match="too many requests") as caught:
        bring(store, url, sha256=SHA)
    assert "86400" in caught.value.fix
    assert web.count() == 1


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, AuthenticationError, "token"),
        (402, AuthenticationError, "account"),
        (403, AuthenticationError, "token"),
        (404, ArtifactNotFoundError, "address"),
        (410, ArtifactNotFoundError, "address"),
        (418, SourceError, ""),
    ],
)
def test_statuses_say_what_to_do(web, store, status, kind, said):
    url = web.put("/w.bin", DATA, statuses=[(status, {})] * 2)
    with pytest.raises(kind) as caught:
        bring(store, url, sha256=SHA)
    assert said in (caught.value.fix or "")
    assert str(status) in str(caught.value)
    assert web.count() == 1


def test_range_not_satisfiable_starts_again(web, store):
    url = web.put("/w.bin", DATA, cut_at=[300_000] + [0] * 20)
    with pytest.raises(SourceError):
        bring(store, url, sha256=SHA)
    web.files["/w.bin"].cut_at.clear()
    web.files["/w.bin"].statuses = [(416, {"Content-Range": "bytes */5"})]
    assert bring(store, url, sha256=SHA).sha256 == SHA


def test_nobody_listens(store):
    with pytest.raises(SourceError, match=r"connection to 127\.0\.0\.1") as caught:
        bring(store, "http://127.0.0.1:9/w.bin", sha256=SHA)
    assert "HTTPS_PROXY" in caught.value.fix


def test_first_download_is_trusted_and_checked_ever_after(web, store):
    url = web.put("/w.bin", DATA)
    first = bring(store, url)
    assert bring(store, url) == first
    assert web.count() == 1
    first.path.chmod(0o644)
    first.path.unlink()
    web.put("/w.bin", DATA[::-1])
    with pytest.raises(IntegrityError) as caught:
        bring(store, url)
    assert "first download" in caught.value.fix
    assert not blobs(store)
    assert store.ledger.forget(url)
    assert bring(store, url).path.read_bytes() == DATA[::-1]


def test_damaged_blob_is_found_and_brought_again(web, store):
    url = web.put("/w.bin", DATA)
    path = bring(store, url, sha256=SHA).path
    path.chmod(0o644)
    path.write_bytes(DATA[:-1] + b"\0")
    assert bring(store, url, sha256=SHA).path.read_bytes() == DATA
    assert web.count() == 2


def test_secrets_are_not_written_down(web, store):
    web.put("/w.bin", DATA)
    finder = HttpsFinder(store)
    uri = f"{web.url}/w.bin?signature=s3cr3t"
    options = FetchOptions(allow_insecure=True, credentials={"127.0.0.1": "t0k3n"})
    finder.fetch(Artifact(name="w.bin", uri=uri), options)
    assert web.requests[-1][2]["Authorization"] == "Bearer t0k3n"
    assert "s3cr3t" in web.requests[-1][1]
    for path in store.root.rglob("*"):
        if path.is_file() and path.stat().st_size < 10_000:
            assert b"s3cr3t" not in path.read_bytes()
            assert b"t0k3n" not in path.read_bytes()
    assert "t0k3n" not in repr(options)
    web.files["/w.bin"].statuses = [(403, {})]
    with pytest.raises(AuthenticationError) as caught:
        finder.fetch(Artifact(name="w.bin", uri=uri + "2"), options)
    assert "s3cr3t" not in str(caught.value)
    assert "t0k3n" not in str(caught.value)


def test_no_room(web, store, monkeypatch):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    with pytest.raises(StoreError, match="not enough room") as caught:
        bring(store, web.put("/w.bin", DATA), sha256=SHA)
    assert "LENSMOUNT_HOME" in caught.value.fix


@pytest.mark.parametrize("size", [600_001, 3_000_001])
def test_disk_full_in_the_middle_and_again(web, store, monkeypatch, size):
    """Once at the last write, once between two: what fits is kept, nothing is tried in vain, the next run goes on."""
    import errno
    import os

    data = random.Random(9).randbytes(size)
    real, left = os.write, [size * 2 // 3]

    def write(handle, content):
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        content = content[: left[0]]
        left[0] -= len(content)
        return real(handle, content)

    monkeypatch.setattr(os, "write", write)
    url, sha256 = web.put("/w.bin", data), hashlib.sha256(data).hexdigest()
    with pytest.raises(StoreError, match="no room left"):
        bring(store, url, sha256=sha256)
    assert not blobs(store)
    assert web.count() == 1
    monkeypatch.setattr(os, "write", real)
    assert bring(store, url, sha256=sha256).path.read_bytes() == data
    assert web.requests[-1][2]["Range"] == f"bytes={size * 2 // 3}-"


def test_read_only_folder(web, home, monkeypatch):
    """A file in the place of the store's folder refuses writes for every user, root too."""
    home.parent.mkdir(exist_ok=True)
    home.write_bytes(b"")
    with pytest.raises(StoreError) as caught:
        bring(Store(home, policy=QUICK), web.put("/w.bin", DATA), sha256=SHA)
    assert "LENSMOUNT_HOME" in caught.value.fix


@pytest.mark.parametrize(
    "target", ["http://[/x", "http://host:99999999/x", "http://", "//[", "file:///etc/passwd", "\x00"]
)
def test_a_redirect_to_nowhere(web, home, target):
    web.redirects["/from"] = target
    wanted = Artifact(name="w.onnx", uri=f"{web.url}/from")
    with pytest.raises(SourceError):
        fetch_artifact(wanted, core_finders(), FetchOptions(allow_insecure=True, progress=False))
