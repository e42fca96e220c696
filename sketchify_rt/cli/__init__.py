"""The command line: one file per verb, imported when the verb is used or listed."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # exit code, as a shell has it of what SIGINT ended


def main() -> None:
    """`sketchify-rt`, and `python -m sketchify_rt`. Ctrl-C ends it with 130, however early."""
    try:
        from sketchify_rt.cli.verbs import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
