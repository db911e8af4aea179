"""`track`: follow objects through a video: those that were shown, with masks, or those that a detector finds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lensmount.cli.settings import ArchitectureName, DeviceName, ModelName, Offline, PrecisionName, Refresh, Threads
from lensmount.errors import InputError, LensmountError, OptionError, UnsupportedModelError
from lensmount_vision.cli.options import BoxOverlap, ClassNames, Confidence, MaxDetections, call_options

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
    tracker: Annotated[
        str | None, typer.Option(help="Of what a detector finds: bytetrack (default), sort, ocsort, botsort, cbiou.")
    ] = None,
    tracker_settings: Annotated[
        list[str] | None, typer.Option("--tracker-set", help="Setting of the tracker, NAME=VALUE; may be repeated.")
    ] = None,
    confidence: Confidence = None,
    classes: ClassNames = None,
    iou: BoxOverlap = None,
    max_detections: MaxDetections = None,
    save: Annotated[Path | None, typer.Option(help="Video to write, with the objects drawn.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", help="File for the objects as JSON, or - .")] = None,
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
    """Follow objects through a video.

    With --box and --point, a model of masks follows what they show: numbers 1, 2, … in the order of the boxes, then of
    the points. Without them a detector's objects get numbers that stay theirs.
    """
    from lensmount import registry
    from lensmount_vision.images.sources import video_frames

    boxes = [_numbers("--box", text, 4) for text in box or ()]
    points = [_numbers("--point", text, 2) for text in point or ()]
    if save is not None and save.suffix.lower() != ".mp4":
        raise OptionError("--save is not valid", found=str(save), expected="a file that ends in .mp4")
    call = call_options(confidence, classes, iou, max_detections)
    load: dict[str, Any] = {
        "backend": backend,
        "device": device,
        "precision": precision,
        "architecture": architecture,
        "offline": offline or None,
        "refresh": refresh,
    }
    load |= {name: value for name, value in (("threads", threads), ("image_size", image_size)) if value is not None}
    if not boxes and not points:
        if at:
            raise OptionError("--at is the frame of boxes and points", found="neither", fix="leave --at out")
        _detections(model, video, load, call, tracker, tracker_settings, save, json_file, max_frames)
        return
    if call or tracker is not None or tracker_settings:
        names = [*call, *(["tracker"] if tracker is not None or tracker_settings else [])]
        raise OptionError(
            "what is shown with --box and --point is followed without a detector",
            found=", ".join(f"--{name.replace('_', '-')}" for name in names),
            fix="leave it out, or leave out --box and --point",
        )
    if at < 0 or (max_frames is not None and max_frames <= at):
        raise OptionError("--at is out of range", found=str(at), expected="a frame from 0, below --max-frames")
    frames = video_frames(video)
    ahead = list(islice(frames, _SHORT))  # a bad video is refused before weights are fetched
    if len(ahead) <= at < _SHORT:
        raise InputError("the video ends before --at", found=f"{len(ahead)} frames", expected=f"more than {at}")
    with registry.load(model, **load) as loaded:
        if not hasattr(loaded, "track"):
            raise UnsupportedModelError(
                f"{loaded.card.id!r} does not follow what is shown",
                found=f"task {loaded.card.task}",
                expected="a model of video-segmentation",
                fix="without --box and --point, what it finds is followed",
            )
        tracker = loaded.track(total_frames=len(ahead) if len(ahead) < _SHORT else None)
        work = islice(chain(ahead, frames), max_frames)
        _follow(tracker, work, at, boxes, points, video, save, json_file)


def _detections(
    model: str,
    video: str,
    load: dict[str, Any],
    call: dict[str, Any],
    tracker: str | None,
    settings: list[str] | None,
    save: Path | None,
    json_file: str | None,
    max_frames: int | None,
) -> None:
    from lensmount import registry
    from lensmount.cli.settings import load_options
    from lensmount_vision.cli.predict import run
    from lensmount_vision.cli.sinks import Sinks
    from lensmount_vision.models.entries import entries_of
    from lensmount_vision.models.streaming import stream
    from lensmount_vision.tracking import tracker as named

    make = named(tracker or "bytetrack", **load_options(settings))
    entries_of(video)  # a bad source is refused before weights are fetched
    with registry.load(model, **load) as loaded:
        if hasattr(loaded, "track"):
            raise InputError(
                "there is nothing to follow",
                found=f"{loaded.card.id!r}, which follows what it is shown",
                expected="--box x1,y1,x2,y2 or --point x,y",
                fix="a detector's objects are followed without",
            )
        sinks = Sinks(loaded, video=save, json_file=json_file)
        run(stream(loaded, video, max_frames=max_frames, tracker=make, **call), sinks, "track")


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
    from lensmount_vision.cli.stopping import leave, uninterrupted
    from lensmount_vision.images.writing import VideoWriter
    from lensmount_vision.models.entries import is_live

    writer = None
    if save is not None:
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
