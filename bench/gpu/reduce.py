"""Makes a failing case of a kernel as small and as simple as it can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from bench.gpu.check_kernels import CONTENTS, LAYOUTS, Case

_SHORT = 192  # pixels: three strips, or steps of one


def smallest(case: Case, fails: Callable[[Case], bool], spent: Callable[[], bool]) -> Case:
    """Takes away one thing at a time, as long as the case still fails.

    Args:
        case: A case that fails.
        fails: Runs a case and tells whether it fails.
        spent: Whether the time is up.

    Returns:
        A case that fails while no simpler one does; if the time is up, the best one so far.
    """
    found: Case | None = case
    while found:
        case, found = found, None
        for simpler in _simpler(case):
            if spent():
                break
            if fails(simpler):
                found = simpler
                break
    return case


def _simpler(case: Case) -> Iterator[Case]:
    """Cases with one thing less, those with the most gain first."""
    count = len(case.sizes)
    if count > 1:
        yield from (replace(case, sizes=(size,)) for size in dict.fromkeys(case.sizes))
        half = count // 2
        yield replace(case, sizes=case.sizes[:half])
        yield replace(case, sizes=case.sizes[half:])
        for index in range(count):
            yield replace(case, sizes=case.sizes[:index] + case.sizes[index + 1 :])
    for index, (height, width) in enumerate(case.sizes):
        smaller = [(each, width) for each in _less(height)]
        smaller += [(height, each) for each in _less(width)]
        for size in smaller:
            yield replace(case, sizes=(*case.sizes[:index], size, *case.sizes[index + 1 :]))
    for content in CONTENTS[: CONTENTS.index(case.content)]:
        yield replace(case, content=content)
    for layout in LAYOUTS[: LAYOUTS.index(case.layout)]:
        yield replace(case, layout=layout)
    if case.strength != 1:
        yield replace(case, strength=1.0)
    if case.dtype == "float16":
        yield replace(case, dtype="float32")


def _less(length: int) -> Iterable[int]:
    """Lengths below `length`: all of them, or of a long one some, which keep its last 6 bits."""
    if length <= _SHORT:
        return range(1, length)
    same = length % 64
    return 1, same + 64, same + 128, length // 2, length * 3 // 4, length * 7 // 8, length - 1
