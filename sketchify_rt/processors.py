"""How many processors this process may use."""

from __future__ import annotations

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
    for folder, own in _groups(root):
        # A container may see the host's path here but only its own group in /sys: the folders that
        # are not there are skipped.
        for path in (own, *own.parents):
            quota = _version_2(folder / path) or _version_1(folder / path)
            if quota:
                yield quota


def _groups(root: Path) -> Iterator[tuple[Path, Path]]:
    """Yields the folder of each hierarchy that may hold quotas, and this process's path in it."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield root / "sys/fs/cgroup", Path(path.lstrip("/"))
        elif "cpu" in controllers.split(","):
            yield root / "sys/fs/cgroup" / controllers, Path(path.lstrip("/"))


def _version_2(group: Path) -> float | None:
    # "150000 100000": microseconds in each period. "max 100000": no quota.
    quota, _, period = _text(group / "cpu.max").partition(" ")
    return _ratio(quota, period)


def _version_1(group: Path) -> float | None:
    return _ratio(_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> float | None:
    """Returns None for "max" of version 2, -1 of version 1, and where there are no files."""
    try:
        ratio = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return ratio if ratio > 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
