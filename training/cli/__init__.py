"""The command line of the training package: one file per verb, in the order they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from sketchify_rt.errors import OptionsError, SketchifyError

_VERBS = ("prepare", "fit", "evaluate", "compare", "export", "quantize")


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"training.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Tell what a verb raises on purpose in a line; exit code 1, or 2 for wrong usage."""
        try:
            return super().invoke(ctx)
        except OptionsError as error:
            raise click.UsageError(str(error)) from error
        except SketchifyError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:  # of an output, mostly: no room, or not allowed
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error


@click.group(cls=_Verbs, context_settings={"show_default": True})
def main() -> None:
    """Make a model: prepare the pages, fit, evaluate, compare, export, quantize."""
