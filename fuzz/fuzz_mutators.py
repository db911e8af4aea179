"""Ways to damage an input: bytes, JSON trees, and the JSON header of a safetensors file."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

Mutator = Callable[[bytes, random.Random], bytes]

BYTES = (0, 1, 0x20, 0x2E, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
TEXTS = (
    "", " ", ".", "..", "../x", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\share",
    "x\0y", "\ud800", "é" * 5, "a" * 5000,
    "file:///etc/passwd", "hf://a/b", "https://u:p@h/x", "http://[", "%00", "nan", "-1", "1e999", "{}", "[]", "None",
    "True", "os:system", "onnx", "torch", "fp16", "letterbox", "stretch",
    "f" * 64, "0" * 40,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    [], {}, [[]], [None], {"": None}, {"type": "any-size"}, [0] * 50, *TEXTS,
)  # fmt: skip


def mutate_bytes(data: bytes, source: random.Random) -> bytes:
    """Changes, inserts, removes, repeats and overwrites a few bytes or numbers."""
    out = bytearray(data or b"\0")
    for _ in range(source.choice((1, 1, 1, 2, 4, 8))):
        at = source.randrange(len(out))
        kind = source.randrange(7)
        if kind == 0:
            out[at] = source.choice((*BYTES, out[at] ^ (1 << source.randrange(8)), source.randrange(256)))
        elif kind == 1:
            out[at:at] = source.randbytes(source.randrange(1, 16))
        elif kind == 2:
            del out[at : at + source.randrange(1, 64)]
        elif kind == 3:
            size = source.choice((1, 2, 4, 8))
            value = source.choice(NUMBERS) & ((1 << (8 * size)) - 1)
            out[at : at + size] = value.to_bytes(size, source.choice(("little", "big")))
        elif kind == 4:
            other = source.randrange(len(out))
            out[at:at] = out[other : other + source.randrange(1, 64)]
        elif kind == 5:
            out = out[: source.randrange(1, len(out) + 1)]
        else:
            out[at:at] = bytes([out[at]]) * source.randrange(1, 400)
        if not out:
            out = bytearray(b"\0")
    return bytes(out)


def mutate_json(data: bytes, source: random.Random) -> bytes:
    """Changes a few nodes of the tree; now and then bytes instead."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, source)
    if source.random() < 0.1:
        return mutate_bytes(data, source)
    for _ in range(source.choice((1, 1, 2, 4))):
        tree = _changed(tree, source)
    try:
        text = json.dumps(tree)
    except (ValueError, RecursionError):
        return mutate_bytes(data, source)
    if source.random() < 0.02:
        text = "[" * source.choice((10, 1000, 100_000)) + text
    return text.encode("utf-8", "surrogatepass")


def mutate_safetensors(data: bytes, source: random.Random) -> bytes:
    """Changes the header and keeps its length right, so that what stands behind the length is reached."""
    if len(data) < 9 or source.random() < 0.3:
        return mutate_bytes(data, source)
    size = struct.unpack("<Q", data[:8])[0]
    if size > len(data) - 8:
        return mutate_bytes(data, source)
    header = mutate_json(data[8 : 8 + size], source)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def _changed(tree: Any, source: random.Random) -> Any:
    places = list(_places(tree))
    if not places:
        return copy.deepcopy(source.choice(VALUES))
    parent, key = source.choice(places)
    kind = source.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[source.choice(TEXTS)] = parent[key]
    elif kind == 2 and isinstance(parent, list):
        parent.extend(copy.deepcopy([parent[key]] * source.choice((1, 2, 50))))
    elif kind == 3:
        other, name = source.choice(places)
        parent[key] = copy.deepcopy(other[name])
    elif kind == 4 and isinstance(parent[key], str):
        parent[key] = mutate_bytes(parent[key].encode("utf-8", "surrogatepass"), source).decode("utf-8", "replace")
    else:
        parent[key] = copy.deepcopy(source.choice(VALUES))
    return tree


def _places(tree: Any, depth: int = 0) -> Any:
    if depth > 30:
        return
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from _places(tree[key], depth + 1)
