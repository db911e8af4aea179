"""Hooks of lensmount-roboflow. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Reader, Source, hookimpl


@hookimpl
def lensmount_sources() -> Iterable[Source]:
    """Addresses such as `roboflow://my-project/3`."""
    yield Source(
        scheme="roboflow",
        finder="lensmount_roboflow.finder:RoboflowFinder",
        description="a model on Roboflow: roboflow://project/version",
    )


@hookimpl
def lensmount_readers() -> Iterable[Reader]:
    """Package folders of inference-models."""
    yield Reader(
        name="inference-models",
        marker="model_config.json",
        read="lensmount_roboflow.packages.folder:read",
        description="a package folder of Roboflow's inference-models",
    )
