"""What was asked for, and the plan of a load: what can run, what was chosen, why the rest was not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from lensmount.contracts.finder import FetchOptions
from lensmount.errors import NoPackageError, NotTunedError
from lensmount.host.site import Name
from lensmount.specs.logs import log

if TYPE_CHECKING:
    from lensmount.contracts.session import BackendOptions
    from lensmount.specs import Architecture, Backend, ModelCard, ModelPackage

FASTEST = "fastest"
"""What stands for the name of a backend where measured times decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for; None means "choose". Several precisions stand between commas: any of them will do."""

    backend: str | None = None
    device: str | None = None
    precision: str | None = None
    package: str | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that will do; empty where none was named."""
        return tuple(word.strip() for word in (self.precision or "").split(",") if word.strip())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One failed check.

    Attributes:
        check: `backend`, `device`, `precision`, `runtime`, …
        required: What the package or the request needs.
        found: What there is.
        fix: How to change that, where it can be.
    """

    check: str
    required: str
    found: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"{self.check}: needs {self.required}; found {self.found}"
        return f"{text}; fix: {self.fix}" if self.fix else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A package on a backend and a device, and the precision it will compute in.

    Attributes:
        package: The package.
        backend: What opens it.
        device: Where it will run.
        precision: What it will compute in.
        milliseconds: What one picture took when it was measured on this machine; None where times played no part.
    """

    package: ModelPackage
    backend: Backend
    device: str
    precision: str
    milliseconds: float | None = None

    def __str__(self) -> str:
        return f"{self.package.name} on {self.backend.name}, {self.device}, {self.precision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A package that cannot run as asked on one backend (None: no backend opens it), and every reason."""

    package: ModelPackage
    backend: Backend | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """The outcome: what was selected, what else would run, and what would not and why.

    Attributes:
        card: The model.
        request: What was asked for.
        choices: Everything that can run, best first.
        rejected: Everything that cannot.
        notes: What a user should know of the choice (a GPU that no installed backend can use).
        decision: With `backend="fastest"`: why the selected one.
    """

    card: ModelCard
    request: Request
    choices: tuple[Choice, ...]
    rejected: tuple[Rejection, ...]
    notes: tuple[str, ...] = field(default=())
    decision: str | None = None

    @property
    def selected(self) -> Choice | None:
        """The best choice, or None."""
        return self.choices[0] if self.choices else None

    def __str__(self) -> str:
        """A plain-text table."""
        rows = [("package", "backend", "device", "precision", "verdict")]
        for i, choice in enumerate(self.choices):
            rows.append(
                (choice.package.name, choice.backend.name, choice.device, choice.precision, verdict(choice, i == 0))
            )
        for rejection in self.rejected:
            backend = rejection.backend.name if rejection.backend else "-"
            for i, reason in enumerate(rejection.reasons):
                head = (rejection.package.name, backend) if i == 0 else ("", "")
                rows.append((*head, "-", rejection.package.precision, f"rejected: {reason}"))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
        said = [self.decision] if self.decision else []
        return "\n".join([f"{self.card.id} ({self.card.architecture}, {self.card.task})", *lines, *said, *self.notes])


def verdict(choice: Choice, selected: bool) -> str:
    """What a table says of something that can run."""
    time = "" if choice.milliseconds is None else f", {choice.milliseconds:.2f} ms"
    return ("selected" if selected else "also usable") + time


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
    log("host", "info", "selected %s for %s", plan.selected, plan.card.id)
    return plan.selected
