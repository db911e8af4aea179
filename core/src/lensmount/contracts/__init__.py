"""What the core and a plugin's code promise each other: sessions, models, files, plans, exports and caches.

Protocols and the frozen dataclasses that they exchange; no behaviour but the check of a session's feeds. Every room
above `specs` and every distribution may import it; it imports `machine`, `errors` and `specs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "Array": "lensmount.contracts.arrays",
    "BackendOptions": "lensmount.contracts.session",
    "BuildContext": "lensmount.contracts.model",
    "BuildRequest": "lensmount.contracts.writing",
    "Builder": "lensmount.contracts.writing",
    "Cache": "lensmount.contracts.cache",
    "Choice": "lensmount.contracts.plan",
    "Environment": "lensmount.machine.environment",
    "ExportContext": "lensmount.contracts.model",
    "ExportRequest": "lensmount.contracts.writing",
    "FetchOptions": "lensmount.contracts.finder",
    "Fetched": "lensmount.contracts.finder",
    "Finder": "lensmount.contracts.finder",
    "Folder": "lensmount.contracts.finder",
    "FolderFinder": "lensmount.contracts.finder",
    "Gpu": "lensmount.machine.environment",
    "LoadPlan": "lensmount.contracts.plan",
    "Model": "lensmount.contracts.model",
    "NetworkContext": "lensmount.contracts.model",
    "OpenRequest": "lensmount.contracts.session",
    "ReadRequest": "lensmount.contracts.reading",
    "Reason": "lensmount.contracts.plan",
    "Recogniser": "lensmount.contracts.reading",
    "Rejection": "lensmount.contracts.plan",
    "Repository": "lensmount.contracts.finder",
    "RepositoryFinder": "lensmount.contracts.finder",
    "Request": "lensmount.contracts.plan",
    "SelectRequest": "lensmount.contracts.plan",
    "Session": "lensmount.contracts.session",
    "TensorSession": "lensmount.contracts.session",
    "TensorSpec": "lensmount.contracts.session",
    "TorchNetwork": "lensmount.contracts.session",
    "check_feeds": "lensmount.contracts.session",
}

if TYPE_CHECKING:
    from lensmount.contracts.arrays import Array as Array
    from lensmount.contracts.cache import Cache as Cache
    from lensmount.contracts.finder import Fetched as Fetched
    from lensmount.contracts.finder import FetchOptions as FetchOptions
    from lensmount.contracts.finder import Finder as Finder
    from lensmount.contracts.finder import Folder as Folder
    from lensmount.contracts.finder import FolderFinder as FolderFinder
    from lensmount.contracts.finder import Repository as Repository
    from lensmount.contracts.finder import RepositoryFinder as RepositoryFinder
    from lensmount.contracts.model import BuildContext as BuildContext
    from lensmount.contracts.model import ExportContext as ExportContext
    from lensmount.contracts.model import Model as Model
    from lensmount.contracts.model import NetworkContext as NetworkContext
    from lensmount.contracts.plan import Choice as Choice
    from lensmount.contracts.reading import ReadRequest as ReadRequest
    from lensmount.contracts.reading import Recogniser as Recogniser
    from lensmount.contracts.session import BackendOptions as BackendOptions
    from lensmount.contracts.session import OpenRequest as OpenRequest
    from lensmount.contracts.session import Session as Session
    from lensmount.contracts.session import TensorSession as TensorSession
    from lensmount.contracts.session import TensorSpec as TensorSpec
    from lensmount.contracts.session import TorchNetwork as TorchNetwork
    from lensmount.contracts.session import check_feeds as check_feeds
    from lensmount.contracts.writing import Builder as Builder
    from lensmount.contracts.writing import BuildRequest as BuildRequest
    from lensmount.contracts.writing import ExportRequest as ExportRequest
    from lensmount.machine.environment import Environment as Environment
    from lensmount.machine.environment import Gpu as Gpu

__all__ = [
    "Array",
    "BackendOptions",
    "BuildContext",
    "BuildRequest",
    "Builder",
    "Cache",
    "Choice",
    "Environment",
    "ExportContext",
    "ExportRequest",
    "FetchOptions",
    "Fetched",
    "Finder",
    "Folder",
    "FolderFinder",
    "Gpu",
    "LoadPlan",
    "Model",
    "NetworkContext",
    "OpenRequest",
    "ReadRequest",
    "Reason",
    "Recogniser",
    "Rejection",
    "Repository",
    "RepositoryFinder",
    "Request",
    "SelectRequest",
    "Session",
    "TensorSession",
    "TensorSpec",
    "TorchNetwork",
    "check_feeds",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
