"""Any number of pictures through an image tower: decoded and prepared in threads, run in batches, bounded in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lensmount.backend import cpu_count
from lensmount.errors import ImageError, InputError, LensmountError
from lensmount_vision.images.image import Image
from lensmount_vision.images.loading import is_single, load, several
from lensmount_vision.images.sources import expand_sources, is_video
from lensmount_vision.images.transforms import prepare
from lensmount_vision.models.numbers import NotFiniteError, not_finite
from lensmount_vision.models.pipeline import batched, count_of, in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.specs import Preprocess
    from lensmount_vision.images.image import Color
    from lensmount_vision.images.transforms import DType


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedBatch:
    """Vectors of some pictures.

    Attributes:
        indices: Places of the pictures in what was passed, from 0.
        paths: Where each came from; None for data.
        image_sizes: `(height, width)` of each.
        vectors: float32 `(B, D)`, not normalised.
    """

    indices: tuple[int, ...]
    paths: tuple[str | None, ...]
    image_sizes: tuple[tuple[int, int], ...]
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    index: int
    path: str | None
    image_size: tuple[int, int]
    input: NDArray[Any] | None
    picture: Image | None


class ImageTower(Protocol):
    """The part of an embedding model that a stream uses."""

    @property
    def preprocess_spec(self) -> Preprocess:
        """How pictures become the tower's input."""

    @property
    def input_dtype(self) -> DType:
        """What that input is made of."""

    @property
    def tensor_device(self) -> str | None:
        """Where pictures are prepared in torch; None where that is done on the host."""

    def forward_images(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Prepared pictures `(B, C, H, W)` to vectors `(B, D)`."""

    def forward_pictures(self, pictures: Sequence[Image]) -> NDArray[np.float32]:
        """Decoded pictures to vectors `(B, D)`."""


def sources_of(images: Any) -> Iterable[Any]:
    """What the caller passed, as an iterable of single pictures; folders and globs become their pictures.

    Raises:
        ImageError: A folder or glob without pictures, or something that is no picture.
    """
    inputs = several(images)
    if inputs is not None:
        return inputs
    if isinstance(images, str | os.PathLike) and _names_several(os.fspath(images)):
        return [name for name in expand_sources(images) if not is_video(name)]
    if is_single(images):
        return [images]
    raise ImageError(
        "these are no pictures",
        found=type(images).__name__,
        expected="a picture, an iterable of them, a folder, a glob",
    )


def _names_several(text: str | bytes) -> bool:
    if isinstance(text, bytes) or "://" in text or text.startswith("data:"):
        return False
    try:
        path = Path(text)
        return path.is_dir() or (glob.has_magic(text) and not path.exists())
    except (OSError, ValueError):  # too long for a path, or with a NUL: loading it says so
        return False


def stream(
    model: ImageTower,
    images: Any,
    *,
    size: int,
    color: Color | None,
    progress: bool,
    on_error: Callable[[str, LensmountError], None] | None,
) -> Iterator[EmbeddedBatch]:
    """Does what `EmbeddingModel.embed_batches` promises."""
    items = sources_of(images)
    spec, dtype = model.preprocess_spec, model.input_dtype
    if spec.size is None:
        raise InputError("a graph of dynamic size needs one", fix="load the model with a fixed input size")

    def work(numbered: tuple[int, Any]) -> _Prepared:
        index, source = numbered
        picture = load(source, color=color)
        if on_device:  # pixels go up by themselves, and are prepared there in one go
            return _Prepared(index, picture.path, picture.size, None, picture)
        batch, _ = prepare([picture], spec, dtype=dtype)
        return _Prepared(index, picture.path, picture.size, batch[0], None)

    on_device = model.tensor_device is not None
    total = count_of(items)
    # Threads for one picture cost more than they save; decoding seldom needs more than four.
    workers = 0 if total == 1 else min(4, cpu_count())

    def ready() -> Iterator[_Prepared]:
        for (index, source), result in in_order(enumerate(items), work, workers=workers, ahead=2 * size):
            try:
                yield result()
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(source if isinstance(source, str) else f"picture {index}", error)

    with ExitStack() as stack:
        advance = _bar(stack, total) if progress else _nothing
        height, width = spec.size
        # One array for all full batches: it is read before the next one is written.
        rows = 0 if on_device else size if total is None else min(size, max(total, 1))
        held = np.empty((rows, spec.channels, height, width), dtype)
        for group in batched(ready(), size):
            if on_device:
                pictures = [item.picture for item in group if item.picture is not None]
                vectors, faults = _looked_at(model.forward_pictures, pictures)
            else:
                for target, item in zip(held, group, strict=False):
                    target[...] = item.input
                vectors, faults = _looked_at(model.forward_images, held[: len(group)])
            advance(len(group))
            if faults:
                names = {item.index: item.path for item in group}
                error = not_finite(model, {group[i].index: why for i, why in faults.items()}, names=names)
                if on_error is None:
                    raise error
                for index, of_one in error.errors.items():
                    on_error(names[index] or f"picture {index}", of_one)
                good = [i for i in range(len(group)) if i not in faults]
                group, vectors = [group[i] for i in good], vectors[good]
            yield EmbeddedBatch(
                tuple(item.index for item in group),
                tuple(item.path for item in group),
                tuple(item.image_size for item in group),
                vectors,
            )


def _nothing(count: int) -> None:
    pass


def _bar(stack: ExitStack, total: int | None) -> Callable[[int], None]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = stack.enter_context(Progress(*columns, console=console, disable=not console.is_terminal, transient=True))
    return partial(shown.advance, shown.add_task("embed", total=total))


def _looked_at(forward: Callable[[Any], NDArray[np.float32]], given: Any) -> tuple[NDArray[np.float32], dict[int, str]]:
    """Vectors, with zeros for those that are not finite; and what is wrong with these, by row."""
    try:
        return forward(given), {}
    except NotFiniteError as error:
        blank = np.zeros_like(next((row for row in error.results if row is not None), np.zeros(0, np.float32)))
        return np.stack([blank if row is None else row for row in error.results]), error.faults
