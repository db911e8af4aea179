"""Zip archives and tensors that no honest writer makes: each is refused, none is read outside its bounds."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from lensmount.errors import ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import inspect_file, read_checkpoint
from lensmount_reading.mapped import MappedFile
from lensmount_reading.zipdir import read_directory


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


STORAGE = b"ctorch\nFloatStorage\n"


def tensor(offset=0, shape=(2, 3), stride=(3, 1), key="0", numel=6, storage=STORAGE, kind="storage"):
    """The pickle of one tensor as torch writes it, with any of its numbers wrong."""
    raw = [part if isinstance(part, bytes) else numbers(*part) for part in (shape, stride)]
    identifier = b"(" + text(kind) + storage + text(key) + text("cpu") + number(numel) + b"tQ"
    begin = offset if isinstance(offset, bytes) else number(offset)
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + identifier + begin + raw[0] + raw[1]
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def archive(path: Path, pickle: bytes, *, data: bytes = bytes(24), name: str = "m/data/0", **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr("m/data.pkl", b"\x80\x02" + pickle + b".")
        file.writestr(name, data)
    return path


def test_an_honest_one_is_read(tmp_path):
    path = archive(tmp_path / "m.pt", tensor(), data=struct.pack("<6f", *range(6)))
    assert read_checkpoint(path).tree.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    "described",
    [
        {"offset": 1},
        {"offset": -1},
        {"offset": 2**62},
        {"offset": b"\x88"},
        {"offset": b"N"},
        {"shape": (-1, 3)},
        {"shape": (2**31, 2**31), "stride": (1, 1)},
        {"shape": (2**40, 2**40), "stride": (0, 0)},
        {"shape": (2**62, 4), "stride": (0, 0)},
        {"shape": (0, 2**62)},
        {"shape": b"(\x88\x88t"},
        {"shape": b"]"},
        {"stride": (-3, 1)},
        {"stride": (4, 1)},
        {"stride": (2**62, 1)},
        {"stride": (1,)},
        {"shape": (1,) * 40, "stride": (1,) * 40},
        {"numel": 7},
        {"numel": -1},
        {"numel": 2**61},
        {"key": "../../secret"},
        {"key": "/etc/passwd"},
        {"key": ".."},
        {"key": ""},
        {"key": "a\\b"},
        {"storage": b"ctorch\nDoubleStorage\n"},
        {"storage": b"cos\nsystem\n"},
        {"storage": b"ctorch\nQInt8Storage\n"},
        {"storage": b"K\x01"},
        {"kind": "module"},
        {"kind": "file"},
    ],
    ids=lambda described: "-".join(f"{key} {value}"[:40] for key, value in described.items()),
)
def test_impossible_tensors_are_refused(tmp_path, described):
    path = archive(tmp_path / "m.pt", tensor(**described))
    with pytest.raises(UnsafeFileError):
        read_checkpoint(path)
    assert isinstance(inspect_file(path).error, UnsafeFileError)


def test_a_missing_storage_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="m/data/1 is not in the archive"):
        read_checkpoint(archive(tmp_path / "m.pt", tensor(key="1")))


def test_one_storage_with_two_sizes(tmp_path):
    with pytest.raises(UnsafeFileError, match="two sizes"):
        read_checkpoint(archive(tmp_path / "m.pt", tensor() + tensor(numel=5, shape=(5,), stride=(1,)) + b"\x86"))


def test_expanded_tensors_may_not_multiply_the_file(tmp_path):
    small = tensor(shape=(1 << 20, 6), stride=(0, 1))
    array = read_checkpoint(archive(tmp_path / "m.pt", small)).tree.numpy()
    assert array.shape == (1 << 20, 6)
    assert array.strides[0] == 0
    path = archive(tmp_path / "n.pt", b"(" + small * 40 + b"t")
    with pytest.raises(UnsafeFileError, match="claim"):
        read_checkpoint(path)
    assert "claim" in inspect_file(path).error.problem


def rename(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    assert len(old) == len(new)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, count))
    return path


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/passwd", "m/../../x", "m//x", "m/./x", "C:/windows/x", "m\\..\\x", "m/x\0y"]
)
def test_names_that_leave_the_folder(tmp_path, name):
    stand_in = "q" * len(name)
    path = archive(tmp_path / "m.pt", b"}", name=stand_in)
    with pytest.raises(UnsafeFileError, match="could leave a folder"):
        read_checkpoint(rename(path, stand_in.encode(), name.encode()))


def test_duplicate_names(tmp_path):
    path = archive(tmp_path / "m.pt", b"}", name="m/data_pkl")
    with pytest.raises(UnsafeFileError, match="occurs twice"):
        read_checkpoint(rename(path, b"m/data_pkl", b"m/data.pkl"))


def test_two_checkpoints(tmp_path):
    with pytest.raises(UnsafeFileError, match="2 checkpoints"):
        read_checkpoint(archive(tmp_path / "m.pt", b"}", name="n/data.pkl"))


def test_headers_that_disagree(tmp_path):
    path = archive(tmp_path / "m.pt", b"}", name="m/decoy")
    with pytest.raises(UnsafeFileError, match="disagree"):
        read_checkpoint(rename(path, b"m/decoy", b"m/other", 1))  # the first is the local header


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_entries(tmp_path, compression):
    path = archive(tmp_path / "m.pt", b"}", compression=compression)
    with pytest.raises(UnsupportedModelError, match="compressed"):
        read_checkpoint(path)
    assert "compressed" in inspect_file(path).error.problem


PARTS = {
    "m/data.pkl": b"\x80\x02" + tensor() + b".",
    "m/data/0": struct.pack("<6f", *range(6)),
    "m/byteorder": b"little",
    "m/version": b"3\n",
    "m/.format_version": b"1",
    "m/extra/config": b"{}",
    "m/constants.pkl": b"\x80\x02).",
}


def packed(path: Path, compressed: Iterable[str], parts: dict[str, bytes] = PARTS, method=zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data, compress_type=method if name in compressed else zipfile.ZIP_STORED)
    return path


@pytest.mark.parametrize("compressed", [*([name] for name in PARTS), [*PARTS]], ids=str)
def test_deflated_entries_are_read_as_stored_ones(tmp_path, compressed):
    path, plain = packed(tmp_path / "m.pt", compressed), packed(tmp_path / "plain.pt", [])
    found, expected = read_checkpoint(path), read_checkpoint(plain)
    assert found.tree.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found.tree.raw().flags.writeable
    assert (found.kind, found.metadata, found.constants) == (expected.kind, expected.metadata, expected.constants)
    assert inspect_file(path).error is None
    assert inspect_file(path).metadata == inspect_file(plain).metadata


def test_deflated_big_endian(tmp_path):
    parts = {**PARTS, "m/byteorder": b"big", "m/data/0": struct.pack(">6f", *range(6))}
    path = packed(tmp_path / "m.pt", parts, parts)
    assert read_checkpoint(path).tree.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["m/byteorder", "m/version", "m/.format_version", "m/data.pkl", "m/data/0"])
def test_what_is_compressed_otherwise_is_never_passed_over(tmp_path, name):
    path = packed(tmp_path / "m.pt", [name], method=zipfile.ZIP_LZMA)
    with pytest.raises(UnsupportedModelError, match="compressed"):
        read_checkpoint(path)
    assert "compressed" in inspect_file(path).error.problem


@pytest.mark.parametrize("name", ["m/byteorder", "m/version"])
@pytest.mark.parametrize("compressed", [True, False])
def test_metadata_without_end(tmp_path, name, compressed):
    path = packed(tmp_path / "m.pt", [name] if compressed else [], {**PARTS, name: bytes((16 << 20) + 1)})
    with pytest.raises(UnsafeFileError, match="16777217 bytes"):
        read_checkpoint(path)


def test_tensors_are_unpacked_when_asked_for(tmp_path):
    size = 64 << 20
    parts = {
        "m/data.pkl": b"\x80\x02" + tensor(shape=(size // 4,), stride=(1,), numel=size // 4) + b".",
        "m/data/0": bytes(size),
    }
    path = packed(tmp_path / "m.pt", parts, parts)
    tracemalloc.start()
    assert inspect_file(path).tensors["tensor"].shape == (size // 4,)
    found = read_checkpoint(path).tree
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert not found.numpy().any()


def test_archives_that_unfold_are_refused(tmp_path):
    size, parts = 64 << 20, {}
    described = [tensor(shape=(1,), stride=(1,), key=str(key), numel=size // 4) for key in range(5)]
    parts["m/data.pkl"] = b"\x80\x02(" + b"".join(described) + b"t."
    parts |= {f"m/data/{key}": bytes(size) for key in range(5)}
    path = packed(tmp_path / "m.pt", parts, parts)
    with pytest.raises(UnsafeFileError, match="unpacked, its entries"):
        read_checkpoint(path)
    extra = {**PARTS, **{f"m/extra/{n}": bytes(16 << 20) for n in range(17)}}
    with pytest.raises(UnsafeFileError, match="unpacked, its entries"):
        read_checkpoint(packed(tmp_path / "texts.pt", extra, extra))


@pytest.mark.parametrize("damage", [b"\xff", b"\x03\x00"])
@pytest.mark.parametrize("name", ["m/data.pkl", "m/data/0", "m/byteorder"])
def test_damaged_deflated_entries(tmp_path, name, damage):
    path = packed(tmp_path / "m.pt", PARTS)
    data = bytearray(path.read_bytes())
    start = data.index(name.encode()) + len(name)  # the local header comes first
    data[start : start + len(damage)] = damage
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"damaged|cut"):
        read_checkpoint(path).tree.numpy()


def test_encrypted_entries(tmp_path):
    path = archive(tmp_path / "m.pt", b"}")
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match="encrypted"):
        read_checkpoint(path)


def test_links(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        link = zipfile.ZipInfo("m/data/0")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UnsafeFileError, match="is a link"):
        read_checkpoint(path)


def test_overlapping_entries(tmp_path):
    path = archive(tmp_path / "m.pt", b"}", name="m/data/0")
    data = bytearray(path.read_bytes())
    # The second entry's record in the directory points at the first one's header, under its own name.
    second = data.rindex(b"PK\x01\x02")
    first = data.index(b"PK\x01\x02")
    data[second + 20 : second + 28] = data[first + 20 : first + 28]
    struct.pack_into("<I", data, second + 42, 0)
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match=r"disagree|overlaps"):
        read_checkpoint(path)
    data[second + 46 : second + 56] = b"m/data.pkX"
    path.write_bytes(data)
    with pytest.raises(ModelFileError):
        read_checkpoint(path)


def test_data_before_after_and_between(tmp_path):
    whole = archive(tmp_path / "m.pt", b"}").read_bytes()
    for name, data in {"before": b"#!/bin/sh\n" + whole, "after": whole + b"x"}.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ModelFileError):
            read_checkpoint(path)
    with zipfile.ZipFile(tmp_path / "c.pt", "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        file.comment = b"a comment is no harm"
    assert read_checkpoint(tmp_path / "c.pt").tree == {}


def test_a_directory_of_a_billion_entries(tmp_path):
    path = archive(tmp_path / "m.pt", b"}")
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<2H", data, end + 8, 0xFFFF, 0xFFFF)
    path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match="claims 65535 entries"):
        read_checkpoint(path)


def test_more_entries_than_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("lensmount_reading.limits.MAX_ZIP_ENTRIES", 1)
    with pytest.raises(UnsafeFileError, match="claims 2 entries"):
        read_checkpoint(archive(tmp_path / "m.pt", b"}"))


def test_64_bit_directories_are_read(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        for index in range(70_000):  # more than 16 bits can count
            file.writestr(zipfile.ZipInfo(f"m/data/{index}"), b"")
    assert len(read_directory(MappedFile(path))) == 70_001
    assert read_checkpoint(path).tree == {}


def test_64_bit_sizes_are_read(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as file, file.open("m/data.pkl", "w", force_zip64=True) as entry:
        entry.write(b"\x80\x02}.")
    assert read_checkpoint(path).tree == {}
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<2I", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="64-bit size is missing"):
        read_checkpoint(path)


def test_archives_of_others(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("word/document.xml", "<x/>")
    with pytest.raises(UnsupportedModelError, match="not one of torch"):
        read_checkpoint(path)
    assert inspect_file(path).kind == "zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/model.json", "{}")
    with pytest.raises(UnsupportedModelError, match=r"torch 1\.0 or 1\.1"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(ModelFileError):
        read_checkpoint(path)


def test_unknown_byte_order(tmp_path):
    path = tmp_path / "m.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("m/data.pkl", b"\x80\x02}.")
        file.writestr("m/byteorder", "middle")
    with pytest.raises(ModelFileError, match="byte order"):
        read_checkpoint(path)


def test_names_that_are_unusual_but_harmless(tmp_path):
    for root in ("a:b", "model 2024-01-01 10:20", "naïve", ".hidden", "a..b"):
        path = tmp_path / "m.pt"
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(f"{root}/data.pkl", b"\x80\x02}.")
        assert read_checkpoint(path).tree == {}


def test_a_large_blob_of_the_store_is_mapped_not_copied(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(64 << 20), "b": torch.ones(3)}, tmp_path / "m.pt")
    blob = tmp_path / "blobs" / "sha256" / "ab" / ("ab" * 32)
    blob.parent.mkdir(parents=True)
    (tmp_path / "m.pt").rename(blob)
    blob.chmod(0o444)
    tracemalloc.start()
    arrays = {key: tensor.numpy() for key, tensor in read_checkpoint(blob).tensors.items()}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert arrays["a"].nbytes == 256 << 20
    assert float(arrays["a"][::1000].sum()) == 0
    assert peak < 10 << 20


def test_of_another_large_checkpoint_only_the_tensors_asked_for_are_copied(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(64 << 20), "b": torch.ones(8 << 20)}, tmp_path / "m.pt")
    tracemalloc.start()
    found = read_checkpoint(tmp_path / "m.pt").tensors
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    array = found["b"].numpy()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert float(array.sum()) == 8 << 20
    assert (32 << 20) <= peak < 42 << 20


def test_no_warning_and_no_open_file_is_left(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_checkpoint(archive(tmp_path / "m.pt", tensor()))
