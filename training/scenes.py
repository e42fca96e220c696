"""Drawn scenes: pieces of manga and ink pages, made by code.

A scene is drawn at two samples a pixel, ink 0 on paper 255, and reduced, which antialiases it.
Coordinates are pixels of the finished scene, x to the right and y down.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from sketchify_rt.image import Gray
from training.screentone import screentone

Rng = np.random.Generator
Array = NDArray[np.float32]
Points = NDArray[np.floating]
Motif = Callable[[Gray, Rng], None]

KINDS = {
    "line art": 0.30,
    "night": 0.05,  # white lines on black
    "solid blacks": 0.10,
    "panels": 0.11,
    "lettering": 0.09,
    "wash": 0.13,
    "flat tones": 0.07,
    "screentone": 0.15,
}
"""The kinds of scenes and their shares."""

INK, PAPER = 0, 255
_SAMPLES = 2  # a pixel, each way
_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV
_FONTS = (0, 1, 2, 3, 4, 5, 6, 7)  # the Hershey fonts


def scene(rng: Rng, side: int, kind: str | None = None) -> Gray:
    """A made-up piece of a page, at the scale of a page 1000 to 2000 pixels wide.

    side: of the square, in pixels, at least 32. kind: one of `KINDS`, or None for any, by their
    shares. Returns uint8 (side, side) luma, the same for the same state of `rng`.
    """
    if kind is None:
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    page = np.full((side * _SAMPLES, side * _SAMPLES), PAPER, np.uint8)
    _DRAW[kind](page, rng)
    gray = np.asarray(cv2.resize(page, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    if kind == "screentone":
        gray = _tones(gray, rng)
    return _scan(gray, rng, pencil=kind in ("line art", "wash"))


# -- how it is printed and scanned ---------------------------------------------------------------


def _scan(gray: Gray, rng: Rng, pencil: bool) -> Gray:
    """True black on white mostly, else a scan's dark gray, a pencil's, and paper with a tint."""
    black, white = rng.uniform(0, 40) if rng.random() < 0.6 else 0.0, 255.0
    chance = rng.random()
    if pencil and chance < 0.1:
        black = rng.uniform(60, 130)
    elif chance < 0.2:
        black = rng.uniform(40, 75)
    tinted = rng.random() < 0.25
    if tinted:
        white = rng.uniform(235, 250)
    table = np.rint(np.linspace(black, white, 256)).astype(np.uint8)
    gray = np.asarray(cv2.LUT(gray, table), np.uint8)
    if tinted:
        shade = _clouds(gray.shape, int(rng.integers(1, 4)), rng) * rng.uniform(0, 12)
        if rng.random() < 0.5:
            shade += rng.uniform(0.5, 2) * rng.standard_normal(gray.shape, np.float32)
        gray = np.asarray(cv2.convertScaleAbs(np.maximum(gray - shade, 0)), np.uint8)
    return gray


def _clouds(shape: tuple[int, ...], cells: int, rng: Rng) -> Array:
    """Smooth noise 0..1 of the shape, with `cells` features across."""
    coarse = rng.random((cells + 3, cells + 3), np.float32)
    fine = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(fine, 0, 1), np.float32)


# -- lines and shapes ----------------------------------------------------------------------------


def _side(page: Gray) -> float:
    return float(page.shape[0] / _SAMPLES)


def _fixed(points: Points) -> NDArray[np.int32]:
    return np.asarray(np.rint(points * (_SAMPLES << _SHIFT)), np.int32, order="C")


def _fill(page: Gray, outlines: Array | Sequence[Array], tone: int = INK) -> None:
    """Each outline of (n, points, 2) for itself: where they overlap they do not cancel."""
    fixed = _fixed(outlines) if isinstance(outlines, np.ndarray) else map(_fixed, outlines)
    for outline in fixed:
        cv2.fillPoly(page, [outline], tone, cv2.LINE_AA, _SHIFT)


def _lines(page: Gray, curves: Array, width: float, tone: int = INK) -> None:
    """Open polylines (n, points, 2) of one width, in steps of half a pixel."""
    thick = max(1, round(width * _SAMPLES))
    cv2.polylines(page, list(_fixed(curves)), False, tone, thick, cv2.LINE_AA, _SHIFT)


def _ribbons(curves: Array, widths: Array) -> Array:
    """Outlines (n, 2 points, 2) of bands around curves (n, points, 2), widths (n, points)."""
    along = np.empty_like(curves)
    along[:, 1:-1] = curves[:, 2:] - curves[:, :-2]
    along[:, 0], along[:, -1] = curves[:, 1] - curves[:, 0], curves[:, -1] - curves[:, -2]
    along *= (widths / 2 / np.maximum(np.hypot(along[..., 0], along[..., 1]), 1e-6))[..., None]
    across = np.stack([-along[..., 1], along[..., 0]], -1)
    return np.concatenate([curves + across, (curves - across)[:, ::-1]], 1)


def _strokes(page: Gray, curves: Array, width: Array | float, rng: Rng, tone: int = INK) -> None:
    """Pen or brush strokes along curves (n, points, 2): pressure swells, fades or stays."""
    t = np.linspace(0, 1, curves.shape[1], dtype=np.float32)
    pressure = (
        np.sin(3.14 * t) ** 0.7,  # a brush
        np.minimum(1, 12 * t) * (1 - t) ** 0.8,  # a flick of the pen
        np.minimum(1, 6 * np.minimum(t, 1 - t)),  # an even pen
    )[int(rng.integers(3))]
    full = np.broadcast_to(np.asarray(width, np.float32), len(curves))[:, None]
    _fill(page, _ribbons(curves, np.maximum(full * pressure, 0.5).astype(np.float32)), tone)


def _flow(
    rng: Rng, n: int, side: float, length: float, bend: float = 1.2, points: int = 28
) -> Array:
    """n curves (n, points, 2) that wander over the scene, `length` pixels long."""
    t = np.linspace(0, 1, points, dtype=np.float32)
    a = rng.normal(0, bend, (3, n, 1)).astype(np.float32)
    heading = rng.uniform(0, 2 * np.pi, (n, 1)) + a[0] * t + a[1] * np.sin(2 * np.pi * t + a[2])
    step = np.stack([np.cos(heading), np.sin(heading)], -1) * (length / points)
    path = np.cumsum(step, 1)
    middle = rng.uniform(0, side, (n, 1, 2))
    return np.asarray(path - path.mean(1, keepdims=True) + middle, np.float32)


def _blob(rng: Rng, centre: Array | None, radius: float, side: float, points: int = 64) -> Array:
    """The closed outline (points, 2) of an organic shape; `centre` None is anywhere."""
    a = np.linspace(0, 2 * np.pi, points, endpoint=False)
    waves = np.arange(2, 6)[:, None]
    swell = rng.normal(0, 0.35, (4, 1)) / waves
    r = radius * (1 + (swell * np.cos(waves * a + rng.uniform(0, 6.3, (4, 1)))).sum(0))
    stretch, turn = rng.uniform(0.5, 1), rng.uniform(0, np.pi)
    x, y = r * np.cos(a), r * np.sin(a) * stretch
    turned = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], 1)
    return np.asarray(turned + (rng.uniform(0, side, 2) if centre is None else centre), np.float32)


def _contour(page: Gray, outline: Array, width: float, rng: Rng, tone: int = INK) -> None:
    """The outline closed with a line that swells along its way."""
    curve = np.concatenate([outline, outline[:1]])
    phase = np.linspace(0, 2 * np.pi, len(curve)) * int(rng.integers(1, 4)) + rng.uniform(0, 6)
    widths = np.asarray(width * (0.65 + 0.45 * np.cos(phase)), np.float32)
    # In pieces: a closed ribbon would cross itself and cancel where it does.
    half = len(curve) // 2
    for part in (slice(0, half + 1), slice(half, None)):
        _fill(page, _ribbons(curve[None, part], np.maximum(widths[None, part], 0.6)), tone)


def _mask(page: Gray, outlines: Sequence[Array]) -> Gray:
    """255 inside the outlines, 0 outside."""
    mask = np.zeros_like(page)
    _fill(mask, outlines, 255)
    return mask


def _within(page: Gray, outline: Array, layer: Gray) -> None:
    """Lay `layer` over the page inside the outline."""
    cv2.copyTo(layer, _mask(page, [outline]), page)


def _pen(rng: Rng) -> float:
    """The width of a line in pixels: thin ones are the most common."""
    return float(rng.triangular(0.8, 1.6, 5))


# -- motifs of line art --------------------------------------------------------------------------


def _long_strokes(page: Gray, rng: Rng) -> None:
    side, n = _side(page), int(rng.integers(3, 12))
    curves = _flow(rng, n, side, rng.uniform(0.3, 1.2) * side)
    _strokes(page, curves, rng.triangular(1, 2, 6, n).astype(np.float32), rng)


def _shapes(page: Gray, rng: Rng) -> None:
    """Organic shapes, each before the ones already there."""
    side, width = _side(page), _pen(rng)
    for _ in range(int(rng.integers(1, 5))):
        outline = _blob(rng, None, rng.uniform(0.08, 0.45) * side, side)
        _fill(page, [outline], PAPER)
        if rng.random() < 0.5:
            _shade(page, outline, rng)
        _contour(page, outline, width, rng)


def _shade(page: Gray, outline: Array, rng: Rng) -> None:
    """Hatching, stippling or folds inside an outline."""
    layer = page.copy()
    (_hatching, _hatching, _stipple, _long_strokes)[int(rng.integers(4))](layer, rng)
    if rng.random() < 0.6:  # only the shadowed part
        inner = outline + rng.uniform(-0.4, 0.4, 2).astype(np.float32) * np.ptp(outline, 0)
        cv2.copyTo(page, _mask(page, [inner]), layer)
    _within(page, outline, layer)


def _hatching(page: Gray, rng: Rng) -> None:
    """Parallel lines over the whole page, crossed or not."""
    side, gap = _side(page), rng.uniform(3, 8)
    width, first = rng.choice((0.5, 1, 1, 1.5, 2)), rng.uniform(0, np.pi)
    for layer in range(int(rng.choice((1, 1, 2, 3)))):
        angle = first + layer * rng.uniform(0.6, 1.6)
        d = np.array([np.cos(angle), np.sin(angle)])
        offset = np.arange(-0.75 * side, 0.75 * side, gap)
        offset = (offset + rng.normal(0, 0.08 * gap, offset.size))[:, None]
        middle = side / 2 + offset * np.array([-d[1], d[0]])
        reach = side * rng.uniform(0.7, 0.75, (offset.size, 1)) * d
        ends = np.stack([middle - reach, middle + reach], 1).astype(np.float32)
        _lines(page, ends, float(width))


def _stipple(page: Gray, rng: Rng) -> None:
    """Dots, denser towards one side."""
    side, n = _side(page), int(rng.integers(60, 250))
    points = np.stack([rng.random(n) ** rng.uniform(1, 3), rng.random(n)], 1) * side
    points = np.asarray(points[:, ::-1] if rng.random() < 0.5 else side - points, np.float32)
    radius = int(rng.uniform(0.5, 1.4) * (_SAMPLES << _SHIFT))
    for x, y in _fixed(points).tolist():
        cv2.circle(page, (x, y), radius, INK, -1, cv2.LINE_AA, _SHIFT)


def _hair(page: Gray, rng: Rng) -> None:
    """A bundle of strands between two curves; sometimes black, with white strands left."""
    side, n = _side(page), int(rng.integers(8, 32))
    length = rng.uniform(0.5, 1.3) * side
    a, b = _flow(rng, 2, side, length, bend=0.9)
    b = a + (b - b[0]) * 0.35 + rng.normal(0, 0.15 * side, 2).astype(np.float32)
    t = np.sort(rng.random(n)).astype(np.float32)[:, None, None]
    strands = a + (b - a) * t + rng.normal(0, 1.5, (n, 1, 2)).astype(np.float32)
    black = rng.random() < 0.35
    if black or rng.random() < 0.5:
        _fill(page, [np.concatenate([a, b[::-1]])], INK if black else PAPER)
    _strokes(page, strands, rng.uniform(1, 3.5), rng, PAPER if black else INK)
    _strokes(page, np.stack([a, b]), rng.uniform(2, 4), rng)


def _eye(page: Gray, rng: Rng) -> None:
    side = _side(page)
    rx = rng.uniform(0.05, 0.16) * side
    ry, open_ = rx * rng.uniform(0.9, 1.6), rng.uniform(0.5, 0.9)
    for _ in range(int(rng.integers(1, 3))):
        x, y = rng.uniform(0.15, 0.85, 2) * side
        a = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        ring = np.stack([np.cos(a), np.sin(a)], 1) * np.array([rx * 0.6, ry * 0.8])
        at = np.array([x, y])
        _fill(page, [(at + ring * (1.9, 1.1)).astype(np.float32)], PAPER)
        iris = (at + ring).astype(np.float32)
        style = rng.random()
        _fill(page, [iris], INK if style < 0.4 else int(rng.uniform(90, 230)))
        if style >= 0.4:
            t = np.linspace(0, 2 * np.pi, 36, endpoint=False)
            spoke = np.stack([np.cos(t), np.sin(t)], 1) * np.array([rx, ry]) * 0.6
            _lines(page, np.stack([at + spoke * 0.5, at + spoke], 1).astype(np.float32), 0.5)
            _fill(page, [(at + ring * 0.45).astype(np.float32)], INK)
            _contour(page, iris, rng.uniform(1, 2.5), rng)
        glint = at + np.array([-0.25 * rx, -0.3 * ry])
        for size in (0.35, 0.15):
            _fill(page, [(glint + ring * size).astype(np.float32)], PAPER)
            glint = at + np.array([0.25 * rx, 0.35 * ry])
        u = np.linspace(-1, 1, 24)
        lids = [
            np.stack([x + rx * 1.3 * u, y - s * ry * open_ * (1 - u * u) + 0.1 * ry * u], 1)
            for s in (1.1, -0.9)
        ]
        brow = lids[0] - (0, ry * rng.uniform(0.5, 0.9))
        _strokes(page, lids[0][None].astype(np.float32), rng.uniform(3, 7), rng)
        _strokes(page, np.stack([lids[1], brow]).astype(np.float32), rng.uniform(1, 3), rng)


def _building(page: Gray, rng: Rng) -> None:
    """Verticals, lines to a vanishing point, and windows on the wall between."""
    side, width = _side(page), float(rng.choice((0.5, 1, 1, 1.5, 2)))
    vanish = np.array([rng.choice((-0.6, 1.6)) * side, rng.uniform(0.2, 0.9) * side])
    columns = np.cumsum(rng.uniform(0.08, 0.25, 12)) * side
    columns = columns[columns < 1.1 * side]
    rows = np.sort(rng.uniform(-0.3, 1.3, int(rng.integers(4, 14)))) * side
    # A row's height is meant at x = side / 2; nearer to the vanishing point it closes in.
    share = (columns - vanish[0]) / (side / 2 - vanish[0])
    y = vanish[1] + (rows[:, None] - vanish[1]) * share
    grid = np.stack([np.broadcast_to(columns, y.shape), y], -1).astype(np.float32)
    _lines(page, grid, width)
    _lines(page, grid[[0, -1]].transpose(1, 0, 2), width)
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], 2)
    cells = corners.reshape(-1, 4, 2)
    middle = cells.mean(1, keepdims=True)
    panes = middle + (cells - middle) * rng.uniform(0.4, 0.7)
    tone = INK if rng.random() < 0.4 else int(rng.integers(120, 256))
    for pane in panes[rng.random(len(panes)) < rng.uniform(0.2, 0.8)]:
        _fill(page, [pane], tone)
        _lines(page, np.concatenate([pane, pane[:1]])[None], width)


def _speed_lines(page: Gray, rng: Rng) -> None:
    side, n = _side(page), int(rng.integers(12, 45))
    angle = rng.choice((0, np.pi / 2, rng.uniform(0, np.pi)))
    d = np.array([np.cos(angle), np.sin(angle)])
    offset = rng.normal(0, rng.uniform(0.15, 0.5) * side, (n, 1))
    start = side / 2 + offset * np.array([-d[1], d[0]]) - d * side * rng.uniform(0.3, 0.8, (n, 1))
    end = start + d * side * rng.uniform(0.4, 1.4, (n, 1))
    t = np.linspace(0, 1, 4)[:, None]
    curves = start[:, None] + (end - start)[:, None] * t
    _strokes(page, curves.astype(np.float32), rng.uniform(0.7, 3, n).astype(np.float32), rng)


def _focus_lines(page: Gray, rng: Rng) -> None:
    """Wedges from the rim towards a middle that stays free."""
    side, n = _side(page), int(rng.integers(30, 110))
    at = rng.uniform(0.2, 0.8, 2) * side
    angle = np.sort(rng.uniform(0, 2 * np.pi, n))
    d = np.stack([np.cos(angle), np.sin(angle)], 1)
    across = np.stack([-d[:, 1], d[:, 0]], 1) * rng.uniform(0.5, 5, (n, 1))
    tip = at + d * side * (rng.uniform(0.15, 0.4) + rng.exponential(0.08, (n, 1)))
    far = at + d * 1.5 * side
    _fill(page, np.stack([tip, far + across, far - across], 1).astype(np.float32))


def _feathering(page: Gray, rng: Rng) -> None:
    """A line with short strokes that fade away from it."""
    side = _side(page)
    curve = _flow(rng, 1, side, rng.uniform(0.4, 1) * side, bend=0.8, points=int(side / 5))[0]
    along = np.gradient(curve, axis=0)
    along /= np.maximum(np.hypot(along[:, :1], along[:, 1:]), 1e-6)
    lean = rng.uniform(-0.8, 0.8)
    out = np.stack([-along[:, 1], along[:, 0]], 1) + lean * along
    size = rng.uniform(0.04, 0.15) * side * rng.uniform(0.6, 1.2, (len(curve), 1))
    t = np.linspace(0, 1, 5)[:, None]
    strokes = curve[:, None] + (out * size)[:, None] * t
    width = np.float32(rng.uniform(1, 3)) * (1 - t[:, 0]).astype(np.float32)
    widths = np.broadcast_to(width, strokes.shape[:2])
    _fill(page, _ribbons(strokes.astype(np.float32), np.maximum(widths, 0.5).astype(np.float32)))
    _strokes(page, curve[None], rng.uniform(1, 4), rng)


def _ruled(page: Gray, rng: Rng) -> None:
    side, n = _side(page), int(rng.integers(2, 10))
    ends = rng.uniform(-0.2, 1.2, (n, 2, 2)) * side
    square = rng.random(n) < 0.6
    ends[square, 1, 0] = ends[square, 0, 0]
    _lines(page, ends.astype(np.float32), float(rng.choice((0.5, 1, 1.5, 2, 3))))


def _contour_lines(page: Gray, rng: Rng) -> None:
    """Level lines of a smooth field: wood grain, ripples, folds, rock."""
    stretch = int(rng.choice((1, 1, 3, 8)))
    coarse = rng.random((4 + int(rng.integers(6)), 4 + 6 // stretch), np.float32)
    coarse = coarse if rng.random() < 0.5 else np.ascontiguousarray(coarse.T)
    field = cv2.resize(coarse, page.shape[::-1], interpolation=cv2.INTER_CUBIC)
    layer = page.copy()
    for level in np.linspace(0.2, 0.9, int(rng.integers(4, 12))):
        above = (field > level).astype(np.uint8)
        rims, _ = cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        # Every fourth point, for the staircase of the samples not to show.
        smooth = [np.ascontiguousarray(rim[::4]) for rim in rims if len(rim) > 30]
        cv2.polylines(layer, smooth, True, INK, int(rng.integers(1, 5)), cv2.LINE_AA)
    # The contours run along the border, too.
    layer[:4], layer[-4:], layer[:, :4], layer[:, -4:] = (
        page[:4],
        page[-4:],
        page[:, :4],
        page[:, -4:],
    )
    if rng.random() < 0.6:
        side = _side(page)
        outline = _blob(rng, None, rng.uniform(0.3, 0.6) * side, side)
        _within(page, outline, layer)
        _contour(page, outline, _pen(rng), rng)
    else:
        page[:] = layer


def _foliage(page: Gray, rng: Rng) -> None:
    """Tufts of grass or leaves: many short strokes, alike in direction."""
    side, n = _side(page), int(rng.integers(25, 90))
    root = rng.uniform(0, 1, (n, 1, 2)) * side * (1, rng.uniform(0.3, 1)) + (0, 0.2 * side)
    angle = -np.pi / 2 + rng.normal(0, rng.uniform(0.2, 1.5), (n, 1))
    length = rng.uniform(0.04, 0.16) * side * rng.uniform(0.5, 1.3, (n, 1))
    t = np.linspace(0, 1, 9)
    heading = angle + rng.normal(0, 0.7, (n, 1)) * t
    curves = (
        root
        + np.cumsum(np.stack([np.cos(heading), np.sin(heading)], -1), 1)
        * (length / len(t))[..., None]
    )
    if rng.random() < 0.5:  # leaves, paper or ink inside
        leaf = length * rng.uniform(0.2, 0.5) * np.sin(3.14 * t)
        inside = INK if rng.random() < 0.3 else PAPER
        for outline in _ribbons(curves.astype(np.float32), leaf.astype(np.float32)):
            _fill(page, [outline], inside)
            _lines(page, np.concatenate([outline, outline[:1]])[None], 0.8)
    else:
        _strokes(page, curves.astype(np.float32), rng.uniform(0.8, 3.5), rng)


_MOTIFS: tuple[tuple[Motif, float], ...] = (
    (_long_strokes, 0.13),
    (_shapes, 0.18),
    (_hair, 0.13),
    (_eye, 0.1),
    (_building, 0.1),
    (_speed_lines, 0.06),
    (_focus_lines, 0.04),
    (_feathering, 0.1),
    (_ruled, 0.06),
    (_contour_lines, 0.05),
    (_foliage, 0.05),
)


def _line_art(page: Gray, rng: Rng) -> None:
    """One to four motifs over each other."""
    weights = np.array([weight for _, weight in _MOTIFS])
    for i in rng.choice(len(_MOTIFS), int(rng.choice((1, 2, 2, 3, 4))), replace=False, p=weights):
        _MOTIFS[i][0](page, rng)


def _night(page: Gray, rng: Rng) -> None:
    _line_art(page, rng)
    np.subtract(255, page, out=page)


def _solid_blacks(page: Gray, rng: Rng) -> None:
    """Spotted blacks, with highlights left out."""
    side = _side(page)
    _line_art(page, rng)
    for _ in range(int(rng.integers(1, 4))):
        outline = _blob(rng, None, rng.uniform(0.15, 0.45) * side, side)
        _fill(page, [outline])
        layer = page.copy()
        n = int(rng.integers(2, 10))
        _strokes(layer, _flow(rng, n, side, 0.5 * side), rng.uniform(1, 4), rng, PAPER)
        _within(page, outline, layer)


# -- lettering and panels ------------------------------------------------------------------------


def _text(page: Gray, x: float, y: float, width: float, lines: int, rng: Rng) -> None:
    """Latin lettering of several lines, centred on (x, y)."""
    font = int(rng.choice(_FONTS))
    size = rng.uniform(0.35, 0.9) * _SAMPLES
    thick = int(rng.integers(1, 4))
    letters = string.ascii_uppercase if rng.random() < 0.7 else string.ascii_letters + "0123456789"
    pitch = 30 * size
    for row in range(lines):
        n = max(1, int(width * _SAMPLES / (17 * size)))
        chosen = rng.integers(0, len(letters), n)
        word = "".join(
            letters[i] if gap else " " for i, gap in zip(chosen, rng.random(n) > 0.17, strict=True)
        )
        word = word if rng.random() < 0.8 else word[: max(1, n // 2)] + "!"
        (w, _), _ = cv2.getTextSize(word, font, size, thick)
        at = int(x * _SAMPLES - w / 2), int(y * _SAMPLES + (row - lines / 2 + 0.8) * pitch)
        cv2.putText(page, word, at, font, size, INK, thick, cv2.LINE_AA)


def _glyphs(page: Gray, centres: Points, size: float, width: float, rng: Rng) -> None:
    """Signs made of a few strokes each, as kana and kanji are, centred on (n, 2)."""
    n = len(centres)
    t = np.linspace(0, 1, 7)
    for _ in range(int(rng.integers(4, 9))):
        start, end = rng.uniform(-0.45, 0.45, (2, n, 1, 2))
        form = rng.integers(0, 5, n)  # two in five level, one upright, two sweeps
        level, upright, sweep = form < 2, form == 2, form > 2
        reach = rng.uniform(0.15, 0.45, (n, 1))
        start[level, :, 0], end[level, :, 0] = -reach[level], reach[level]
        end[level, :, 1] = start[level, :, 1] - 0.04
        start[upright, :, 1], end[upright, :, 1] = -reach[upright], reach[upright]
        end[upright, :, 0] = start[upright, :, 0]
        bow = rng.normal(0, 0.15, (n, 1, 2)) * sweep[:, None, None] * np.sin(np.pi * t)[:, None]
        curves = centres[:, None] + size * (start + (end - start) * t[:, None] + bow)
        # A brush leaves the paper slowly after a sweep, and rests at the end of the others.
        widths = width * np.where(sweep[:, None], 1.1 - 0.7 * t, 0.75 + 0.4 * t**4)
        _fill(page, _ribbons(curves.astype(np.float32), widths.astype(np.float32)))


def _columns(page: Gray, x: float, y: float, rx: float, ry: float, rng: Rng) -> None:
    """Upright columns of signs that fill the ellipse at (x, y) of radii rx, ry."""
    size = rng.uniform(9, 18)
    most = 0.85 * rx // (1.25 * size)
    offset = np.arange(-most, most + 1) * 1.25 * size
    cells = [
        (x + dx, y - high + size * (k + 0.5))
        for dx, high in zip(offset, 0.8 * ry * np.sqrt(1 - (offset / rx) ** 2), strict=True)
        for k in range(int(2 * high / size))
    ]
    if cells:
        _glyphs(page, np.array(cells, np.float32), size * 0.9, size * rng.uniform(0.07, 0.14), rng)


def _balloon(page: Gray, rng: Rng) -> None:
    side = _side(page)
    x, y = rng.uniform(0.15, 0.85, 2) * side
    rx, ry = rng.uniform(28, 70), rng.uniform(28, 70)
    a = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    form = rng.random()
    if form < 0.6:  # an ellipse, more or less square
        power = rng.uniform(0.6, 1)
        unit = np.stack([np.sign(f(a)) * np.abs(f(a)) ** power for f in (np.cos, np.sin)], 1)
    else:
        bumps = int(rng.integers(8, 20))
        wave = np.abs(np.sin(a * bumps / 2))
        r = 1 + 0.12 * wave if form < 0.8 else 1.3 - 0.4 * wave  # a cloud or a burst
        unit = np.stack([np.cos(a), np.sin(a)], 1) * r[:, None]
    outline = (np.array([x, y]) + unit * (rx * 1.15, ry * 1.15)).astype(np.float32)
    width, tone = rng.uniform(1, 3), PAPER
    angle = rng.uniform(0, 2 * np.pi)
    tail = np.array([x, y]) + np.array([np.cos(angle) * rx, np.sin(angle) * ry]) * 1.7
    foot = np.array([-np.sin(angle), np.cos(angle)]) * 7
    root = np.array([x, y]) + (tail - (x, y)) * 0.5
    spike = np.stack([root + foot, tail, root - foot]).astype(np.float32)
    has_tail = rng.random() < 0.6
    if has_tail:
        _lines(page, spike[None], width)
    closed = np.concatenate([outline, outline[:1]])
    _fill(page, [outline], tone)
    _lines(page, closed[None], width)
    if has_tail:
        _fill(page, [spike], tone)
    if rng.random() < 0.5:
        _columns(page, x, y, rx, ry, rng)
    else:
        _text(page, x, y, 1.5 * rx, max(1, int(ry / 14)), rng)


def _sound_effect(page: Gray, rng: Rng) -> None:
    """A few big signs or letters with an outline."""
    side, n = _side(page), int(rng.integers(1, 4))
    size = rng.uniform(0.25, 0.6) * side
    layer = np.full_like(page, PAPER)
    if rng.random() < 0.5:
        step = np.array([0.3, 0.9]) if rng.random() < 0.5 else np.array([0.9, 0.15])
        at = rng.uniform(0.2, 0.6, 2) * side + np.arange(n)[:, None] * step * size
        _glyphs(layer, at, size, size * rng.uniform(0.08, 0.16), rng)
    else:
        word = "".join(rng.choice(list(string.ascii_uppercase + "!?"), n + 1))
        corner = int(rng.uniform(0, 0.4) * len(page)), int(rng.uniform(0.4, 0.95) * len(page))
        thick = round(0.12 * size * _SAMPLES)
        cv2.putText(layer, word, corner, 2, size * _SAMPLES / 22, INK, max(1, thick), cv2.LINE_AA)
    inner, outer = (PAPER, INK) if rng.random() < 0.5 else (INK, PAPER)
    rims, _ = cv2.findContours(255 - layer, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.polylines(page, rims, True, outer, int(rng.integers(3, 14)), cv2.LINE_AA)
    cv2.copyTo(np.full_like(page, inner), 255 - layer, page)


def _lettering(page: Gray, rng: Rng) -> None:
    side = _side(page)
    if rng.random() < 0.8:
        _line_art(page, rng)
    for _ in range(int(rng.integers(1, 4))):
        _balloon(page, rng)
    if rng.random() < 0.35:
        _sound_effect(page, rng)
    elif rng.random() < 0.2:  # a caption
        x, y = rng.uniform(0.2, 0.8, 2) * side
        corners = np.array([(-70, -16), (70, -16), (70, 16), (-70, 16), (-70, -16)])
        corners = corners + np.array([x, y])
        _fill(page, [corners.astype(np.float32)], PAPER)
        _lines(page, corners[None].astype(np.float32), 1.5)
        _text(page, x, y, 120, 1, rng)


def _panels(page: Gray, rng: Rng) -> None:
    """Two to four panels with gutters between, cut straight or at a slant."""
    side = _side(page)
    first, second, third = rng.uniform(0.2, 0.8, 3) * side
    slant = rng.normal(0, 0.06) * side if rng.random() < 0.4 else 0.0
    gutter, frame = rng.uniform(4, 14), rng.uniform(2, 5)
    far, near = side + 20.0, -20.0
    cells = []
    for top, bottom, cut in ((near, first, second), (first, far, third)):
        for left, right in ((near, cut), (cut, far)):
            tops = [top + slant * s if top == first else top for s in (-1, 1)]
            ends = [bottom + slant * s if bottom == first else bottom for s in (-1, 1)]
            g = gutter / 2
            cells.append(
                np.array(
                    [
                        (left + g, tops[0] + g),
                        (right - g, tops[1] + g),
                        (right - g, ends[1] - g),
                        (left + g, ends[0] - g),
                    ],
                    np.float32,
                )
            )
    for cell in cells:
        layer = np.full_like(page, PAPER)
        art = rng.random()
        if art < 0.15:
            layer[:] = INK
        elif art < 0.3:
            _night(layer, rng)
        elif art < 0.85:
            _line_art(layer, rng)
        if art > 0.6:
            tone = _flat(rng)
            _within(layer, _blob(rng, None, 0.4 * side, side), np.minimum(layer, tone))
        _within(page, cell, layer)
        if rng.random() < 0.9:
            _lines(page, np.concatenate([cell, cell[:1]])[None], frame)
    if rng.random() < 0.5:
        _balloon(page, rng)


# -- tones ---------------------------------------------------------------------------------------


def _flat(rng: Rng) -> np.uint8:
    return np.uint8(rng.integers(90, 240))


def _flat_tones(page: Gray, rng: Rng) -> None:
    """Marker grays and plain gradients under the lines."""
    side = _side(page)
    _gradient(page, rng)
    for _ in range(int(rng.integers(1, 5))):
        outline = _blob(rng, None, rng.uniform(0.1, 0.5) * side, side)
        layer = cv2.multiply(page, np.full_like(page, _flat(rng)), scale=1 / 255)
        _within(page, outline, np.asarray(layer, np.uint8))
    _line_art_over(page, rng)


def _gradient(page: Gray, rng: Rng) -> None:
    """A sky: one smooth ramp over the whole page, half of the time."""
    if rng.random() < 0.5:
        return
    ramp = np.linspace(rng.uniform(60, 255), rng.uniform(150, 255), page.shape[0])
    ramp = ramp if rng.random() < 0.7 else ramp[::-1]
    page[:] = np.rint(ramp).astype(np.uint8)[:, None]


def _line_art_over(page: Gray, rng: Rng) -> None:
    """Line art whose paper is clear: it darkens what is there."""
    layer = np.full_like(page, PAPER)
    _line_art(layer, rng)
    cv2.multiply(page, layer, page, scale=1 / 255)


def _wash(page: Gray, rng: Rng) -> None:
    """Layers of ink wash: soft and hard edges, dark rims, granulation, dry brush."""
    side = int(_side(page))
    light = np.ones((side, side), np.float32)
    for _ in range(int(rng.integers(2, 5))):
        shape = np.zeros((side, side), np.uint8)
        outline = _blob(rng, None, rng.uniform(0.15, 0.6) * side, side)
        cv2.fillPoly(shape, [np.asarray(np.rint(outline), np.int32)], 255)
        spread = float(rng.uniform(2, 10))
        field = cv2.blur(shape, (int(spread) * 2 + 1,) * 2).astype(np.float32) / 255
        field += rng.uniform(0.05, 0.5) * (
            _clouds(shape.shape, int(rng.integers(4, 24)), rng) - 0.5
        )
        hard = rng.random() < 0.6
        cover = np.clip((field - 0.5) * (6 if hard else 1) + 0.5, 0, 1)
        if hard and rng.random() < 0.7:  # pigment gathers where the wash dries last
            rim = np.clip(1 - np.abs(field - 0.62) * rng.uniform(5, 9), 0, 1)
            cover *= 0.75 + rng.uniform(0.2, 0.6) * rim
        if rng.random() < 0.6:
            cells = int(rng.integers(side // 6, side // 2))
            cover *= 1 - rng.uniform(0.03, 0.5) * _clouds(shape.shape, cells, rng)
        light *= 1 - rng.uniform(0.1, 0.75) * cover
    if rng.random() < 0.4:
        light *= 1 - _dry_brush(side, rng)
    tones = np.asarray(cv2.convertScaleAbs(light, alpha=255), np.uint8)
    cv2.resize(tones, page.shape[::-1], page, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.75:
        _line_art_over(page, rng)


def _dry_brush(side: int, rng: Rng) -> Array:
    """Cover 0..1 of a streaky stroke over the scene."""
    band = int(rng.uniform(0.1, 0.35) * side)
    bristles = rng.random((band, 1 + side // 40), np.float32)
    streaks = cv2.resize(bristles, (int(1.4 * side), band), interpolation=cv2.INTER_LINEAR)
    dry = np.linspace(0, rng.uniform(0.3, 0.9), streaks.shape[1], dtype=np.float32)
    streaks = np.clip((streaks - dry) * 6, 0, 1) * np.float32(rng.uniform(0.3, 0.95))
    turn = cv2.getRotationMatrix2D((streaks.shape[1] / 2, band / 2), rng.uniform(0, 360), 1)
    turn[:, 2] += rng.uniform(0.2, 0.8, 2) * side - (streaks.shape[1] / 2, band / 2)
    return np.asarray(cv2.warpAffine(streaks, turn, (side, side)), np.float32)


def _tones(gray: Gray, rng: Rng) -> Gray:
    """Screentones laid on shapes of a finished drawing, flat or in gradients."""
    side = gray.shape[0]
    for _ in range(int(rng.integers(1, 4))):
        shade = np.full_like(gray, int(rng.uniform(76, 230)))
        if rng.random() < 0.35:
            ramp = np.linspace(rng.uniform(20, 120), 255, side)[:: int(rng.choice((-1, 1)))]
            shade[:] = np.rint(ramp).astype(np.uint8)
            shade = np.ascontiguousarray(shade.T) if rng.random() < 0.7 else shade
        tone = screentone(shade, rng)
        if rng.random() < 0.75:
            clip = np.zeros_like(gray)
            outline = _blob(rng, None, rng.uniform(0.2, 0.6) * side, side)
            cv2.fillPoly(clip, [np.asarray(np.rint(outline), np.int32)], 255, cv2.LINE_AA)
            tone = np.maximum(tone, 255 - clip)
        gray = np.minimum(gray, tone)
    return gray


_DRAW: dict[str, Motif] = {
    "line art": _line_art,
    "night": _night,
    "solid blacks": _solid_blacks,
    "panels": _panels,
    "lettering": _lettering,
    "wash": _wash,
    "flat tones": _flat_tones,
    "screentone": _line_art,  # `scene` lays the tones
}
