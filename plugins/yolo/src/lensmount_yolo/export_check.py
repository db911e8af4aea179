"""Compares an exported graph with the network that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lensmount.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_networks import Network

    Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]

#: Largest difference as a share of an output's range: float32 sums in another order; half has 11 bits.
TOLERANCE, HALF_TOLERANCE = 1e-3, 3e-2
#: For rows of final boxes: pixels, and score.
ROW_TOLERANCE, HALF_ROW_TOLERANCE = (0.5, 2e-3), (4.0, 3e-2)

#: Of an overlap at which suppression decides.
OVERLAP_TOLERANCE, HALF_OVERLAP_TOLERANCE = 0.01, 0.1

#: How much farther from the exact result than the network's own a graph may be where rounding is magnified.
SLACK = 4.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a graph is compared with: functions from pictures to outputs.

    Attributes:
        own: The network as it was exported.
        raw: The same without suppression; None where there is none.
        exact: Without suppression, as exactly as can be computed here.
        rule: The suppression; has `classes`, `confidence` and `iou_threshold`.
    """

    own: Run
    raw: Run | None
    exact: Run
    rule: Any = None


def in_torch(network: Network, dtype: str = "float32") -> Run:
    """Runs a network in torch, in float64 if told so."""
    import torch

    module = network.torch().module
    module = module.double() if dtype == "float64" else module

    def run(picture: NDArray[Any]) -> list[NDArray[Any]]:
        with torch.inference_mode():
            result = module(torch.from_numpy(picture.astype(dtype)))
        return [item.numpy() for item in (result if isinstance(result, tuple) else (result,))]

    return run


def in_onnx(network: Network, *, optimised: bool = True) -> Run:
    """Runs a network in onnxruntime; `optimised=False` one operation after the other, as it is written."""
    import onnxruntime

    graph, options = network.graph(), onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.initializers.values()]
    options.add_external_initializers(list(graph.initializers), values)
    session = onnxruntime.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])

    def run(picture: NDArray[Any]) -> Sequence[NDArray[Any]]:
        assert values is not None  # the session reads their memory
        made: Sequence[NDArray[Any]] = session.run(None, {network.inputs[0].name: picture})
        return made

    return run


def check_graph(path: Path, answers: Answers, shape: tuple[int, int, int, int], *, dynamic: bool, half: bool) -> None:
    """Runs both on noise and on a picture with smooth and sharp parts; dynamic graphs at a second size and batch too.

    A network may magnify rounding until two right answers differ by more than any tolerance. Where that seems so, both
    are measured against a more exact answer, and the graph must not be much farther from it than the network.

    Args:
        path: The graph.
        answers: What to compare it with.
        shape: Of the input.
        dynamic: Whether other sizes and batches should run too.
        half: Whether the graph computes in float16.

    Raises:
        BackendError: The graph cannot be run, or its outputs differ by more than the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes derive from nothing narrower
        raise BackendError("the exported graph cannot be opened", found=str(error)[:300]) from error
    shapes = [shape]
    if dynamic:
        batch, channels, height, width = shape
        shapes.append((batch + 1, channels, height, max(width // 2 // 32 * 32, 64)))
    for index, wanted in enumerate(shapes):
        for name, picture in (("noise", _noise(wanted, index)), ("a scene", _scene(wanted, index))):
            try:
                found = session.run(None, {"images": picture})
            except Exception as error:
                raise BackendError(
                    f"the exported graph does not run at {wanted}", found=" ".join(str(error).split())[:300]
                ) from error
            expected = answers.own(picture)
            subject = f"on {name} of {wanted}"
            if answers.raw is not None:
                raw, truth = answers.raw(picture)[0], answers.exact(picture)[0]
                _compare_suppressed(expected[0], found[0], raw, truth, answers.rule, f"output0 {subject}", half)
                expected, found = expected[1:], found[1:]
            try:
                _compare_all(expected, found, [None] * len(found), subject, half)
            except BackendError:
                exact = answers.exact(picture)
                _compare_all(expected, found, exact[len(exact) - len(found) :], subject, half)


def _compare_all(
    expected: Sequence[NDArray[Any]], found: Sequence[NDArray[Any]], exact: Sequence[Any], subject: str, half: bool
) -> None:
    for mine, theirs, truth in zip(expected, found, exact, strict=True):
        _compare(mine, theirs, truth, subject, half)


def _noise(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(shape, np.float32)


def _scene(shape: tuple[int, int, int, int], seed: int) -> NDArray[np.float32]:
    """Soft gradients and hard-edged boxes, as in photographs: what noise has none of."""
    random = np.random.default_rng(100 + seed)
    batch, channels, height, width = shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    scene = np.empty(shape, np.float32)
    for picture in range(batch):
        for channel in range(channels):
            a, b, c = random.random(3)
            scene[picture, channel] = 0.5 + 0.4 * np.sin(6 * (a * x / width + b * y / height + c))
        for _ in range(8):
            top, left = random.integers(0, height - 16), random.integers(0, width - 16)
            bottom, right = random.integers(top + 8, height), random.integers(left + 8, width)
            scene[picture, :, top:bottom, left:right] = random.random((channels, 1, 1))
    return scene


def _compare(mine: NDArray[Any], theirs: NDArray[Any], truth: Any, subject: str, half: bool) -> None:
    if mine.shape != theirs.shape:
        raise BackendError(f"{subject}: another shape", found=str(theirs.shape), expected=str(mine.shape))
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        raise BackendError(f"{subject}: numbers that are not finite", fix="export in fp32")
    if mine.ndim == 3 and mine.shape[2] < mine.shape[1] and mine.shape[1] <= 1000 and mine.shape[2] >= 6:
        _compare_rows(mine, theirs, truth, subject, half)
        return
    tolerance = HALF_TOLERANCE if half else TOLERANCE
    # Pixels and scores have ranges of their own.
    for part in (np.s_[:, :4], np.s_[:, 4:]) if mine.ndim == 3 else (np.s_[:],):
        limit = tolerance * max(float(np.ptp(mine[part])), 1e-3)
        goal = mine if truth is None else truth
        if truth is not None:
            limit = max(limit, SLACK * float(np.abs(mine[part] - truth[part]).max(initial=0)))
        worst = float(np.abs(goal[part] - theirs[part]).max(initial=0))
        if worst > limit:
            raise BackendError(
                f"{subject}: the graph differs from the network",
                found=f"by {worst:.3g}",
                expected=f"at most {limit:.3g}",
            )


def _compare_rows(mine: NDArray[Any], theirs: NDArray[Any], truth: Any, subject: str, half: bool) -> None:
    """Rows come in the order of scores that may be equal up to rounding: each is looked for among the others."""
    score = (HALF_ROW_TOLERANCE if half else ROW_TOLERANCE)[1]
    limit, goal = score, mine
    if truth is not None:
        limit, goal = max(score, SLACK * float(np.abs(mine[..., 4] - truth[..., 4]).max(initial=0))), truth
    worst = float(np.abs(goal[..., 4] - theirs[..., 4]).max(initial=0))
    if worst > limit:
        raise BackendError(
            f"{subject}: the graph's scores differ from the network's", found=f"by {worst:.3g}", expected=f"{limit:.3g}"
        )
    lost, allowed = _lost(goal, theirs, half), (mine.shape[0] * mine.shape[1] // 20 if half else 0)
    if truth is not None:
        allowed = max(allowed, int(SLACK * _lost(truth, mine, half)))
    if lost > allowed:
        raise BackendError(f"{subject}: the graph lacks boxes of the network", found=str(lost), expected=str(allowed))


def _lost(mine: NDArray[Any], theirs: NDArray[Any], half: bool) -> int:
    """How many rows of one have no equal in the other; those near the end may be left out for others."""
    pixels, score = HALF_ROW_TOLERANCE if half else ROW_TOLERANCE
    lost = 0
    for first, second in zip(mine, theirs, strict=True):
        for row in first[first[:, 4] > first[-1, 4] + 2 * score]:
            near = (np.abs(second[:, :4] - row[:4]).max(1) <= pixels) & (np.abs(second[:, 4] - row[4]) <= score)
            lost += not bool((near & (second[:, 5] == row[5])).any())
    return lost


def _compare_suppressed(
    mine: NDArray[Any],
    theirs: NDArray[Any],
    raw: NDArray[Any],
    truth: NDArray[Any],
    rule: Any,
    subject: str,
    half: bool,
) -> None:
    """Looks whether rows are what suppression makes of the network's raw predictions, up to rounding.

    Rows are not compared with the network's own: where two scores are equal up to rounding, or one lies at the
    threshold, or an overlap does, one box more or less changes which others stay, and both answers are right.
    """
    if mine.shape != theirs.shape:
        raise BackendError(f"{subject}: another shape", found=str(theirs.shape), expected=str(mine.shape))
    if not np.isfinite(theirs).all():
        raise BackendError(f"{subject}: numbers that are not finite", fix="export in fp32")
    allowed = mine.shape[0] * mine.shape[1] // 20 if half else 0
    found = _faults(theirs, raw, rule, half)
    if found > allowed:  # the network may magnify rounding: measured against the same in float64
        found, allowed = _faults(theirs, truth, rule, half), max(allowed, int(SLACK * _faults(mine, truth, rule, half)))
    if found > allowed:
        raise BackendError(
            f"{subject}: the graph's rows are not what suppression leaves of the network's predictions",
            found=f"{found} wrong or missing",
            expected=f"at most {allowed}",
        )


def _faults(rows: NDArray[Any], raw: NDArray[Any], rule: Any, half: bool) -> int:
    return sum(suppression_faults(found, table, rule, half=half) for found, table in zip(rows, raw, strict=True))


def suppression_faults(rows: NDArray[Any], raw: NDArray[Any], rule: Any, *, half: bool = False) -> int:
    """Counts what in one picture's rows is not as greedy suppression would have it.

    Three things say that rows are right, whatever the order of equal scores: each is a prediction of the network; no
    two of a class overlap; each prediction that is no row is weaker than the last where rows are full, or is overlapped
    by a row of its class that is at least as good.

    Args:
        rows: `(M, 6 + extra)`, zero where there is nothing.
        raw: `(4 + classes + extra, N)` of the network.
        rule: Has `classes`, `confidence` and `iou_threshold`.
        half: Whether the graph computes in float16.
    """
    pixels, score = HALF_ROW_TOLERANCE if half else ROW_TOLERANCE
    overlap = HALF_OVERLAP_TOLERANCE if half else OVERLAP_TOLERANCE
    centre, size, table = raw[:2].T, raw[2:4].T, raw[4 : 4 + rule.classes].T
    boxes, extras = np.concatenate((centre - size / 2, centre + size / 2), 1), raw[4 + rule.classes :].T
    best = table.max(1)
    passing = best > rule.confidence - score
    boxes, extras, table, best = boxes[passing], extras[passing], table[passing], best[passing]
    kept = rows[rows[:, 4] > 0]
    ids = kept[:, 5].astype(np.int64)
    if ((ids < 0) | (ids >= rule.classes)).any():
        return len(kept)
    able = best - score <= table[:, ids].T  # which predictions a row of its class may stand for, or take out
    near = able & (np.abs(kept[:, 4:5] - best) <= score)
    near &= np.abs(kept[:, None, :4] - boxes).max(2) <= pixels
    if extras.shape[1]:
        limit = (HALF_TOLERANCE if half else TOLERANCE) * max(float(np.ptp(raw[4 + rule.classes :])), 1e-3)
        near &= np.abs(kept[:, None, 6:] - extras).max(2) <= limit
    alike = (ids[:, None] == ids) & ~np.eye(len(ids), dtype=bool)
    doubles = np.triu(alike & (_overlaps(kept[:, :4], kept[:, :4]) > rule.iou_threshold + overlap)).sum()
    takes_out = able & (kept[:, 4:5] >= best - score) & (_overlaps(kept[:, :4], boxes) > rule.iou_threshold - overlap)
    told = near.any(0) | takes_out.any(0) | (best <= rule.confidence + score)
    if len(kept) == len(rows):
        told |= best <= kept[:, 4].min() + score
    return int((~near.any(1)).sum() + doubles + (~told).sum())


def _overlaps(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Intersection over union of all pairs; boxes without area overlap nothing."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(table[:, 2:4] - table[:, :2]).clip(0).prod(1) for table in (boxes, others)]
    return np.asarray(shared / (areas[0][:, None] + areas[1] - shared).clip(1e-9))
