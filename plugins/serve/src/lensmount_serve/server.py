"""uvicorn, with limits on what slow clients can hold and a stop that lets running requests end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from lensmount_serve.settings import Settings

_HEAD_BYTES = 32 * 1024


def make_server(app: Any, settings: Settings) -> uvicorn.Server:
    """A server that listens once `run` or `serve` is called."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=_limited(settings),
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    return Server(config)


class Server(uvicorn.Server):
    """A stop by a signal is an end like any other: what runs is finished, and the exit status is 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM stop the server; the second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def _limited(settings: Settings) -> type[asyncio.Protocol]:
    """A class of connections with the operator's limits."""
    count = 0

    class Limited(H11Protocol):
        """Cuts off clients that take long to send a request's head or to take an answer, and connections too many."""

        _counted = False
        _head: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            nonlocal count
            count += 1
            self._counted = True
            self.access_log = False  # it writes queries, whatever the configuration says where the root has handlers
            super().connection_made(transport)
            if count > settings.max_connections:
                transport.abort()
                return
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            nonlocal count
            if self._counted:
                count -= 1
                self._counted = False
            for timer in (self._head, self._stuck):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:  # a head has begun and is not whole
                self._await_head()
            elif self._head is not None:
                self._head.cancel()
                self._head = None

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(settings.write_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None
            super().resume_writing()

        def _await_head(self) -> None:
            if self._head is None:
                self._head = self.loop.call_later(settings.read_seconds, self.transport.abort)

    return Limited
