"""Objects through a whole file, with prompts on any of its frames."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lensmount.errors import InputError, OptionError
from lensmount.specs.options import check_names, positive
from lensmount_sam2.geometry import POINTERS
from lensmount_sam2.tracker import Tracker

if TYPE_CHECKING:
    from lensmount_sam2.runner import Runner
    from lensmount_vision.images.image import Color, Image
    from lensmount_vision.results.kinds import VideoMasks

PROMPT_KEYS = ("points", "labels", "boxes", "mask", "object_id")


def propagate(
    runner: Runner,
    video: Any,
    prompts: Mapping[int, Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    *,
    max_frames: int | None = None,
    max_conditioning_frames: int = 8,
    color: Color | None = None,
) -> Iterator[VideoMasks]:
    """Follows objects from the first prompted frame to the end.

    A file, a folder of pictures or a list of them is read twice where several frames are prompted, so that each frame
    knows the prompts that come after it, as in the reference. Of a stream each prompt counts from its frame on.
    Either way, memory does not grow with the video.

    Args:
        runner: The model's networks.
        video: A video file, stream address or camera number; a folder of pictures (by name); a list of pictures, or
            an iterator of them.
        prompts: What each prompted frame, counted from 0, is told: one or several of `Tracker.prompt`'s `points`,
            `labels`, `boxes`, `mask`, `object_id`.
        max_frames: Stop after this many frames of the video.
        max_conditioning_frames: See `Sam2.track`.
        color: Channel order of arrays and tensors.

    Yields:
        Masks of every object, frame by frame.

    Raises:
        InputError: There is no prompt, one is not valid, or lies beyond the end.
        ImageError: The video cannot be read.
    """
    limit = None if max_frames is None else positive("max_frames", max_frames)
    told = _checked(prompts, limit)
    twice = len(told) > 1 and _can_reopen(video)
    return _run(runner, video, told, limit, max_conditioning_frames, color, twice=twice)


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
        for number, image in enumerate(itertools.islice(_frames(video, color), max(told) + 1)):
            if number in told:
                _tell(tracker, image, number, told[number])
                done.add(number)
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
        if isinstance(frame, bool) or not isinstance(frame, int) or frame < 0 or (limit is not None and frame >= limit):
            end = "" if limit is None else f" below {limit}"
            raise OptionError("a prompt's frame is not valid", found=repr(frame), expected=f"a number from 0{end}")
        several = [given] if isinstance(given, Mapping) else list(given)
        for prompt in several:
            check_names(prompt, PROMPT_KEYS, f"the prompt on frame {frame}")
        if several:
            told[frame] = several
    return told


def _can_reopen(video: Any) -> bool:
    if isinstance(video, str | os.PathLike):
        return Path(video).exists()
    return isinstance(video, Sequence) or hasattr(video, "shape")


def _frames(video: Any, color: Color | None) -> Iterator[Image]:
    from lensmount_vision.images.loading import load, load_many
    from lensmount_vision.images.sources import expand_sources, is_video, video_frames

    if isinstance(video, int) or (isinstance(video, str | os.PathLike) and is_video(video)):
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
