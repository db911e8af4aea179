"""A Redis server of the tests' own: on a free port, in memory, ended with them."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


class Server:
    """A redis-server that can be stopped, and started again on the same port.

    Attributes:
        port: On 127.0.0.1.
        url: Of its database 0.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        program = shutil.which("redis-server")
        assert program is not None
        place = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        command = [program, *place, "--save", "", "--appendonly", "no", *self._settings]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "redis.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as ask:
                ask.sendall(b"PING\r\n")
                if ask.recv(100).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server does not answer")

    def stop(self) -> None:
        """Ends it; what it held is lost."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None


@pytest.fixture
def make_server(tmp_path):
    """Starts servers of the test's own."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    made = []

    def make(*settings: str) -> Server:
        folder = tmp_path / f"redis{len(made)}"
        folder.mkdir()
        made.append(Server(folder, *settings))
        made[-1].start()
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    """A server for all tests; each takes a prefix of its own."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server (Debian: apt-get install redis-server)")
    server = Server(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()
