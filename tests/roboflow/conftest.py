"""The provider's server, for all tests of the plugin."""

from __future__ import annotations

from roboflow_provider import provider

__all__ = ["provider"]
