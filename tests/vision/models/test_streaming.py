"""Streams: order, overlap, bounds, errors, live sources, stopping."""

from __future__ import annotations

import threading
import time

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from lensmount import registry
from lensmount.backend.tensors import host_array
from lensmount.errors import ClosedError, ImageError, OptionError, UnknownOptionError
from lensmount_vision.images.image import Image
from lensmount_vision.images.sources import Frame
from lensmount_vision.models.entries import Feed
from lensmount_vision.models.streaming import stream

ROWS = [(32, 32, 8, 16, 0, 0.9), (12, 40, 8, 8, 2, 0.5)]


@pytest.fixture
def model(graph, raw):
    with registry.load(graph({"output0": raw(ROWS)})) as loaded:
        yield loaded


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(9):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((40 + i, 64, 3), 20 * i, np.uint8))
    return folder


def grey(value, size=(48, 64)):
    return np.full((*size, 3), value, np.uint8)


def network(model):
    """What runs a prepared batch: the model itself, or its way on the device."""
    return model._path or model


def threads_left():
    return [
        t.name
        for t in threading.enumerate()
        if t.name.startswith("lensmount")
        and not t.name.startswith(("lensmount-serve", "lensmount-load", "lensmount-run"))
    ]


def assert_quiet(seconds=3.0):
    deadline = time.monotonic() + seconds
    while threads_left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threads_left() == []


@pytest.mark.parametrize("batch_size", ["auto", 1, 4, 16])
@pytest.mark.parametrize("workers", [1, 5])
def test_a_stream_gives_what_calls_give_in_order(model, pictures, batch_size, workers):
    expected = model(sorted(pictures.iterdir()))
    pairs = list(model.stream(pictures, batch_size=batch_size, workers=workers, concurrency=2))
    assert [info.index for info, _ in pairs] == list(range(9))
    assert [info.source[-5:] for info, _ in pairs] == [f"{i}.png" for i in range(9)]
    assert [result for _, result in pairs] == expected
    assert [info.image.height for info, _ in pairs] == [40 + i for i in range(9)]
    assert_quiet()


def test_options_reach_the_model_and_wrong_ones_are_refused_at_once(model, pictures):
    assert all(len(result) == 1 for _, result in model.stream(pictures, confidence=0.7))
    with pytest.raises(UnknownOptionError, match="confidense"):
        model.stream(pictures, confidense=0.7)
    with pytest.raises(OptionError, match="workers"):
        model.stream(pictures, workers=0)
    with pytest.raises(OptionError, match="policy"):
        model.stream(pictures, policy="newest")
    with pytest.raises(OptionError, match="confidence"):
        list(model.stream(pictures, confidence=7))
    with pytest.raises(ImageError, match="no images"):
        model.stream(pictures.parent)
    assert_quiet()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_bad_pictures_are_records_and_the_rest_go_on(model, pictures, batch_size):
    (pictures / "3.png").write_bytes(b"no picture")
    sources = [*sorted(pictures.iterdir()), pictures / "missing.jpg", grey(9), object()]
    pairs = list(model.stream(sources, batch_size=batch_size))
    bad = [info.index for info, result in pairs if info.error is not None]
    assert bad == [3, 9, 11]
    assert all((result is None) == (info.error is not None) for info, result in pairs)
    assert isinstance(pairs[3][0].error, ImageError)
    assert pairs[3][0].image is None


def test_any_other_error_ends_the_stream_after_the_results_before_it(model):
    def frames():
        yield grey(1)
        yield grey(2)
        raise RuntimeError("the caller's own")

    found = []
    with pytest.raises(RuntimeError, match="own"):
        for pair in model.stream(frames()):
            found.append(pair)
    assert len(found) == 2
    assert_quiet()
    model.close()
    with pytest.raises(ClosedError):
        list(model.stream([grey(1)]))


def test_a_slow_consumer_stops_the_reading(model):
    drawn = []

    def frames():
        for i in range(200):
            drawn.append(i)
            yield grey(i % 250)

    running = model.stream(frames(), workers=3)
    next(running)
    time.sleep(0.3)
    assert len(drawn) <= 3 + 1 + 2
    assert [info.index for info, _ in running] == list(range(1, 200))


def test_closing_stops_all_threads_and_the_source(model):
    ended = threading.Event()

    def frames():
        try:
            while True:
                yield grey(1)
        finally:
            ended.set()

    with model.stream(frames()) as running:
        for _ in range(3):
            next(running)
    assert ended.wait(3)
    assert_quiet()
    assert list(running) == []
    running = model.stream(frames())
    next(running)
    del running  # forgotten instead of closed
    assert_quiet()


def test_an_interrupt_where_results_are_taken_stops_the_threads(model):
    running = model.stream(grey(i) for i in range(1000))
    with pytest.raises(KeyboardInterrupt), running:
        for info, _ in running:
            if info.index == 5:
                raise KeyboardInterrupt
    assert_quiet()


def test_stages_overlap(model, monkeypatch):
    """With every stage taking 20 ms, eight pictures take far less than one after the other."""
    forward = network(model).forward

    def slow(batch):
        time.sleep(0.02)
        return forward(batch)

    monkeypatch.setattr(network(model), "forward", slow)

    class Slow:
        def read(self, limit=-1):
            time.sleep(0.06)
            return cv2.imencode(".png", grey(5))[1].tobytes()

    start = time.perf_counter()
    pairs = list(model.stream([Slow() for _ in range(16)], workers=8, concurrency=1))
    taken = time.perf_counter() - start
    assert all(info.error is None for info, _ in pairs)
    assert taken < 0.7 * 16 * 0.08


def test_the_gate_bounds_the_network(model, monkeypatch):
    inside, most = [], []
    forward = network(model).forward

    def counted(batch):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.005)
        inside.pop()
        return forward(batch)

    monkeypatch.setattr(network(model), "forward", counted)
    list(model.stream([grey(i) for i in range(20)], workers=6, concurrency=2))
    assert max(most) == 2


# --- videos and live sources ------------------------------------------------------------------------------------------


def live(name, count, seconds, value=0, fail=None):
    def frames():
        for i in range(count):
            time.sleep(seconds)
            yield Frame(i, i * seconds, Image(grey(value + i % 50), "bgr", name))
        if fail is not None:
            raise fail

    return Feed(name, frames, live=True)


def test_frames_of_a_video(model, tmp_path):
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for i in range(6):
        writer.write(np.full((64, 64, 3), 40 * i, np.uint8))
    writer.release()
    pairs = list(model.stream(path, max_frames=4))
    assert [(info.frame, round(info.seconds, 2), info.dropped) for info, _ in pairs] == [
        (0, 0, 0),
        (1, 0.1, 0),
        (2, 0.2, 0),
        (3, 0.3, 0),
    ]
    assert pairs[2][0].name == f"{path}#2"


def test_a_live_source_gives_its_latest_frame(model):
    running = model.stream(live("camera", 60, 0.01))
    frames, dropped = [], 0
    for info, _ in running:
        time.sleep(0.05)
        if info.error is None:
            frames.append(info.frame)
            dropped += info.dropped
    assert frames == sorted(set(frames))
    assert len(frames) < 30
    assert dropped == frames[-1] + 1 - len(frames)
    everything = [i.frame for i, _ in model.stream(live("camera", 20, 0.001), policy="all") if i.error is None]
    assert everything == list(range(20))


def test_latest_frames_of_the_callers_own_generator(model):
    def frames():
        for i in range(40):
            time.sleep(0.005)
            yield grey(i)

    found = []
    for info, _ in model.stream(frames(), policy="latest"):
        time.sleep(0.03)
        found.append(info)
    good = [info for info in found if info.error is None]
    assert 2 <= len(good) < 30
    assert sum(info.dropped for info in good) > 5


def test_one_dead_camera_does_not_harm_the_others(model):
    hang = threading.Event()

    def hanging():
        hang.wait(30)
        yield grey(0)

    dead = live("dead", 2, 0.001, fail=ImageError("the camera is gone"))
    feeds = [live("a", 12, 0.01), dead, live("b", 12, 0.01), Feed("stuck", hanging, live=True)]
    seen: dict[str, list[int]] = {}
    errors = {}
    with model.stream(feeds, policy="all") as running:
        for info, _ in running:
            if info.error is not None:
                errors[info.source] = info.error
            else:
                seen.setdefault(info.source, []).append(info.frame)
            if len(errors) == 3:
                break
    hang.set()
    assert seen == {"a": list(range(12)), "b": list(range(12)), "dead": [0, 1]}
    assert "is gone" in str(errors["dead"])
    assert "no more frames" in str(errors["a"])
    assert_quiet()


def test_files_beside_a_camera(model, pictures):
    pairs = list(model.stream([pictures, live("camera", 5, 0.002)], policy="all"))
    names = [info.source for info, _ in pairs if info.error is None]
    assert names.count("camera") == 5
    assert [name[-5:] for name in names if name != "camera"] == [f"{i}.png" for i in range(9)]


# --- models of other kinds, threads -----------------------------------------------------------------------------------


def test_a_model_without_stages_streams_too():
    class Plain:
        device = "cpu"

        def __call__(self, images, *, gain=1):
            return [int(image.pixels[0, 0, 0]) * gain for image in images]

    pairs = list(stream(Plain(), [grey(3), grey(4)], gain=2, batch_size=2))
    assert [result for _, result in pairs] == [6, 8]


def test_a_dynamic_size_runs_pictures_of_different_sizes(graph, raw):
    path = graph({"output0": raw(ROWS)}, size=("h", "w"))
    with registry.load(path, rectangular=True, input_size=64) as model:
        pictures = [grey(1, (32, 64)), grey(2, (64, 32)), grey(3, (64, 64))]
        assert [r for _, r in model.stream(pictures, batch_size=3)] == model(pictures)


def test_results_share_no_memory_with_the_buffer_that_is_used_again(model):
    pictures = [Image(grey(10)), Image(grey(200))]
    first, _ = model.infer_pictures(pictures[:1])
    kept = {name: host_array(array).copy() for name, array in first.items()}
    model.infer_pictures(pictures[1:])
    assert all(np.array_equal(host_array(first[name]), kept[name]) for name in kept)


def test_a_network_that_hands_its_input_on_is_copied(model, monkeypatch):
    monkeypatch.setattr(network(model), "forward", lambda batch: {"same": batch[:, :1]})
    first, _ = model.infer_pictures([Image(grey(10))])
    model.infer_pictures([Image(grey(200))])
    assert float(first["same"][0, 0, 32, 32]) == pytest.approx(10 / 255)


def test_the_buffer_gives_what_a_fresh_one_gives(model, monkeypatch):
    """A small picture after a large one: no pixel of the first is left in the padding."""
    seen = []
    forward = network(model).forward
    kept = lambda batch: seen.append(host_array(batch).copy()) or forward(batch)  # noqa: E731 - as short as it says
    monkeypatch.setattr(network(model), "forward", kept)
    for picture in (grey(250, (64, 64)), grey(3, (16, 64)), grey(9, (64, 16))):
        model.infer_pictures([Image(picture)])
        # On the device mean and deviation are one step: float32's last bit.
        np.testing.assert_allclose(seen[-1], model.preprocess(picture)[0], atol=1e-6 if model._path else 0)


def test_four_threads_get_what_one_gets(model):
    pictures = [grey(i, (30 + i, 64)) for i in range(24)]
    expected = [model(picture)[0] for picture in pictures]
    found = [None] * len(pictures)

    def run(start):
        for _ in range(5):
            for i in range(start, len(pictures), 4):
                found[i] = model(pictures[i])[0]

    threads = [threading.Thread(target=run, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
