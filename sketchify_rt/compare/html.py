"""The sheet as one HTML file, which asks the network for nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

import cv2
import numpy as np

from sketchify_rt.compare.figure import Figure, Panel, Picture
from sketchify_rt.compare.words import LEGEND, MEANINGS, NO_TONES, TITLE, figures

BOX = (1400, 1400)  # of a panel, pixels
_QUALITY, _LOSSLESS = 90, 101  # of WebP in OpenCV

_HERE = Path(__file__).parent


def sheet(rows: Iterable[Figure], made_by: str) -> bytes:
    """A page of the rows in UTF-8, pictures within it, some 1 MB for each row, which are taken one
    by one. made_by: what painted the sketches, for the head.
    """
    table, sections = [], []
    for number, figure in enumerate(rows, 1):
        table.append(_table_row(figure, number))
        sections.append(_section(figure, number))
    head = "".join(f'<th scope="col">{name}</th>' for name in MEANINGS)
    meanings = "".join(f"<dt>{name}</dt><dd>{what}</dd>" for name, what in MEANINGS.items())
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{TITLE}</title>
<style>
{_text("sheet.css")}</style>
</head>
<body>
<header>
<h1>{TITLE}</h1>
<p>{escape(made_by)}. {LEGEND}</p>
</header>
<main>
<div class="figures" role="region" aria-label="Figures" tabindex="0">
<table>
<thead><tr><th scope="col">picture</th>{head}</tr></thead>
<tbody>
{"".join(table)}</tbody>
</table>
</div>
<details><summary>What the figures mean</summary><dl>{meanings}</dl></details>
{"".join(sections)}</main>
<script>
{_text("sheet.js")}</script>
</body>
</html>
"""
    return page.encode("utf-8", "replace")  # of a name that is no text


def _table_row(figure: Figure, number: int) -> str:
    if figure.metrics is None:
        cells = f'<td class="none" colspan="{len(MEANINGS)}">{NO_TONES}</td>'
    else:
        cells = "".join(f"<td>{value}</td>" for _, value in figures(figure.metrics))
    name = f'<a href="#picture-{number}">{escape(figure.name)}</a>'
    return f'<tr><th scope="row">{name}</th>{cells}</tr>\n'


def _section(figure: Figure, number: int) -> str:
    height, width = figure.sketch.picture.shape[:2]
    panels = "".join(
        f"<figure>{_image(panel)}<figcaption>{panel.title}<span>{panel.note}</span></figcaption>"
        "</figure>\n"
        for panel in figure.panels
        if panel not in (figure.original, figure.sketch)
    )
    return f"""<section id="picture-{number}" aria-labelledby="name-{number}">
<h2 id="name-{number}">{escape(figure.name)}<span>{figure.width} &times; {figure.height}</span></h2>
<div class="slider" style="--aspect: {width / height:.6f}">
<div class="pair">{_image(figure.original)}{_image(figure.sketch, "over")}</div>
<input type="range" min="0" max="100" value="50" \
aria-label="How much of the original is shown, in percent; the rest is the sketch">
<div class="ends" aria-hidden="true"><span>original</span><span>sketch</span></div>
</div>
<div class="panels">
{panels}</div>
</section>
"""


def _image(panel: Panel, kind: str = "") -> str:
    height, width = panel.picture.shape[:2]
    return (
        f'<img class="{kind}" alt="{panel.title}" width="{width}" height="{height}" '
        f'draggable="false" src="data:image/webp;base64,{_encoded(panel.picture)}">'
    )


def _encoded(picture: Picture) -> str:
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    two_levels = not np.any((picture > 0) & (picture < 255))
    quality = _LOSSLESS if two_levels else _QUALITY  # lossless takes a third of the room there
    _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return base64.b64encode(data.tobytes()).decode("ascii")


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
