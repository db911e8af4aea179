"""Any number of pictures through a model, with decoding, preparing, the network and post-processing overlapped.

Each group of pictures is one task that goes through all stages on one thread; several tasks run at once, and
a gate lets only so many of them into the network. While one is in there, the others decode, prepare and finish. That
needs no queue between stages: what is bounded is the number of tasks, and a consumer that is slow stops the reading.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from lensmount.backend import cpu_count
from lensmount.errors import ImageError, LensmountError
from lensmount.specs.options import check_names, one_of, positive
from lensmount_vision.models.entries import Item
from lensmount_vision.models.loaded import NotPicklableError
from lensmount_vision.models.numbers import NotFiniteError, finish, not_finite
from lensmount_vision.models.pipeline import in_order
from lensmount_vision.models.readers import Reader
from lensmount_vision.models.slicing import Slice, sliced
from lensmount_vision.tracking.naming import Maker, maker_of
from lensmount_vision.tracking.sequences import Tracks, as_pairs

if TYPE_CHECKING:
    from lensmount_vision.images.image import Color, Image

Policy = Literal["auto", "all", "latest"]

_GPU_BATCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class FrameInfo:
    """What a result of a stream is of.

    Attributes:
        index: Place in the stream, from 0; frames left out are not counted.
        source: Path, address, camera or name.
        image: The decoded picture, reduced where the model was loaded with `reduced_decode`; None with an error.
        frame: Number of the frame, for videos, cameras, animations and pages.
        seconds: Its time in the video, or since the camera was opened.
        live: Whether it comes from a live source.
        dropped: Frames of this source left out just before it, because nobody had time for them.
        error: Why there is no result; None when there is one.
    """

    index: int
    source: str
    image: Image | None
    frame: int | None = None
    seconds: float | None = None
    live: bool = False
    dropped: int = 0
    error: LensmountError | None = None

    @property
    def name(self) -> str:
        """The source, with the frame's number: `clip.mp4#12`."""
        return self.source if self.frame is None else f"{self.source}#{self.frame}"


Pair = tuple[FrameInfo, Any]


class Stream(Iterator[Pair]):
    """Iterator over `(FrameInfo, result)`; `with` or `close()` stops its threads early.

    Attributes:
        live: Whether some of it comes from a camera or a network stream, and so has no end of its own.
        total: Number of pictures, None where it is not known before; a GIF or TIFF of several counts as one.
        batch_size: Pictures in one run.
        workers: Groups of pictures processed at once.
        concurrency: Of these, the most in the network at once.
    """

    def __init__(
        self,
        reader: Reader,
        work: _Work,
        batch_size: int,
        workers: int,
        concurrency: int,
        tracks: Tracks | None = None,
    ) -> None:
        self._reader = reader
        self._tracks = tracks
        self._run = _run(reader, work, batch_size, workers)
        self.live = reader.live
        self.total = reader.total
        self.batch_size = batch_size
        self.workers = workers
        self.concurrency = concurrency

    def __next__(self) -> Pair:
        info, result = next(self._run)
        # Here, and not in the threads: a tracker wants its frames one by one, in their order.
        return info, result if self._tracks is None else as_pairs(self._tracks, info, result)

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "a stream cannot be pickled or copied: it holds threads and a model",
            fix="load the model in the worker and call model.stream(source) there",
        )

    def close(self) -> None:
        """Stops reading and running, and waits for the threads; a second call does nothing."""
        self._run.close()
        self._reader.stop()  # cameras are read from the start on, even where no result was ever taken

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def stream(
    model: Any,
    source: Any,
    *,
    batch_size: int | Literal["auto"] = "auto",
    workers: int | None = None,
    concurrency: int | None = None,
    policy: Policy = "auto",
    max_frames: int | None = None,
    color: Color | None = None,
    tracker: str | Maker | None = None,
    slice: Slice = False,
    **options: Any,
) -> Stream:
    """Runs a model over pictures, videos and cameras, in order, as fast as the slowest stage.

    Args:
        model: Any loaded model; one with `preprocess`, `forward` and `postprocess` has its stages overlapped finely.
        source: A path, folder, glob, URL, video, stream address, camera number, picture, `Feed`, a list of such, or
            an iterable of pictures. Of an animation or a TIFF with pages (a path or its bytes) all pictures are taken,
            as frames. An iterable is drawn from in a thread of the stream's, as results are taken.
        batch_size: Pictures in one run; `"auto"` is a static graph's own size, else 1 on the CPU (where more gains
            nothing) and for live sources, else 8.
        workers: Groups of pictures processed at once; None to choose by the machine.
        concurrency: Of these, the most in the network at once; None for 2 on a CPU with 2 cores or more (one fills
            the gaps that the other leaves), else 1.
        policy: `"all"` runs every frame and makes sources wait; `"latest"` leaves frames out so that a result is never
            of an old one; `"auto"` is `"latest"` for cameras and network streams, `"all"` for the rest.
        max_frames: Most frames of one video, camera or animation.
        color: Channel order of arrays and tensors, `"bgr"` or `"rgb"`.
        tracker: Gives objects numbers that stay theirs, as `tracker_id` of the results: `"bytetrack"`, `"sort"`,
            `"ocsort"`, `"botsort"`, `"cbiou"`, `lensmount_vision.tracking.tracker(name, setting=…)`, or a function that
            makes an `ObjectTracker`. Each video and camera has its own; pictures of one folder follow one another.
        slice: True for tiles of the network's size, or `(width, height)` of a tile: small objects in large pictures are
            seen at their own size; see `lensmount_vision.models.Sliced`.
        **options: The model's call options; a wrong one is an error at once.

    Returns:
        An iterator over `(info, result)`. Results are in the order of the source; several live sources are
        interleaved as their frames come, each in its own order. A picture that cannot be used, or that
        the network gives no finite numbers for, gives a record with `info.error` and None for the result, and the
        stream goes on; any other error ends it.

    Raises:
        ImageError: A folder or glob holds no pictures.
        OptionError: An option is out of range; a tracker for a model without boxes, at its first result.
        MissingDependencyError: A tracker, while the package `trackers` is not installed.
        UnknownOptionError: An option that the model's call does not have.
    """
    model = sliced(model, slice)
    _check_options(model, options)
    tracks = None if tracker is None else Tracks(maker_of(tracker))
    one_of("policy", policy, ("auto", "all", "latest"))
    on_cpu = str(getattr(model, "device", "cpu")) == "cpu"
    cores = cpu_count()
    gate = positive("concurrency", concurrency) if concurrency is not None else (2 if on_cpu and cores > 1 else 1)
    if max_frames is not None:
        positive("max_frames", max_frames)
    if batch_size != "auto":
        positive("batch_size", batch_size)
    if workers is not None:
        positive("workers", workers)
    reader = Reader(
        source,
        latest=None if policy == "auto" else policy == "latest",
        color=color,
        max_frames=max_frames,
        reduced_for=getattr(model, "reduced_for", None),
        channels=getattr(model, "picture_channels", 3),
    )
    size = _batch_size(model, reader.live, on_cpu) if batch_size == "auto" else int(batch_size)
    # A live source wants the result of a new frame soon rather than many in progress.
    count = workers or (gate + 1 if reader.live else gate + max(2, min(cores // 2, 6)))
    work = _Work(model, options, threading.Semaphore(gate))
    return Stream(reader, work, size, count, gate, tracks)


def _check_options(model: Any, options: Mapping[str, Any]) -> None:
    """Refuses unknown options before anything is read."""
    known = inspect.signature(model).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    names = [name for name in list(known)[1:] if name != "color"]
    own = inspect.signature(stream).parameters.values()
    also = [parameter.name for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    check_names(options, names, f"a call of {getattr(getattr(model, 'card', None), 'id', model)!r}", also)


def _batch_size(model: Any, live: bool, on_cpu: bool) -> int:
    policy = getattr(model, "batch", None)
    static = getattr(policy, "static", None)
    if static:
        return int(static)
    if live or on_cpu:
        return 1
    return min(_GPU_BATCH, getattr(policy, "maximum", None) or _GPU_BATCH)


def _run(reader: Reader, work: _Work, size: int, count: int) -> Generator[Pair, None, None]:
    # From files one group more than there are threads is read ahead; of live sources, what waits grows old.
    ahead = count + (0 if reader.live else 1)
    with closing(in_order(reader.groups(size), work, workers=count, ahead=ahead, interrupt=reader.stop)) as groups:
        for _, results in groups:
            yield from results()


class _Work:
    """One group of items through all stages, on the calling thread."""

    def __init__(self, model: Any, options: Mapping[str, Any], gate: AbstractContextManager[Any]) -> None:
        self._model = model
        self._options = options
        self._gate = gate
        staged = hasattr(model, "postprocess") and hasattr(model, "groups")
        self._staged: Callable[..., Any] | None = getattr(model, "infer_pictures", None) if staged else None

    def __call__(self, group: tuple[int, list[Item]]) -> list[Pair]:
        index, items = group
        infos: list[FrameInfo] = []
        for i, item in enumerate(items, index):
            info = FrameInfo(i, item.source, None, item.frame, item.seconds, item.live, item.dropped)
            try:
                infos.append(replace(info, image=item.load()))
            except ImageError as error:
                infos.append(replace(info, error=error))
        good = [info for info in infos if info.error is None]
        results = iter(self._results(good))
        return [next(results) if info.error is None else (info, None) for info in infos]

    def _results(self, infos: list[FrameInfo]) -> list[Pair]:
        if not infos:
            return []
        pictures = [info.image for info in infos if info.image is not None]
        try:
            return list(zip(infos, self._call(pictures), strict=True))
        except ImageError as error:
            if len(infos) == 1:
                return [(replace(infos[0], image=None, error=error), None)]
            return [pair for info in infos for pair in self._results([info])]
        except NotFiniteError as error:
            if len(error.results) != len(infos):
                if len(infos) == 1:
                    return [self._failed(infos[0], next(iter(error.faults.values())))]
                return [pair for info in infos for pair in self._results([info])]
            return [
                (info, result) if i not in error.faults else self._failed(info, error.faults[i])
                for i, (info, result) in enumerate(zip(infos, error.results, strict=True))
            ]

    def _failed(self, info: FrameInfo, why: str) -> Pair:
        """The record of a picture that the network gave no usable numbers for."""
        error = not_finite(self._model, {info.index: why}, names={info.index: info.name})
        return replace(info, image=None, error=error), None

    def _call(self, pictures: list[Image]) -> list[Any]:
        model = self._model
        if self._staged is None:
            with self._gate:
                return list(model(pictures, **self._options))
        results: list[Any] = []
        faults: dict[int, str] = {}
        for group in model.groups(pictures, len(pictures)):
            raw, geometries = self._staged(group, self._gate)
            try:
                made = finish(model, raw, geometries, None, self._postprocess)
            except NotFiniteError as error:
                made = error.results
                faults.update((len(results) + i, why) for i, why in error.faults.items())
            results += [_with_path(result, picture.path) for result, picture in zip(made, group, strict=True)]
        if faults:
            raise not_finite(model, faults, results)
        return results

    def _postprocess(self, raw: Any, geometries: list[Any], _: list[Any]) -> list[Any]:
        return list(self._model.postprocess(raw, geometries, **self._options))


def _with_path(result: Any, path: str | None) -> Any:
    return (
        result
        if result is None or path is None or getattr(result, "path", path) == path
        else replace(result, path=path)
    )
