"""The memory cache: true LRU, both bounds, tiers, threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from lensmount.backend.tensors import measure
from lensmount.caches.memory import MemoryCache
from lensmount.contracts.cache import Cache
from lensmount.errors import OptionError
from lensmount.specs import CacheProvider


def array(kilobytes: int = 1) -> np.ndarray:
    return np.ones(kilobytes * 1024, np.uint8)


def test_it_is_a_cache_and_a_factory():
    assert isinstance(MemoryCache(), Cache)
    CacheProvider(name="memory", factory="lensmount.caches.memory:MemoryCache")


def test_limit_of_two_holds_two():
    cache = MemoryCache(max_entries=2)
    for key in "abc":
        cache.put(key, key)
    assert len(cache) == 2
    assert [cache.get(key) for key in "abc"] == [None, "b", "c"]


def test_least_recently_used_goes_first():
    cache = MemoryCache(max_entries=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert cache.get("b") is None
    assert cache.get("a") == 1
    cache.put("c", 4)  # a replacement is a use, and no second entry
    assert len(cache) == 2
    assert cache.get("c") == 4


def test_bytes_bound():
    cache = MemoryCache(max_entries=None, max_bytes=5 * 1024)
    for index in range(10):
        cache.put(str(index), array())
        assert cache.nbytes <= 5 * 1024
    assert len(cache) == 4  # a kibibyte and its header each
    cache.put("large", array(6))  # is not kept, and drops nothing
    assert cache.get("large") is None
    assert len(cache) == 4
    cache.put("9", array(6))  # too large now: the old value must not stay
    assert cache.get("9") is None
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_zero_keeps_nothing():
    for cache in (MemoryCache(max_entries=0), MemoryCache(max_bytes=0)):
        cache.put("a", array())
        assert cache.get("a") is None


@pytest.mark.parametrize(
    "settings", [{"max_entries": -1}, {"max_bytes": 1.5}, {"host_entries": True}, {"host_bytes": "1"}]
)
def test_bad_limits(settings: dict):
    with pytest.raises(OptionError, match=next(iter(settings))):
        MemoryCache(**settings)


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass(frozen=True, slots=True)
class Embedding:
    values: Any
    size: tuple[int, int]


def test_measure_counts_what_is_kept_alive():
    big = np.zeros(10**6, np.uint8)
    assert measure(big) == pytest.approx(10**6, rel=0.01)
    assert measure(big[:10]) == pytest.approx(10**6, rel=0.01)  # a view keeps it all
    assert measure([big, big[5:], {"again": big}]) == pytest.approx(10**6, rel=0.01)
    assert measure(Pair(big, big.copy())) == pytest.approx(2 * 10**6, rel=0.01)
    assert measure(Embedding(big, (1, 2))) == pytest.approx(10**6, rel=0.01)
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(1000, 250)
    assert measure((tensor, tensor[0])) == pytest.approx(10**6, rel=0.01)


# --- device tiers, with a stand-in for a device tensor ---------------------------------------------------------------


class Device:
    def __init__(self, name: str) -> None:
        self.type = name.split(":")[0]
        self.name = name

    def __str__(self) -> str:
        return self.name


class Storage:
    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    def nbytes(self) -> int:
        return 1024

    def data_ptr(self) -> int:
        return id(self.tensor)


class Tensor:
    """Looks like torch's to the cache."""

    __module__ = "torch"

    def __init__(self, value: int, device: str = "cuda:1") -> None:
        self.value = value
        self.device = Device(device)

    def detach(self) -> Tensor:
        return self

    def to(self, device: str) -> Tensor:
        return Tensor(self.value, str(device))

    def untyped_storage(self) -> Storage:
        return Storage(self)


def devices(cache: MemoryCache) -> list[str]:
    """Where the first tier's values and then the host tier's lie."""
    return [str(_tensor(value).device) for tier in (cache._first, cache._host) for value, _ in tier.entries.values()]


def _tensor(value: Any) -> Tensor:
    while not isinstance(value, Tensor):
        value = value.values if isinstance(value, Embedding) else value[0]
    return value


WRAPPERS = [lambda t: t, lambda t: (t, 1), lambda t: [t], lambda t: Pair(t, 2), lambda t: Embedding(t, (1, 2))]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_evicted_device_values_go_to_the_host_and_come_back(wrap):
    cache = MemoryCache(max_entries=1, host_entries=2)
    for value in range(4):
        cache.put(str(value), wrap(Tensor(value)))
    assert len(cache) == 3
    assert devices(cache) == ["cuda:1", "cpu", "cpu"]
    assert cache.get("0") is None
    back = cache.get("1")
    assert type(back) is type(wrap(Tensor(1)))
    assert str(_tensor(back).device) == "cuda:1"
    assert _tensor(back).value == 1
    assert devices(cache) == ["cuda:1", "cpu", "cpu"]  # it changed places with "3"
    assert cache.get("1") is back
    cache.put("2", wrap(Tensor(9)))  # a newer value shadows the one in the host tier
    assert _tensor(cache.get("2")).value == 9


def test_host_values_do_not_move_down():
    cache = MemoryCache(max_entries=1, host_entries=5)
    cache.put("a", array())
    cache.put("b", array())
    assert len(cache) == 1


def test_send_to_cpu():
    cache = MemoryCache(send_to_cpu=True)
    cache.put("a", {"x": Tensor(1)})
    assert str(next(iter(cache._first.entries.values()))[0]["x"].tensor.device) == "cpu"
    assert str(cache.get("a")["x"].device) == "cuda:1"


def test_host_bytes_bound():
    cache = MemoryCache(max_entries=1, host_entries=None, host_bytes=2500)
    for value in range(9):
        cache.put(str(value), Tensor(value))
    assert len(cache) == 3
    assert cache.nbytes <= 2500 + 1024


def test_threads():
    cache = MemoryCache(max_entries=16, max_bytes=20 * 1024, host_entries=4)
    errors = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(400):
                key = str(rng.integers(40))
                value = cache.get(key)
                if value is not None and value[0] != int(key):
                    errors.append((key, value[0]))
                cache.put(key, np.full(1024, int(key), np.uint8))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(cache) <= 16
    assert cache.nbytes == sum(size for _, size in cache._first.entries.values())
