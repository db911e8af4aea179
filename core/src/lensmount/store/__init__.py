"""Files that are whole and verified, or absent: addresses, downloads, the store of weights, manifests and locks.

Sources of weights import it, and so do the rooms from `host` upwards; it imports `contracts`, `specs` and `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.lazy import lazy_names

_LAZY = {
    "FetchedPackage": "lensmount.store.fetch",
    "HubAddress": "lensmount.store.addresses",
    "Store": "lensmount.store.store",
    "Wanted": "lensmount.store.download",
    "WebAddress": "lensmount.store.addresses",
    "fetch_package": "lensmount.store.fetch",
    "hash_file": "lensmount.store.files",
    "key_of": "lensmount.store.ledger",
    "missing": "lensmount.store.offline",
    "missing_error": "lensmount.store.offline",
    "parse_hub": "lensmount.store.addresses",
    "parse_web": "lensmount.store.addresses",
    "read_manifest": "lensmount.store.manifests",
    "read_small": "lensmount.store.transport",
    "safe_name": "lensmount.store.files",
    "scheme_of": "lensmount.store.addresses",
    "write_atomic": "lensmount.store.files",
    "write_manifest": "lensmount.store.manifests",
}

if TYPE_CHECKING:
    from lensmount.store.addresses import HubAddress as HubAddress
    from lensmount.store.addresses import WebAddress as WebAddress
    from lensmount.store.addresses import parse_hub as parse_hub
    from lensmount.store.addresses import parse_web as parse_web
    from lensmount.store.addresses import scheme_of as scheme_of
    from lensmount.store.download import Wanted as Wanted
    from lensmount.store.fetch import FetchedPackage as FetchedPackage
    from lensmount.store.fetch import fetch_package as fetch_package
    from lensmount.store.files import hash_file as hash_file
    from lensmount.store.files import safe_name as safe_name
    from lensmount.store.files import write_atomic as write_atomic
    from lensmount.store.ledger import key_of as key_of
    from lensmount.store.manifests import read_manifest as read_manifest
    from lensmount.store.manifests import write_manifest as write_manifest
    from lensmount.store.offline import missing as missing
    from lensmount.store.offline import missing_error as missing_error
    from lensmount.store.store import Store as Store
    from lensmount.store.transport import read_small as read_small

__all__ = [
    "FetchedPackage",
    "HubAddress",
    "Store",
    "Wanted",
    "WebAddress",
    "fetch_package",
    "hash_file",
    "key_of",
    "missing",
    "missing_error",
    "parse_hub",
    "parse_web",
    "read_manifest",
    "read_small",
    "safe_name",
    "scheme_of",
    "write_atomic",
    "write_manifest",
]

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
