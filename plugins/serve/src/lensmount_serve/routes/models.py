"""Which models are held, and whether the server is well."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from lensmount import __version__
from lensmount_serve.answers import Json
from lensmount_serve.metrics import CONTENT_TYPE
from lensmount_serve.pool import Held
from lensmount_serve.routes.shared import FAILURES, Shared
from lensmount_serve.schemas import AddModel, RemoveModel
from lensmount_serve.service import Service

router = APIRouter(tags=["models"], default_response_class=Json, responses=FAILURES)


@router.get("/info")
async def info(request: Request) -> Json:
    """What answers here."""
    return Json({"name": "lensmount", "version": __version__, "uuid": request.app.state.uuid})


@router.get("/healthz")
async def healthz() -> Json:
    """Whether the process answers."""
    return Json({"status": "healthy"})


@router.get("/readiness")
async def readiness(service: Shared) -> Json:
    """Whether the models named at the start are loaded and ran once."""
    return Json({"status": "ready"}) if service.pool.ready else Json({"status": "not ready"}, 503)


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Counters and times for Prometheus."""
    return Response(request.app.state.metrics.page(), headers={"content-type": CONTENT_TYPE})


@router.get("/model/registry")
async def registry(service: Shared) -> Json:
    """Models that are held, under the names that they were asked for by."""
    return _listed(service)


@router.post("/model/add")
async def add(body: AddModel, service: Shared) -> Json:
    """Loads a model and waits until it ran once."""
    await service.pool.add(body.model_id, service.deadline())
    return _listed(service)


@router.post("/model/remove")
async def remove(body: RemoveModel, service: Shared) -> Json:
    """Lets a model go. Those named at the start stay."""
    service.pool.remove(body.model_id)
    return _listed(service)


@router.post("/model/clear")
async def clear(service: Shared) -> Json:
    """Lets all models go but those named at the start."""
    service.pool.clear()
    return _listed(service)


def _listed(service: Service) -> Json:
    return Json({"models": [_row(name, held) for name, held in service.pool.listed()]})


def _row(name: str, held: Held) -> dict[str, Any]:
    size = getattr(getattr(held.model, "preprocess_spec", None), "size", None)
    height, width = size or (None, None)
    batch = getattr(getattr(held.model, "batch", None), "static", None)
    return {
        "model_id": name, "task_type": held.task, "batch_size": batch, "input_height": height, "input_width": width
    }  # fmt: skip
