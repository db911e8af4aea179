"""The disk cache: data only, whole or absent, bounded."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmount.caches.disk import DiskCache
from lensmount.caches.serial import MAGIC, dumps, loads
from lensmount.contracts.cache import Cache
from lensmount.errors import InputError, OptionError, StoreError


def same(first, second) -> bool:
    if isinstance(first, np.ndarray | np.generic):
        alike = type(first) is type(second) and first.dtype == second.dtype and first.shape == second.shape
        return alike and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return type(first) is type(second) and (first == second or (first != first and second != second))


VALUES = [
    1, 1.0, True, "text ü", b"bytes\0", math.nan, math.inf, -0.0, 10**40, (), [], {}, (1, [2, {"a": None}]),
    np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(12).reshape(3, 4).T, np.zeros((0, 4), np.float16),
    np.array(3.5), np.float32(2.5), np.array([True, False]), np.array([1 + 2j]), np.arange(3, dtype=">i4"),
    {"low": np.ones((256, 256), np.float32), "scores": (0.5, np.float64(0.25)), "v": ["v", "a", ["t"]]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_round_trip(tmp_path: Path, value):
    cache = DiskCache(tmp_path)
    cache.put("key", value)
    assert same(DiskCache(tmp_path).get("key"), value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(plain)
def test_round_trip_of_anything_plain(value):
    assert same(loads(b"".join(dumps(value))), value)


def test_tensors(tmp_path: Path):
    torch = pytest.importorskip("torch")
    cache = DiskCache(tmp_path)
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        tensor = torch.arange(6).reshape(2, 3).to(dtype)
        cache.put("key", {"t": tensor.T})
        back = cache.get("key")["t"]
        assert back.dtype == dtype
        assert torch.equal(back, tensor.T)


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1: 2}, {1, 2}, np.array(["text"])])
def test_other_values_are_refused_and_leave_nothing(tmp_path: Path, value):
    cache = DiskCache(tmp_path)
    with pytest.raises(InputError):
        cache.put("key", value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_unpickled(tmp_path: Path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    cache = DiskCache(tmp_path)
    cache.put("key", 1)
    (entry,) = tmp_path.glob("*.lmcache")
    entry.write_bytes(pickle.dumps(Bomb()))
    assert cache.get("key") is None
    assert not (tmp_path / "exploded").exists()


def test_damaged_entries_are_dropped(tmp_path: Path):
    cache = DiskCache(tmp_path)
    for damage in (lambda d: d[:-1], lambda d: d[:20], lambda d: b"", lambda d: d[:60] + bytes([d[60] ^ 1]) + d[61:]):
        cache.put("key", np.arange(100))
        (entry,) = tmp_path.glob("*.lmcache")
        entry.write_bytes(damage(entry.read_bytes()))
        assert cache.get("key") is None
        assert list(tmp_path.iterdir()) == []


def test_bound_and_order_of_use(tmp_path: Path):
    size = sum(len(chunk) for chunk in dumps(np.zeros(1000, np.uint8)))
    cache = DiskCache(tmp_path, max_bytes=2 * size)
    for key in "ab":
        cache.put(key, np.zeros(1000, np.uint8))
        time.sleep(0.02)  # file times tick every few milliseconds
    assert len(cache) == 2
    assert cache.get("a") is not None
    time.sleep(0.02)
    cache.put("c", np.zeros(1000, np.uint8))
    assert (cache.get("b"), len(cache)) == (None, 2)
    assert cache.nbytes <= 2 * size
    cache.put("large", np.zeros(5000, np.uint8))
    assert cache.get("large") is None
    assert len(cache) == 2
    cache.clear()
    assert len(cache) == 0


def test_it_touches_only_its_own_files(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("keep")
    cache = DiskCache(tmp_path, max_bytes=1)
    cache.put("a", 1)
    cache.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_stale_temporary_files_are_removed(tmp_path: Path):
    old, new = tmp_path / "lmcache-old.tmp", tmp_path / "lmcache-new.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    DiskCache(tmp_path).put("a", 1)
    assert not old.exists()
    assert new.exists()


def test_failed_write_leaves_the_old_value(tmp_path: Path, monkeypatch):
    cache = DiskCache(tmp_path)
    cache.put("key", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StoreError, match="cannot be written"):
        cache.put("key", 2)
    assert cache.get("key") == 1
    assert len(list(tmp_path.iterdir())) == 1


def entry(head: object, arrays: bytes = b"", length: int | None = None) -> bytes:
    """An entry of someone who knows the layout: its hash is right."""
    text = json.dumps(head).encode()
    body = MAGIC + struct.pack("<Q", len(text) if length is None else length) + text + arrays
    return body + hashlib.blake2b(body, digest_size=16).digest()


def nested(depth: int) -> object:
    node: object = ["v", 1]
    for _ in range(depth):
        node = ["l", [node]]
    return node


@pytest.mark.parametrize(
    "data",
    [
        b"",
        MAGIC,
        entry(["v", 1])[:-1],
        entry(["v", 1], length=2**63),
        entry([]),
        entry(None),
        entry("v"),
        entry(["v"]),
        entry(["?", 1]),
        entry(["l", 5]),
        entry(["d", [["key"]]]),
        entry(["d", [[["unhashable"], ["v", 1]]]]),
        entry(["b", "not base64 §"]),
        entry(["f", "much"]),
        entry(["a", "O", [1]], bytes(8)),
        entry(["a", "nonsense", [1]], bytes(8)),
        entry(["a", 7, [1]], bytes(8)),
        entry(["a", ",i8", [1]], bytes(8)),  # numpy: SyntaxError
        entry(["a", "i4,i4", [1]], bytes(8)),
        entry(["a", "<f4", [-1]], bytes(8)),
        entry(["a", "<f4", [10**9]], bytes(8)),
        entry(["a", "<f4", [10**30]], bytes(8)),
        entry(["a", "<f4", [0, 10**30]]),
        entry(["a", "<f4", [1.5]], bytes(8)),
        entry(["a", "<f4", ["1"]], bytes(8)),
        entry(["T", "load", [1], "|u1", [4]], bytes(4)),
        entry(["T", "__name__", [1], "|u1", [4]], bytes(4)),
        entry(["T", "float32", [3], "|u1", [4]], bytes(4)),
        entry(["T", "float32", [1], "|u1", [3]], bytes(4)),
        b"[" * 100_000,
    ],
)
def test_what_was_made_to_mislead_is_refused(data: bytes):
    """A cache that others can write to, on a shared disk or a server, gives a ValueError or plain data."""
    with pytest.raises(ValueError, match="cache entry"):
        loads(data)


def test_deep_nesting_is_refused():
    text = "[" * 200_000
    body = MAGIC + struct.pack("<Q", len(text)) + text.encode()
    with pytest.raises(ValueError, match="cache entry"):
        loads(body + hashlib.blake2b(body, digest_size=16).digest())
    assert loads(entry(nested(20))) is not None


def test_a_tensor_where_torch_is_missing(monkeypatch: pytest.MonkeyPatch):
    data = entry(["T", "float32", [1], "|u1", [4]], bytes(4))
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match="cache entry"):
        loads(data)


def test_any_key_is_a_safe_file_name(tmp_path: Path):
    cache = DiskCache(tmp_path / "inner")
    for key in ("../../outside", "a/b", "", "x" * 1000, "naïve\n"):
        cache.put(key, key)
        assert cache.get(key) == key
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]


def test_bad_settings(tmp_path: Path):
    assert isinstance(DiskCache(tmp_path), Cache)
    with pytest.raises(OptionError):
        DiskCache(tmp_path, max_bytes=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        DiskCache(tmp_path / "file")


def test_threads(tmp_path: Path):
    size = sum(len(chunk) for chunk in dumps(np.zeros(4096, np.uint8)))
    cache = DiskCache(tmp_path, max_bytes=5 * size)
    errors = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for _ in range(60):
                key = int(rng.integers(12))
                value = cache.get(str(key))
                if value is not None and (value != key).any():
                    errors.append(key)
                cache.put(str(key), np.full(4096, key, np.uint8))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not list(tmp_path.glob("*.tmp"))
