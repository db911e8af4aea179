"""docs/selection.md says what the code chooses: its tables are made here, on the machines of tests/support.

`LENSMOUNT_UPDATE_DOCS=1 pytest tests/docs/test_selection_page.py` writes them anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lensmount.contracts.plan import LoadPlan, Request
from lensmount.host.selection import select
from lensmount.machine.environment import Environment
from lensmount.specs import Architecture, Artifact, ModelCard, ModelPackage, Requirements
from machines import MACHINES, backends_of, environment_of

PAGE = Path(__file__).resolve().parents[2] / "docs/selection.md"
MARK = "<!-- what follows is written by tests/docs/test_selection_page.py -->\n"


def package(name: str, precision: str = "fp32", **needs: object) -> ModelPackage:
    return ModelPackage(
        name=name,
        format=name.split("-")[0],
        precision=precision,
        artifacts=(Artifact(name="weights", uri="https://example.org/weights"),),
        requirements=Requirements(**needs),  # type: ignore[arg-type]  # given by name below
    )


def engine(gpu: str, **needs: object) -> ModelPackage:
    return package(f"engine-{gpu}-fp16", "fp16", devices=("cuda",), systems=("linux",), **needs)


MODELS = {
    "a YOLO": (package("onnx-fp32"), package("torch-fp32")),
    "an RF-DETR": (package("onnx-fp32"), package("torch-fp32")),
    "a detector with engines": (
        engine("a100", compute_capability="8.0", runtime_version="==10.13.3.9"),
        engine("t4", compute_capability="7.5", runtime_version=">=10.9"),  # made to run on later versions too
        engine("4090", compute_capability="8.9", gpu_name="NVIDIA GeForce RTX 4090", runtime_version="==10.9.0.34"),
        engine("orin", compute_capability="8.7", machines=("aarch64",), l4t="36.4", runtime_version="==10.3.0"),
        package("onnx-fp32"),
    ),
    "a SAM 2": (package("torch-fp32"),),
    "a quantised detector": (package("onnx-int8", "int8"), package("torch-fp32")),
}
ARCHITECTURE = Architecture(name="any", tasks=("object-detection",), factory="a:b", network="a:n")


def plan_of(packages: tuple[ModelPackage, ...], environment: Environment) -> LoadPlan:
    card = ModelCard(id="model", architecture="any", task="object-detection", packages=packages)
    return select(card, ARCHITECTURE, backends_of(environment), environment, Request())


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def overview(plans: dict[str, dict[str, LoadPlan]], titles: dict[str, str]) -> list[str]:
    lines = [f"| machine | {' | '.join(MODELS)} |", f"|---|{'---|' * len(MODELS)}"]
    for name, by_model in plans.items():
        cells = []
        for plan in by_model.values():
            chosen = plan.selected
            if chosen is None:
                cells.append("–")
                continue
            idle = " *" if plan.notes else ""
            cells.append(f"`{chosen.package.name}` on {chosen.backend.name}, {chosen.device}, {chosen.precision}{idle}")
        lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
    return lines


def details(plans: dict[str, LoadPlan]) -> list[str]:
    lines = ["| model | package | backend | outcome |", "|---|---|---|---|"]
    for model, plan in plans.items():
        for i, choice in enumerate(plan.choices):
            said = "**selected**" if i == 0 else "also usable"
            outcome = f"{said}: {choice.device}, {choice.precision}"
            lines.append(f"| {model} | `{choice.package.name}` | {choice.backend.name} | {outcome} |")
        for rejection in plan.rejected:
            why = "; ".join(f"{r.check}: needs {r.required}, found {r.found}" for r in rejection.reasons)
            backend = rejection.backend.name if rejection.backend else "–"
            lines.append(f"| {model} | `{rejection.package.name}` | {backend} | {cell(why)} |")
    return lines


def facts_of(environment: Environment) -> str:
    words = [environment.release or environment.system, environment.machine]
    words += [f"{gpu.name} ({gpu.compute_capability})" for gpu in environment.gpus]
    words += [f"driver for CUDA {environment.cuda}"] if environment.cuda else []
    words += [f"TensorRT {environment.tensorrt}"] if environment.tensorrt else []
    words += [f"JetPack {environment.jetpack}"] if environment.jetpack else []
    runtimes = [f"{name} {version}" for name, version in environment.packages if name.startswith(("onnxr", "torch"))]
    return ", ".join([*words, *(runtimes or ["no runtime"])])


def written(folder: Path) -> str:
    """The tables."""
    environments = {facts["name"]: environment_of(facts, folder / facts["name"]) for facts in MACHINES}
    titles = {facts["name"]: facts["title"] for facts in MACHINES}
    plans = {
        name: {model: plan_of(packages, environment) for model, packages in MODELS.items()}
        for name, environment in environments.items()
    }
    lines = ["", "## What is selected", "", *overview(plans, titles), ""]
    lines += ["\\* with the note that the machine's GPU stays unused. – nothing can run.", "", "## Why", ""]
    for name, by_model in plans.items():
        lines += [f"### {titles[name]}", "", facts_of(environments[name]), "", *details(by_model), ""]
    return "\n".join(lines)


def test_the_tables_are_those_of_the_code(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    words, mark, tables = page.partition(MARK)
    assert mark, "the page has lost its mark"
    fresh = written(tmp_path)
    if os.environ.get("LENSMOUNT_UPDATE_DOCS") == "1":
        PAGE.write_text(words + mark + fresh, encoding="utf-8")
        return
    assert tables.splitlines() == fresh.splitlines(), "LENSMOUNT_UPDATE_DOCS=1 writes the page anew"


@pytest.mark.parametrize(
    ("machine", "model", "selected"),
    [
        # Written by hand from the rules, so that the page is not only compared with itself.
        ("server-cpu", "a YOLO", "onnx-fp32 on onnx, cpu, fp32"),
        ("server-onnx-only", "a SAM 2", None),
        ("server-onnx-only", "a quantised detector", "onnx-int8 on onnx, cpu, int8"),
        ("server-cpu", "a quantised detector", "torch-fp32 on torch, cpu, fp32"),
        ("a100", "a YOLO", "torch-fp32 on torch, cuda:0, fp32"),
        ("a100", "a detector with engines", "engine-a100-fp16 on tensorrt, cuda:0, fp16"),
        ("h200", "a detector with engines", "onnx-fp32 on onnx, cuda:0, fp32"),
        ("t4", "a detector with engines", "onnx-fp32 on onnx, cuda:0, fp32"),
        ("t4-cpu-builds", "a YOLO", "onnx-fp32 on onnx, cpu, fp32"),
        ("rtx-4090", "a detector with engines", "engine-4090-fp16 on tensorrt, cuda:0, fp16"),
        ("rtx-leftover", "a YOLO", None),
        ("old-driver", "an RF-DETR", "onnx-fp32 on onnx, cpu, fp32"),
        ("v100-cuda-13", "a YOLO", "onnx-fp32 on onnx, cpu, fp32"),
        ("a100-and-t4", "a detector with engines", "engine-a100-fp16 on tensorrt, cuda:0, fp16"),
        ("hidden-gpu", "a YOLO", "onnx-fp32 on onnx, cpu, fp32"),
        ("jetpack-5", "a detector with engines", "onnx-fp32 on onnx, cuda:0, fp32"),
        ("jetpack-6", "a detector with engines", "engine-orin-fp16 on tensorrt, cuda:0, fp16"),
        ("jetpack-6", "a YOLO", "torch-fp32 on torch, cuda:0, fp32"),
        ("jetpack-7", "a SAM 2", "torch-fp32 on torch, cuda:0, fp32"),
        ("mac-m2", "an RF-DETR", "torch-fp32 on torch, mps, fp32"),
        ("mac-m1-old", "an RF-DETR", "onnx-fp32 on onnx, cpu, fp32"),
        ("raspberry-pi", "a YOLO", "onnx-fp32 on onnx, cpu, fp32"),
        ("alpine", "a YOLO", None),
        ("windows-rtx", "a YOLO", "torch-fp32 on torch, cuda:0, fp32"),
    ],
)
def test_what_the_rules_say(machine: str, model: str, selected: str | None, tmp_path: Path) -> None:
    facts = next(facts for facts in MACHINES if facts["name"] == machine)
    chosen = plan_of(MODELS[model], environment_of(facts, tmp_path)).selected
    assert (None if chosen is None else str(chosen)) == selected


def test_every_machine_and_every_reason_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [title for title in (facts["title"] for facts in MACHINES) if f"### {title}\n" not in page] == []
    assert "found " in page
