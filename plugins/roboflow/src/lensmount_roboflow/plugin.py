"""Hooks of lensmount-roboflow. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Source, hookimpl


@hookimpl
def lensmount_sources() -> Iterable[Source]:
    """Addresses such as `roboflow://my-project/3`."""
    yield Source(
        scheme="roboflow",
        finder="lensmount_roboflow.finder:RoboflowFinder",
        description="a model on Roboflow: roboflow://project/version",
    )
