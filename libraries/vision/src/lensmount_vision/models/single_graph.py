"""The common part of models that are one network between preprocess and postprocess."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from lensmount.backend.batching import batch_policy, run_batched
from lensmount.backend.tensors import is_tensor
from lensmount.errors import ModelFileError, OptionError
from lensmount_vision.images.reduced_decode import check
from lensmount_vision.models.loaded import LoadedModel
from lensmount_vision.models.numbers import NotFiniteError, Unusable, not_finite
from lensmount_vision.models.numbers import finish as finish_outputs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount.contracts.model import BuildContext
    from lensmount.specs import Preprocess
    from lensmount_vision.device.path import DevicePath
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color, Image
    from lensmount_vision.images.transforms import DType, Layout
    from lensmount_vision.models.streaming import Policy, Stream
    from lensmount_vision.tracking.naming import Maker

BATCH = 16
"""Pictures that a call prepares at once when the caller passes more."""
_LARGEST_BUFFER = 256 * 2**20  # bytes; a larger input is allocated each time, not kept
R = TypeVar("R")


class SingleGraph(LoadedModel):
    """Holds a session and runs pictures through it in the batches that its graph takes.

    Thread-safe: nothing is kept between calls but each thread's input buffer, which nothing outside a call refers to.

    Args:
        context: What the core hands to a factory.
        preprocess: How pictures become the network's input; `size` is completed from the graph.
        reduced_decode: Decode JPEGs that are much larger than that at a fraction of their size
            (`lensmount_vision.images.reduced_decode`).

    Raises:
        ModelFileError: The graph does not take one picture input, NCHW or NHWC, or its size contradicts `preprocess`.
        OptionError: `reduced_decode` with a package whose preparation needs every pixel.
    """

    def __init__(self, context: BuildContext, preprocess: Preprocess, *, reduced_decode: bool = False) -> None:
        self._session = context.session
        super().__init__(context.card, context.package, self._session)
        inputs = self._session.inputs
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            raise ModelFileError(
                f"{context.card.id!r} should take one picture input, (batch, channels, height, width) or channels last",
                found=str([(spec.name, spec.shape) for spec in inputs]),
                expected="one input of 4 dimensions",
            )
        self._input = inputs[0]
        #: Whether the graph takes its pictures as `(batch, height, width, channels)`.
        self._last = _channels_last(self._input.shape, preprocess.channels)
        channels = self._input.shape[3 if self._last else 1]
        if reduced_decode:
            check(preprocess)
        self._reduced_decode = reduced_decode
        self.batch = batch_policy(self._session, context.package.batch)
        self.preprocess_spec = self._complete(preprocess)
        if isinstance(channels, int) and channels != self.preprocess_spec.channels:
            raise ModelFileError(
                f"the graph of {context.card.id!r} takes another number of channels than its package says",
                found=str(channels),
                expected=str(self.preprocess_spec.channels),
            )
        self._dtype = _input_dtype(self._input.dtype, context.card.id)
        self._buffers = threading.local()
        self._path = self._device_path()

    def _device_path(self) -> DevicePath | None:
        """The way on the device, where the session takes tensors; torch is imported for nothing else."""
        if getattr(self._session, "tensor_device", None) is None:
            return None
        from lensmount_vision.device.path import DevicePath

        return DevicePath(self._session, self.preprocess_spec, self._dtype, self.batch, nhwc=self._last)

    def _complete(self, preprocess: Preprocess) -> Preprocess:
        """The graph's fixed size wins where the package names none; a contradiction is an error."""
        height, width = self._input.shape[1:3] if self._last else self._input.shape[2:]
        if not (isinstance(height, int) and isinstance(width, int)):
            return preprocess
        if preprocess.size is None or preprocess.size == (height, width):
            if preprocess.rectangular:
                raise OptionError(
                    f"{self._card.id!r} cannot letterbox to rectangles: its graph has a fixed size",
                    found=f"{height}x{width}",
                    expected="a graph of dynamic size, or torch weights",
                    fix="leave rectangular out, or export with --dynamic",
                )
            return replace(preprocess, size=(height, width), divisible_by=None)
        raise ModelFileError(
            f"the graph of {self._card.id!r} has another input size than its package says",
            found=f"{height}x{width}",
            expected=f"{preprocess.size[0]}x{preprocess.size[1]}",
        )

    @property
    def tensor_device(self) -> str | None:
        """Where pictures are prepared and outputs finished in torch; None where that is done on the host."""
        return None if self._path is None else self._path.device

    @property
    def input_dtype(self) -> DType:
        """What the network's input is made of: `float32`, `float16` or `uint8`."""
        return self._dtype

    @property
    def reduced_for(self) -> Preprocess | None:
        """What `lensmount_vision.images.loading.load` takes as `reduced_for`; None where JPEGs are decoded in full."""
        return self.preprocess_spec if self._reduced_decode else None

    @property
    def picture_channels(self) -> int:
        """Channels of the network's input; other pictures than arrays and tensors have none but colours."""
        return self.preprocess_spec.channels

    def preprocess(self, images: Any, *, color: Color | None = None) -> tuple[NDArray[Any], list[Geometry]]:
        """Pictures to the network's input.

        Args:
            images: One picture or several; see `lensmount_vision.images.loading.load_many`.
            color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`; None for their usual one.

        Returns:
            The batch `(B, C, H, W)`, or `(B, H, W, C)` where the graph has its channels last, in the network's dtype;
            and one geometry per picture.
        """
        return self._prepare(self.load_images(images, color))

    def _prepare(
        self, pictures: Sequence[Image], out: NDArray[Any] | None = None
    ) -> tuple[NDArray[Any], list[Geometry]]:
        from lensmount_vision.images.transforms import prepare

        spec, layout = self.preprocess_spec, self._layout
        return prepare(pictures, spec, dtype=self._dtype, layout=layout, out=out)

    def forward(self, batch: Any) -> dict[str, Any]:
        """Runs the network; a static graph gets the batch in chunks, the last one padded.

        Args:
            batch: As `preprocess` makes it: an array, or a tensor on the device for sessions that take
                tensors (`lensmount.contracts.session.TensorSession`).

        Returns:
            Outputs by name, `B` rows each: arrays, or tensors where the batch is one.

        Raises:
            BackendError: The runtime failed.
            ClosedError: The model was closed.
        """
        self.check_open()
        if self._path is not None and is_tensor(batch):
            return self._path.forward(batch)
        return run_batched(self._session, {self._input.name: batch}, self.batch)

    def infer_pictures(
        self, pictures: Sequence[Image], gate: AbstractContextManager[Any] | None = None
    ) -> tuple[dict[str, Any], list[Geometry]]:
        """`preprocess` and `forward` in one: on the device where the session takes tensors, else through a buffer.

        A fresh batch of 640x640 pixels is 4.9 MB of memory that the system hands out page by page at each call; the
        buffer is used again by this thread's next call.

        Args:
            pictures: Decoded pictures of one group; see `groups`.
            gate: Entered while the network runs, to bound how many threads are in there.

        Returns:
            Outputs by name, which share no memory with the buffer, and one geometry per picture. Tensors where the
            session takes them: `postprocess` finishes either.
        """
        if self._path is not None:
            self.check_open()
            return self._path.infer(pictures, gate)

        import numpy as np

        batch, geometries = self._prepare_again(pictures)
        with gate or nullcontext():
            raw = self.forward(batch)
        # A network that hands its input on would have its outputs overwritten by the next call.
        return {k: v.copy() if np.may_share_memory(v, batch) else v for k, v in raw.items()}, geometries

    def infer_batches(
        self,
        images: Any,
        color: Color | None,
        finish: Callable[[dict[str, Any], list[Geometry], list[str | None]], Sequence[R | Unusable]],
        size: int = BATCH,
    ) -> list[R]:
        """What a call does once its options are checked: pictures, batches of them, results in the pictures' order.

        Args:
            images: Whatever the caller passed.
            color: As in `preprocess`.
            finish: Makes one result for each picture of a batch, of raw outputs, geometries and paths; an `Unusable`
                where none can be made.
            size: The most pictures that are prepared at once.

        Returns:
            One result per picture.

        Raises:
            NotFiniteError: The network gave no usable numbers for a picture; it has the results of the others.
        """
        pictures = self.load_images(images, color)
        results: dict[int, R | None] = {}
        faults: dict[int, str] = {}
        for indices in self.batches(pictures, size):
            raw, geometries = self.infer_pictures([pictures[i] for i in indices])
            made: Sequence[R | None]
            try:
                made = finish_outputs(self, raw, geometries, [pictures[i].path for i in indices], finish)
            except NotFiniteError as error:
                made = error.results
                faults.update((indices[i], why) for i, why in error.faults.items())
            results.update(zip(indices, made, strict=True))
        every = [results[i] for i in range(len(pictures))]
        if faults:
            raise not_finite(self, faults, every, {i: pictures[i].path for i in faults})
        return cast("list[R]", every)

    def _prepare_again(self, pictures: Sequence[Image]) -> tuple[NDArray[Any], list[Geometry]]:
        spec = self.preprocess_spec
        kept: NDArray[Any] | None = getattr(self._buffers, "batch", None)
        fixed = spec.size is not None and spec.divisible_by is None and not spec.rectangular
        if fixed and kept is not None and len(kept) == len(pictures) and self._frame(kept) == spec.size:
            return self._prepare(pictures, out=kept)
        batch, geometries = self._prepare(pictures)
        self._buffers.batch = batch if batch.nbytes <= _LARGEST_BUFFER else None
        return batch, geometries

    @property
    def _layout(self) -> Layout:
        return "nhwc" if self._last else "nchw"

    def _frame(self, batch: NDArray[Any]) -> tuple[int, ...]:
        """Height and width of a batch."""
        return batch.shape[1:3] if self._last else batch.shape[2:]

    def stream(
        self,
        source: Any,
        *,
        batch_size: int | Literal["auto"] = "auto",
        workers: int | None = None,
        concurrency: int | None = None,
        policy: Policy = "auto",
        max_frames: int | None = None,
        color: Color | None = None,
        tracker: str | Maker | None = None,
        **options: Any,
    ) -> Stream:
        """Runs over pictures, videos and cameras with all stages overlapped; see `lensmount_vision.models.stream`."""
        from lensmount_vision.models import streaming

        return streaming.stream(
            self,
            source,
            batch_size=batch_size,
            workers=workers,
            concurrency=concurrency,
            policy=policy,
            max_frames=max_frames,
            color=color,
            tracker=tracker,
            **options,
        )

    def groups(self, pictures: Sequence[Image], size: int) -> list[Sequence[Image]]:
        """Splits pictures into runs that can share a batch, in order; `batches` makes fewer of mixed sizes."""
        runs: list[list[int]] = []
        for batch in self.batches(pictures, size):
            for index in batch:
                if runs and index == runs[-1][-1] + 1 and runs[-1][0] in batch:
                    runs[-1].append(index)
                else:
                    runs.append([index])
        return [[pictures[i] for i in run] for run in sorted(runs)]

    def batches(self, pictures: Sequence[Image], size: int) -> list[list[int]]:
        """Splits pictures into batches: of one network size each, and never of unbounded memory.

        Args:
            pictures: What `load_images` gave.
            size: The most that the caller wants to hold at once.

        Returns:
            Indices of the pictures of each batch; together they are all, each once, but not in order where pictures
            of several network sizes are mixed.
        """
        from lensmount_vision.images.geometry import plan

        step = self.batch.static or min(size, self.batch.maximum or size)
        spec = self.preprocess_spec
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(pictures):
            frame = (0, 0) if spec.size is not None and not spec.rectangular else plan(picture.size, spec).network_size
            by_size.setdefault(frame, []).append(index)
        return [indices[i : i + step] for indices in by_size.values() for i in range(0, len(indices), step)]

    def warmup(self) -> None:
        """Runs the network once on a blank input."""
        import numpy as np

        height, width = self.preprocess_spec.size or (640, 640)
        if self._path is not None:
            from lensmount_vision.images.image import Image

            channels = self.preprocess_spec.channels
            self.infer_pictures([Image(np.zeros((height, width, 3 if channels == 1 else channels), np.uint8))])
            return
        channels = self.preprocess_spec.channels
        shape = (1, height, width, channels) if self._last else (1, channels, height, width)
        self.forward(np.zeros(shape, self._input.dtype))


def _channels_last(shape: tuple[int | str | None, ...], channels: int) -> bool:
    """Whether a picture input `(batch, …)` has its channels last: the last size is theirs, and the second is not."""
    return shape[3] == channels and shape[1] != channels


def _input_dtype(dtype: str, name: str) -> DType:
    if dtype == "float32":
        return "float32"
    if dtype == "float16":
        return "float16"
    if dtype == "uint8":
        return "uint8"
    raise ModelFileError(
        f"the graph of {name!r} takes pictures of a dtype that is not made here",
        found=dtype,
        expected="float32, float16 or uint8",
    )
