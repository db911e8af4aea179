"""What lensmount asks of every plugin and cache, tested by its conformance kit."""

from __future__ import annotations

import uuid

import pytest

from lensmount_testing import CacheContract, PluginContract

pytest.importorskip("redis")


class TestPlugin(PluginContract):
    distribution = "lensmount-redis-cache"


class TestCache(CacheContract):
    cache = "redis"
    persistent = True

    @pytest.fixture
    def cache_settings(self, redis_server):
        """The tests' own server, and a prefix for each test."""
        return {"url": redis_server.url, "prefix": f"contract-{uuid.uuid4().hex}"}
