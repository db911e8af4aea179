"""Talking to a server: clients for threads, and finding the model that is one's own graph."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lensmount.errors import BackendError, ClosedError, MissingDependencyError, OfflineError
from lensmount.specs import is_offline
from lensmount_triton import errors
from lensmount_triton.config import INSTALL, URL, Server
from lensmount_triton.digest import KEY


def connect(server: Server) -> Clients:
    """Clients of a server.

    Raises:
        MissingDependencyError: tritonclient is not installed.
        OfflineError: Offline, and the server is on another machine.
    """
    if is_offline() and not server.local:
        raise OfflineError(f"offline, and the Triton server {server} is on another machine", fix=f"change {URL}")
    try:
        import tritonclient.http
    except ImportError as error:
        raise MissingDependencyError("the triton backend needs tritonclient", found=str(error), fix=INSTALL) from error

    def make() -> Any:
        return tritonclient.http.InferenceServerClient(
            server.address, ssl=server.secure, connection_timeout=server.timeout, network_timeout=server.timeout
        )

    return Clients(make, str(server))


class Clients:
    """A client for each thread that asks: the client's loop of events belongs to the thread that made it.

    Args:
        make: Makes a client.
        server: The server's address, for messages.
    """

    def __init__(self, make: Callable[[], Any], server: str) -> None:
        self._make = make
        self._own = threading.local()
        self._closed = False
        self.server = server

    def ask(self, call: Callable[[Any], Any]) -> Any:
        """Calls with this thread's client; one that failed is not used again.

        Raises:
            ClosedError: `close` was called.
        """
        if self._closed:
            raise ClosedError(f"the session on {self.server} was closed", fix="load the model again")
        client = getattr(self._own, "client", None)
        self._own.client = None
        client = client if client is not None else self._make()
        answer = call(client)
        self._own.client = client
        return answer

    def close(self) -> None:
        """Refuses further calls; connections close with the threads that opened them."""
        self._closed = True
        self._own = threading.local()


def version(clients: Clients) -> str:
    """What the server calls itself.

    Raises:
        BackendError: It does not answer, or is not ready.
    """
    try:
        facts = clients.ask(lambda client: client.get_server_metadata())
        ready = clients.ask(lambda client: client.is_server_ready())
    except Exception as error:
        raise errors.unreachable(error, clients.server) from error
    if not ready:
        raise BackendError(
            f"the Triton server {clients.server} is not ready", fix="wait until it has loaded its models"
        )
    return f"{facts.get('name', 'triton')} {facts.get('version', '')}".strip()


def find(clients: Clients, sha256: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and configuration of the server's model of a graph, or None.

    Raises:
        BackendError: The server does not answer.
    """
    try:
        models = clients.ask(lambda client: client.get_model_repository_index())
    except Exception as error:
        raise errors.unreachable(error, clients.server) from error
    for model in models:
        name = str(model.get("name", ""))
        if model.get("state", "READY") != "READY" or not name:
            continue
        config = configuration(clients, name)
        if config is not None and parameter(config) == sha256:
            return name, config
    return None


def configuration(clients: Clients, name: str) -> Mapping[str, Any] | None:
    """A model's configuration, or None where it is not loaded."""
    try:
        found: Mapping[str, Any] = clients.ask(lambda client: client.get_model_config(name))
    except Exception as error:
        if errors.is_answer(error):
            return None
        raise errors.unreachable(error, clients.server) from error
    return found


def parameter(config: Mapping[str, Any]) -> str | None:
    """The sha256 that a configuration holds."""
    value = (config.get("parameters") or {}).get(KEY) or {}
    return value.get("string_value") if isinstance(value, Mapping) else None


def upload(clients: Clients, path: Path, config: Mapping[str, Any], subject: str) -> None:
    """Loads a graph onto the server.

    Raises:
        UnsupportedModelError: The server refuses the graph.
        BackendError: The server takes no models, or does not answer.
    """
    name = str(config["name"])
    content = path.read_bytes()
    try:
        clients.ask(
            lambda client: client.load_model(name, config=json.dumps(config), files={"file:1/model.onnx": content})
        )
    except Exception as error:
        raise errors.loading(error, subject, clients.server) from error
