"""Ctrl-C at a time of one's choosing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred(note: Callable[[], None]) -> Iterator[None]:
    """Call `note` at the first interruption, where Python would raise KeyboardInterrupt.

    Raised in the middle of `concurrent.futures`, it would leave locks held for ever, for which the
    other threads wait; a run was seen to hang so. The second is raised as ever, so that what takes
    too long can be left. Signals with another handler, and other threads than the
    main one, which get none, are left alone. note: may run between any two instructions.
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
