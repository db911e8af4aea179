"""`track`: follow objects through a video, with any model that has `.track()`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import ArchitectureName, DeviceName, ModelName, Offline, PrecisionName, Refresh, Threads
from lensmount.errors import InputError, LensmountError, OptionError, UnsupportedModelError

if TYPE_CHECKING:
    from lensmount_vision.images.sources import Frame

# A clip shorter than this is known to be, so that trackers which scale by its length can.
_SHORT = 16


def track(
    model: ModelName,
    video: Annotated[str, typer.Argument(help="Video file, camera number or stream address.")],
    box: Annotated[list[str] | None, typer.Option(help="x1,y1,x2,y2 of an object; repeat for more objects.")] = None,
    point: Annotated[list[str] | None, typer.Option(help="x,y on an object; repeat for more objects.")] = None,
    at: Annotated[int, typer.Option(help="Frame that boxes and points are on, from 0.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Video to write, with the masks drawn.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", help="File for the masks as JSON, or - .")] = None,
    max_frames: Annotated[int | None, typer.Option(help="Stop after so many frames.")] = None,
    image_size: Annotated[int | None, typer.Option(help="The network's input size, where the model lets it.")] = None,
    backend: Annotated[str | None, typer.Option(help="torch, …; None to choose.")] = None,
    device: DeviceName = None,
    precision: PrecisionName = None,
    architecture: ArchitectureName = None,
    threads: Threads = None,
    offline: Offline = False,
    refresh: Refresh = False,
) -> None:
    """Follow objects through a video: they get the numbers 1, 2, … in the order of the boxes, then of the points."""
    from lensmount import registry
    from lensmount_vision.images.sources import video_frames

    boxes = [_numbers("--box", text, 4) for text in box or ()]
    points = [_numbers("--point", text, 2) for text in point or ()]
    if not boxes and not points:
        raise InputError("there is nothing to follow", expected="--box x1,y1,x2,y2 or --point x,y")
    if at < 0 or (max_frames is not None and max_frames <= at):
        raise OptionError("--at is out of range", found=str(at), expected="a frame from 0, below --max-frames")
    frames = video_frames(video)
    ahead = list(islice(frames, _SHORT))  # a bad video is refused before weights are fetched
    if len(ahead) <= at < _SHORT:
        raise InputError("the video ends before --at", found=f"{len(ahead)} frames", expected=f"more than {at}")
    extra: dict[str, Any] = {
        name: value for name, value in (("threads", threads), ("image_size", image_size)) if value is not None
    }
    with registry.load(
        model,
        backend=backend,
        device=device,
        precision=precision,
        architecture=architecture,
        offline=offline or None,
        refresh=refresh,
        **extra,
    ) as loaded:
        if not hasattr(loaded, "track"):
            raise UnsupportedModelError(
                f"{loaded.card.id!r} does not track",
                found=f"task {loaded.card.task}",
                expected="a model of video-segmentation",
            )
        tracker = loaded.track(total_frames=len(ahead) if len(ahead) < _SHORT else None)
        work = islice(chain(ahead, frames), max_frames)
        _follow(tracker, work, at, boxes, points, video, save, json_file)


def _numbers(option: str, text: str, count: int) -> list[float]:
    parts = text.replace(" ", "").split(",")
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise OptionError(f"{option} is not valid", found=repr(text), expected=f"{count} numbers with commas between")
    return numbers


def _follow(
    tracker: Any,
    frames: Iterator[Frame],
    at: int,
    boxes: list[list[float]],
    points: list[list[float]],
    source: str,
    save: Path | None,
    json_file: str | None,
) -> None:
    from lensmount.cli.output import err, out, write_json
    from lensmount_vision.cli.sinks import VideoWriter
    from lensmount_vision.cli.stopping import leave, uninterrupted
    from lensmount_vision.models.entries import is_live

    writer = None
    if save is not None:
        if save.suffix.lower() != ".mp4":
            raise OptionError("--save is not valid", found=str(save), expected="a file that ends in .mp4")
        save.parent.mkdir(parents=True, exist_ok=True)
        writer = VideoWriter(save)
    results: list[dict[str, Any]] = []
    seen, quiet, stopped = 0, json_file == "-", False
    try:
        for frame in frames:
            if frame.number == at:
                for given in boxes:
                    tracker.prompt(frame.image, boxes=given)
                for given in points:
                    tracker.prompt(frame.image, points=[given])
            result = tracker.step(frame.image)
            with uninterrupted():
                seen += 1
                if json_file is not None:
                    results.append({"source": source, "seconds": frame.seconds, **result.to_dict()})
                if writer is not None:
                    writer.write(result.draw(frame.image), frame.seconds)
                if not quiet:
                    shown = zip(
                        result.object_ids.tolist(), result.scores.tolist(), result.masks.area.tolist(), strict=True
                    )
                    text = ", ".join(f"#{number} {score:.2f} {area} px" for number, score, area in shown)
                    out().print(f"{source}#{frame.number}: {text or 'nothing yet'}", markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        stopped = True
    except LensmountError:
        if writer is not None:
            writer.discard()
        raise
    if seen <= at and not stopped:
        if writer is not None:
            writer.discard()
        raise InputError("the video ends before --at", found=f"{seen} frames", expected=f"more than {at}")
    if writer is not None and save is not None and not seen:
        writer.discard()
    elif writer is not None and save is not None:
        writer.close()
        err().print(f"saved {save}", markup=False, soft_wrap=True)
    if json_file is not None:
        write_json(results, json_file)
    if stopped and not is_live(source):
        leave(seen, None, "frames")
    if stopped:  # a camera has no end: stopping it is no failure
        err().print("stopped")
