"""Objects through a whole file, with prompts on any of its frames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import check_names, flag, is_whole, positive
from lensmount_sam2.geometry import POINTERS
from lensmount_sam2.tracker import Tracker

if TYPE_CHECKING:
    from lensmount_sam2.runner import Runner
    from lensmount_vision.images.image import Color, Image
    from lensmount_vision.results.kinds import VideoMasks

PROMPT_KEYS = ("points", "labels", "boxes", "mask", "object_id")
BYTES_AT_ONCE = 1 << 29
"""Frames of a video file that are held while it is followed backwards."""


def propagate(
    runner: Runner,
    video: Any,
    prompts: Mapping[int, Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    *,
    max_frames: int | None = None,
    max_conditioning_frames: int = 8,
    reverse: bool = False,
    color: Color | None = None,
) -> Iterator[VideoMasks]:
    """Follows objects from the first prompted frame to the end, or from the last one back to the beginning.

    A file, a folder of pictures or a list of them is read twice where several frames are prompted, so that each frame
    knows the prompts that come after it, as in the reference. Of a stream each prompt counts from its frame on.
    Either way, memory does not grow with the video. Backwards, a video file is decoded once for every stretch of frames
    that fits in memory, because few formats can be read from their end.

    Args:
        runner: The model's networks.
        video: A video file, stream address or camera number; a folder of pictures (by name); a list of pictures, or
            an iterator of them.
        prompts: What each prompted frame, counted from 0, is told: one or several of `Tracker.prompt`'s `points`,
            `labels`, `boxes`, `mask`, `object_id`.
        max_frames: Only this many frames of the video, from its beginning.
        max_conditioning_frames: See `Sam2.track`.
        reverse: From the last prompted frame back to frame 0. Not of streams and iterators, which have one direction.
        color: Channel order of arrays and tensors.

    Yields:
        Masks of every object, frame by frame.

    Raises:
        InputError: There is no prompt, one is not valid, or lies beyond the end; or a stream is to be followed
            backwards.
        ImageError: The video cannot be read.
    """
    limit = None if max_frames is None else positive("max_frames", max_frames)
    told = _checked(prompts, limit)
    again = _can_reopen(video)
    if flag("reverse", reverse):
        if not again:
            raise InputError(
                "what is read once cannot be followed backwards",
                found=type(video).__name__,
                expected="a video file, a folder, an array or a list of pictures",
                fix="store the stream first, or pass list(pictures)",
            )
        return _run_back(runner, video, told, limit, max_conditioning_frames, color)
    return _run(runner, video, told, limit, max_conditioning_frames, color, twice=len(told) > 1 and again)


def _run(
    runner: Runner,
    video: Any,
    told: dict[int, list[Mapping[str, Any]]],
    limit: int | None,
    capacity: int,
    color: Color | None,
    *,
    twice: bool,
) -> Iterator[VideoMasks]:
    frames = itertools.islice(_frames(video, color), limit)
    ahead = list(itertools.islice(frames, POINTERS))  # a clip shorter than this changes how pointers count
    tracker = Tracker(runner, total_frames=max(len(ahead), 1), max_conditioning_frames=capacity, keep_all=twice)
    done: set[int] = set()
    if twice:
        done, _ = _tell_all(tracker, _frames(video, color), told)
    first, reached = min(told), -1
    for number, image in enumerate(itertools.chain(ahead, frames)):
        reached = number
        if number < first:
            continue
        if number in told and number not in done:
            _tell(tracker, image, number, told[number])
            done.add(number)
            yield tracker.finish(tracker.present)
        else:
            yield tracker.finish(tracker.begin(image, number))
    _check_end(told, done, reached)


def _run_back(
    runner: Runner,
    video: Any,
    told: dict[int, list[Mapping[str, Any]]],
    limit: int | None,
    capacity: int,
    color: Color | None,
) -> Iterator[VideoMasks]:
    total = sum(1 for _ in itertools.islice(_frames(video, color), min(limit or POINTERS, POINTERS)))
    tracker = Tracker(runner, total_frames=max(total, 1), max_conditioning_frames=capacity, keep_all=True, reverse=True)
    done, reached = _tell_all(tracker, _frames(video, color), told)
    _check_end(told, done, reached)
    for number, image in _backwards(video, color, max(told)):
        yield tracker.finish(tracker.begin(image, number))


def _tell_all(
    tracker: Tracker, frames: Iterator[Image], told: dict[int, list[Mapping[str, Any]]]
) -> tuple[set[int], int]:
    """Tells a tracker every prompt; returns the frames that there were prompts for, and the last frame met."""
    done: set[int] = set()
    reached = -1
    for number, image in enumerate(itertools.islice(frames, max(told) + 1)):
        reached = number
        if number in told:
            _tell(tracker, image, number, told[number])
            done.add(number)
    return done, reached


def _check_end(told: Mapping[int, Any], done: set[int], reached: int) -> None:
    missing = sorted(set(told) - done)
    if missing:
        raise InputError(
            "prompts lie beyond the end of the video", found=f"frames {missing}", expected=f"0 to {reached}"
        )


def _tell(tracker: Tracker, image: Image, number: int, prompts: list[Mapping[str, Any]]) -> None:
    tracker.begin(image, number)
    for prompt in prompts:
        tracker.prompt(None, **prompt)


def _checked(prompts: Any, limit: int | None) -> dict[int, list[Mapping[str, Any]]]:
    if not isinstance(prompts, Mapping) or not prompts:
        raise InputError("there is no prompt", found=repr(prompts)[:80], expected="{frame: {'boxes': …}}")
    told: dict[int, list[Mapping[str, Any]]] = {}
    for frame, given in prompts.items():
        if not is_whole(frame) or frame < 0 or (limit is not None and frame >= limit):
            end = "" if limit is None else f" below {limit}"
            raise OptionError("a prompt's frame is not valid", found=repr(frame), expected=f"a number from 0{end}")
        several = [given] if isinstance(given, Mapping) else list(given)
        for prompt in several:
            check_names(prompt, PROMPT_KEYS, f"the prompt on frame {frame}")
        if several:
            told[int(frame)] = several
    return told


def _can_reopen(video: Any) -> bool:
    if isinstance(video, str | os.PathLike):
        return Path(video).exists()
    return isinstance(video, Sequence) or (hasattr(video, "shape") and not is_whole(video))  # a number is a camera


def _backwards(video: Any, color: Color | None, last: int) -> Iterator[tuple[int, Image]]:
    """The frames from one back to the first, with their numbers."""
    from lensmount_vision.images.loading import load, load_many
    from lensmount_vision.images.sources import expand_sources, is_video

    if isinstance(video, str | os.PathLike) and is_video(video):
        yield from _video_backwards(video, last)
        return
    pictures: Sequence[Any]
    if isinstance(video, str | os.PathLike):
        pictures, color = list(expand_sources(video)), None
    else:
        pictures = load_many(video, color=color) if hasattr(video, "shape") else video
    for number in range(last, -1, -1):
        yield number, load(pictures[number], color=color)


def _video_backwards(video: Any, last: int) -> Iterator[tuple[int, Image]]:
    end = last + 1
    while end > 0:
        start, kept = 0, list[Any]()
        for number, image in enumerate(itertools.islice(_frames(video, None), end)):
            if not number:
                start = max(end - max(BYTES_AT_ONCE // (3 * image.size[0] * image.size[1]), 1), 0)
            if number >= start:
                kept.append((number, image))
        yield from reversed(kept)
        end = start


def _frames(video: Any, color: Color | None) -> Iterator[Image]:
    from lensmount_vision.images.loading import load, load_many
    from lensmount_vision.images.sources import expand_sources, is_video, video_frames

    if is_whole(video) or (isinstance(video, str | os.PathLike) and is_video(video)):
        for frame in video_frames(str(video)):
            yield frame.image
    elif isinstance(video, str | os.PathLike):
        for name in expand_sources(video):
            yield load(name)
    elif hasattr(video, "shape"):
        yield from load_many(video, color=color)
    else:
        for picture in video:
            yield load(picture, color=color)
