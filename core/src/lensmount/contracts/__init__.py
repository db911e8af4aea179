"""What the core and a plugin's code promise each other: sessions, models, files, exports and caches.

Protocols and the frozen dataclasses that they exchange; no behaviour but the check of a session's feeds. Every room
above `specs` and every distribution may import it; it imports `machine`, `errors` and `specs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount.contracts.arrays": ("Array",),
    "lensmount.contracts.cache": ("Cache",),
    "lensmount.contracts.finder": (
        "FetchOptions", "Fetched", "Finder", "Repository", "RepositoryFinder",
    ),
    "lensmount.contracts.model": ("BuildContext", "ExportContext", "Model", "NetworkContext"),
    "lensmount.contracts.plan": ("Choice", "LoadPlan", "Reason", "Rejection", "Request", "SelectRequest"),
    "lensmount.contracts.requests":
        ("BuildRequest", "Builder", "ExportRequest", "NotRunnable", "ReadRequest", "Recogniser"),
    "lensmount.contracts.session": (
        "BackendOptions", "GraphNetwork", "OpenRequest", "Session", "TensorSession", "TensorSpec", "TorchNetwork",
        "check_feeds",
    ),
    "lensmount.machine.environment": ("Environment", "Gpu"),
}  # fmt: skip

if TYPE_CHECKING:
    from lensmount.contracts.arrays import Array
    from lensmount.contracts.cache import Cache
    from lensmount.contracts.finder import Fetched, FetchOptions, Finder, Repository, RepositoryFinder
    from lensmount.contracts.model import BuildContext, ExportContext, Model, NetworkContext
    from lensmount.contracts.plan import Choice, LoadPlan, Reason, Rejection, Request, SelectRequest
    from lensmount.contracts.requests import Builder, BuildRequest, ExportRequest, NotRunnable, ReadRequest, Recogniser
    from lensmount.contracts.session import (
        BackendOptions,
        GraphNetwork,
        OpenRequest,
        Session,
        TensorSession,
        TensorSpec,
        TorchNetwork,
        check_feeds,
    )
    from lensmount.machine.environment import Environment, Gpu

__all__ = [
    "Array", "BackendOptions", "BuildContext", "BuildRequest", "Builder", "Cache", "Choice", "Environment",
    "ExportContext", "ExportRequest", "FetchOptions", "Fetched", "Finder", "Gpu", "GraphNetwork", "LoadPlan", "Model",
    "NetworkContext", "NotRunnable", "OpenRequest", "ReadRequest", "Reason", "Recogniser", "Rejection", "Repository",
    "RepositoryFinder", "Request", "SelectRequest", "Session", "TensorSession", "TensorSpec", "TorchNetwork",
    "check_feeds",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
