"""`python -m training prepare`: pack a folder of pictures."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Pack a folder of pictures.")
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--source",
    "pattern",
    metavar="REGEX",
    help="What a picture is from, an episode for instance: the first group, or all that this "
    "matches, of its path below SOURCE.  [default: the folder it lies in]",
)
@click.option(
    "--val-share",
    type=click.FloatRange(0, 1),
    default=0.1,
    help="Share of the sources that is kept for validation, chosen by their names alone.",
)
@click.option(
    "--val",
    multiple=True,
    metavar="GLOB",
    help="Instead: keep the sources of pictures whose path below SOURCE is like this, and no "
    "others. May be given several times.",
)
def command(
    source: Path, output: Path, pattern: str | None, val_share: float, val: tuple[str, ...]
) -> None:
    """Pack the pictures in and below the folder SOURCE into the folder OUTPUT, decoded to luma.

    Left out, each with its reason, are files that cannot be decoded, pictures that are smaller
    than 256 pixels a side or blank, and duplicates, whatever their sizes and formats. What OUTPUT
    held before is replaced.
    """
    from training.prepare import prepare

    pages, left_out = prepare(source, output, pattern=pattern, val_share=val_share, val=val)
    for name, reason in left_out:
        click.echo(f"{click.format_filename(name)}: {reason}", err=True)
    train, validation = ([p for p in pages if p.split == split] for split in ("train", "val"))
    if not validation:
        click.echo("no page to validate on; --source and --val choose some", err=True)
    elif not val and len(validation) > len(train):  # a folder or two, and chance
        click.echo(
            "more to validate on than to train on; --source and --val choose others", err=True
        )
    click.echo(
        f"{len(train)} pages to train on, {len(validation)} to validate on, of "
        f"{len({page.source for page in pages})} sources, in {output}; {len(left_out)} left out"
    )
