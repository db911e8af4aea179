"""Servers of lensmount-serve on a free port of this machine, in a thread of the test's process, and a client."""

from __future__ import annotations

import http.client
import json
import threading
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCENE = ROOT / "examples/lensmount-shapes/src/lensmount_shapes/data/scene.jpg"


class Client:
    """A plain HTTP client; each call is a connection of its own."""

    def __init__(self, port):
        self.port = port

    def raw(self, method, path, body=None, headers=None, timeout=60):
        """Status, headers, bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path, headers=None):
        status, _, body = self.raw("GET", path, headers=headers)
        return status, json.loads(body)

    def post(self, path, body, headers=None):
        sent = json.dumps(body).encode()
        status, _, found = self.raw("POST", path, sent, {"Content-Type": "application/json", **(headers or {})})
        return status, json.loads(found) if found else None


@contextmanager
def serving(models=("shapes-nano",), registry=None, wait=True, **settings):
    """A running server: `.client`, `.port`, `.app`."""
    from lensmount_serve import Settings, make_app, make_server

    asked = Settings(port=0, **{"drain_seconds": 5.0, **settings})
    app = make_app(models, asked, registry)
    server = make_server(app, asked)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started and time.monotonic() < end:
        time.sleep(0.005)
    client = Client(server.servers[0].sockets[0].getsockname()[1])
    client.app, client.server, client.thread = app, server, thread
    try:
        while wait and app.failed is None and client.raw("GET", "/readiness")[0] != 200:
            assert time.monotonic() < end
            time.sleep(0.01)
        yield client
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
