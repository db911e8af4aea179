"""Every hook, end to end: each from a plugin that implements it alone, what the facade makes of it, and without it."""

from __future__ import annotations

import types

import pytest

import tiny_plugin
import written_plugin
from lensmount.errors import (
    ArtifactNotFoundError,
    MissingDependencyError,
    ModelNotFoundError,
    NoPackageError,
    OptionError,
    PluginError,
    PluginWarning,
    UnknownOptionError,
    UnsupportedModelError,
)
from lensmount.host.discovery import given
from lensmount.registry import Registry, use
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    CacheProvider,
    Command,
    Exporter,
    ModelCard,
    ModelPackage,
    Reader,
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
READERS = alone("lensmount_readers", Reader(name="vendor", marker="vendor.json", read="written_plugin:read"))
COMMANDS = alone("lensmount_commands", Command(name="dust", app="shelf_plugin:dust", help="Dust the shelf."))
EXPORTERS = alone(
    "lensmount_exporters",
    Exporter(
        name="coreml", target="coreml", precisions=("fp32", "fp16"), export="written_plugin:export", settings=("units",)
    ),
)
PLUGINS = {
    "lensmount_architectures": ARCHITECTURES,
    "lensmount_model_cards": CARDS,
    "lensmount_backends": BACKENDS,
    "lensmount_sources": SOURCES,
    "lensmount_caches": CACHES,
    "lensmount_readers": READERS,
    "lensmount_commands": COMMANDS,
    "lensmount_exporters": EXPORTERS,
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


def test_lensmount_commands(lensmount):
    with use(registry()):
        assert "Dust the shelf." in lensmount("--help").out
        assert lensmount("dust", "--twice").out == "dusted\ndusted\n"
    with use(registry(without="lensmount_commands")):
        done = lensmount("dust")
    assert done.status == 2 and "No such command 'dust'" in done.err


def vendor_folder(folder):
    folder.mkdir()
    (folder / "vendor.json").write_text('{"file": "weights.bin"}')
    (folder / "weights.bin").write_bytes(b"of the vendor")
    return folder


def test_lensmount_readers(tmp_path, monkeypatch):
    folder = vendor_folder(tmp_path / "a model")
    assert registry().load(folder).contents == {"weights.bin": b"of the vendor"}
    assert registry().describe(str(folder)).id == "a-model"
    monkeypatch.chdir(tmp_path)
    assert registry().describe("a model").id == "a-model"  # a folder with a marker is a path, whatever its name
    with pytest.raises(MissingDependencyError, match="pip install lensmount-reading"):
        registry(without="lensmount_readers").load(folder)


def test_files_that_no_installed_plugin_reads_name_the_one_that_does(tmp_path):
    (tmp_path / "weights.onnx").write_bytes(b"graph")
    with pytest.raises(MissingDependencyError, match="pip install lensmount-reading"):
        registry().load(tmp_path / "weights.onnx")
    (tmp_path / "model_config.json").write_text("{}")
    with pytest.raises(MissingDependencyError, match="pip install lensmount-roboflow") as caught:
        registry().load(tmp_path)
    assert caught.value.found == "readers: lensmount, vendor"


def test_readers_are_told_what_they_may_ask_and_checked(tmp_path, monkeypatch):
    told = []
    recognise = alone(
        "lensmount_architectures",
        Architecture(name="one", tasks=("t",), factory="a:b", recognise="written_plugin:recognise"),
        Architecture(name="two", tasks=("t",), factory="a:b", recognise="written_plugin:recognise"),
        Architecture(name="mute", tasks=("t",), factory="a:b"),
    )
    bare = alone("lensmount_readers", Reader(name="anything", read="written_plugin:read"))
    monkeypatch.setattr(written_plugin, "read", told.append)
    here = Registry(lambda: [given(recognise), given(bare)])
    (tmp_path / "file.bin").write_bytes(b"x")
    for architecture, asked in ((None, ["one", "two"]), ("two", ["two"])):
        with pytest.raises(PluginError, match="reader 'anything' returned the wrong thing"):
            here.describe(tmp_path / "file.bin", architecture=architecture)
        assert list(told[-1].recognisers) == asked
        assert (told[-1].path, told[-1].architecture) == (tmp_path / "file.bin", architecture)
    assert told[-1].recognisers["two"]("facts") == "recognised from facts"


def test_a_marker_is_read_by_one_reader(tmp_path):
    other = alone("lensmount_readers", Reader(name="rival", marker="vendor.json", read="a:b"))
    here = Registry(lambda: [given(READERS, "first"), given(other, "second")])
    with pytest.warns(PluginWarning, match=r"readers of 'vendor\.json' \(first\)"):
        assert [s.stage for s in here.plugins() if s.name == "second"] == ["conflict"]
    for marker in (None, "x.json"):
        pair = alone("lensmount_readers", *(Reader(name=name, marker=marker, read="a:b") for name in ("a", "b")))
        with pytest.warns(PluginWarning, match="twice in this plugin"):
            assert list(Registry(lambda pair=pair: [given(pair)]).index.readers) == ["lensmount"]


def test_a_marker_in_a_repository(hub, tmp_path, no_sockets_after):
    hub.put_repo("owner/thing", {"vendor.json": b'{"file": "weights.bin"}', "weights.bin": b"of the repository"})
    reader = Reader(name="vendor", marker="vendor.json", read="written_plugin:read", repositories=True)
    plugins = {**PLUGINS, "lensmount_readers": alone("lensmount_readers", reader)}
    here = Registry(lambda: [given(plugin, hook) for hook, plugin in plugins.items()])
    card = here.describe("hf://owner/thing")
    assert [a.uri for p in card.packages for a in p.artifacts] == [f"hf://owner/thing@{tiny_plugin.COMMIT}/weights.bin"]
    assert here.load("hf://owner/thing").contents == {"weights.bin": b"of the repository"}
    with no_sockets_after():
        assert here.load("hf://owner/thing", offline=True).card.id == "thing"
    with pytest.raises(ModelNotFoundError, match="neither a model file nor a folder"):
        registry().describe("hf://owner/thing")  # its reader does not say that it reads repositories


def test_lensmount_exporters(tmp_path):
    lines = []
    written = registry().export(
        "tiny-1",
        to="coreml",
        precision="fp16",
        output=tmp_path / "m.mlpackage",
        settings={"units": "all"},
        notes=lines.append,
    )
    assert written.read_bytes() == b"coreml fp16 all of weights, like tiny-1"
    assert lines == ["written for all"]
    with pytest.raises(UnknownOptionError, match="no option 'unit'"):
        registry().export("tiny-1", to="coreml", settings={"unit": "all"})
    with pytest.raises(OptionError, match="nothing that is installed writes coreml in int8") as caught:
        registry().export("tiny-1", to="coreml", precision="int8")
    assert caught.value.expected == "fp32, fp16"
    with pytest.raises(OptionError, match="calibration pictures go with"):
        registry().export("tiny-1", to="coreml", calibration=tmp_path)
    with pytest.raises(UnsupportedModelError, match="cannot be exported"):
        registry(without="lensmount_exporters").export("tiny-1", to="coreml")


def test_exports_that_need_a_plugin_name_it():
    with pytest.raises(OptionError) as caught:
        registry().export("tiny-1", precision="int8")
    assert caught.value.fix == 'pip install "lensmount[int8]"'
    with pytest.raises(OptionError) as caught:
        registry().export("tiny-1", to="tensorrt")
    assert caught.value.fix == 'pip install "lensmount[tensorrt]"'


def test_a_target_in_one_precision_is_written_by_one_exporter():
    rival = Exporter(name="rival", target="coreml", precisions=("int8", "fp16"), export="a:b")
    here = Registry(lambda: [given(EXPORTERS, "first"), given(alone("lensmount_exporters", rival), "second")])
    with pytest.warns(PluginWarning, match=r"exporters to 'coreml' in 'fp16' \(first\)"):
        assert list(here.index.exporters) == ["coreml"]


@pytest.mark.parametrize("hook", HOOKS)
def test_one_hook_is_enough_for_a_plugin(hook):
    (status,) = [s for s in registry().plugins() if s.name == hook]
    assert (status.state, status.hooks) == ("active", (hook,))
