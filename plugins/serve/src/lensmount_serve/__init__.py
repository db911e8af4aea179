"""An HTTP server for lensmount's models.

`lensmount serve` starts it; programs that bring their own ASGI server take `make_app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount_serve.app": ("make_app",),
    "lensmount_serve.server": ("make_server",),
    "lensmount_serve.settings": ("Settings",),
}

if TYPE_CHECKING:
    from lensmount_serve.app import make_app
    from lensmount_serve.server import make_server
    from lensmount_serve.settings import Settings

__all__ = ["Settings", "make_app", "make_server"]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
