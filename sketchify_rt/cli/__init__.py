"""The command line: one file per command, imported when the command is used."""

from __future__ import annotations

import sys

from sketchify_rt.errors import escaped

INTERRUPTED = 130  # exit code after SIGINT, as in shells


def main() -> None:
    """Runs `sketchify-rt` and `python -m sketchify_rt`. Ctrl-C ends it with 130 at any time."""
    try:
        from sketchify_rt.cli.verbs import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def printable(text: str) -> str:
    """Returns a message with its control characters escaped, but for newlines and tabs."""
    return escaped(text, keep="\n\t")
