"""How many processors this process may use."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

from sketchify_rt import cgroups


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
    """Yields the quota of this process's group and of each group above it, in processors."""
    for group in cgroups.folders("cpu", root):
        # Of version 2 one file, "150000 100000": microseconds in each period. Of version 1 two.
        quota, _, period = (
            cgroups.text(group / "cpu.max")
            or " ".join(cgroups.text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        ).partition(" ")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # "max", or there are no files
            if int(quota) > 0:  # -1 of version 1 is none
                yield int(quota) / int(period)
