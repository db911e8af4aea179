"""The type of what goes into a session and comes out of it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
"""A numpy array of any shape and dtype."""
