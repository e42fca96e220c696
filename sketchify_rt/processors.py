"""How many processors this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path


def count(root: Path = Path("/")) -> int:
    """Returns the number of processors, at least 1: affinity and cgroup quotas are both respected.

    `taskset` and Kubernetes' static policy set the affinity; `docker --cpus` sets a quota alone.
    A fraction counts as a whole processor.

    Args:
        root: Where /proc and /sys are; for tests.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min([usable, *(math.ceil(share) for share in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quota of this process's cgroup and of each group above it, in processors."""
    for group in _groups(root):
        # Of version 2 one file, "150000 100000": microseconds in each period. Of version 1 two.
        quota, _, period = (
            _text(group / "cpu.max")
            or f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        ).partition(" ")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # "max", or there are no files
            if int(quota) > 0:  # -1 of version 1 is none
                yield int(quota) / int(period)


def _groups(root: Path) -> Iterator[Path]:
    """Yields the folders of this process's cgroups, and of those above them, that may have quotas.

    A container may see the host's path in /proc, but only its own group in /sys: some of the
    folders are not there.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if (number == "0" and not controllers) or "cpu" in controllers.split(","):
            for group in (own, *own.parents):
                yield root / "sys/fs/cgroup" / controllers / group


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
