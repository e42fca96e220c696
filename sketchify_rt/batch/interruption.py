"""Delays Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred(note: Callable[[], None]) -> Iterator[None]:
    """Calls `note` at the first Ctrl-C, instead of raising KeyboardInterrupt.

    Raised inside of `concurrent.futures`, KeyboardInterrupt may leave a lock held for which other
    threads wait forever; a run once hung that way. The second Ctrl-C raises it as usual. Signals
    with another handler do not change. Only the main thread receives signals.

    Args:
        note: May run between any two instructions.
    """
    noted = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        if noted:
            signal.default_int_handler(number, frame)
        noted = True
        note()

    numbers = []
    if threading.current_thread() is threading.main_thread():
        default = signal.default_int_handler
        several = (signal.SIGINT, signal.SIGTERM)
        numbers = [number for number in several if signal.getsignal(number) is default]
    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
