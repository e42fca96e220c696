"""Renews locks, and what else a forked child must not share with its parent.

A thread that held a lock when the process was forked is not in the child to release it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_watched: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def watch(owner: T, renew: Callable[[T], None]) -> None:
    """Calls `renew(owner)` in every child forked from this process, as long as `owner` lives.

    Args:
        owner: Is not kept alive.
        renew: A function that does not hold `owner`, as of its class.
    """
    _watched[owner] = renew


def _renew_all() -> None:
    for owner, renew in list(_watched.items()):
        renew(owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_renew_all)


class Lock:
    """A lock for `with`, which is free in a forked child."""

    def __init__(self) -> None:
        """Makes the lock, free."""
        self._renew()
        watch(self, Lock._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()
