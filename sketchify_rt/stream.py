"""Work on a stream of things in order, several at once, a bounded number ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def batches(
    sources: Iterable[S], size: Callable[[], int], alone: Callable[[S], bool]
) -> Iterator[list[S]]:
    """Yields lists of `size()` sources, fewer at the end and before one that goes `alone`.

    If `sources` raises, what it gave before comes first.
    """
    batch: list[S] = []
    broken: Exception | None = None
    try:
        for source in sources:
            if alone(source):
                if batch:
                    yield batch
                batch = []
                yield [source]
                continue
            batch.append(source)
            if len(batch) >= size():
                yield batch
                batch = []
    except Exception as error:
        broken = error
    if batch:
        yield batch
    if broken is not None:
        raise broken


def in_order(
    step: Callable[[list[S]], list[T]],
    work: Iterable[list[S]],
    workers: int,
    here: Callable[[S], bool],
) -> Generator[T]:
    """Yields the results of `step` for each list, in order, at most two lists a worker ahead.

    A result that is ready is yielded before another list is taken from `work`. If `work` raises,
    the results of its earlier lists come first. Close the generator if you stop early: that ends
    the work, and the garbage collector may run in a thread that cannot join the workers.

    Args:
        step: Runs in the workers.
        work: The lists; taken from in the calling thread.
        workers: Number of threads.
        here: Whether the calling thread itself works on the list that begins with this item, when
            its turn comes.
    """
    pending: deque[Future[list[T]]] = deque()
    broken: Exception | None = None
    remaining = iter(work)
    with ThreadPoolExecutor(workers, thread_name_prefix="sketchify") as pool:
        try:
            while True:
                try:
                    batch = next(remaining, None)
                except Exception as error:
                    broken, batch = error, None
                if batch is not None and not here(batch[0]):
                    pending.append(pool.submit(step, batch))
                    # One for each list taken, so that a slow consumer leaves the workers fed.
                    if pending[0].done() or len(pending) == 2 * workers:
                        yield from pending.popleft().result()
                    continue
                while pending:
                    yield from pending.popleft().result()
                if batch is None:
                    break
                yield from step(batch)
            if broken is not None:
                raise broken
        finally:
            for future in pending:
                future.cancel()
