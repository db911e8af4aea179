"""`export --to triton`: a model repository of a model's graphs."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lensmount.errors import OptionError, UnsupportedModelError
from lensmount.specs import ModelPackage
from lensmount.specs.options import positive
from lensmount_reading import inspect_graph
from lensmount_triton.backend import MAX_BATCH, specs
from lensmount_triton.config import batches, config_text, plan_text
from lensmount_triton.digest import digest

if TYPE_CHECKING:
    from lensmount.contracts import ExportRequest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export(request: ExportRequest) -> Path:
    """Writes a model repository; the exporter of target `triton`, see `lensmount.registry.Registry.export`.

    Graphs that the model has are taken as they are; else the architecture's own export makes one in float32. TensorRT
    engines become `model.plan`.

    Returns:
        The repository's folder, in which every model is a folder of its own.

    Raises:
        OptionError: A setting is not valid, or the folder already holds a model of that name.
        UnsupportedModelError: The model has nothing that Triton runs in this precision.
    """
    card, settings = request.card, request.settings
    name = settings.get("model_name") or re.sub(r"[^A-Za-z0-9._-]", "-", card.id)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(
            "model_name is not valid",
            found=repr(name),
            expected="letters, digits, '.', '_' and '-'",
            fix="another name",
        )
    most = settings.get("max_batch_size")
    most = MAX_BATCH if most is None else positive("max_batch_size", most)
    delay = settings.get("max_queue_delay_us")
    delay = 0 if delay in (None, 0) else positive("max_queue_delay_us", delay)
    repository = request.output or Path("model_repository")
    with tempfile.TemporaryDirectory(prefix="lensmount-triton-") as made:
        package, files = _files(request, Path(made))
        graphs = [a for a in package.artifacts if a.role == "graph"]
        written = []
        for artifact in graphs:
            stem = Path(artifact.name).stem
            model = name if len(graphs) == 1 else f"{name}-{stem}"
            written.append(_model(repository, model, package, files, files[artifact.name], (most, delay)))
    request.say(f"wrote {', '.join(written)}: tritonserver --model-repository {repository}")
    return repository


def _files(request: ExportRequest, folder: Path) -> tuple[ModelPackage, Mapping[str, Path]]:
    """A package that Triton can run, and its files."""
    plain = request.batch == 1 and not request.graph_settings
    for wanted in ("onnx", "engine"):
        for package in request.card.packages:
            if plain and package.format == wanted and package.precision == request.precision:
                return package, request.fetch(package)
    if request.precision != "fp32" or request.architecture.exporter is None:
        raise UnsupportedModelError(
            f"{request.card.id!r} has nothing that Triton runs in {request.precision}",
            found=", ".join(f"{p.name} ({p.format}, {p.precision})" for p in request.card.packages),
            expected="an ONNX graph or a TensorRT engine in that precision, or weights that can be exported in fp32",
            fix=f"write the graph first: lensmount export {request.card.id} --precision {request.precision}",
        )
    made = request.graph(folder / "model.onnx")
    if made.is_dir():
        paths = {str(path.relative_to(made)): path for path in sorted(made.rglob("*")) if path.is_file()}
    else:
        paths = {path.name: path for path in sorted(made.parent.iterdir()) if path.is_file()}
    from lensmount.specs import Artifact

    artifacts = tuple(
        Artifact(name=name, uri=path.absolute().as_uri(), role="graph" if name.endswith(".onnx") else "data")
        for name, path in paths.items()
    )
    return ModelPackage(name="exported", format="onnx", artifacts=artifacts), paths


def _model(
    repository: Path,
    name: str,
    package: ModelPackage,
    files: Mapping[str, Path],
    path: Path,
    batching: tuple[int, int],
) -> str:
    """Writes one model; it appears whole, by a rename."""
    target = repository / name
    if target.exists():
        raise OptionError(
            f"{target} is there already",
            expected="a name that the repository does not have",
            fix="remove it, or give model_name",
        )
    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=repository) as made:
        folder = Path(made, "model")
        (folder / "1").mkdir(parents=True)
        if package.format == "engine":
            shutil.copyfile(path, folder / "1" / "model.plan")
            text = plan_text(name, digest(path))
        else:
            graph = inspect_graph(path, package)
            inputs, outputs = specs(graph.facts.inputs, path.name), specs(graph.facts.outputs, path.name)
            shutil.copyfile(path, folder / "1" / "model.onnx")
            for inside, real in graph.data:
                place = folder / "1" / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(real, place)
            text = config_text(
                name,
                inputs,
                outputs,
                sha256=digest(path, graph.data),
                max_batch_size=batching[0] if batches(inputs, outputs) else 0,
                max_queue_delay_us=batching[1],
            )
        (folder / "config.pbtxt").write_text(text, encoding="ascii")
        folder.rename(target)
    return name
