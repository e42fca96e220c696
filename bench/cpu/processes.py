"""Whole processes, as a shell starts them."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONVERT = (sys.executable, "-m", "sketchify_rt", "convert", "--device", "cpu", "--overwrite", "-q")


@dataclass(frozen=True)
class Spent:
    """By a process: seconds on the clock, MiB resident at its highest."""

    seconds: float
    mib: float


# What a process held before it became a command counts as the command's highest, so one that holds
# little starts it, and tells what it spent.
_STARTER = """
import os, sys, time
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
seconds = time.perf_counter() - start
print(seconds, usage.ru_maxrss / 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def run(command: Sequence[str]) -> Spent:
    """Raises RuntimeError with what it said where a command does not end with 0."""
    starter = [sys.executable, "-S", "-c", _STARTER, *command]
    done = subprocess.run(starter, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command)}: ended with {done.returncode}: {done.stderr[-300:]}"
        )
    return Spent(*map(float, done.stdout.splitlines()[-1].split()))


def medians(commands: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Spent]:
    """Of each command, which take turns; one round more goes before, to fill the caches."""
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            once = run(command)
            if number:
                spent[name].append(once)
    return {
        name: Spent(
            statistics.median(each.seconds for each in all_of),
            max(each.mib for each in all_of),
        )
        for name, all_of in spent.items()
    }
