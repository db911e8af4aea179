"""Checkpoints as torch writes them, against torch's own reader: every dtype, layout and container."""

from __future__ import annotations

import argparse
import collections
import pathlib
import pickle
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from lensmount.errors import AmbiguousModelError, InputError, ModelFileError, UnsafeFileError, UnsupportedModelError
from lensmount_reading import (
    Record,
    TensorRef,
    as_torch_state_dict,
    inspect_file,
    module_records,
    module_state_dict,
    read_checkpoint,
)

torch = pytest.importorskip("torch")

OLD = ("float32", "float16", "float64", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool")
OLD += ("complex64", "complex128")
NEW = ("complex32", "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
NEW += ("float8_e8m0fnu",)


def bits(tensor):
    """Every bit of a tensor, whatever its dtype."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.to(torch.uint8) if tensor.dtype == torch.bool else flat.view(torch.uint8)


def assert_same(ours, theirs):
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if theirs.numel():
        assert ours.stride() == theirs.stride()
        assert torch.equal(bits(ours), bits(theirs))


def every_pattern(name):
    """All bit patterns of a byte, or of two, as a tensor of the dtype."""
    if name == "bool":
        return torch.tensor([True, False, True])
    wide = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(torch.uint8)
    return wide.view(getattr(torch, name))


def save(obj, path, legacy=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(obj, path, _use_new_zipfile_serialization=not legacy)
    return path


def load(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=True)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", OLD + NEW)
def test_every_dtype_bit_for_bit(tmp_path, name, legacy):
    if legacy and name in NEW:
        pytest.skip("torch itself cannot load these from its legacy format")
    if not hasattr(torch, name):
        pytest.skip("this torch has no such dtype")
    path = save({"x": every_pattern(name)}, tmp_path / "x.pt", legacy)
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == ("torch-legacy" if legacy else "torch")
    theirs = load(path)["x"]
    assert_same(as_torch_state_dict(checkpoint)["x"], theirs)
    decoded = {"complex32": torch.complex64, "bfloat16": torch.float32}.get(name, theirs.dtype)
    if name.startswith("float8"):
        decoded = torch.float32
    array = checkpoint.tensors["x"].numpy()
    expected = theirs.to(decoded).numpy()
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(array, expected)  # NaNs count as equal
    assert not array.flags.writeable


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_layout(tmp_path, legacy):
    base = torch.arange(60, dtype=torch.float32)
    tensors = {
        "whole": base,
        "part": base[7:19],
        "every third": base[1::3],
        "transposed": base.reshape(3, 4, 5).permute(2, 0, 1),
        "expanded": torch.ones(3, 1).expand(3, 1000),
        "channels last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(3.5),
        "flag": torch.tensor(True),
        "brain": torch.tensor(2.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 7),
        "parameter": torch.nn.Parameter(torch.rand(3, 2)),
        "frozen": torch.nn.Parameter(torch.rand(3), requires_grad=False),
        "tied": base,
    }
    path = save(tensors, tmp_path / "x.pt", legacy)
    checkpoint, theirs = read_checkpoint(path), load(path)
    ours = as_torch_state_dict(checkpoint)
    assert list(ours) == list(theirs)
    for key in theirs:
        assert_same(ours[key], theirs[key])
        assert checkpoint.tensors[key].requires_grad == theirs[key].requires_grad
        np.testing.assert_array_equal(checkpoint.tensors[key].numpy(), theirs[key].detach().float().numpy())
    assert checkpoint.tensors["tied"].storage is checkpoint.tensors["part"].storage


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_containers_and_numbers(tmp_path, protocol, legacy):
    state = collections.OrderedDict(a=torch.ones(2), b=torch.zeros(1))
    state._metadata = {"": {"version": 2}}
    tree = {
        "state": state,
        "numbers": [0, 1, -1, 255, 256, 65535, 65536, 2**31, -(2**31), 2**40, -(2**70), 1.5, float("inf"), True, None],
        "texts": ["", "naïve café — 3 €", "a" * 300, "\x00\n", b"bytes", b"", bytearray(b"mutable")],
        "nested": ({"x": (1, (2, [3, {4}]))}, frozenset([1, "a"]), set(), ()),
        "many": list(range(3000)),
        "keys": {1: "a", (2, "b"): "c", 1.5: "d", None: "e", False: "f"},
        "size": torch.Size([1, 2, 3]),
        "counter": collections.Counter("hello"),
        "default": collections.defaultdict(list, {"k": [1]}),
        "complex": 1 + 2j,
    }
    path = tmp_path / "x.pt"
    torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    read = read_checkpoint(path).tree
    tensors = read.pop("state")
    assert list(tensors) == ["a", "b"]
    tree.pop("state")
    tree["size"] = (1, 2, 3)
    assert read == tree
    assert [type(value) for value in read["numbers"]] == [type(value) for value in tree["numbers"]]


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_plain_data_in_every_protocol(tmp_path, protocol):
    data = {"a": [1, 2.5, -3, 10**30, "naïve\\ 'quoted' \n", None, True, False], "b": (1, {"c": (2, 3)}), "e": {}}
    shared = ["shared"]
    data["f"] = [shared, shared]
    if protocol >= 3:
        data["d"] = [b"bytes\x00\xff", {1, 2}]
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", pickle.dumps(data, protocol=protocol))
    read = read_checkpoint(path).tree
    assert read == data
    assert read["f"][0] is read["f"][1]


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_training_arguments_stay_readable(tmp_path, protocol):
    args = argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/data/sets"), device=torch.device("cuda", 1))
    array = np.arange(12, dtype=">i4").reshape(3, 4)
    tree = {
        "args": args,
        "dtype": torch.bfloat16,
        "array": array,
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
    }
    path = tmp_path / "x.pt"
    torch.save(tree, path, pickle_protocol=max(protocol, 2)) if protocol >= 2 else None
    if protocol < 2:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/data.pkl", pickle.dumps({"args": argparse.Namespace(lr=0.1)}, protocol=protocol))
        record = read_checkpoint(path).tree["args"]
        assert (record.full_name, record.attributes) == ("argparse.Namespace", {"lr": 0.1})
        return
    checkpoint = read_checkpoint(path)
    record = checkpoint.tree["args"]
    assert isinstance(record, Record)
    assert record.attributes == {"lr": 0.1, "path": "/data/sets", "device": "cuda:1"}
    assert checkpoint.tree["dtype"] == "torch.bfloat16"
    assert checkpoint.tree["scalar"] == 2.5
    assert checkpoint.tree["flag"] is True
    np.testing.assert_array_equal(checkpoint.tensors["array"].numpy(), array)
    np.testing.assert_array_equal(checkpoint.tensors["fortran"].numpy(), np.arange(6.0).reshape(2, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_torch_state_dict(checkpoint)["array"].tolist() == array.tolist()


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.twice = torch.nn.ModuleList([torch.nn.Linear(2, 2)] * 2)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("hidden", torch.arange(4), persistent=False)
        self.register_buffer("absent", None)
        self.names = {0: "ball", 1: "person"}


@pytest.fixture
def module_file(tmp_path, monkeypatch):
    monkeypatch.setattr(Block, "__module__", "ultralytics.nn.tasks")
    for name in ("ultralytics", "ultralytics.nn", "ultralytics.nn.tasks"):
        fake = type(sys)(name)
        fake.Block = Block
        monkeypatch.setitem(sys.modules, name, fake)
    model = Block().half()
    path = tmp_path / "m.pt"
    torch.save({"model": model, "epoch": 3}, path)
    return model, path


def test_module_trees_become_records(module_file):
    model, path = module_file
    checkpoint = read_checkpoint(path, modules="records")
    record = checkpoint.tree["model"]
    ours = as_torch_state_dict(module_state_dict(record))
    theirs = model.state_dict()
    assert list(ours) == list(theirs)
    for key in theirs:
        assert_same(ours[key], theirs[key])
    assert [name for name, _ in module_records(record)] == [name for name, _ in model.named_modules()]
    found = dict(module_records(record))
    assert found["conv"].full_name == "torch.nn.modules.conv.Conv2d"
    assert found["conv"].get("stride") == (1, 1)
    assert found["conv"].get("weight").shape == (4, 3, 3, 3)
    assert record.get("names") == {0: "ball", 1: "person"}
    assert record.get("nothing", 5) == 5
    assert "model.conv.weight" in checkpoint.tensors
    assert "model.hidden" in checkpoint.tensors
    assert inspect_file(path).tensors["model.conv.weight"].dtype == "float16"
    assert inspect_file(path).precision == "fp16"


def test_state_dicts_of_records_only(tmp_path):
    with pytest.raises(ModelFileError, match="not a module"):
        module_state_dict(Record("argparse", "Namespace", (), {"a": 1}))


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.block = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
        self.scale = torch.nn.Parameter(torch.ones(2).half())
        self.sizes: list[int] = [1, 2]
        self.table: dict[str, int] = {"a": 1}

    def forward(self, x):
        return self.block(x) + self.sizes[0] + self.table["a"]


def test_torchscript_archives(tmp_path):
    model = Scripted().eval()
    path = tmp_path / "m.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model), path, _extra_files={"config.txt": '{"stride": 32}', "byteorder": "big"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == "torchscript"
    assert checkpoint.metadata["config.txt"] == '{"stride": 32}'
    assert checkpoint.metadata["byteorder"] == "little"
    assert checkpoint.tree.module.startswith("__torch__.")
    assert checkpoint.tree.get("sizes") == [1, 2]
    assert checkpoint.tree.get("table") == {"a": 1}
    ours = as_torch_state_dict(module_state_dict(checkpoint.tree))
    theirs = model.state_dict()
    assert set(ours) == set(theirs)
    for key in theirs:
        assert_same(ours[key], theirs[key])
    assert inspect_file(path).kind == "torchscript"


def test_traced_archives_hold_constants(tmp_path):
    path, constant = tmp_path / "m.pt", torch.arange(5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(lambda x: x + constant, torch.ones(5))
        torch.jit.save(traced, str(path))
    constants = [each for each in read_checkpoint(path).constants if isinstance(each, TensorRef)]
    assert [each.numpy().tolist() for each in constants if each.shape == (5,)] == [[0, 1, 2, 3, 4]]


def test_big_endian_archives(tmp_path):
    values = {"f": np.arange(5, dtype=">f4"), "i": np.arange(4, dtype=">i8"), "h": np.array([1.5, -2], dtype=">f2")}
    little = save(
        {key: torch.from_numpy(v.astype(v.dtype.newbyteorder("="))) for key, v in values.items()}, tmp_path / "l"
    )
    big = tmp_path / "big.pt"
    with zipfile.ZipFile(little) as source, zipfile.ZipFile(big, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            if "/data/" in name:
                content = list(values.values())[int(name.rpartition("/")[2])].tobytes()
            target.writestr(name, content)
    checkpoint = read_checkpoint(big)
    for key, value in values.items():
        array = checkpoint.tensors[key].numpy()
        assert array.dtype.isnative
        np.testing.assert_array_equal(array, value)
        assert as_torch_state_dict(checkpoint)[key].tolist() == value.tolist()


@pytest.mark.parametrize("blob", [False, True], ids=["file", "blob"])
def test_arrays_share_a_blob_of_the_store_and_never_change_the_file(blob, tmp_path):
    path = save({"a": torch.zeros(1000), "b": torch.ones(10, dtype=torch.bfloat16)}, tmp_path / "x.pt")
    if blob:
        target = tmp_path / "blobs" / "sha256" / "ab" / ("ab" * 32)
        target.parent.mkdir(parents=True)
        path = path.rename(target)
        path.chmod(0o444)
    before = path.read_bytes()
    checkpoint = read_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensors = as_torch_state_dict(checkpoint)
    tensors["a"] += 1
    assert checkpoint.tensors["a"].numpy()[0] == (1 if blob else 0)  # one mapping, this process's own; or a copy
    assert path.read_bytes() == before
    assert read_checkpoint(path).tensors["a"].numpy()[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        checkpoint.tensors["a"].numpy()[0] = 5


def test_conversion_of_floats_alone(tmp_path):
    path = save({"a": torch.ones(2, dtype=torch.float16), "n": torch.tensor(7)}, tmp_path / "x.pt")
    found = as_torch_state_dict(read_checkpoint(path), dtype=torch.float32)
    assert (found["a"].dtype, found["n"].dtype) == (torch.float32, torch.int64)


def test_bare_tensors_and_lists(tmp_path):
    assert list(read_checkpoint(save(torch.ones(2), tmp_path / "a")).tensors) == ["tensor"]
    path = save([torch.ones(1), {"x": (torch.ones(2),)}], tmp_path / "b")
    assert {key: ref.shape for key, ref in read_checkpoint(path).tensors.items()} == {"0": (1,), "1.x.0": (2,)}
    path = save({"a.b": torch.ones(1), "a": {"b": torch.ones(2)}}, tmp_path / "c")
    with pytest.raises(ModelFileError, match=r"two tensors have the key a\.b"):
        _ = read_checkpoint(path).tensors


def test_what_is_not_supported_says_so(tmp_path):
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    with pytest.raises(UnsafeFileError, match=r"torch\._utils\._rebuild_qtensor"):
        read_checkpoint(save({"q": quantised}, tmp_path / "q"))
    with pytest.raises(ModelFileError, match="conjugated"):
        read_checkpoint(save({"c": torch.ones(2, dtype=torch.complex64).conj()}, tmp_path / "c"))
    with pytest.raises(InputError, match="modules='all'"):
        read_checkpoint(tmp_path / "q", modules="all")
    objects = tmp_path / "o"
    torch.save({"o": np.array([object(), 1], dtype=object)}, objects)
    with pytest.raises(ModelFileError, match="dtype O8"):
        read_checkpoint(objects)


def test_other_kinds_of_file(tmp_path):
    samples = {
        "text": b"hello, this is no model at all\n",
        "html": b"<!DOCTYPE html><html>not found</html>",
        "gguf": b"GGUF\x03\x00\x00\x00" + bytes(64),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
        "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n",
        "engine": b"ftrt" + bytes(64),
        "tar": b"sys_info".ljust(257, b"\0") + b"ustar\x0000" + bytes(300),
        "pickle": pickle.dumps({"a": 1}),
    }
    for name, data in samples.items():
        path = tmp_path / f"{name}.pt"
        path.write_bytes(data)
        with pytest.raises(UnsupportedModelError):
            read_checkpoint(path)
    assert inspect_file(tmp_path / "engine.pt").kind == "engine"
    assert inspect_file(tmp_path / "tar.pt").kind == "tar"
    with pytest.raises(ModelFileError, match="empty"):
        (tmp_path / "empty").touch()
        read_checkpoint(tmp_path / "empty")
    with pytest.raises(ModelFileError, match="No such file"):
        read_checkpoint(tmp_path / "absent")
    with pytest.raises(AmbiguousModelError, match=r"(?s)several model files.*engine\.pt"):
        read_checkpoint(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(ModelFileError, match="holds no checkpoint"):
        read_checkpoint(tmp_path / "none")


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
def test_pipes_and_devices_are_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ModelFileError, match="not a file"):
            read_checkpoint(path)


def test_reading_needs_neither_torch_nor_pickle_nor_numpy(tmp_path):
    path = save(
        {"a": torch.arange(6.0).reshape(2, 3), "s": {"b": torch.ones(3, dtype=torch.bfloat16)}}, tmp_path / "x.pt"
    )
    program = f"""
import sys
for name in ("torch", "pickle", "_pickle", "cPickle", "dill"):
    sys.modules[name] = None  # any import of these fails
from lensmount_reading import inspect_file, read_checkpoint
facts = inspect_file({str(path)!r})
assert facts.tensors["s.b"].dtype == "bfloat16", facts
assert "numpy" not in sys.modules
del sys.modules["pickle"], sys.modules["_pickle"]  # numpy itself wants pickle
values = read_checkpoint({str(path)!r}).tensors
assert values["a"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
assert values["s.b"].numpy().tolist() == [1, 1, 1]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
