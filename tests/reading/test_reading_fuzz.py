"""Damaged files: every cut and thousands of changed bytes give a typed error or data within bounds, and soon."""

from __future__ import annotations

import random
import struct
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lensmount.errors import ModelFileError
from lensmount_reading import as_torch_state_dict, inspect_file, module_state_dict, read_checkpoint
from lensmount_reading.pickles import scan_pickle
from lensmount_reading.records import Record

torch = pytest.importorskip("torch")

QUICK = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)


def script_bytes(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Scripted()), str(folder / "s.pt"))
    return (folder / "s.pt").read_bytes()


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    tree = {"model": model.half(), "epoch": 5, "names": {0: "a"}, "array": np.arange(4), "t": torch.ones(3).bfloat16()}
    found = {}
    for legacy in (False, True):
        path = folder / f"{legacy}.pt"
        torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
        found["legacy" if legacy else "zip"] = path.read_bytes()
    found["script"] = script_bytes(folder)
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", 1, [1, "h"])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [value],
        [value],
        [onnx.numpy_helper.from_array(np.ones((2, 2), np.float32), "w")],
    )
    found["onnx"] = helper.make_model(graph).SerializeToString()
    safetensors = pytest.importorskip("safetensors.numpy")
    found["safetensors"] = safetensors.save({"a": np.ones((2, 3)), "b": np.arange(5)})
    return found


def use(path):
    """Everything that a user might do with a file; only typed errors may come out."""
    facts = inspect_file(path)
    facts.summary()
    _ = facts.precision
    try:
        checkpoint = read_checkpoint(path, modules="records")
        for tensor in checkpoint.tensors.values():
            if tensor.nbytes < 1 << 24:
                tensor.numpy().sum()
        as_torch_state_dict(checkpoint)
        tree = checkpoint.tree
        if isinstance(tree, dict) and isinstance(tree.get("model"), Record):
            module_state_dict(tree["model"])
    except ModelFileError as error:
        assert str(error)
        return False
    return True


KINDS = ["zip", "legacy", "script", "onnx", "safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_samples_are_sound(samples, tmp_path, kind):
    path = tmp_path / "m"
    path.write_bytes(samples[kind])
    assert use(path) is (kind != "onnx")
    assert inspect_file(path).error is None


@pytest.mark.parametrize("kind", KINDS)
def test_cuts(samples, tmp_path, kind):
    path, data = tmp_path / "m", samples[kind]
    step = max(1, len(data) // 400)
    for size in range(1, len(data), step):
        path.write_bytes(data[:size])
        assert not use(path), size


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes(samples, tmp_path, kind):
    path, source = tmp_path / "m", random.Random(kind)
    for _ in range(600):
        data = bytearray(samples[kind])
        for _ in range(source.choice((1, 1, 2, 8))):
            where = source.randrange(len(data))
            data[where] = source.choice((0, 1, 0x7F, 0x80, 0xFF, data[where] ^ (1 << source.randrange(8))))
        path.write_bytes(data)
        use(path)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_put_in_and_taken_out(samples, tmp_path, kind):
    path, source = tmp_path / "m", random.Random(kind)
    for _ in range(300):
        data = bytearray(samples[kind])
        where, size = source.randrange(len(data)), source.randrange(1, 40)
        if source.random() < 0.5:
            del data[where : where + size]
        else:
            data[where:where] = source.randbytes(size)
        path.write_bytes(data or b"x")
        use(path)


def archived(samples, name):
    """The pickle of an archive, and a function that makes the archive with another one."""
    import io

    with zipfile.ZipFile(io.BytesIO(samples[name])) as source:
        entries = {each: source.read(each) for each in source.namelist()}
    key = next(each for each in entries if each.endswith("/data.pkl"))

    def make(path, data):
        with zipfile.ZipFile(path, "w") as target:
            for each, content in entries.items():
                target.writestr(each, data if each == key else content)

    return entries[key], make


@pytest.mark.parametrize("kind", ["zip", "script"])
def test_changed_pickles_inside_sound_archives(samples, tmp_path, kind):
    pickle, make = archived(samples, kind)
    source, path = random.Random(kind), tmp_path / "m"
    for _ in range(600):
        data = bytearray(pickle)
        for _ in range(source.choice((1, 1, 3))):
            data[source.randrange(len(data))] = source.randrange(256)
        make(path, bytes(data))
        use(path)


OPCODES = b"NIJKMLGFXVSTUBC\x88\x89\x8a\x8b\x8c\x8d\x8e\x96)]}\x8f\x85\x86\x87tld\x91aesu\x90(012ghjpqr\x94c\x93io"
OPCODES += b"\x82\x83\x84R\x81\x92bPQ\x80\x95\x97\x98"
GLOBALS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"cos\nsystem\n",
    b"cbuiltins\nset\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\nscalar\n", b"cargparse\nNamespace\n", b"ctorch._tensor\n_rebuild_from_type_v2\n",
    b"cpathlib\nPosixPath\n", b"ccopyreg\n_reconstructor\n", b"cbuiltins\nbytearray\n", b"c_codecs\nencode\n",
    b"ctorch\ndevice\n", b"cbuiltins\ncomplex\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n",
    b"cbuiltins\ndict\n", b"ctorch\nfloat16\n", b"ctorch.jit._pickle\nbuild_intlist\n", b"ctorch\nTensor\n",
)  # fmt: skip
PIECES = st.one_of(
    st.sampled_from(OPCODES).map(lambda code: bytes([code])),
    st.sampled_from(GLOBALS),
    st.integers(-(2**70), 2**70).map(lambda n: b"\x8a\x0a" + n.to_bytes(10, "little", signed=True)),
    st.integers(0, 3).map(lambda n: b"K" + bytes([n])),
    st.text(max_size=6).map(lambda s: b"X" + struct.pack("<I", len(s.encode())) + s.encode()),
    st.sampled_from([b"X\x07\0\0\0storage", b"X\x02\0\0\0f4", b"X\x01\0\0\0<", b"C\x04abcd", b"X\x06\0\0\0latin1"]),
    st.integers(0, 5).map(lambda n: b"q" + bytes([n])),
    st.integers(0, 5).map(lambda n: b"h" + bytes([n])),
    st.binary(max_size=4),
)


@QUICK
@given(st.lists(PIECES, max_size=40), st.sampled_from(["plain", "modules", "script"]))
def test_any_sequence_of_opcodes(pieces, policy):
    def storage(identifier):
        from lensmount_reading.archive import storage_identifier
        from lensmount_reading.tensors import Storage

        dtype, key, _, numel, _ = storage_identifier(identifier, "x")
        return Storage(key, dtype, numel)

    scan = scan_pickle(b"\x80\x02" + b"".join(pieces) + b".", where="x", policy=policy, persistent=storage)
    assert scan.problem is None or isinstance(scan.problem, ModelFileError)


@QUICK
@given(
    st.sampled_from(GLOBALS),
    st.recursive(
        st.one_of(
            st.sampled_from(
                [b"N", b"\x88", b")", b"]", b"}", b"K\x00", b"K\x05", b"J\xff\xff\xff\xff", b"G" + bytes(8)]
            ),
            st.sampled_from(
                [b"C\x04abcd", b"X\x06\0\0\0latin1", b"X\x02\0\0\0f4", b"X\x01\0\0\0<", b"\x8a\x09" + b"\x7f" * 9]
            ),
            st.sampled_from(GLOBALS),
        ),
        lambda inner: st.lists(inner, max_size=6).map(lambda parts: b"(" + b"".join(parts) + b"t"),
        max_leaves=12,
    ),
    st.sampled_from([b"", b"(NNNNNtb", b"}b", b"(K\x01(K\x02t(X\x02\0\0\0f4\x89C\x04abcdtb", b")b"]),
)
def test_any_arguments_for_the_allowed_constructors(target, args, after):
    scan = scan_pickle(target + args + b"R" + after + b".", where="x", policy="modules")
    assert scan.problem is None or isinstance(scan.problem, ModelFileError)


@QUICK
@given(st.binary(min_size=1, max_size=300))
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    for head in (b"", b"PK\x03\x04", b"\x80\x02", b"\x08\x08", struct.pack("<Q", 50) + b"{"):
        path.write_bytes(head + data)
        use(path)
