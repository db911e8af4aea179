"""A bounded cache on a Redis server, which no failure of the server's can bring down."""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from lensmount.caches import dumps, loads
from lensmount.errors import AuthenticationError, OfflineError, OptionError, StoreError
from lensmount.specs import is_offline
from lensmount_redis_cache import scripts

PREFIX = re.compile(r"[A-Za-z0-9._:/-]+")
LARGEST = 512 * 1024 * 1024
"""Bytes of one value that Redis takes."""


class RedisCacheWarning(UserWarning):
    """The Redis server failed; models go on without the cache."""


class RedisCache:
    """A bounded cache on a Redis server, shared by threads, processes and machines.

    Values are data (`lensmount.caches.dumps`): reading one runs no code, whatever it holds; a damaged entry counts
    as absent and is removed. Bounds hold for all that share a prefix: give them the same ones.

    A server that cannot be reached is an error when the cache is made. Later, a failure makes `get` a miss and `put` do
    nothing, with one warning for each outage; the server is then left alone for `pause` seconds, so that a dead one
    costs calls nothing.

    Args:
        url: `redis://[user:password@]host:port/database`, `rediss://…` (TLS) or `unix:///path/to/socket?db=0`.
        prefix: Begins the names of all keys; caches with different prefixes do not meet.
        max_entries: Most entries; None for no limit, 0 keeps nothing.
        max_bytes: Most bytes of all entries; a larger value is not kept.
        ttl: Seconds after which an entry that nobody used goes; None for never.
        timeout: Seconds to wait for the server, to connect and for each answer.
        pause: Seconds to leave the server alone after a failure.

    Raises:
        OptionError: A setting is not valid.
        OfflineError: Offline was asked for, and the server is not on this machine.
        AuthenticationError: The server wants a password, or another one.
        StoreError: The server cannot be reached.
    """

    def __init__(
        self,
        *,
        url: str = "redis://127.0.0.1:6379/0",
        prefix: str = "lensmount",
        max_entries: int | None = None,
        max_bytes: int = 1024**3,
        ttl: float | None = None,
        timeout: float = 1.0,
        pause: float = 5.0,
    ) -> None:
        if not isinstance(prefix, str) or not PREFIX.fullmatch(prefix):
            raise OptionError(
                "prefix is not valid", found=repr(prefix), expected="letters, digits and any of . _ : / -"
            )
        self.prefix = prefix
        self.max_entries = None if max_entries is None else _count("max_entries", max_entries)
        self.max_bytes = _count("max_bytes", max_bytes)
        self.ttl = None if ttl is None else _seconds("ttl", ttl)
        self.pause = _seconds("pause", pause, least=0)
        self.address = _address(url)
        try:
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=_seconds("timeout", timeout),
                socket_connect_timeout=timeout,
                retry=Retry(NoBackoff(), 1),  # once: for a connection that the server has closed meanwhile
            )
        except (ValueError, TypeError) as error:  # a URL that redis-py does not understand
            raise OptionError("url is not valid", found=self.address, expected="redis://host:port/database") from error
        # In braces: a cluster keeps all keys of one cache on one node.
        self._values = f"{{{prefix}}}:value:"
        self._keys = [f"{{{prefix}}}:{name}" for name in ("used", "sizes", "bytes")]
        sources = {"get": scripts.GET, "put": scripts.PUT, "drop": scripts.DROP}
        sources |= {"count": scripts.COUNT, "bytes": scripts.BYTES}
        self._scripts = {name: self._client.register_script(text) for name, text in sources.items()}
        self._lock = threading.Lock()
        self._rests_until = 0.0
        self._told = False
        try:
            self._run("count")
        except redis.RedisError as error:
            self._client.close()
            raise self._failed(error) from error

    def get(self, key: str) -> Any | None:
        """The value, or None; None as well while the server fails. Counts as a use.

        Arrays are read-only; tensors come back on the CPU.
        """
        entry = _entry(key)
        data = self._attempt(lambda: self._run("get", entry))
        if not isinstance(data, bytes):
            return None
        try:
            return loads(data)
        except ValueError:
            self._attempt(lambda: self._run("drop", entry))
            return None

    def put(self, key: str, value: Any) -> None:
        """Stores a value, and drops the least recently used ones that no longer fit; nothing while the server fails.

        Raises:
            InputError: The value holds something that `lensmount.caches.dumps` does not take.
        """
        data = b"".join(dumps(value))
        entry = _entry(key)
        if len(data) > min(self.max_bytes, LARGEST):
            self._attempt(lambda: self._run("drop", entry))
            return
        most = -1 if self.max_entries is None else self.max_entries
        self._attempt(lambda: self._run("put", entry, data, most, self.max_bytes))

    def clear(self) -> None:
        """Drops everything below the prefix.

        Raises:
            StoreError: The server fails: something may be left.
        """
        pattern = "{" + self.prefix + "}:*"  # nothing in a prefix has a meaning in a pattern
        try:
            for name in self._client.scan_iter(match=pattern, count=1000):
                self._client.unlink(name)
        except redis.RedisError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Gives the connections back; a later use opens new ones."""
        self._client.close()

    def __len__(self) -> int:
        found = self._attempt(lambda: self._run("count"))
        return found if isinstance(found, int) else 0

    @property
    def nbytes(self) -> int:
        """Bytes of all entries; 0 while the server fails."""
        found = self._attempt(lambda: self._run("bytes"))
        return found if isinstance(found, int) else 0

    def __repr__(self) -> str:
        return f"RedisCache({self.address!r}, prefix={self.prefix!r})"

    def _run(self, name: str, *arguments: str | bytes | int) -> object:
        ttl = 0 if self.ttl is None else max(1, round(self.ttl * 1000))
        answer: object = self._scripts[name](keys=self._keys, args=[self._values, ttl, *arguments])
        return answer

    def _attempt(self, step: Callable[[], object]) -> object:
        """Does something with the server; None where it fails, or has failed a moment ago."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            answer = step()
        except redis.RedisError as error:
            with self._lock:
                tell, self._told = not self._told, True
                self._rests_until = time.monotonic() + self.pause
            if tell:
                then = f"models go on without it; it is tried again every {self.pause:g} s"
                warnings.warn(f"{self._failed(error)}\n  meanwhile: {then}", RedisCacheWarning, stacklevel=3)
            return None
        self._told = False
        return answer

    def _failed(self, error: redis.RedisError) -> StoreError | AuthenticationError:
        if isinstance(error, redis.AuthenticationError) or "NOAUTH" in str(error) or "WRONGPASS" in str(error):
            return AuthenticationError(
                f"the Redis server at {self.address} refuses the password",
                found=str(error),
                fix="give it in the url: redis://user:password@host:port/0",
            )
        return StoreError(
            f"the Redis server at {self.address} cannot serve as a cache",
            found=str(error) or type(error).__name__,
            fix="start it, or leave the cache out",
        )


def _entry(key: str) -> str:
    # Hashed: a name of one length, whatever the key holds.
    return hashlib.blake2b(key.encode(), digest_size=20).hexdigest()


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise OptionError(f"{name} is not valid", found=repr(value), expected="an integer from 0")
    return value


def _seconds(name: str, value: object, least: float = 0.001) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
        raise OptionError(f"{name} is not valid", found=repr(value), expected=f"seconds, at least {least:g}")
    return float(value)


def _address(url: str) -> str:
    """The URL without user and password.

    Raises:
        OptionError: No URL of a Redis server.
        OfflineError: Offline was asked for, and it is on another machine.
    """
    expected = "redis://host:port/database, rediss://…, unix:///path"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError, TypeError):
        raise OptionError("url is not valid", expected=expected) from None
    if "decode_responses" in parts.query:
        raise OptionError("url is not valid", found="decode_responses", expected="answers as bytes: leave it out")
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if parts.scheme not in ("redis", "rediss"):
        raise OptionError("url is not valid", found=f"scheme {parts.scheme!r}", expected=expected)
    host = host or "localhost"
    shown = f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or 6379}{parts.path}"
    if is_offline() and host not in ("localhost", "127.0.0.1", "::1"):
        raise OfflineError(
            f"the Redis server at {shown} was not asked: offline was asked for",
            found="LENSMOUNT_OFFLINE, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set",
            fix="a server on this machine, or unset the variable",
        )
    return shown
