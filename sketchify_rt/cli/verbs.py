"""The commands of the command line, imported when they are used."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import click

from sketchify_rt import __version__
from sketchify_rt.cli import INTERRUPTED, printable, streams

_VERBS = {
    "convert": "Convert pictures into sketches. The default.",
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
        command: click.Command | None = None
        if cmd_name in _VERBS:
            command = import_module(f"sketchify_rt.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "INPUT... [OPTIONS OF CONVERT]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGUMENTS]", prefix=" " * 7)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The method of click imports every command for its first sentence, which is slow.
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _orderly():
            return super().make_context(*args, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.get_params(ctx) for name in option.opts}
        if args and args[0] not in own | set(_VERBS):
            if not ctx.resilient_parsing:
                _check_input(args[0], ctx)
            args = ["convert", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _orderly():
            return super().invoke(ctx)


def _check_input(word: str, ctx: click.Context) -> None:
    """Raises UsageError for a misspelt command. Other words are inputs or options of convert."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z_-]*", word) or os.path.lexists(word):
        return
    similar = difflib.get_close_matches(word.lower(), _VERBS, 1)
    remedy = f"Did you mean {similar[0]}?" if similar else f"The commands are {', '.join(_VERBS)}"
    raise click.UsageError(f"no such command or file: got {word}. {remedy}", ctx)


@contextlib.contextmanager
def _orderly() -> Iterator[None]:
    """Escapes control characters in errors, and ends with exit code 130 after Ctrl-C.

    click ends with 1 after Ctrl-C, as after a failure.
    """
    try:
        yield
    except (KeyboardInterrupt, click.ClickException) as error:
        if not _is_interruption(error):
            assert isinstance(error, click.ClickException)  # noqa: S101
            error.message = printable(error.message)  # type: ignore[misc]
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
    """Turn illustrations and manga pages into pencil sketches.

    Without a command, convert is used: `sketchify-rt page.jpg`. If an input has the name of a
    command, give its path, for example ./info.
    """


def run() -> None:
    """Runs the program.

    Raises:
        SystemExit: Always, with the exit code.
    """
    output = streams.replace()
    code: Any = 1
    try:
        main(prog_name="sketchify-rt")
    except SystemExit as end:
        code = end.code
    except OSError:
        if output.error is None:
            raise
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback at the end of Python
    if not streams.finish(output):
        code = code or 1
    sys.exit(code)
