"""Texts of values without end: wherever a value of a file is shown, no more of it is looked at than is shown.

`ENDLESS` makes values whose full text would fill any memory. `SITES` are files that make the reader show a value, each
with a place for one.
"""

from __future__ import annotations

import itertools
import struct
import time
import tracemalloc
import zipfile

import pytest

from lensmount.errors import ModelFileError
from lensmount_reading import inspect_file, limits, plain_text, printable, read_checkpoint
from lensmount_reading.legacy import MAGIC_NUMBER
from lensmount_reading.numpy_values import element_type
from lensmount_reading.pickles import scan_pickle
from lensmount_reading.records import GlobalName, Record
from lensmount_reading.tensors import Storage, check_layout
from lensmount_reading.text import listing

SECONDS = 2.0
BYTES = 32 << 20
LEVELS = 60


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def glob(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def doubling_tuple() -> bytes:
    """A tuple that holds the one below it twice, 60 deep: 2**60 ends."""
    return b"N" + b"".join(b"q" + bytes([level]) + b"h" + bytes([level]) + b"\x86" for level in range(LEVELS))


def doubling_list() -> bytes:
    return b"N" + b"".join(
        b"q" + bytes([level]) + b"0](h" + bytes([level]) + b"h" + bytes([level]) + b"e" for level in range(LEVELS)
    )


def doubling_dict() -> bytes:
    pair = b"}(K\x01h%bK\x02h%bu"
    return b"N" + b"".join(b"q%b0" % bytes([n]) + pair.replace(b"%b", bytes([n])) for n in range(LEVELS))


def own_members() -> bytes:
    """Twelve lists that each hold all twelve: a walk that cuts cycles alone takes 12! steps."""
    made = b"".join(b"]q" + bytes([n]) + b"0" for n in range(12))
    filled = b"".join(
        b"h" + bytes([n]) + b"(" + b"".join(b"h" + bytes([m]) for m in range(12)) + b"e0" for n in range(12)
    )
    return made + filled + b"h\x00"


def long_text() -> bytes:
    """A text of a megabyte, a thousand times in one list, that list a thousand times in another."""
    thousand = b"(" + b"h\x00" * 1_000 + b"l"
    return text("x" * (1 << 20)) + b"q\x000" + thousand + b"q\x010(" + b"h\x01" * 1_000 + b"t"


ENDLESS = {f.__name__: f for f in (doubling_tuple, doubling_list, doubling_dict, own_members, long_text)}


def numpy_dtype(value: bytes) -> bytes:
    return call(glob("numpy", "dtype"), value, b"\x89", b"\x88")


def tensor(
    storage: bytes = b"", offset: bytes = b"K\x00", shape: bytes = b"(K\x02t", stride: bytes = b"(K\x01t"
) -> bytes:
    identifier = b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
    return call(glob("torch._utils", "_rebuild_tensor_v2"), storage or identifier, offset, shape, stride, b"\x89", b"N")


def tensor_v3(dtype: bytes) -> bytes:
    identifier = b"(" + text("storage") + glob("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
    sizes = b"(K\x02t(K\x01t"
    return call(glob("torch._utils", "_rebuild_tensor_v3"), identifier, b"K\x00", sizes, b"\x89", b"N", dtype)


NAME = glob("collections", "OrderedDict")
SITES = {
    "encoding": lambda v: call(glob("_codecs", "encode"), text("a"), v),
    "what is encoded": lambda v: call(glob("_codecs", "encode"), v, text("latin1")),
    "element type": lambda v: tensor_v3(v),
    "storage": lambda v: tensor(storage=v),
    "offset": lambda v: tensor(offset=v),
    "a size": lambda v: tensor(shape=b"(" + v + b"t"),
    "a stride": lambda v: tensor(stride=b"(" + v + b"t"),
    "persistent id": lambda v: v + b"Q",
    "a part of a persistent id": lambda v: b"(" + text("storage") + v + v + v + v + b"tQ",
    "called": lambda v: v + b")R",
    "arguments": lambda v: NAME + v + b"R",
    "arguments of a call": lambda v: call(NAME, v),
    "state of data": lambda v: b"K\x01" + v + b"b",
    "target of a state": lambda v: v + b"}b",
    "key": lambda v: b"}" + v + b"Ns",
    "member": lambda v: b"\x8f(" + v + b"\x90",
    "name of a global": lambda v: v + text("name") + b"\x93",
    "module of a global": lambda v: text("module") + v + b"\x93",
    "numpy's type": lambda v: call(glob("numpy.core.multiarray", "scalar"), numpy_dtype(v), b"U\x01a"),
    "numpy's data": lambda v: call(glob("numpy.core.multiarray", "scalar"), numpy_dtype(text("f4")), v),
    "complex": lambda v: call(glob("builtins", "complex"), v, v),
    "bytes": lambda v: call(glob("builtins", "bytearray"), v),
    "path": lambda v: call(glob("pathlib", "PosixPath"), v),
    "device": lambda v: call(glob("torch", "device"), v),
    "object's base": lambda v: call(glob("copyreg", "_reconstructor"), v, v, v),
    "parameter": lambda v: call(glob("torch._utils", "_rebuild_parameter"), v, b"\x88", b"N"),
    "rebuilder": lambda v: call(glob("torch._tensor", "_rebuild_from_type_v2"), v, b"N", b")", b"N"),
    "nothing of it": lambda v: v,
}


@pytest.fixture
def bounded(monkeypatch):
    """No more than its share of time and memory. Walks of trees have a bound of their own, here a low one."""
    monkeypatch.setattr(limits, "MAX_NODES", 10_000)
    tracemalloc.start()
    began = time.process_time()
    yield
    took, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert took < SECONDS
    assert peak < BYTES


def archive(path, pickle: bytes):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02" + pickle + b".")
        file.writestr("m/data/0", bytes(8))
    return path


def legacy(path, version: bytes = b"M\xe9\x03", system: bytes = b"}", tree: bytes = b"}", keys: bytes = b"]"):
    magic = b"\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little")
    path.write_bytes(b"".join(b"\x80\x02" + part + b"." for part in (magic, version, system, tree, keys)))
    return path


@pytest.mark.parametrize(("site", "endless"), list(itertools.product(SITES, ENDLESS)))
def test_every_site_of_a_pickle(site, endless, tmp_path, bounded):
    path = archive(tmp_path / "m.pt", SITES[site](ENDLESS[endless]()))
    facts = inspect_file(path)
    if site != "nothing of it":
        assert facts.error is not None
    assert len(str(facts.error)) < 4_000
    assert len(facts.summary()) < 4_000
    try:
        read_checkpoint(path, modules="records")
    except ModelFileError as error:
        assert len(str(error)) < 4_000


@pytest.mark.parametrize(("place", "endless"), list(itertools.product(("version", "system", "tree", "keys"), ENDLESS)))
def test_every_place_of_a_legacy_file(place, endless, tmp_path, bounded):
    path = legacy(tmp_path / "m.pt", **{place: ENDLESS[endless]()})
    error = inspect_file(path).error
    assert place == "system" or error is not None
    assert len(str(error)) < 4_000


def endless_value(name: str) -> object:
    return scan_pickle(b"\x80\x02" + ENDLESS[name]() + b".", where="it", policy="plain").tree


@pytest.mark.parametrize("endless", ENDLESS)
def test_texts_of_the_values_themselves(endless, bounded):
    value = endless_value(endless)
    assert len(printable(value)) <= 201
    assert len(printable(ValueError(value))) <= 201
    assert len(printable(ValueError("a", value))) <= 201
    assert len(printable(KeyError(value))) <= 201
    with pytest.raises(TypeError, match="is no name"):
        plain_text(value)
    dtype = Record("numpy", "dtype", (value,))
    with pytest.raises(ValueError, match="dtype"):
        element_type(dtype)
    with pytest.raises(ModelFileError, match="not possible"):
        check_layout(Storage("0", "float32", 1), "float32", 0, (value,), (value,))


def test_one_long_text_in_many_names(bounded):
    module = "m" * (1 << 20)
    names = [GlobalName(module, str(index), "refused").full_name for index in range(10_000)]
    assert max(map(len, names)) <= 201


def cyclic() -> list[object]:
    value: list[object] = [1]
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        "text", b"bytes", 3, -1.5, None, True, (), (1,), (1, "two", b"three"), [], [1, [2, [3]]], {}, {"a": [1], 2: ()},
        set(), {1}, frozenset(), frozenset({1}), bytearray(b"a"), {"a": {"b": {"c": 1}}}, 1 << 600, 1j, range(3),
    ],
    ids=repr,
)  # fmt: skip
def test_short_values_are_shown_as_python_shows_them(value):
    shown = str(value, "latin-1") if isinstance(value, (bytes, bytearray)) else str(value)
    assert printable(value) == shown


def test_cuts_and_escapes():
    assert printable("x" * 300) == "x" * 200 + "…"
    assert printable("x" * 200) == "x" * 200
    assert printable("\x1b[31m\uff4f") == "\\x1b[31m\\uff4f"
    assert printable([1, 2, 3], 5) == "[1, 2…"
    assert printable(1 << 5_000) == "<an integer of 5001 bits>"
    assert printable([1 << 5_000]) == "[<an integer of 5001 bits>]"
    assert printable(cyclic(), 20) == "[1, [1, [1, [1, [1, …"
    assert printable(ModelFileError("broken", found="x")) == printable(str(ModelFileError("broken", found="x")))
    assert printable(ValueError()) == ""


def test_lists_of_names():
    assert listing(["a", "b"], 2) == "a, b"
    assert listing((str(n) for n in range(5)), 2) == "0, 1 and 3 more"


@pytest.mark.parametrize("value", [1, "a", 1.5, True, None])
def test_names_are_texts_or_numbers(value):
    assert plain_text(value) == str(value)


@pytest.mark.parametrize("value", [b"a", [], {}, 1 << 5_000, object()])
def test_names_are_nothing_else(value):
    with pytest.raises(TypeError, match="is no name"):
        plain_text(value)
