"""`export --precision int8`: from a model's float32 graph and a folder of pictures to a checked int8 graph."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import BackendError, InputError, OptionError, UnsupportedModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts import ExportRequest
    from lensmount.specs import Architecture, ModelCard, ModelPackage
    from lensmount_bench.int8_check import Agreement

TASKS = ("object-detection", "instance-segmentation")
#: Pictures that the ranges of activations are taken from, and most that both models are compared on.
CALIBRATION_COUNT, COMPARED = 128, 32


def export_int8(request: ExportRequest) -> Path:
    """Writes an int8 graph; the exporter of precision `int8`, see `lensmount.registry.Registry.export`.

    Raises:
        OptionError: The architecture does not say which nodes stay in float, or there are no calibration pictures.
        InputError: The calibration pictures cannot be used.
        UnsupportedModelError: The model has nothing to start from, or the file alone could not say what it is.
        MissingDependencyError: onnx or onnxruntime is not installed.
        BackendError: The int8 model finds other objects than the float model; nothing was kept.
    """
    from lensmount.specs.imports import import_string
    from lensmount.specs.options import positive
    from lensmount_bench.int8 import quantize
    from lensmount_bench.int8_check import compare, require_agreement
    from lensmount_vision.models.exporting import describe_graph, require_packages, write_checked

    card, found = request.card, request.architecture
    float_nodes = _float_nodes(card, found)
    given = request.settings.get("calibration_count")
    count = CALIBRATION_COUNT if given is None else positive("calibration_count", given)
    pictures = calibration_pictures(request.settings.get("calibration"))
    chosen, compared, held_out = choose_pictures(pictures, count)
    require_packages("onnx", "onnxruntime", fix='pip install "lensmount[int8]"')
    target = request.output or Path(f"{card.id.replace('/', '-')}-int8.onnx")
    with tempfile.TemporaryDirectory(prefix="lensmount-int8-") as folder:
        plain = not request.dynamic and request.batch == 1 and not request.graph_settings
        package = _float_package(card) if plain else None
        if package is not None:
            graph = _graph(package, request.fetch(package))
            exact = request.load(package=package.name, backend="onnx", device="cpu")
        else:
            if not any(p.format == "torch" for p in card.packages) or found.exporter is None:
                raise UnsupportedModelError(
                    f"{card.id!r} has nothing that int8 could be made from"
                    + ("" if _float_package(card) is None else " with these settings"),
                    found=f"packages: {', '.join(p.name for p in card.packages)}",
                    expected="torch weights and an exporter; or an fp32 graph, taken without further settings",
                )
            graph = request.graph(Path(folder, "float.onnx"))
            exact = _opened(request, graph)
        with exact:
            metadata = {**_metadata(graph), "lensmount.precision": "int8"}
            quantised = quantize(
                graph, _batches(exact, chosen), import_string(float_nodes, f"architecture {found.name!r}")
            )
            trial = Path(folder, "int8.onnx")
            trial.write_bytes(describe_graph(quantised, metadata))
            with _opened(request, trial) as small:
                _require_same(exact, small)
                figures: Agreement = compare(exact, small, compared, calibration=len(chosen), held_out=held_out)
        require_agreement(figures)
        final = describe_graph(quantised, {**metadata, **figures.to_metadata()})
        written = write_checked(final, target, lambda path: _opened(request, path).close())
    request.say(str(figures))
    return written


def _float_nodes(card: ModelCard, architecture: Architecture) -> str:
    if architecture.float_nodes is None or card.task not in TASKS:
        raise OptionError(
            f"{card.id!r} cannot be exported in int8",
            found=f"architecture {architecture.name!r}, task {card.task!r}",
            expected=f"an architecture that says which nodes stay in float; {' or '.join(TASKS)}",
            fix="--precision fp16 or fp32",
        )
    return architecture.float_nodes


def calibration_pictures(calibration: str | os.PathLike[str] | None) -> list[str]:
    """The pictures of the folder (or pattern), by name.

    Raises:
        OptionError: None was given.
        ImageError: There are no pictures.
        InputError: The folder does not exist.
    """
    from lensmount.errors import ImageError
    from lensmount_vision.images.sources import expand_sources, is_video

    if calibration is None:
        raise OptionError(
            "precision int8 needs pictures to calibrate with",
            found="no calibration",
            expected="a folder of some hundred pictures of what the model will see",
            fix="--calibration FOLDER",
        )
    text = os.fspath(calibration)
    if not Path(text).is_dir() and not glob.has_magic(text):
        raise InputError(
            f"the calibration folder {text} does not exist" if not Path(text).exists() else f"{text} is no folder",
            expected="a folder of pictures, or a pattern such as 'pictures/**/*.jpg'",
            fix="--calibration FOLDER",
        )
    pictures = [picture for picture in expand_sources(text) if not is_video(picture)]
    if not pictures:
        raise ImageError(f"{text} has no pictures to calibrate with", found="videos alone", fix="--calibration FOLDER")
    return pictures


def choose_pictures(pictures: Sequence[str], count: int) -> tuple[list[str], list[str], bool]:
    """Spread over the whole folder: pictures to calibrate with, pictures to compare on, whether these are others.

    Neighbours by name are often frames of one video; the first so many would show one scene.
    """
    chosen = _spread(pictures, count)
    taken = set(chosen)
    others = [picture for picture in pictures if picture not in taken]
    return chosen, _spread(others or chosen, COMPARED), bool(others)


def _spread(pictures: Sequence[str], count: int) -> list[str]:
    if len(pictures) <= count:
        return list(pictures)
    return [pictures[i * len(pictures) // count] for i in range(count)]


def _batches(model: Any, pictures: Iterable[str]) -> Iterator[NDArray[Any]]:
    """Through the model's own preparation; a static graph gets its batch filled with the one picture."""
    for picture in pictures:
        batch, _ = model.preprocess(picture)
        yield batch.repeat(model.batch.static or 1, 0)


def _float_package(card: ModelCard) -> ModelPackage | None:
    return next((p for p in card.packages if p.format == "onnx" and p.precision == "fp32" and _graphs(p) == 1), None)


def _graphs(package: ModelPackage) -> int:
    return sum(artifact.role == "graph" for artifact in package.artifacts)


def _graph(package: ModelPackage, files: Mapping[str, Path]) -> Path:
    return next(files[artifact.name] for artifact in package.artifacts if artifact.role == "graph")


def _metadata(graph: Path) -> dict[str, str]:
    from lensmount_reading import read_onnx

    return dict(read_onnx(graph).metadata)


def _opened(request: ExportRequest, path: Path) -> Any:
    """The graph as it loads for somebody who has the file alone."""
    return request.load(path, architecture=request.card.architecture, backend="onnx", device="cpu")


def _require_same(exact: Any, small: Any) -> None:
    """The file alone must say what the package said.

    Raises:
        UnsupportedModelError: Task, classes or geometry come from elsewhere than the graph.
        BackendError: What was written is no int8.
    """
    if small.precision != "int8":
        raise BackendError("the quantised graph does not compute in int8", found=small.precision, expected="int8")
    for what, mine, theirs in (
        ("task", exact.card.task, small.card.task),
        ("classes", exact.card.classes, small.card.classes),
        ("geometry", exact.preprocess_spec, small.preprocess_spec),
    ):
        if mine != theirs:
            raise UnsupportedModelError(
                f"{exact.card.id!r} cannot become one int8 file: its {what} would be lost",
                found=str(theirs)[:200],
                expected=str(mine)[:200],
                fix="start from weights or a graph that say so themselves",
            )
