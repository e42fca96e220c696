"""The command line: one file per command, imported when the command is used."""

from __future__ import annotations

import re
import sys

INTERRUPTED = 130  # exit code after SIGINT, as in shells
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def main() -> None:
    """Runs `sketchify-rt` and `python -m sketchify_rt`. Ctrl-C ends it with 130 at any time."""
    try:
        from sketchify_rt.cli.verbs import run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def printable(text: str) -> str:
    """Escapes control characters, so that a terminal shows them instead of obeying them.

    Args:
        text: A message. It may hold names and contents of files.

    Returns:
        The message, with only newlines and tabs left of these characters.
    """
    return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
