"""Files that are whole and verified, or absent: addresses, downloads, the store of weights, manifests and locks.

Sources of weights import it, and so do the rooms from `host` upwards; it imports `contracts`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "FetchedPackage": "lensmount.store.fetch",
    "HubAddress": "lensmount.store.addresses",
    "Missing": "lensmount.store.offline",
    "MissingFilesError": "lensmount.store.offline",
    "Policy": "lensmount.store.transport",
    "Store": "lensmount.store.store",
    "DownloadRequest": "lensmount.store.download",
    "WebAddress": "lensmount.store.addresses",
    "check_md5": "lensmount.store.local",
    "fetch_artifact": "lensmount.store.fetch",
    "fetch_package": "lensmount.store.fetch",
    "hash_file": "lensmount.store.files",
    "missing": "lensmount.store.offline",
    "missing_error": "lensmount.store.offline",
    "parse_hub": "lensmount.store.addresses",
    "parse_manifest": "lensmount.store.manifests",
    "parse_web": "lensmount.store.addresses",
    "path_of": "lensmount.store.addresses",
    "read_manifest": "lensmount.store.manifests",
    "read_small": "lensmount.store.transport",
    "safe_name": "lensmount.store.files",
    "scheme_of": "lensmount.store.addresses",
    "write_atomic": "lensmount.store.files",
    "write_bundle": "lensmount.store.bundle",
    "write_manifest": "lensmount.store.manifests",
}

if TYPE_CHECKING:
    from lensmount.store.addresses import HubAddress as HubAddress
    from lensmount.store.addresses import WebAddress as WebAddress
    from lensmount.store.addresses import parse_hub as parse_hub
    from lensmount.store.addresses import parse_web as parse_web
    from lensmount.store.addresses import path_of as path_of
    from lensmount.store.addresses import scheme_of as scheme_of
    from lensmount.store.bundle import write_bundle as write_bundle
    from lensmount.store.download import DownloadRequest as DownloadRequest
    from lensmount.store.fetch import FetchedPackage as FetchedPackage
    from lensmount.store.fetch import fetch_artifact as fetch_artifact
    from lensmount.store.fetch import fetch_package as fetch_package
    from lensmount.store.files import hash_file as hash_file
    from lensmount.store.files import safe_name as safe_name
    from lensmount.store.files import write_atomic as write_atomic
    from lensmount.store.local import check_md5 as check_md5
    from lensmount.store.manifests import parse_manifest as parse_manifest
    from lensmount.store.manifests import read_manifest as read_manifest
    from lensmount.store.manifests import write_manifest as write_manifest
    from lensmount.store.offline import Missing as Missing
    from lensmount.store.offline import MissingFilesError as MissingFilesError
    from lensmount.store.offline import missing as missing
    from lensmount.store.offline import missing_error as missing_error
    from lensmount.store.store import Store as Store
    from lensmount.store.transport import Policy as Policy
    from lensmount.store.transport import read_small as read_small

__all__ = [
    "DownloadRequest",
    "FetchedPackage",
    "HubAddress",
    "Missing",
    "MissingFilesError",
    "Policy",
    "Store",
    "WebAddress",
    "check_md5",
    "fetch_artifact",
    "fetch_package",
    "hash_file",
    "missing",
    "missing_error",
    "parse_hub",
    "parse_manifest",
    "parse_web",
    "path_of",
    "read_manifest",
    "read_small",
    "safe_name",
    "scheme_of",
    "write_atomic",
    "write_bundle",
    "write_manifest",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
