"""What stands before every route: sizes, times, keys and origins are checked here; nothing gets past without."""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from lensmount.errors import LensmountError, reason
from lensmount.specs.logs import log
from lensmount_serve.answers import failed
from lensmount_serve.failures import AnswerError, failure_of, without_paths
from lensmount_serve.metrics import Metrics
from lensmount_serve.settings import Settings, is_loopback

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Open to everybody: whether it lives, and the page, which asks for the key itself.
OPEN = frozenset(["/", "/healthz", "/readiness", "/page/page.js", "/page/style.css", "/page/scene.jpg"])
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'"),
)


class Guard:
    """The outermost ASGI application of the server.

    Args:
        app: What answers.
        settings: The operator's.
        metrics: Where requests are counted.

    Attributes:
        failed: Why the models named at the start are not there, once that is known.
        on_failed: Called then.
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._held = 0
        self.failed: Exception | None = None
        self.on_failed: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        self._held += 1
        self._metrics.held.set(self._held)
        try:
            body = await self._admit(scope, receive, exchange)
            await self._answer(scope, receive, exchange, body)
        except AnswerError as failure:
            if failure.status in (401, 403, 408, 413, 429):
                self._metrics.refused.labels(_WHY[failure.status]).inc()
            exchange.close = failure.status in (408, 413, 429)  # what was sent is not read to its end
            await exchange.fail(failure)
        except asyncio.CancelledError:
            exchange.status = exchange.status or 499
            raise
        finally:
            self._held -= 1
            self._metrics.held.set(self._held)
            self._record(scope, exchange)

    async def _admit(self, scope: Scope, receive: Receive, exchange: _Exchange) -> bytes:
        """Checks everything that can be checked before a route is asked; the request's body."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        exchange.name = given if _ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = exchange.name
        self._check_origin(headers)
        if self._held > self._settings.max_requests:
            raise AnswerError(429, "the server holds as many requests as it may", retry_after=1)
        self._check_claim(headers)
        known = self._has_key(scope, headers)
        body = await self._read(receive)
        if not known and scope["path"] not in OPEN and not self._key_in(body):
            raise AnswerError(401, "this server asks for its key: api_key, or Authorization: Bearer")
        return body

    def _check_origin(self, headers: dict[str, str]) -> None:
        """Without a key, other web sites in the user's browser are kept out: by Origin, and by Host (DNS rebinding)."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise AnswerError(403, "requests of pages of other sites are not answered")
        if self._settings.api_key is None and is_loopback(self._settings.host):
            try:
                name = urlsplit(f"//{host}").hostname or ""
            except ValueError:
                name = ""
            if not is_loopback(name):
                raise AnswerError(403, "this server answers to localhost alone")

    def _check_claim(self, headers: dict[str, str]) -> None:
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdecimal():
            raise AnswerError(400, "the request's Content-Length is no number")
        if len(length) > 15 or int(length) > self._settings.max_body:
            raise self._too_large()
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise AnswerError(415, "compressed bodies are not taken")

    def _too_large(self) -> AnswerError:
        return AnswerError(413, f"the request's body is larger than {self._settings.max_body} bytes")

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        end = time.monotonic() + self._settings.read_seconds
        while True:
            try:
                message = await asyncio.wait_for(receive(), max(0.001, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise AnswerError(408, "the request's body did not arrive in time") from None
            if message["type"] == "http.disconnect":
                raise AnswerError(400, "the client went away")
            part = message.get("body", b"")
            size += len(part)
            if size > self._settings.max_body:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _has_key(self, scope: Scope, headers: dict[str, str]) -> bool:
        if self._settings.api_key is None:
            return True
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._equals(given.strip()):
            return True
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=100)
        return any(self._equals(value) for value in query.get("api_key", ()))

    def _key_in(self, body: bytes) -> bool:
        if body.lstrip()[:1] != b"{":
            return False
        try:
            given = json.loads(body).get("api_key")
        except (ValueError, RecursionError):
            return False
        return isinstance(given, str) and self._equals(given)

    def _equals(self, given: str) -> bool:
        key = self._settings.api_key or ""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), key.encode())

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange, body: bytes) -> None:
        """Runs the route; a client that goes away stops it."""
        sent = False
        gone = asyncio.Event()

        async def replay() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        route = asyncio.ensure_future(self._app(scope, replay, exchange.send))
        watcher = asyncio.ensure_future(watch())
        try:
            await asyncio.wait({route, watcher}, return_when=asyncio.FIRST_COMPLETED)
            if not route.done() and not exchange.status:
                route.cancel()
                exchange.status = 499
                await asyncio.wait({route})
                return
            await route
        except AnswerError:
            raise
        except Exception as error:
            log("serve", "error", "request %s failed: %s", exchange.name, without_paths(reason(error)))
            failure = failure_of(error) if isinstance(error, LensmountError) else AnswerError(500, "the server failed")
            await exchange.fail(failure)
        finally:
            watcher.cancel()
            route.cancel()

    def _record(self, scope: Scope, exchange: _Exchange) -> None:
        route = getattr(scope.get("route"), "path", "other")
        took = time.monotonic() - exchange.start
        method = scope["method"] if scope["method"] in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self._metrics.requests.labels(route, method, str(exchange.status)).inc()
        self._metrics.seconds.labels(route).observe(took)
        # The route and not the path: a query may hold a key.
        log("serve", "info", "%s %s %s %d %.1f ms", exchange.name, method, route, exchange.status, took * 1000)


_WHY = {401: "key", 403: "origin", 408: "late", 413: "size", 429: "full"}


class _Exchange:
    """One request's answer on its way out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self.start = time.monotonic()
        self.name = ""
        self.status = 0
        self.close = False

    async def send(self, message: Message) -> None:
        """Passes a message on, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            took = f"{time.monotonic() - self.start:.6f}".encode()
            more = [(b"x-request-id", self.name.encode()), (b"x-processing-time", took), *_HEADERS]
            if self.close:
                more.append((b"connection", b"close"))
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        await self._send(message)

    async def fail(self, failure: AnswerError) -> None:
        """Answers with a failure, where nothing was answered before."""
        if self.status:
            return

        async def nothing() -> Message:
            return {"type": "http.disconnect"}

        await failed(failure, self._scope["path"])(self._scope, nothing, self.send)
