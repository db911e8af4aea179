"""What a source promises."""

from __future__ import annotations


class SourceContract:
    """Subclass as `Test…` and set `scheme`."""

    scheme: str = ""
