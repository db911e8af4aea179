"""Requests that wait share a run; places are bounded; models load once and the oldest goes."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from lensmount_serve.batching import Batcher, Job
from lensmount_serve.failures import AnswerError
from lensmount_serve.metrics import Metrics
from lensmount_serve.pool import Pool
from lensmount_serve.settings import Settings
from serving import serving


class Slow:
    """A model that waits to be let go, and remembers its runs."""

    def __init__(self, gate=None):
        self.gate = gate or threading.Event()
        self.runs = []
        self.begun = threading.Semaphore(0)

    def __call__(self, pictures):
        self.runs.append(list(pictures))
        self.begun.release()
        assert self.gate.wait(10)
        if "bad" in pictures:
            raise ValueError("a bad picture")
        return [f"seen {picture}" for picture in pictures]


def batcher(model, **changes):
    return Batcher(model, **{"size": 4, "wait": 0.0, "threads": 1, "room": 8, "observe": lambda count: None, **changes})


def job(*pictures, key="same", late=60.0):
    return Job(lambda model, given: model(given), list(pictures), key, time.monotonic() + late)


def test_what_waits_runs_together():
    model = Slow()
    made = batcher(model)
    futures = [made.submit(job("first"))]
    model.begun.acquire()
    futures += [made.submit(job(f"{i}")) for i in range(6)]
    futures.append(made.submit(job("other", key="another")))
    model.gate.set()
    assert [future.result(5)[0] for future in futures[:3]] == [["seen first"], ["seen 0"], ["seen 1"]]
    assert futures[-1].result(5)[0] == ["seen other"]
    assert model.runs == [["first"], ["0", "1", "2", "3"], ["4", "5"], ["other"]]
    made.close(1)


def test_one_bad_picture_harms_only_its_request():
    model = Slow()
    made = batcher(model)
    first = made.submit(job("first"))
    model.begun.acquire()
    good, bad = made.submit(job("good")), made.submit(job("bad"))
    model.gate.set()
    assert first.result(5)[0] == ["seen first"] and good.result(5)[0] == ["seen good"]
    with pytest.raises(ValueError, match="bad picture"):
        bad.result(5)
    made.close(1)


def test_those_that_gave_up_or_are_late_are_not_run():
    model = Slow()
    made = batcher(model)
    made.submit(job("first"))
    model.begun.acquire()
    gone, late = made.submit(job("gone")), made.submit(job("late", late=-1))
    assert gone.cancel()
    model.gate.set()
    with pytest.raises(AnswerError) as caught:
        late.result(5)
    assert caught.value.status == 504
    made.close(1)
    assert model.runs == [["first"]]


def test_places_are_bounded():
    made = batcher(Slow(), room=2)
    with made.admitted(), made.admitted(), pytest.raises(AnswerError) as caught, made.admitted():
        pass
    assert caught.value.status == 429 and caught.value.retry_after >= 1
    with made.admitted():
        pass
    made.close(1)


def test_a_run_waits_to_be_filled():
    model = Slow()
    model.gate.set()
    made = batcher(model, wait=5.0, size=2)
    first = made.submit(job("a"))
    second = made.submit(job("b"))
    assert first.result(4) and second.result(4)
    assert model.runs == [["a", "b"]]
    made.close(1)


# --- the pool ---------------------------------------------------------------------------------------------------------


class Model:
    device = "cpu"

    def __init__(self, name, closed):
        self.card = SimpleNamespace(id=name, task="object-detection")
        self._closed = closed

    def warmup(self):
        pass

    def close(self):
        self._closed.append(self.card.id)


class Shelf:
    """A registry of five models that counts what is loaded."""

    def __init__(self):
        self.loads, self.closed = [], []
        self.fail = False

    def models(self):
        return [SimpleNamespace(id=f"m{i}", aliases=(f"alias{i}",), task="object-detection") for i in range(5)]

    def load(self, name, **options):
        self.loads.append(name)
        time.sleep(0.05)
        if self.fail:
            raise OSError("no disk")
        return Model(name, self.closed)


def in_pool(work, shelf, given=(), **settings):
    async def main():
        pool = Pool(Settings(**settings), shelf, Metrics(), dict(given))
        try:
            return await work(pool)
        finally:
            await pool.stop()

    return asyncio.run(main())


def test_a_model_is_loaded_once_whatever_arrives():
    shelf = Shelf()

    async def work(pool):
        async def one(name):
            async with pool.using(name, time.monotonic() + 5) as held:
                return held

        found = await asyncio.gather(*(one(name) for name in ["m1", "alias1"] * 20))
        assert len({id(held) for held in found}) == 1

    in_pool(work, shelf)
    assert shelf.loads == ["m1"] and shelf.closed == ["m1"]


def test_the_least_recently_used_goes_but_not_while_it_is_used():
    shelf = Shelf()

    async def work(pool):
        async with pool.using("m0", time.monotonic() + 5):
            for name in ("m1", "m2", "m1", "m3"):
                async with pool.using(name, time.monotonic() + 5):
                    pass
            assert {held.key for _, held in pool.listed()} == {"m1", "m3"}
            await asyncio.sleep(0.05)
            assert "m0" not in shelf.closed
        await asyncio.sleep(0.2)
        assert set(shelf.closed) == {"m0", "m2"}

    in_pool(work, shelf, max_models=2)


def test_a_load_that_failed_is_told_to_all_and_tried_again():
    shelf = Shelf()
    shelf.fail = True

    async def work(pool):
        async def one():
            with pytest.raises(OSError, match="no disk"):
                async with pool.using("m1", time.monotonic() + 5):
                    pass

        await asyncio.gather(one(), one())
        shelf.fail = False
        async with pool.using("m1", time.monotonic() + 5) as held:
            assert held.key == "m1"

    in_pool(work, shelf)
    assert shelf.loads == ["m1", "m1"]


def test_who_cannot_wait_for_a_load_is_told_to_come_back():
    shelf = Shelf()

    async def work(pool):
        with pytest.raises(AnswerError) as caught:
            async with pool.using("m1", time.monotonic() + 0.01):
                pass
        assert (caught.value.status, caught.value.retry_after) == (503, 5)
        async with pool.using("m1", time.monotonic() + 5):  # the load went on
            pass

    in_pool(work, shelf)
    assert shelf.loads == ["m1"]


def test_fixed_and_given(tmp_path):
    async def work(pool):
        await pool.start()
        assert pool.key_of("mine") == "mine"
        for name in ("m1", str(tmp_path), "../mine", "file:///etc/passwd"):
            with pytest.raises(AnswerError) as caught:
                pool.key_of(name)
            assert caught.value.status == 404
        pool.clear()
        assert [name for name, _ in pool.listed()] == ["mine"]

    in_pool(work, Shelf(), {"mine": "m4"}.items(), fixed=True)


# --- over HTTP --------------------------------------------------------------------------------------------------------


def test_clients_at_once_get_what_one_gets(picture, direct):
    with serving(max_batch=4, concurrency=1, max_queue=30) as client:
        body = {"model_id": "shapes-nano", "image": picture}
        with ThreadPoolExecutor(12) as threads:
            found = list(threads.map(lambda _: client.post("/infer/object_detection", body), range(36)))
        assert {status for status, _ in found} == {200}
        expected = direct(confidence=0.4, iou_threshold=0.3)
        for _, answer in found:
            rows = answer["predictions"]
            assert [row["class"] for row in rows] == expected.class_name.tolist()
            for row, score in zip(rows, expected.confidence.tolist(), strict=True):
                assert row["confidence"] == pytest.approx(score, abs=1e-5)
        page = client.raw("GET", "/metrics")[2].decode()
        sizes = {
            line.split('le="')[1].split('"')[0]: float(line.split()[-1])
            for line in page.splitlines()
            if line.startswith("lensmount_batch_pictures_bucket")
        }
        assert sizes["+Inf"] < 36  # some shared a run
        assert 'lensmount_stage_seconds_count{model="shapes-nano",stage="run"} 36.0' in page


def test_a_full_queue_is_429_with_a_time(picture):
    with serving(max_batch=1, concurrency=1, max_queue=1) as client:
        body = {"model_id": "shapes-nano", "image": picture}
        import json

        sent = json.dumps(body).encode()

        def one(_):
            return client.raw("POST", "/infer/object_detection", sent, {"Content-Type": "application/json"})

        with ThreadPoolExecutor(16) as threads:
            found = list(threads.map(one, range(48)))
        assert {status for status, _, _ in found} == {200, 429}
        for status, headers, answer in found:
            if status == 429:
                assert int(headers["retry-after"]) >= 1
                assert "wait" in json.loads(answer)["message"]
