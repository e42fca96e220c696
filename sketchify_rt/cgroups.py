"""The control groups of this process, by which Linux limits processors and memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

# Of a line of /proc/self/cgroup: number, controllers, path. Version 2 is "0::PATH".
_GROUP = re.compile(r"^(\d+):([^:\n]*):(.+)$", re.MULTILINE)
# Of a line of /proc/self/mountinfo: mounted group, mount point, kind of file system, its options.
_MOUNT = re.compile(r"^\S+ \S+ \S+ (\S+) (\S+) .* - (cgroup2?) \S* (\S+)$", re.MULTILINE)


def folders(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yields the folders of this process's group and of all groups above it that can be seen.

    The limits of all these groups hold together. Docker limits the own group; systemd, Slurm and
    Kubernetes also limit groups above it.

    Args:
        controller: "cpu" or "memory".
        root: Where /proc and /sys are; for tests.

    Yields:
        Folders of version 1 or 2 of control groups. A folder or its files may be missing.
    """
    mounts = _MOUNT.findall(text(root / "proc/self/mountinfo"))
    for number, controllers, path in _GROUP.findall(text(root / "proc/self/cgroup")):
        unified = number == "0" and not controllers
        if unified or controller in controllers.split(","):
            found = [
                (PurePosixPath(_unescape(group)), root / _unescape(point).lstrip("/"))
                for group, point, kind, options in mounts
                if kind == ("cgroup2" if unified else "cgroup")
                and (unified or controller in options.split(","))
            ]
            yield from _upwards(PurePosixPath(path), found)


def _upwards(path: PurePosixPath, mounts: list[tuple[PurePosixPath, Path]]) -> Iterator[Path]:
    """Yields the folder of the group `path`, and those above it up to the mount point.

    Args:
        path: The group, in the hierarchy as a whole.
        mounts: Groups that are mounted, and their mount points.
    """
    for group, point in mounts:
        if path.is_relative_to(group) and ".." not in path.parts:
            own = path.relative_to(group)
            yield from (point / folder for folder in (own, *own.parents))
            return
    # A container may see the path on the host in /proc, and in /sys only its own group.
    yield from (point for _, point in mounts[:1])


def text(path: Path) -> str:
    """Returns the content of a small file without white space around it; "" if it has none."""
    try:
        return path.read_text("utf-8", "surrogateescape").strip()
    except OSError:
        return ""


def _unescape(field: str) -> str:
    """Decodes a field of mountinfo, where a backslash is written as \\134."""
    return re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), field)
