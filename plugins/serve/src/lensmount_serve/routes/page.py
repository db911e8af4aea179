"""The page to try models on: files of this distribution, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from lensmount_serve.failures import AnswerError

router = APIRouter(include_in_schema=False)
_FOLDER = Path(__file__).resolve().parents[1] / "page"
_KINDS = {"page.js": "text/javascript", "style.css": "text/css", "scene.jpg": "image/jpeg"}


@router.get("/")
async def page() -> Response:
    """The page."""
    return Response((_FOLDER / "index.html").read_bytes(), media_type="text/html; charset=utf-8")


@router.get("/page/{name}")
async def part(name: str) -> Response:
    """What the page is made of."""
    if name not in _KINDS:
        raise AnswerError(404, "the page has no such part")
    return Response((_FOLDER / name).read_bytes(), media_type=_KINDS[name])
