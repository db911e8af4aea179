"""Graphs whose tensors lie in files beside them: recognised, run, and refused where a file is not safe or not whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lensmount import registry
from lensmount.errors import AmbiguousModelError, IntegrityError, ModelFileError, SourceError, UnsafeFileError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PICTURE = np.zeros((32, 32, 3), np.uint8)
NAMES = ("m.onnx.data", "model.onnx_data", "weights.onnx", "weights.bin", "a/b/c", "conv.weight", "ü f.data")


def write_graph(path: Path, location: str, score: float = 0.5) -> Path:
    """A detector of one box that is wholly made of external tensors."""
    rows = np.zeros((1, 7, 21), np.float32)
    rows[0, :4, 0] = (16, 16, 8, 8)
    rows[0, 4, 0] = score
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output0"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [info("images", 1, [1, 3, 32, 32])],
        [info("output0", 1, [1, 7, 21])],
        [numpy_helper.from_array(rows, "rows"), numpy_helper.from_array(np.zeros(1, np.float32), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def confidence(name: str | Path, **options) -> float:
    with registry.load(name, device="cpu", **options) as model:
        return round(float(model(PICTURE)[0].confidence[0]), 3)


@pytest.mark.parametrize("location", NAMES)
def test_by_path_and_by_folder(tmp_path, location):
    path = write_graph(tmp_path / "m" / "m.onnx", location)
    assert confidence(path) == 0.5
    if not location.endswith(".onnx"):
        assert confidence(path.parent) == 0.5
    (package,) = registry.describe(path).packages
    assert [(a.name, a.role) for a in package.artifacts] == [("m.onnx", "graph"), (location, "data")]


def test_other_data_under_the_same_graph_are_another_model(tmp_path):
    one, two = (write_graph(tmp_path / f"{i}" / "m.onnx", "m.data", score) for i, score in enumerate((0.5, 0.75)))
    assert one.read_bytes() == two.read_bytes()
    with registry.load(one, device="cpu") as first, registry.load(two, device="cpu") as second:
        assert [float(m(PICTURE)[0].confidence[0]) for m in (first, second)] == [0.5, 0.75]


def test_two_graphs_in_a_folder(tmp_path):
    write_graph(tmp_path / "a.onnx", "a.data")
    write_graph(tmp_path / "b.onnx", "b.data")
    with pytest.raises(AmbiguousModelError, match="several graphs"):
        registry.load(tmp_path)


@pytest.mark.parametrize("location", NAMES)
def test_linked_as_in_the_hubs_cache(tmp_path, location):
    original = write_graph(tmp_path / "from" / "m.onnx", location)
    repository = tmp_path / "models--owner--repo"
    folder = repository / "snapshots" / ("a" * 40) / "onnx"
    (repository / "blobs").mkdir(parents=True)
    for i, name in enumerate(("m.onnx", location)):
        shutil.copyfile(original.parent / name, repository / "blobs" / f"etag{i}")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(repository / "blobs" / f"etag{i}")
    assert confidence(folder / "m.onnx") == 0.5
    (tmp_path / "blobs").mkdir()
    shutil.copyfile(original.parent / location, tmp_path / "blobs" / "other")
    (folder / location).unlink()
    (folder / location).symlink_to(tmp_path / "blobs" / "other")
    with pytest.raises(UnsafeFileError, match="lie elsewhere"):
        registry.load(folder / "m.onnx")


@pytest.mark.parametrize("address", ["hf://owner/net/onnx/m.onnx", "hf://owner/net@main/onnx/m.onnx"])
def test_from_the_hub(tmp_path, hub, home, address):
    path = write_graph(tmp_path / "m.onnx", "m.onnx_data")
    hub.put_repo("owner/net", {f"onnx/{name}": (tmp_path / name).read_bytes() for name in (path.name, "m.onnx_data")})
    assert confidence(address) == 0.5
    assert confidence(address, offline=True) == 0.5
    hub.put_repo("owner/none", {"m.onnx": path.read_bytes()})
    with pytest.raises(ModelFileError, match="of the ONNX model is missing"):
        registry.load("hf://owner/none/m.onnx")


def test_missing_cut_and_linked_away(tmp_path):
    path = write_graph(tmp_path / "m" / "m.onnx", "m.data")
    data = path.parent / "m.data"
    content = data.read_bytes()
    for wrong in (content[:-1], b""):
        data.write_bytes(wrong)
        with pytest.raises(UnsafeFileError, match="lie elsewhere"):
            registry.load(path)
    (tmp_path / "secret").write_bytes(content)
    for link in (data.symlink_to, data.hardlink_to):
        data.unlink()
        link(tmp_path / "secret")
        with pytest.raises(UnsafeFileError):
            registry.load(path)
    data.unlink()
    for make in (lambda: None, data.mkdir):
        make()
        with pytest.raises(ModelFileError, match="is missing") as caught:
            registry.load(path)
        assert "one folder" in caught.value.fix


@pytest.mark.parametrize("location", ["../m.data", "/etc/hostname", "a/../../m.data", "a\\b", "C:x", "m.onnx", ""])
def test_names_that_leave_the_folder(tmp_path, location):
    path = write_graph(tmp_path / "m" / "m.onnx", "m.data")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())
    (tmp_path / "m.data").write_bytes(b"\0" * 10_000)
    with pytest.raises((UnsafeFileError, ModelFileError)):
        registry.load(path)


def test_from_the_web(tmp_path, web, home):
    path = write_graph(tmp_path / "m.onnx", "m.onnx.data")
    for name in ("m.onnx", "m.onnx.data"):
        web.put(f"/{name}", (tmp_path / name).read_bytes())
    assert confidence(f"{web.url}/m.onnx", allow_insecure=True) == 0.5
    assert path.is_file()
    with pytest.raises(ModelFileError, match="is missing"):  # the signature is for the graph alone
        registry.load(f"{web.url}/m.onnx?sig=1", allow_insecure=True)
    with pytest.raises((SourceError, IntegrityError)):
        registry.load(f"{web.url}/m.onnx")
