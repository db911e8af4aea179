"""`lensmount doctor` on machines that we do not have, and on this one."""

from __future__ import annotations

import json

import pytest

from lensmount import registry
from lensmount.cli.diagnosis import diagnose
from lensmount.host.discovery import PluginStatus, given
from lensmount.machine.environment import Environment, Gpu
from lensmount.specs import Backend, BackendStatus
from machines import BACKEND_PLUGINS, MACHINES, backends_of, environment_of

BY_NAME = {facts["name"]: facts for facts in MACHINES}


def findings(environment, broken=()):
    return diagnose(environment, backends_of(environment), broken)


def found_on(name, folder):
    return findings(environment_of(BY_NAME[name], folder))


@pytest.mark.parametrize("facts", MACHINES, ids=lambda facts: facts["name"])
def test_what_is_wrong_on_each_machine(facts, tmp_path):
    found = findings(environment_of(facts, tmp_path))
    assert [finding.check + ("" if finding.serious else "?") for finding in found] == facts["wrong"]
    assert all(finding.problem and finding.fix for finding in found)


@pytest.fixture
def doctor_on(lensmount, tmp_path):
    """Runs the command on a machine of the table."""

    made = {}

    def run(name, *arguments):
        if name not in made:
            made[name] = environment_of(BY_NAME[name], tmp_path / name)
        made_registry = registry.Registry(lambda: [given(plugin) for plugin in BACKEND_PLUGINS], made[name])
        with registry.use(made_registry):
            return lensmount("doctor", *arguments)

    return run


@pytest.mark.parametrize("name", BY_NAME)
def test_the_command_on_each_machine(name, doctor_on):
    done = doctor_on(name)
    serious = [check for check in BY_NAME[name]["wrong"] if not check.endswith("?")]
    assert done.status == bool(serious)
    assert done.out.count("\nproblem ") + done.out.startswith("problem ") == len(serious)
    assert ("nothing is wrong" in done.out) is not bool(serious)
    report = json.loads(doctor_on(name, "--json").out)
    assert report["ok"] is not bool(serious)
    assert [f["check"] for f in report["findings"]] == [check.rstrip("?") for check in BY_NAME[name]["wrong"]]
    assert {"onnx", "torch"} <= {b["name"] for b in report["backends"]}
    assert report["environment"]["system"] == BY_NAME[name].get("system", "linux")


def test_what_the_command_says(doctor_on):
    said = doctor_on("t4-cpu-builds").out
    assert "cuda:0" in said
    assert "Tesla T4, compute capability 7.5, 16.11 GB" in said
    assert "570.172.08, runs CUDA up to 12.8" in said
    assert "problem torch: not on CUDA: the installed torch 2.13.0+cpu is a build without it" in said
    assert "fix install the build of torch that fits the GPU and its driver" in said
    assert "pip uninstall -y onnxruntime && pip install --force-reinstall" in said
    jetson = doctor_on("jetpack-6-common-wheels").out
    assert "JetPack 6.2 (L4T 36.4.3)" in jetson
    assert "NVIDIA's build of torch for JetPack 6.2" in jetson
    assert "pip install --force-reinstall" not in jetson  # the common wheels are the problem there
    assert "macOS 13.7.4" in doctor_on("mac-m1-old").out
    assert "python:3.12-slim" in doctor_on("alpine").out
    assert "32-bit" in doctor_on("raspberry-pi-32-bit").out


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("old-driver", ["needs a driver for CUDA 13.0, this one ends at 11.4", "install a newer NVIDIA driver"]),
        ("v100-cuda-13", ["which ended Tesla V100-SXM2-16GB (compute capability 7.0)", "for CUDA 12"]),
        ("b200-old-torch", ["NVIDIA B200 (compute capability 10.0)", "a newer CUDA"]),
        ("rtx-overlap", ["onnxruntime-gpu 1.31.1, onnxruntime 1.31.1", "pip install onnxruntime-gpu"]),
        ("rtx-leftover", ["--force-reinstall --no-deps onnxruntime-gpu"]),
        ("rtx-no-cudnn", ["pip install nvidia-cudnn-cu13"]),
        ("hidden-gpu", ["unset CUDA_VISIBLE_DEVICES"]),
        ("container-without-gpu", ["--gpus all"]),
        ("updated-driver", ["restart the machine"]),
    ],
)
def test_the_cause_and_its_remedy_are_named(name, words, tmp_path):
    said = "\n".join(f"{finding.problem}\n{finding.fix}" for finding in found_on(name, tmp_path))
    assert [word for word in words if word not in said] == []


def test_cudnn_of_the_wrong_generation():
    environment = Environment(
        gpus=(Gpu(compute_capability="8.0"),),
        cuda="12.8",
        cudnn="8.9.7",
        onnxruntime="onnxruntime-gpu",
        onnxruntime_cuda="12.8",
        packages=(("onnxruntime-gpu", "1.26.0"),),
    )
    (finding,) = findings(environment)
    assert (finding.check, finding.fix) == ("cudnn", "pip install nvidia-cudnn-cu12")
    assert "needs cuDNN 9; found 8.9.7" in finding.problem


def test_two_runtimes_of_two_cudas_are_a_note():
    environment = Environment(
        gpus=(Gpu(compute_capability="8.0"),),
        cuda="13.0",
        cudnn="9.10.2",
        onnxruntime="onnxruntime-gpu",
        onnxruntime_cuda="13.0",
        packages=(("onnxruntime-gpu", "1.31.1"), ("torch", "2.13.0+cu128")),
    )
    (finding,) = findings(environment)
    assert (finding.check, finding.serious) == ("cuda", False)
    assert "torch brings libraries of CUDA 12, onnxruntime-gpu needs those of CUDA 13" in finding.problem


def test_two_opencvs_are_a_note():
    environment = Environment(packages=(("opencv-python", "4"), ("opencv-python-headless", "4"), ("onnxruntime", "1")))
    (finding,) = findings(environment)
    assert (finding.check, finding.serious) == ("overlap", False)
    assert finding.fix.endswith("pip install opencv-python-headless")


def test_broken_plugins_and_backends_of_third_parties():
    plugin = PluginStatus(
        name="mine",
        distribution="lensmount-mine",
        version="1",
        state="broken",
        stage="load",
        error="no module",
        module="m",
    )
    environment = Environment(packages=(("onnxruntime", "1.31.1"),))
    (finding,) = findings(environment, [plugin])
    assert finding.problem == "plugin 'mine' was left out at load: no module"
    third = Backend(name="npu", formats=("onnx",), probe="a:b", opener="a:b", extra="lensmount-npu")
    (finding,) = diagnose(environment, [(third, BackendStatus(usable=False, reason="no chip"))])
    assert (finding.check, finding.fix) == ("backend", 'pip install "lensmount-npu"')
    assert [f.check for f in diagnose(environment, [])] == ["backend"]


def test_the_gravest_comes_first():
    environment = Environment(
        gpus_unseen="no-library", packages=(("opencv-python", "4"), ("opencv-python-headless", "4"))
    )
    assert [f.serious for f in findings(environment)] == [True, True, False]
