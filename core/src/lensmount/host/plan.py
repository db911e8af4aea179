"""What the caller of a load said, and the plan that answers it: what can run here as asked, and what is taken."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from lensmount.contracts.finder import Fetched, FetchOptions
from lensmount.contracts.plan import Choice, LoadPlan, Request, SelectRequest
from lensmount.errors import LensmountError, NoPackageError, NotTunedError, PluginError, UnknownBackendError
from lensmount.host.hints import SELECTORS
from lensmount.host.selection import select, without_less_exact
from lensmount.host.site import Name, Site
from lensmount.specs.imports import call, import_string
from lensmount.specs.logs import log
from lensmount.specs.options import build_options, check_names, meant, shipped

if TYPE_CHECKING:
    from lensmount.contracts.session import BackendOptions
    from lensmount.specs import Architecture, ModelCard, ModelPackage, Selector, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the caller said; each field is the argument of `lensmount.registry.Registry.load` of that name."""

    name: Name
    backend: str | None = None
    device: Any = None
    precision: str | None = None
    architecture: str | None = None
    task: str | None = None
    package: str | None = None
    source: str | None = None
    api_key: str | None = field(default=None, repr=False)
    offline: bool | None = None
    locked: bool | str | os.PathLike[str] = False
    allow_insecure: bool = False
    refresh: bool = False
    caches: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words = shipped("foreign_names")["backends"]
        object.__setattr__(self, "backend", words.get(str(self.backend).lower(), self.backend) or None)
        object.__setattr__(self, "device", None if self.device in (None, "auto") else str(self.device))

    @property
    def subject(self) -> Name:
        """What to look for: the name, as an address where a source was named."""
        return self.name if self.source is None else f"{self.source}://{os.fspath(self.name)}"

    @property
    def request(self) -> Request:
        """What the choice of a package has to obey."""
        return Request(backend=self.backend, device=self.device, precision=self.precision, package=self.package)

    @property
    def fetch(self) -> FetchOptions:
        """How files may be fetched."""
        scheme = os.fspath(self.subject).partition("://")[0]
        return FetchOptions(
            offline=self.offline,
            allow_insecure=self.allow_insecure,
            refresh=self.refresh,
            credentials={} if self.api_key is None else {scheme: self.api_key},
        )


def split_options(
    options: Mapping[str, Any], architecture: Architecture, card: ModelCard
) -> tuple[BackendOptions, Any]:
    """Sorts load options into the session's and the architecture's, refusing unknown ones.

    Raises:
        UnknownOptionError: An option that neither has.
    """
    from lensmount.contracts.session import BackendOptions

    session_names = {f.name for f in fields(BackendOptions)}
    own = {name: value for name, value in options.items() if name not in session_names}
    backend = BackendOptions(**{name: value for name, value in options.items() if name in session_names})
    subject = f"loading {card.id!r} (architecture {architecture.name!r})"
    if architecture.options is None:
        check_names(own, (), subject, session_names)
        return backend, None
    kind = import_string(architecture.options, f"architecture {architecture.name!r}")
    return backend, build_options(kind, own, subject, session_names)


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
    """Which package would be loaded, and why not the others; `build` None leaves a plan without a choice as it is.

    Raises:
        UnknownBackendError: No plugin registers the backend or selector asked for.
        PluginError: The selector returned something else than a plan of what can run.
        NoPackageError: With `build`: there is nothing to run, and a build was not allowed or cannot help.
        LensmountError: With `build`: as for `lensmount.host.engines.build`.
    """
    found = candidates(card, site, request)
    if request.backend in site.index.selectors:
        return _choose(site.index.selectors[request.backend], found, site, name or card.id, options)
    backend = site.index.backends.get(request.backend or "")
    if found.selected is None and build is not None and backend is not None and request.package is None:
        from lensmount.host.engines import build_missing

        if build_missing(site, found, card, backend, build, fetch or FetchOptions()):
            return candidates(card, site, request)
    return found


def candidates(card: ModelCard, site: Site, request: Request) -> LoadPlan:
    """What can run as asked, in the default order; where a selector was asked for, all that it chooses among.

    What a backend built on this machine is added where that backend was asked for by name, or a selector was.

    Raises:
        UnknownBackendError: No plugin registers the backend or selector asked for.
    """
    index = site.index
    known = [*index.backends, *index.selectors]
    if request.backend is not None and request.backend not in known:
        fix = meant(request.backend, known) or "install the plugin that brings it; lensmount doctor"
        fixes = "; ".join([SELECTORS.get(request.backend, fix), *index.left_out])
        raise UnknownBackendError(f"no backend {request.backend!r}", expected=", ".join(known), fix=fixes)
    by_selector = request.backend in index.selectors
    for backend in index.backends.values():
        if backend.builder is not None and (by_selector or request.backend == backend.name):
            from lensmount.host.engines import with_built

            card = with_built(card, backend)
    obeyed = replace(request, backend=None) if by_selector else request
    found = select(
        card, index.architectures.get(card.architecture), site.backends(obeyed.backend), site.environment, obeyed
    )
    if by_selector:
        found = replace(without_less_exact(found), request=request)
    log("host", "debug", "what can run of %s:\n%s", card.id, found)
    return found


def _choose(selector: Selector, found: LoadPlan, site: Site, name: Name, options: Iterable[Any]) -> LoadPlan:
    """What a selector makes of a plan: it may order and refuse, and nothing that cannot run is taken from it."""
    request = SelectRequest(
        plan=found,
        name=os.fspath(name),
        options=tuple(options),
        environment=site.environment,
        backends=tuple(site.backends()),
        plugin=site.index.owners.get(("lensmount_architectures", found.card.architecture)),
        local=lambda package: local_files(package, site.index.sources),
    )
    made: LoadPlan = call(selector.choose, f"selector {selector.name!r}", LoadPlan, request)
    wrong = ", ".join(str(c) for c in made.choices if replace(c, milliseconds=None) not in found.choices)
    if not wrong:
        return made
    expected = "a LoadPlan whose choices are among those of the request"
    raise PluginError(f"selector {selector.name!r} returned the wrong thing", found=wrong, expected=expected)


def local_files(package: ModelPackage, sources: Mapping[str, Source]) -> dict[str, Fetched]:
    """A package's files that are on this machine, by artifact name; fetches nothing."""
    from lensmount.store.fetch import fetch_artifact, finders_for

    found = {}
    for artifact in package.artifacts:
        with contextlib.suppress(LensmountError):  # not here, or damaged: the load will say so
            finders = finders_for(package, sources)
            found[artifact.name] = fetch_artifact(artifact, finders, FetchOptions(offline=True))
    return found


def require_choice(plan: LoadPlan) -> Choice:
    """The plan's choice.

    Raises:
        NoPackageError: Nothing can run; the message holds the whole table. `NotTunedError` where times alone are
            missing.
    """
    if plan.selected is None:
        untimed = next((r for rejection in plan.rejected for r in rejection.reasons if r.check == "measured"), None)
        if untimed is not None:
            raise NotTunedError(
                f"which package of {plan.card.id!r} is the {plan.request.backend} here is not known",
                found=untimed.found,
                expected=untimed.required,
                fix=untimed.fix,
            )
        # What mends one of several reasons mends nothing: only rows whose every reason has a fix count.
        fixable = [row.reasons for row in plan.rejected if all(reason.fix for reason in row.reasons)]
        fixes = [" and ".join(str(reason.fix) for reason in reasons) for reasons in fixable]
        raise NoPackageError(
            f"no package of {plan.card.id!r} can run here as asked",
            found="\n" + str(plan),
            fix="; or ".join(dict.fromkeys(fixes)) or "lensmount explain: what would run; lensmount export: make one",
        )
    log("host", "info", "selected %s for %s", plan.selected, plan.card.id)
    return plan.selected
