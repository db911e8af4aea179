"""Keys of networks that were saved inside wrappers of training."""

from __future__ import annotations

import pytest

from lensmount_reading import inspect_file, module_state_dict, read_checkpoint, submodules, unwrapped
from lensmount_reading.wrappers import without_wrappers
from wrapped import WAYS, wrapped

NAMES = ("model.0.conv.weight", "model.0.conv.bias", "head.scale", "modules.a", "submodule.module_list.0.w", "module")


@pytest.mark.parametrize("way", [*WAYS, *range(3, 20)])
def test_wrappers_leave_no_trace_in_keys(way):
    tensors = {name: object() for name in NAMES}
    assert without_wrappers(wrapped(tensors, way)) == tensors
    assert without_wrappers(tensors) == tensors


def test_keys_that_would_become_one_stay_as_they_are():
    tensors = {"a.w": 1, "module.a.w": 2, "module.b.w": 3, "_orig_mod.module.b.w": 4, "module.c.w": 5}
    expected = {"a.w": 1, "module.a.w": 2, "module.b.w": 3, "_orig_mod.module.b.w": 4, "c.w": 5}
    assert without_wrappers(tensors) == expected


@pytest.mark.parametrize("way", WAYS)
def test_files_are_read_and_looked_at_alike(tmp_path, way):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.full((2,), float(i)) for i, name in enumerate(NAMES)}
    torch.save({"state": wrapped(tensors, way), "epoch": 3}, tmp_path / "x.pt")
    found = read_checkpoint(tmp_path / "x.pt").tensors
    assert {key: float(ref.numpy()[0]) for key, ref in found.items()} == {
        f"state.{name}": float(i) for i, name in enumerate(NAMES)
    }
    assert set(inspect_file(tmp_path / "x.pt").tensors) == set(found)


def test_pickled_modules_inside_wrappers(tmp_path):
    torch = pytest.importorskip("torch")
    inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.DataParallel(torch.nn.Linear(3, 2)))
    torch.save({"model": torch.nn.DataParallel(torch.nn.DataParallel(inner))}, tmp_path / "x.pt")
    record = read_checkpoint(tmp_path / "x.pt", modules="records").tree["model"]
    assert record.name == "DataParallel"
    root = unwrapped(record)
    assert root.name == "Sequential"
    assert [child.name for child in submodules(root).values()] == ["Linear", "Linear"]
    assert list(module_state_dict(root)) == ["0.weight", "0.bias", "1.weight", "1.bias"]
