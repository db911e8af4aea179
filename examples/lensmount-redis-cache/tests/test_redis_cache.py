"""The cache against a real server: what it keeps, its bounds, and what happens when the server does not answer."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
import uuid
import warnings

import numpy as np
import pytest

from lensmount.caches import dumps, make_key
from lensmount.contracts import Cache
from lensmount.errors import AuthenticationError, InputError, OfflineError, OptionError, StoreError

redis = pytest.importorskip("redis")

from lensmount_redis_cache.cache import RedisCache, RedisCacheWarning  # noqa: E402 - after importorskip


@pytest.fixture
def client(redis_server):
    """A client of the server, for looking behind the cache."""
    with redis.Redis.from_url(redis_server.url) as found:
        yield found


@pytest.fixture
def make(redis_server):
    """Caches that share a prefix of the test's own."""
    prefix = f"test-{uuid.uuid4().hex}"
    made = []

    def make(**settings):
        made.append(RedisCache(**{"url": redis_server.url, "prefix": prefix, **settings}))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def size(value):
    return sum(len(chunk) for chunk in dumps(value))


# --- what it keeps ----------------------------------------------------------------------------------------------------


def test_values_come_back(make):
    cache = make()
    assert isinstance(cache, Cache)
    value = {"maps": (np.eye(3, dtype=np.float16), np.arange(4)), "score": 0.5, "name": "ä", "none": None}
    assert cache.get("key") is None
    cache.put("key", value)
    found = cache.get("key")
    np.testing.assert_array_equal(found["maps"][0], value["maps"][0])
    assert found["maps"][0].dtype == np.float16
    assert (found["score"], found["name"], found["none"]) == (0.5, "ä", None)
    assert len(cache) == 1
    assert cache.nbytes == size(value)


def test_another_client_sees_the_same(make, redis_server):
    make().put("key", np.arange(3))
    other = make()
    np.testing.assert_array_equal(other.get("key"), [0, 1, 2])
    assert RedisCache(url=redis_server.url, prefix="someone-else").get("key") is None


def test_another_process_sees_the_same(make):
    """Keys and values mean the same everywhere."""
    cache = make()
    cache.put(make_key("text", 1), np.arange(3))
    code = (
        "import sys; from lensmount.caches import make_key; from lensmount_redis_cache.cache import RedisCache\n"
        "print(RedisCache(url=sys.argv[1], prefix=sys.argv[2]).get(make_key('text', 1)).tolist())"
    )
    command = [sys.executable, "-c", code, cache.address, cache.prefix]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["[0,", "1,", "2]"]


def test_tensors_come_back_on_the_host(make):
    torch = pytest.importorskip("torch")
    cache = make()
    cache.put("key", (torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),))
    (found,) = cache.get("key")
    assert found.dtype == torch.bfloat16
    assert found.device.type == "cpu"
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_cannot_be_kept_is_refused(make):
    with pytest.raises(InputError, match="cannot be kept"):
        make().put("key", object())


@pytest.mark.parametrize("damage", ["cut", "pickle", "empty", "other"])
def test_a_damaged_entry_is_absent_and_removed(make, client, damage, tmp_path):
    cache = make()
    cache.put("key", np.arange(3))
    (name,) = client.keys(f"{{{cache.prefix}}}:value:*")
    marker = tmp_path / "ran"

    class Harm:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    whole = client.get(name)
    content = {"cut": whole[:-3], "pickle": pickle.dumps(Harm()), "empty": b"", "other": b"LMCACHE1" + bytes(90)}
    client.set(name, content[damage])
    assert cache.get("key") is None
    assert not marker.exists()
    assert client.exists(name) == 0
    assert (len(cache), cache.nbytes) == (0, 0)


def test_clear_leaves_the_neighbours(make, client, redis_server):
    cache = make()
    longer = RedisCache(url=redis_server.url, prefix=cache.prefix + "er")
    client.set("own", 1)
    for number in range(1500):  # more than one round of the scan
        client.set(f"{{{cache.prefix}}}:value:{number}", b"")
    cache.put("key", 1)
    longer.put("key", 2)
    cache.clear()
    assert (len(cache), cache.nbytes, cache.get("key"), longer.get("key")) == (0, 0, None, 2)
    assert client.get("own") == b"1"
    assert client.keys(f"{{{cache.prefix}}}*") == []
    longer.clear()
    client.delete("own")


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_goes(make):
    cache = make(max_entries=3)
    for key in "abc":
        cache.put(key, key)
    cache.get("a")
    cache.put("d", "d")
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]
    cache.put("c", "C")  # in its place
    assert len(cache) == 3
    assert make(max_entries=0).put("e", 1) is None
    assert cache.get("e") is None


def test_bytes_are_bounded(make, client):
    one = size(np.zeros(1000))
    cache = make(max_bytes=3 * one)
    for number in range(5):
        cache.put(str(number), np.full(1000, number, float))
    assert [number for number in range(5) if cache.get(str(number)) is not None] == [2, 3, 4]
    cache.put("4", np.zeros(4000))  # does not fit: it is not kept, nor its outdated forerunner
    assert cache.get("4") is None
    assert [number for number in range(5) if cache.get(str(number)) is not None] == [2, 3]
    held = sum(client.strlen(name) for name in client.keys(f"{{{cache.prefix}}}:value:*"))
    assert cache.nbytes == held == 2 * one


def test_unused_entries_go(make):
    cache = make(ttl=1.0)
    cache.put("unused", 1)
    cache.put("used", 2)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        assert cache.get("used") == 2
        time.sleep(0.05)
    assert cache.get("unused") is None
    assert (len(cache), cache.nbytes) == (1, size(2))


def test_entries_that_the_server_dropped(make, client):
    """A server with a policy of its own may drop any key: values, or the bookkeeping."""
    cache = make(max_entries=2)
    for key in "ab":
        cache.put(key, key)
    client.delete(*client.keys(f"{{{cache.prefix}}}:value:*"))
    assert cache.get("a") is None
    assert len(cache) == 1
    cache.put("c", "c")
    client.delete(*(f"{{{cache.prefix}}}:{name}" for name in ("used", "sizes", "bytes")))
    assert cache.get("c") == "c"  # found again, and counted again
    assert (len(cache), cache.nbytes) == (1, size("c"))


def test_clients_at_once(make):
    cache, other = make(max_entries=5), make(max_entries=5)
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            key, mine = int(rng.integers(12)), (cache, other)[seed % 2]
            value = mine.get(str(key))
            if value is not None and (value != key).any():
                wrong.append(key)
            mine.put(str(key), np.full(500, key))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(cache) == 5
    assert cache.nbytes == 5 * size(np.full(500, 1))


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "http://127.0.0.1"},
        {"url": "nothing"},
        {"url": "redis://127.0.0.1:notaport/0"},
        {"url": 5},
        {"url": "redis://127.0.0.1/0?decode_responses=True"},
        {"prefix": ""},
        {"prefix": "a*"},
        {"prefix": "a b"},
        {"max_entries": -1},
        {"max_entries": True},
        {"max_bytes": None},
        {"max_bytes": 1.5},
        {"ttl": 0},
        {"ttl": float("nan")},
        {"timeout": 0},
        {"timeout": "1"},
        {"pause": -1},
    ],
)
def test_wrong_settings(settings):
    with pytest.raises(OptionError):
        RedisCache(**settings)


def test_unknown_and_positional_settings_are_refused():
    with pytest.raises(TypeError):
        RedisCache(max_size=3)
    with pytest.raises(TypeError):
        RedisCache("redis://127.0.0.1:6379/0")


@pytest.mark.parametrize("url", ["redis://example.com/0", "rediss://10.0.0.1:6380"])
def test_offline_asks_no_other_machine(monkeypatch, url):
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    with pytest.raises(OfflineError, match="offline was asked for"):
        RedisCache(url=url)


def test_offline_a_server_on_this_machine_serves(make, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_OFFLINE", "1")
    cache = make()
    cache.put("key", 1)
    assert cache.get("key") == 1


# --- a server that fails ----------------------------------------------------------------------------------------------


@pytest.fixture
def warned():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield caught


def test_no_server():
    with pytest.raises(StoreError, match="cannot serve") as caught:
        RedisCache(url="redis://user:secret@127.0.0.1:1/0", timeout=0.5)
    assert "secret" not in str(caught.value)
    assert "redis://127.0.0.1:1/0" in str(caught.value)
    assert caught.value.fix


def test_a_server_that_does_not_answer():
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        started = time.monotonic()
        with pytest.raises(StoreError):
            RedisCache(url=f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout=0.2)
        assert time.monotonic() - started < 5


def test_a_password(make_server):
    server = make_server("--requirepass", "sesame")
    for url in (server.url, server.url.replace("127.0.0.1", ":wrong@127.0.0.1")):
        with pytest.raises(AuthenticationError) as caught:
            RedisCache(url=url)
        assert "wrong@" not in str(caught.value)
    cache = RedisCache(url=server.url.replace("127.0.0.1", ":sesame@127.0.0.1"))
    cache.put("key", 1)
    assert cache.get("key") == 1
    assert "sesame" not in repr(cache)
    cache.close()


def test_a_server_that_dies_and_comes_back(make_server, warned):
    server = make_server()
    cache = RedisCache(url=server.url, pause=0.3, timeout=0.5)
    cache.put("key", 1)
    server.stop()
    assert cache.get("key") is None
    cache.put("key", 2)
    assert (len(cache), cache.nbytes) == (0, 0)
    time.sleep(0.4)
    assert cache.get("key") is None
    assert [w.category for w in warned] == [RedisCacheWarning]  # one for the outage, however often it was asked
    assert "it is tried again every 0.3 s" in str(warned[0].message)
    assert warned[0].filename == __file__
    with pytest.raises(StoreError):
        cache.clear()
    server.start()
    time.sleep(0.4)
    cache.put("key", 3)
    assert cache.get("key") == 3
    server.stop()
    assert cache.get("key") is None
    assert len(warned) == 2  # the next outage has its own
    cache.close()


def test_a_dead_server_costs_no_time(make_server, warned):
    server = make_server()
    cache = RedisCache(url=server.url, pause=60, timeout=5)
    server.stop()
    cache.get("key")
    started = time.monotonic()
    for number in range(1000):
        cache.put(str(number), number)
        cache.get(str(number))
    assert time.monotonic() - started < 2
    assert len(warned) == 1
    cache.close()


def test_a_full_server(make_server, warned):
    cache = RedisCache(url=make_server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction").url, pause=0)
    cache.put("large", np.zeros(2**20))
    assert cache.get("large") is None
    assert [w.category for w in warned] == [RedisCacheWarning]
    assert "memory" in str(warned[0].message)
    cache.close()


def test_a_restarted_server_has_forgotten_the_scripts(make_server, warned):
    server = make_server()
    cache = RedisCache(url=server.url)
    cache.put("key", 1)
    server.stop()
    server.start()
    assert cache.get("key") is None  # over a new connection, at once
    cache.put("key", 2)
    assert cache.get("key") == 2
    assert warned == []
    cache.close()
    assert cache.get("key") == 2  # and after close as well
    cache.close()
