"""Paired timing, the description of the machine, and tables and JSON of results."""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

Row = Mapping[str, object]

Timer = Callable[[Callable[[], object]], float]
"""Runs something and tells how many seconds it took."""

PACKAGES = ("sketchify-rt", "numpy", "opencv-python-headless", "openvino", "torch", "tensorrt")


def wall_seconds(run: Callable[[], object]) -> float:
    """A `Timer`: until `run` returns."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def samples_ms(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int = 15,
    timer: Timer = wall_seconds,
    rest: float = 0,
) -> dict[str, list[float]]:
    """The times of each candidate in milliseconds.

    They take turns, so that whatever slows the machine for a while meets all of them, in another
    order each round, so that none always comes after the same one. Rounds go on for about
    `seconds`, and are at least `least`; one more goes before them to warm up. rest: seconds before
    each run, in which the threads of the one before stop to wait for work.
    """
    order = list(candidates)
    chance = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(next(iter(times.values()))) < least:
            chance.shuffle(order)
            for name in order:
                time.sleep(rest)
                times[name].append(timer(candidates[name]) * 1e3)
    finally:
        if was_enabled:
            gc.enable()
    return times


def medians_ms(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int = 15,
    timer: Timer = wall_seconds,
) -> dict[str, float]:
    """The median time of each candidate in milliseconds; see `samples_ms`."""
    times = samples_ms(candidates, seconds=seconds, least=least, timer=timer)
    return {name: statistics.median(values) for name, values in times.items()}


def midmean(values: Sequence[float]) -> float:
    """The mean of the middle half.

    Of a machine that has two speeds and changes between them, a median takes one or the other by
    chance.
    """
    cut = len(values) // 4
    return statistics.fmean(sorted(values)[cut : len(values) - cut])


def machine() -> dict[str, object]:
    """Processor, processors this process may run on, versions, and the time, in UTC."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions(PACKAGES),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of those of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have."""
    result = argparse.ArgumentParser(prog="python -m bench", description=description)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    result.add_argument(
        "--seconds", type=float, default=3.0, help="time for each comparison (default: 3)"
    )
    return result


def report(rows: Sequence[Row], notes: Mapping[str, object], file: Path | None) -> None:
    """Prints the machine, the rows as a table and the notes; writes all of them to `file`."""
    description = machine()
    print(" | ".join(f"{name} {value}" for name, value in description.items()))
    print()
    print(table(rows))
    print()
    for name, note in notes.items():
        print(f"{name}: {_text(note)}")
    if file is not None:
        content = {"machine": description, "rows": list(rows), "notes": dict(notes)}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def table(rows: Sequence[Row]) -> str:
    """Rows of the same keys as aligned text under their keys, numbers to the right."""
    head = list(rows[0])
    cells = [[_text(row[key]) for key in head] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    numeric = [isinstance(rows[0][key], int | float) for key in head]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in (head, *cells)
    )


def _text(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*: (.*)$", info, re.MULTILINE)
    return match[1] if match else platform.machine()
