"""Fixtures for tests of plugins; loaded by every pytest run where lensmount is installed, so it imports only pytest."""

from __future__ import annotations
