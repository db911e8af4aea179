"""How right a model is where the truth is known: COCO's average precision, accuracy, tracks, and what is confused.

    from lensmount_bench import accuracy as evaluation
    print(evaluation.evaluate("yolov8n-640", "val2017", "instances_val2017.json", backends=["onnx", "torch"]))

Average precision is computed by faster-coco-eval (`pip install "lensmount[eval]"`), whose numbers are pycocotools'.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import InputError, LensmountError, MissingDependencyError, OptionError
from lensmount_bench.accuracy_report import EvalReport, EvalRow
from lensmount_bench.confusion import Confusion
from lensmount_bench.tracks import CONFIDENCE, evaluate_tracks, read_tracks
from lensmount_bench.truth import CocoData, map_classes, read_coco, read_folders
from lensmount_vision.models.streaming import FrameInfo, stream

if TYPE_CHECKING:
    from lensmount_vision.results.kinds import Classification

__all__ = ["EvalReport", "EvalRow", "evaluate"]

LOW_CONFIDENCE = 0.001
"""Average precision is the area below a curve over all scores: a high threshold would cut it off."""
CONFUSION_CONFIDENCE = 0.25
TASKS = ("object-detection", "instance-segmentation", "classification", "tracking")

Progress = Callable[[str, int, int], None]


def evaluate(
    model: Any,
    images: str | os.PathLike[str],
    annotations: str | os.PathLike[str] | None = None,
    *,
    task: str | None = None,
    backends: Sequence[str | None] = (None,),
    precisions: Sequence[str | None] = (None,),
    device: str | None = None,
    confidence: float | None = None,
    limit: int | None = None,
    renamed: Mapping[str, str] | None = None,
    tracker: Any = None,
    load: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> EvalReport:
    """Measures a model on pictures with known truth, in every combination of backends and precisions.

    Args:
        model: Model id, path or address, or a loaded model (then without `backends` and `precisions`).
        images: Folder that the annotations' file names are relative to; for classification without annotations a
            folder with one folder of pictures per class; for tracking a video, or a folder of its frames.
        annotations: COCO's JSON with boxes, and outlines where masks are to be judged; None for classification. For
            tracking a text file in the MOTChallenge's form (`lensmount_bench.tracks.read_tracks`).
        task: `object-detection`, `instance-segmentation`, `classification` or `tracking`; None for the model's own. A
            model of instance segmentation may be judged by its boxes alone. For embedding models `classification` is
            zero-shot, with the folders' names as labels.
        backends: Backends to measure; None is lensmount's own choice.
        precisions: Precisions; None is the model's own.
        device: Device of all.
        confidence: Lowest score of detections that count; None for 0.001, and for 0.25 where they are tracked.
        limit: Only the first so many pictures.
        renamed: Name of the model's class to the annotations' name, where they differ. Classes are matched by name,
            never by number.
        tracker: For tracking, as in `lensmount_vision.models.stream`; None for `"bytetrack"`.
        load: Further options of `registry.load`.
        progress: Called with what is done, how many pictures are done, and how many there are.
        **options: Call options of the model (`iou_threshold`, `max_detections` …).

    Returns:
        One row per combination, with classes by name and what is confused; `print` shows it.

    Raises:
        InputError: Annotations or pictures cannot be used, or no class is common to model and truth.
        MissingDependencyError: faster-coco-eval, or for tracking the package trackers, is not installed.
    """
    if task not in (None, *TASKS):
        raise OptionError("there is no evaluation of this task", found=repr(task), expected=", ".join(TASKS))
    if task != "tracking" and tracker is not None:
        raise OptionError("a tracker is for tracking", found=f"task {task}", fix='task="tracking"')
    if task == "tracking" and renamed:
        raise OptionError("tracks are compared without their classes", found="renamed", fix="leave it out")
    if task == "tracking" and annotations is None:
        raise InputError("tracking is judged by known tracks", fix="--annotations gt.txt (the MOTChallenge's form)")
    tracks = read_tracks(annotations) if task == "tracking" and annotations is not None else None
    if annotations is not None and tracks is None:
        _import_evaluator()
    data = None if annotations is None or tracks is not None else read_coco(annotations, images, limit)
    lowest = confidence if confidence is not None else (LOW_CONFIDENCE if tracks is None else CONFIDENCE)
    rows = []
    for label, opened in _models(model, backends, precisions, {"device": device, **(load or {})}):
        if isinstance(opened, LensmountError):
            rows.append(EvalRow(label=label, error=opened.details))
            continue
        wanted = task or opened.card.task
        tell: Progress = progress or (lambda text, done, total: None)
        if tracks is not None:
            row = evaluate_tracks(
                opened,
                images,
                tracks,
                tracker=tracker or "bytetrack",
                limit=limit,
                label=label,
                tell=tell,
                options={**options, "confidence": lowest},
            )
        elif data is None:
            row = _classify(opened, images, limit, renamed, label, tell, options)
        else:
            row = _detect(opened, data, wanted, lowest, renamed, label, tell, options)
        row.effective = {name: getattr(opened, name) for name in ("backend", "device", "precision")}
        rows.append(row)
    if all(row.error is not None for row in rows):
        raise InputError("nothing could be evaluated", found="\n".join(f"{row.label}: {row.error}" for row in rows))
    return EvalReport(tuple(rows), str(annotations or images))


def _models(
    model: Any, backends: Sequence[str | None], precisions: Sequence[str | None], load: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Label and opened model, or the reason why not, one at a time."""
    if not isinstance(model, (str, os.PathLike)):
        yield str(getattr(getattr(model, "card", None), "id", "model")), model
        return
    from lensmount import registry

    extra = {name: value for name, value in load.items() if value is not None}
    for backend, precision in product(backends, precisions):
        label = " ".join(word for word in (backend, precision) if word) or Path(model).name
        with ExitStack() as stack:
            try:
                opened = stack.enter_context(registry.load(model, backend=backend, precision=precision, **extra))
            except LensmountError as error:
                if len(backends) * len(precisions) == 1:
                    raise
                yield label, error
                continue
            yield label, opened


def _run(
    model: Any, paths: Sequence[Path], label: str, tell: Progress, options: Mapping[str, Any]
) -> Iterator[tuple[FrameInfo, Any]]:
    """One result for each path, with its place among them as `index`."""
    with stream(model, list(paths), **options) as running:
        place = 0
        for info, result in running:
            if info.frame:  # a further picture of an animation or of a TIFF: what is annotated is the first
                continue
            yield replace(info, index=place), result
            place += 1
            tell(label, place, len(paths))


# --- boxes and masks --------------------------------------------------------------------------------------------------


def _detect(
    model: Any,
    data: CocoData,
    task: str,
    confidence: float,
    renamed: Mapping[str, str] | None,
    label: str,
    tell: Progress,
    options: Mapping[str, Any],
) -> EvalRow:
    if task not in ("object-detection", "instance-segmentation"):
        raise InputError(
            "annotations with boxes do not fit this model", found=f"task {task}", expected="detection or segmentation"
        )
    masks = task == "instance-segmentation"
    if masks and not data.has_masks:
        fix = "--task object-detection judges the boxes alone"
        raise InputError("the annotations have no outlines to judge masks by", fix=fix)
    names = tuple(model.card.classes)
    categories = map_classes(names, data.names, renamed)
    order = list(data.names)
    confusion = Confusion([data.names[key] for key in order])
    truth = _truth(data, order)
    found: list[dict[str, Any]] = []
    row = EvalRow(label=label, images=len(data.paths))
    start = time.perf_counter()
    for info, result in _run(model, data.paths, label, tell, {**options, "confidence": confidence}):
        if info.error is not None:
            row.failed.append(f"{info.source}: {info.error.problem}")
            continue
        image = data.content["images"][info.index]
        if "width" in image and (image["height"], image["width"]) != result.image_size:
            row.warnings.append(f"{info.source} has another size than its annotations say (turned by EXIF?)")
        result = result[np.isin(result.class_id, list(categories))]
        found += [
            {key: entry[key] for key in ("image_id", "category_id", "bbox", "score", "segmentation") if key in entry}
            for entry in result.to_coco(image_id=image["id"], category_ids=categories)
        ]
        sure = result[result.confidence >= CONFUSION_CONFIDENCE]
        predicted = np.array([order.index(categories[int(i)]) for i in sure.class_id], np.int64)
        confusion.add(*truth[image["id"]], sure.xyxy, predicted)
    row.seconds = time.perf_counter() - start
    row.boxes, row.classes = _average_precision(data, found, "bbox")
    if masks:
        row.masks, row.mask_classes = _average_precision(data, found, "segm")
    row.confusion = confusion
    unknown = [name for i, name in enumerate(names) if i not in categories]
    never = [data.names[key] for key in order if key not in categories.values()]
    if unknown:
        row.warnings.append(f"{len(unknown)} classes of the model are not annotated: {', '.join(unknown[:6])}")
    if never:
        row.warnings.append(f"{len(never)} annotated classes are unknown to the model: {', '.join(never[:6])}")
    return row


def _truth(data: CocoData, order: Sequence[int]) -> dict[Any, tuple[Any, Any]]:
    """Boxes `(T, 4)` xyxy and places of the classes, by picture; crowds left out."""
    lists: dict[Any, list[list[float]]] = {image_id: [] for image_id in data.image_ids}
    for annotation in data.content["annotations"]:
        if not annotation["iscrowd"]:
            x, y, width, height = annotation["bbox"]
            place = order.index(annotation["category_id"])
            lists[annotation["image_id"]].append([x, y, x + width, y + height, place])
    arrays = {key: np.array(rows, np.float32).reshape(-1, 5) for key, rows in lists.items()}
    return {key: (array[:, :4], array[:, 4].astype(np.int64)) for key, array in arrays.items()}


def _import_evaluator() -> Any:
    try:
        import faster_coco_eval
    except ImportError as error:
        raise MissingDependencyError(
            "average precision needs faster-coco-eval", found=str(error), fix='pip install "lensmount[eval]"'
        ) from error
    return faster_coco_eval


def _average_precision(
    data: CocoData, found: list[dict[str, Any]], kind: str
) -> tuple[dict[str, float], dict[str, float]]:
    """COCO's twelve numbers, and AP by class; -1 in COCO's numbers (nothing to judge) becomes NaN."""
    evaluator = _import_evaluator()
    truth = evaluator.COCO(data.content, use_deepcopy=True)
    wanted = [{k: v for k, v in entry.items() if k != "segmentation" or kind == "segm"} for entry in found]
    run = evaluator.COCOeval_faster(truth, truth.loadRes(wanted), kind)
    run.params.imgIds = data.image_ids
    run.evaluate()
    run.accumulate()
    run.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    numbers = {name: float(v) if v > -1 else float("nan") for name, v in zip(names, run.stats, strict=False)}
    precision = np.asarray(run.eval["precision"])[:, :, :, 0, -1]  # all areas, most detections
    classes = {}
    for place, category in enumerate(run.params.catIds):
        values = precision[:, :, place]
        values = values[values > -1]
        classes[data.names[category]] = float(values.mean()) if values.size else float("nan")
    return numbers, classes


# --- classification ---------------------------------------------------------------------------------------------------


class _ZeroShot:
    """An embedding model as a classifier: which label's text is nearest to the picture."""

    def __init__(self, model: Any, labels: Sequence[str]) -> None:
        self._model = model
        self._labels = tuple(labels)
        self._words = model.embed_labels(list(labels))
        self.device = model.device
        self.batch = getattr(model, "batch", None)

    def __call__(self, images: Any) -> list[Classification]:
        from lensmount_vision.results.kinds import Classification

        rows = self._model.compare(self._model.embed_images(images), self._words).probabilities
        return [
            Classification(probabilities=row, class_names=self._labels, image_size=image.size, path=image.path)
            for row, image in zip(rows, images, strict=True)
        ]


def _classify(
    model: Any,
    images: str | os.PathLike[str],
    limit: int | None,
    renamed: Mapping[str, str] | None,
    label: str,
    tell: Progress,
    options: Mapping[str, Any],
) -> EvalRow:
    zero_shot = hasattr(model, "embed_labels")
    if not zero_shot and model.card.task != "classification":
        raise InputError(
            f"{model.card.id!r} is judged by annotations",
            found=f"task {model.card.task}",
            fix="--annotations FILE.json",
        )
    paths, truth, names = read_folders(images, limit)
    runner = _ZeroShot(model, names) if zero_shot else model
    places = map_classes(names if zero_shot else model.card.classes, names, None if zero_shot else renamed)
    row = EvalRow(label=label, images=len(paths))
    confusion = row.confusion = Confusion(names)
    right = {1: 0, 5: 0}
    start = time.perf_counter()
    for info, result in _run(runner, paths, label, tell, options):
        if info.error is not None:
            row.failed.append(f"{info.source}: {info.error.problem}")
            continue
        true = names.index(truth[info.index])
        best = [places.get(class_id, -1) for class_id, _, _ in result.top(5)]
        for k in right:
            right[k] += true in best[:k]
        confusion.add_labels(true, best[0])
    row.seconds = time.perf_counter() - start
    judged = max(1, len(paths) - len(row.failed))
    row.accuracy = {f"top-{k}": count / judged for k, count in right.items()}
    table = confusion.counts
    totals = table.sum(1)
    row.classes = {name: float(table[i, i] / totals[i]) for i, name in enumerate(names) if totals[i]}
    return row
