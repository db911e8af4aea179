"""Every hook, end to end: each from a plugin that implements it alone, what the facade makes of it, and without it."""

from __future__ import annotations

import types

import pytest

import tiny_plugin
from lensmount import registry as facade
from lensmount.errors import ArtifactNotFoundError, ModelNotFoundError, NoPackageError, PluginError
from lensmount.host.discovery import given
from lensmount.registry import Registry
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    CacheProvider,
    Command,
    ModelCard,
    ModelPackage,
    Source,
    hookimpl,
)
from lensmount.specs.hookspecs import LensmountHooks

HOOKS = [name for name in vars(LensmountHooks) if name.startswith("lensmount_")]


def alone(hook, *descriptors):
    """A plugin that implements one hook."""

    def implementation():
        return descriptors

    return types.SimpleNamespace(**{hook: hookimpl(implementation)})


ARCHITECTURES = alone(
    "lensmount_architectures", Architecture(name="tiny", tasks=("object-detection",), factory="tiny_plugin:build")
)
BACKENDS = alone(
    "lensmount_backends",
    Backend(name="tiny", formats=("tiny",), probe="tiny_plugin:probe", opener="tiny_plugin:Session"),
)
SOURCES = alone("lensmount_sources", Source(scheme="shelf", finder="shelf_plugin:Shelf"))
CACHES = alone("lensmount_caches", CacheProvider(name="shelf", factory="shelf_plugin:new_cache"))
CARDS = alone(
    "lensmount_model_cards",
    ModelCard(
        id="tiny-1",
        architecture="tiny",
        task="object-detection",
        packages=(
            ModelPackage(name="p", format="tiny", artifacts=(Artifact(name="weights.bin", uri="shelf://weights.bin"),)),
        ),
    ),
)
COMMANDS = alone("lensmount_commands", Command(name="dust", app="shelf_plugin:dust", help="Dust the shelf."))
PLUGINS = {
    "lensmount_architectures": ARCHITECTURES,
    "lensmount_model_cards": CARDS,
    "lensmount_backends": BACKENDS,
    "lensmount_sources": SOURCES,
    "lensmount_caches": CACHES,
    "lensmount_commands": COMMANDS,
}


def registry(*, without=None):
    """All of them, each from a plugin of its own, but one."""
    return Registry(lambda: [given(plugin, hook) for hook, plugin in PLUGINS.items() if hook != without])


@pytest.fixture(autouse=True)
def shelf(tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_bytes(b"weights")
    monkeypatch.setenv("SHELF", str(tmp_path))
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "store"))
    return tmp_path


def test_every_hook_has_a_test_here():
    assert list(PLUGINS) == HOOKS
    assert {f"test_{hook}" for hook in HOOKS} <= set(globals())


def test_lensmount_architectures():
    model = registry().load("tiny-1")
    assert model.contents == {"weights.bin": b"weights"}  # what `factory` built, of what was fetched
    with pytest.raises(ModelNotFoundError, match="needs architecture 'tiny', which no installed plugin brings"):
        registry(without="lensmount_architectures").load("tiny-1")


def test_lensmount_model_cards():
    assert [card.id for card in registry().models()] == ["tiny-1"]
    assert registry().describe("tiny-1").architecture == "tiny"
    assert registry(without="lensmount_model_cards").models() == []


def test_lensmount_backends():
    plan = registry().explain("tiny-1")
    assert plan.selected.backend.name == "tiny"
    assert ("tiny", True) in [(backend.name, status.usable) for backend, status in registry().backends()]
    with pytest.raises(NoPackageError, match="a backend that opens 'tiny'"):
        registry(without="lensmount_backends").load("tiny-1")


def test_lensmount_sources(shelf):
    registry().load("tiny-1")
    (shelf / "weights.bin").unlink()
    with pytest.raises(ArtifactNotFoundError, match=r"the shelf has no weights\.bin"):
        registry().load("tiny-1")
    with pytest.raises(PluginError, match=r"no source for artifact 'weights\.bin'"):
        registry(without="lensmount_sources").load("tiny-1")


def test_lensmount_caches(monkeypatch):
    monkeypatch.setattr(tiny_plugin, "build", lambda context: types.SimpleNamespace(caches=context.caches))
    model = registry().load("tiny-1", caches={"embeddings": ("shelf", {"entries": 3})})
    cache = model.caches["embeddings"]
    for key in "abcd":
        cache.put(key, key)
    assert [cache.get(key) for key in "abcd"] == [None, "b", "c", "d"]  # it took its setting
    with pytest.raises(PluginError, match="no cache provider 'shelf'"):
        registry(without="lensmount_caches").load("tiny-1", caches={"embeddings": "shelf"})


def test_lensmount_commands(lensmount, monkeypatch):
    monkeypatch.setattr(facade, "_default", registry())
    assert "Dust the shelf." in lensmount("--help").out
    assert lensmount("dust", "--twice").out == "dusted\ndusted\n"
    monkeypatch.setattr(facade, "_default", registry(without="lensmount_commands"))
    done = lensmount("dust")
    assert done.status == 2 and "No such command 'dust'" in done.err


@pytest.mark.parametrize("hook", HOOKS)
def test_one_hook_is_enough_for_a_plugin(hook):
    (status,) = [s for s in registry().plugins() if s.name == hook]
    assert (status.state, status.hooks) == ("active", (hook,))
