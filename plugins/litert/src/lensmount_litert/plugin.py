"""Hooks of lensmount-litert. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """TFLite graphs on LiteRT."""
    yield Backend(
        name="litert",
        formats=("tflite",),
        probe="lensmount_litert.backend:probe",
        opener="lensmount_litert.backend:open_session",
        preference=(("cpu", 20),),
        extra="lensmount[litert]",
    )
