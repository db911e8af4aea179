"""A faster form of a loaded model, compared with the plain one before it takes its place."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lensmount.errors import OptionError
from lensmount.specs.options import positive
from lensmount_vision.results import Detections, iou_matrix

#: Boxes below this score are not compared: there rounding decides what is kept.
LOWEST = 0.1
_PRECISIONS = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The plain and the other form of a model on the same pictures.

    Attributes:
        how: `compile` or `export`.
        plain_ms: p50, p95 and p99 of a call of the plain model on one picture.
        other_ms: The same of the other form.
        objects: Objects of the plain model that were compared.
        missing: Objects that one of the two alone finds.
        pixels: Largest difference of a box's corner.
        scores: Largest difference of a score.
        kept: Whether the other form took the plain one's place.
    """

    how: str
    plain_ms: tuple[float, float, float]
    other_ms: tuple[float, float, float]
    objects: int
    missing: int
    pixels: float
    scores: float
    kept: bool

    def __str__(self) -> str:
        rows = [("plain", *self.plain_ms), (self.how, *self.other_ms)]
        lines = ["            p50 ms    p95 ms    p99 ms"]
        lines += [f"{name:<8}{a:>10.1f}{b:>10.1f}{c:>10.1f}" for name, a, b, c in rows]
        lines.append(
            f"{self.objects} objects, {self.missing} found by one alone; boxes differ by {self.pixels:.3g} px, "
            f"scores by {self.scores:.3g}: {'kept' if self.kept else 'not kept, the plain model stays'}"
        )
        return "\n".join(lines)


def other_form(
    name: Any, options: Mapping[str, Any], plain: Any, *, how: str, precision: str | None, batch_size: int
) -> Any:
    """Loads the model a second time, compiled by torch, or exported on this machine as an ONNX graph.

    Args:
        name: What `registry.load` was given.
        options: The same, with the options.
        plain: The model that it gave.
        how: `compile` or `export`.
        precision: As of `registry.load`; None for the plain model's.
        batch_size: Pictures that an exported graph takes at once.

    Raises:
        LensmountError: As `registry.load` and `registry.export`: no compiler, no torch weights.
    """
    from lensmount import registry

    wanted = precision or plain.precision
    placed = ("backend", "package", "precision", "providers", "compile", "cuda_graphs", "threads")
    own = {key: value for key, value in options.items() if key not in placed} | {"device": plain.device}
    if how == "compile":
        return registry.load(name, **{**own, "backend": "torch", "precision": wanted, "compile": True})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "exported.onnx"
        registry.export(name, to="onnx", output=file, precision=wanted, batch=batch_size, device=None)
        kept = {key: own[key] for key in ("classes", "class_offset", "device", "offline") if key in own}
        return registry.load(file, backend="onnx", architecture=plain.card.architecture, **kept)


def compare(
    plain: Any, other: Any, pictures: Sequence[Any], *, how: str, runs: int, pixels: float, scores: float
) -> Comparison:
    """Runs both in turn on the same pictures.

    Args:
        plain: The plain model.
        other: The other form.
        pictures: Pictures such as it will see.
        how: For the report.
        runs: Calls of each that are timed.
        pixels: Largest difference of a box's corner with which the other form is kept.
        scores: Largest difference of a score.
    """
    objects = missing = 0
    far = apart = 0.0
    for picture in pictures:
        one, two = (model(picture, confidence=LOWEST)[0] for model in (plain, other))
        for first, second in ((one, two), (two, one)):
            lost, boxes, values = _differences(first, second, scores)
            missing, far, apart = missing + lost, max(far, boxes), max(apart, values)
        objects += len(one)
    times: dict[int, list[float]] = {0: [], 1: []}
    for turn in range(runs):
        for number, model in enumerate((plain, other)):
            begin = time.perf_counter()
            model(pictures[turn % len(pictures)])
            times[number].append(1e3 * (time.perf_counter() - begin))
    kept = objects > 0 and missing == 0 and far <= pixels and apart <= scores
    first_ms, second_ms = (_percentiles(times[number]) for number in (0, 1))
    return Comparison(
        how=how, plain_ms=first_ms, other_ms=second_ms, objects=objects, missing=missing, pixels=far, scores=apart,
        kept=kept,
    )  # fmt: skip


def _differences(one: Detections, other: Detections, scores: float) -> tuple[int, float, float]:
    """Objects of one that the other lacks, and the largest differences; those at the threshold may lack."""
    missing, far, apart = 0, 0.0, 0.0
    overlaps = iou_matrix(one.xyxy, other.xyxy)
    for index in range(len(one)):
        same = np.flatnonzero(other.class_id == one.class_id[index])
        best = int(same[overlaps[index, same].argmax()]) if len(same) else -1
        if best < 0 or overlaps[index, best] < 0.5:
            missing += bool(one.confidence[index] > LOWEST + scores)
            continue
        far = max(far, float(np.abs(one.xyxy[index] - other.xyxy[best]).max()))
        apart = max(apart, float(abs(one.confidence[index] - other.confidence[best])))
    return missing, far, apart


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = np.percentile(values, (50, 95, 99)).tolist()
    return a, b, c


def precision_of(dtype: Any) -> str | None:
    """`registry.load`'s word for a torch dtype, or a word of its own; None for None.

    Raises:
        OptionError: Neither.
    """
    if dtype is None:
        return None
    text = str(dtype).removeprefix("torch.")
    if text not in _PRECISIONS and text not in _PRECISIONS.values():
        raise OptionError("dtype is not valid", found=repr(dtype), expected=", ".join(sorted(_PRECISIONS.values())))
    return _PRECISIONS.get(text, text)


def checked(runs: int, pixels: float, scores: float, pictures: Sequence[Any]) -> None:
    """Refuses limits that mean nothing.

    Raises:
        OptionError: No run, no picture, or a negative limit.
    """
    positive("runs", runs)
    if not pictures or pixels < 0 or scores < 0:
        raise OptionError(
            "the comparison is not possible",
            found=f"{len(pictures)} pictures, pixels={pixels}, scores={scores}",
            expected="a picture or more, limits from 0",
        )
