"""The Roboflow source against a local server that speaks the provider's wire format."""

from __future__ import annotations

import json
import socket

import pytest

from core_finders import core_finders
from lensmount.contracts.finder import FetchOptions, Finder
from lensmount.errors import (
    ArtifactNotFoundError,
    AuthenticationError,
    IntegrityError,
    ModelFileError,
    OfflineError,
    SourceError,
    UnsupportedModelError,
)
from lensmount.specs import BatchPolicy, Preprocess
from lensmount.store.fetch import fetch_package
from lensmount.store.store import Store
from lensmount.store.transport import Policy
from lensmount_roboflow.finder import RoboflowFinder
from roboflow_provider import KEY, MODEL, ONNX

URI = f"roboflow://{MODEL}"
CONFIG = json.dumps(
    {
        "network_input": {
            "training_input_size": {"height": 384, "width": 640},
            "color_mode": "rgb",
            "resize_mode": "letterbox",
            "scaling_factor": 255,
        },
        "post_processing": {"type": "nms", "fused": False},
    }
).encode()
CLASSES = b"cat\ndog\n\n"
OPTIONS = FetchOptions(allow_insecure=True, progress=False, credentials={"roboflow": KEY})


DETECTOR = {"inference_config.json": CONFIG, "class_names.txt": CLASSES}
ENGINE = {
    "type": "trt-model-package-v1",
    "backendType": "trt",
    "quantization": "fp16",
    "dynamicBatchSize": True,
    "minBatchSize": 1,
    "optBatchSize": 4,
    "maxBatchSize": 8,
    "cudaDeviceType": "NVIDIA T4",
    "cudaDeviceCC": "7.5",
    "cudaVersion": "12.6",
    "trtVersion": "10.8.0.43",
    "sameCCCompatible": False,
    "trtForwardCompatible": False,
    "trtLeanRuntimeExcluded": False,
    "machineType": "gpu-server",
    "machineSpecs": {"driverVersion": "560", "osVersion": "ubuntu-22.04", "deviceName": "NVIDIA T4"},
}
SCRIPT = {
    "type": "torch-script-model-package-v1",
    "backendType": "torch-script",
    "quantization": "unknown",
    "staticBatchSize": 2,
    "supportedDeviceTypes": ["cpu", "cuda"],
    "torchVersion": "2.6.0+cpu",
}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home", policy=Policy(base=0.001, cap=0.01, attempts=2))


@pytest.fixture
def finder(store, provider):
    return RoboflowFinder(store)


def fetched(card, index, finder, options, store):
    finders = {**core_finders(store), "roboflow": finder}
    return fetch_package(card, card.packages[index], finders, options, store=store)


@pytest.fixture
def model(provider):
    provider.page([provider.package("onnx1", ONNX, {"weights.onnx": b"graph" * 999, **DETECTOR})], nextPage="1")
    provider.page(
        [
            provider.package("trt1", ENGINE, {"engine.plan": b"plan", "trt_config.json": b"{}", **DETECTOR}),
            provider.package("ts1", SCRIPT, {"weights.torchscript": b"script", **DETECTOR}),
        ]
    )
    return provider


def test_packages_of_all_pages(model, finder):
    assert isinstance(finder, Finder)
    card = finder.find(URI, OPTIONS)
    assert (card.id, card.architecture, card.task, card.classes) == (MODEL, "yolo", "object-detection", ("cat", "dog"))
    onnx, engine, script = card.packages
    assert [p.name for p in card.packages] == ["onnx-fp32-onnx1", "engine-fp16-trt1", "torchscript-unknown-ts1"]
    assert [p.format for p in card.packages] == ["onnx", "engine", "torchscript"]
    assert onnx.requirements.excluded_providers == ("CoreMLExecutionProvider",)
    assert (onnx.batch, engine.batch, script.batch) == (BatchPolicy(), BatchPolicy(maximum=8), BatchPolicy(static=2))
    assert isinstance(onnx.preprocess, Preprocess)
    assert (onnx.preprocess.size, onnx.preprocess.rounding) == ((384, 640), "truncate")
    assert onnx.setting("family") == "yolov8"
    assert onnx.setting("fused_nms") is False
    assert [a.role for a in onnx.artifacts] == ["graph", "data", "data"]
    needs = engine.requirements
    assert (needs.devices, needs.compute_capability, needs.gpu_name) == (("cuda",), "7.5", "NVIDIA T4")
    assert needs.runtime_version == "==10.8.0.43"
    assert script.requirements.devices == ("cpu", "cuda")
    assert script.requirements.runtime_version == ">=2.6.0"
    hash(card)


def test_small_files_are_brought_once(model, finder):
    finder.find(URI, OPTIONS)
    names = [path.rsplit("/", 1)[-1] for path, _, _ in model.requests if path.startswith("/files/")]
    assert sorted(names) == ["class_names.txt", "inference_config.json"]


def test_files_and_offline_for_ever(model, finder, store, monkeypatch):
    card = finder.find(URI, OPTIONS)
    got = fetched(card, 0, finder, OPTIONS, store)
    assert got.files["weights.onnx"].read_bytes() == b"graph" * 999
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("a socket was opened"))
    offline = FetchOptions(offline=True)
    again = RoboflowFinder(store)
    assert again.find(URI, offline) == card
    assert fetched(card, 0, again, offline, store) == got
    with pytest.raises(OfflineError) as caught:
        fetched(card, 1, again, offline, store)
    assert "engine.plan" in str(caught.value)
    assert "inference_config.json" in str(caught.value)  # of that package: it was not brought by this one's


def test_offline_without_a_first_time(finder):
    with pytest.raises(OfflineError, match="offline=True"):
        finder.find(URI, FetchOptions(offline=True))


def test_the_key_stays_with_the_provider_and_is_not_written(model, finder, store, monkeypatch):
    monkeypatch.setenv("ROBOFLOW_API_KEY", KEY)
    options = FetchOptions(allow_insecure=True, progress=False)
    card = finder.find(URI, options)
    fetched(card, 0, finder, options, store)
    for path, _, headers in model.requests:
        assert ("Authorization" in headers) == (path == "/models/v1/external/weights")
    for path in store.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()
            assert b"sig=" not in path.read_bytes()
    model.status = 403
    with pytest.raises(AuthenticationError) as caught:
        finder.find(URI, OPTIONS)
    assert KEY not in str(caught.value)
    assert "***" in caught.value.found


def test_plain_http_needs_consent(model, finder):
    with pytest.raises(SourceError, match="plain http"):
        finder.find(URI, FetchOptions(credentials={"roboflow": KEY}))
    assert model.requests == []


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, AuthenticationError, "ROBOFLOW_API_KEY"),
        (402, AuthenticationError, "credits"),
        (403, AuthenticationError, "scope"),
        (404, ArtifactNotFoundError, "project/version"),
        (423, AuthenticationError, "paused"),
        (409, SourceError, "409"),
        (500, SourceError, "out of order"),
    ],
)
def test_statuses(model, finder, status, kind, said):
    model.status = status
    with pytest.raises(kind) as caught:
        finder.find(URI, OPTIONS)
    assert said in str(caught.value)


def test_no_key(model, finder):
    with pytest.raises(AuthenticationError, match="wants a key"):
        finder.find(URI, FetchOptions(allow_insecure=True))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"error": "no such endpoint"}, SourceError),
        ({}, ModelFileError),
        ([], ModelFileError),
        ({"modelMetadata": {"type": "external-model-metadata-v9"}}, ModelFileError),
        ({"modelMetadata": {"type": "external-model-metadata-v1", "modelId": 7}}, ModelFileError),
    ],
)
def test_answers_of_another_form(model, finder, answer, kind):
    model.answer = answer
    with pytest.raises(kind):
        finder.find(URI, OPTIONS)


def test_pages_that_do_not_end(provider, finder):
    provider.page([], nextPage="0")
    with pytest.raises(SourceError, match="do not end"):
        finder.find(URI, OPTIONS)


def test_wrong_md5_is_not_kept(model, finder, store):
    card = finder.find(URI, OPTIONS)
    model.files["/files/onnx1/weights.onnx"] = b"tampered"
    with pytest.raises(IntegrityError):
        fetched(card, 0, finder, OPTIONS, store)
    assert not any(p.read_bytes() == b"tampered" for p in (store.root / "blobs").rglob("*") if p.is_file())


def test_a_file_without_md5_is_checked_ever_after(provider, finder, store):
    package = provider.package("p", ONNX, {"weights.onnx": b"graph"})
    package["packageFiles"] = [provider.file("p", "weights.onnx", b"graph", md5=False)]
    provider.page([package])
    card = finder.find(URI, OPTIONS)
    path = fetched(card, 0, finder, OPTIONS, store).files["weights.onnx"]
    assert path.read_bytes() == b"graph"
    import shutil

    shutil.rmtree(store.root / "blobs")
    provider.files["/files/p/weights.onnx"] = b"other"
    with pytest.raises(IntegrityError, match="not what was promised"):
        fetched(card, 0, finder, OPTIONS, store)


def test_signed_addresses_that_ran_out(model, finder, store):
    card = finder.find(URI, OPTIONS)
    model.valid.clear()
    assert fetched(card, 0, finder, OPTIONS, store).files["weights.onnx"].read_bytes() == b"graph" * 999


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"trtForwardCompatible": True}, {"runtime_version": ">=10.8.0.43"}),
        ({"trtForwardCompatible": True, "trtLeanRuntimeExcluded": True}, {"runtime_version": "==10.8.0.43"}),
        ({"sameCCCompatible": True}, {"gpu_name": None, "compute_capability": "7.5"}),
        (
            {"machineType": "jetson", "machineSpecs": {"l4tVersion": "36.4.3", "deviceName": "orin"}},
            {"l4t": "36.4", "machines": ("aarch64",)},
        ),
    ],
)
def test_engines_say_where_they_run(provider, finder, changes, expected):
    provider.page([provider.package("p", {**ENGINE, **changes}, {"engine.plan": b"plan"})])
    needs = finder.find(URI, OPTIONS).packages[0].requirements
    assert {name: getattr(needs, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("kind", "form", "handle", "role"),
    [
        ("torch-model-package-v1", "torch", "weights.pth", "weights"),
        ("hf-model-package-v1", "torch", "model.safetensors", "weights"),
        ("ultralytics-model-package-v1", "torch", "weights.pt", "weights"),
    ],
)
def test_kinds_of_weights(provider, finder, kind, form, handle, role):
    manifest = {"type": kind, "quantization": "fp32", "dynamicBatchSize": True, "backendType": "ultralytics"}
    if not kind.startswith("ultralytics"):
        del manifest["backendType"]
    provider.page([provider.package("p", manifest, {handle: b"w"})])
    (package,) = finder.find(URI, OPTIONS).packages
    assert (package.format, package.artifacts[0].role) == (form, role)
    assert (package.setting("layout") == "hugging-face") == kind.startswith("hf")


def test_unknown_kinds_are_skipped_with_a_note(provider, finder):
    provider.page(
        [
            provider.package("onnx1", ONNX, {"weights.onnx": b"graph"}),
            provider.package("new1", {"type": "brand-new-package-v7"}, {"x": b""}),
            provider.package("oak1", {"type": "oak-model-package-v1"}, {"x": b""}),
            {"type": "external-model-package-v9", "packageId": "next1"},
            provider.package("bad1", {**ONNX, "staticBatchSize": 4}, {"weights.onnx": b"graph"}),
            provider.package("evil1", ONNX, {"../weights.onnx": b"graph"}),
        ],
        modelDependencies=[
            {"type": "model-dependency-v1", "name": "text", "modelId": "clip/ViT-B-32"},
            {"type": "model-dependency-v2"},
        ],
    )
    card = finder.find(URI, OPTIONS)
    assert [p.name for p in card.packages] == ["onnx-fp32-onnx1"]
    notes = "\n".join(card.notes)
    for said in (
        "brand-new-package-v7",
        "external-model-package-v9",
        "bad1",
        "evil1",
        "clip/ViT-B-32",
        "dependency-v2",
    ):
        assert said in notes
    assert "oak" not in notes


def test_nothing_that_runs_here(provider, finder):
    provider.page([provider.package("oak1", {"type": "oak-model-package-v1"}, {"x": b""})])
    with pytest.raises(UnsupportedModelError, match="no package"):
        finder.find(URI, OPTIONS)


def test_unknown_architecture(provider, finder):
    provider.page([provider.package("p", ONNX, {"weights.onnx": b"g"})], modelArchitecture="deep-lab-9")
    with pytest.raises(UnsupportedModelError, match="architecture"):
        finder.find(URI, OPTIONS)


def test_recommended_parameters(provider, finder):
    package = provider.package("p", ONNX, {"weights.onnx": b"g"}, recommendedParameters={"confidence": 0.3})
    other = provider.package("q", ONNX, {"weights.onnx": b"g"})
    provider.page([package, other], recommendedParameters={"confidence": 0.6})
    card = finder.find(URI, OPTIONS)
    assert [dict(p.recommended) for p in card.packages] == [{"confidence": 0.3}, {"confidence": 0.6}]


@pytest.mark.parametrize("uri", ["roboflow://", "roboflow:///", "https://x/y"])
def test_bad_addresses(finder, uri):
    with pytest.raises(SourceError):
        finder.find(uri, OPTIONS)


def test_hook_module_is_light_and_found():
    import subprocess
    import sys

    code = (
        "import sys, lensmount_roboflow.plugin as p;"
        "(source,) = p.lensmount_sources(); assert source.scheme == 'roboflow';"
        "heavy = {'pydantic', 'numpy', 'lensmount.store.store', 'http.client'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_selection_explains_among_the_packages(model, store):
    """Through the registry: the entry point, the key, and each package's reasons."""
    from lensmount.host.plan import Ask
    from lensmount.host.resolve import resolve
    from lensmount.registry import Registry

    found = Registry()

    def card_of(name, **options):
        return resolve(Ask(name=name, allow_insecure=True, **options), found.index)

    card = card_of(URI, api_key=KEY)
    assert [p.format for p in card.packages] == ["onnx", "engine", "torchscript"]
    assert card_of(MODEL, source="roboflow", api_key=KEY) == card
    with pytest.raises(AuthenticationError):
        card_of(URI, api_key="wrong")
    plan = str(found.explain(URI, offline=True))  # from what was kept
    assert "onnx-fp32-onnx1" in plan
    assert "engine-fp16-trt1" in plan
