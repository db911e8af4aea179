"""Bringing models to this machine and pinning them: what `pull` and `lock` do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import ModelNotFoundError
from lensmount.host.plan import plan, require_choice
from lensmount.host.resolve import resolve
from lensmount.store.fetch import fetch_files

if TYPE_CHECKING:
    from lensmount.host.plan import Ask
    from lensmount.host.site import Site
    from lensmount.specs import ModelCard, ModelPackage
    from lensmount.store.fetch import FetchedPackage


def pull(ask: Ask, site: Site, *, every: bool, to: Path | None) -> dict[str, FetchedPackage]:
    """Fetches packages of a model; see `lensmount.registry.Registry.pull`."""
    card = resolve(ask, site.index)
    got = fetch_files(card, _wanted(ask, card, site, every), site.index.sources, ask.fetch)
    if to is not None:
        from lensmount.store.bundle import write_bundle

        write_bundle(card, got, to)
    return got


def _wanted(ask: Ask, card: ModelCard, site: Site, every: bool) -> tuple[ModelPackage, ...]:
    if every:
        return card.packages
    if ask.package is None:
        return (require_choice(plan(card, site, ask.request)).package,)
    chosen = tuple(p for p in card.packages if p.name == ask.package)
    if not chosen:
        raise ModelNotFoundError(
            f"{card.id!r} has no package {ask.package!r}", expected=", ".join(p.name for p in card.packages)
        )
    return chosen


def lock(asks: Iterable[Ask], site: Site, path: Path) -> Path:
    """Fetches models and writes what their files are; see `lensmount.registry.Registry.lock`."""
    from lensmount.store.lock import make_lock, write_lock

    entries = []
    for ask in asks:
        card = resolve(ask, site.index)
        got = fetch_files(card, card.packages, site.index.sources, ask.fetch)
        entries += [(card, package, got[package.name]) for package in card.packages]
    return write_lock(make_lock(entries), path)
