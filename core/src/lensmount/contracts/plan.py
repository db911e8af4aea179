"""The plan of a load: what was asked for, what can run, what was chosen, why the rest was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lensmount.contracts.finder import Fetched
    from lensmount.machine.environment import Environment
    from lensmount.specs import Backend, BackendStatus, ModelCard, ModelPackage


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
class Reason:
    """One failed check.

    Attributes:
        check: `backend`, `device`, `precision`, `runtime`, …; `measured` where a selector lacks a measurement alone: a
            load that finds nothing else is then refused with `NotTunedError`.
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

    @property
    def as_graph(self) -> bool:
        """Whether the package's weights run as an ONNX graph, made from them at load."""
        return self.package.format not in self.backend.formats

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
        decision: Why the selected one, where a selector took it (`backend="fastest"`).
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

    def rows(self) -> Iterator[tuple[str, str, str, str, str, tuple[Reason, ...]]]:
        """Package, backend, device, precision, verdict and reasons of everything, the selected one first."""
        for i, c in enumerate(self.choices):
            yield c.package.name, c.backend.name, c.device, c.precision, verdict(c, i == 0), ()
        for r in self.rejected:
            yield r.package.name, r.backend.name if r.backend else "-", "-", r.package.precision, "rejected", r.reasons

    def __str__(self) -> str:
        """A plain-text table."""
        rows = [("package", "backend", "device", "precision", "verdict")]
        for package, backend, device, precision, said, reasons in self.rows():
            for i, text in enumerate([f"{said}: {reason}" for reason in reasons] or [said]):
                head = (package, backend) if i == 0 else ("", "")
                rows.append((*head, device, precision, text))
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0], strict=True)).rstrip() for row in rows]
        taken = [self.decision] if self.decision else []
        return "\n".join([f"{self.card.id} ({self.card.architecture}, {self.card.task})", *lines, *taken, *self.notes])


def verdict(choice: Choice, selected: bool) -> str:
    """What a table says of something that can run."""
    time = "" if choice.milliseconds is None else f", {choice.milliseconds:.2f} ms"
    graph = f", {choice.package.format} weights as an onnx graph" if choice.as_graph else ""
    return ("selected" if selected else "also usable") + graph + time


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectRequest:
    """What the function that `Selector.choose` names gets.

    It returns the plan with its choices in another order or with fewer of them, each of these then among the rejected
    with the reason; `dataclasses.replace` makes both. It adds none, and measures nothing: loads wait for it.

    Attributes:
        plan: What can run as asked, in the default order. Nothing less exact than the best is among it, unless the
            caller named several precisions.
        name: What the caller calls the model.
        options: The load's options as dataclasses: `BackendOptions`, and the architecture's own or None.
        environment: What the machine has.
        backends: Every backend, and whether it can run here.
        plugin: Distribution that runs the model.
        local: Files of a package that are on this machine, by artifact name; fetches nothing.
    """

    plan: LoadPlan
    name: str
    options: tuple[Any, ...]
    environment: Environment
    backends: tuple[tuple[Backend, BackendStatus], ...]
    plugin: str | None
    local: Callable[[ModelPackage], Mapping[str, Fetched]]
