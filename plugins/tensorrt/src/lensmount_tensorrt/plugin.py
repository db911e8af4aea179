"""Hooks of lensmount-tensorrt. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """Engines on TensorRT, built from ONNX graphs."""
    yield Backend(
        name="tensorrt",
        formats=("engine",),
        probe="lensmount_tensorrt.backend:probe",
        opener="lensmount_tensorrt.backend:open_session",
        preference=(("cuda", 30),),
        extra="lensmount[tensorrt]",
        builder="lensmount_tensorrt.builder:EngineBuilder",
    )
