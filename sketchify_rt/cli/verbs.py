"""The command line: one file per verb, imported when the verb is used or listed."""

from __future__ import annotations

from importlib import import_module

import click

from sketchify_rt import __version__

_VERBS = ("convert", "build-engine", "engines", "info")


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        command = import_module(f"sketchify_rt.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)  # noqa: S101
        return command


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def main() -> None:
    """Turn illustrations and manga pages into pencil sketches."""
