"""`python -m training prepare`: pack a folder of pages."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
def command(source: Path, output: Path) -> None:
    """Pack the pages of the folder SOURCE into the folder OUTPUT, decoded to luma."""
    from training.prepare import prepare as run

    click.echo(f"{run(source, output)} pages in {output}")
