"""Files that are known and not run: every refusal says what was found and what runs it."""

from __future__ import annotations

import json
import struct
from importlib import import_module
from types import SimpleNamespace

import pytest
from hypothesis import find
from hypothesis import strategies as st

from lensmount import registry
from lensmount.contracts import NotRunnable, ReadRequest
from lensmount.errors import LensmountError, PluginError, UnsupportedModelError
from lensmount.specs import Architecture
from lensmount_reading import first_stranger, inspect_file
from lensmount_reading.recognise import read

PLUGINS = ("clip", "owlv2", "sam2", "rfdetr", "yolo")
TABLES = {name: import_module(f"lensmount_{name}.strangers").STRANGERS for name in PLUGINS}
KINDS = [
    pytest.param(plugin, kind, id=f"{plugin}-{number}-{kind.what[:30]}")
    for plugin, kinds in TABLES.items()
    for number, kind in enumerate(kinds)
]


def member(mark):
    """The simplest name that a mark fits."""
    letters = st.from_regex(mark, fullmatch=True, alphabet=st.characters(codec="ascii", categories=("L", "N", "P")))
    return find(letters, lambda _: True)


def safetensors(path, names):
    """A file with one number under each name."""
    table = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * len(names)))
    return path


def onnx_graph(path, inputs, outputs, operators=()):
    """A graph whose outputs are its first input, of one dimension."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in [*inputs, *outputs]]
    nodes = [helper.make_node("Identity", [inputs[0]], [name]) for name in outputs]
    nodes += [helper.make_node(name, [inputs[0]], [f"of_{name}"], domain="others") for name in operators]
    graph = helper.make_graph(nodes, "g", value[: len(inputs)], value[len(inputs) :])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("others", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
    return path


def write(folder, kind, prefix=""):
    """A file that holds what tells a kind, and nothing else."""
    if kind.tensors:
        return safetensors(folder / "m.safetensors", [prefix + member(mark) for mark in kind.tensors])
    inputs = [member(mark) for mark in kind.inputs] or ["anything"]
    outputs = [member(mark) for mark in kind.outputs] or ["something"]
    return onnx_graph(folder / "m.onnx", inputs, outputs, [f"{name}_TRT" for name in kind.operators])


@pytest.mark.parametrize(("plugin", "kind"), KINDS)
def test_every_kind_is_refused_by_name(tmp_path, plugin, kind):
    path = write(tmp_path, kind)
    assert first_stranger(inspect_file(path), TABLES[plugin]).what == kind.what
    with pytest.raises(UnsupportedModelError) as caught:
        registry.load(path)
    said = str(caught.value)
    assert kind.what in said and kind.runs_with in said and "which is not run here" in said
    assert "pip install" not in said  # every plugin of lensmount is installed here


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module."])
@pytest.mark.parametrize(("plugin", "kind"), [p for p in KINDS if p.values[1].tensors])
def test_wrappers_hide_no_kind(tmp_path, plugin, kind, prefix):
    answer = first_stranger(inspect_file(write(tmp_path, kind, prefix)), TABLES[plugin])
    assert answer is not None and answer.what == kind.what


@pytest.mark.parametrize(("plugin", "kind"), KINDS)
def test_each_mark_is_needed(tmp_path, plugin, kind):
    marks = {"tensors": kind.tensors, "inputs": kind.inputs, "outputs": kind.outputs}
    for name, held in marks.items():
        for left in held:
            rest = {key: tuple(m for m in kept if m is not left) for key, kept in marks.items()}
            if not any(rest.values()):
                continue
            part = SimpleNamespace(operators=kind.operators, **rest)
            answer = kind.met(inspect_file(write(tmp_path, part)))
            assert answer is None, (name, left)


# --- the reader -------------------------------------------------------------------------------------------------------


def request(path, **recognisers):
    return ReadRequest(path=path, given=path, bring=lambda name: None, recognisers=recognisers)


def test_several_reasons_are_all_told(tmp_path):
    path = safetensors(tmp_path / "m.safetensors", ["w"])
    one, other = (
        NotRunnable("a pear", "tensor w", "run it with p"),
        NotRunnable("an apple", "tensor w", "run it with a"),
    )
    with pytest.raises(UnsupportedModelError, match="is a pear or an apple, which is not run here") as caught:
        read(request(path, first=lambda facts: one, second=lambda facts: None, third=lambda facts: other))
    assert caught.value.found == "tensor w" and caught.value.fix == "run it with p; or run it with a"


def test_who_has_the_file_for_theirs_speaks_first(tmp_path):
    def broken(facts):
        raise UnsupportedModelError("a plum without its stone")

    path = safetensors(tmp_path / "m.safetensors", ["w"])
    with pytest.raises(UnsupportedModelError, match="without its stone"):
        read(request(path, first=lambda facts: NotRunnable("a pear", "w", "p"), second=broken))


@pytest.mark.parametrize("architecture", [None, "yolo"])
def test_what_nobody_knows_names_no_plugin_that_is_installed(tmp_path, architecture):
    path = safetensors(tmp_path / "m.safetensors", ["who.knows"])
    with pytest.raises(UnsupportedModelError, match="no installed architecture recognises") as caught:
        registry.load(path, architecture=architecture)
    assert "pip install" not in str(caught.value) and "writing-a-plugin" in caught.value.fix
    assert ("leave architecture out" in caught.value.fix) is (architecture is not None)


def test_plugins_that_are_missing_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("lensmount_reading.recognise.find_spec", lambda name: None if "sam2" in name else object())
    path = safetensors(tmp_path / "m.safetensors", ["who.knows"])
    with pytest.raises(UnsupportedModelError) as caught:
        registry.load(path)
    assert caught.value.fix.endswith("pip install lensmount-sam2")


def test_graphs_of_several_inputs_say_so(tmp_path):
    path = onnx_graph(tmp_path / "m.onnx", ["left", "right"], ["depth"])
    with pytest.raises(UnsupportedModelError, match=r"a graph of 2 inputs \(left, right\)"):
        registry.load(path)


def answers_with(value):
    """A recogniser's module whose answer is the value."""
    import sys
    from types import ModuleType

    module = ModuleType("strange_answers")
    module.recognise = lambda facts: value
    sys.modules["strange_answers"] = module
    return Architecture(name="odd", tasks=("any",), factory="x:y", recognise="strange_answers:recognise")


@pytest.mark.parametrize("junk", ["a reason", 3, ("what", "found", "with"), {"what": "x"}])
def test_a_reason_is_a_typed_one(junk):
    from lensmount.host.resolve import _recognise

    with pytest.raises(PluginError, match="NotRunnable"):
        _recognise(answers_with(junk), None)
    answer = NotRunnable("a pear", "w", "p")
    assert _recognise(answers_with(answer), None) is answer
    assert not issubclass(NotRunnable, LensmountError)
