"""Files that are whole and verified, or absent: addresses, downloads, the store of weights, manifests and locks.

Sources of weights import it, and so do the rooms from `host` upwards; it imports `contracts`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "lensmount.store.addresses": ("HubAddress", "WebAddress", "parse_hub", "parse_web", "path_of", "scheme_of"),
    "lensmount.store.bundle": ("write_bundle",),
    "lensmount.store.download": ("DownloadRequest",),
    "lensmount.store.fetch": ("FetchedPackage", "fetch_artifact", "fetch_package"),
    "lensmount.store.files": ("check_md5", "hash_file", "safe_name", "write_atomic"),
    "lensmount.store.manifests": ("parse_manifest", "read_manifest", "write_manifest"),
    "lensmount.store.offline": ("Missing", "MissingFilesError", "missing", "missing_error"),
    "lensmount.store.store": ("Store",),
    "lensmount.store.transport": ("Policy", "read_small"),
}

if TYPE_CHECKING:
    from lensmount.store.addresses import HubAddress, WebAddress, parse_hub, parse_web, path_of, scheme_of
    from lensmount.store.bundle import write_bundle
    from lensmount.store.download import DownloadRequest
    from lensmount.store.fetch import FetchedPackage, fetch_artifact, fetch_package
    from lensmount.store.files import check_md5, hash_file, safe_name, write_atomic
    from lensmount.store.manifests import parse_manifest, read_manifest, write_manifest
    from lensmount.store.offline import Missing, MissingFilesError, missing, missing_error
    from lensmount.store.store import Store
    from lensmount.store.transport import Policy, read_small

__all__ = [
    "DownloadRequest", "FetchedPackage", "HubAddress", "Missing", "MissingFilesError", "Policy", "Store", "WebAddress",
    "check_md5", "fetch_artifact", "fetch_package", "hash_file", "missing", "missing_error", "parse_hub",
    "parse_manifest", "parse_web", "path_of", "read_manifest", "read_small", "safe_name", "scheme_of", "write_atomic",
    "write_bundle", "write_manifest",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
