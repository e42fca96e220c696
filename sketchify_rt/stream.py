"""Work on a stream of things in order, several at once, a bounded number ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
) -> Iterator[T]:
    """The results of `step` for each list, in order, at most two lists a worker ahead.

    A list whose first item is to be worked on `here` is, by the calling thread, when its turn
    comes. Where `work` raises, the results of what it gave before come first.
    """
    pending: deque[Future[list[T]]] = deque()
    broken: Exception | None = None
    with ThreadPoolExecutor(workers, thread_name_prefix="sketchify") as pool:
        try:
            try:
                for batch in work:
                    if here(batch[0]):
                        while pending:
                            yield from pending.popleft().result()
                        yield from step(batch)
                        continue
                    pending.append(pool.submit(step, batch))
                    if len(pending) == 2 * workers:
                        yield from pending.popleft().result()
            except Exception as error:
                broken = error
            while pending:
                yield from pending.popleft().result()
            if broken is not None:
                raise broken
        finally:
            for future in pending:
                future.cancel()
