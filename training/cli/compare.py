"""`python -m training compare`: what was measured of several models, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import click

from training.evaluation import SIZES, Evaluation, Size


@click.command(short_help="Print the figures of several models, side by side.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--size", type=click.Choice(SIZES), default="native", help="Of the pages.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of the tables.")
def command(runs: tuple[Path, ...], size: str, as_json: bool) -> None:
    """Print figures of each RUN (its folder, or a file by evaluate --json), in Markdown.

    With 95 % intervals by bootstrap over pages, differences from the first RUN, and what differs
    between the recipes. Every RUN must have been evaluated on the same pages.
    """
    from training.compare import compare, document, text

    evaluations = {str(run).removesuffix(".json"): Evaluation.read(run) for run in runs}
    chosen = cast("Size", size)
    rows = compare(evaluations, chosen)
    found = document(rows, chosen)
    click.echo(json.dumps(found, indent=1, allow_nan=False) if as_json else text(rows))
