"""The application: routes, guard, models; made of settings, with nothing global."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from lensmount import __version__
from lensmount.errors import LensmountError, reason
from lensmount.registry import Registry
from lensmount.specs.logs import log
from lensmount_serve.answers import failed
from lensmount_serve.failures import AnswerError, failure_of, without_paths
from lensmount_serve.guard import Guard
from lensmount_serve.metrics import Metrics
from lensmount_serve.pool import Pool, named
from lensmount_serve.service import Service
from lensmount_serve.settings import Settings

DESCRIPTION = """Vision models over HTTP. `/v1/predict/{model}` is lensmount's own route and takes every task; the
others are those that `inference_sdk` clients speak. Failures of `/v1/…` are `application/problem+json`, of the others
`{"message": …}`."""


def make_app(models: Iterable[str], settings: Settings, registry: Registry | None = None) -> Guard:
    """The ASGI application of a server.

    Args:
        models: What to load before the server is ready: ids, paths, `NAME=PATH`; see `lensmount_serve.pool.named`.
        settings: The operator's.
        registry: Where models come from; None for the installed plugins.
    """
    # Here and not above: a test may have put another registry in the place of the default one.
    from lensmount.registry import default
    from lensmount_serve.routes import routers
    from lensmount_serve.routes.sam2 import Remembered

    registry = default() if registry is None else registry
    metrics = Metrics()
    pool = Pool(settings, registry, metrics, named(models, registry))
    service = Service(settings, pool, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        import asyncio

        async def start() -> None:
            try:
                await pool.start()
            except Exception as error:  # told by the command, once the server has stopped
                guarded.failed = error
                guarded.on_failed()

        starting = asyncio.ensure_future(start())
        try:
            yield
        finally:
            starting.cancel()
            await pool.stop()
            service.close()

    app = FastAPI(
        title="lensmount",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.metrics = metrics
    app.state.remembered = Remembered()
    app.state.uuid = str(uuid4())
    for router in routers():
        app.include_router(router)
    _add_handlers(app)
    guarded = Guard(app, settings, metrics)
    return guarded


def _add_handlers(app: FastAPI) -> None:
    async def on_failure(request: Request, error: Exception) -> Response:
        failure = failure_of(error)
        if failure.status >= 500:
            name = request.scope.get("state", {}).get("request_id", "")
            log("serve", "error", "request %s failed: %s", name, without_paths(reason(error)))
        return failed(failure, request.url.path)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return failed(AnswerError(400, _described(error.errors())), request.url.path)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        made = failed(AnswerError(error.status_code, str(error.detail)), request.url.path)
        made.headers.update(error.headers or {})
        return made

    app.add_exception_handler(AnswerError, on_failure)
    app.add_exception_handler(LensmountError, on_failure)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_failure)


def _described(errors: Iterable[Any]) -> str:
    """What is wrong with a body, in one line; values that the client sent are not repeated."""
    lines = []
    for error in list(errors)[:5]:
        place = ".".join(str(part) for part in error.get("loc", ())[1:])[:100]
        lines.append(f"{place}: {error.get('msg', '')}" if place else str(error.get("msg", "")))
    return "; ".join(lines)[:1000] or "the request is not valid"
