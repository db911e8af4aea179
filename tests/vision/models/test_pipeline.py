"""Work ahead of its consumer: order, bounds, errors, abandonment."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from lensmount_vision.models.pipeline import batched, count_of, in_order


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int) -> None:
    def work(n: int) -> int:
        time.sleep(0.002 * (n % 3))
        return n * n

    assert [(n, get()) for n, get in in_order(range(20), work, ahead=5, workers=workers)] == [
        (n, n * n) for n in range(20)
    ]


def test_no_more_than_ahead_is_begun() -> None:
    drawn = []

    def source():
        for n in itertools.count():  # endless: drawing it all would never end
            drawn.append(n)
            yield n

    results = in_order(source(), lambda n: n, ahead=4, workers=2)
    for wanted in range(10):
        number, get = next(results)
        assert number == get() == wanted
        assert len(drawn) <= wanted + 1 + 4
    results.close()
    assert not any(t.name.startswith("lensmount-stream") and t.is_alive() for t in threading.enumerate())


def test_an_error_is_raised_where_its_result_is_asked_for() -> None:
    def work(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    found = []
    for n, get in in_order(range(4), work, ahead=3, workers=2):
        try:
            found.append(get())
        except ValueError as error:
            found.append(f"{n}: {error}")
    assert found == [0, 1, "2: two", 3]


def test_work_runs_beside_the_consumer() -> None:
    started = threading.Event()

    def work(n: int) -> int:
        if n == 1:
            started.set()
        return n

    results = in_order(range(3), work, ahead=2, workers=1)
    next(results)
    assert started.wait(5)  # number 1 was begun though nobody asked for it
    results.close()


@pytest.mark.parametrize("interrupt", [None, lambda: None])
def test_an_error_of_the_items_comes_after_what_was_before_it(interrupt) -> None:
    def source():
        yield from range(3)
        raise ValueError("no more")

    found = []
    with pytest.raises(ValueError, match="no more"):
        for n, get in in_order(source(), lambda n: n, ahead=8, workers=2, interrupt=interrupt):
            found += [n, get()]
    assert found == [0, 0, 1, 1, 2, 2]


def test_items_are_drawn_in_the_consumers_thread_unless_they_can_be_interrupted() -> None:
    def source():
        yield threading.get_ident()

    def drawn_in(interrupt):
        return [get() for _, get in in_order(source(), lambda n: n, ahead=2, workers=1, interrupt=interrupt)]

    assert drawn_in(None) == [threading.get_ident()]
    assert drawn_in(lambda: None) != [threading.get_ident()]


def test_closing_drops_what_was_not_begun_and_does_not_wait_for_it() -> None:
    begun = []
    hold = threading.Event()

    def work(n: int) -> int:
        begun.append(n)
        if n:
            hold.wait(0.2)
        return n

    results = in_order(itertools.count(), work, ahead=40, workers=1)
    next(results)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 3  # the wait for what hangs is longer
    assert len(begun) < 5


def test_groups() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
    assert count_of([1, 2]) == 2 and count_of(iter([1])) is None
