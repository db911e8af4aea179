"""Sources that keep every promise, and one for each promise that breaks it. All ask a server on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import tempfile
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from contract_cases import Case, classes
from lensmount.contracts.finder import Fetched
from lensmount.errors import ArtifactNotFoundError, LensmountError, SourceError
from lensmount.store.https import HttpsFinder
from lensmount.store.store import Store
from lensmount_testing import SourceContract

pytest_plugins = ("fault_server",)
CONTENT = bytes(range(256)) * 500


class Quick(HttpsFinder):
    """The core's own finder, without patience."""

    def __init__(self):
        from lensmount.store.transport import Policy

        super().__init__(Store(policy=Policy(attempts=1)))


def body(finder=Quick, **more):
    """A class body that tests a finder."""

    def served(self, web, monkeypatch):
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        return web.put("/weights.onnx", CONTENT), CONTENT

    def interrupted(self, web):
        return web.put("/cut.onnx", CONTENT, cut_at=[40_000]), CONTENT

    return {
        "scheme": "http",
        "allow_insecure": True,
        "served": pytest.fixture(served),
        "interrupted": pytest.fixture(interrupted),
        "make_finder": pytest.fixture(lambda self: finder),
        **more,
    }


def derived(fetch=None, find=None, init=None):
    members = {"fetch": fetch, "find": find, "__init__": init}
    return type("Broken", (Quick,), {name: member for name, member in members.items() if member})


def download(uri):
    with urllib.request.urlopen(uri, timeout=20) as response:
        return response.read()


def place(uri):
    """Where finders that do without the store put a file."""
    folder = Path(os.environ["LENSMOUNT_HOME"])
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(uri.encode()).hexdigest()[:16]


def told(path, content):
    return Fetched(path=path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def eager(self):
    tempfile.mkstemp()
    Quick.__init__(self)


def hasty(self):
    Quick.__init__(self)
    try:
        download("http://127.0.0.1:9/")
    except OSError:
        return


def half(self, artifact, options):
    fetched = Quick.fetch(self, artifact, options)
    path = fetched.path.with_suffix(".half")
    path.write_bytes(fetched.path.read_bytes()[:1000])
    return replace(fetched, path=path)


def believes(self, artifact, options):
    """Repeats what was promised."""
    fetched = Quick.fetch(self, artifact, options)
    return replace(fetched, sha256=artifact.sha256 or "", size=artifact.size or 0)


def always(self, artifact, options):
    with contextlib.suppress(OSError):
        download(artifact.uri)
    return Quick.fetch(self, artifact, options)


def raw(self, artifact, options):
    path = place(artifact.uri)
    path.write_bytes(download(artifact.uri))
    return told(path, path.read_bytes())


def mute(self, artifact, options):
    try:
        return Quick.fetch(self, artifact, options)
    except ArtifactNotFoundError:
        raise ArtifactNotFoundError("not found") from None


def trusting(self, artifact, options):
    return Quick.fetch(self, replace(artifact, sha256=None, size=None), options)


def misfiles(self, artifact, options):
    """Refuses what is wrong, and has kept it under the name of what was promised."""
    try:
        return Quick.fetch(self, artifact, options)
    except LensmountError:
        if artifact.sha256:
            path = Store().blob_path(artifact.sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT[:-1])
        raise


def any_size(self, artifact, options):
    return Quick.fetch(self, replace(artifact, size=None), options)


def online(self, artifact, options):
    try:
        return raw(self, artifact, options)
    except OSError as error:
        raise SourceError("cannot be reached", found=str(error)) from error


def option_only(self, artifact, options):
    return Quick.fetch(self, artifact, options) if options.offline else online(self, artifact, options)


def shared_part(self, artifact, options):
    """All downloads of an address are written into one file at a time, from its beginning."""
    path = place(artifact.uri)
    content = download(artifact.uri)
    with path.open("wb") as file:
        for start in range(0, len(content), 5000):
            file.write(content[start : start + 5000])
            time.sleep(0.002)
    if threading.active_count() > 4:  # the last one to begin is not the last one to end
        path.write_bytes(content[:5000])
    return told(path, content)


def breaks_off(self, artifact, options):
    """What arrived before the connection broke counts as the file from then on."""
    path = Store().blob_path(artifact.sha256)
    if path.exists():
        return told(path, path.read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.write_bytes(download(artifact.uri))
    except http.client.IncompleteRead as error:
        path.write_bytes(error.partial)
        raise SourceError("the connection broke") from error
    return told(path, CONTENT)


def shows_key(self, artifact, options):
    try:
        return Quick.fetch(self, artifact, options)
    except SourceError as error:
        raise SourceError(f"refused with key {options.credentials.get('http')}") from error


def writes_key(self, artifact, options):
    fetched = Quick.fetch(self, artifact, options)
    Path(os.environ["LENSMOUNT_HOME"], "settings.json").write_text(repr(dict(options.credentials)))
    return fetched


class NoFind:
    def fetch(self, artifact, options):
        return None


CASES = [
    Case("test_is_a_finder", "lacks something", body(NoFind)),
    Case("test_making_one_does_nothing", "already does something", body(derived(init=eager))),
    Case("test_making_one_does_nothing", "already does something", body(derived(init=hasty)), "socket"),
    Case("test_fetches_the_whole_file", "not what was served", body(derived(half))),
    Case("test_fetches_the_whole_file", "not Fetched", body(derived(lambda self, a, o: Path("x"))), "type"),
    Case("test_tells_what_it_got", "the size is told as 0", body(derived(believes))),
    Case("test_fetches_once", "asked for again", body(derived(always))),
    Case("test_missing_is_a_source_error", "HTTP", body(derived(raw))),
    Case("test_missing_is_a_source_error", "does not say what is missing", body(derived(mute)), "mute"),
    Case("test_refuses_another_hash", "DID NOT RAISE", body(derived(trusting))),
    Case("test_refuses_another_hash", "not what its name says", body(derived(misfiles)), "kept"),
    Case("test_refuses_another_size", "DID NOT RAISE", body(derived(any_size))),
    Case("test_offline", "a socket is opened", body(derived(always))),
    Case("test_offline", "a socket is opened", body(derived(option_only)), "environment"),
    Case("test_survives_an_interruption", "not what its name says", body(derived(breaks_off))),
    Case("test_threads", "not what was served", body(derived(shared_part))),
    Case("test_keeps_credentials_to_itself", "error or result", body(derived(shows_key))),
    Case("test_keeps_credentials_to_itself", "was written to", body(derived(writes_key)), "file"),
    Case("test_find_answers", "find gives str", body(derived(find=lambda self, uri, o: "a card"))),
]  # fmt: skip


class TestKeepsWeb(SourceContract):
    locals().update(body())


class TestKeepsLocal(SourceContract):
    """Files of this machine."""

    scheme = "file"
    local = True

    @pytest.fixture
    def served(self, tmp_path):
        path = tmp_path / "weights.onnx"
        path.write_bytes(CONTENT)
        return path.as_uri(), CONTENT


globals().update(classes(SourceContract, CASES))
