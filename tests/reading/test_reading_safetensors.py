"""safetensors, against the library: files it writes are read, files it refuses are refused; and writing them."""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from lensmount.errors import ModelFileError, StoreError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import as_torch_state_dict, inspect_file, read_checkpoint, to_safetensors

safetensors = pytest.importorskip("safetensors")
library = pytest.importorskip("safetensors.numpy")


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_what_the_library_writes_is_read(tmp_path):
    arrays = {
        f"{name}.{index}": np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(name)
        for name in ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "uint64")
        for index, shape in enumerate([(), (0, 3), (5,), (2, 3, 4)])
    }
    path = tmp_path / "m.safetensors"
    library.save_file(arrays, path, metadata={"format": "np", "note": "naïve"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == "safetensors"
    assert checkpoint.metadata == {"format": "np", "note": "naïve"}
    assert set(checkpoint.tensors) == set(arrays)
    for key, array in arrays.items():
        found = checkpoint.tensors[key].numpy()
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
    facts = inspect_file(path)
    assert (facts.kind, facts.metadata["note"]) == ("safetensors", "naïve")
    assert facts.tensors["float16.3"].shape == (2, 3, 4)


def test_what_is_written_the_library_reads(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    tensors = {
        "bf16": torch.randn(3, 5).to(torch.bfloat16),
        "f8": torch.randn(7).to(torch.float8_e4m3fn),
        "half": torch.randn(4, 4).half(),
        "bool": torch.tensor([True, False]),
        "long": torch.arange(3),
        "double": torch.randn(2).double(),
        "scalar": torch.tensor(1.0),
        "empty": torch.zeros(0, 2),
        "naïve": torch.ones(1),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "expanded": torch.ones(1).expand(5),
    }
    source = tmp_path / "m.pt"
    torch.save({"model": tensors, "epoch": 5}, source)
    target = to_safetensors(read_checkpoint(source), tmp_path / "m.safetensors")
    theirs = load_file(target)
    ours = as_torch_state_dict(read_checkpoint(target))
    assert set(theirs) == {f"model.{key}" for key in tensors}
    for key, tensor in tensors.items():
        for found in (theirs[f"model.{key}"], ours[f"model.{key}"]):
            assert found.dtype == tensor.dtype
            assert found.shape == tensor.shape
            if tensor.dtype == torch.bool or not tensor.numel():
                assert torch.equal(found, tensor)
            else:
                flat = (found.contiguous().reshape(-1), tensor.contiguous().reshape(-1))
                assert torch.equal(flat[0].view(torch.uint8), flat[1].view(torch.uint8))
    with safetensors.safe_open(target, "np") as file:
        assert file.metadata() == {"format": "pt"}
    length = int.from_bytes(target.read_bytes()[:8], "little")
    assert length % 8 == 0


def test_writing_is_whole_or_nothing(tmp_path, monkeypatch):
    source = tmp_path / "a.safetensors"
    library.save_file({"a": np.ones(1000, np.float32), "c": np.ones(2, np.complex64)}, source)
    checkpoint = read_checkpoint(source)
    target = tmp_path / "out" / "m.safetensors"
    with pytest.raises(StoreError, match="cannot be written"):
        to_safetensors(checkpoint, target)
    target.parent.mkdir()
    target.write_bytes(b"the old one")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lensmount_reading.convert._write", full)
        with pytest.raises(StoreError, match="No space left"):
            to_safetensors(checkpoint, target)
    assert target.read_bytes() == b"the old one"
    assert os.listdir(target.parent) == ["m.safetensors"]
    to_safetensors(checkpoint, target, metadata={"x": "y"})
    assert read_checkpoint(target).metadata == {"x": "y"}
    assert os.listdir(target.parent) == ["m.safetensors"]
    if os.name != "nt":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    to_safetensors(read_checkpoint(source), source)  # onto itself
    assert read_checkpoint(source).tensors["a"].numpy().sum() == 1000


def test_types_without_a_name_are_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"z": torch.ones(1, dtype=torch.complex128)}, tmp_path / "m.pt")
    with pytest.raises(UnsupportedModelError, match="z cannot be written"):
        to_safetensors(read_checkpoint(tmp_path / "m.pt"), tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


BAD = {
    "overlap": raw({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "same place": raw({"a": entry(), "b": entry()}, bytes(8)),
    "hole": raw({"a": entry(offsets=(8, 16))}, bytes(16)),
    "hole between": raw({"a": entry(), "b": entry(offsets=(12, 20))}, bytes(20)),
    "bytes left over": raw({"a": entry()}, bytes(9)),
    "beyond the end": raw({"a": entry()}, bytes(7)),
    "backwards": raw({"a": entry(offsets=(8, 0))}, bytes(8)),
    "negative": raw({"a": entry(offsets=(-8, 0))}, bytes(8)),
    "size disagrees": raw({"a": entry(shape=(3,))}, bytes(8)),
    "overflow": raw({"a": entry(shape=(2**32, 2**32), offsets=(0, 0))}),
    "negative sizes": raw({"a": entry(shape=(-2, -1))}, bytes(8)),
    "float sizes": raw(b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}', bytes(8)),
    "true as a size": raw(b'{"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}}', bytes(1)),
    "three offsets": raw({"a": entry(offsets=(0, 4, 8))}, bytes(8)),
    "too many dimensions": raw({"a": entry(shape=(1,) * 40 + (2,))}, bytes(8)),
    "unknown type": raw({"a": entry(dtype="F31")}, bytes(8)),
    "type is a list": raw({"a": entry(dtype=[])}, bytes(8)),
    "narrow type": raw({"a": entry(dtype="F4")}, bytes(8)),
    "missing field": raw({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "entry is a list": raw({"a": []}),
    "same key twice": raw(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}',
        bytes(2),
    ),
    "metadata is a number": raw({"__metadata__": {"a": 1}}),
    "metadata is a list": raw({"__metadata__": []}),
    "nan": raw(b'{"a":NaN}'),
    "not JSON": raw(b'{"a":}'),
    "not UTF-8": raw(b'{"\xff":1}'),
    "nested": raw(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a million brackets": raw(b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"),
    "header cut": raw({"a": entry()}, length=1000),
    "header of 2^63 bytes": raw(b'{"a":1}', length=2**63),
    "header of 200 MB": raw(b'{"a":1}', length=200_000_000),
}


@pytest.mark.parametrize("case", BAD)
def test_what_the_format_forbids_is_refused(tmp_path, case):
    path = tmp_path / "m.safetensors"
    path.write_bytes(BAD[case])
    with pytest.raises(ModelFileError):
        read_checkpoint(path)
    if case not in ("too many dimensions", "nan", "narrow type"):  # the library allows more or says it otherwise
        with pytest.raises(Exception):  # noqa: B017  # the library's own class is not public in all releases
            library.load_file(path)


def test_fields_of_the_future_are_ignored(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw({"a": {**entry(), "more": "x"}}, bytes(8)))
    assert read_checkpoint(path).tensors["a"].shape == (2,)


def test_every_truncation(tmp_path):
    path = tmp_path / "m.safetensors"
    library.save_file({"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2), np.int64)}, path)
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelFileError):
            read_checkpoint(path)


@pytest.fixture
def shards(tmp_path):
    library.save_file({"a": np.ones(2), "b": np.zeros(3)}, tmp_path / "model-1.safetensors")
    library.save_file({"c": np.arange(4)}, tmp_path / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "c": "model-2.safetensors", "b": "model-1.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": weight_map}))
    return tmp_path, index, weight_map


def test_shards(shards):
    folder, index, _ = shards
    for path in (folder, index):
        checkpoint = read_checkpoint(path)
        assert set(checkpoint.tensors) == {"a", "b", "c"}
        assert checkpoint.tensors["c"].numpy().tolist() == [0, 1, 2, 3]
    assert set(inspect_file(folder).tensors) == {"a", "b", "c"}


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b", "a\\b", "..", "", "C:x", "x\0"])
def test_shards_stay_in_their_folder(shards, name):
    folder, index, weight_map = shards
    library.save_file({"a": np.ones(2)}, folder.parent / "x.safetensors")
    index.write_text(json.dumps({"weight_map": {**weight_map, "a": name}}))
    with pytest.raises(UnsafeFileError, match="is a path"):
        read_checkpoint(index)


def test_shards_must_hold_what_the_index_says(shards):
    folder, index, weight_map = shards
    index.write_text(json.dumps({"weight_map": {**weight_map, "d": "model-2.safetensors"}}))
    with pytest.raises(ModelFileError, match="does not hold"):
        read_checkpoint(folder)
    index.write_text(json.dumps({"weight_map": {"a": "model-3.safetensors"}}))
    with pytest.raises(ModelFileError, match="model-3"):
        read_checkpoint(folder)
    for text in ("[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "x"):
        index.write_text(text)
        with pytest.raises(ModelFileError):
            read_checkpoint(folder)
        assert inspect_file(folder).error is not None


def test_a_folder_with_one_file(tmp_path):
    library.save_file({"a": np.ones(2)}, tmp_path / "model.safetensors")
    assert list(read_checkpoint(tmp_path).tensors) == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_shards_behind_the_links_of_a_hub_cache(shards, tmp_path_factory):
    folder, _, _ = shards
    blobs: Path = tmp_path_factory.mktemp("blobs")
    for shard in folder.glob("model-*.safetensors"):
        shard.rename(blobs / shard.name)
        shard.symlink_to(blobs / shard.name)
    assert set(read_checkpoint(folder).tensors) == {"a", "b", "c"}


def test_keys_with_half_a_surrogate_pair(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(raw(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"))
    checkpoint = read_checkpoint(path)
    assert r"\ud800" in inspect_file(path).summary()
    to_safetensors(checkpoint, tmp_path / "n.safetensors")
    assert list(read_checkpoint(tmp_path / "n.safetensors").tensors) == ["\ud800"]
