"""Model files that are shortened or rewritten while a process reads them: a typed error, never a killed process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest

from lensmount.errors import ModelFileError
from lensmount_reading import read_checkpoint
from lensmount_reading.mapped import MappedFile, is_blob

BIG = 1 << 20  # floats in one tensor

# Reads one tensor, changes the file, then asks for everything else: 7 stands for a typed error.
CHILD = """
import os, sys
from lensmount.errors import LensmountError
from lensmount_reading import read_checkpoint
path, how = sys.argv[1:]
target = os.path.realpath(path) if os.path.isfile(path) else os.path.join(path, "model-2.safetensors")
found = read_checkpoint(path).tensors
first, *rest = sorted(found)
assert float(found[first].numpy().sum()) == {big}
size = os.path.getsize(target)
if how == "truncate":
    os.truncate(target, size // 2)
elif how == "empty":
    os.truncate(target, 0)
elif how == "rewrite":
    with open(target, "r+b") as file:
        file.seek(size // 2); file.write(b"x" * 64); file.flush(); os.fsync(file.fileno())
    os.utime(target, ns=(1, 10**18))
elif how == "shrink and grow":
    os.truncate(target, 0); os.truncate(target, size)
    os.utime(target, ns=(1, 10**18))
elif how == "replace":
    os.replace(target, target + ".old")
    open(target, "wb").write(b"new")
try:
    for name in rest:
        assert float(found[name].numpy().sum()) == {big}
except LensmountError as error:
    assert "changed while it was read" in str(error) and "rename" in str(error), error
    sys.exit(7)
""".replace("{big}", str(BIG))


def ones():
    return {name: np.ones(BIG, np.float32) for name in ("a", "b", "c")}


def safetensors(path, arrays):
    header, data, position = {}, b"", 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": [array.size], "data_offsets": [position, position + array.nbytes]}
        position += array.nbytes
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def shards(folder, arrays):
    folder.mkdir()
    names = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    for shard in set(names.values()):
        safetensors(folder / shard, {key: arrays[key] for key, name in names.items() if name == shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return folder


def torch_zip(path, arrays):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, path)
    return path


def torch_deflated(path, arrays):
    whole = torch_zip(path.with_suffix(".whole"), arrays)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return path


def torch_legacy(path, arrays):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


WRITERS = {
    "safetensors": safetensors,
    "shards": shards,
    "torch zip": torch_zip,
    "torch deflated": torch_deflated,
    "torch legacy": torch_legacy,
}
HOWS = {"truncate": 7, "empty": 7, "rewrite": 7, "shrink and grow": 7, "replace": 0}


@pytest.mark.skipif(os.name == "nt", reason="Windows lets nobody shorten a file that is open")
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_changes_under_a_reader(kind, how, tmp_path):
    path = WRITERS[kind](tmp_path / "it", ones())
    done = subprocess.run([sys.executable, "-c", CHILD, str(path), how], capture_output=True, text=True, timeout=120)
    assert done.returncode == HOWS[how], (done.returncode, done.stderr)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_only_blobs_of_the_store_are_mapped(tmp_path):
    digest = "ab" * 32
    plain = safetensors(tmp_path / "plain.safetensors", ones())
    blob = tmp_path / "store" / "blobs" / "sha256" / "ab" / digest
    blob.parent.mkdir(parents=True)
    blob.write_bytes(plain.read_bytes())
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert not is_blob(link)  # may be written to
    blob.chmod(0o444)
    assert is_blob(link)
    assert is_blob(blob)
    plain.chmod(0o444)
    assert not is_blob(plain)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    assert not is_blob(tmp_path / "gone")
    mapped = str(MappedFile(link).data)
    assert "mmap" in mapped
    assert "mmap" not in str(MappedFile(plain).data)
    for path in (link, plain):
        assert float(read_checkpoint(path).tensors["b"].numpy().sum()) == BIG


def test_what_the_store_writes_is_mapped(tmp_path):
    from lensmount.store.store import Store

    source = safetensors(tmp_path / "m.safetensors", ones())
    added = Store(tmp_path / "store").adopt(source, address="https://example.org/m.safetensors")
    assert is_blob(added.path)


def test_pieces_are_the_bytes_of_the_file(tmp_path):
    content = np.random.default_rng(3).bytes(100_000)
    path = tmp_path / "it"
    path.write_bytes(content)
    data = MappedFile(path).data
    assert len(data) == len(content)
    random = np.random.default_rng(4)
    for start, count in random.integers(0, 110_000, (300, 2)).tolist():
        count = count if count % 3 else count % 50
        assert data[start : start + count] == content[start : start + count]
    for place in random.integers(0, 100_000, 300).tolist():
        assert data[place] == content[place]
        assert data.find(content[place : place + 4], 0, 100_000) == content.find(content[place : place + 4])
        assert data.rfind(content[place : place + 4], 50) == content.rfind(content[place : place + 4], 50)
    with pytest.raises(IndexError):
        data[100_000]
    assert zlib.crc32(data.array(7, 99_000)) == zlib.crc32(content[7:99_007])


def test_a_change_is_seen_from_python_too(tmp_path):
    path = safetensors(tmp_path / "it.safetensors", ones())
    found = read_checkpoint(path).tensors
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ModelFileError, match="was changed while it was read"):
        found["a"].numpy()
