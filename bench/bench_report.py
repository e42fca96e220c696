"""Tables and plots of a file that `python -m bench all` wrote, in README.md and docs/speed.md.

Whatever stands between `<!-- bench: NAME -->` and `<!-- end -->` there is replaced: "headline" by
the figures of the README, "machine" by processor, versions and date, other names by the table of
that name. Plots are drawn into docs/speed/.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.findings import RESULTS
from bench.plots import PLOTS

_PAGES = (Path("README.md"), Path("docs/speed.md"))
_MARKED = re.compile(r"(<!-- bench: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

Rows = list[dict[str, Any]]


def main(argv: list[str]) -> None:
    """Rewrites the pages in the working directory."""
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="of results; the newest of a processor")
    options = parser.parse_args(argv)
    tables, machine = load(options.file or newest(RESULTS))
    for path in _PAGES:
        text = path.read_text(encoding="utf-8")
        path.write_text(filled(text, tables, machine), encoding="utf-8")
        print(path)
    for name, plot in PLOTS.items():
        path = Path("docs/speed") / f"{name}.svg"
        path.parent.mkdir(exist_ok=True)
        plot(tables, path)
        print(path)


def newest(folder: Path) -> Path:
    """The last file, by the date in its name, of results that are no GPU's.

    Raises SystemExit where there is none.
    """
    for path in sorted(folder.glob("*.json"), reverse=True):
        if "cold" in load(path)[0]:
            return path
    raise SystemExit(f"{folder}: no results; `python -m bench all` measures")


def load(path: Path) -> tuple[dict[str, Rows], dict[str, Any]]:
    """All tables of a file by their names, and its machine."""
    document = json.loads(path.read_text(encoding="utf-8"))
    tables = {
        name: rows for part in document["parts"].values() for name, rows in part["tables"].items()
    }
    return tables, document["machine"]


def filled(text: str, tables: Mapping[str, Rows], machine: Mapping[str, Any]) -> str:
    """The text with its marked places filled in. Raises KeyError about a name that is no table."""

    def content(match: re.Match[str]) -> str:
        name = match["name"]
        if name == "machine":
            inner = "; ".join(f"{key} {value}" for key, value in machine.items())
        elif name == "headline":
            inner = markdown(headline(tables))
        else:
            inner = markdown(tables[name])
        return f"{match[1]}{inner}\n{match[3]}"

    return _MARKED.sub(content, text)


def headline(tables: Mapping[str, Rows]) -> Rows:
    """Returns the rows of the README, each beside the fastest alternative."""
    made: Rows = []

    def add(what: str, ours: str, other: str, ratio: float) -> None:
        head = ("what", "sketchify-rt", "fastest alternative", "speedup")
        made.append(dict(zip(head, (what, ours, other, f"{ratio:.3g}x"), strict=True)))

    for name in ("binarize", "dodge"):
        ours, other = (
            one(tables["filters"], filter=name, threads=1, way=way)
            for way in ("sketchify-rt", "OpenCV")
        )
        what = f"`{name}`, a page of 992 x 1401, one thread"
        add(what, _ms(ours), f"{_ms(other)}, OpenCV", other["others_take"])
    ours, *others = (row for row in tables["unet"] if row["precision"] == "int8")
    best = min(
        (row for row in others if "bare" not in row["way"]), key=lambda row: float(row["ms"])
    )
    add("U-Net, INT8, the same page", _ms(ours), f"{_ms(best)}, {best['way']}", best["others_take"])
    ours, *others = (row for row in tables["job"] if row["mode"] == "sketch")
    loops = [row for row in others if "loop" in row["way"]]
    best = max(loops, key=lambda row: float(row["images_s"]))
    add(
        "a folder, JPEG to PNG, with Python's start",
        f"{ours['images_s']:.1f} pages/s",
        f"{best['images_s']:.1f} pages/s, {best['way']}",
        ours["images_s"] / best["images_s"],
    )
    return made


def one(rows: Rows, **values: object) -> dict[str, Any]:
    """The row that has these values."""
    (found,) = (row for row in rows if all(row[key] == value for key, value in values.items()))
    return found


def markdown(rows: Rows) -> str:
    """A table, numbers to the right."""
    head = list(rows[0])
    numeric = [isinstance(rows[-1][key], int | float) for key in head]
    lines = [head, ["---:" if right else "---" for right in numeric]]
    lines += [[_text(row[key]) for key in head] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ms(row: Mapping[str, Any]) -> str:
    return f"{_text(float(row['ms']))} ms"


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
