"""Every hook, end to end: each from a plugin that implements it alone, what the facade makes of it, and without it."""

from __future__ import annotations

import dataclasses
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
    UnknownBackendError,
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
    Selector,
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
CARD = ModelCard(
    id="tiny-1",
    architecture="tiny",
    task="object-detection",
    packages=(
        ModelPackage(name="p", format="tiny", artifacts=(Artifact(name="weights.bin", uri="shelf://weights.bin"),)),
    ),
)
CARDS = alone("lensmount_model_cards", CARD)
READERS = alone("lensmount_readers", Reader(name="vendor", marker="vendor.json", read="written_plugin:read"))
COMMANDS = alone("lensmount_commands", Command(name="dust", app="shelf_plugin:dust", help="Dust the shelf."))
EXPORTERS = alone(
    "lensmount_exporters",
    Exporter(
        name="coreml", target="coreml", precisions=("fp32", "fp16"), export="written_plugin:export", settings=("units",)
    ),
)
SELECTORS = alone("lensmount_selectors", Selector(name="smallest", choose="written_plugin:choose"))
PLUGINS = {
    "lensmount_architectures": ARCHITECTURES,
    "lensmount_model_cards": CARDS,
    "lensmount_backends": BACKENDS,
    "lensmount_sources": SOURCES,
    "lensmount_caches": CACHES,
    "lensmount_readers": READERS,
    "lensmount_commands": COMMANDS,
    "lensmount_exporters": EXPORTERS,
    "lensmount_selectors": SELECTORS,
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
    given_to = {}
    monkeypatch.setattr(
        tiny_plugin, "build", lambda context: given_to.update(context.caches) or tiny_plugin.Model(context)
    )
    registry().load("tiny-1", caches={"embeddings": ("shelf", {"entries": 3})})
    cache = given_to["embeddings"]
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
    monkeypatch.setattr(written_plugin, "recognise", lambda facts: dataclasses.replace(CARD, id=facts))
    assert told[-1].recognisers["two"]("facts").id == "facts"


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
    with pytest.raises(MissingDependencyError, match="lensmount-reading"):
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


def tiny(name, content, shelf, precision="fp32"):
    (shelf / name).write_bytes(content)
    artifact = Artifact(name=name, uri=f"shelf://{name}")
    return ModelPackage(name=name, format="tiny", precision=precision, artifacts=(artifact,))


def with_packages(*packages):
    card = ModelCard(id="several", architecture="tiny", task="object-detection", packages=packages)
    plugins = {**PLUGINS, "lensmount_model_cards": alone("lensmount_model_cards", card)}
    return Registry(lambda: [given(plugin, hook) for hook, plugin in plugins.items()])


def test_lensmount_selectors(shelf, lensmount):
    here = with_packages(tiny("a", b"large", shelf), tiny("b", b"", shelf), tiny("c", b"of", shelf))
    assert here.explain("several").selected.package.name == "a"
    plan = here.explain("several", backend="smallest")
    assert [choice.package.name for choice in plan.choices] == ["b", "c", "a"]
    assert (plan.request.backend, plan.decision) == ("smallest", "the smallest of 3")
    assert here.load("several", backend="smallest").contents == {"b": b""}
    with use(here):
        assert "the smallest of 3" in lensmount("explain", "several", "--backend", "smallest").out
    for name in "abc":
        (shelf / name).unlink()
    with pytest.raises(NoPackageError, match="lensmount pull several"):
        here.load("several", backend="smallest")
    with pytest.raises(UnknownBackendError, match="no backend 'smallest'"):
        registry(without="lensmount_selectors").load("tiny-1", backend="smallest")


def test_what_a_selector_is_told(shelf, monkeypatch):
    told = []
    monkeypatch.setattr(written_plugin, "choose", lambda request: told.append(request) or request.plan)
    here = with_packages(
        tiny("a", b"", shelf), tiny("b", b"", shelf, "int8"), tiny("c", b"", shelf), tiny("d", b"", shelf, "fp16")
    )
    plan = here.explain("several", backend="smallest", device="cpu", threads=2)
    (request,) = told
    assert [choice.package.name for choice in request.plan.choices] == ["a", "c"]  # nothing less exact unasked
    assert {r.package.name: r.reasons[0].fix for r in plan.rejected} == {
        "b": "precision='fp32,int8', if either will do",
        "d": "precision='fp32,fp16', if either will do",
    }
    assert (request.name, request.plan.request.device, request.plugin) == ("several", "cpu", "lensmount_architectures")
    assert (request.options[0].threads, request.options[1]) == (2, None)
    assert [(b.name, status.usable) for b, status in request.backends] == [("tiny", True)]
    assert request.environment is here.environment
    here.explain("several", backend="smallest", precision="int8,fp32,fp16")
    assert {choice.package.name for choice in told[-1].plan.choices} == set("abcd")


def test_a_selector_adds_nothing(shelf, monkeypatch):
    def lessen(request):
        choice = request.plan.choices[0]
        return dataclasses.replace(request.plan, choices=(dataclasses.replace(choice, precision="int8"),))

    here = with_packages(tiny("a", b"", shelf))
    for wrong, found in ((lessen, "a on tiny, cpu, int8"), (lambda request: None, "NoneType")):
        monkeypatch.setattr(written_plugin, "choose", wrong)
        with pytest.raises(PluginError, match="selector 'smallest' returned the wrong thing") as caught:
            here.explain("several", backend="smallest")
        assert caught.value.found == found


def test_backends_and_selectors_share_their_names():
    backend = Backend(name="one", formats=("x",), probe="a:b", opener="a:b")
    selector = Selector(name="one", choose="a:b")
    b, s = alone("lensmount_backends", backend), alone("lensmount_selectors", selector)
    for first, second in ((b, s), (s, b), (s, alone("lensmount_selectors", selector))):
        here = Registry(lambda first=first, second=second: [given(first, "first"), given(second, "second")])
        with pytest.warns(PluginWarning, match=r"backends 'one' \(first\)"):
            assert [x.stage for x in here.plugins() if x.name == "second"] == ["conflict"]
    both = types.SimpleNamespace(**vars(b), **vars(s))
    with pytest.warns(PluginWarning, match=r"backends 'one' \(twice in this plugin\)"):
        assert not Registry(lambda: [given(both)]).index.selectors


def test_fastest_names_the_plugin_that_brings_it():
    with pytest.raises(UnknownBackendError) as caught:
        registry().load("tiny-1", backend="fastest")
    assert caught.value.fix == 'pip install "lensmount[bench]"'


@pytest.mark.parametrize("hook", HOOKS)
def test_one_hook_is_enough_for_a_plugin(hook):
    (status,) = [s for s in registry().plugins() if s.name == hook]
    assert (status.state, status.hooks) == ("active", (hook,))
