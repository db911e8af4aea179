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

    from lensmount.contracts.finder import FetchOptions
    from lensmount.host.registry_class import Name, Registry
    from lensmount.specs import Architecture, ModelCard, ModelPackage
    from lensmount_bench.int8_check import Agreement

TASKS = ("object-detection", "instance-segmentation")
#: Pictures that the ranges of activations are taken from, and most that both models are compared on.
CALIBRATION_COUNT, COMPARED = 128, 32


def export_int8(
    host: Registry,
    name: Name,
    card: ModelCard,
    *,
    fetch: FetchOptions,
    output: str | os.PathLike[str] | None,
    calibration: str | os.PathLike[str] | None,
    calibration_count: int | None,
    architecture: str | None,
    offline: bool | None,
    dynamic: bool,
    batch: int,
    settings: Mapping[str, Any],
) -> Path:
    """Writes an int8 graph; see `lensmount.host.exporting.export`."""
    from lensmount.host.opening import export_model, fetch_files
    from lensmount.specs.imports import import_string
    from lensmount.specs.options import positive
    from lensmount_bench.int8 import quantize
    from lensmount_bench.int8_check import compare, require_agreement
    from lensmount_vision.models.exporting import describe_graph, keep, require

    found = host.architecture_of(card)
    float_nodes = _float_nodes(card, found)
    count = CALIBRATION_COUNT if calibration_count is None else positive("calibration_count", calibration_count)
    chosen, compared, held_out = choose_pictures(calibration_pictures(calibration), count)
    require("onnx", "onnxruntime", fix='pip install "lensmount[int8]"')
    target = Path(output) if output is not None else Path(f"{card.id.replace('/', '-')}-int8.onnx")
    with tempfile.TemporaryDirectory(prefix="lensmount-int8-") as folder:
        package = _float_package(card) if not dynamic and batch == 1 and not settings else None
        if package is not None:
            graph = _graph(package, fetch_files(card, [package], host.index, fetch)[package.name].files)
            exact = host.load(
                name, architecture=architecture, package=package.name, backend="onnx", device="cpu", offline=offline
            )
        else:
            if not any(p.format == "torch" for p in card.packages) or found.exporter is None:
                raise UnsupportedModelError(
                    f"{card.id!r} has nothing that int8 could be made from"
                    + ("" if _float_package(card) is None else " with these settings"),
                    found=f"packages: {', '.join(p.name for p in card.packages)}",
                    expected="torch weights and an exporter; or an fp32 graph, taken without further settings",
                )
            graph = export_model(
                card,
                found,
                host.index,
                fetch=fetch,
                target="onnx",
                output=Path(folder, "float.onnx"),
                precision="fp32",
                dynamic=dynamic,
                batch=batch,
                settings=settings,
            )
            exact = host.load(graph, architecture=card.architecture, backend="onnx", device="cpu", offline=offline)
        with exact:
            metadata = {**_metadata(graph), "lensmount.precision": "int8"}
            quantised = quantize(
                graph, _batches(exact, chosen), import_string(float_nodes, f"architecture {found.name!r}")
            )
            trial = Path(folder, "int8.onnx")
            trial.write_bytes(describe_graph(quantised, metadata))
            with _opened(host, trial, card, offline) as small:
                _require_same(exact, small)
                figures: Agreement = compare(exact, small, compared, calibration=len(chosen), held_out=held_out)
        require_agreement(figures)
        final = describe_graph(quantised, {**metadata, **figures.to_metadata()})
        return keep(final, target, lambda path: _opened(host, path, card, offline).close())


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


def _opened(host: Registry, path: Path, card: ModelCard, offline: bool | None) -> Any:
    """The graph as a user who has only the file loads it."""
    return host.load(path, architecture=card.architecture, backend="onnx", device="cpu", offline=offline)


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
