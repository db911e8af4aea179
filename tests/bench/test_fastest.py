"""`backend="fastest"`: the choice by times, the records that keep them, and what makes them stale."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lensmount.contracts import Request
from lensmount.contracts.session import BackendOptions
from lensmount.errors import NoPackageError, NotTunedError, StoreError
from lensmount.host.plan import require_choice
from lensmount.host.selection import select, without_less_exact
from lensmount.machine.environment import Environment, Gpu
from lensmount.specs import Architecture, Artifact, Backend, BackendStatus, ModelCard, ModelPackage
from lensmount_bench import fastest as tuned
from lensmount_bench import records as tuning_records
from lensmount_bench.fastest import Measured, NotMeasured, decide
from lensmount_bench.records import Record, Timing, forget, keep, list_kept

ARCHITECTURE = Architecture(name="yolo", tasks=("t",), factory="a:b", network="a:n")
ONNX = Backend(
    name="onnx", formats=("onnx",), probe="a:b", opener="a:b", preference=(("cpu", 30), ("cuda", 10)), extra="x"
)
TORCH = Backend(
    name="torch", formats=("torch",), probe="a:b", opener="a:b", preference=(("cpu", 20), ("cuda", 20)), extra="x"
)
CPU = BackendStatus(usable=True, version="1.2", devices=("cpu",), precisions=(("cpu", ("fp32", "bf16")),))
CUDA = BackendStatus(
    usable=True,
    version="2.0",
    devices=("cuda:0", "cpu"),
    precisions=(("cuda", ("fp32", "fp16", "bf16")), ("cpu", ("fp32",))),
)
WITH_GPU = Environment(gpus=(Gpu(name="NVIDIA A100", compute_capability="8.0"),), cuda_driver="570.1")
BOTH = [(ONNX, CPU), (TORCH, CPU)]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    for name in ("LENSMOUNT_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LENSMOUNT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def package(name, uri="https://example.org/w", **changes):
    sha256 = changes.pop("sha256", None)
    artifact = Artifact(name="w", uri=uri, sha256=sha256)
    return ModelPackage(name=name, format=name.split("-")[0], artifacts=(artifact,), **changes)


def plan(*packages, backends=BOTH, environment=None, **request):
    card = ModelCard(id="m", architecture="yolo", task="t", packages=packages or (package("onnx"), package("torch")))
    return select(card, ARCHITECTURE, backends, environment or Environment(cpu_count=2), Request(**request))


def timing(name, backend, milliseconds=None, device="cpu", precision="fp32", **more):
    return Timing(package=name, backend=backend, device=device, precision=precision, milliseconds=milliseconds, **more)


def times(*timings):
    return Measured(timings=timings, taken="on 2026-02-03 14:05 UTC")


NONE = NotMeasured(found="nothing was measured yet", fix="lensmount tune m")


# --- the decision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("onnx", "torch", "first"), [(3.0, 4.0, "onnx"), (4.0, 3.0, "torch"), (3.0, 3.0, "onnx")])
def test_the_quickest_is_taken_and_the_reason_is_told(onnx, torch, first):
    made = decide(plan(), times(timing("torch", "torch", torch), timing("onnx", "onnx", onnx)))
    assert made.selected.package.name == first
    assert made.selected.milliseconds == min(onnx, torch)
    assert f"of 2 measured on 2026-02-03 14:05 UTC: {min(onnx, torch):.2f} ms a picture" in made.decision
    assert f"against {max(onnx, torch):.2f}" in made.decision
    assert "selected, 3.00 ms" in str(made)
    assert made.decision in str(made)


def test_nothing_is_guessed_without_times():
    made = decide(plan(), NONE)
    assert made.choices == ()
    assert [r.reasons[0].check for r in made.rejected] == ["measured", "measured"]
    with pytest.raises(NotTunedError) as caught:
        require_choice(made)
    assert isinstance(caught.value, NoPackageError)
    assert caught.value.found == "nothing was measured yet"
    assert caught.value.fix == "lensmount tune m"


def test_one_choice_needs_no_times():
    made = decide(plan(package("onnx")), NONE)
    assert made.selected.package.name == "onnx"
    assert "one choice only" in made.decision
    none = decide(plan(package("tflite")), NONE)
    assert (none.selected, none.decision) == (None, None)
    with pytest.raises(NoPackageError) as caught:
        require_choice(none)
    assert not isinstance(caught.value, NotTunedError)


def test_what_failed_when_it_was_measured_is_refused_with_its_error():
    made = decide(plan(), times(timing("onnx", "onnx", 9.0), timing("torch", "torch", error="DeviceError: no")))
    assert made.selected.package.name == "onnx"
    (rejection,) = made.rejected
    assert (rejection.reasons[0].check, rejection.reasons[0].found) == ("run", "DeviceError: no")
    every = decide(plan(), times(timing("onnx", "onnx", error="a"), timing("torch", "torch", error="b")))
    with pytest.raises(NoPackageError) as caught:
        require_choice(every)
    assert not isinstance(caught.value, NotTunedError)


def test_doubts_are_told():
    doubtful = dataclasses.replace(
        times(timing("onnx", "onnx", 1.0), timing("torch", "torch", 2.0)), doubts=("a busy machine", "noise")
    )
    assert decide(plan(), doubtful).decision.endswith("; doubtful: a busy machine (and 1 more)")


# --- precision --------------------------------------------------------------------------------------------------------


def contenders(made):
    """What a selector gets to choose among, and what is refused before it is asked."""
    kept = without_less_exact(made)
    return kept.choices, kept.rejected[len(made.rejected) :]


def names(choices):
    return [(choice.package.name, choice.precision) for choice in choices]


def test_nothing_less_exact_competes_unasked():
    packages = [
        package("onnx-fp32"),
        package("onnx-fp16", precision="fp16"),
        package("onnx-int8", precision="int8"),
        package("onnx-what", precision="unknown"),
        package("torch"),
    ]
    kept, refused = contenders(plan(*packages))
    assert names(kept) == [("onnx-fp32", "fp32"), ("torch", "fp32")]
    assert {r.package.name: r.reasons[0].found for r in refused} == {
        "onnx-fp16": "fp16",
        "onnx-int8": "int8",
        "onnx-what": "unknown",
    }
    assert refused[0].reasons[0].fix == "precision='fp32,fp16', if either will do"
    quick = times(*(timing(p.name, "onnx", 0.1, precision=p.precision) for p in packages[1:4]))
    quick = dataclasses.replace(
        quick, timings=(*quick.timings, timing("onnx-fp32", "onnx", 5.0), timing("torch", "torch", 9.0))
    )
    assert decide(without_less_exact(plan(*packages)), quick).selected.package.name == "onnx-fp32"


def test_several_precisions_compete_where_they_are_asked_for():
    gpu = {"backends": [(ONNX, CUDA), (TORCH, CUDA)], "environment": WITH_GPU}
    made = plan(package("onnx-fp16", precision="fp16"), package("torch"), **gpu, precision="fp32, fp16")
    kept, refused = contenders(made)
    assert (sorted(names(kept)), refused) == ([("onnx-fp16", "fp16"), ("torch", "fp16"), ("torch", "fp32")], ())
    measured = times(
        timing("onnx-fp16", "onnx", 3.0, "cuda:0", "fp16"),
        timing("torch", "torch", 2.0, "cuda:0", "fp32"),
        timing("torch", "torch", 1.0, "cuda:0", "fp16"),
    )
    assert names(decide(made, measured).choices) == [("torch", "fp16"), ("torch", "fp32"), ("onnx-fp16", "fp16")]
    assert names(plan(package("torch"), **gpu, precision="fp32,fp16").choices) == [("torch", "fp32"), ("torch", "fp16")]
    assert names(plan(package("torch"), precision="fp16,bf16").choices) == [("torch", "bf16")]  # what the CPU has


def test_the_least_exact_runs_where_it_is_all_there_is():
    kept, refused = contenders(plan(package("onnx-int8", precision="int8"), package("onnx-b8", precision="int8")))
    assert (names(kept), refused) == ([("onnx-int8", "int8"), ("onnx-b8", "int8")], ())


def test_quantised_weights_are_coarse_whatever_they_compute_in():
    kept, _ = contenders(plan(package("torch-q", precision="int8"), package("onnx")))
    assert names(kept) == [("onnx", "fp32")]


# --- records ----------------------------------------------------------------------------------------------------------

MACHINE = (("processor", "some"), ("NVIDIA driver", "570.1"))
TIMINGS = (timing("onnx", "onnx", 3.0), timing("torch", "torch", 4.0))


def record(**changes):
    return Record(**{"model": "m", "taken": "2026-02-03 14:05", "machine": MACHINE, "timings": TIMINGS, **changes})


def look_up(made=None, machine=MACHINE, options=()):
    made = made or plan()
    return tuned.look_up(made.card, made.choices, lambda package: {}, machine, options, "lensmount tune m")


def test_a_record_is_found_again():
    first = record(options=(("threads", 2),), files=(("onnx/w", "a" * 64),), warnings=("busy",), batch=4)
    path = keep(first, (None, None))
    (kept,) = list_kept("m")
    assert (kept.path, kept.record, kept.problem) == (path, first, None)
    found = look_up(options=(("threads", 2),))
    assert (found.timings, found.doubts) == (TIMINGS, ("busy",))
    assert found.taken == "on 2026-02-03 14:05 UTC, in batches of 4"
    assert list_kept("other") == []


def test_nothing_yet():
    assert look_up() == NONE


@pytest.mark.parametrize(
    ("machine", "options", "said"),
    [
        ((("processor", "some"), ("NVIDIA driver", "580.2")), (), "NVIDIA driver: 570.1, now 580.2"),
        ((("processor", "some"),), (), "NVIDIA driver: 570.1, now none"),
        ((*MACHINE, ("cuDNN", "9.1")), (), "cuDNN: none, now 9.1"),
        (MACHINE, (("threads", 2),), "option threads: none, now 2"),
    ],
)
def test_what_changed_is_told(machine, options, said):
    keep(record(), (None, None))
    assert isinstance(look_up(), Measured)
    found = look_up(machine=machine, options=options)
    assert found.found == f"times of 2026-02-03 14:05 UTC that do not fit: {said}"


def test_the_nearest_record_is_the_one_that_is_told_of():
    keep(record(taken="2026-02-04 10:00", machine=(("processor", "x"), ("NVIDIA driver", "x"))), (None, None))
    keep(record(taken="2026-02-01 10:00"), (None, None))
    found = look_up(machine=(("processor", "some"), ("NVIDIA driver", "580.2")))
    assert "NVIDIA driver: 570.1, now 580.2" in found.found
    assert "processor" not in found.found


def test_machines_and_settings_that_share_a_home_have_records_of_their_own():
    other = (("processor", "other"),)
    paths = {
        keep(record(), (None, None)),
        keep(record(machine=other), (None, None)),
        keep(record(options=(("threads", 1),)), (None, None)),
        keep(record(), ("cpu", None)),
        keep(record(taken="2026-03-03 10:00"), (None, None)),  # takes the first one's place
    }
    assert len(paths) == len(list_kept("m")) == 4
    assert isinstance(look_up(machine=other), Measured)
    assert isinstance(look_up(options=(("threads", 1),)), Measured)


def test_of_two_records_that_fit_the_newest_counts():
    newest = (timing("onnx", "onnx", 9.0), timing("torch", "torch", 1.0))
    for request in ((None, None), ("cpu", None), (None, "fp32"), ("cpu", "fp32")):
        first = request == ("cpu", None)
        taken = "2026-02-09 10:00:01" if first else "2026-02-09 10:00:00"
        keep(record(taken=taken, timings=newest if first else TIMINGS), request)
    assert look_up().timings == newest


def test_old_records_go():
    for i in range(tuning_records.KEPT + 3):
        path = keep(record(machine=(("processor", str(i)),)), (None, None))
        os.utime(path, (i, i))
    assert len(list_kept("m")) == tuning_records.KEPT
    assert isinstance(look_up(machine=(("processor", str(tuning_records.KEPT + 2)),)), Measured)


def test_a_choice_without_a_time_wants_a_new_measurement():
    keep(record(timings=TIMINGS[:1]), (None, None))
    assert look_up().found.endswith("do not fit: torch on torch, cpu, fp32 was not measured")
    assert isinstance(look_up(plan(device="cpu", backend="onnx")), Measured)  # the times that it needs are there


def test_a_model_whose_files_changed():
    made = plan(package("onnx", sha256="a" * 64), package("torch", sha256="b" * 64))
    keep(record(files=(("onnx/w", "a" * 64), ("torch/w", "c" * 64))), (None, None))
    assert look_up(made).found.endswith("do not fit: torch/w is another file")
    keep(record(files=(("onnx/w", "a" * 64), ("torch/w", "b" * 64))), (None, None))
    assert isinstance(look_up(made), Measured)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"model": "m"}', b"[" * 100_000, "unknown key", "wrong type", "cut"],
)
def test_a_damaged_record_counts_as_none(content):
    path = keep(record(), (None, None))
    sound = json.loads(path.read_text())
    if content == "unknown key":
        content = json.dumps({**sound, "surprise": 1}).encode()
    elif content == "wrong type":
        content = json.dumps({**sound, "timings": [{**sound["timings"][0], "milliseconds": "quick"}]}).encode()
    elif content == "cut":
        content = path.read_bytes()[:-40]
    path.write_bytes(content)
    (kept,) = list_kept("m")
    assert kept.record is None
    assert kept.problem
    found = look_up()
    assert "a damaged record" in found.found
    assert str(path) in found.found
    assert keep(record(), (None, None)) == path  # measuring again mends it
    assert isinstance(look_up(), Measured)


def test_a_damaged_record_does_not_hide_a_sound_one():
    bad = keep(record(machine=(("processor", "x"),)), (None, None))
    bad.write_bytes(b"{")
    keep(record(), (None, None))
    assert isinstance(look_up(), Measured)


def test_forgetting():
    keep(record(), (None, None))
    keep(record(model="other"), (None, None))
    assert len(forget("m")) == 1
    assert [k.record.model for k in list_kept()] == ["other"]
    assert len(forget()) == 1
    assert (list_kept(), forget()) == ([], [])


def test_a_folder_that_cannot_be_written(home):
    home.mkdir()
    (home / "tuning").write_text("a file in its place")
    with pytest.raises(StoreError):
        keep(record(), (None, None))
    assert isinstance(look_up(), NotMeasured)


WRITE_OFTEN = """
import sys
from dataclasses import replace
from lensmount_bench.records import keep, list_kept
(kept,) = list_kept("m")
for i in range(25):
    keep(replace(kept.record, taken=f"{sys.argv[1]} 10:{i:02}", warnings=("x" * 5000,)), (None, None))
"""


def test_writers_at_once_leave_a_whole_record():
    keep(record(), (None, None))
    days = ["2026-02-10", "2026-02-11", "2026-02-12"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITE_OFTEN, day]) for day in days]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        (kept,) = list_kept("m")
        assert kept.record is not None, kept.problem
        seen.add(kept.record.taken)
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    (kept,) = list_kept("m")
    assert kept.record.taken.endswith("10:24")
    assert len(seen) > 1
    assert [path.suffix for path in Path(kept.path).parent.iterdir()] == [".json"]  # nothing half-written is left


# --- what times depend on ---------------------------------------------------------------------------------------------


def test_options_that_are_their_defaults_do_not_count(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Own:
        resolution: int = 640
        sizes: tuple[int, ...] = (1, 2)

    assert tuned.conditions(BackendOptions(), Own()) == tuned.conditions(BackendOptions(), None) == ()
    given = tuned.conditions(BackendOptions(threads=2, providers=("A", "B")), Own(resolution=320))
    assert [list(pair) for pair in given] == [["providers", ["A", "B"]], ["resolution", 320], ["threads", 2]]
    keep(record(options=given), (None, None))
    assert isinstance(look_up(options=given), Measured)  # also after a trip through a file
    monkeypatch.setenv("LENSMOUNT_THREADS", "3")
    assert [list(pair) for pair in tuned.conditions(BackendOptions())] == [["threads", 3]]
    assert [list(pair) for pair in tuned.conditions(BackendOptions(threads=1))] == [["threads", 1]]


def test_what_the_machine_is_known_by(monkeypatch):
    facts = dict(tuned.machine_facts(WITH_GPU, [(ONNX, CUDA), (TORCH, BackendStatus(usable=False))], "numpy"))
    assert facts["cuda:0"] == "NVIDIA A100 (8.0)"
    assert facts["NVIDIA driver"] == "570.1"
    assert facts["backend onnx"] == "2.0"
    assert "backend torch" not in facts
    assert {"lensmount", "numpy", "processors usable"} <= facts.keys()
    more = dataclasses.replace(WITH_GPU, cuda_driver="580.2", cpu_count=2)
    assert tuned.changes(facts, dict(tuned.machine_facts(more, [(ONNX, CUDA), (TORCH, CPU)], "numpy"))) == [
        "processors usable: 1, now 2",
        "NVIDIA driver: 570.1, now 580.2",
        "backend torch: none, now 1.2",
    ]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert dict(tuned.machine_facts(WITH_GPU, []))["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(
    ("name", "request_", "options", "said"),
    [
        ("m", Request(), (), "lensmount tune m"),
        ("a b.onnx", Request(device="cpu"), (("threads", 2),), "lensmount tune 'a b.onnx' --device cpu --threads 2"),
        ("m", Request(precision="fp32,fp16"), (), "lensmount tune m --precision fp32,fp16"),
        ("m", Request(), (("compile", True),), "lensmount_bench.tune('m', compile=True)"),
    ],
)
def test_the_command_that_measures(name, request_, options, said):
    assert tuned.command(name, request_, options) == said


def test_files_of_one_id_are_told_apart():
    a, b = (plan(package("onnx", uri=f"file:///{folder}/best.onnx")).card for folder in "ab")
    assert tuned.subject_of(a) != tuned.subject_of(b)
    assert tuned.subject_of(plan().card) == "m"
    assert tuned.subject_of(plan(package("onnx"), package("torch", uri="file:///made/here")).card) == "m"
