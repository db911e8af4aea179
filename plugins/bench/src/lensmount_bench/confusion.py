"""What is taken for what: detections and truth matched by overlap, whatever their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class Confusion:
    """Counts by true class and predicted class; the last row and column stand for nothing there.

    Attributes:
        names: Class names.
        iou_threshold: Least overlap of a pair.
        counts: int64 `(C + 1, C + 1)`: `[true, predicted]`; `[C, i]` was seen where nothing is, `[i, C]` missed.
    """

    names: Sequence[str]
    iou_threshold: float = 0.5
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.names) + 1, len(self.names) + 1), np.int64)

    def add(
        self,
        truth: NDArray[np.float32],
        true_class: NDArray[np.int64],
        boxes: NDArray[np.float32],
        predicted_class: NDArray[np.int64],
    ) -> None:
        """Counts one picture.

        Args:
            truth: `(T, 4)` xyxy.
            true_class: `(T,)` places in `names`.
            boxes: `(N, 4)` xyxy.
            predicted_class: `(N,)` places in `names`.

        Pairs are taken by falling overlap, each box and each object once.
        """
        from lensmount_vision.results.boxes import iou_matrix

        nothing = len(self.names)
        overlap = iou_matrix(truth, boxes) if len(truth) and len(boxes) else np.zeros((len(truth), len(boxes)))
        rows, columns = np.nonzero(overlap >= self.iou_threshold)
        order = np.argsort(-overlap[rows, columns], kind="stable")
        true_left, boxes_left = set(range(len(truth))), set(range(len(boxes)))
        for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
            if row in true_left and column in boxes_left:
                true_left.remove(row)
                boxes_left.remove(column)
                self.counts[true_class[row], predicted_class[column]] += 1
        for row in true_left:
            self.counts[true_class[row], nothing] += 1
        for column in boxes_left:
            self.counts[nothing, predicted_class[column]] += 1

    def add_labels(self, true_class: int, predicted_class: int) -> None:
        """Counts one classified picture; a prediction of -1 is none of the classes."""
        self.counts[true_class, predicted_class if predicted_class >= 0 else len(self.names)] += 1

    def worst(self, most: int = 10) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: true name, predicted name, count; `(nothing)` for missed and for unfounded."""
        names = [*self.names, "(nothing)"]
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:most]
        pairs = [divmod(int(place), len(names)) for place in order]
        return [(names[i], names[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]
