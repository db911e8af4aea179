"""The last step of a load: sessions are opened and compared with the plan, and the model is built."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import BackendError, DeviceError, DeviceNotice, LicenceNotice, PluginError
from lensmount.specs.imports import ask as ask_plugin
from lensmount.specs.imports import call, import_string
from lensmount.specs.logs import log

if TYPE_CHECKING:
    from lensmount.contracts.model import BuildContext
    from lensmount.contracts.plan import Choice, LoadPlan
    from lensmount.contracts.session import BackendOptions, Session
    from lensmount.host.plan import Ask
    from lensmount.specs import Architecture, CacheProvider, ModelCard
    from lensmount.store.fetch import FetchedPackage

Factory = Callable[["BuildContext"], Any]


def factory_of(architecture: Architecture) -> Factory:
    """The architecture's function that builds a model; its module is imported."""
    factory: Factory = import_string(architecture.factory, f"architecture {architecture.name!r}")
    return factory


def open_model(
    ask: Ask,
    choice: Choice,
    card: ModelCard,
    architecture: Architecture,
    fetched: FetchedPackage,
    groups: tuple[BackendOptions, Any],
    factory: Factory,
    providers: Mapping[str, CacheProvider],
) -> Any:
    """Opens the sessions of a fetched package, compares them with the plan, and calls the factory.

    Raises:
        BackendError: A session cannot be opened, or computes in another precision than planned.
        DeviceError: A session runs elsewhere than planned.
        PluginError: A cache that was asked for is none.
    """
    from lensmount.contracts.model import BuildContext, Model

    opener = partial(_open, choice, card, architecture, fetched.files, *groups)
    if architecture.shared:
        from lensmount.backend.sharing import share

        sessions = share(_identity(choice, fetched, groups[0]), opener)
    else:
        sessions = opener()
    try:
        for session in sessions.values():
            _check_effective(session, choice, card, ask.precision)
        context = BuildContext(
            card=card,
            package=choice.package,
            sessions=sessions,
            files=fetched.files,
            options=groups[1],
            caches=_caches(ask.caches, providers),
            fingerprint=fetched.fingerprint,
        )
        return ask_plugin(f"the factory of architecture {architecture.name!r}", Model, factory, context)
    except BaseException:
        for session in sessions.values():
            session.close()
        raise


def _identity(choice: Choice, fetched: FetchedPackage, session_options: BackendOptions) -> tuple[Any, ...]:
    """All that decides what a shared session is: what it opens, on what, and how."""
    networks = tuple(
        (artifact.name, fetched.sha256s[artifact.name])
        for artifact in choice.package.artifacts
        # tokenisers and class names are read by the model; all else, a graph's tensors too, is part of what is opened
        if artifact.role != "data"
        or not artifact.name.endswith((".json", ".txt"))
        or artifact.name.endswith("config.json")
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
    from lensmount.backend.torch_place import settled
    from lensmount.contracts.model import NetworkContext
    from lensmount.contracts.session import GraphNetwork, OpenRequest, Session, TorchNetwork

    package = choice.package
    owner = f"the opener of backend {choice.backend.name!r}"
    opener = import_string(choice.backend.opener, owner)

    def request(path: Path | None, made: TorchNetwork | GraphNetwork | None) -> OpenRequest:
        return OpenRequest(
            package=package,
            path=path,
            device=choice.device,
            precision=choice.precision,
            options=session_options,
            network=made if isinstance(made, TorchNetwork) else None,
            graph=made if isinstance(made, GraphNetwork) else None,
        )

    requests: dict[str, OpenRequest] = {}
    kind, what = (GraphNetwork, "graph") if choice.as_graph else (TorchNetwork, "network")
    if (choice.as_graph or package.format == "torch") and (named := getattr(architecture, what)) is not None:
        context = NetworkContext(card=card, package=package, files=files, options=options)
        with settled(inference=False):
            built = call(named, f"the {what} of architecture {architecture.name!r}", (kind, Mapping), context)
        networks = dict(built) if isinstance(built, Mapping) else {"network": built}
        requests = {name: request(None, network) for name, network in networks.items()}
    else:
        requests = {a.name: request(files[a.name], None) for a in package.artifacts if a.role == "graph"}
    opened: dict[str, Session] = {}
    try:
        for name, item in requests.items():
            opened[name] = ask_plugin(owner, Session, opener, item)
            _check_specs(owner, opened[name])
            where = (opened[name].provider, opened[name].device, opened[name].precision)
            log("host", "info", "opened %s of %s (%s): %s, %s, %s", name, card.id, choice, *where)
    except BaseException:
        for session in opened.values():
            session.close()
        raise
    return opened


def _check_specs(owner: str, session: Session) -> None:
    from lensmount.contracts.session import TensorSpec

    for name, specs in (("inputs", session.inputs), ("outputs", session.outputs)):
        if not (isinstance(specs, tuple) and all(isinstance(spec, TensorSpec) for spec in specs)):
            found = f"{name} of type {type(specs).__name__}"
            raise PluginError(f"{owner} returned the wrong thing", found=found, expected="tuples of TensorSpec")


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


def _caches(caches: Mapping[str, Any], providers: Mapping[str, CacheProvider]) -> dict[str, Any]:
    """Caches by use: an instance as it is, a provider's name, or `(name, settings)`."""
    resolved = {}
    for use, value in caches.items():
        name, settings = (value, {}) if isinstance(value, str) else value if isinstance(value, tuple) else (None, {})
        if name is not None:
            if name not in providers:
                raise PluginError(f"no cache provider {name!r}", expected=", ".join(sorted(providers)))
            value = call(providers[name].factory, f"cache {name!r}", object, **settings)
            log("host", "info", "made cache %s for %s", name, use)
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
    warnings.warn(f"{card.id}: {card.licence_notice}", LicenceNotice, stacklevel=3)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError:  # a read-only home only means that the notice is shown again
        return


def show_device(plan: LoadPlan) -> None:
    """Tells what a user should know of the choice: that a GPU is not used."""
    if plan.notes:
        warnings.warn("\n".join(plan.notes), DeviceNotice, stacklevel=3)
