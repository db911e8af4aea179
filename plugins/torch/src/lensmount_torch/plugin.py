"""Hooks of lensmount-torch. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """Networks that architectures build, on torch."""
    yield Backend(
        name="torch",
        formats=("torch",),
        probe="lensmount_torch.backend:probe",
        opener="lensmount_torch.backend:open_session",
        preference=(("cpu", 20), ("cuda", 20), ("mps", 20)),
        extra="lensmount[torch]",
    )
