"""Follows objects through a video, frame by frame, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from lensmount.errors import InputError
from lensmount.specs.options import positive
from lensmount_sam2.arrays import to_array
from lensmount_sam2.frame_step import Stepper
from lensmount_sam2.geometry import POINTERS
from lensmount_sam2.memory_bank import Bank, Record
from lensmount_sam2.on_host import CLAMP
from lensmount_sam2.prompts import check_prompts
from lensmount_sam2.runner import MAPS
from lensmount_vision.images.loading import load_many
from lensmount_vision.images.source_keys import image_key
from lensmount_vision.models import NotPicklableError
from lensmount_vision.models.numbers import bad_rows, not_finite
from lensmount_vision.results.kinds import VideoMasks
from lensmount_vision.results.mask_decoding import resize_logits_in_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lensmount_sam2.prompts import Prompts
    from lensmount_sam2.runner import Runner
    from lensmount_vision.images.geometry import Geometry
    from lensmount_vision.images.image import Color, Image

NOT_FINITE = "NaN or infinity in its mask or its memory"
MASK_AREA = "(H, W) or (P, H, W) of the frame's size"


@dataclass(slots=True)
class _Frame:
    """The present frame: the only one whose maps are kept."""

    number: int
    key: str
    geometry: Geometry
    path: str | None
    maps: Any
    found: dict[int, Record] = field(default_factory=dict)
    tracked: set[int] = field(default_factory=set)
    stepped: bool = False


class Tracker:
    """Objects in one video or camera. Push frames one by one; prompt, add and remove objects whenever you like.

    A frame counts once: a `step` with the very picture that was prompted last finishes that frame. Kept between frames
    are the maps of the last frame and, per object, a bounded bank of memories.

    Args:
        runner: The model's networks; `Runner.require_tracking` has no objection to them.
        total_frames: See `Sam2.track`.
        max_conditioning_frames: See `Sam2.track`.
        keep_all: Keep every prompted frame, and attend to the nearest; for files whose prompts are known beforehand.
        reverse: Frames are met against the order of their numbers.

    Raises:
        OptionError: A number is not valid.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        total_frames: int | None = None,
        max_conditioning_frames: int = 8,
        keep_all: bool = False,
        reverse: bool = False,
    ) -> None:
        self._runner = runner
        self._stepper = Stepper(runner)
        total = POINTERS if total_frames is None else positive("total_frames", total_frames)
        self._longest = min(total, POINTERS)
        self._attended = positive("max_conditioning_frames", max_conditioning_frames)
        self._capacity = None if keep_all else self._attended
        self._direction = -1 if reverse else 1
        # Frames are resampled as the reference does with a folder of pictures: Pillow's bicubic on whole grey values.
        self._spec = replace(runner.preprocess_spec, interpolation="bicubic", resample_dtype="uint8", antialias=True)
        self._banks: dict[int, Bank] = {}
        self._frame: _Frame | None = None
        self._next = 0

    def __reduce__(self) -> NoReturn:
        raise NotPicklableError(
            "a tracker cannot be pickled or copied: it holds networks and their memories",
            fix="load the model in the worker and call model.track() there",
        )

    @property
    def object_ids(self) -> tuple[int, ...]:
        """The objects that are followed, in the order they were added."""
        return tuple(self._banks)

    @property
    def present(self) -> _Frame:
        """The present frame.

        Raises:
            InputError: There is none yet.
        """
        return self._last()

    def reset(self) -> None:
        """Forgets every object and starts counting frames from 0."""
        self._banks.clear()
        self._frame = None
        self._next = 0

    def remove(self, object_id: int) -> None:
        """Stops following an object.

        Raises:
            InputError: There is no such object.
        """
        if object_id not in self._banks:
            raise InputError(
                f"there is no object {object_id!r}", found=str(list(self._banks)), expected="one that was prompted"
            )
        del self._banks[object_id]
        if self._frame is not None:
            self._frame.found.pop(object_id, None)

    def prompt(
        self,
        frame: Any = None,
        *,
        points: Any = None,
        labels: Any = None,
        boxes: Any = None,
        mask: Any = None,
        object_id: int | Sequence[int] | None = None,
        color: Color | None = None,
    ) -> VideoMasks:
        """Shows the tracker an object, or corrects one.

        On a frame where it was not tracked yet, the prompt finds it, and the frame conditions all that follow.
        On one that it was, its mask there is corrected.

        Args:
            frame: A picture; None for the last one. A new picture is the next frame.
            points: `(N, 2)` x, y in the frame's pixels, or `(P, N, 2)` for P objects.
            labels: `(N,)` or `(P, N)`: 1 on the object, 0 off it; None: all on it.
            boxes: `(4,)` xyxy, or `(P, 4)` for P objects; with points, both describe the same object.
            mask: Bool `(H, W)`, or `(P, H, W)` for P objects, taken as it is; not together with points or boxes.
            object_id: Whole number of each object; None for the next free ones, from 1.
            color: Channel order of arrays and tensors.

        Returns:
            Masks of these objects on this frame.

        Raises:
            InputError: A prompt is not valid, or there is no frame yet.
            ImageError: The frame cannot be used.
        """
        self._runner.check_open()
        image = None if frame is None else self._load(frame, color)
        size = image.size if image is not None else self._last().geometry.original_size
        masks = prompts = None
        if mask is not None:
            if points is not None or boxes is not None or labels is not None:
                raise InputError("a mask and other prompts exclude each other on one frame", fix="prompt twice")
            masks = _masks(mask, size)
        else:
            prompts = check_prompts(points, labels, boxes, None, image_size=size, mask_size=(1, 1))
        ids = self._ids(object_id, len(masks) if masks is not None else len(prompts or ()))
        state = self._last() if image is None else self._begin(image, reuse=True)
        faults: dict[int, str] = {}
        for index, number in enumerate(ids):
            fine = True
            if masks is not None:
                fine = self._adopt(state, number, masks[index])
            elif prompts is not None:
                fine = self._point(state, number, prompts, index)
            if not fine:
                faults[number] = NOT_FINITE
        return self._answer(state, ids, faults)

    def step(self, frame: Any, *, color: Color | None = None) -> VideoMasks:
        """Finds every object in the next frame.

        Args:
            frame: A picture.
            color: Channel order of arrays and tensors.

        Returns:
            One mask per object; none, and no work done, while there are no objects.

        Raises:
            ImageError: The frame cannot be used.
            BackendError: The runtime failed.
            NotFiniteError: The network gave the frame or an object NaN or infinity; the masks of the other objects are
                in its `results`. Nothing of them is remembered, and the next frame can be given.
        """
        self._runner.check_open()
        image = self._load(frame, color)
        if not self._banks:
            self._frame = None
            self._next += 1
            return _nothing(image, self._next - 1)
        return self.finish(self._begin(image, reuse=self._frame is not None and not self._frame.stepped))

    # --- for whole files: frames with numbers of their own ------------------------------------------------------------

    def begin(self, image: Image, number: int) -> _Frame:
        """Makes a picture the present frame, under a number; frames need not come in order."""
        return self._open(image, image_key(image), number)

    def finish(self, state: _Frame) -> VideoMasks:
        """Finds every object in the present frame that was not prompted there."""
        groups: dict[Any, list[tuple[int, Any]]] = {}
        for number, bank in self._banks.items():
            conditioned = bank.prompted.get(state.number)
            if conditioned is not None:
                state.found[number] = conditioned
            elif number not in state.found:
                recall = bank.recall(state.number, self._longest)
                groups.setdefault(recall.shape, []).append((number, recall))
            state.tracked.add(number)
        faults: dict[int, str] = {}
        for members in groups.values():
            found = self._stepper.track(state.maps, [recall for _, recall in members], self._longest)
            records = self._stepper.record(state.maps, state.number, found, prompted=False)
            for (number, _), record, fine in zip(members, records, self._stepper.finite(records), strict=True):
                if fine:
                    self._banks[number].add(record)
                    state.found[number] = record
                else:
                    faults[number] = NOT_FINITE
        state.stepped = True
        return self._answer(state, list(self._banks), faults)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _load(self, frame: Any, color: Color | None) -> Image:
        images = load_many(frame, color=color)
        if len(images) != 1:
            raise InputError("a tracker takes one frame at a time", found=f"{len(images)} pictures", expected="one")
        return images[0]

    def _last(self) -> _Frame:
        if self._frame is None:
            raise InputError("there is no frame to prompt on", expected="a picture", fix="pass frame=…")
        return self._frame

    def _begin(self, image: Image, *, reuse: bool) -> _Frame:
        key = image_key(image)
        if reuse and self._frame is not None and self._frame.key == key:
            return self._frame
        self._next += 1
        return self._open(image, key, self._next - 1)

    def _open(self, image: Image, key: str, number: int) -> _Frame:
        batch, (geometry,) = self._runner.prepare([image], self._spec)
        self._frame = None  # its maps make room for the next
        self._next = number + 1
        maps = self._stepper.encode(batch)
        if faults := bad_rows(dict(zip(MAPS, maps, strict=True)), 1):
            raise not_finite(self._runner, {number: faults[0]}, [None], {number: image.path}, of="frame")
        self._frame = _Frame(number, key, geometry, image.path, maps)
        return self._frame

    def _ids(self, given: int | Sequence[int] | None, count: int) -> list[int]:
        if given is None:
            start = max((*self._banks, 0)) + 1
            return list(range(start, start + count))
        ids = [given] if isinstance(given, int | np.integer) else list(given)
        whole = all(isinstance(i, int | np.integer) and not isinstance(i, bool) and i >= 0 for i in ids)
        if len(ids) != count or len(set(ids)) != count or not whole:
            raise InputError(
                "object_id does not fit the prompts",
                found=repr(given)[:80],
                expected=f"{count} different whole numbers from 0",
            )
        return [int(i) for i in ids]

    def _point(self, state: _Frame, number: int, prompts: Prompts, index: int) -> bool:
        points, labels = prompts.encode(state.geometry)
        earlier = state.found.get(number)
        corrects = number in state.tracked and number in self._banks and not self._conditions(state, number)
        found = self._stepper.prompt(
            state.maps,
            points[index : index + 1],
            labels[index : index + 1],
            None if earlier is None else earlier.logits,
            self._banks[number].recall(state.number, self._longest) if corrects else None,
            self._longest,
        )
        (record,) = self._stepper.record(state.maps, state.number, found, prompted=True)
        return self._keep(state, number, record, conditions=not corrects)

    def _adopt(self, state: _Frame, number: int, mask: NDArray[np.bool_]) -> bool:
        found, stated = self._stepper.adopt(state.maps, mask)
        (record,) = self._stepper.record(state.maps, state.number, found, prompted=True, stated=stated)
        corrects = number in state.tracked and number in self._banks and not self._conditions(state, number)
        return self._keep(state, number, record, conditions=not corrects)

    def _conditions(self, state: _Frame, number: int) -> bool:
        return state.number in self._banks[number].prompted

    def _keep(self, state: _Frame, number: int, record: Record, *, conditions: bool) -> bool:
        """Remembers a record of finite numbers; whether it is one."""
        if self._stepper.finite([record]) != [True]:
            return False
        bank = self._banks.get(number)
        if bank is None:
            bank = Bank(self._stepper.reach, POINTERS, self._attended, self._capacity, self._direction)
            self._banks[number] = bank
        state.found[number] = record
        if conditions:
            bank.condition(record)
        else:
            bank.add(record)
        return True

    def _answer(self, state: _Frame, ids: Sequence[int], faults: dict[int, str]) -> VideoMasks:
        """The masks of objects on the present frame; an error that has them where others have none."""
        result = self._result(state, [number for number in ids if number not in faults])
        if faults:
            raise not_finite(self._runner, faults, [result], of=f"frame {state.number}, object")
        return result

    def _result(self, state: _Frame, ids: Sequence[int]) -> VideoMasks:
        if not ids:
            return _nothing(None, state.number, state.geometry.original_size)
        import torch

        records = [state.found[number] for number in ids]
        logits = to_array(torch.cat([record.logits for record in records]))[:, 0]
        presence = to_array(torch.cat([record.presence for record in records]))[:, 0].astype(np.float64)
        return VideoMasks(
            object_ids=np.array(ids, np.int64),
            masks=resize_logits_in_boxes(logits, None, state.geometry),
            scores=(1 / (1 + np.exp(-presence))).astype(np.float32),
            logits=np.clip(logits, -CLAMP, CLAMP),
            image_size=state.geometry.original_size,
            frame=state.number,
            path=state.path,
        )


def _nothing(image: Image | None, number: int, size: tuple[int, int] | None = None) -> VideoMasks:
    from lensmount_vision.results.kinds import Masks

    height, width = size or (image.size if image is not None else (0, 0))
    return VideoMasks(
        object_ids=np.zeros(0, np.int64),
        masks=Masks.empty((height, width)),
        scores=np.zeros(0, np.float32),
        image_size=(height, width),
        frame=number,
        path=image.path if image is not None else None,
    )


def _masks(value: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    try:
        array = to_array(value)
    except ValueError as error:
        raise InputError("the mask is no array", found=str(error)[:200], expected=MASK_AREA) from error
    if array.ndim not in (2, 3) or array.shape[-2:] != size or 0 in array.shape:
        raise InputError("the mask has the wrong shape", found=str(array.shape), expected=f"{MASK_AREA}: {size}")
    if array.dtype.kind not in "biuf" or not np.isin(array, (0, 1)).all():
        raise InputError("the mask is neither bool nor 0 and 1", found=str(array.dtype))
    return array.reshape(-1, *size).astype(bool)
