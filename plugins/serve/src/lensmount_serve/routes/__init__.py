"""The routes, one module for each family of them."""

from __future__ import annotations

from fastapi import APIRouter

from lensmount_serve.routes import infer, legacy, models, owlv2, page, predict, sam2, towers

__all__ = ["routers"]


def routers() -> list[APIRouter]:
    """All of them; the one that takes any two words comes last."""
    modules = (page, models, infer, sam2, towers, owlv2, predict, legacy)
    return [module.router for module in modules]
