"""Hooks: one backend, which opens what the core's `onnx` backend opens."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """`openvino`: behind onnxruntime and torch, so that installing it changes no model's backend by itself."""
    yield Backend(
        name="openvino",
        formats=("onnx",),
        probe="lensmount_openvino.probing:probe",
        opener="lensmount_openvino.backend:open_session",
        preference=(("cpu", 10),),
        extra="lensmount-openvino",
    )
