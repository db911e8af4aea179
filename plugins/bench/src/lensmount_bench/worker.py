"""The process of one variant of a benchmark: `python -m lensmount_bench.worker`, driven by `lensmount_bench.harness`.

Every variant has a process of its own, so that its memory and CPU time are its own, thread pools of two runtimes do not
get in each other's way, and the start is cold. JSON lines go in and out: first what to load, then one `round` after
another. Only the standard library is imported before the clock of the cold start runs.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

STARTED = time.time()
PICTURES = 8
SYNTHETIC_SIZE = (720, 1280)


def main() -> None:
    """Answers lines of JSON until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches this process too: the driving one ends it
    # What libraries print belongs on standard error; the answers keep the real standard output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(command)
                answer = worker.opened
            else:
                answer = worker.round(float(command["seconds"]), bool(command.get("calls_only")))
        except Exception as error:  # said by the driving process, which goes on with the other variants
            answer = {"error": f"{type(error).__name__}: {getattr(error, 'details', error)}"}
        print(json.dumps(answer), file=answers)


class Worker:
    """A loaded model and the pictures to run it on.

    Args:
        spec: `model`, `load` (options of `registry.load`), `source`, `batch`, `concurrency`, `spawned` (time).

    Attributes:
        opened: What the cold start took, and what is effective.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        from lensmount_bench.machine import device_memory, memory

        self._device_memory = device_memory
        self._memory = memory
        self._device_before = device_memory()
        cold = {"python": STARTED - spec["spawned"]}
        start = time.perf_counter()
        from lensmount import registry
        from lensmount.store import fetch  # noqa: F401 - every load needs it, and the clock of fetching below
        from lensmount_vision.images import loading as images

        cold["import"] = time.perf_counter() - start
        with _fetch_clock() as fetched:
            start = time.perf_counter()
            load: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in spec["load"].items()}
            self._model = registry.load(spec["model"], **load)
            loaded = time.perf_counter() - start
        cold["find"] = fetched.get("before", start) - start
        cold["fetch"] = fetched.get("seconds", 0.0)
        cold["open"] = loaded - cold["find"] - cold["fetch"]
        making = time.perf_counter()
        self._sources = spec["source"] or synthetic(PICTURES)
        making = time.perf_counter() - making
        self._load = images.load_many
        self._batch, self._concurrency = int(spec["batch"]), int(spec["concurrency"])
        self._next: Iterator[Any] = cycle(self._sources)
        start = time.perf_counter()
        self._model([self._sources[0]])
        cold["first result"] = time.perf_counter() - start
        cold["total"] = time.time() - spec["spawned"] - making
        model = self._model
        self.opened = {
            "cold": {name: seconds * 1e3 for name, seconds in cold.items()},
            "id": model.card.id,
            "task": model.card.task,
            "backend": model.backend,
            "device": model.device,
            "precision": model.precision,
            "provider": getattr(model, "provider", model.backend),
            "rss_loaded": memory()[0],
        }

    def _take(self) -> list[Any]:
        return list(islice(self._next, self._batch))

    def round(self, seconds: float, calls_only: bool) -> dict[str, Any]:
        """Measures for about so many seconds, after one call that is not counted."""
        self._model(self._take())
        share = seconds if calls_only else seconds / 3
        answer: dict[str, Any] = {"stages": {} if calls_only else self._stages(share), "stream": 0.0}
        calls = self._calls if self._concurrency == 1 else self._concurrent
        answer |= calls(share)
        expected = answer["images"] / answer["wall"]
        if not calls_only:
            answer["stream"] = self._stream(max(6, round(share * expected)))
        now, peak = self._memory()
        device = self._device_memory()
        on_gpu = self._model.device.startswith("cuda")
        used = max(0, device - (self._device_before or 0)) if on_gpu and device is not None else None
        return answer | {"rss": now, "rss_peak": peak, "device_memory": used}

    def _calls(self, seconds: float) -> dict[str, Any]:
        times: list[float] = []
        cpu = time.process_time()
        begin = time.perf_counter()
        while len(times) < 3 or time.perf_counter() - begin < seconds:
            group = self._take()
            start = time.perf_counter()
            self._model(group)
            times.append((time.perf_counter() - start) * 1e3)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        return {"call": times, "images": len(times) * self._batch, "wall": wall, "cpu": cpu}

    def _concurrent(self, seconds: float) -> dict[str, Any]:
        """Several threads call the one model."""
        times: list[list[float]] = [[] for _ in range(self._concurrency)]
        failures: list[Exception] = []
        groups = [self._take() for _ in range(len(self._sources))]
        begin = time.perf_counter()

        def run(number: int) -> None:
            mine = times[number]
            turn = number
            try:
                while len(mine) < 2 or time.perf_counter() - begin < seconds:
                    start = time.perf_counter()
                    self._model(groups[turn % len(groups)])
                    mine.append((time.perf_counter() - start) * 1e3)
                    turn += 1
            except Exception as error:  # raised below, in the main thread
                failures.append(error)

        cpu = time.process_time()
        threads = [threading.Thread(target=run, args=(number,)) for number in range(self._concurrency)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        if failures:
            raise failures[0]
        every = [value for mine in times for value in mine]
        return {"call": every, "images": len(every) * self._batch, "wall": wall, "cpu": cpu}

    def _stages(self, seconds: float) -> dict[str, list[float]]:
        """Each stage by itself, one after the other in one thread; empty for models that are not built in stages."""
        model = self._model
        staged = all(hasattr(model, name) for name in ("preprocess", "forward", "postprocess"))
        times: dict[str, list[float]] = {name: [] for name in ("decode", "preprocess", "network", "postprocess")}
        begin = time.perf_counter()
        while len(times["decode"]) < 3 or time.perf_counter() - begin < seconds:
            pictures = _timed(times["decode"], self._load, self._take())
            if not staged:
                _timed(times["network"], model, pictures)
                continue
            for group in model.groups(pictures, len(pictures)) if hasattr(model, "groups") else [pictures]:
                batch, geometries = _timed(times["preprocess"], model.preprocess, group)
                raw = _timed(times["network"], model.forward, batch)
                _timed(times["postprocess"], model.postprocess, raw, geometries)
        return {("call" if not staged and name == "network" else name): v for name, v in times.items() if v}

    def _stream(self, count: int) -> float:
        """Images per second of a stream over the same pictures."""
        from lensmount_vision.models.streaming import stream

        start = time.perf_counter()
        done = 0
        for info, _ in stream(self._model, islice(self._next, count), batch_size=self._batch):
            if info.error is not None:
                raise info.error
            done += 1
        return done / (time.perf_counter() - start)


def _timed(times: list[float], call: Callable[..., Any], *arguments: Any) -> Any:
    start = time.perf_counter()
    result = call(*arguments)
    times.append((time.perf_counter() - start) * 1e3)
    return result


class _fetch_clock:  # noqa: N801  # used like a function
    """Notes when a load begins to fetch its files and how long that takes."""

    def __enter__(self) -> dict[str, float]:
        from lensmount.store import fetch

        self._names = vars(fetch)
        self._real = fetch.fetch_package
        noted: dict[str, float] = {}

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            noted.setdefault("before", start)
            try:
                return self._real(*arguments, **named)
            finally:
                noted["seconds"] = noted.get("seconds", 0.0) + time.perf_counter() - start

        self._names["fetch_package"] = timed
        return noted

    def __exit__(self, *exc_info: object) -> None:
        self._names["fetch_package"] = self._real


def synthetic(count: int) -> list[bytes]:
    """The same pictures on every machine: JPEGs of 1280x720 with gradients, blobs and noise, as costly as photographs.

    Their bytes depend on the JPEG encoder of the installed OpenCV, their pixels before encoding do not.
    """
    import numpy as np

    from lensmount_vision.images.decoding import import_cv2

    cv2 = import_cv2()
    height, width = SYNTHETIC_SIZE
    made = []
    for index in range(count):
        rng = np.random.default_rng(index)
        small = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
        picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        for _ in range(40):
            centre = (int(rng.integers(width)), int(rng.integers(height)))
            color = [int(value) for value in rng.integers(0, 256, 3)]
            cv2.circle(picture, centre, int(rng.integers(5, 90)), color, -1, cv2.LINE_AA)
        noise = rng.integers(0, 25, (height, width, 1), dtype=np.uint8)
        made.append(cv2.imencode(".jpg", cv2.add(picture, np.repeat(noise, 3, 2)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1])
    return [bytes(content) for content in made]


if __name__ == "__main__":
    main()
