"""Whatever a plugin's function does (it raises, exits, hangs, returns junk), its plugin is named and the others work.

The functions are those that descriptors name, and the methods of what these return: each is made harmful in turn.
"""

from __future__ import annotations

import itertools
import sys
import threading
import types
import warnings
from pathlib import Path

import pytest

import tiny_plugin
from lensmount.cli.diagnosis import diagnose
from lensmount.contracts import Fetched, TorchNetwork
from lensmount.errors import LensmountError, OptionError, PluginError, PluginWarning, UnsupportedModelError
from lensmount.host import discovery
from lensmount.host.discovery import HOOKS, given
from lensmount.machine.environment import Environment
from lensmount.registry import Registry
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    BackendStatus,
    CacheProvider,
    Exporter,
    ModelCard,
    ModelPackage,
    Reader,
    Selector,
    Source,
    hookimpl,
)
from lensmount_reading.recognise import read as read_bare

# A backend that is not asked for, whose probe fails, is told of; these tests have one on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:the probe of backend:lensmount.errors.PluginWarning")


class SpeechlessError(Exception):
    def __str__(self):
        raise RuntimeError("not even its text")


def raises(*_, **__):
    raise ZeroDivisionError("boom")


def speechless(*_, **__):
    raise SpeechlessError


def exits(*_, **__):
    raise SystemExit(9)


def junk(*_, **__):
    return object()


def number(*_, **__):
    return 42


HARMS = {"raises": raises, "speechless": speechless, "exits": exits, "junk": junk, "number": number}
RELEASE = threading.Event()


def hangs(*_, **__):
    RELEASE.wait(60)


class Stranger:
    """Source, builder and session in one: each method can be made harmful."""

    format, precisions, uri = "odd", ("fp32",), "odd://place"

    def fetch(self, artifact, options):
        path = Path(__file__)
        return Fetched(path=path, size=path.stat().st_size, sha256="0" * 64)

    def find(self, uri, options):
        return None

    def repository(self, uri, options):
        return self

    def names(self):
        return ()

    def bring(self, name):
        return None

    def accepts(self, package, precision):
        return True

    def key(self, request):
        return "k" * 40

    def build(self, request, folder):
        (folder / "w").write_text("built")
        return ModelPackage(name="built", format="odd", artifacts=(Artifact(name="w", uri="file:///w"),))


def strange():
    """The module that the stranger's import strings name, with functions that work."""
    module = types.ModuleType("stranger_code")
    module.probe = lambda environment: BackendStatus(usable=True, devices=("cpu",))
    module.open, module.factory = tiny_plugin.Session, tiny_plugin.Model
    module.network = lambda context: TorchNetwork(module=None, inputs=(), outputs=())
    module.recognise = lambda facts: None
    module.finder = module.builder = Stranger
    module.cache = lambda: types.SimpleNamespace(get=len, put=len)
    module.read = lambda request: card()
    module.choose = lambda request: request.plan
    module.export = lambda request: Path("written")
    return module


def card(name="strange", format="odd", uri="odd://file"):
    package = ModelPackage(name="p", format=format, artifacts=(Artifact(name="w", uri=uri),))
    return ModelCard(id=name, architecture="strange", task="t", packages=(package,))


class Plugin:
    @hookimpl
    def lensmount_architectures(self):
        at = "stranger_code"
        yield Architecture(
            name="strange", tasks=("t",), factory=f"{at}:factory", network=f"{at}:network", exporter=f"{at}:export",
            recognise=f"{at}:recognise",
        )  # fmt: skip

    @hookimpl
    def lensmount_backends(self):
        at = "stranger_code"
        formats = ("odd", "torch", "tiny", "onnx")
        yield Backend(
            name="strange", formats=formats, probe=f"{at}:probe", opener=f"{at}:open", builder=f"{at}:builder"
        )

    @hookimpl
    def lensmount_sources(self):
        yield Source(scheme="odd", finder="stranger_code:finder")

    @hookimpl
    def lensmount_caches(self):
        yield CacheProvider(name="strange", factory="stranger_code:cache")

    @hookimpl
    def lensmount_readers(self):
        yield Reader(name="strange", marker="strange.json", read="stranger_code:read", repositories=True)

    @hookimpl
    def lensmount_exporters(self):
        yield Exporter(name="strange", target="odd", precisions=("fp32",), export="stranger_code:export")

    @hookimpl
    def lensmount_selectors(self):
        yield Selector(name="oddest", choose="stranger_code:choose")

    @hookimpl
    def lensmount_model_cards(self):
        return [card(), card("strange-torch", "torch"), card("strange-graph", "onnx")]


class Neighbour:
    """A plugin that does nothing wrong; it is never to suffer."""

    @hookimpl
    def lensmount_architectures(self):
        yield Architecture(
            name="tiny", tasks=("object-detection",), factory="tiny_plugin:build", recognise="neighbour_code:recognise"
        )

    @hookimpl
    def lensmount_backends(self):
        yield Backend(
            name="tiny",
            formats=("tiny",),
            probe="tiny_plugin:probe",
            opener="tiny_plugin:Session",
            preference=(("cpu", 5),),
        )

    @hookimpl
    def lensmount_readers(self):
        yield Reader(name="bare", read="neighbour_code:read")

    @hookimpl
    def lensmount_model_cards(self):
        return [tiny_plugin.card("tiny-1", ("p", [Artifact(name="w", uri=Path(__file__).as_uri())]))]


@pytest.fixture
def stranger(monkeypatch, tmp_path):
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    neighbour = types.ModuleType("neighbour_code")
    neighbour.recognise, neighbour.read = lambda facts: None, read_bare
    monkeypatch.setitem(sys.modules, "neighbour_code", neighbour)
    module = strange()
    monkeypatch.setitem(sys.modules, "stranger_code", module)
    yield module
    RELEASE.set()
    RELEASE.clear()


@pytest.fixture
def bare(tmp_path, stranger):
    """A file that the neighbour alone recognises."""
    import onnx

    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    path = tmp_path / "bare.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def registry():
    return Registry(lambda: [given(Plugin(), "stranger"), given(Neighbour(), "neighbour")])


def vendor(folder):
    (folder / "strange.json").write_text("{}")
    return folder


USES = {
    "open": ("opener of backend 'strange'", lambda here, at: here.load("strange")),
    "factory": ("factory of architecture 'strange'", lambda here, at: here.load("strange")),
    "network": ("network of architecture 'strange'", lambda here, at: here.load("strange-torch")),
    "finder": ("source 'odd'", lambda here, at: here.load("strange")),
    "finder.fetch": ("source 'odd'", lambda here, at: here.load("strange")),
    "finder.find": ("source 'odd'", lambda here, at: here.describe("odd://a")),
    "finder.repository": ("source 'odd'", lambda here, at: here.describe("odd://a")),
    "cache": ("cache", lambda here, at: here.load("strange", caches={"embeddings": "strange"})),
    "read": ("reader 'strange'", lambda here, at: here.describe(vendor(at))),
    "choose": ("selector 'oddest'", lambda here, at: here.explain("strange", backend="oddest")),
    "export": ("exporter 'strange'", lambda here, at: here.export("strange", to="odd")),
    "builder": ("backend 'strange'", lambda here, at: here.export("strange-graph", to="strange")),
    "builder.key": ("builder of backend 'strange'", lambda here, at: here.export("strange-graph", to="strange")),
    "builder.build": ("builder of backend 'strange'", lambda here, at: here.export("strange-graph", to="strange")),
}


def harm(stranger, name, function):
    owner, _, method = name.partition(".")
    setattr(stranger, owner, type("Harmful", (Stranger,), {method: function}) if method else function)


@pytest.mark.parametrize("name", USES)
def test_what_works_works(name, stranger, tmp_path):
    """The uses reach the functions: without harm, no plugin is blamed."""
    called = []
    owner, _, method = name.partition(".")
    whole = getattr(Stranger, method) if method else getattr(stranger, owner)

    def counted(*arguments, **settings):
        called.append(name)
        return whole(*arguments, **settings)

    harm(stranger, name, counted)
    try:
        USES[name][1](registry(), tmp_path)
    except LensmountError as error:
        assert not isinstance(error, PluginError)  # an address with nothing behind it
    assert called


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("name", USES)
def test_a_harmful_function_is_named_and_the_neighbour_works(name, how, stranger, tmp_path):
    harm(stranger, name, HARMS[how])
    here = registry()
    owner, use = USES[name]
    with pytest.raises(PluginError, match=owner):
        use(here, tmp_path)
    assert here.load("tiny-1").backend == "tiny"


@pytest.mark.parametrize("how", [*HARMS, "hangs", "half"])
def test_a_harmful_probe_makes_its_backend_alone_unusable(how, stranger, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_PROBE_SECONDS", "0.3")
    stranger.probe = {
        **HARMS, "hangs": hangs, "half": lambda environment: BackendStatus(usable=True, devices="cpu")
    }[how]  # fmt: skip
    here = registry()
    with pytest.warns(PluginWarning, match="probe of backend 'strange'"):  # whoever waited for it is told why
        found = {backend.name: status for backend, status in here.backends()}
    assert found["tiny"].usable
    assert not found["strange"].usable
    assert "probe of backend 'strange'" in found["strange"].reason
    assert "\n" not in found["strange"].reason
    (finding,) = [f for f in diagnose(Environment(), here.backends()) if f.check == "strange"]
    assert finding.serious
    assert here.load("tiny-1").backend == "tiny"


def test_only_the_backend_that_is_named_is_probed(stranger):
    asked = []
    stranger.probe = asked.append
    here = registry()
    assert here.load("tiny-1", backend="tiny").backend == "tiny"
    assert not asked
    (row,) = here.explain("tiny-1", backend="tiny").rejected
    assert [reason.required for reason in row.reasons] == ["backend 'tiny' (asked for)"]
    assert len(here.backends()) == 2
    assert len(asked) == 1


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf"])
def test_a_deadline_that_is_none_is_refused(value, stranger, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_PROBE_SECONDS", value)
    with pytest.raises(OptionError, match="LENSMOUNT_PROBE_SECONDS"):
        registry().backends()


@pytest.mark.parametrize("how", [*HARMS, "hangs"])
def test_a_harmful_recogniser_is_named_and_the_others_are_asked(how, stranger, bare, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_PROBE_SECONDS", "0.3")
    stranger.recognise = {**HARMS, "hangs": hangs}[how]
    here = registry()
    with pytest.raises(UnsupportedModelError, match="recogniser of architecture 'strange'"):
        here.describe(bare)
    with pytest.raises(PluginError, match="recogniser of architecture 'strange'"):
        here.describe(bare, architecture="strange")
    package = ModelPackage(name="p", format="tiny", artifacts=(Artifact(name="w", uri=""),))
    known = ModelCard(id="x", architecture="tiny", task="object-detection", packages=(package,))
    sys.modules["neighbour_code"].recognise = lambda facts: known
    with pytest.warns(PluginWarning, match="recogniser of architecture 'strange'"):
        assert here.describe(bare).id == "bare"


def session(**wrong):
    class Wrong(tiny_plugin.Session):
        def __init__(self, request):
            super().__init__(request)
            vars(self).update(wrong)

    return Wrong


SESSIONS = {
    "inputs that are none": session(inputs=3),
    "a list of inputs": session(inputs=[]),
    "inputs that are names": session(inputs=("images",)),
    "outputs that are names": session(outputs=("boxes",)),
} | {
    f"without {name}": type("Lacking", (), {n: staticmethod(len) for n in (*lacking, "device")})
    for name in ("run", "inputs")
    if (lacking := {"run", "inputs", "outputs", "close", "metadata"} - {name})
}


@pytest.mark.parametrize("what", SESSIONS)
def test_a_session_that_is_none_is_refused_and_closed(what, stranger, monkeypatch):
    closed = []
    whole = SESSIONS[what]
    stranger.open = lambda request: whole(request) if issubclass(whole, tiny_plugin.Session) else whole()
    if hasattr(whole, "close"):
        monkeypatch.setattr(whole, "close", lambda self=None: closed.append(1))
    with pytest.raises(PluginError, match="opener of backend 'strange'"):
        registry().load("strange")
    assert closed or not issubclass(whole, tiny_plugin.Session)


# --- hooks ------------------------------------------------------------------------------------------------------------


HOOK_HARMS = {
    **HARMS,
    "endless": lambda: itertools.repeat(object()),
    "later": lambda: (raises() for _ in range(1)),
    "exits later": lambda: (exits() for _ in range(1)),
    "asks the registry": lambda: Registry().models(),
}


@pytest.mark.parametrize("how", HOOK_HARMS)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_harmful_hook_leaves_out_its_plugin_alone(hook, how, stranger):
    harmful = types.SimpleNamespace(**{hook: hookimpl(lambda: HOOK_HARMS[how]())})
    here = Registry(lambda: [given(harmful, "harmful"), given(Neighbour(), "neighbour")])
    with pytest.warns(PluginWarning, match="'harmful'"):
        states = {status.name: status.state for status in here.plugins()}
    assert (states["harmful"], states["neighbour"]) == ("broken", "active")
    assert here.load("tiny-1").backend == "tiny"


CALLS = {
    "models": lambda here: here.models(),
    "plugins": lambda here: here.plugins(),
    "backends": lambda here: here.backends(),
    "load": lambda here: here.load("tiny-1"),
    "explain": lambda here: here.explain("tiny-1"),
    "add_plugin": lambda here: here.add_plugin(Neighbour(), "again"),
    "another": lambda here: Registry().models(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_hook_that_asks_its_own_registry_is_left_out(call, stranger):
    def asks():
        CALLS[call](here)
        return []

    harmful = types.SimpleNamespace(lensmount_model_cards=hookimpl(asks))
    here = Registry(lambda: [given(harmful, "harmful"), given(Neighbour(), "neighbour")])
    with pytest.warns(PluginWarning, match="asks for plugins while they are discovered"):
        assert [model.id for model in here.models()] == ["tiny-1"]
    assert {s.name: s.stage for s in here.plugins()}["harmful"] == "hooks"


def test_a_hook_that_keeps_others_waiting_is_named_meanwhile(stranger, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_PROBE_SECONDS", "0.05")
    told = threading.Event()
    real = warnings.warn

    def warn(message, *arguments, **settings):
        if "keeps all others waiting" in str(message):
            assert "'harmful'" in str(message)
            told.set()
        else:
            real(message, *arguments, **settings)

    monkeypatch.setattr(discovery.warnings, "warn", warn)
    slow = types.SimpleNamespace(lensmount_model_cards=hookimpl(lambda: [] if told.wait(20) else None))
    here = Registry(lambda: [given(slow, "harmful"), given(Neighbour(), "neighbour")])
    assert [model.id for model in here.models()] == ["tiny-1"]
    assert told.is_set()


@pytest.mark.parametrize("count", [discovery.LIMIT, discovery.LIMIT + 1])
def test_descriptors_are_counted(count, stranger):
    def many():
        return itertools.repeat(Backend(name="b", formats=("x",), probe="a:b", opener="a:b"), count)

    here = Registry(lambda: [given(types.SimpleNamespace(lensmount_backends=hookimpl(many)), "many")])
    expected = "without end" if count > discovery.LIMIT else "twice in this plugin"
    with pytest.warns(PluginWarning, match=expected):
        here.plugins()
