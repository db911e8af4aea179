"""`tune` and `backend="fastest"` on the sample model: real processes, real times, and what becomes of them."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from importlib.resources import files

import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")
pytest.importorskip("lensmount_shapes")

from filelock import FileLock

from lensmount import registry
from lensmount.contracts.plan import Request
from lensmount.errors import InputError, NoPackageError, NotTunedError, OptionError, UnknownOptionError
from lensmount.host.plan import local_files
from lensmount.host.plan import plan as plan_of
from lensmount.machine.environment import Gpu, detect
from lensmount.specs import Artifact, ModelCard, ModelPackage
from lensmount_bench import fastest as tuned
from lensmount_bench import records as tuning_records
from lensmount_bench import tune, tuning
from lensmount_bench.fastest import FASTEST
from lensmount_bench.records import Timing

pytestmark = pytest.mark.slow
MODEL = "shapes-nano"
QUICK = {"seconds": 0.4, "rounds": 2, "offline": True}


@pytest.fixture(scope="module", autouse=True)
def two_backends():
    """The core's own backends alone compete, whatever examples are installed beside them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSMOUNT_BLOCK_PLUGINS", "openvino")
        registry.refresh()
        yield
    registry.refresh()


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store in which the sample model was measured once, with one thread."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSMOUNT_HOME", str(home))
        patch.delenv("LENSMOUNT_THREADS", raising=False)
        told = []
        found = tune(MODEL, threads=1, progress=lambda *what: told.append(what), **QUICK)
    return home, found, told


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty store."""
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("LENSMOUNT_THREADS", raising=False)
    return tmp_path / "home"


@pytest.fixture
def tuned_home(measured, home):
    """A copy of the store with the measurement."""
    shutil.copytree(measured[0], home)
    return home


def the_record():
    (kept,) = tuning_records.list_kept()
    return kept.record


def test_untuned_is_refused_with_the_command_that_measures(home):
    with pytest.raises(NotTunedError) as caught:
        registry.load(MODEL, backend=FASTEST)
    assert caught.value.found == "nothing was measured yet"
    assert caught.value.fix == "lensmount tune shapes-nano"
    with pytest.raises(NotTunedError, match="fastest") as caught:
        registry.load(MODEL, backend=FASTEST, threads=1, device="cpu")
    assert caught.value.fix == "lensmount tune shapes-nano --device cpu --threads 1"
    assert tuning_records.list_kept() == []  # nothing was measured on the quiet


def test_what_a_measurement_finds(measured):
    _, found, told = measured
    assert {(t.package, t.backend, t.device, t.precision) for t in found.record.timings} == {
        ("onnx-fp32", "onnx", "cpu", "fp32"),
        ("torch-fp32", "torch", "cpu", "fp32"),
        ("torch-fp32", "onnx", "cpu", "fp32"),  # the same weights as a graph in memory
    }
    assert all(t.milliseconds > 0 and t.calls >= 6 and t.error is None for t in found.record.timings)
    quickest = min(found.record.timings, key=lambda t: t.milliseconds)
    assert found.plan.selected.package.name == quickest.package
    assert found.plan.request.backend == FASTEST
    assert dict(found.record.options) == {"threads": 1}
    assert dict(found.record.files).keys() == {"onnx-fp32/weights.onnx", "torch-fp32/weights.safetensors"}
    assert told[-1][1] == told[-1][2] == 9  # three cold starts and two rounds of all
    assert "ms a picture" in str(found)


def test_the_quickest_is_loaded_and_explained(tuned_home, measured):
    expected = measured[1].plan.selected
    plan = registry.explain(MODEL, backend=FASTEST, threads=1)
    assert (plan.selected.package.name, plan.selected.milliseconds) == (expected.package.name, expected.milliseconds)
    assert plan.decision == measured[1].plan.decision
    with registry.load(MODEL, backend=FASTEST, threads=1) as model:
        assert (model.backend, model.package.name) == (expected.backend.name, expected.package.name)
    with registry.load(MODEL, backend=FASTEST, threads=1, device="cpu", precision="fp32") as model:
        assert model.backend == expected.backend.name  # asking for what is so anyway asks for no other measurement


def test_the_times_decide_and_not_the_default_order(tuned_home):
    record = the_record()
    for winner in ("torch", "onnx"):
        rigged = [dataclasses.replace(t, milliseconds=1.0 if t.backend == winner else 2.0) for t in record.timings]
        tuning_records.keep(dataclasses.replace(record, timings=tuple(rigged)), (None, None))
        with registry.load(MODEL, backend=FASTEST, threads=1) as model:
            assert model.backend == winner


def test_other_threads_want_another_measurement(tuned_home, monkeypatch):
    with pytest.raises(NotTunedError) as caught:
        registry.load(MODEL, backend=FASTEST)
    assert "option threads: 1, now none" in caught.value.found
    with pytest.raises(NotTunedError) as caught:
        registry.load(MODEL, backend=FASTEST, threads=2)
    assert "option threads: 1, now 2" in caught.value.found
    monkeypatch.setenv("LENSMOUNT_THREADS", "1")
    assert registry.explain(MODEL, backend=FASTEST).selected is not None


def test_another_machine_wants_another_measurement(tuned_home):
    here = detect()
    there = registry.Registry(environment=dataclasses.replace(here, cpu_count=here.cpu_count + 6))
    with pytest.raises(NotTunedError) as caught:
        there.load(MODEL, backend=FASTEST, threads=1)
    assert f"processors usable: {here.cpu_count}, now {here.cpu_count + 6}" in caught.value.found
    packages = tuple((name, "9.9.9" if name == "onnxruntime" else version) for name, version in here.packages)
    newer = registry.Registry(environment=dataclasses.replace(here, packages=packages))
    plan = newer.explain(MODEL, backend=FASTEST, threads=1)
    assert plan.selected is None
    assert ", now 9.9.9" in plan.rejected[0].reasons[0].found


def test_a_damaged_record_is_refused_and_mended(tuned_home):
    (kept,) = tuning_records.list_kept()
    kept.path.write_bytes(kept.path.read_bytes()[:100])
    with pytest.raises(NotTunedError) as caught:
        registry.load(MODEL, backend=FASTEST, threads=1)
    assert "damaged" in caught.value.found
    assert caught.value.fix == "lensmount tune shapes-nano --threads 1"


def test_a_changed_file_wants_another_measurement(home, tmp_path):
    source = next(a for p in registry.describe(MODEL).packages for a in p.artifacts if a.name.endswith(".onnx"))
    path = registry.pull(MODEL, package="onnx-fp32")["onnx-fp32"].files[source.name]
    packages = []
    for name in ("onnx-a", "onnx-b"):
        copy = tmp_path / f"{name}.onnx"
        shutil.copy(path, copy)
        artifact = Artifact(name="weights.onnx", uri=copy.as_uri())
        packages.append(ModelPackage(name=name, format="onnx", artifacts=(artifact,)))
    card = ModelCard(id="mine", architecture="yolo", task="instance-segmentation", packages=tuple(packages))
    host = registry.default()
    owner = host.index.owners["lensmount_architectures", card.architecture]
    machine = tuned.machine_facts(host.environment, host.backends(), owner)
    record = tuning_records.Record(
        model=tuned.subject_of(card),
        taken="2026-02-03 14:05",
        machine=machine,
        files=tuple(tuned.known_files(card.packages, lambda package: local_files(package, host.index.sources)).items()),
        timings=tuple(
            Timing(package=p.name, backend="onnx", device="cpu", precision="fp32", milliseconds=float(9 - i))
            for i, p in enumerate(packages)
        ),
    )
    tuning_records.keep(record, (None, None))
    assert plan_of(card, host.site, Request(backend=FASTEST)).selected.package.name == "onnx-b"
    with (tmp_path / "onnx-a.onnx").open("ab") as file:
        file.write(b"\0")
    plan = plan_of(card, host.site, Request(backend=FASTEST))
    assert plan.selected is None
    assert plan.rejected[0].reasons[0].found.endswith("onnx-a/weights.onnx is another file")
    (tmp_path / "onnx-a.onnx").unlink()  # what is not here cannot be compared, and is not the one that is taken
    assert plan_of(card, host.site, Request(backend=FASTEST)).selected.package.name == "onnx-b"


def test_one_choice_is_said_to_be_one(home):
    here = detect()
    packages = tuple(pair for pair in here.packages if pair[0] != "torch")
    alone = registry.Registry(environment=dataclasses.replace(here, packages=packages))
    graph = files("lensmount_shapes") / "data" / "shapes-nano.onnx"  # the graph alone; the model has torch weights too
    found = tune(graph, registry=alone)
    assert (found.record, found.path) == (None, None)
    assert found.plan.decision == "one choice only: there is nothing to compare"
    assert tuning_records.list_kept() == []
    with alone.load(graph, backend=FASTEST) as model:
        assert model.backend == "onnx"


def test_what_cannot_run_is_kept_as_such(home):
    here = detect()
    packages = tuple((name, "2.13.0+cu130" if name == "torch" else version) for name, version in here.packages)
    pretended = dataclasses.replace(
        here, gpus=(Gpu(name="NVIDIA H200", compute_capability="9.0"),), cuda="13.0", packages=packages
    )
    if here.gpus:
        pytest.skip("this machine has a GPU: nothing to pretend")
    found = tune(MODEL, registry=registry.Registry(environment=pretended), threads=1, **QUICK)
    failed = next(t for t in found.record.timings if t.backend == "torch")
    assert (failed.device, failed.milliseconds) == ("cuda:0", None)
    assert "cuda:0" in failed.error
    assert found.plan.selected.backend.name == "onnx"
    assert "run" in {rejection.reasons[0].check for rejection in found.plan.rejected}


def test_one_measurement_at_a_time(home, monkeypatch):
    monkeypatch.setattr(tuning, "_measure", lambda *given: ([], []))
    monkeypatch.setattr(tuning, "keep", lambda record, request: None)
    waiting, done = threading.Event(), threading.Event()

    def run():
        tune(MODEL, progress=lambda text, *rest: "waiting" in text and waiting.set())
        done.set()

    folder = tuning_records.folder()
    folder.mkdir(parents=True)
    with tuning._alone(None):
        (lock,) = folder.glob("measuring-*.lock")
        thread = threading.Thread(target=run)
        thread.start()
        assert waiting.wait(30)
        assert not done.is_set()
    assert done.wait(30)
    thread.join()
    with FileLock(str(lock), timeout=5):  # and it is free again
        pass


def test_mistakes_are_refused(home):
    with pytest.raises(NoPackageError):
        tune(MODEL, device="cuda:7")
    with pytest.raises(UnknownOptionError):
        tune(MODEL, thread=2)
    with pytest.raises(UnknownOptionError):
        registry.explain(MODEL, backend=FASTEST, thread=2)
    with pytest.raises(InputError):
        tune(MODEL, seconds=0.01)
    with pytest.raises(OptionError):
        tune(MODEL, batch=0)
    assert tuning_records.list_kept() == []


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(lensmount, home, tmp_path):
    refused = lensmount("predict", MODEL, "nowhere.jpg", "--backend", "fastest")
    assert refused.status == 1
    untuned = lensmount("explain", MODEL, "--backend", "fastest")
    assert untuned.status == 1
    assert "lensmount tune shapes-nano" in untuned.out
    said = lensmount("tune", MODEL, "--threads", 1, "--seconds", 0.4, "--rounds", 2, "--json", tmp_path / "times.json")
    assert said.status == 0, said.err
    assert "the quickest of 3 measured" in said.out
    assert "kept in" in said.out
    times = json.loads((tmp_path / "times.json").read_text())
    assert {t["backend"] for t in times["timings"]} == {"onnx", "torch"}
    explained = lensmount("explain", MODEL, "--backend", "fastest", "--threads", 1)
    assert (explained.status, "also usable, " in explained.out) == (0, True)
    listed = lensmount("tune", "--list")
    assert MODEL in listed.out
    assert "threads=1" in listed.out
    (record,) = json.loads(lensmount("tune", MODEL, "--list", "--json", "-").out)
    assert record["record"] == times
    assert lensmount("tune", "--forget").status == 1  # of what?
    assert "1 removed" in lensmount("tune", MODEL, "--forget").out
    assert "nothing was measured" in lensmount("tune", "--list").err
    assert "0 removed" in lensmount("tune", "--forget", "--all").out
    assert lensmount("tune").status == 1


def test_the_list_shows_what_is_damaged(lensmount, tuned_home):
    (kept,) = tuning_records.list_kept()
    kept.path.write_bytes(b"{")
    listed = lensmount("tune", "--list")
    assert listed.status == 0
    assert "JSONDecodeError" in listed.out
    assert "1 removed" in lensmount("tune", "--forget", "--all").out
