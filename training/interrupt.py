"""End a long loop between two steps, not within one."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from tqdm import tqdm


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Inside the `with`, SIGINT and SIGTERM are only noted; gives the question whether one came.

    A second one does what it did before. Outside the main thread nothing is noted.
    """
    asked = False
    before: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        tqdm.write("stopping after this step", sys.stderr)
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield lambda: asked
    finally:
        for noted, handler in before.items():
            signal.signal(noted, handler)
