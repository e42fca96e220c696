"""The sheet as one HTML file, which loads nothing from the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

import cv2
import numpy as np

from sketchify_rt.compare.figure import Figure
from sketchify_rt.compare.words import LEGEND, MEANINGS, NO_TONES, TITLE, figures

BOX = (1400, 1400)  # of a panel, pixels
_QUALITY, _LOSSLESS = 90, 101  # of WebP in OpenCV


def sheet(rows: Iterable[Figure], made_by: str) -> bytes:
    """Makes the page, with the pictures in it.

    Args:
        rows: The pictures, at least one. Each is released before the next one is taken.
        made_by: What made the sketches, for the head.

    Returns:
        The page in UTF-8, about 1 MB for each row.
    """
    table, sections = "", []
    for number, figure in enumerate(rows, 1):
        table += _table_row(figure, number)
        sections.append(_section(figure, number))
    page = _text("sheet.html").substitute(
        title=TITLE,
        legend=LEGEND,
        made_by=escape(made_by),
        head="".join(f'<th scope="col">{name}</th>' for name in MEANINGS),
        table=table,
        meanings="".join(f"<dt>{name}</dt><dd>{what}</dd>" for name, what in MEANINGS.items()),
        sections="".join(sections),
        style=_text("sheet.css").template,
        script=_text("sheet.js").template,
    )
    return page.encode("utf-8", "replace")  # a name may have bytes that are no text


def _table_row(figure: Figure, number: int) -> str:
    cells = f'<td class="none" colspan="{len(MEANINGS)}">{NO_TONES}</td>'
    if figure.metrics:
        cells = "".join(f"<td>{value}</td>" for value in figures(figure.metrics).values())
    name = f'<a href="#picture-{number}">{escape(figure.name)}</a>'
    return f'<tr><th scope="row">{name}</th>{cells}</tr>\n'


def _section(figure: Figure, number: int) -> str:
    height, width = figure.panels["sketch"].picture.shape
    return _text("section.html").substitute(
        number=number,
        name=escape(figure.name),
        height=figure.height,
        width=figure.width,
        aspect=f"{width / height:.6f}",
        original=_image(figure, "original"),
        sketch=_image(figure, "sketch", "over"),
        panels="".join(
            f"<figure>{_image(figure, title)}<figcaption>{title}<span>{panel.note}</span>"
            "</figcaption></figure>\n"
            for title, panel in figure.panels.items()
            if title not in ("original", "sketch")
        ),
    )


def _image(figure: Figure, title: str, kind: str = "") -> str:
    picture = figure.panels[title].picture
    height, width = picture.shape[:2]
    pixels = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    two_levels = not np.any((picture > 0) & (picture < 255))
    quality = _LOSSLESS if two_levels else _QUALITY  # of two levels lossless is a third as large
    _, data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    return (
        f'<img class="{kind}" alt="{title}" width="{width}" height="{height}" draggable="false" '
        f'src="data:image/webp;base64,{base64.b64encode(data.tobytes()).decode("ascii")}">'
    )


def _text(name: str) -> Template:
    return Template((Path(__file__).parent / name).read_text(encoding="utf-8"))
