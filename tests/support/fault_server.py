"""A web server with faults, that also speaks the hub's endpoints, and a guard against sockets."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import random
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "a" * 40


@dataclass
class Served:
    """One file and the faults it is served with."""

    content: bytes
    etag: str | None = None
    cut: float = 0.0  # probability that a response is cut at a random byte
    cut_at: list[int] = field(default_factory=list)  # cut the first responses after so many bytes
    ranges: bool = True
    length: int | None = None  # a wrong Content-Length
    no_length: bool = False
    chunked: bool = False
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # answered first
    drip: float = 0.0  # seconds between pieces of 64 bytes
    pace: float = 0.0  # seconds between pieces of 64 KiB
    change_after: int | None = None  # other content after so many requests
    changed: bytes = b""
    ignore_if_range: bool = False
    encoding: str | None = None


class FaultServer:
    """Serves `files` by path and `repos` (by "owner/repo") on 127.0.0.1."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.repos: dict[str, dict[str, Served]] = {}
        self.repo_status: dict[str, tuple[int, dict[str, str]]] = {}
        self.commits: dict[str, str] = {}
        self.history: dict[tuple[str, str], dict[str, Served]] = {}
        self.lists_files = True  # a mirror may serve files alone
        self.redirects: dict[str, str] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.bodies = 0
        self.bytes_sent = 0
        self.guard = threading.Lock()
        self.random = random.Random(7)
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                return

            def do_HEAD(self):
                owner.answer(self, body=False)

            def do_GET(self):
                owner.answer(self, body=True)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                return  # clients are killed on purpose

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def put(self, path, content, **faults):
        self.files[path] = Served(content=content, etag=f'"{hashlib.md5(content).hexdigest()}"', **faults)
        return f"{self.url}{path}"

    def put_repo(self, repo, files, commit=COMMIT):
        self.repos[repo] = {
            name: content if isinstance(content, Served) else Served(content=content, etag=None)
            for name, content in files.items()
        }
        self.commits[repo] = commit
        self.history[repo, commit] = self.repos[repo]

    def count(self, method="GET", containing=""):
        with self.guard:
            return sum(1 for verb, path, _ in self.requests if verb == method and containing in path)

    # --- answering ----------------------------------------------------------------------------------------------------

    def answer(self, handler, body):
        path = unquote(urlsplit(handler.path).path)
        with self.guard:
            self.requests.append((handler.command, handler.path, dict(handler.headers)))
        if path in self.redirects:
            self.plain(handler, 302, {"Location": self.redirects[path]})
            return
        hub = re.match(r"^/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$", path)
        if hub:
            self.answer_hub(handler, body, *hub.groups())
        elif path.startswith("/api/"):
            self.answer_api(handler, path)
        elif path in self.files:
            self.answer_file(handler, self.files[path], body, {})
        else:
            self.plain(handler, 404, {})

    def answer_api(self, handler, path):
        asked = re.match(r"^/api/models/([^/]+/[^/]+)/revision/(.+)$", path)
        repo, revision = asked.groups() if asked else (None, None)
        if repo in self.repo_status:
            self.plain(handler, *self.repo_status[repo])
            return
        commit = self.commits.get(repo) if revision == "main" else revision
        files = self.history.get((repo, commit))
        if files is None or not self.lists_files:
            self.plain(handler, 404, {})
            return
        siblings = [
            {"rfilename": name, "lfs": {"sha256": hashlib.sha256(served.content).hexdigest()}}
            for name, served in files.items()
        ]
        self.plain(handler, 200, {}, {"sha": commit, "siblings": siblings})

    def answer_hub(self, handler, body, repo, revision, name):
        if repo in self.repo_status:
            self.plain(handler, *self.repo_status[repo])
            return
        if repo not in self.repos:
            self.plain(handler, 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
            return
        commit = self.commits[repo] if revision == "main" else revision
        files = self.history.get((repo, commit))
        if files is None:
            self.plain(handler, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no"})
            return
        if name not in files:
            self.plain(
                handler, 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no", "X-Repo-Commit": commit}
            )
            return
        served = files[name]
        sha256 = hashlib.sha256(served.content).hexdigest()
        self.answer_file(
            handler,
            served,
            body,
            {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(served.content)),
                "X-Linked-Etag": served.etag or f'"{sha256}"',
                "ETag": served.etag or f'"{sha256}"',
            },
        )

    def plain(self, handler, status, headers, answer=None):
        content = json.dumps(answer or {"error": f"status {status}"}).encode()
        handler.send_response(status)
        for key, value in headers.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(content)

    def answer_file(self, handler, served, body, headers):
        with self.guard:
            if body and served.statuses:
                status, extra = served.statuses.pop(0)
            else:
                status, extra = 0, {}
            if body and not status:
                self.bodies += 1
                if served.change_after is not None:
                    served.change_after -= 1
                    if served.change_after < 0 and served.changed:
                        served.content, served.changed = served.changed, b""
                        served.etag = f'"{hashlib.md5(served.content).hexdigest()}"'
        if status:
            self.plain(handler, status, extra)
            return
        content, start, code = served.content, 0, 200
        wanted = re.match(r"^bytes=(\d+)-(\d*)$", handler.headers.get("Range", ""))
        validator = handler.headers.get("If-Range")
        if wanted and served.ranges and (validator in (None, served.etag) or served.ignore_if_range):
            start, code = int(wanted[1]), 206
            end = int(wanted[2]) + 1 if wanted[2] else len(content)
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                return
            content = content[:end]
        piece = content[start:]
        handler.send_response(code)
        if code == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(served.content)}")
        if served.etag and "ETag" not in headers:
            handler.send_header("ETag", served.etag)
        if served.encoding:
            handler.send_header("Content-Encoding", served.encoding)
        for key, value in headers.items():
            handler.send_header(key, value)
        if served.chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        elif served.no_length:
            handler.send_header("Connection", "close")
        else:
            handler.send_header("Content-Length", str(served.length if served.length is not None else len(piece)))
        handler.end_headers()
        if body:
            self.send(handler, served, piece)

    def send(self, handler, served, piece):
        cut = None
        with self.guard:
            if served.cut_at:
                cut = served.cut_at.pop(0)
            elif served.cut and self.random.random() < served.cut:
                cut = self.random.randrange(len(piece) + 1)
        whole = piece
        piece = piece[:cut] if cut is not None else piece
        step = 64 if served.drip else 64 * 1024
        try:
            for at in range(0, len(piece), step):
                part = piece[at : at + step]
                if served.chunked:
                    handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
                else:
                    handler.wfile.write(part)
                self.bytes_sent += len(part)
                if served.drip or served.pace:
                    time.sleep(served.drip or served.pace)
            if served.chunked and piece is whole:
                handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            handler.close_connection = True
            return
        if cut is not None or served.no_length or served.length is not None:
            handler.close_connection = True
            handler.wfile.flush()
            if cut is not None and self.random.random() < 0.5:  # half of the cuts are resets
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.fixture
def web():
    server = FaultServer()
    yield server
    server.close()


@contextlib.contextmanager
def refused_sockets():
    """Makes every attempt to open a socket or to resolve a name an error, also one that was caught on the way."""
    tried = []

    def refuse(*args, **kwargs):
        tried.append(args)
        raise AssertionError("a socket was opened")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("socket", "create_connection", "getaddrinfo", "gethostbyname", "socketpair"):
            patch.setattr(socket, name, refuse)
        yield tried
    assert not tried


@pytest.fixture
def no_sockets():
    """No socket may be opened during the test."""
    with refused_sockets() as tried:
        yield tried


@pytest.fixture
def no_sockets_after():
    """The guard as a context, for tests that first need a network: `with no_sockets_after(): …`."""
    return refused_sockets


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A store of the test's own, and nothing of the user's environment."""
    for name in ("LENSMOUNT_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path / "home"


@pytest.fixture
def hub(web, home, tmp_path, monkeypatch):
    """huggingface_hub pointed at the local server and an empty cache."""
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"), raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", web.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", web.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    web.hub_cache = cache
    return web
