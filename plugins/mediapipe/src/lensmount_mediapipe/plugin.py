"""Hooks of lensmount-mediapipe. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Architecture, ModelCard, hookimpl, read_catalog


@hookimpl
def lensmount_architectures() -> Iterable[Architecture]:
    """BlazeFace, and the points of faces."""
    yield Architecture(
        name="blazeface",
        tasks=("keypoint-detection",),
        factory="lensmount_mediapipe.faces:build",
        graph="lensmount_mediapipe.conversion:graph",
        graph_formats=("tflite",),
        recognise="lensmount_mediapipe.recognise:recognise",
        description="MediaPipe's BlazeFace: faces with six landmarks",
    )
    yield Architecture(
        name="facemesh",
        tasks=("keypoint-detection",),
        factory="lensmount_mediapipe.mesh:build",
        graph="lensmount_mediapipe.conversion:graph",
        graph_formats=("tflite",),
        recognise="lensmount_mediapipe.recognise:recognise_mesh",
        description="MediaPipe's face landmarks: 468 points of a face",
    )


@hookimpl
def lensmount_model_cards() -> Iterable[ModelCard]:
    """The cards of `catalog.toml`."""
    return read_catalog("lensmount_mediapipe")
