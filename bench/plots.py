"""Plots of what `python -m bench all` measured, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Tables = Mapping[str, list[dict[str, Any]]]

_OURS, _OTHER, _LINE = "#2a6f97", "#adb5bd", "#e07a5f"
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "sketchify-rt",  # names within the file are the same each time
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _draw(path: Path, plots: Iterable[tuple[str, Callable[[Axes], None]]], tall: float) -> None:
    plots = list(plots)
    with mpl.rc_context(_STYLE):
        figure = Figure((4.2 * len(plots), tall), layout="constrained")
        for number, (title, plot) in enumerate(plots, 1):
            axes = figure.add_subplot(1, len(plots), number)
            axes.set_title(title, fontsize=10)
            plot(axes)
        figure.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, labels: list[str], values: list[float], unit: str) -> None:
    """Ours first, in its colour."""
    colours = [_OURS if label.startswith("sketchify-rt") else _OTHER for label in labels]
    bars = axes.barh(labels, values, color=colours)
    axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(unit)


def filters(tables: Tables, path: Path) -> None:
    """Milliseconds of a page on one thread."""

    def plot(name: str) -> Callable[[Axes], None]:
        rows = [r for r in tables["filters"] if r["filter"] == name and r["threads"] == 1]
        rows = [row for row in rows if row["way"] != "scikit-image"]  # off the scale
        return lambda axes: _bars(
            axes, [r["way"] for r in rows], [r["ms"] for r in rows], "ms a page, one thread"
        )

    _draw(path, [(name, plot(name)) for name in ("binarize", "dodge")], 1.8)


def unet(tables: Tables, path: Path) -> None:
    """Megapixels a second, by arithmetic."""

    def plot(precision: str) -> Callable[[Axes], None]:
        rows = [row for row in tables["unet"] if row["precision"] == precision]
        return lambda axes: _bars(
            axes, [r["way"] for r in rows], [r["mp_s"] for r in rows], "megapixels a second"
        )

    titles = {"fp32": "float32", "half": "bfloat16", "int8": "INT8"}
    _draw(path, [(title, plot(name)) for name, title in titles.items()], 2.3)


def growth(tables: Tables, path: Path) -> None:
    """Seconds and memory over pixels and files, both axes in powers of ten."""

    def plot(name: str, unit: str, value: str, label: str) -> Callable[[Axes], None]:
        rows = tables[name]
        counts = [row[unit] for row in rows]

        def draw(axes: Axes) -> None:
            axes.plot(counts, [row[value] for row in rows], "o-", color=_OURS, label="measured")
            if value == "seconds":
                each = (rows[-1][value] - rows[0][value]) / (counts[-1] - counts[0])
                start = rows[0][value] - each * counts[0]
                line = [start + each * count for count in counts]
                axes.plot(counts, line, "--", color=_LINE, label="a straight line")
                axes.legend(frameon=False)
            else:
                axes.set_ylim(bottom=10, top=max(row[value] for row in rows) * 3)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel(unit)
            axes.set_ylabel(label)

        return draw

    images, files = ("pixels, sketch", "megapixels"), ("files", "files")
    seconds, memory = ("seconds", "seconds"), ("mib", "MiB at the highest")
    plots = [
        ("one image, sketch", plot(*images, *seconds)),
        ("one image, sketch", plot(*images, *memory)),
        ("small files, dodge", plot(*files, *seconds)),
        ("small files, dodge", plot(*files, *memory)),
    ]
    _draw(path, plots, 2.8)


PLOTS: dict[str, Callable[[Tables, Path], None]] = {
    "filters": filters,
    "unet": unet,
    "growth": growth,
}
"""By the name of the file."""
