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
    """Lists of `size()` sources, fewer at the end and before one that goes `alone`.

    Where `sources` raises, what it gave before comes first.
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
    """The results of `step` for each list, in order, at most two lists a worker ahead.

    Who leaves before the end closes it, which ends the work; the garbage collector may not do so in
    a thread that can join the workers.
    A list whose first item is to be worked on `here` is, by the calling thread, when its turn
    comes. Where `work` raises, the results of what it gave before come first.
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
                    if len(pending) == 2 * workers:
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
