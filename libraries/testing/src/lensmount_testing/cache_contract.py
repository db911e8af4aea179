"""What a cache promises beyond the words of `lensmount.contracts.cache.Cache`; docs/conformance.md says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest

from lensmount.contracts.cache import Cache
from lensmount.errors import LensmountError
from lensmount.specs.imports import import_string
from lensmount_testing.guards import forbidden

MakeCache = Callable[..., Any]

_SIDE = 64 * 1024  # bytes of one value: a cache's own bookkeeping is small compared with it
_ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "float32": np.arange(12, dtype=np.float32).reshape(3, 4) / 7,
    "float16": np.linspace(-1, 1, 6, dtype=np.float16),
    "float64": np.array([np.pi, np.inf, -0.0, np.nan]),
    "int64": np.array([[-(2**62)], [2**62]], np.int64),
    "uint8": np.arange(256, dtype=np.uint8),
    "bool": np.array([True, False, True]),
    "scalar": np.array(2.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "strided": np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::-3],
    "transposed": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
}
_STRUCTURES: dict[str, Any] = {
    "text": "ein Satz, 一句话 🙂",
    "bytes": b"\x00\xff\n",
    "numbers": (1, -2.5, True, False, 2**62),
    "nested": {"boxes": [np.eye(2, dtype=np.float32), ("x", None)], "size": (480, 640)},
    "nothing in it": ((), [], {}, "", b""),
}
_KEYS = ("a", "A", "b", "a/b", "a:b", "a b", "../a", "a\nb", "ä", "a" * 1000, "a" * 1000 + "b", "*", "a*", "")


class CacheContract:
    """Tests of one kind of cache. Subclass it as `Test…`, and name the cache, or give a fixture `cache`.

    Attributes:
        cache: Name that the cache is registered under. Instead of it: a fixture `cache` that gives an empty cache;
            tests that need one of certain bounds are then skipped, unless a fixture `make_cache` makes those.
        settings: Settings of the factory; or override the fixture `cache_settings` where they are not known beforehand.
        entries_setting: Name of the setting that bounds the number of entries, None where there is none.
        bytes_setting: The same for bytes.
        bounded_by: What bounds it, in words, where no setting does (`"maxmemory of the server"`).
        shares_values: It hands out the very objects that were put in, and says so: their users must not change them.
        persistent: A new cache with the same settings has the entries of the last one.
        pause: Seconds after which two uses count as one after the other.
    """

    cache: Any = ""
    settings: ClassVar[Mapping[str, Any]] = {}
    entries_setting: ClassVar[str | None] = "max_entries"
    bytes_setting: ClassVar[str | None] = "max_bytes"
    bounded_by: ClassVar[str | None] = None
    shares_values: ClassVar[bool] = False
    persistent: ClassVar[bool] = False
    pause: ClassVar[float] = 0.02

    @pytest.fixture
    def cache_settings(self) -> Mapping[str, Any]:
        """Settings of the factory, the same during one test."""
        return dict(self.settings)

    @pytest.fixture
    def make_cache(self, cache_settings: Mapping[str, Any]) -> Iterator[MakeCache]:
        """Makes caches; keywords are added to the settings. They are emptied and closed after the test."""
        if not isinstance(self.cache, str):
            pytest.skip("only a fixture `cache` is given, and this needs caches of its own: give `make_cache` too")
        factory = self._factory()
        made: list[Any] = []

        def make(**more: Any) -> Any:
            made.append(factory(**{**cache_settings, **more}))
            return made[-1]

        yield make
        for item in made:
            item.clear()
            if callable(getattr(item, "close", None)):
                item.close()

    @pytest.fixture
    def fresh(self, request: pytest.FixtureRequest) -> Any:
        """An empty cache."""
        if isinstance(self.cache, str):
            return request.getfixturevalue("make_cache")()
        return request.getfixturevalue("cache")

    def _factory(self) -> Callable[..., Any]:
        from lensmount.registry import default

        providers = default().index.caches
        assert self.cache in providers, f"no cache {self.cache!r} is registered, only {', '.join(providers)}"
        factory: Callable[..., Any] = import_string(providers[self.cache].factory, f"cache {self.cache!r}")
        return factory

    # --- what it is ---------------------------------------------------------------------------------------------------

    def test_is_a_cache(self, fresh: Any) -> None:
        """It has `get`, `put`, `clear` and a length."""
        missing = [name for name in ("get", "put", "clear", "__len__") if not callable(getattr(fresh, name, None))]
        assert not missing, f"{type(fresh).__name__} has no {', '.join(missing)}"
        assert isinstance(fresh, Cache)

    def test_refuses_unknown_settings(self, make_cache: MakeCache) -> None:
        """A misspelt setting is an error."""
        with pytest.raises((TypeError, LensmountError)):
            make_cache(max_entires_misspelt=3)

    # --- values -------------------------------------------------------------------------------------------------------

    def test_missing_is_none(self, fresh: Any) -> None:
        """What was never put in is None, not an error."""
        assert fresh.get("never put in") is None, "a key that was never put in gives something"

    @pytest.mark.parametrize("name", _ARRAYS)
    def test_gives_back_arrays(self, fresh: Any, name: str) -> None:
        """Arrays come back with their dtype, shape and every bit."""
        fresh.put("key", _ARRAYS[name])
        _require_same(fresh.get("key"), _ARRAYS[name])

    @pytest.mark.parametrize("name", _STRUCTURES)
    def test_gives_back_structures(self, fresh: Any, name: str) -> None:
        """Tuples, lists, dicts, texts and numbers come back as what they were."""
        fresh.put("key", _STRUCTURES[name])
        _require_same(fresh.get("key"), _STRUCTURES[name])

    def test_replaces(self, fresh: Any) -> None:
        """Put again under one key, the later value is there, once."""
        fresh.put("key", _value(1))
        fresh.put("key", _value(2))
        _require_same(fresh.get("key"), _value(2))
        assert len(fresh) == 1, f"one key was put in twice, and there are {len(fresh)} entries"

    def test_keeps_keys_apart(self, fresh: Any) -> None:
        """Each key has its own value, whatever characters are in it."""
        for number, key in enumerate(_KEYS):
            fresh.put(key, np.array([number]))
        for number, key in enumerate(_KEYS):
            found = fresh.get(key)
            assert found is not None and found.tolist() == [number], f"key {key[:20]!r} has the value of another"

    def test_values_are_not_shared(self, fresh: Any) -> None:
        """Neither the array that was put in nor the one handed out changes what is kept."""
        if self.shares_values:
            pytest.skip("hands out the very objects that were put in, and says so")
        given = _value(1)
        fresh.put("key", given)
        given += 1
        _require_same(fresh.get("key"), _value(1))
        handed = fresh.get("key")
        if handed.flags.writeable:
            handed += 1
        _require_same(fresh.get("key"), _value(1))

    # --- how many -----------------------------------------------------------------------------------------------------

    def test_counts_and_clears(self, fresh: Any) -> None:
        """Its length is the number of entries; `clear` drops them all."""
        assert len(fresh) == 0, "a new cache is not empty"
        for number in range(3):
            fresh.put(f"key {number}", np.array([number]))
        assert len(fresh) == 3, f"three values were put in, and its length is {len(fresh)}"
        fresh.clear()
        assert len(fresh) == 0 and fresh.get("key 1") is None, "something is left after clear()"
        fresh.put("key", np.array([1]))
        assert fresh.get("key") is not None, "nothing is kept after clear()"

    def test_is_bounded(self) -> None:
        """Something bounds it: a setting, or what the class says in words."""
        assert self.entries_setting or self.bytes_setting or self.bounded_by, (
            "nothing bounds this cache: a process that runs for weeks fills the memory"
        )

    def test_bounded_by_entries(self, make_cache: MakeCache) -> None:
        """A limit of entries is not exceeded, and is made use of."""
        cache = make_cache(**self._entries(3))
        for number in range(6):
            cache.put(f"key {number}", np.array([number]))
            assert len(cache) == min(number + 1, 3), f"{len(cache)} entries of {number + 1} under a limit of 3"

    def test_bounded_by_bytes(self, make_cache: MakeCache) -> None:
        """A limit of bytes is not exceeded, and is made use of."""
        cache = make_cache(**self._bytes(3.5))
        for number in range(6):
            cache.put(f"key {number}", _value(number))
            time.sleep(self.pause)
            assert len(cache) == min(number + 1, 3), f"{len(cache)} entries where 3 and a half have room"

    def test_drops_the_least_recently_used(self, make_cache: MakeCache) -> None:
        """What goes is what was used longest ago; `get` and `put` count as uses."""
        if not (self.entries_setting or self.bytes_setting):
            pytest.skip("it has no bound of its own")
        cache = make_cache(**(self._entries(3) if self.entries_setting else self._bytes(3.5)))

        def use(do: Callable[..., Any], *arguments: Any) -> None:
            do(*arguments)
            time.sleep(self.pause)

        for number in range(3):
            use(cache.put, f"key {number}", _value(number))
        use(cache.get, "key 0")
        use(cache.put, "key 1", _value(1))
        use(cache.put, "key 3", _value(3))
        left = [number for number in range(4) if cache.get(f"key {number}") is not None]
        assert left == [0, 1, 3], f"key 2 was used longest ago; left are {left}"

    def test_too_large_a_value_is_left_out(self, make_cache: MakeCache) -> None:
        """A value that does not fit by itself is not kept, without an error; what was there under its key is gone."""
        cache = make_cache(**self._bytes(2.5))
        cache.put("small", _value(1))
        cache.put("key", _value(2))
        cache.put("key", np.zeros(4 * _SIDE, np.uint8))
        assert cache.get("key") is None, "a value larger than the limit was kept, or an outdated one is there"
        assert cache.get("small") is not None, "a value that was not kept drove out others"

    def _entries(self, count: int) -> dict[str, Any]:
        if self.entries_setting is None:
            pytest.skip("no setting bounds the number of entries")
        return {self.entries_setting: count}

    def _bytes(self, values: float) -> dict[str, Any]:
        if self.bytes_setting is None:
            pytest.skip("no setting bounds the bytes")
        return {self.bytes_setting: int(values * _SIDE)}

    # --- use ----------------------------------------------------------------------------------------------------------

    def test_threads(self, fresh: Any) -> None:
        """Eight threads that put and get at once see whole values of the key that they asked for, and no error."""
        begin = threading.Barrier(8)

        def work(seed: int) -> None:
            begin.wait(timeout=60)
            for step in range(40):
                number = (seed * 7 + step * 3) % 5
                fresh.put(f"key {number}", np.full(500, number))
                found = fresh.get(f"key {(number + step) % 5}")
                assert found is None or (found.shape == (500,) and (found == (number + step) % 5).all()), (
                    "a value is torn, or that of another key"
                )

        with ThreadPoolExecutor(8) as pool:
            for done in [pool.submit(work, seed) for seed in range(8)]:
                done.result(timeout=300)
        assert len(fresh) <= 5, f"{len(fresh)} entries of 5 keys"

    def test_reads_no_pickle(self, fresh: Any) -> None:
        """Reading a value runs no code: nothing is unpickled."""
        with forbidden("pickle", saying="a value is unpickled, which can run whatever is in it"):
            fresh.put("key", {"vectors": (_value(1), "text")})
            fresh.get("key")

    def test_survives(self, make_cache: MakeCache) -> None:
        """A new cache with the same settings has the entries of the last one."""
        if not self.persistent:
            pytest.skip("not persistent")
        first = make_cache()
        first.put("key", _value(1))
        if callable(getattr(first, "close", None)):
            first.close()
        again = make_cache()
        _require_same(again.get("key"), _value(1))

    def test_closes_twice(self, fresh: Any) -> None:
        """Where it has `close`, a second call does nothing."""
        close = getattr(fresh, "close", None)
        if close is None:
            pytest.skip("has no close")
        fresh.put("key", _value(1))
        close()
        close()


def _value(number: int) -> np.ndarray[Any, Any]:
    return np.full(_SIDE // 4, number, np.float32)


def _require_same(found: Any, given: Any) -> None:
    if isinstance(given, np.ndarray):
        assert isinstance(found, np.ndarray), f"an array comes back as {type(found).__name__}"
        assert found.dtype == given.dtype, f"{given.dtype} comes back as {found.dtype}"
        assert found.shape == given.shape, f"shape {given.shape} comes back as {found.shape}"
        # Compared outside of `assert`: under CI=true pytest would write out how the bytes differ, for minutes.
        same = found.tobytes() == np.ascontiguousarray(given).tobytes()
        assert same, "the numbers are other ones"
        return
    assert type(found) is type(given), f"{type(given).__name__} comes back as {type(found).__name__}"
    if isinstance(given, dict):
        assert list(found) == list(given), f"keys {list(given)} come back as {list(found)}"
        for key, value in given.items():
            _require_same(found[key], value)
    elif isinstance(given, tuple | list):
        assert len(found) == len(given), f"{len(given)} items come back as {len(found)}"
        for item, value in zip(found, given, strict=True):
            _require_same(item, value)
    else:
        same = bool(found == given)
        assert same, f"{given!r} comes back as {found!r}"
