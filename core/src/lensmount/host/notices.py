"""What a load tells the user besides its result: the licence of the weights, and a GPU that is not used."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from lensmount.errors import DeviceNotice, LicenceNotice

if TYPE_CHECKING:
    from lensmount.host.plan import LoadPlan
    from lensmount.specs import ModelCard


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
