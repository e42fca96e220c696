"""`sketchify-rt engines`: lists, verifies and prunes the TensorRT engines in the cache."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from sketchify_rt.errors import BackendUnavailable, EngineError, SketchifyError
from sketchify_rt.tensorrt import cache
from sketchify_rt.tensorrt.cache import Damaged, Engine
from sketchify_rt.tensorrt.record import Machine

_HEADER = (
    "name",
    "precision",
    "tile",
    "batch",
    "GPU",
    "TensorRT",
    "size",
    "built",
    "megapixels/s",
    "difference",
    "usable here",
)

_EPILOG = """\b
name: of the model, and the first digits of the SHA-256 of its weights.
tile and batch: minimum, best and maximum. megapixels/s: measured at the build.
difference: maximum and mean, in levels of 255, from the model in float32.

\b
The cache is in SKETCHIFY_CACHE, else in the user's cache folder. Engines of
`build-engine --output` are not listed; `verify FILE` checks them.
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, verify and prune the TensorRT engines in the cache. Lists them by default."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@command.command("list", epilog=_EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_(as_json: bool = False) -> None:
    """List the engines, and whether they can be used on this machine."""
    root, found = _found()
    machine, unseen = _machine() if found or as_json else (None, "")
    if as_json:
        click.echo(json.dumps(_document(root, found, machine, unseen), indent=2))
    else:
        click.echo(_text(root, found, machine, unseen))


@command.command()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Check whether engines are damaged: all in the cache, or those in FILE.

    The content of each is compared with its SHA-256.

    \b
    Exit code: 0 none is damaged; 1 some are, and the message tells how to build them again.
    """
    if not paths:
        root, found = _found()
        paths = tuple(engine.path for engine in found)
        if not paths:
            click.echo(_empty(root))
    damaged = False
    for path in paths:
        try:
            size = len(cache.read(path).plan)
            click.echo(f"{click.format_filename(path)}: not damaged, {_megabytes(size)}")
        except EngineError as error:
            damaged = True
            click.echo(str(error), err=True)
    ctx.exit(1 if damaged else 0)


@command.command()
@click.option("--all", "everything", is_flag=True, help="Remove all engines, also usable ones.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
def prune(everything: bool, dry_run: bool) -> None:
    """Remove engines that cannot be used any more.

    These are damaged engines, engines of another version of sketchify-rt, and engines for this GPU
    that were built with another version of TensorRT. Other engines for other GPUs stay.
    """
    machine, unseen = (None, "") if everything else _machine()
    try:
        root = cache.root()
        removed = cache.prune(root, machine, everything, dry_run)
    except SketchifyError as error:
        raise click.ClickException(str(error)) from error
    verb = "would remove" if dry_run else "removed"
    for path, why, size in removed:
        click.echo(f"{verb} {click.format_filename(path)} ({_megabytes(size)}): {why}")
    if removed:
        click.echo(f"{verb} {_megabytes(sum(size for *_, size in removed))}")
    else:
        click.echo(f"{click.format_filename(root)}: nothing to remove")
    if unseen and cache.engines(root):
        click.echo(f"cannot tell which engines are out of date: {unseen}", err=True)


def _found() -> tuple[Path, list[Engine | Damaged]]:
    try:
        root = cache.root()
        return root, cache.engines(root)
    except SketchifyError as error:
        raise click.ClickException(str(error)) from error


def _machine() -> tuple[Machine | None, str]:
    """Returns this computer with its first GPU, or None and the reason."""
    try:
        from sketchify_rt.tensorrt import engines

        return engines.this_machine(), ""
    except (BackendUnavailable, ImportError) as error:
        return None, str(error)


def _document(
    root: Path, found: list[Engine | Damaged], machine: Machine | None, unseen: str
) -> dict[str, Any]:
    """usable: on this machine, whatever the model's weights; null where that is unknown."""
    engines = []
    for engine in found:
        if isinstance(engine, Engine):
            why = engine.record.mismatch(machine) if machine else unseen
            engines.append(
                {
                    "path": str(engine.path),
                    "plan_bytes": len(engine.plan),
                    "usable": not why if machine else None,
                    "why": why or None,
                    **dataclasses.asdict(engine.record),
                }
            )
    return {
        "folder": str(root),
        "machine": machine and dataclasses.asdict(machine),
        "engines": engines,
        "damaged": [
            {"path": str(error.path), "error": str(error)}
            for error in found
            if isinstance(error, Damaged)
        ],
    }


def _text(root: Path, found: list[Engine | Damaged], machine: Machine | None, unseen: str) -> str:
    if not found:
        return _empty(root)
    lines = [f"engines in {click.format_filename(root)}"]
    rows = [_row(engine, machine) for engine in found if isinstance(engine, Engine)]
    if rows:
        lines += _table([_HEADER, *rows])
    lines += [str(error) for error in found if isinstance(error, Damaged)]
    if unseen:
        lines.append(f"cannot tell which engines can be used here: {unseen}")
    return "\n".join(lines)


def _empty(root: Path) -> str:
    return (
        f"no engines in {click.format_filename(root)}. To build one of the shipped model: "
        "sketchify-rt build-engine"
    )


def _row(engine: Engine, machine: Machine | None) -> tuple[str, ...]:
    record = engine.record
    recipe, check = record.recipe, record.check
    why = record.mismatch(machine) if machine else ""
    return (
        f"{record.origin.name} {record.origin.sha256[:8]}",
        recipe.precision,
        _range(recipe.tile),
        _range(recipe.batch),
        record.machine.gpu,
        record.machine.tensorrt,
        _megabytes(len(engine.plan)),
        record.built[:16].replace("T", " "),
        f"{check.megapixels_s:.0f}",
        f"{check.largest:.2f} {check.mean:.3f}",
        f"no: {why}" if why else "yes" if machine else "unknown",
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _range(values: tuple[int, int, int]) -> str:
    return " ".join(str(value) for value in dict.fromkeys(values))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Formats rows with columns of equal width."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
