"""The commands of the command line, imported when they are used."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from sketchify_rt import __version__
from sketchify_rt.cli import INTERRUPTED

_VERBS = {
    "convert": "Convert pictures into sketches.",
    "compare": "Show pictures beside their thresholds and sketches.",
    "build-engine": "Build a TensorRT engine of a model.",
    "engines": "List, verify and prune TensorRT engines.",
    "export-server": "Write a model repository of NVIDIA Triton.",
    "info": "Show versions, backends and models.",
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"sketchify_rt.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The method of click imports every command for its first sentence, which is slow.
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _interruptible():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _interruptible():
            return super().invoke(ctx)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ends with exit code 130 after Ctrl-C. click ends with 1, as after a failure."""
    try:
        yield
    except (KeyboardInterrupt, click.ClickException) as error:
        if not _is_interruption(error):
            raise
        click.echo("interrupted", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def _is_interruption(error: BaseException | None) -> bool:
    """Tells whether an error is an interruption, or was caused by one.

    A native module that is interrupted during its import raises ImportError.
    """
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def main() -> None:
    """Turn illustrations and manga pages into pencil sketches."""


def run() -> None:
    """Runs the program.

    Raises:
        SystemExit: Always, with the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of any encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        main(prog_name="sketchify-rt")
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback at the end of Python
