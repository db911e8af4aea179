"""Many threads and processes on one store, useless locks, dead owners: one download, never a wrong file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lensmount.contracts.finder import FetchOptions
from lensmount.store import lease, locking
from lensmount.store.download import DownloadRequest
from lensmount.store.store import Store
from lensmount.store.transport import Policy

DATA = random.Random(5).randbytes(3_000_001)
SHA = hashlib.sha256(DATA).hexdigest()
QUICK = Policy(base=0.001, cap=0.01)

CHILD = """
import sys
from pathlib import Path
from lensmount.contracts.finder import FetchOptions
from lensmount.store.download import DownloadRequest
from lensmount.store.store import Store
home, url, sha = sys.argv[1:4]
wanted = DownloadRequest(address=url, url=url, name="w.bin", sha256=sha or None)
print("start", flush=True)
got = Store(Path(home)).obtain(wanted, FetchOptions(progress=False))
print(got.sha256, flush=True)
"""


def child(home, url, sha=SHA):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(home), url, sha], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wanted(url, sha256=SHA):
    return DownloadRequest(address=url, url=url, name="w.bin", sha256=sha256)


def in_threads(count, work):
    results, errors = [], []

    def run():
        try:
            results.append(work())
        except BaseException as error:  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    return results


@pytest.mark.parametrize("promised", [SHA, None])
def test_sixteen_threads_one_download(web, home, promised):
    url = web.put("/w.bin", DATA, pace=0.002)
    got = in_threads(16, lambda: Store(home, policy=QUICK).obtain(wanted(url, promised), FetchOptions()))
    assert {g.sha256 for g in got} == {SHA}
    assert len(got) == 16
    assert web.bodies == 1


def test_sixteen_processes_one_download(web, home):
    url = web.put("/w.bin", DATA, pace=0.01)
    children = [child(home, url) for _ in range(16)]
    outputs = [c.communicate(timeout=60) for c in children]
    assert [c.returncode for c in children] == [0] * 16, outputs
    assert {out.split()[-1] for out, _ in outputs} == {SHA}
    assert web.bodies == 1


@pytest.fixture
def no_locks(monkeypatch):
    """Locks that say yes to everybody, as on some network file systems."""

    @contextlib.contextmanager
    def held(path, timeout):
        yield True

    monkeypatch.setattr(locking, "_held", held)


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("promised", [SHA, None])
def test_locks_that_do_nothing(web, home, promised):
    url = web.put("/w.bin", DATA, cut=0.5)
    got = in_threads(8, lambda: Store(home, policy=QUICK).obtain(wanted(url, promised), FetchOptions()))
    assert {g.sha256 for g in got} == {SHA}
    assert hashlib.sha256(got[0].path.read_bytes()).hexdigest() == SHA


@pytest.mark.usefixtures("no_locks")
def test_leases_keep_a_late_comer_waiting_without_locks(web, home):
    url = web.put("/w.bin", DATA, pace=0.01)
    first = threading.Thread(target=lambda: Store(home).obtain(wanted(url), FetchOptions()))
    first.start()
    while not web.bodies:
        time.sleep(0.01)
    assert Store(home).obtain(wanted(url), FetchOptions()).sha256 == SHA
    first.join()
    assert web.bodies == 1


def test_a_lock_that_hangs_is_left_aside(web, home, monkeypatch):
    @contextlib.contextmanager
    def held(path, timeout):
        time.sleep(min(timeout, 0.05))
        yield False

    monkeypatch.setattr(locking, "_held", held)
    monkeypatch.setattr(locking, "HUNG_SECONDS", 0.3)
    url = web.put("/w.bin", DATA)
    assert Store(home).obtain(wanted(url), FetchOptions()).sha256 == SHA


def test_a_file_system_without_locks(web, home, monkeypatch):
    def refuse(path):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(locking, "_file_lock", refuse)
    url = web.put("/w.bin", DATA)
    assert Store(home).obtain(wanted(url), FetchOptions()).sha256 == SHA


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_stopped_owner_does_not_spoil_what_others_bring(web, home, monkeypatch):
    """The owner is stopped, loses its lease, and writes on after the file is finished by another."""
    url = web.put("/w.bin", DATA, pace=0.1)
    owner = child(home, url)
    folder = home / "partials" / SHA
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not any(lease._size(p) for p in folder.glob("*.part")):
        time.sleep(0.01)
    os.kill(owner.pid, signal.SIGSTOP)
    try:
        assert list(folder.glob("*.lease"))
        monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
        monkeypatch.setattr(locking, "HUNG_SECONDS", 0.3)  # it holds the lock too
        web.files["/w.bin"].pace = 0
        time.sleep(0.3)
        got = Store(home, policy=QUICK).obtain(wanted(url), FetchOptions())
        assert got.path.read_bytes() == DATA
        assert "Range" in web.requests[-1][2]  # went on from a copy of what was there
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    out, err = owner.communicate(timeout=60)
    assert SHA in out, err  # it finds the file that the other brought
    assert hashlib.sha256(store_file(home).read_bytes()).hexdigest() == SHA


def store_file(home):
    return Store(home).blob_path(SHA)


def test_a_partial_of_another_machine_is_copied_not_renamed(web, home):
    url = web.put("/w.bin", DATA)
    folder = home / "partials" / SHA
    folder.mkdir(parents=True)
    (folder / "x.part").write_bytes(DATA[:1_000_000])
    record = {"host": "elsewhere", "pid": os.getpid(), "start": "", "facts": {"etag": web.files["/w.bin"].etag}}
    (folder / "x.lease").write_text(json.dumps(record))
    os.utime(folder / "x.lease", (1, 1))
    writer = (folder / "x.part").open("r+b")
    got = Store(home, policy=QUICK).obtain(wanted(url), FetchOptions())
    assert web.requests[-1][2]["Range"] == "bytes=1000000-"
    writer.write(b"\0" * 1000)
    writer.close()
    assert got.path.read_bytes() == DATA


@pytest.mark.parametrize("damage", [b"", b"\0" * 500_000, DATA[:999_999] + b"!", DATA + b"more"])
def test_a_partial_with_wrong_bytes_is_thrown_away(web, home, damage):
    url = web.put("/w.bin", DATA)
    folder = home / "partials" / SHA
    folder.mkdir(parents=True)
    (folder / "x.part").write_bytes(damage)
    (folder / "x.lease").write_text(json.dumps({"released": True, "facts": {"etag": web.files["/w.bin"].etag}}))
    assert Store(home, policy=QUICK).obtain(wanted(url), FetchOptions()).path.read_bytes() == DATA


def test_unhashed_partial_of_an_earlier_boot_is_not_resumed(web, home):
    from lensmount.store.ledger import key_of

    url = web.put("/w.bin", DATA)
    folder = home / "partials" / f"address-{key_of(url)}"
    folder.mkdir(parents=True)
    (folder / "x.part").write_bytes(b"\0" * 1_000_000)
    facts = {"etag": web.files["/w.bin"].etag, "boot": "yesterday"}
    (folder / "x.lease").write_text(json.dumps({"released": True, "facts": facts}))
    assert Store(home, policy=QUICK).obtain(wanted(url, None), FetchOptions()).path.read_bytes() == DATA


KILLS = int(os.environ.get("LENSMOUNT_TEST_KILLS", "12"))


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("promised", [SHA, ""])
def test_killed_at_random_moments(web, home, promised):
    """`kill -9` of a real process: the file is whole or absent, and the next run goes on.

    LENSMOUNT_TEST_KILLS sets how many (half with a published hash, half without).
    """
    url = web.put("/w.bin", DATA, pace=0.005)
    chance = random.Random(11)
    finished = interrupted = 0
    for turn in range(KILLS // 2):
        process = child(home, url, promised)
        process.stdout.readline()
        if turn == 0:  # one for sure in the middle of the data
            while not any(lease._size(part) for part in (home / "partials").glob("*/*.part")):
                time.sleep(0.001)
        else:
            time.sleep(chance.random() * 0.4)
        process.kill()
        out, _ = process.communicate()
        finished += SHA in out
        interrupted += any(p.stat().st_size for p in (home / "partials").glob("*/*.part"))
        path = store_file(home)
        if path.exists():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA
            path.chmod(0o644)
            path.unlink()
    assert Store(home, policy=QUICK).obtain(wanted(url, promised or None), FetchOptions()).path.read_bytes() == DATA
    print(f"{KILLS // 2} kills: {interrupted} in the middle of the data, {finished} after the end")
    assert interrupted > 0
    assert not list(Path(home / "partials").glob("*/*.part"))
