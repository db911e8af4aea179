"""The facade: every step of a load, with a plugin, a backend and a model made for the purpose."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings
from dataclasses import dataclass

import pytest

from lensmount.errors import (
    AmbiguousModelError,
    DeviceError,
    LicenceNotice,
    ModelFileError,
    ModelNotFoundError,
    NoPackageError,
    PluginError,
    PluginWarning,
    UnknownBackendError,
    UnknownOptionError,
)
from lensmount.host.discovery import given
from lensmount.machine.environment import Environment
from lensmount.registry import Registry
from lensmount.specs import (
    Architecture,
    Artifact,
    Backend,
    BackendStatus,
    CacheProvider,
    ModelCard,
    ModelPackage,
    hookimpl,
)

# A backend that is not asked for, whose probe fails, is told of; these tests have one on purpose.
pytestmark = pytest.mark.filterwarnings("ignore:the probe of backend:lensmount.errors.PluginWarning")

opened: list[FakeSession] = []


@dataclass(frozen=True)
class FakeOptions:
    zoom: int = 1


class FakeSession:
    def __init__(self, request):
        self.request = request
        self.backend = "fake"
        self.device = "cpu" if request.package.name == "falls-back" else request.device
        self.precision = request.precision
        self.provider = "FakeProvider"
        self.inputs = self.outputs = ()
        self.metadata = {}
        self.closed = 0
        opened.append(self)

    def run(self, feeds):
        return {}

    def close(self):
        self.closed += 1


class FakeModel:
    def __init__(self, context):
        self.context = context
        self.card, self.package = context.card, context.package
        self.backend, self.device, self.precision = "fake", "cpu", "fp32"

    def warmup(self):
        return

    def close(self):
        return


def build(context):
    if context.card.id == "refuses":
        raise ModelFileError("the factory refuses")
    return FakeModel(context)


def probe(environment):
    return BackendStatus(usable=True, version="1.0", devices=("cuda:0", "cpu") if environment.gpus else ("cpu",))


def absent(environment):
    return BackendStatus(usable=False, reason="not installed", fix="pip install nothing")


def failing_probe(environment):
    raise RuntimeError("probe is broken")


def new_cache(size: int = 3):
    return types.SimpleNamespace(get=lambda key: None, put=lambda key, value: None, size=size)


ME = __name__


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Import strings of the fake plugin lead back to this file."""
    monkeypatch.setitem(sys.modules, "fake_plugin_code", sys.modules[ME])
    opened.clear()


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.fake"
    path.write_bytes(b"weights")
    return path


def package(name, path, **more):
    artifact = Artifact(name="weights.fake", uri=path.as_uri())
    return ModelPackage(name=name, format="fake", artifacts=(artifact,), **more)


def plugin(path, *cards, backends=True):
    class Plugin:
        @hookimpl
        def lensmount_architectures(self):
            yield Architecture(
                name="toy",
                tasks=("object-detection",),
                factory="fake_plugin_code:build",
                options="fake_plugin_code:FakeOptions",
            )

        @hookimpl
        def lensmount_backends(self):
            if backends:
                yield Backend(
                    name="fake",
                    formats=("fake",),
                    probe="fake_plugin_code:probe",
                    opener="fake_plugin_code:FakeSession",
                )
                yield Backend(
                    name="absent", formats=("fake",), probe="fake_plugin_code:absent", opener="fake_plugin_code:nowhere"
                )
                yield Backend(
                    name="sick",
                    formats=("fake",),
                    probe="fake_plugin_code:failing_probe",
                    opener="fake_plugin_code:nowhere",
                )

        @hookimpl
        def lensmount_caches(self):
            yield CacheProvider(name="toy", factory="fake_plugin_code:new_cache")

        @hookimpl
        def lensmount_model_cards(self):
            yield ModelCard(
                id="toy-1",
                aliases=("toy",),
                architecture="toy",
                task="object-detection",
                packages=(package("plain", path), package("falls-back", path)),
            )
            yield from cards

    return given(Plugin(), "toy-dist")


@pytest.fixture
def registry(weights):
    return Registry(lambda: [plugin(weights)], Environment(system="linux", machine="x86_64"))


def test_load_hands_the_factory_verified_files_session_options_and_caches(registry, weights):
    model = registry.load("toy", zoom=3, threads=1, caches={"embeddings": "toy", "masks": ("toy", {"size": 9})})
    context = model.context
    assert context.card.id == "toy-1"
    assert context.options == FakeOptions(zoom=3)
    assert context.files["weights.fake"].read_bytes() == weights.read_bytes()
    assert context.session.request.options.threads == 1
    assert context.caches["embeddings"].size == 3
    assert context.caches["masks"].size == 9
    assert len(context.fingerprint) == 64


def test_unknown_option_is_refused_before_anything_is_opened(registry):
    with pytest.raises(UnknownOptionError, match="did you mean 'zoom'"):
        registry.load("toy", zom=3)
    with pytest.raises(TypeError, match="threads"):
        registry.load("toy", thread=3)
    assert not opened


def test_a_backend_asked_for_is_obeyed_or_refused(registry):
    assert registry.load("toy", backend="fake").context.session.backend == "fake"
    with pytest.raises(UnknownBackendError, match="fake, absent, sick"):
        registry.load("toy", backend="openvino")
    with pytest.raises(NoPackageError, match="pip install nothing"):
        registry.load("toy", backend="absent")
    with pytest.raises(NoPackageError, match="cuda:0"):
        registry.load("toy", device="cuda")


def test_every_rejection_carries_every_reason(registry):
    plan = registry.explain("toy", device="cuda:1")
    assert plan.selected is None
    by_backend = {(r.package.name, r.backend.name): [reason.check for reason in r.reasons] for r in plan.rejected}
    assert by_backend["plain", "fake"] == ["device"]
    assert by_backend["plain", "absent"] == ["backend"]
    assert len(plan.rejected) == 6
    assert "probe is broken" in str(plan)
    plan = registry.explain("toy", backend="fake", precision="fp16")
    assert [reason.check for reason in plan.rejected[0].reasons] == ["precision"]


def test_a_silent_fallback_is_an_error_and_the_session_is_closed(weights):
    from lensmount.machine.environment import Gpu

    environment = Environment(system="linux", machine="x86_64", gpus=(Gpu(index=0, name="T4"),))
    registry = Registry(lambda: [plugin(weights)], environment)
    assert registry.load("toy", package="plain").context.session.device == "cuda:0"
    with pytest.raises(DeviceError, match=r"found: cpu \(FakeProvider\)"):
        registry.load("toy", package="falls-back")
    assert opened[-1].closed == 1


def test_a_factory_that_fails_leaves_no_session_open(weights):
    card = ModelCard(id="refuses", architecture="toy", task="object-detection", packages=(package("plain", weights),))
    with pytest.raises(ModelFileError):
        Registry(lambda: [plugin(weights, card)]).load("refuses")
    assert opened[-1].closed == 1


def test_two_plugins_with_one_id_are_ambiguous_and_both_reachable(weights):
    class Other:
        @hookimpl
        def lensmount_model_cards(self):
            yield ModelCard(id="toy", architecture="toy", task="object-detection", packages=(package("own", weights),))

    registry = Registry(lambda: [plugin(weights), given(Other(), "other-dist")])
    with pytest.raises(AmbiguousModelError, match="other-dist:toy"):
        registry.load("toy")
    assert registry.load("other-dist:toy").context.package.name == "own"
    assert registry.load("toy_dist:toy").context.package.name == "plain"


def test_missing_models_say_what_would_help(registry):
    with pytest.raises(ModelNotFoundError, match="did you mean toy"):
        registry.load("toyy")
    with pytest.raises(ModelNotFoundError, match="pip install lensmount-yolo"):
        registry.load("yolov8n-640")
    with pytest.raises(ModelFileError, match="no such file or folder"):
        registry.load("missing/model.onnx")


def test_a_broken_plugin_is_named_where_it_could_explain_the_miss(weights):
    class Sick:
        @hookimpl
        def lensmount_model_cards(self):
            raise ZeroDivisionError("boom")

    registry = Registry(lambda: [given(Sick(), "sick-dist"), plugin(weights)])
    with pytest.warns(PluginWarning, match="boom"):
        assert registry.load("toy")
    with pytest.raises(ModelNotFoundError, match="sick-dist was left out"):
        registry.load("from-the-sick-one")


def test_a_card_without_its_architecture_names_the_plugin(weights):
    class Cards:
        @hookimpl
        def lensmount_model_cards(self):
            yield ModelCard(id="mine", architecture="yolo", task="object-detection", packages=(package("p", weights),))

    with pytest.raises(ModelNotFoundError, match="pip install lensmount-yolo"):
        Registry(lambda: [given(Cards())]).load("mine")


def test_wrong_task_and_architecture_are_refused(registry):
    with pytest.raises(ModelNotFoundError, match="another task"):
        registry.load("toy", task="embedding")
    with pytest.raises(ModelNotFoundError, match="another architecture"):
        registry.load("toy", architecture="yolo")


def test_caches_that_are_none_are_refused(registry):
    with pytest.raises(PluginError, match="no cache provider"):
        registry.load("toy", caches={"embeddings": "redis"})
    with pytest.raises(PluginError, match="not a cache"):
        registry.load("toy", caches={"embeddings": object()})


def test_plugins_added_by_hand_and_refresh(weights):
    registry = Registry(list)
    assert registry.models() == []
    status = registry.add_plugin(plugin(weights).load(), "by-hand")
    assert (status.state, status.name) == ("active", "by-hand")
    assert [card.id for card in registry.models()] == ["toy-1"]
    registry.refresh()
    assert [card.id for card in registry.models(task="object-detection")] == ["toy-1"]
    assert registry.models(architecture="other") == []
    with pytest.warns(PluginWarning, match="implements no hook"):
        assert registry.add_plugin(object()).state == "broken"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.refresh()
        assert len(registry.plugins()) == 2


def test_a_licence_notice_is_shown_once_per_machine(weights, monkeypatch, tmp_path):
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    card = ModelCard(
        id="asks",
        architecture="toy",
        task="object-detection",
        licence="AGPL-3.0",
        licence_notice="this asks something of you",
        packages=(package("plain", weights),),
    )
    registry = Registry(lambda: [plugin(weights, card)])
    with pytest.warns(LicenceNotice, match="asks something"):
        registry.load("asks")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.load("asks")


def test_automodel_comes_with_lensmount_vision():
    code = (
        "import sys\n"
        "sys.modules['lensmount_vision'] = None\n"
        "import lensmount\n"
        "try:\n    lensmount.AutoModel\n"
        "except AttributeError as error:\n    assert 'pip install lensmount-vision' in str(error), error\n"
        "else:\n    raise SystemExit('it did not fail')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
