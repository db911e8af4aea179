"""The last steps of a load: fetch, open, check what is effective, build."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import BackendError, DeviceError, NoPackageError, NotTunedError, PluginError
from lensmount.specs.imports import import_string

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions, Finder
    from lensmount.contracts.session import BackendOptions, Session
    from lensmount.host.discovery import Index
    from lensmount.host.selection import Choice, LoadPlan
    from lensmount.specs import Architecture, ModelCard, ModelPackage
    from lensmount.store.fetch import FetchedPackage


class LicenceNotice(UserWarning):
    """What the licence of a model's weights asks; shown at the first load on this machine."""


class DeviceNotice(UserWarning):
    """The model runs on the CPU although the machine has a GPU that nothing installed can use."""


def split_options(
    options: Mapping[str, Any], architecture: Architecture, card: ModelCard
) -> tuple[BackendOptions, Any]:
    """Sorts load options into the session's and the architecture's, refusing unknown ones.

    Raises:
        UnknownOptionError: An option that neither has.
    """
    from lensmount.contracts.session import BackendOptions
    from lensmount.specs.options import build_options, check_names

    session_names = {f.name for f in fields(BackendOptions)}
    own = {name: value for name, value in options.items() if name not in session_names}
    backend = BackendOptions(**{name: value for name, value in options.items() if name in session_names})
    subject = f"loading {card.id!r} (architecture {architecture.name!r})"
    if architecture.options is None:
        check_names(own, (), subject, session_names)
        return backend, None
    kind = import_string(architecture.options, f"architecture {architecture.name!r}")
    return backend, build_options(kind, own, subject, session_names)


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
                f"which package of {plan.card.id!r} is the fastest here is not known",
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
            fix="; or ".join(dict.fromkeys(fixes)) or "ask for less: lensmount explain shows what would then run",
        )
    return plan.selected


def finders_for(package: ModelPackage, index: Index) -> dict[str, Finder]:
    """The finders that a package's artifacts need, by scheme.

    Raises:
        PluginError: No plugin serves a scheme.
    """
    found = {}
    for artifact in package.artifacts:
        scheme = artifact.uri.partition("://")[0]
        if scheme not in index.sources:
            raise PluginError(
                f"no source for artifact {artifact.name!r}", found=artifact.uri, expected=", ".join(index.sources)
            )
        if scheme not in found:
            found[scheme] = import_string(index.sources[scheme].finder, f"source {scheme!r}")()
    return found


def fetch_files(
    card: ModelCard, packages: Iterable[ModelPackage], index: Index, fetch: FetchOptions
) -> dict[str, FetchedPackage]:
    """Fetches several packages of a model, by name."""
    from lensmount.store.fetch import fetch_package

    return {p.name: fetch_package(card, p, finders_for(p, index), fetch) for p in packages}


def open_and_build(
    choice: Choice,
    card: ModelCard,
    architecture: Architecture,
    index: Index,
    *,
    requested_precision: str | None,
    fetch: FetchOptions,
    session_options: BackendOptions,
    options: Any,
    caches: Mapping[str, Any],
) -> Any:
    """Fetches the artifacts, opens the sessions, compares them with the plan, and calls the factory."""
    from lensmount.contracts.model import BuildContext
    from lensmount.host.sharing import share
    from lensmount.store.fetch import fetch_package

    package = choice.package
    factory = import_string(architecture.factory, f"architecture {architecture.name!r}")
    fetched = fetch_package(card, package, finders_for(package, index), fetch)
    opener = partial(_open, choice, card, architecture, fetched.files, session_options, options)
    sessions = opener() if not architecture.shared else share(_identity(choice, fetched, session_options), opener)
    try:
        for session in sessions.values():
            _check_effective(session, choice, card, requested_precision)
        context = BuildContext(
            card=card,
            package=package,
            sessions=sessions,
            files=fetched.files,
            options=options,
            caches=resolve_caches(caches, index),
            fingerprint=fetched.fingerprint,
        )
        model = factory(context)
    except BaseException:
        for session in sessions.values():
            session.close()
        raise
    show_licence(card)
    return model


def _identity(choice: Choice, fetched: FetchedPackage, session_options: BackendOptions) -> tuple[Any, ...]:
    """All that decides what a shared session is: what it opens, on what, and how."""
    networks = tuple(
        (artifact.name, fetched.sha256s[artifact.name])
        for artifact in choice.package.artifacts
        if artifact.role != "data" or artifact.name.endswith("config.json")
    )
    place = (choice.backend.name, choice.device, choice.precision, choice.package.format)
    return (*place, networks, choice.package.settings, session_options)


def _open(
    choice: Choice,
    card: ModelCard,
    architecture: Architecture,
    files: Mapping[str, Path],
    session_options: BackendOptions,
    options: Any,
) -> dict[str, Session]:
    from lensmount.contracts.model import NetworkContext
    from lensmount.contracts.session import OpenRequest, TorchNetwork

    package = choice.package
    opener = import_string(choice.backend.opener, f"backend {choice.backend.name!r}")

    def request(path: Path | None, network: TorchNetwork | None) -> OpenRequest:
        return OpenRequest(
            package=package,
            path=path,
            device=choice.device,
            precision=choice.precision,
            options=session_options,
            network=network,
        )

    requests: dict[str, OpenRequest] = {}
    if package.format == "torch" and architecture.network is not None:
        build = import_string(architecture.network, f"architecture {architecture.name!r}")
        built = build(NetworkContext(card=card, package=package, files=files, options=options))
        networks = {"network": built} if isinstance(built, TorchNetwork) else dict(built)
        requests = {name: request(None, network) for name, network in networks.items()}
    else:
        requests = {a.name: request(files[a.name], None) for a in package.artifacts if a.role == "graph"}
    opened: dict[str, Session] = {}
    try:
        for name, item in requests.items():
            opened[name] = opener(item)
    except BaseException:
        for session in opened.values():
            session.close()
        raise
    return opened


def _check_effective(session: Session, choice: Choice, card: ModelCard, requested_precision: str | None) -> None:
    """Runtimes fall back silently; we compare what is effective with what was planned."""
    if session.device != choice.device:
        raise DeviceError(
            f"{card.id!r} was to run on {choice.device}, but the runtime put it elsewhere",
            found=f"{session.device} ({session.provider})",
            expected=choice.device,
            fix=f"lensmount doctor; or ask for it: device={session.device!r}",
        )
    asked = choice.precision if requested_precision is not None else None  # of several that would do, the chosen one
    wanted = choice.precision if choice.package.format == "torch" else asked
    if wanted is not None and session.precision != wanted:
        raise BackendError(
            f"{card.id!r} was to compute in {wanted}, but the session does not",
            found=session.precision,
            expected=wanted,
        )


def resolve_caches(caches: Mapping[str, Any], index: Index) -> dict[str, Any]:
    """Caches by use: an instance as it is, a provider's name, or `(name, settings)`.

    Raises:
        PluginError: No provider of this name, or not a cache.
    """
    resolved = {}
    for use, value in caches.items():
        name, settings = (value, {}) if isinstance(value, str) else value if isinstance(value, tuple) else (None, {})
        if name is not None:
            if name not in index.caches:
                raise PluginError(f"no cache provider {name!r}", expected=", ".join(sorted(index.caches)))
            value = import_string(index.caches[name].factory, f"cache {name!r}")(**settings)
        if not (hasattr(value, "get") and hasattr(value, "put")):
            raise PluginError(
                f"caches[{use!r}] is not a cache", found=type(value).__name__, expected="a lensmount.contracts.Cache"
            )
        resolved[use] = value
    return resolved


def show_licence(card: ModelCard) -> None:
    """Shows what the weights' licence asks, once per machine (a marker in the store remembers)."""
    if not card.licence_notice:
        return
    from lensmount.store.store import default_root

    marker = default_root() / "notices" / f"{card.licence}-{card.architecture}"
    if marker.exists():
        return
    warnings.warn(f"{card.id}: {card.licence_notice}", LicenceNotice, stacklevel=4)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:  # a read-only home only means that the notice is shown again
        return


def export_model(
    card: ModelCard,
    architecture: Architecture,
    index: Index,
    *,
    fetch: FetchOptions,
    target: str,
    output: str | os.PathLike[str] | None,
    precision: str,
    dynamic: bool,
    batch: int,
    settings: Mapping[str, Any],
) -> Path:
    """Fetches the torch package and calls the architecture's exporter.

    Raises:
        UnsupportedModelError: The architecture exports nothing, or the model has no torch package.
    """
    from lensmount.contracts.model import ExportContext
    from lensmount.errors import UnsupportedModelError
    from lensmount.store.fetch import fetch_package

    package = next((p for p in card.packages if p.format == "torch"), None)
    if architecture.exporter is None or package is None:
        found = "no exporter" if package is not None else f"packages: {', '.join(p.format for p in card.packages)}"
        raise UnsupportedModelError(
            f"{card.id!r} cannot be exported", found=found, expected="an architecture with an exporter, a torch package"
        )
    exporter = import_string(architecture.exporter, f"architecture {architecture.name!r}")
    fetched = fetch_package(card, package, finders_for(package, index), fetch)
    path = Path(output) if output is not None else Path(f"{card.id.replace('/', '-')}.{target}")
    context = ExportContext(
        card=card,
        package=package,
        files=fetched.files,
        target=target,
        output=path,
        precision=precision,
        dynamic=dynamic,
        batch=batch,
        settings=settings,
    )
    written: Path = exporter(context)
    return written
