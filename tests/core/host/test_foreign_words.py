"""Backends, devices and names of models, said as people say them elsewhere."""

from __future__ import annotations

import pytest

from lensmount.errors import ModelFileError, ModelNotFoundError, UnknownOptionError
from lensmount.host.discovery import given
from lensmount.host.plan import Ask
from lensmount.host.selection import normalise_device
from lensmount.registry import Registry
from lensmount.specs import Architecture, Artifact, Backend, BackendStatus, ModelCard, ModelPackage, hookimpl
from lensmount.specs.options import check_names, shipped

BACKENDS = shipped("foreign_names")["backends"]


def usable(environment):
    return BackendStatus(usable=True, devices=("cpu",))


class Plugin:
    @hookimpl
    def lensmount_architectures(self):
        return [Architecture(name="net", tasks=("object-detection",), factory="json:loads")]

    @hookimpl
    def lensmount_backends(self):
        return [Backend(name="onnx", formats=("onnx",), probe=f"{__name__}:usable", opener="json:loads")]

    @hookimpl
    def lensmount_model_cards(self):
        weights = Artifact(name="weights.onnx", uri="file:///nowhere/weights.onnx", sha256="0" * 64)
        package = ModelPackage(name="onnx", format="onnx", artifacts=(weights,))
        make = {"task": "object-detection", "architecture": "net", "packages": (package,)}
        return [ModelCard(id="yolo11n", **make), ModelCard(id="yolo11s", **make)]


@pytest.fixture
def registry():
    return Registry(lambda: [given(Plugin())])


@pytest.mark.parametrize("word", BACKENDS)
@pytest.mark.parametrize("change", [str, str.upper, str.title])
def test_a_backend_by_any_of_its_names(word, change):
    assert Ask(name="x", backend=change(word)).request.backend == (BACKENDS[word] or None)


def test_a_third_partys_backend_is_taken_as_it_is_written():
    assert Ask(name="x", backend="MyRuntime").backend == "MyRuntime"
    assert Ask(name="x").backend is None


class TorchDevice:
    """Prints like a `torch.device`."""

    def __str__(self) -> str:
        return "cuda:1"


@pytest.mark.parametrize(
    ("device", "word"), [(0, "0"), (TorchDevice(), "cuda:1"), ("auto", None), (None, None), ("gpu", "gpu")]
)
def test_a_device_said_in_another_way(device, word):
    assert Ask(name="x", device=device).request.device == word


def test_device_0_reaches_the_choice_as_the_first_gpu(registry):
    plan = registry.explain("yolo11n", backend="ORT", device=0)
    assert (plan.request.backend, normalise_device(plan.request.device)) == ("onnx", "cuda:0")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("YOLO11N", "did you mean yolo11n"),
        ("Yolo11-n", "yolo11n"),
        ("someone/some-model", "hf://someone/some-model"),
    ],
)
def test_what_is_not_found_is_answered_with_what_is_near(registry, name, hint):
    with pytest.raises(ModelNotFoundError) as caught:
        registry.load(name)
    assert hint in (caught.value.fix or "")


def test_a_file_that_is_not_there_may_be_an_id(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFileError, match="an id has no suffix: did you mean yolo11n"):
        registry.load("yolo11n.pt")


def test_what_is_there_is_taken_before_names_are_searched(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(Exception, match="which no installed plugin reads"):
        registry.describe("mine")
    (tmp_path / "yolo11n").mkdir()
    assert registry.describe("yolo11n").id == "yolo11n"  # an id stays an id


@pytest.mark.parametrize(
    ("foreign", "hint"),
    [
        ("imgsz", "did you mean 'input_size'?"),
        ("half", 'precision="fp16"'),
        ("num_threads", "did you mean 'threads'?"),
        ("token", "api_key"),
        ("thread", "did you mean 'threads'?"),
    ],
)
def test_load_options_by_other_names(foreign, hint):
    with pytest.raises(UnknownOptionError) as caught:
        check_names({foreign: 1}, ("input_size",), "loading 'x'", ("threads",))
    assert hint in (caught.value.fix or "")
