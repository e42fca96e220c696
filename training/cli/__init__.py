"""The command line of the training package: one file per verb, in the order they are used."""

from __future__ import annotations

from importlib import import_module

import click

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


@click.group(cls=_Verbs, context_settings={"show_default": True})
def main() -> None:
    """Make a model: prepare the pages, fit, evaluate, compare, export, quantize."""
