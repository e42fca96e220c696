"""Counts the calls in flight, so that the last one can finish what `close` began."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from sketchify_rt import forks


class Calls(AbstractContextManager["Calls"]):
    """Entered by each call. Thread-safe; in a forked child no call is in flight."""

    def __init__(self, release: Callable[[], None]) -> None:
        """Makes the count, 0.

        Args:
            release: Called by `close`, or by the last call that is in flight by then.
        """
        self._release = release
        self._reset()
        forks.watch(self, Calls._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._in_flight = 0
        self._closing = False

    def __enter__(self) -> Calls:
        with self._lock:
            self._in_flight += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._in_flight -= 1
            last = self._closing and not self._in_flight
            if last:
                self._closing = False
        if last:
            self._release()

    def close(self) -> None:
        """Releases now if no call is in flight, else at the end of the last one."""
        with self._lock:
            self._closing = self._in_flight > 0
            if self._closing:
                return
        self._release()

    def reopen(self) -> None:
        """Keeps what `close` has not released yet: it is in use again."""
        with self._lock:
            self._closing = False
