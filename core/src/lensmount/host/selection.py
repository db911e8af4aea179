"""Selection: which package, on which backend and device. A pure function; every refusal carries every reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lensmount.contracts.plan import Choice, LoadPlan, Reason, Rejection, Request
from lensmount.host.hints import FORMATS

if TYPE_CHECKING:
    from lensmount.machine.environment import Environment
    from lensmount.specs import Architecture, Backend, BackendStatus, ModelCard, ModelPackage, Requirements

#: Device kinds, best first, when the user names none.
DEVICE_ORDER = ("cuda", "mps", "cpu")
#: Stored precisions, most exact first: nothing is downgraded unless asked for.
PRECISION_ORDER = ("fp32", "bf16", "fp16", "int8")


def select(
    card: ModelCard,
    architecture: Architecture | None,
    backends: Iterable[tuple[Backend, BackendStatus]],
    environment: Environment,
    request: Request,
) -> LoadPlan:
    """Chooses among a card's packages and the backends that open their format."""
    known = list(backends)
    choices: list[Choice] = []
    rejected: list[Rejection] = []
    for package in card.packages:
        openers = [(b, s) for b, s in known if package.format in b.formats or _as_graph(package, architecture, b)]
        if not openers:
            names = ", ".join(b.name for b, _ in known) or "none"
            reason = Reason(
                check="backend",
                required=f"a backend that opens {package.format!r}",
                found=f"backends: {names}",
                fix=FORMATS.get(package.format),
            )
            rejected.append(Rejection(package=package, backend=None, reasons=(reason,)))
        for backend, status in openers:
            device, precisions, reasons = _check(package, architecture, backend, status, environment, request)
            if reasons:
                rejected.append(Rejection(package=package, backend=backend, reasons=tuple(reasons)))
            else:
                choices += [Choice(package=package, backend=backend, device=device, precision=p) for p in precisions]
    order = {package.name: i for i, package in enumerate(card.packages)}
    choices.sort(key=lambda c: (*_rank(c), order[c.package.name], c.backend.name))
    return LoadPlan(
        card=card,
        request=request,
        choices=tuple(choices),
        rejected=tuple(rejected),
        notes=_notes(choices, environment, request),
    )


def _as_graph(package: ModelPackage, architecture: Architecture | None, backend: Backend) -> bool:
    """Whether a backend that does not open the package opens an ONNX graph of its weights."""
    if architecture is None or architecture.graph is None or "graph" not in backend.formats:
        return False
    return package.format in architecture.graph_formats and package.format not in backend.formats


def without_less_exact(plan: LoadPlan) -> LoadPlan:
    """A plan for a selector: of what can run, all that is less exact than the best is refused, unless asked for."""
    if plan.request.precisions or not plan.choices:
        return plan
    best = min((_exact_to(choice) for choice in plan.choices), key=exactness)
    refused = []
    for choice in plan.choices:
        found = _exact_to(choice)
        if found != best:
            reason = Reason(
                check="precision",
                required=f"{best}: nothing less exact is taken unasked",
                found=found,
                fix=f"precision={f'{best},{found}'!r}, if either will do",
            )
            refused.append(Rejection(package=choice.package, backend=choice.backend, reasons=(reason,)))
    kept = tuple(choice for choice in plan.choices if _exact_to(choice) == best)
    return replace(plan, choices=kept, rejected=(*plan.rejected, *refused))


def _exact_to(choice: Choice) -> str:
    """What the results are exact to: quantised weights stay coarse, whatever they are multiplied in."""
    return "int8" if choice.package.precision == "int8" else choice.precision


def exactness(precision: str) -> int:
    """Place of a precision among all, the most exact first; unknown ones come last."""
    return PRECISION_ORDER.index(precision) if precision in PRECISION_ORDER else len(PRECISION_ORDER)


def _rank(choice: Choice) -> tuple[int, int, int, int]:
    kind = device_kind(choice.device)
    device = _order(choice.device)
    stored = choice.package.precision
    lossy = 1 if stored == "int8" else 0  # quantised weights only when nothing better runs, whatever the backend
    preferred = lossy * 1000 - dict(choice.backend.preference).get(kind, 0)
    return (device, preferred, exactness(stored), exactness(choice.precision))


def device_kind(device: str) -> str:
    """`cuda` of `cuda:0`."""
    return device.partition(":")[0]


def normalise_device(device: str) -> str:
    """`cuda` means `cuda:0`; `gpu` means `cuda:0`; a bare number is a CUDA index."""
    text = device.strip().lower()
    if text.isdigit():
        return f"cuda:{text}"
    kind, _, index = text.partition(":")
    if kind in ("cuda", "gpu"):
        return f"cuda:{index or 0}"
    return kind if kind in ("cpu", "mps") and index in ("", "0") else text


def _order(device: str) -> int:
    """Rank of a device's kind; kinds unknown here come last, so that they are taken where they are all there is."""
    kind = device_kind(device)
    return DEVICE_ORDER.index(kind) if kind in DEVICE_ORDER else len(DEVICE_ORDER)


def _check(
    package: ModelPackage,
    architecture: Architecture | None,
    backend: Backend,
    status: BackendStatus,
    environment: Environment,
    request: Request,
) -> tuple[str, tuple[str, ...], list[Reason]]:
    """All checks of one pair; none stops the others, so that the user sees every reason at once."""
    reasons: list[Reason] = []
    if request.package is not None and request.package != package.name:
        reasons.append(Reason(check="package", required=f"package {request.package!r} (asked for)", found=package.name))
    if request.backend is not None and request.backend != backend.name:
        reasons.append(Reason(check="backend", required=f"backend {request.backend!r} (asked for)", found=backend.name))
    elif not status.usable:
        reasons.append(
            Reason(
                check="backend",
                required=f"a usable {backend.name} backend",
                found=status.reason or "not usable",
                fix=status.fix or (f'pip install "{backend.extra}"' if backend.extra else None),
            )
        )
    as_graph = _as_graph(package, architecture, backend)
    if package.format == "torch" and not as_graph and (architecture is None or architecture.network is None):
        found = "no such plugin" if architecture is None else f"{architecture.name} has none"
        reasons.append(Reason(check="network", required="an architecture with a torch network", found=found))
    device, problem = _device(package.requirements, backend, status, environment, request)
    if problem is not None and status.usable:
        reasons.append(problem)
    precisions, problem = _precisions(package, backend, status, device, request, as_graph)
    if problem is not None and status.usable:
        reasons.append(problem)
    reasons += _machine(package.requirements, environment, status, device)
    return device, precisions, reasons


def _device(
    needs: Requirements, backend: Backend, status: BackendStatus, environment: Environment, request: Request
) -> tuple[str, Reason | None]:
    # Of a backend that cannot run, what the machine has is judged: would the package fit if it could?
    there = status.devices if status.usable else environment.devices
    usable = [d for d in there if not needs.devices or device_kind(d) in needs.devices]
    if request.device is not None:
        wanted = normalise_device(request.device)
        if wanted in usable:
            return wanted, None
        offered = ", ".join(status.devices) or "none"
        if wanted in status.devices:
            return wanted, Reason(check="device", required=" or ".join(needs.devices), found=f"{wanted} (asked for)")
        fix = None if wanted == "cpu" else f"choose one of {offered}, or install a build that supports {wanted}"
        return wanted, Reason(check="device", required=f"{wanted} (asked for)", found=f"devices: {offered}", fix=fix)
    if not usable:
        required = " or ".join(needs.devices) or "any device"
        return "cpu", Reason(check="device", required=required, found=", ".join(status.devices) or "none")
    # A kind that the backend has no preference for is there for who asks (CoreML for onnx). Of several GPUs the first
    # that the package was made for.
    preferred = dict(backend.preference)

    def rank(device: str) -> tuple[bool, int, int]:
        on_request_only = device_kind(device) not in preferred
        return on_request_only, _order(device), len(_gpu_reasons(needs, environment, device))

    return min(usable, key=rank), None


def _precisions(
    package: ModelPackage, backend: Backend, status: BackendStatus, device: str, request: Request, as_graph: bool
) -> tuple[tuple[str, ...], Reason | None]:
    """What the package can compute in, of what was asked for."""
    stored = package.precision
    wanted = request.precisions
    asked = f"{' or '.join(wanted)} (asked for)"
    if package.format != "torch":  # a graph computes in what it was made with
        if wanted and stored not in wanted:
            fix = f"ask for {stored}, or leave precision out"
            return (), Reason(check="precision", required=asked, found=stored, fix=fix)
        return (stored,), None
    computes: Mapping[str, Sequence[str]] = dict(status.precisions)
    offered = ("fp32",) if as_graph else computes.get(device_kind(device), ("fp32",))
    usable = tuple(precision for precision in wanted or ("fp32",) if precision in offered)
    if usable:
        return usable, None
    found = f"{backend.name} on {device_kind(device)} computes in {', '.join(offered)}"
    fix = f"ask for {' or '.join(offered)}"
    return (), Reason(check="precision", required=asked if wanted else "fp32", found=found, fix=fix)


def _machine(needs: Requirements, environment: Environment, status: BackendStatus, device: str) -> list[Reason]:
    reasons: list[Reason] = []

    def one_of(check: str, required: tuple[str, ...], found: str) -> None:
        if required and _machine_name(found) not in [_machine_name(r) for r in required]:
            reasons.append(Reason(check=check, required=" or ".join(required), found=found))

    one_of("system", needs.systems, environment.system)
    one_of("machine", needs.machines, environment.machine)
    if needs.l4t is not None and not f"{environment.l4t or ''}.".startswith(f"{needs.l4t}."):
        reasons.append(Reason(check="l4t", required=needs.l4t, found=environment.l4t or "not a Jetson"))
    reasons += _gpu_reasons(needs, environment, device)
    if needs.runtime_version is not None and status.usable and not _version_fits(needs.runtime_version, status.version):
        reasons.append(
            Reason(check="runtime", required=f"version {needs.runtime_version}", found=status.version or "unknown")
        )
    return reasons


def _machine_name(name: str) -> str:
    """One name for one processor: Windows and macOS have their own."""
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())


def _gpu_reasons(needs: Requirements, environment: Environment, device: str) -> list[Reason]:
    kind, _, index = device.partition(":")
    gpu = next((g for g in environment.gpus if kind == "cuda" and str(g.index) == (index or "0")), None)
    absent = "no such GPU" if kind == "cuda" else kind
    reasons = []
    if needs.compute_capability is not None and (gpu is None or gpu.compute_capability != needs.compute_capability):
        required = f"compute capability {needs.compute_capability}"
        found = absent if gpu is None else gpu.compute_capability or "unknown"
        reasons.append(Reason(check="gpu", required=required, found=found))
    if needs.gpu_name is not None and (gpu is None or gpu.name != needs.gpu_name):
        reasons.append(Reason(check="gpu", required=needs.gpu_name, found=gpu.name if gpu else absent))
    return reasons


def _version_fits(required: str, found: str | None) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion

    if found is None:
        return False
    try:
        return SpecifierSet(required if required.startswith(("<", ">", "=", "!", "~")) else f"=={required}").contains(
            found, prereleases=True
        )
    except (InvalidSpecifier, InvalidVersion):
        return required == found


def _notes(choices: Sequence[Choice], environment: Environment, request: Request) -> tuple[str, ...]:
    if choices and environment.gpus and request.device is None and device_kind(choices[0].device) == "cpu":
        names = ", ".join(gpu.name for gpu in environment.gpus)
        return (
            f"note: this machine has a GPU ({names}) that no installed backend can use for this model; "
            'it will run on the CPU. Install one that can (pip install "lensmount[onnx-gpu]" or a CUDA torch), '
            "or pass device='cpu' to say that this is meant.",
        )
    return ()
