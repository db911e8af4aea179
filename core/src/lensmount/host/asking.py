"""What a caller asked for, in one object, and the options of a load sorted by who takes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lensmount.contracts.finder import FetchOptions
from lensmount.host.plan import Name, Request

if TYPE_CHECKING:
    from lensmount.contracts.session import BackendOptions
    from lensmount.specs import Architecture, ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What the caller said; each field is the argument of `lensmount.registry.Registry.load` of that name."""

    name: Name
    backend: str | None = None
    device: str | None = None
    precision: str | None = None
    architecture: str | None = None
    task: str | None = None
    package: str | None = None
    source: str | None = None
    api_key: str | None = field(default=None, repr=False)
    offline: bool | None = None
    locked: bool | str | os.PathLike[str] = False
    allow_insecure: bool = False
    caches: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

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
    from lensmount.specs.imports import import_string
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
