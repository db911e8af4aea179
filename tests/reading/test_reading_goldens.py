"""Real files: official layouts and genuine checkpoints, where the reference data are at hand."""

from __future__ import annotations

import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import types
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lensmount.errors import UnsafeFileError
from lensmount_reading import (
    Record,
    as_torch_state_dict,
    inspect_file,
    module_records,
    module_state_dict,
    read_checkpoint,
    read_onnx,
    to_safetensors,
)

YOLO = ("yolov8n", "yolov8n-seg", "yolov8n-pose", "yolov8n-cls", "yolov9t", "yolov10n", "yolo12n", "yolo26n")
YOLO += ("yolo11n", "yolo11n-seg")


@pytest.fixture(scope="module")
def unpacked(request, tmp_path_factory):
    """A function that gives the path of a reference file, unpacked."""
    given = request.config.getoption("--reference-data", default=None) or os.environ.get("LENSMOUNT_REFERENCE_DATA")
    if not given:
        pytest.skip("no reference data: set LENSMOUNT_REFERENCE_DATA")
    folder = tmp_path_factory.mktemp("unpacked")

    def find(name: str) -> Path:
        path = Path(given) / name
        if path.exists():
            return path
        target = folder / Path(name).name
        if not target.exists():
            packed = path.with_name(path.name + ".xz")
            if not packed.exists():
                pytest.skip(f"{name} is not among the reference data")
            target.write_bytes(lzma.decompress(packed.read_bytes()))
        return target

    return find


class Stub:
    """Stands for any class of a module tree, so that torch itself can load it."""

    def __setstate__(self, state):
        self.__dict__.update(state)


def load_with_stubs(path):
    """The module tree as torch reads it, with every class of the model's code replaced by a stub."""
    torch = pytest.importorskip("torch")

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            if module.startswith(("ultralytics.", "torch.nn.modules.")):
                return type(name, (Stub,), {})
            return super().find_class(module, name)

    stand_in = types.SimpleNamespace(__name__="pickle", Unpickler=Unpickler, load=pickle.load)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, pickle_module=stand_in, weights_only=False)


def official_state_dict(module, prefix=""):
    found = {prefix + key: value for key, value in module._parameters.items() if value is not None}
    hidden = getattr(module, "_non_persistent_buffers_set", ())
    found |= {prefix + k: v for k, v in module._buffers.items() if v is not None and k not in hidden}
    for name, child in module._modules.items():
        found |= official_state_dict(child, f"{prefix}{name}.")
    return found


@pytest.mark.parametrize("name", [*(f"goldens/{name}.pt" for name in YOLO), "weights/yolov9t_volleyball_nc1.pt"])
def test_official_module_pickles(unpacked, name):
    torch = pytest.importorskip("torch")
    path = unpacked(name)
    record = read_checkpoint(path, modules="records").tree["model"]
    assert isinstance(record, Record)
    theirs = load_with_stubs(path)["model"]
    expected = official_state_dict(theirs)
    ours = as_torch_state_dict(module_state_dict(record))
    assert list(ours) == list(expected)
    for key, tensor in expected.items():
        assert ours[key].dtype == tensor.dtype
        assert torch.equal(ours[key], tensor.detach()), key
    assert record.get("names") == theirs.names
    assert record.get("yaml") == theirs.yaml
    assert record.get("stride").numpy().tolist() == theirs.stride.tolist()
    classes = {name: each.name for name, each in module_records(record)}
    assert classes["model.0"] == type(theirs._modules["model"]._modules["0"]).__name__
    with pytest.raises(UnsafeFileError, match=r"ultralytics\.nn\.tasks\."):
        read_checkpoint(path)
    facts = inspect_file(path)
    assert facts.error is None
    assert facts.refused_globals == ()
    assert facts.precision == "fp16"


def test_inspection_of_a_genuine_checkpoint_without_torch(unpacked):
    path = unpacked("weights/yolov9t_volleyball_nc1.pt")
    program = f"""
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from lensmount_reading import inspect_file
facts = inspect_file({str(path)!r})
assert len(facts.tensors) > 1000 and "ultralytics.nn.tasks.DetectionModel" in facts.globals
assert facts.checkpoint.tree["model"].get("names") == {{0: "ball"}}
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["clip-tiny-ViT", "clip-tiny-RN"])
def test_clip_archives(unpacked, name):
    torch = pytest.importorskip("torch")
    path = unpacked(f"goldens/{name}.pt")
    checkpoint = read_checkpoint(path)
    assert checkpoint.kind == "torchscript"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.jit.load(str(path)).state_dict()
    ours = as_torch_state_dict(module_state_dict(checkpoint.tree))
    assert set(ours) == set(theirs) == set(checkpoint.tensors)
    for key, tensor in theirs.items():
        assert ours[key].dtype == tensor.dtype
        assert torch.equal(ours[key], tensor)
    assert len(checkpoint.constants) == 4 or len(checkpoint.constants) == 3


def test_a_flat_state_dict(unpacked, tmp_path):
    torch = pytest.importorskip("torch")
    path = unpacked("goldens/PE-Core-tiny.pt")
    theirs = torch.load(path, weights_only=True)
    for each in (path, to_safetensors(read_checkpoint(path), tmp_path / "m.safetensors")):
        ours = as_torch_state_dict(read_checkpoint(each))
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


def test_a_hub_folder(unpacked):
    library = pytest.importorskip("safetensors.numpy")
    path = unpacked("goldens/owlv2-tiny-hf/model.safetensors")
    theirs = library.load_file(path)
    ours = read_checkpoint(path).tensors
    assert set(ours) == set(theirs)
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key].numpy(), array)


@pytest.mark.parametrize(
    "name",
    [
        "goldens/yolov8n.onnx",
        "goldens/yolov8n-seg.onnx",
        "goldens/yolov10n-e2e.onnx",
        "goldens/yolo26n-e2e.onnx",
        "weights/yolov8n_dq.onnx",
        "weights/yolov8n-seg_640_dq.onnx",
        "weights/yolov8n_int8_640_op20.onnx",
    ],
)
def test_real_onnx_files_against_the_library(unpacked, name):
    onnx = pytest.importorskip("onnx")
    path = unpacked(name)
    facts, proto = read_onnx(path), onnx.load(str(path))
    assert facts.ir_version == proto.ir_version
    assert facts.opsets == {each.domain: each.version for each in proto.opset_import}
    assert facts.metadata == {each.key: each.value for each in proto.metadata_props}
    names = {each.name for each in proto.graph.initializer}
    assert {key: fact.shape for key, fact in facts.initializers.items()} == {
        each.name: tuple(each.dims) for each in proto.graph.initializer
    }
    for ours, theirs in (
        (facts.inputs, [each for each in proto.graph.input if each.name not in names]),
        (facts.outputs, proto.graph.output),
    ):
        assert [each.name for each in ours] == [each.name for each in theirs]
        for mine, their in zip(ours, theirs, strict=True):
            kind = their.type.tensor_type
            assert np.dtype(mine.dtype) == onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
            assert list(mine.shape) == [each.dim_value or each.dim_param or None for each in kind.shape.dim]
    operators: dict[str, int] = {}
    for node in proto.graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    assert facts.operators == operators
    assert inspect_file(path).kind == "onnx"
    assert inspect_file(path).precision == ("int8" if "int8" in name else "fp32")


def test_damaged_real_files(unpacked, tmp_path):
    import random

    from lensmount.errors import ModelFileError

    path, source = tmp_path / "m.pt", random.Random(0)
    whole = unpacked("goldens/yolov8n-cls.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as file:
        at = file.getinfo("yolov8n-cls/data.pkl").header_offset
        size = file.getinfo("yolov8n-cls/data.pkl").file_size
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(3):
            data[at + 60 + source.randrange(size)] = source.randrange(256)
        path.write_bytes(data)
        try:
            for tensor in read_checkpoint(path, modules="records").tensors.values():
                tensor.numpy()
        except ModelFileError:
            pass
        inspect_file(path).summary()


def test_metadata_is_what_the_exporter_wrote(unpacked):
    facts = inspect_file(unpacked("goldens/yolov8n.onnx"))
    assert facts.metadata["task"] == "detect"
    assert json.loads(facts.metadata["imgsz"]) == [640, 640]
