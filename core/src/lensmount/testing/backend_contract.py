"""What a backend promises."""

from __future__ import annotations


class BackendContract:
    """Subclass as `Test…` and set `backend`."""

    backend: str = ""
