"""Tracking: objects that come and go, frames that count once, memory that stays as it is."""

from __future__ import annotations

import copy
import gc
import threading

import numpy as np
import pytest

import sam2_tiny
from lensmount.errors import ClosedError, InputError, OptionError, UnknownOptionError

FRAMES = sam2_tiny.frames(8)
BOX = [70, 50, 110, 110]


def looped(count):
    return (FRAMES[index % len(FRAMES)] for index in range(count))


def same(a, b):
    assert a.object_ids.tolist() == b.object_ids.tolist()
    assert np.abs(a.logits - b.logits).max() < 1e-3


def test_a_frame_counts_once(tiny_model):
    tracker = tiny_model.track()
    first = tracker.prompt(FRAMES[0], boxes=BOX)
    assert first.frame == 0
    assert first.object_ids.tolist() == [1]
    stepped = tracker.step(FRAMES[0])
    assert stepped.frame == 0
    same(stepped, first)
    assert tracker.step(FRAMES[1]).frame == 1
    assert tracker.step(FRAMES[1].copy()).frame == 2  # a camera that shows the same again is a new frame
    other = tiny_model.track()
    other.prompt(FRAMES[0], boxes=BOX)
    assert other.step(FRAMES[1]).frame == 1


def test_a_buffer_may_be_reused(tiny_model):
    buffer = FRAMES[0].copy()
    tracker, other = tiny_model.track(), tiny_model.track()
    tracker.prompt(buffer, boxes=BOX)
    other.prompt(FRAMES[0], boxes=BOX)
    for frame in FRAMES[1:4]:
        buffer[:] = frame
        same(tracker.step(buffer), other.step(frame))


def test_objects_come_and_go(tiny_model):
    tracker = tiny_model.track()
    assert len(tracker.step(FRAMES[0])) == 0
    tracker.prompt(FRAMES[1], boxes=BOX, object_id=7)
    tracker.step(FRAMES[1])
    tracker.prompt(FRAMES[2], points=[[40, 60]])
    result = tracker.step(FRAMES[2])
    assert result.object_ids.tolist() == [7, 8]
    assert result.frame == 2
    tracker.prompt(None, boxes=[[5, 5, 40, 40], [60, 60, 90, 90]], object_id=[1, 2])
    assert tracker.object_ids == (7, 8, 1, 2)
    assert tracker.step(FRAMES[3]).object_ids.tolist() == [7, 8, 1, 2]
    tracker.remove(7)
    assert tracker.step(FRAMES[4]).object_ids.tolist() == [8, 1, 2]
    tracker.reset()
    assert tracker.object_ids == ()
    assert tracker.step(FRAMES[5]).frame == 0


def test_objects_do_not_disturb_each_other(tiny_model):
    alone, together = tiny_model.track(), tiny_model.track()
    alone.prompt(FRAMES[0], boxes=BOX, object_id=1)
    together.prompt(FRAMES[0], boxes=BOX, object_id=1)
    together.prompt(FRAMES[0], points=[[40, 60]], object_id=2)
    for index, frame in enumerate(FRAMES[1:6]):
        if index == 2:
            together.prompt(frame, boxes=[10, 10, 50, 50], object_id=3)
        same(alone.step(frame), together.step(frame)[:1])


def test_correction_changes_what_follows(tiny_model):
    tracker, other = tiny_model.track(), tiny_model.track()
    for each in (tracker, other):
        each.prompt(FRAMES[0], boxes=BOX)
        each.step(FRAMES[1])
    before = other.step(FRAMES[2])
    tracker.step(FRAMES[2])
    corrected = tracker.prompt(None, points=[[20, 20], [90, 80]], labels=[1, 0], object_id=1)
    assert corrected.frame == 2
    assert np.abs(corrected.logits - before.logits).max() > 1e-2
    assert np.abs(tracker.step(FRAMES[3]).logits - other.step(FRAMES[3]).logits).max() > 1e-3


def test_a_mask_is_taken_as_it_is(tiny_model):
    mask = np.zeros((128, 128), bool)
    mask[32:96, 16:80] = True
    tracker = tiny_model.track()
    result = tracker.prompt(FRAMES[0], mask=mask)
    assert result.dense()[0][mask].mean() > 0.97
    assert result.dense()[0][~mask].mean() < 0.03
    assert len(tracker.step(FRAMES[1])) == 1
    empty = tiny_model.track().prompt(FRAMES[0], mask=np.zeros((128, 128), np.uint8))
    assert empty.scores[0] < 0.5
    assert empty.masks.area.tolist() == [0]


def test_no_more_than_the_bank_counts(tiny_model):
    """A tracker that gets another's bank goes on exactly as that one: nothing else is remembered."""
    tracker = tiny_model.track()
    tracker.prompt(FRAMES[0], boxes=BOX)
    for frame in looped(20):
        tracker.step(frame)
    other = tiny_model.track()
    other._banks = copy.deepcopy(tracker._banks)
    other._next = tracker._next
    bank = other._banks[1]
    assert len(bank.memories) <= 7  # the present frame, prompted again, asks for the first of them
    assert len(bank.pointers) <= 16
    assert len(bank.prompted) == 1
    for frame in FRAMES[:4]:
        same(tracker.step(frame), other.step(frame))


def test_prompted_frames_are_bounded(tiny_model):
    tracker = tiny_model.track(max_conditioning_frames=2)
    for frame in FRAMES[:5]:
        tracker.prompt(frame, boxes=BOX, object_id=1)
        tracker.step(frame)
    assert sorted(tracker._banks[1].prompted) == [3, 4]


def held():
    """Bytes of all tensors that are alive."""
    import torch

    gc.collect()
    storages = {}
    for item in gc.get_objects():
        if type(item) is torch.Tensor:
            storage = item.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_memory_does_not_grow(tiny_folder):
    from lensmount import registry

    with registry.load(tiny_folder, image_size=32) as model:
        tracker = model.track()
        tracker.prompt(FRAMES[0], boxes=BOX)
        tracker.prompt(FRAMES[0], points=[[40, 60]])
        sizes = []
        for index, frame in enumerate(looped(100)):
            tracker.step(frame)
            if index % 20 == 19:
                sizes.append(held())
        assert max(sizes) == min(sizes)


def test_many_trackers_of_one_model(tiny_model):
    wanted = []
    for start in range(3):
        tracker = tiny_model.track()
        tracker.prompt(FRAMES[start], boxes=BOX)
        wanted.append([tracker.step(frame).logits for frame in FRAMES[start + 1 : start + 4]])
    found = {}

    def work(start):
        tracker = tiny_model.track()
        tracker.prompt(FRAMES[start], boxes=BOX)
        found[start] = [tracker.step(frame).logits for frame in FRAMES[start + 1 : start + 4]]

    threads = [threading.Thread(target=work, args=(start,)) for start in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start, expected in enumerate(wanted):
        for a, b in zip(found[start], expected, strict=True):
            assert np.abs(a - b).max() < 1e-3


def test_bad_prompts(tiny_model, tiny_folder):
    tracker = tiny_model.track()
    with pytest.raises(InputError, match="no frame"):
        tracker.prompt(boxes=BOX)
    with pytest.raises(InputError, match="no prompt"):
        tracker.prompt(FRAMES[0])
    with pytest.raises(InputError, match="outside"):
        tracker.prompt(FRAMES[0], boxes=[500, 500, 600, 600])
    with pytest.raises(InputError, match="exclude each other"):
        tracker.prompt(FRAMES[0], boxes=BOX, mask=np.zeros((128, 128), bool))
    with pytest.raises(InputError, match="wrong shape"):
        tracker.prompt(FRAMES[0], mask=np.zeros((10, 10), bool))
    with pytest.raises(InputError, match="neither bool"):
        tracker.prompt(FRAMES[0], mask=np.full((128, 128), 0.5))
    with pytest.raises(InputError, match="object_id"):
        tracker.prompt(FRAMES[0], boxes=[BOX, BOX], object_id=[1, 1])
    with pytest.raises(InputError, match="object_id"):
        tracker.prompt(FRAMES[0], boxes=BOX, object_id="dog")
    assert tracker.object_ids == ()  # a refused prompt leaves nothing behind
    assert tracker.prompt(FRAMES[0], boxes=BOX).frame == 0
    with pytest.raises(InputError, match="no object 5"):
        tracker.remove(5)
    with pytest.raises(InputError, match="one frame at a time"):
        tracker.step(FRAMES[:2])
    with pytest.raises(OptionError):
        tiny_model.track(max_conditioning_frames=0)
    from lensmount import registry

    with registry.load(tiny_folder, image_size=64) as model:
        orphan = model.track()
    with pytest.raises(ClosedError):
        orphan.step(FRAMES[0])


def test_propagate(tiny_model):
    prompts = {1: {"boxes": BOX}, 4: [{"points": [[40, 60]], "object_id": 5}]}
    results = list(tiny_model.propagate(FRAMES, prompts))
    assert [result.frame for result in results] == list(range(1, 8))
    assert all(result.object_ids.tolist() == [1, 5] for result in results)  # both frames are read beforehand
    stream = list(tiny_model.propagate(iter(FRAMES), prompts))
    assert [len(result) for result in stream] == [1, 1, 1, 2, 2, 2, 2]
    tracker = tiny_model.track(total_frames=8)
    tracker.step(FRAMES[0])
    tracker.prompt(FRAMES[1], boxes=BOX)
    for frame, result in zip(FRAMES[1:4], stream, strict=False):
        same(tracker.step(frame), result)


def test_propagate_refuses(tiny_model):
    with pytest.raises(InputError, match="no prompt"):
        tiny_model.propagate(FRAMES, {})
    with pytest.raises(UnknownOptionError, match="box"):
        tiny_model.propagate(FRAMES, {0: {"box": BOX}})
    with pytest.raises(OptionError, match="frame"):
        tiny_model.propagate(FRAMES, {-1: {"boxes": BOX}})
    with pytest.raises(InputError, match="beyond the end"):
        list(tiny_model.propagate(FRAMES[:3], {0: {"boxes": BOX}, 9: {"boxes": BOX}}))


def test_results_travel(tiny_model):
    from lensmount_vision.results.kinds import VideoMasks, from_dict

    tracker = tiny_model.track()
    result = tracker.prompt(FRAMES[0], boxes=[BOX, [5, 5, 60, 60]])
    back = from_dict(result.to_dict())
    assert isinstance(back, VideoMasks)
    assert back.object_ids.tolist() == [1, 2]
    assert back.masks == result.masks
    assert result.draw(FRAMES[0]).shape == (128, 128, 3)
    assert result[result.object_ids == 2].object_ids.tolist() == [2]


def test_command(tiny_folder, tmp_path):
    import json

    import cv2
    from typer.testing import CliRunner

    from lensmount.cli.app import app

    video = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (128, 128))
    for frame in FRAMES[:4]:
        writer.write(frame)
    writer.release()
    out, told = tmp_path / "out.mp4", tmp_path / "out.json"
    box = "70,50,110,110"
    arguments = ["track", str(tiny_folder), str(video), "--box", box, "--point", "40,60", "--at", "1"]
    done = CliRunner().invoke(app, [*arguments, "--save", str(out), "--json", str(told)])
    assert done.exit_code == 0, done.output
    results = json.loads(told.read_text())
    assert [len(result["objects"]) for result in results] == [0, 2, 2, 2]
    capture = cv2.VideoCapture(str(out))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    for bad in (["--at", "9"], ["--box", "1,2,3"], ["--save", "x.avi"]):
        refused = CliRunner().invoke(app, [*arguments, *bad])
        assert refused.exit_code != 0
        assert isinstance(refused.exception, InputError)
    assert not list(tmp_path.glob("*partial*"))


def test_a_stopped_command_keeps_what_was_done(tiny_folder, tmp_path, monkeypatch):
    import json

    import cv2
    from typer.testing import CliRunner

    from lensmount.cli.app import app
    from lensmount_sam2.tracker import Tracker

    video = tmp_path / "in.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (128, 128))
    for frame in FRAMES[:4]:
        writer.write(frame)
    writer.release()
    out, told = tmp_path / "out.mp4", tmp_path / "out.json"
    step, steps = Tracker.step, []

    def stopping(self, *arguments, **options):
        steps.append(self)
        if len(steps) > stop:
            raise KeyboardInterrupt
        return step(self, *arguments, **options)

    monkeypatch.setattr(Tracker, "step", stopping)
    arguments = ["track", str(tiny_folder), str(video), "--box", "70,50,110,110", "--at", "1"]
    for stop in (3, 0):
        steps.clear()
        done = CliRunner().invoke(app, [*arguments, "--save", str(out), "--json", str(told)])
        assert done.exit_code == 130, done.output
        assert f"stopped after {stop} frames" in done.output
        assert len(json.loads(told.read_text())) == stop
        assert out.exists() == bool(stop)
        if stop:
            assert int(cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT)) == stop
        out.unlink(missing_ok=True)
        assert not list(tmp_path.glob("*partial*"))
