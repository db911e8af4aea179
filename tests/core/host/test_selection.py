"""Selection on machines described by hand: obeyed or refused, and every reason told."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from lensmount.contracts.plan import Reason, Request
from lensmount.host.selection import normalise_device, select
from lensmount.machine.environment import Environment, Gpu
from lensmount.specs import Architecture, Artifact, Backend, BackendStatus, ModelCard, ModelPackage, Requirements

YOLO = Architecture(name="yolo", tasks=("t",), factory="a:b", network="a:n")
ONNX = Backend(
    name="onnx",
    formats=("onnx",),
    probe="a:b",
    opener="a:b",
    preference=(("cpu", 30), ("cuda", 10)),
    extra="lensmount[onnx]",
)
TORCH = Backend(
    name="torch",
    formats=("torch",),
    probe="a:b",
    opener="a:b",
    preference=(("cpu", 20), ("cuda", 20), ("mps", 20)),
    extra="lensmount[torch]",
)
TENSORRT = Backend(
    name="tensorrt",
    formats=("engine",),
    probe="a:b",
    opener="a:b",
    preference=(("cuda", 30),),
    extra="lensmount[tensorrt]",
)
CPU = BackendStatus(usable=True, version="1.2.0", devices=("cpu",), precisions=(("cpu", ("fp32", "bf16")),))
CUDA = BackendStatus(
    usable=True,
    version="2.0.0",
    devices=("cuda:0", "cpu"),
    precisions=(("cuda", ("fp32", "fp16", "bf16")), ("cpu", ("fp32",))),
)
ABSENT = BackendStatus(usable=False, reason="not installed", fix='pip install "lensmount[x]"')
A100 = Gpu(index=0, name="NVIDIA A100", compute_capability="8.0")
T4 = Gpu(index=1, name="Tesla T4", compute_capability="7.5")
PLAIN = Environment(cpu_count=2)
WITH_GPU = Environment(gpus=(A100,))


def package(name, form=None, **changes):
    artifact = Artifact(name="w", uri="https://example.org/w")
    return ModelPackage(name=name, format=form or name.split("-")[0], artifacts=(artifact,), **changes)


def card(*packages):
    return ModelCard(id="m", architecture="yolo", task="t", packages=packages)


def plan(packages, backends, environment=PLAIN, architecture=YOLO, **request):
    return select(card(*packages), architecture, backends, environment, Request(**request))


def chosen(made):
    choice = made.selected
    return None if choice is None else (choice.package.name, choice.backend.name, choice.device, choice.precision)


def reasons(made, name):
    return {reason.check: reason for r in made.rejected if r.package.name == name for reason in r.reasons}


BOTH = [package("onnx"), package("torch")]
ENGINE = package("engine", requirements=Requirements(devices=("cuda",)))


def test_a_cpu_takes_the_measured_order():
    made = plan(BOTH, [(TORCH, CPU), (ONNX, CPU)])
    assert chosen(made) == ("onnx", "onnx", "cpu", "fp32")
    assert [c.backend.name for c in made.choices] == ["onnx", "torch"]
    assert made.rejected == ()
    assert made.notes == ()


def test_a_gpu_takes_tensorrt_then_torch_then_onnx():
    backends = [(ONNX, CUDA), (TORCH, CUDA), (TENSORRT, CUDA)]
    made = plan([*BOTH, ENGINE], backends, WITH_GPU)
    assert [c.backend.name for c in made.choices] == ["tensorrt", "torch", "onnx"]
    assert {c.device for c in made.choices} == {"cuda:0"}


def test_a_gpu_comes_before_a_better_backend_on_the_cpu():
    assert chosen(plan(BOTH, [(ONNX, CPU), (TORCH, CUDA)], WITH_GPU)) == ("torch", "torch", "cuda:0", "fp32")


def test_a_third_partys_backend_runs_existing_packages():
    openvino = Backend(name="openvino", formats=("onnx",), probe="a:b", opener="a:b", preference=(("cpu", 99),))
    assert chosen(plan(BOTH, [(ONNX, CPU), (openvino, CPU)])) == ("onnx", "openvino", "cpu", "fp32")


def test_an_exotic_device_is_taken_only_where_it_is_all_there_is_or_asked_for():
    npu = Backend(name="npu", formats=("onnx",), probe="a:b", opener="a:b", preference=(("npu", 99),))
    status = BackendStatus(usable=True, devices=("npu:0",))
    assert chosen(plan(BOTH, [(ONNX, CPU), (npu, status)])) == ("onnx", "onnx", "cpu", "fp32")
    assert chosen(plan(BOTH, [(npu, status)])) == ("onnx", "npu", "npu:0", "fp32")
    assert chosen(plan(BOTH, [(ONNX, CPU), (npu, status)], device="npu:0")) == ("onnx", "npu", "npu:0", "fp32")


# --- the request is obeyed or refused ---------------------------------------------------------------------------------


def test_a_backend_asked_for():
    backends = [(ONNX, CPU), (TORCH, CPU)]
    made = plan(BOTH, backends, backend="torch")
    assert chosen(made) == ("torch", "torch", "cpu", "fp32")
    assert reasons(made, "onnx")["backend"].required == "backend 'torch' (asked for)"
    none = plan([package("onnx")], backends, backend="torch")
    assert none.selected is None


def test_a_backend_asked_for_that_cannot_run_is_not_replaced():
    made = plan(BOTH, [(ONNX, CPU), (TORCH, ABSENT)], backend="torch")
    assert made.selected is None
    assert reasons(made, "torch")["backend"] == Reason(
        check="backend", required="a usable torch backend", found="not installed", fix='pip install "lensmount[x]"'
    )


@pytest.mark.parametrize("device", ["cuda:0", "cuda", "gpu", "0", "CUDA:0", " cuda ", "gpu:0"])
def test_a_device_asked_for(device):
    assert chosen(plan(BOTH, [(ONNX, CPU), (TORCH, CUDA)], WITH_GPU, device=device)) == (
        "torch",
        "torch",
        "cuda:0",
        "fp32",
    )


@pytest.mark.parametrize("device", ["cuda:0", "cuda:7", "mps", "tpu", "cuda:x", ""])
def test_an_absent_device_is_refused(device):
    made = plan(BOTH, [(ONNX, CPU), (TORCH, CPU)], device=device)
    assert made.selected is None
    reason = reasons(made, "onnx")["device"]
    assert "(asked for)" in reason.required
    assert "cpu" in reason.found
    assert "cpu" in str(reason.fix)


def test_cpu_can_be_asked_for_on_a_gpu_machine():
    made = plan(BOTH, [(ONNX, CUDA), (TORCH, CUDA)], WITH_GPU, device="cpu")
    assert chosen(made) == ("onnx", "onnx", "cpu", "fp32")
    assert made.notes == ()


@pytest.mark.parametrize(
    ("text", "device"),
    [("1", "cuda:1"), ("gpu:1", "cuda:1"), ("cpu:0", "cpu"), ("MPS:0", "mps"), ("npu:0", "npu:0"), ("cpu:1", "cpu:1")],
)
def test_names_of_devices(text, device):
    assert normalise_device(text) == device


def test_a_package_asked_for():
    made = plan([package("onnx-a"), package("onnx-b")], [(ONNX, CPU)], package="onnx-b")
    assert chosen(made) == ("onnx-b", "onnx", "cpu", "fp32")
    assert reasons(made, "onnx-a")["package"].found == "onnx-a"


# --- precision --------------------------------------------------------------------------------------------------------


def test_graphs_compute_in_what_they_were_made_with():
    packages = [package("onnx-fp16", precision="fp16"), package("onnx-fp32"), package("onnx-int8", precision="int8")]
    made = plan(packages, [(ONNX, CPU)])
    assert [c.precision for c in made.choices] == ["fp32", "fp16", "int8"]
    asked = plan(packages, [(ONNX, CPU)], precision="int8")
    assert chosen(asked) == ("onnx-int8", "onnx", "cpu", "int8")
    assert reasons(asked, "onnx-fp32")["precision"].found == "fp32"


def test_quantised_weights_only_where_nothing_better_runs():
    packages = [package("onnx-int8", precision="int8"), package("torch", precision="fp16")]
    assert chosen(plan(packages, [(ONNX, CPU), (TORCH, CPU)])) == ("torch", "torch", "cpu", "fp32")
    assert chosen(plan(packages, [(ONNX, CPU), (TORCH, ABSENT)])) == ("onnx-int8", "onnx", "cpu", "int8")


def test_weights_compute_in_what_is_asked_for():
    packages = [package("torch", precision="fp16")]
    assert chosen(plan(packages, [(TORCH, CUDA)], WITH_GPU, precision="fp16")) == ("torch", "torch", "cuda:0", "fp16")
    assert chosen(plan(packages, [(TORCH, CUDA)], WITH_GPU)) == ("torch", "torch", "cuda:0", "fp32")
    made = plan(packages, [(TORCH, CPU)], precision="fp16")
    assert made.selected is None
    assert reasons(made, "torch")["precision"].found == "torch on cpu computes in fp32, bf16"


# --- why not ----------------------------------------------------------------------------------------------------------


def test_every_reason_of_every_package():
    needs = Requirements(
        devices=("cuda",),
        systems=("windows",),
        machines=("aarch64",),
        runtime_version="10.3",
        compute_capability="8.6",
        gpu_name="RTX",
        l4t="36.4",
    )
    made = plan([package("engine", requirements=needs)], [(TENSORRT, CUDA)], WITH_GPU, backend="onnx", package="other")
    assert made.selected is None
    (rejection,) = made.rejected
    found = [(reason.check, reason.found) for reason in rejection.reasons]
    assert found == [
        ("package", "engine"),
        ("backend", "tensorrt"),
        ("system", "linux"),
        ("machine", "x86_64"),
        ("l4t", "not a Jetson"),
        ("gpu", "8.0"),
        ("gpu", "NVIDIA A100"),
        ("runtime", "2.0.0"),
    ]


def test_a_format_that_no_backend_opens():
    made = plan([package("paddle"), package("onnx")], [(ONNX, CPU)])
    assert chosen(made) == ("onnx", "onnx", "cpu", "fp32")
    assert made.rejected[0].backend is None
    assert reasons(made, "paddle")["backend"] == Reason(
        check="backend", required="a backend that opens 'paddle'", found="backends: onnx"
    )
    assert reasons(plan([package("paddle")], []), "paddle")["backend"].found == "backends: none"
    found = reasons(plan([package("tflite")], [(ONNX, CPU)]), "tflite")["backend"]
    assert found.fix == 'pip install "lensmount[litert]"'


def test_a_backend_that_is_not_installed_names_the_command():
    made = plan([package("onnx")], [(ONNX, BackendStatus(usable=False, reason="onnxruntime is not installed"))])
    assert reasons(made, "onnx")["backend"].fix == 'pip install "lensmount[onnx]"'
    assert len(reasons(made, "onnx")) == 1  # nothing is said of devices that an absent runtime does not have


def test_a_torch_package_needs_a_network():
    bare = dataclasses.replace(YOLO, network=None)
    assert reasons(plan(BOTH, [(TORCH, CPU)], architecture=bare), "torch")["network"].found == "yolo has none"
    assert reasons(plan(BOTH, [(TORCH, CPU)], architecture=None), "torch")["network"].found == "no such plugin"


def test_a_device_that_the_package_cannot_use():
    made = plan([ENGINE], [(TENSORRT, CUDA)], WITH_GPU, device="cpu")
    assert reasons(made, "engine")["device"] == Reason(check="device", required="cuda", found="cpu (asked for)")
    made = plan([ENGINE], [(TENSORRT, CPU)])
    assert reasons(made, "engine")["device"] == Reason(check="device", required="cuda", found="cpu")


@pytest.mark.parametrize(
    ("required", "found", "fits"),
    [
        ("10.3", "10.3.0", True),
        ("10.3", "10.4.0", False),
        (">=10,<11", "10.9.0.post1", True),
        ("==10.3.*", "10.3.1", True),
        ("~=10.3", "9.9", False),
        ("10.3", "10.3+cu12", True),
        ("10.3", None, False),
        ("r36", "r36", True),
        ("", "10", False),
    ],
)
def test_versions_of_runtimes(required, found, fits):
    status = dataclasses.replace(CUDA, version=found)
    needs = Requirements(runtime_version=required)
    made = plan([package("engine", requirements=needs)], [(TENSORRT, status)], WITH_GPU)
    assert (made.selected is not None) is fits


@pytest.mark.parametrize(
    ("required", "found", "fits"),
    [("36.4", "36.4.3", True), ("36.4", "36.4", True), ("36.4", "36.40.1", False), ("36.4", None, False)],
)
def test_releases_of_jetsons(required, found, fits):
    needs = Requirements(l4t=required)
    environment = Environment(machine="aarch64", l4t=found)
    assert (plan([package("onnx", requirements=needs)], [(ONNX, CPU)], environment).selected is not None) is fits


@pytest.mark.parametrize(
    ("required", "found", "fits"),
    [
        ("x86_64", "AMD64", True),
        ("aarch64", "arm64", True),
        ("arm64", "aarch64", True),
        ("x86_64", "x86_64", True),
        ("x86_64", "aarch64", False),
    ],
)
def test_processors_have_several_names(required, found, fits):
    needs = Requirements(machines=(required,))
    environment = Environment(machine=found)
    assert (plan([package("onnx", requirements=needs)], [(ONNX, CPU)], environment).selected is not None) is fits


def test_of_two_gpus_the_one_that_fits():
    environment = Environment(gpus=(A100, T4))
    status = dataclasses.replace(CUDA, devices=("cuda:0", "cuda:1", "cpu"))
    for_t4 = package("engine", requirements=Requirements(devices=("cuda",), compute_capability="7.5"))
    assert chosen(plan([for_t4], [(TENSORRT, status)], environment)) == ("engine", "tensorrt", "cuda:1", "fp32")
    assert chosen(plan([ENGINE], [(TENSORRT, status)], environment)) == ("engine", "tensorrt", "cuda:0", "fp32")
    made = plan([for_t4], [(TENSORRT, status)], environment, device="cuda:0")
    assert reasons(made, "engine")["gpu"].found == "8.0"


def test_a_gpu_that_is_not_used_does_not_count():
    needs = Requirements(compute_capability="8.0")
    made = plan([package("onnx", requirements=needs)], [(ONNX, CPU)], WITH_GPU)
    assert reasons(made, "onnx")["gpu"].found == "cpu"


# --- what a user reads ------------------------------------------------------------------------------------------------


def test_an_idle_gpu_is_pointed_out():
    made = plan(BOTH, [(ONNX, CPU)], WITH_GPU)
    assert "NVIDIA A100" in made.notes[0]
    assert "pip install" in made.notes[0]
    assert plan(BOTH, [(ONNX, CPU)], WITH_GPU, device="cpu").notes == ()


def test_the_table():
    made = plan([*BOTH, package("tflite")], [(ONNX, CPU), (TORCH, ABSENT)], WITH_GPU)
    lines = str(made).splitlines()
    assert lines[0] == "m (yolo, t)"
    assert lines[1].split() == ["package", "backend", "device", "precision", "verdict"]
    assert lines[2].split() == ["onnx", "onnx", "cpu", "fp32", "selected"]
    assert "rejected: backend: needs a usable torch backend; found not installed; fix: pip install" in lines[3]
    assert lines[4].split()[:2] == ["tflite", "-"]
    assert lines[5].startswith("note: this machine has a GPU")
    assert str(plan([], [])).splitlines()[0] == "m (yolo, t)"


def test_the_order_of_registration_does_not_matter():
    backends = [(ONNX, CUDA), (TORCH, CUDA), (TENSORRT, CUDA)]
    packages = [*BOTH, ENGINE, package("onnx-int8", precision="int8")]
    plans = {
        tuple(str(choice) for choice in plan(packages, order, WITH_GPU).choices)
        for order in itertools.permutations(backends)
    }
    assert len(plans) == 1


def test_equal_packages_keep_the_cards_order():
    made = plan([package("onnx-b"), package("onnx-a")], [(ONNX, CPU)])
    assert [c.package.name for c in made.choices] == ["onnx-b", "onnx-a"]


def test_a_kind_without_a_preference_is_only_for_who_asks():
    mac = BackendStatus(usable=True, devices=("cpu", "mps"), precisions=(("cpu", ("fp32",)), ("mps", ("fp32",))))
    assert chosen(plan([package("onnx")], [(ONNX, mac)])) == ("onnx", "onnx", "cpu", "fp32")
    assert chosen(plan([package("onnx")], [(ONNX, mac)], device="mps")) == ("onnx", "onnx", "mps", "fp32")
    both = [(ONNX, mac), (TORCH, mac)]
    assert chosen(plan([package("onnx"), package("torch")], both)) == ("torch", "torch", "mps", "fp32")


def test_of_a_backend_that_is_not_installed_the_rest_is_still_judged():
    fits = package("engine-80", requirements=Requirements(devices=("cuda",), compute_capability="8.0"))
    other = package("engine-75", requirements=Requirements(devices=("cuda",), compute_capability="7.5"))
    made = plan([fits, other], [(TENSORRT, ABSENT)], WITH_GPU)
    assert [reason.check for reason in made.rejected[0].reasons] == ["backend"]  # installing it would do
    assert reasons(made, "engine-75")["gpu"].found == "8.0"  # here it would not


def test_several_precisions_will_do():
    packages = [package("onnx-fp16", precision="fp16"), package("onnx-int8", precision="int8"), package("torch")]
    made = plan(packages, [(ONNX, CPU), (TORCH, CPU)], precision="bf16,fp16")
    assert [(c.package.name, c.precision) for c in made.choices] == [("onnx-fp16", "fp16"), ("torch", "bf16")]
    assert reasons(made, "onnx-int8")["precision"].required == "bf16 or fp16 (asked for)"


GRAPHS = dataclasses.replace(ONNX, formats=("onnx", "graph"))
BOTH_FORMS = dataclasses.replace(YOLO, graph="a:g")


def test_torch_weights_run_as_a_graph_where_torch_is_missing() -> None:
    plan = select(card(package("torch")), BOTH_FORMS, [(GRAPHS, CPU), (TORCH, ABSENT)], PLAIN, Request())
    assert plan.selected is not None and plan.selected.as_graph and plan.selected.backend is GRAPHS
    assert "selected, torch weights as an onnx graph" in str(plan)
    assert [r.backend for r in plan.rejected] == [TORCH]


def test_a_graph_of_torch_weights_computes_in_float32_alone() -> None:
    """Whatever is stored, and half precision is not taken for it unasked or asked."""
    stored = card(package("torch", precision="unknown"))
    plan = select(stored, BOTH_FORMS, [(GRAPHS, CPU)], PLAIN, Request())
    assert plan.selected is not None and plan.selected.precision == "fp32"
    assert select(stored, BOTH_FORMS, [(GRAPHS, CPU)], PLAIN, Request(precision="fp16")).selected is None


@pytest.mark.parametrize(
    ("architecture", "backend"), [(YOLO, GRAPHS), (BOTH_FORMS, ONNX), (None, GRAPHS)], ids=["none", "old", "unknown"]
)
def test_no_graph_is_promised_that_nobody_makes_or_takes(architecture, backend) -> None:
    plan = select(card(package("torch")), architecture, [(backend, CPU)], PLAIN, Request())
    assert plan.selected is None


def test_torch_itself_gets_its_network() -> None:
    plan = select(card(package("torch")), BOTH_FORMS, [(TORCH, CPU)], PLAIN, Request())
    assert plan.selected is not None and not plan.selected.as_graph
