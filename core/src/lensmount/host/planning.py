"""From a card to a plan: what can run here as asked, what was built or measured on this machine, and what is taken."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lensmount.errors import UnknownBackendError
from lensmount.host.plan import FASTEST, LoadPlan, Request
from lensmount.host.selection import select
from lensmount.specs.logs import log

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.site import Name, Site
    from lensmount.specs import ModelCard


def plan(
    card: ModelCard,
    site: Site,
    request: Request,
    *,
    name: Name | None = None,
    options: Iterable[Any] = (),
    build: str | None = None,
    fetch: FetchOptions | None = None,
) -> LoadPlan:
    """Which package would be loaded, and why not the others.

    Args:
        card: The model.
        site: Plugins and machine.
        request: What was asked for.
        name: What the user called the model, for the command that measures it; None for the card's id.
        options: The load's options as dataclasses, which measured times have to be of.
        build: Whether a backend that was asked for by name may build a package when none can run: `if-missing` to
            build one, `never` to refuse with the command that does, None to leave the plan without a choice.
        fetch: With `build`: how the model's files may be fetched.

    Raises:
        UnknownBackendError: No plugin registers the backend asked for.
        NoPackageError: With `build`: there is nothing to run, and a build was not allowed or cannot help.
        LensmountError: With `build`: as for `lensmount.host.engines.build`.
    """
    found = candidates(card, site, request)
    if request.backend == FASTEST:
        from lensmount.host.measured import by_times

        return by_times(found, site, name or card.id, options)
    backend = site.index.backends.get(request.backend or "")
    if found.selected is None and build is not None and backend is not None and request.package is None:
        from lensmount.contracts.finder import FetchOptions
        from lensmount.host.engines import build_missing

        if build_missing(site, found, card, backend, build, fetch or FetchOptions()):
            return candidates(card, site, request)
    return found


def candidates(card: ModelCard, site: Site, request: Request) -> LoadPlan:
    """What can run as asked, in the default order; of `fastest` all that it chooses among.

    What a backend built on this machine is added where that backend was asked for by name, or all were.

    Raises:
        UnknownBackendError: No plugin registers the backend asked for.
    """
    index = site.index
    if request.backend not in (None, FASTEST, *index.backends):
        known = [*index.backends, FASTEST]
        near = difflib.get_close_matches(str(request.backend), known, 1)
        fixes = [f"did you mean {near[0]!r}?" if near else "install the plugin that brings it; lensmount doctor"]
        raise UnknownBackendError(
            f"no backend {request.backend!r}",
            found=", ".join(known),
            expected="one of those found",
            fix="; ".join([*fixes, *index.left_out]),
        )
    for backend in index.backends.values():
        if backend.builder is not None and request.backend in (backend.name, FASTEST):
            from lensmount.host.engines import with_built

            card = with_built(card, backend)
    if request.backend == FASTEST:
        request = replace(request, backend=None)
    found = select(card, index.architectures.get(card.architecture), site.backends(), site.environment, request)
    log("host", "debug", "what can run of %s:\n%s", card.id, found)
    return found
