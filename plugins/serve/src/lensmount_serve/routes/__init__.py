"""The routes, one module for each family of them."""

from __future__ import annotations

from fastapi import APIRouter

from lensmount_serve.routes import infer, models

__all__ = ["routers"]


def routers() -> list[APIRouter]:
    """All of them; the one that takes any two words comes last."""
    modules = (models, infer)
    return [module.router for module in modules]
