from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from sketchify_rt.stream import batches, in_order


def never(_: object) -> bool:
    return False


def test_batches_are_of_the_size_asked_for_at_the_time() -> None:
    sizes = iter([3, 3, 3, 2, 2, 2, 2])
    found = batches(range(8), lambda: next(sizes, 5), never)
    assert list(found) == [[0, 1, 2], [3, 4], [5, 6], [7]]
    assert list(batches([], lambda: 3, never)) == []


def test_some_go_alone() -> None:
    found = batches([0, 1, -1, 2, -2], lambda: 5, lambda n: n < 0)
    assert list(found) == [[0, 1], [-1], [2], [-2]]


def test_what_a_broken_source_gave_comes_first() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise KeyError("the fourth")

    found = batches(source(), lambda: 2, never)
    assert [next(found), next(found)] == [[1, 2], [3]]
    with pytest.raises(KeyError):
        next(found)
    results = in_order(list, batches(source(), lambda: 2, never), 2, never)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(KeyError):
        next(results)


def test_results_come_in_order_and_only_a_few_are_taken_ahead() -> None:
    taken = 0

    def work() -> Iterator[list[int]]:
        nonlocal taken
        for i in range(100):
            taken += 1
            yield [2 * i, 2 * i + 1]

    results = in_order(lambda batch: [n * n for n in batch], work(), 3, never)
    for n in range(10):
        assert next(results) == n * n
        assert taken <= n // 2 + 2 * 3 + 1
    assert [*results] == [n * n for n in range(10, 200)]


def test_a_result_that_is_ready_waits_for_one_more_source_only() -> None:
    done = threading.Event()
    taken = []

    def work() -> Iterator[list[int]]:
        for n in range(100):
            taken.append(n)
            yield [n]
            assert done.wait(60)

    def step(batch: list[int]) -> list[int]:
        if batch[0] == 1:
            finished.wait(60)
        threading.Timer(0.05, done.set).start()  # by then the future of 0 is done
        return batch

    finished = threading.Event()
    results = in_order(step, work(), 4, never)
    assert next(results) == 0
    assert taken in ([0], [0, 1])  # the former where it was done at once
    finished.set()
    assert list(results) == list(range(1, 100))


def test_workers_work_at_the_same_time_and_some_work_is_done_here() -> None:
    together = threading.Barrier(3, timeout=60)
    threads = {}

    def step(batch: list[int]) -> list[int]:
        threads[batch[0]] = threading.current_thread()
        if batch[0] >= 0:
            together.wait()
        return batch

    results = in_order(step, [[0], [1], [2], [-1], [3], [4], [5]], 3, lambda n: n < 0)
    assert list(results) == [0, 1, 2, -1, 3, 4, 5]
    assert threads[-1] is threading.current_thread()
    assert threads[0] is not threading.current_thread()


def test_a_consumer_that_leaves_ends_the_work() -> None:
    done = []
    results = in_order(
        lambda batch: (done.append(batch), batch)[1], ([n] for n in range(99)), 1, never
    )
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(done) <= 3
