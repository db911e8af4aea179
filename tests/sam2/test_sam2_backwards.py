"""Clips followed backwards, and numpy's integers as the numbers of frames."""

from __future__ import annotations

import numpy as np
import pytest

import sam2_tiny
from lensmount.errors import InputError, OptionError

COUNT = 22
FRAMES = sam2_tiny.frames(COUNT)
BOX = [70, 50, 110, 110]
PROMPTS = {19: {"boxes": BOX, "object_id": 1}, 12: {"points": [[40, 60]], "object_id": 2}}
INTEGERS = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.intp]


@pytest.fixture(scope="module")
def backwards(tiny_model):
    return list(tiny_model.propagate(FRAMES, PROMPTS, reverse=True))


def same(found, wanted, tolerance=1e-3):
    assert [result.frame for result in found] == [result.frame for result in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert a.object_ids.tolist() == b.object_ids.tolist()
        assert np.abs(a.logits - b.logits).max() <= tolerance


def test_from_the_last_prompt_to_the_first_frame(backwards):
    assert [result.frame for result in backwards] == list(range(19, -1, -1))
    assert all(result.object_ids.tolist() == [2, 1] for result in backwards)  # as their frames are numbered


def test_time_runs_the_other_way(tiny_model, backwards):
    """The same clip laid out from its end, followed forwards, from the frame that was the last prompted one."""
    turned = {COUNT - 1 - frame: {**prompt} for frame, prompt in sorted(PROMPTS.items())}
    forwards = list(tiny_model.propagate(FRAMES[::-1], dict(turned)))
    assert [COUNT - 1 - result.frame for result in forwards] == [result.frame for result in backwards]
    for a, b in zip(forwards, backwards, strict=True):
        order = [a.object_ids.tolist().index(number) for number in b.object_ids.tolist()]
        assert np.abs(a.logits[order] - b.logits).max() <= 1e-3


def test_every_form_of_a_clip(tiny_model, backwards, tmp_path, monkeypatch):
    import cv2

    from lensmount_sam2 import propagation

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, frame in enumerate(FRAMES):
        cv2.imwrite(str(folder / f"{number:03}.png"), frame)  # arrays are BGR
    same(list(tiny_model.propagate(folder, PROMPTS, reverse=True)), backwards)
    same(list(tiny_model.propagate(np.stack(FRAMES), PROMPTS, reverse=True)), backwards)
    video = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (128, 128))
    for frame in FRAMES:
        writer.write(frame)
    writer.release()
    wanted = list(tiny_model.propagate(video, PROMPTS, reverse=True))
    assert [result.frame for result in wanted] == list(range(19, -1, -1))
    for frames_at_once in (1, 3, 7):  # stretches, each decoded anew
        monkeypatch.setattr(propagation, "BYTES_AT_ONCE", frames_at_once * 3 * 128 * 128)
        same(list(tiny_model.propagate(video, PROMPTS, reverse=True)), wanted)


def test_backwards_over_a_part(tiny_model):
    short = {3: {"boxes": BOX}}
    found = list(tiny_model.propagate(FRAMES, short, reverse=True, max_frames=4))
    same(found, list(tiny_model.propagate(FRAMES[:4], short, reverse=True)))
    (only,) = tiny_model.propagate(FRAMES, {0: {"boxes": BOX}}, reverse=True)
    assert only.frame == 0


@pytest.mark.parametrize("stream", [iter(FRAMES), (frame for frame in FRAMES), 0, np.int64(0), "rtsp://host/clip"])
def test_a_stream_has_one_direction(tiny_model, stream):
    with pytest.raises(InputError, match="backwards"):
        tiny_model.propagate(stream, PROMPTS, reverse=True)


def test_backwards_refuses(tiny_model):
    with pytest.raises(InputError, match="beyond the end"):
        list(tiny_model.propagate(FRAMES[:5], PROMPTS, reverse=True))
    with pytest.raises(OptionError, match="reverse"):
        tiny_model.propagate(FRAMES, PROMPTS, reverse="yes")


@pytest.mark.parametrize("kind", INTEGERS)
def test_frames_by_numpys_integers(tiny_model, kind):
    prompts = {kind(1): {"boxes": BOX, "object_id": kind(3)}, kind(2): {"points": [[40, 60]], "object_id": 5}}
    plain = {int(frame): prompt for frame, prompt in prompts.items()}
    found = list(tiny_model.propagate(FRAMES[:4], prompts, max_frames=kind(4)))
    same(found, list(tiny_model.propagate(FRAMES[:4], plain)), 0)
    assert all(type(result.frame) is int for result in found)


@pytest.mark.parametrize("frame", [True, np.bool_(True), 1.5, np.float32(1), "1", np.int64(-1), None])
def test_what_is_no_frame(tiny_model, frame):
    with pytest.raises(OptionError, match="frame is not valid"):
        tiny_model.propagate(FRAMES, {frame: {"boxes": BOX}})
