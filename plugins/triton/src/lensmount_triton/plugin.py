"""Hooks of lensmount-triton. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Backend, Exporter, hookimpl


@hookimpl
def lensmount_backends() -> Iterable[Backend]:
    """`triton`: on a server that `LENSMOUNT_TRITON_URL` names; for who asks for it, and never chosen by itself."""
    yield Backend(
        name="triton",
        formats=("onnx",),
        probe="lensmount_triton.config:probe",
        opener="lensmount_triton.backend:open_session",
        extra="lensmount-triton[client]",
    )


@hookimpl
def lensmount_exporters() -> Iterable[Exporter]:
    """Model repositories."""
    yield Exporter(
        name="triton",
        target="triton",
        precisions=("fp32", "fp16", "bf16", "int8"),
        export="lensmount_triton.export:export",
        settings=("model_name", "max_batch_size", "max_queue_delay_us"),
        from_graph=True,
        description="a model repository for NVIDIA's Triton: the graph and its config.pbtxt",
    )
