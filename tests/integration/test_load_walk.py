"""The walk of one load: what `registry.load` goes through on its way to an architecture's factory."""

from __future__ import annotations

import inspect
import sys
from collections import Counter

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("lensmount_shapes")

from lensmount import registry
from lensmount.host.opening import open_model
from lensmount.host.plan import plan
from lensmount.host.resolve import resolve
from lensmount.registry import Registry
from lensmount.specs.imports import import_string
from lensmount.store.fetch import fetch_package

STEPS = (resolve, plan, fetch_package, open_model)


@pytest.fixture(scope="module")
def walk():
    """Calls of functions of ours, from `registry.load` to the factory: (caller's module, module, code object).

    Plugins, machine and imports are done before: this is about a load, not about the first one. Methods that
    `dataclass` writes have no file and are left out.
    """
    registry.load("shapes-nano", backend="onnx").close()
    architecture = registry.default().index.architectures[registry.describe("shapes-nano").architecture]
    end = import_string(architecture.factory, "the factory").__code__
    calls = []

    def see(frame, event, argument):
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith("lensmount") and frame.f_code.co_filename != "<string>":
            calls.append((frame.f_back.f_globals.get("__name__", ""), module, frame.f_code))

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        model = registry.load("shapes-nano", backend="onnx")
    finally:
        sys.setprofile(before)
    model.close()
    codes = [code for _, _, code in calls]
    assert codes[0] is Registry.load.__code__
    return calls[: codes.index(end)]


def test_each_step_is_entered_once_and_in_order(walk):
    steps = [step.__code__ for step in STEPS]
    assert [code.co_name for _, _, code in walk if code in steps] == [step.__name__ for step in STEPS]
    assert Counter(code for _, _, code in walk)[Registry.load.__code__] == 1


def test_a_load_is_short_to_follow(walk):
    """Counted is every file that holds a function which the registry or the host calls: what a reader of `load` opens.

    What the store, a runtime or a reader of graphs calls inside itself is its own affair.
    """
    followed = [
        module for caller, module, _ in walk if caller.startswith("lensmount.host.") or caller == "lensmount.registry"
    ]
    files = {"lensmount.registry", *followed}
    assert len(files) <= 12, sorted(files)
    rooms = {file.rpartition(".")[0] for file in files}
    assert len(rooms) <= 6, sorted(rooms)


def test_signatures_are_those_of_the_methods():
    for name in ("load", "explain", "describe", "models", "pull", "lock", "export", "refresh", "add_plugin"):
        method = getattr(Registry, name)
        bound = list(inspect.signature(method).parameters.values())[1:]
        assert list(inspect.signature(getattr(registry, name)).parameters.values()) == bound


def test_another_registry_in_the_place_of_the_default():
    empty = Registry(list)
    with registry.use(empty) as used:
        assert used is empty
        assert registry.models() == []
        assert registry.default().index is empty.index
        with registry.use(Registry(list)) as inner:
            assert registry.default().site is inner.site
        assert registry.default().index is empty.index
    assert registry.models()
