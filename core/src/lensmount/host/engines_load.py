"""What `load` does where a backend builds its own packages and none that runs here is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lensmount.errors import NoPackageError
from lensmount.host.engines import build
from lensmount.host.selection import normalise_device

if TYPE_CHECKING:
    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.registry_class import Registry
    from lensmount.host.selection import LoadPlan
    from lensmount.specs import Backend, ModelCard


def build_or_refuse(host: Registry, plan: LoadPlan, backend: Backend, when: str, fetch: FetchOptions) -> LoadPlan:
    """Builds a package if the caller said so, and plans again.

    Args:
        host: Where plugins and the machine are known.
        plan: A plan without a choice, for a backend that was asked for by name.
        backend: That backend.
        when: `never` or `if-missing`.
        fetch: How the model's files may be fetched.

    Returns:
        The new plan; the old one for a backend that builds nothing, or is not usable here.

    Raises:
        NoPackageError: Nobody asked for a build, or the backend does not run on the device asked for.
        LensmountError: As for `lensmount.host.engines.build`.
    """
    status = next(s for b, s in host.backends() if b.name == backend.name)
    if backend.builder is None or not status.usable:
        return plan
    request = plan.request
    if request.device is not None and normalise_device(request.device) not in status.devices:
        raise NoPackageError(
            f"{backend.name} does not run on {request.device!r}",
            found=request.device,
            expected=", ".join(status.devices),
        )
    if when == "never":
        raise NoPackageError(
            f"{plan.card.id!r} has no package that {backend.name} can run here, and none is built unasked",
            found="\n" + str(plan),
            fix=f"{command(plan.card, backend, request.precision)}; or load(..., build='if-missing')",
        )
    build(host, plan.card, backend, precision=request.precision, device=request.device, fetch=fetch, settings={})
    return host.plan(plan.card, backend.name, request.device, request.precision)


def command(card: ModelCard, backend: Backend, precision: str | None) -> str:
    """The command that builds a package."""
    return f"lensmount export {card.id} --to {backend.name}" + (f" --precision {precision}" if precision else "")
