"""The core's own finders by scheme, as a load would have them without a registry."""

from __future__ import annotations

from lensmount.contracts import Finder
from lensmount.store.hf import HubFinder
from lensmount.store.https import HttpsFinder
from lensmount.store.local import LocalFinder
from lensmount.store.package import PackageFinder
from lensmount.store.store import Store


def core_finders(store: Store | None = None) -> dict[str, Finder]:
    """`hf`, `https`, `http`, `file` and `package`, over one store; None for the user's."""
    store = store if store is not None else Store()
    web = HttpsFinder(store)
    return {
        "hf": HubFinder(store),
        "https": web,
        "http": web,
        "file": LocalFinder(store),
        "package": PackageFinder(store),
    }
