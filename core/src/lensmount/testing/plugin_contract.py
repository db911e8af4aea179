"""What a plugin promises."""

from __future__ import annotations


class PluginContract:
    """Subclass as `Test…` and set `distribution`."""

    distribution: str = ""
