"""Caches that keep every promise, and one for each promise that breaks it."""

from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest

from contract_cases import Case, classes
from lensmount.caches.disk import DiskCache
from lensmount.caches.memory import MemoryCache
from lensmount_testing import CacheContract


class Copying(MemoryCache):
    """The memory cache, with copies."""

    closed = False

    def get(self, key):
        return copy.deepcopy(super().get(key))

    def put(self, key, value):
        super().put(key, copy.deepcopy(value))

    def close(self):
        self.closed = True


def body(kind, base=Copying, **more):
    """A class body that tests a cache derived from `base` with the attributes of `kind`."""
    own = {name: value for name, value in vars(kind).items() if not name.startswith("__") or callable(value)}
    made = kind if issubclass(kind, base) else type(kind.__name__, (base,), own)

    @pytest.fixture
    def make_cache(self):
        return lambda **settings: made(**settings)

    return {"cache": "memory", "make_cache": make_cache, **more}


class NoLength:
    clear = None


class Swallows:
    def __init__(self, max_entries=256, max_bytes=None, **settings):
        MemoryCache.__init__(self, max_entries, max_bytes)


class Raises:
    def get(self, key):
        if key not in self:
            raise KeyError(key)
        return Copying.get(self, key)


class Widens:
    def get(self, key):
        found = Copying.get(self, key)
        return found.astype(np.float64) if isinstance(found, np.ndarray) and found.dtype == np.float16 else found


class Flattens:
    def get(self, key):
        found = Copying.get(self, key)
        return found.reshape(-1) if isinstance(found, np.ndarray) and found.ndim == 0 else found


class Listing:
    def get(self, key):
        found = Copying.get(self, key)
        return list(found) if isinstance(found, tuple) else found


class Keeps:
    def put(self, key, value):
        if key not in self:
            Copying.put(self, key, value)


class Lower:
    def get(self, key):
        return Copying.get(self, key.lower())

    def put(self, key, value):
        Copying.put(self, key.lower(), value)


class Short:
    def get(self, key):
        return Copying.get(self, key[:200])

    def put(self, key, value):
        Copying.put(self, key[:200], value)


class Alias:
    def put(self, key, value):
        MemoryCache.put(self, key, value)


class HandsOut:
    def get(self, key):
        return MemoryCache.get(self, key)


class CountsTwice:
    def __len__(self):
        return 2 * Copying.__len__(self)


class Clearless:
    def clear(self):
        return


class Unbounded:
    def __init__(self, max_entries=None, max_bytes=None):
        MemoryCache.__init__(self, None, None)


class OneLess:
    def __init__(self, max_entries=256, max_bytes=None):
        MemoryCache.__init__(self, max_entries - 1, max_bytes and max_bytes // 2)


class FirstIn:
    """First in, first out: a use counts for nothing."""

    def get(self, key):
        with self._lock:
            entry = self._first.entries.get(key)
        return None if entry is None else copy.deepcopy(entry[0])


class PutsCountForNothing:
    def put(self, key, value):
        with self._lock:
            if key in self._first.entries:
                self._first.entries[key] = (copy.deepcopy(value), self._first.entries[key][1])
                return
        Copying.put(self, key, value)


class TooLarge:
    def put(self, key, value):
        if np.asarray(value).nbytes > (self._first.max_bytes or 1 << 60):
            raise ValueError("too large")
        Copying.put(self, key, value)


class Outdated:
    def put(self, key, value):
        if np.asarray(value).nbytes <= (self._first.max_bytes or 1 << 60):
            Copying.put(self, key, value)


class DrivesOut:
    def put(self, key, value):
        if np.asarray(value).nbytes > (self._first.max_bytes or 1 << 60):
            self.clear()
            return
        Copying.put(self, key, value)


class Torn:
    """Two threads share a place where values are put together."""

    place = np.zeros(500)

    def get(self, key):
        found = Copying.get(self, key)
        if found is None or found.shape != (500,):
            return found
        self.place[:250] = found[:250]
        time.sleep(0.0005)
        self.place[250:] = found[250:]
        return self.place.copy()


class Pickles:
    def get(self, key):
        return pickle.loads(pickle.dumps(Copying.get(self, key)))


class HidesPickles:
    def get(self, key):
        try:
            return pickle.loads(pickle.dumps(Copying.get(self, key)))
        except Exception:
            return None


class Once:
    def close(self):
        if self.closed:
            raise RuntimeError("already closed")
        self.closed = True


CASES = [
    Case("test_is_a_cache", "has no clear", body(NoLength)),
    Case("test_refuses_unknown_settings", "DID NOT RAISE", body(Swallows)),
    Case("test_missing_is_none", "KeyError", body(Raises)),
    Case("test_gives_back_arrays", "float16 comes back as float64", body(Widens)),
    Case("test_gives_back_arrays", "shape () comes back as (1,)", body(Flattens), "shape"),
    Case("test_gives_back_structures", "tuple comes back as list", body(Listing)),
    Case("test_replaces", "the numbers are other ones", body(Keeps)),
    Case("test_keeps_keys_apart", "has the value of another", body(Lower)),
    Case("test_keeps_keys_apart", "has the value of another", body(Short), "long"),
    Case("test_values_are_not_shared", "the numbers are other ones", body(Alias)),
    Case("test_values_are_not_shared", "the numbers are other ones", body(HandsOut), "out"),
    Case("test_counts_and_clears", "its length is 6", body(CountsTwice)),
    Case("test_counts_and_clears", "left after clear", body(Clearless), "clear"),
    Case("test_is_bounded", "nothing bounds", {"entries_setting": None, "bytes_setting": None}),
    Case("test_bounded_by_entries", "4 entries of 4 under a limit of 3", body(Unbounded)),
    Case("test_bounded_by_entries", "2 entries of 3 under a limit of 3", body(OneLess), "less"),
    Case("test_bounded_by_bytes", "4 entries where 3", body(Unbounded)),
    Case("test_bounded_by_bytes", "1 entries where 3", body(OneLess), "less"),
    Case("test_drops_the_least_recently_used", "left are [1, 2, 3]", body(FirstIn)),
    Case("test_drops_the_least_recently_used", "left are [1, 2, 3]",
         body(FirstIn, entries_setting=None), "bytes"),
    Case("test_drops_the_least_recently_used", "left are [0, 2, 3]", body(PutsCountForNothing), "put"),
    Case("test_too_large_a_value_is_left_out", "too large", body(TooLarge)),
    Case("test_too_large_a_value_is_left_out", "an outdated one", body(Outdated), "outdated"),
    Case("test_too_large_a_value_is_left_out", "drove out others", body(DrivesOut), "others"),
    Case("test_threads", "torn", body(Torn)),
    Case("test_reads_no_pickle", "is unpickled", body(Pickles)),
    Case("test_reads_no_pickle", "is unpickled", body(HidesPickles), "hidden"),
    Case("test_survives", "comes back as NoneType", {"cache": "memory", "persistent": True}),
    Case("test_closes_twice", "already closed", body(Once)),
]  # fmt: skip


class TestKeepsCopying(CacheContract):
    locals().update(body(Copying))


class TestKeepsOnDisk(CacheContract):
    """All that a disk brings: a bound of bytes alone, and another process later."""

    persistent = True
    entries_setting = None

    @pytest.fixture
    def make_cache(self, tmp_path):
        return lambda **settings: DiskCache(tmp_path, **settings)


class TestKeepsGiven(CacheContract):
    """A fixture in place of a name."""

    @pytest.fixture
    def cache(self):
        return Copying()


globals().update(classes(CacheContract, CASES))
