"""From `export` and `load` to boxes through TensorRT's stand-in: parity, engines kept, selection, probe, command."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from lensmount.errors import (
    EngineMismatchError,
    LensmountError,
    NoPackageError,
    OptionError,
    StoreError,
    UnknownOptionError,
    UnsafeFileError,
    UnsupportedModelError,
)
from lensmount.machine.environment import Environment, Gpu
from lensmount.registry import Registry
from lensmount_tensorrt import backend as backend
from tensorrt_machine import machine

SCENE = resources.files("lensmount_shapes") / "data/scene.jpg"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def gpu(home):
    with machine() as made:
        made.become(memory=1 << 30)
        yield made


@pytest.fixture
def registry(gpu):
    return Registry(environment=gpu.environment)


def same(first, second) -> None:
    """Parity of the invariants: the same objects, boxes within a thousandth of a pixel."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_array_equal(one.class_id, other.class_id)
        np.testing.assert_allclose(one.xyxy, other.xyxy, atol=1e-3)
        np.testing.assert_allclose(one.confidence, other.confidence, atol=1e-5)


# --- parity ---------------------------------------------------------------------------------------------------------


def test_bytes_to_boxes_are_those_of_onnx(registry, gpu, home):
    data = SCENE.read_bytes()
    with_onnx = registry.load("shapes-nano", backend="onnx", device="cpu")
    with_engine = registry.load("shapes-nano", backend="tensorrt", build="if-missing")
    assert (with_engine.backend, with_engine.device, with_engine.precision) == ("tensorrt", "cuda:0", "fp32")
    same(with_engine(data), with_onnx(data))
    # A batch in chunks of the engine's largest, and shapes that are seen again.
    several = [data] * 19
    for _ in range(2):
        same(with_engine(several), with_onnx(several))
    assert gpu.gpu.calls["graph launches"] > 0
    with_engine.close()
    with_onnx.close()


def test_threads_on_one_model(registry, gpu):
    model = registry.load("shapes-nano", backend="tensorrt", build="if-missing")
    data = SCENE.read_bytes()
    expected = model(data)
    results, threads = [], []
    for _ in range(4):
        thread = threading.Thread(target=lambda: results.extend(model([data, data])))
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(120)
    same(results, expected * 8)
    model.close()


# --- building, and the engines kept -----------------------------------------------------------------------------------


def test_nothing_is_built_unless_it_is_asked_for(registry, gpu, home):
    with pytest.raises(NoPackageError) as caught:
        registry.load("shapes-nano", backend="tensorrt", precision="fp16")
    assert caught.value.fix == (
        "lensmount export shapes-nano --to tensorrt --precision fp16; or load(..., build='if-missing')"
    )
    assert "onnx-fp32" in str(caught.value.found)
    assert not (home / "built").exists()


def test_an_engine_is_built_once_and_found_by_load(registry, gpu, home):
    first = export(registry)
    assert first.parent == home / "built/tensorrt"
    assert sorted(path.name for path in first.iterdir()) == ["lensmount.json", "weights.plan", "weights.plan.json"]
    before = (first / "weights.plan").stat().st_mtime_ns
    assert export(registry) == first
    assert (first / "weights.plan").stat().st_mtime_ns == before
    plan = registry.explain("shapes-nano", backend="tensorrt")
    assert plan.selected is not None
    assert plan.selected.package.name.startswith("engine-fp32-")
    assert plan.selected.package.batch.maximum == 16
    assert plan.selected.package.preprocess.size == (256, 256)
    # What nobody asked for by name changes nothing.
    assert "engine" not in {c.package.format for c in registry.explain("shapes-nano").choices}
    model = registry.load("shapes-nano", backend="tensorrt")
    assert model.package.name == plan.selected.package.name
    model.close()


def export(registry, model="shapes-nano", **options) -> Path:
    return registry.export(model, to="tensorrt", progress=False, **options)


def test_the_key_covers_what_decides_the_engine(registry, gpu, home, tmp_path):
    first = export(registry)
    assert export(registry, settings={"timing_cache": tmp_path / "timings"}) == first
    others = [
        export(registry, batch=(1, 2, 4)),
        export(registry, settings={"optimization_level": 1}),
        export(registry, settings={"workspace": 1 << 20}),
        export(registry, settings={"hardware_compatible": True}),
        export(registry, precision="fp16"),
    ]
    gpu.become("10.14.1.48")
    others.append(export(Registry(environment=gpu.environment)))
    gpu.become("10.14.1.48", capability=(8, 6))
    others.append(export(Registry(environment=gpu.environment)))
    assert len({first, *others}) == 8


def test_the_manifest_says_where_the_engine_comes_from(registry, gpu):
    folder = export(registry, batch=[1, 8, 32])
    said = json.loads((folder / "weights.plan.json").read_text())
    assert said["model"] == "shapes-nano"
    assert (said["tensorrt"], said["compute_capability"], said["gpu"]) == ("10.13.0.35", "9.0", "Simulated H200")
    assert said["profiles"] == [{"images": [[1, 3, 256, 256], [8, 3, 256, 256], [32, 3, 256, 256]]}]
    assert said["metadata"]["names"]  # class names come from here when the engine is opened
    from lensmount.store.files import hash_file

    graph = resources.files("lensmount_shapes") / "data/shapes-nano.onnx"
    assert said["graph_sha256"] == hash_file(Path(str(graph)))[0]


def test_a_folder_of_ones_own_loads_by_its_path(registry, gpu, tmp_path):
    folder = export(registry, output=tmp_path / "engine")
    assert folder == tmp_path / "engine"
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("engine", "home")] == []
    model = registry.load(folder)
    assert model.backend == "tensorrt"
    assert len(model(SCENE.read_bytes())[0]) > 0
    model.close()
    with pytest.raises(StoreError, match="is there already"):
        export(registry, output=folder)


def test_a_failed_build_leaves_nothing(registry, gpu, home, tmp_path):
    gpu.gpu.build_memory = 1 << 40
    with pytest.raises(LensmountError):
        export(registry)
    with pytest.raises(LensmountError):
        export(registry, output=tmp_path / "engine")
    assert list((home / "built/tensorrt").iterdir()) == []
    assert not (tmp_path / "engine").exists()
    gpu.gpu.build_memory = 0
    assert export(registry).is_dir()


def test_two_builders_at_once_build_once(registry, gpu, home, monkeypatch):
    counted = []
    original = gpu.trt.Builder.build_serialized_network

    def slow(self, network, config):
        counted.append(1)
        import time

        time.sleep(0.3)
        return original(self, network, config)

    monkeypatch.setattr(gpu.trt.Builder, "build_serialized_network", slow)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(export(registry))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(counted) == 1


def test_another_models_engine_is_not_taken(registry, gpu, tmp_path):
    """Two files of the same name: what counts is what is in them."""
    graph = Path(str(resources.files("lensmount_shapes") / "data/shapes-nano.onnx"))
    import onnx

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        model = onnx.load(graph)
        onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props} | {"which": name})
        onnx.save(model, tmp_path / name / "best.onnx")
    export(registry, tmp_path / "a/best.onnx", settings={"shapes": {"images": "1x3x256x256"}})
    with_a = registry.explain(tmp_path / "a/best.onnx", backend="tensorrt")
    with_b = registry.explain(tmp_path / "b/best.onnx", backend="tensorrt")
    assert with_a.selected is not None
    assert with_b.selected is None


def test_half_precision_on_tensorrt_11_is_exported_from_the_network(registry, gpu):
    """The card's only graph is float32, which TensorRT 11 does not lower; the torch package can be exported in half."""
    pytest.importorskip("torch")
    gpu.become("11.4.0.106")
    registry = Registry(environment=gpu.environment)
    folder = export(registry, precision="fp16")
    said = json.loads((folder / "weights.plan.json").read_text())
    assert (said["precision"], said["strongly_typed"]) == ("fp16", True)
    assert export(registry, precision="fp16") == folder  # known by what it is exported from, without exporting again
    model = registry.load("shapes-nano", backend="tensorrt", precision="fp16")
    plain = registry.load("shapes-nano", backend="onnx", device="cpu")
    half, full = model(SCENE.read_bytes())[0], plain(SCENE.read_bytes())[0]
    assert (model.precision, len(half)) == ("fp16", len(full))
    np.testing.assert_allclose(half.xyxy, full.xyxy, atol=0.5)  # half precision keeps 11 bits
    model.close()
    plain.close()


def test_int8_without_a_quantised_graph(registry, gpu):
    with pytest.raises(UnsupportedModelError, match="int8") as caught:
        export(registry, precision="int8")
    assert "QuantizeLinear" in str(caught.value.expected)


def test_settings_are_checked_before_anything_is_built(registry, gpu, home):
    with pytest.raises(UnknownOptionError):
        export(registry, settings={"worksapce": 5})
    with pytest.raises(OptionError):
        export(registry, batch=(3, 2, 1))
    with pytest.raises(OptionError):
        export(registry, precision="fp8")
    assert not (home / "built").exists()


def test_several_batches_are_for_engines(registry, gpu, tmp_path):
    with pytest.raises(OptionError, match="batch"):
        registry.export("shapes-nano", to="onnx", batch=(1, 2, 4), output=tmp_path / "m.onnx")


def test_building_where_tensorrt_is_not(home):
    with pytest.raises(NoPackageError) as caught:
        export(Registry(environment=Environment()))
    assert "NVIDIA GPU" in str(caught.value.found)


# --- selection ------------------------------------------------------------------------------------------------------


def test_engines_of_other_machines_are_rejected_with_their_reasons(registry, gpu):
    export(registry, precision="fp16")
    gpu.become("10.9.0.34", capability=(7, 5), name="Tesla T4")
    elsewhere = Registry(environment=gpu.environment)
    plan = elsewhere.explain("shapes-nano", backend="tensorrt")
    assert plan.selected is None
    (rejection,) = [r for r in plan.rejected if r.package.format == "engine"]
    found = {reason.check: (reason.required, reason.found) for reason in rejection.reasons}
    assert found == {
        "gpu": ("compute capability 9.0", "7.5"),
        "runtime": ("version ==10.13.0.*", "10.9.0.34"),
    }
    with pytest.raises(NoPackageError, match=r"compute capability 9\.0"):
        elsewhere.load("shapes-nano", backend="tensorrt")


def test_of_several_engines_the_one_of_this_machine_is_chosen(registry, gpu):
    machines = [("10.13.0.35", (9, 0)), ("10.13.0.35", (8, 6)), ("10.9.0.34", (9, 0)), ("11.4.0.106", (12, 0))]
    for version, capability in machines:
        gpu.become(version, capability=capability)
        export(Registry(environment=gpu.environment))
    for version, capability in machines:
        gpu.become(version, capability=capability)
        here = Registry(environment=gpu.environment)
        plan = here.explain("shapes-nano", backend="tensorrt")
        assert [c.package.format for c in plan.choices] == ["engine"]
        needs = plan.choices[0].package.requirements
        assert needs.compute_capability == "{}.{}".format(*capability)
        model = here.load("shapes-nano", backend="tensorrt")
        assert model.backend == "tensorrt"
        model.close()


def test_of_two_gpus_the_one_that_the_engine_was_built_for(registry, gpu):
    folder = export(registry)
    environment = replace(
        gpu.environment,
        gpus=(
            Gpu(index=0, name="Tesla T4", compute_capability="7.5"),
            Gpu(index=1, name="H200", compute_capability="9.0"),
        ),
    )
    plan = Registry(environment=environment).explain(folder)
    assert plan.selected is not None
    assert plan.selected.device == "cuda:1"


def test_a_precision_that_was_not_built_is_refused_or_built(registry, gpu):
    export(registry)
    with pytest.raises(NoPackageError, match="fp16"):
        registry.load("shapes-nano", backend="tensorrt", precision="fp16")
    model = registry.load("shapes-nano", backend="tensorrt", precision="fp16", build="if-missing")
    assert model.precision == "fp16"
    model.close()


def test_asking_for_a_device_that_building_cannot_give(registry, gpu, home):
    with pytest.raises(NoPackageError, match="cpu"):
        registry.load("shapes-nano", backend="tensorrt", device="cpu", build="if-missing")
    assert not (home / "built").exists()


def test_version_compatible_engines_are_chosen_and_ask_for_leave(registry, gpu):
    export(registry, settings={"version_compatible": True})
    gpu.become("10.14.1.48")
    later = Registry(environment=gpu.environment)
    with pytest.raises(UnsafeFileError, match="code for the host"):
        later.load("shapes-nano", backend="tensorrt")
    model = later.load("shapes-nano", backend="tensorrt", allow_host_code=True)
    assert len(model(SCENE.read_bytes())[0]) > 0
    model.close()


# --- engines of the peer --------------------------------------------------------------------------------------------


def peer_folder(folder: Path, graph: Path, trt_config: dict | None) -> Path:
    """A package as inference-models keeps one: around an engine of ours, or around the graph that it came from."""
    folder.mkdir()
    (folder / ("weights.onnx" if trt_config is None else "engine.plan")).write_bytes(graph.read_bytes())
    files = {
        "model_config.json": {
            "model_architecture": "yolov8",
            "task_type": "instance-segmentation",
            "backend_type": "onnx" if trt_config is None else "trt",
            "quantization": "fp32",
            "model_id": "mine/1",
        },
        **({} if trt_config is None else {"trt_config.json": trt_config}),
        "inference_config.json": {
            "network_input": {
                "training_input_size": {"height": 256, "width": 256},
                "dynamic_spatial_size_supported": False,
                "color_mode": "rgb",
                "resize_mode": "letterbox",
                "padding_value": 114,
                "input_channels": 3,
                "scaling_factor": 255,
            },
            "forward_pass": {"max_dynamic_batch_size": 16},
            "post_processing": {"type": "nms", "fused": False},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "class_names.txt").write_text("circle\nsquare\ntriangle\nstar\nring\ncross\n")
    return folder


@pytest.mark.parametrize("sizes", [(1, 4, 16), (4, 4, 16)])
def test_a_folder_of_inference_models(registry, gpu, tmp_path, sizes):
    engine = export(registry, batch=sizes) / "weights.plan"
    config = dict(
        zip(("dynamic_batch_size_min", "dynamic_batch_size_opt", "dynamic_batch_size_max"), sizes, strict=True)
    )
    folder = peer_folder(tmp_path / "peer", engine, config)
    graph = Path(str(resources.files("lensmount_shapes") / "data/shapes-nano.onnx"))
    model = registry.load(folder)
    plain = registry.load(peer_folder(tmp_path / "graph", graph, None), backend="onnx", device="cpu")
    assert (model.backend, model.precision) == ("tensorrt", "fp32")
    assert model.card.classes[0] == "circle"
    data = SCENE.read_bytes()
    same(model(data), plain(data))
    same(model([data] * 3), plain([data] * 3))
    model.close()
    plain.close()
    gpu.become("10.9.0.34")
    with pytest.raises(EngineMismatchError, match="another TensorRT"):
        Registry(environment=gpu.environment).load(folder)


# --- the probe ------------------------------------------------------------------------------------------------------

H200 = (Gpu(name="NVIDIA H200", compute_capability="9.0"),)
ORIN = (Gpu(name="Orin", compute_capability="8.7"),)
FULL = (("tensorrt", "10.13.0.35"), ("cuda-bindings", "12.9.4"))


@pytest.mark.parametrize(
    ("environment", "reason", "fix"),
    [
        (Environment(packages=FULL), "no NVIDIA GPU", None),
        (Environment(gpus=H200), "TensorRT is not installed", 'pip install "lensmount[tensorrt]"'),
        (Environment(gpus=H200, tensorrt="10.3.0"), "its Python module is not", 'pip install "lensmount[tensorrt]"'),
        (Environment(gpus=ORIN, tensorrt="10.3.0", l4t="36.4.3"), "its Python module is not", "python3-libnvinfer"),
        (Environment(gpus=H200, packages=(("tensorrt", "8.6.1"),)), "too old", "tensorrt>=10.1,<12"),
        (Environment(gpus=ORIN, l4t="35.4.1", packages=(("tensorrt", "8.5.2"),)), "too old", "JetPack 6"),
        (Environment(gpus=H200, packages=(("tensorrt", "12.0.0"),)), "newer", "tensorrt>=10.1,<12"),
        (Environment(gpus=H200, packages=FULL[:1]), "cuda-bindings", 'pip install "lensmount[tensorrt]"'),
        (
            Environment(
                gpus=H200, cuda="12.4", packages=(("tensorrt-cu12", "10.13.0.35"), ("cuda-bindings", "13.5.0"))
            ),
            "cuda-bindings 13.5.0 needs a driver for CUDA 13",
            'pip install "cuda-bindings<13"',
        ),
        (
            Environment(
                gpus=H200,
                cuda="12.4",
                packages=(("tensorrt", "11.4.0"), ("tensorrt-cu13", "11.4.0"), ("cuda-bindings", "12.9.4")),
            ),
            "tensorrt-cu13 needs a driver for CUDA 13",
            "pip install tensorrt-cu12==11.4.0",
        ),
    ],
)
def test_the_probe_says_what_is_missing(environment, reason, fix):
    status = backend.probe(environment)
    assert not status.usable
    assert reason in (status.reason or "")
    assert status.fix is None if fix is None else fix in (status.fix or "")


@pytest.mark.parametrize(
    ("environment", "version", "devices"),
    [
        (Environment(gpus=H200, cuda="12.9", packages=FULL), "10.13.0.35", ("cuda:0",)),
        (
            Environment(
                gpus=ORIN, l4t="36.4.3", cuda="12.6", tensorrt="10.3.0", packages=(("tensorrt", "10.3.0"), FULL[1])
            ),
            "10.3.0",
            ("cuda:0",),
        ),
        (
            Environment(
                gpus=(*H200, Gpu(index=1)), packages=(("tensorrt-cu13", "11.4.0.106"), ("cuda-bindings", "13.0.1"))
            ),
            "11.4.0.106",
            ("cuda:0", "cuda:1"),
        ),
    ],
)
def test_the_probe_says_where_it_runs(environment, version, devices):
    status = backend.probe(environment)
    assert (status.usable, status.version, status.devices) == (True, version, devices)
    assert dict(status.precisions) == {"cuda": ("fp32", "fp16", "bf16", "int8")}


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(registry):
    from typer.testing import CliRunner

    from lensmount import registry as facade
    from lensmount.cli.app import app

    def run(*arguments: str):
        with facade.use(registry):
            return CliRunner().invoke(app, ["export", "shapes-nano", "--to", "tensorrt", *arguments])

    return run


def test_the_command(command, gpu, home, tmp_path):
    done = command("--precision", "fp16", "--batch", "1,8,32", "--timing-cache", str(tmp_path / "timings"))
    assert done.exit_code == 0, done.output
    (folder,) = [path for path in (home / "built/tensorrt").iterdir() if path.is_dir()]
    assert str(folder) in done.output.replace("\n", "")
    said = json.loads((folder / "weights.plan.json").read_text())
    assert said["profiles"][0]["images"][2] == [32, 3, 256, 256]
    assert said["precision"] == "fp16"
    assert (tmp_path / "timings").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--batch", "few"), "--batch is not valid"),
        (("--batch", "1,2"), "batch is not valid"),
        (("--shape", "images"), "--shape is not valid"),
        (("--shape", "image=1x3x8x8"), "no input 'image'"),
        (("--optimization-level", "9"), "optimization_level"),
        (("--nms", "none"), "no option 'nms'"),
    ],
)
def test_the_command_refuses(command, arguments, words):
    done = command(*arguments)
    assert done.exit_code != 0
    assert words in done.output or words in str(done.exception)
