"""`few-shot`: find what a few example boxes show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from lensmount.cli.settings import BackendName, DeviceName, ModelName, Offline, PrecisionName, Refresh, Threads
from lensmount.errors import InputError, UnsupportedModelError
from lensmount_vision.cli.options import (
    CocoFile,
    Confidence,
    MaxDetections,
    MaxFrames,
    ResultsFile,
    SaveFolder,
    SourceNames,
)

_MAX_BYTES = 64 << 20


def few_shot(
    model: ModelName,
    source: SourceNames,
    reference: Annotated[Path, typer.Option("--reference", "-r", help="JSON file of example boxes.")],
    save: SaveFolder = None,
    json_file: ResultsFile = None,
    coco: CocoFile = None,
    save_detector: Annotated[
        Path | None, typer.Option("--save-detector", help="Folder for the detector, for later use with predict.")
    ] = None,
    confidence: Confidence = None,
    iou: Annotated[float | None, typer.Option(help="Overlap that matches a reference, and that suppresses.")] = None,
    max_detections: MaxDetections = None,
    on_unmatched: Annotated[
        str, typer.Option(help="A reference box that matches nothing: warn, nearest or error.")
    ] = "warn",
    backend: BackendName = None,
    device: DeviceName = None,
    precision: PrecisionName = None,
    threads: Threads = None,
    max_frames: MaxFrames = None,
    offline: Offline = False,
    refresh: Refresh = False,
) -> None:
    """Find what example boxes show; the reference file is [{"image": path, "boxes": [{x, y, w, h, cls, negative}]}].

    Boxes are given by their centre and size in pixels; paths are relative to the file.
    """
    from lensmount import registry
    from lensmount_vision.cli.predict import run
    from lensmount_vision.cli.sinks import Sinks
    from lensmount_vision.models.entries import entries_of
    from lensmount_vision.models.streaming import stream

    if json_file == "-" and coco == "-":
        raise InputError("--json - and --coco - both want standard output", fix="write one of them to a file")
    training_data = read_references(reference)
    entries_of(source)  # bad sources are refused before weights are fetched
    given = {"confidence": confidence, "iou_threshold": iou, "max_detections": max_detections}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    extra: dict[str, Any] = {} if threads is None else {"threads": threads}
    with registry.load(
        model,
        backend=backend,
        device=device,
        precision=precision,
        offline=offline or None,
        refresh=refresh,
        **extra,
    ) as loaded:
        if not hasattr(loaded, "fit"):
            raise UnsupportedModelError(
                f"{loaded.card.id!r} does not learn from example boxes",
                found=f"a model for {loaded.card.task}",
                fix="lensmount models --task open-vocabulary-detection",
            )
        detector = loaded.fit(training_data, on_unmatched=on_unmatched, **options)
        if save_detector is not None:
            detector.save(save_detector)
        sinks = Sinks(detector, save=save, json_file=json_file, coco=coco)
        run(stream(detector, source, max_frames=max_frames), sinks)


def read_references(path: Path) -> list[dict[str, Any]]:
    """Training data of a JSON file; relative paths of pictures are taken from its folder.

    Raises:
        InputError: The file cannot be read, is not JSON, or is no list of pictures.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        document = json.loads(content) if len(content) <= _MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read", found=str(error)[:200], expected="JSON") from error
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise InputError(
            f"{path} is not a list of reference pictures",
            found=type(document).__name__,
            expected='[{"image": "a.jpg", "boxes": [{"x": 1, "y": 1, "w": 1, "h": 1, "cls": "a"}]}]',
        )
    return [{**item, "image": _located(item["image"], path.parent)} if "image" in item else item for item in document]


def _located(image: Any, folder: Path) -> Any:
    if isinstance(image, Mapping) and image.get("type") == "file":
        image = image.get("value")
    if not isinstance(image, str) or "://" in image or image.startswith("data:"):
        return image
    return str(folder / image)
