"""Hooks of lensmount-onnx. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """ONNX graphs on onnxruntime."""
    yield Backend(
        name="onnx",
        formats=("onnx", "graph"),
        probe="lensmount_onnx.backend:probe",
        opener="lensmount_onnx.backend:open_session",
        preference=(("cpu", 30), ("cuda", 10)),
        extra="lensmount[onnx]",
    )
