"""Models beside each other, measured on the same pages, as tables in Markdown or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sketchify_rt.metrics import Metrics
from training.bootstrap import Estimate
from training.errors import TrainingError
from training.evaluation import Evaluation, Measured, Size, differences, estimates, summary

_UNKNOWN = "-"
_HEADS = {  # and digits after the point
    "mae": ("MAE ↓", 2),
    "psnr": ("PSNR ↑", 2),
    "ssim": ("SSIM ↑", 3),
    "ink_f1": ("ink F1 ↑", 3),
    "dark_mae": ("dark MAE ↓", 1),
    "tone": ("tone ↓", 2),
}


@dataclass(frozen=True)
class Row:
    """A model or, where `model` is None, a baseline.

    figures: by name. difference: from the first row, paired page by page; None for the first.
    """

    name: str
    model: Measured | None
    figures: dict[str, Estimate]
    difference: dict[str, Estimate] | None


def compare(evaluations: Mapping[str, Evaluation], size: Size) -> list[Row]:
    """A row for each evaluation, at least one, and for the baselines that one of them has.

    evaluations: by the name to show. Raises TrainingError where they are not of the same pages, or
    where one was not measured at this size.
    """
    first, reference = next(iter(evaluations.items()))
    measured: dict[str, tuple[Measured | None, Mapping[str, Metrics]]] = {}
    for name, evaluation in evaluations.items():
        if size not in evaluation.figures:
            raise TrainingError(
                f"{name} was not measured at size {size}; "
                f"`python -m training evaluate {evaluation.model.name} PAGES` does it"
            )
        if evaluation.pages != reference.pages:
            raise TrainingError(
                f"{name} was measured on other pages than {first}; "
                "`python -m training evaluate` both on the same"
            )
        measured[name] = evaluation.model, evaluation.figures[size]
    for evaluation in evaluations.values():
        for name, figures in evaluation.baselines.items():
            measured.setdefault(name, (None, figures[size]))
    against = list(reference.figures[size].values())
    return [
        Row(
            name,
            model,
            estimates(figures.values()),
            None if name == first else estimates(differences(list(figures.values()), against)),
        )
        for name, (model, figures) in measured.items()
    ]


def differing(rows: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """Fields of the recipes that are not the same in all models: value by name of the row.

    A field within another is called ``model.width``; None stands for one that is not there.
    """
    recipes = {row.name: dict(_flat(row.model.recipe)) for row in rows if row.model is not None}
    fields = dict.fromkeys(field for recipe in recipes.values() for field in recipe)
    table = {field: {name: r.get(field) for name, r in recipes.items()} for field in fields}
    return {
        field: values
        for field, values in table.items()
        if any(value != next(iter(values.values())) for value in values.values())
    }


def document(rows: Sequence[Row], size: Size) -> dict[str, Any]:
    """What the tables show, for JSON."""
    return {
        "size": size,
        "rows": [
            {
                "name": row.name,
                "model": None if row.model is None else asdict(row.model),
                **summary(row.figures),
                "difference": None if row.difference is None else summary(row.difference),
            }
            for row in rows
        ],
        "recipe": differing(rows),
    }


def text(rows: Sequence[Row]) -> str:
    """The tables in Markdown."""
    parts = [
        _markdown(
            ["", "steps", "minutes", "M parameters", "GFLOP/MP", *_heads()],
            [[row.name, *_of_model(row.model), *_cells(row.figures)] for row in rows],
        )
    ]
    others = {row.name: row.difference for row in rows if row.difference is not None}
    if others:
        parts += [
            f"Less {rows[0].name}, page by page; bold where the interval leaves out 0:",
            _markdown(
                ["", *_heads()],
                [[name, *_cells(difference, signed=True)] for name, difference in others.items()],
            ),
        ]
    recipe = differing(rows)
    if recipe:
        names = list(next(iter(recipe.values())))
        cells = [
            [field, *(_UNKNOWN if values[name] is None else str(values[name]) for name in names)]
            for field, values in recipe.items()
        ]
        parts += ["Recipes:", _markdown(["", *names], cells)]
    return "\n\n".join(parts)


def figures_table(evaluation: Evaluation) -> str:
    """A model and its baselines at each size, in Markdown."""
    named = {evaluation.model.name: evaluation.figures, **evaluation.baselines}
    cells = [
        [f"{name}, {size}", *_cells(estimates(figures[size].values()))]
        for size in evaluation.figures
        for name, figures in named.items()
    ]
    return _markdown(["", *_heads()], cells)


def _heads() -> list[str]:
    return [head for head, _ in _HEADS.values()]


def _of_model(model: Measured | None) -> list[str]:
    if model is None:
        return [_UNKNOWN] * 4
    known = model.step, model.minutes, model.parameters / 1e6, model.gflop_per_megapixel
    formats = ",d", ",.0f", ".2f", ".1f"
    return [
        _UNKNOWN if value is None else format(value, form)
        for value, form in zip(known, formats, strict=True)
    ]


def _cells(figures: Mapping[str, Estimate], signed: bool = False) -> list[str]:
    """Signed ones are differences: they have a digit more."""
    cells = []
    for name, (_, digits) in _HEADS.items():
        form = f"+.{digits + 1}f" if signed else f".{digits}f"
        mean, low, high = (format(value, form) for value in figures[name])
        bold = "**" if signed and figures[name].excludes_zero else ""
        cells.append(f"{bold}{mean}{bold} [{low}, {high}]")
    return cells


def _flat(recipe: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for field, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{field}.")
        else:
            yield prefix + field, value


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * max(3, width) for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(c.ljust(max(3, w)) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )
