"""`sketchify-rt engines`: lists, verifies and prunes the TensorRT engines in the cache."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import click

from sketchify_rt.cli import common, printable
from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.tensorrt import cache
from sketchify_rt.tensorrt.cache import Damaged, Engine
from sketchify_rt.tensorrt.record import Machine

_EPILOG = """\b
Columns of the list: name is the model and the first digits of the SHA-256 of its weights; tile
and batch are minimum, best and maximum; megapixels/s is the speed after the build; difference
is the maximum and the mean difference from the model in float32, in levels of 255.

\b
The cache is in the folder SKETCHIFY_CACHE, or else in the user's cache folder. Engines of
`build-engine --output` are not listed; `verify FILE` checks them.
"""


@click.group(invoke_without_command=True, epilog=_EPILOG)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, verify and prune the TensorRT engines in the cache. Lists them by default."""
    if ctx.invoked_subcommand is None:
        list_.invoke(list_.make_context("list", [], ctx))


_verb = functools.partial(command.command, cls=common.Command)


@_verb("list", epilog=_EPILOG)
@common.as_json
def list_(as_json: bool) -> None:
    """List the engines, and whether they can be used on this machine."""
    root = cache.root()
    found = cache.engines(root)
    machine, unseen = _machine() if found or as_json else (None, "")
    if as_json:
        click.echo(json.dumps(_document(root, found, machine, unseen), indent=2))
    else:
        click.echo(_text(root, found, machine, unseen))


@_verb()
@click.argument("paths", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
@click.pass_context
def verify(ctx: click.Context, paths: tuple[Path, ...]) -> None:
    """Check whether engines are damaged.

    Each FILE, or each engine in the cache, is compared with its SHA-256.

    \b
    Exit code: 0 none is damaged; 1 some are, and the message tells how to build them again.
    """
    root = cache.root()
    paths = paths or tuple(engine.path for engine in cache.engines(root))
    if not paths:
        click.echo(_empty(root))
    damaged = False
    for path in paths:
        try:
            size = len(cache.read(path).plan)
            click.echo(printable(f"{path}: not damaged, {_megabytes(size)}"))
        except EngineError as error:
            damaged = True
            click.echo(printable(str(error)), err=True)
    ctx.exit(1 if damaged else 0)


@_verb()
@common.option("--all", "everything", is_flag=True, help="Remove all engines, also usable ones.")
@common.option("--dry-run", is_flag=True, help="Only show what would be removed.")
def prune(everything: bool, dry_run: bool) -> None:
    """Remove engines that cannot be used any more.

    These are damaged engines, engines of another version of sketchify-rt, and engines for this GPU
    that were built with another version of TensorRT. Other engines for other GPUs stay.
    """
    machine, unseen = (None, "") if everything else _machine()
    root = cache.root()
    removed = cache.prune(root, machine, everything, dry_run)
    verb = "would remove" if dry_run else "removed"
    for path, why, size in removed:
        click.echo(printable(f"{verb} {path} ({_megabytes(size)}): {why}"))
    if removed:
        click.echo(f"{verb} {_megabytes(sum(size for *_, size in removed))}")
    else:
        click.echo(printable(f"{root}: nothing to remove"))
    if unseen and cache.engines(root):
        click.echo(f"cannot tell which engines are out of date: {unseen}", err=True)


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
    engines, damaged = [], []
    for each in found:
        if isinstance(each, Damaged):
            damaged.append({"path": str(each.path), "error": str(each)})
            continue
        why = each.record.mismatch(machine) if machine else unseen
        usable = not why if machine else None
        engines.append({**each.facts(), "usable": usable, "why": why or None})
    this = machine and dataclasses.asdict(machine)
    return {"folder": str(root), "machine": this, "engines": engines, "damaged": damaged}


def _text(root: Path, found: list[Engine | Damaged], machine: Machine | None, unseen: str) -> str:
    if not found:
        return _empty(root)
    rows = [_row(engine, machine) for engine in found if isinstance(engine, Engine)]
    lines = [f"engines in {root}", *_table(rows)]
    lines += [str(error) for error in found if isinstance(error, Damaged)]
    if unseen:
        lines.append(f"cannot tell which engines can be used here: {unseen}")
    return printable("\n".join(lines))


def _empty(root: Path) -> str:
    return printable(
        f"no engines in {root}. To build one of the shipped model: sketchify-rt build-engine"
    )


def _row(engine: Engine, machine: Machine | None) -> dict[str, str]:
    """Returns the cells of the table by their headings."""
    record = engine.record
    recipe, check = record.recipe, record.check
    why = record.mismatch(machine) if machine else ""
    return {
        "name": f"{record.origin.name} {record.origin.sha256[:8]}",
        "precision": recipe.precision,
        "tile": _range(recipe.tile),
        "batch": _range(recipe.batch),
        "GPU": record.machine.gpu,
        "TensorRT": record.machine.tensorrt,
        "size": _megabytes(len(engine.plan)),
        "built": record.built[:16].replace("T", " "),
        "megapixels/s": f"{check.megapixels_s:.0f}",
        "difference": f"{check.largest:.2f} {check.mean:.3f}",
        "usable here": f"no: {why}" if why else "yes" if machine else "unknown",
    }


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _range(values: tuple[int, int, int]) -> str:
    return " ".join(str(value) for value in dict.fromkeys(values))


def _table(rows: list[dict[str, str]]) -> list[str]:
    """Formats rows with columns of equal width, below their headings."""
    lines = [list(row.values()) for row in rows]
    lines[:0] = [list(row) for row in rows[:1]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
