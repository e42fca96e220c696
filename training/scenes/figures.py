"""Motifs that stand for things: shapes, hair, eyes, buildings, foliage."""

from __future__ import annotations

import numpy as np

from sketchify_rt.image import Gray
from training.scenes import pen
from training.scenes.canvas import INK, PAPER, Rng, side_of
from training.scenes.geometry import blob, circle, flow, headings, ribbons
from training.scenes.textures import shade


def shapes(page: Gray, rng: Rng) -> None:
    """Organic shapes, each before the ones already there."""
    side, width = side_of(page), pen.width(rng)
    for _ in range(int(rng.integers(1, 5))):
        outline = blob(rng, rng.uniform(0.08, 0.45) * side, side)
        pen.fill(page, [outline], PAPER)
        if rng.random() < 0.5:
            shade(page, outline, rng)
        pen.contour(page, outline, width, rng)


def hair(page: Gray, rng: Rng) -> None:
    """A bundle of strands between two curves; sometimes black, with white strands left."""
    side, n = side_of(page), int(rng.integers(8, 32))
    length = rng.uniform(0.5, 1.3) * side
    a, b = flow(rng, 2, side, length, bend=0.9)
    b = a + (b - b[0]) * 0.35 + rng.normal(0, 0.15 * side, 2).astype(np.float32)
    t = np.sort(rng.random(n)).astype(np.float32)[:, None, None]
    strands = a + (b - a) * t + rng.normal(0, 1.5, (n, 1, 2)).astype(np.float32)
    black = rng.random() < 0.35
    if black or rng.random() < 0.5:
        pen.fill(page, [np.concatenate([a, b[::-1]])], INK if black else PAPER)
    pen.strokes(page, strands, rng.uniform(1, 3.5), rng, PAPER if black else INK)
    pen.strokes(page, np.stack([a, b]), rng.uniform(2, 4), rng)


def eyes(page: Gray, rng: Rng) -> None:
    """One or two eyes with lids and brows."""
    side = side_of(page)
    rx = rng.uniform(0.05, 0.16) * side
    ry, open_ = rx * rng.uniform(0.9, 1.6), rng.uniform(0.5, 0.9)
    ring = circle(40) * (rx * 0.6, ry * 0.8)
    u = np.linspace(-1, 1, 24)
    for _ in range(int(rng.integers(1, 3))):
        at = rng.uniform(0.15, 0.85, 2) * side
        pen.fill(page, [at + ring * (1.9, 1.1)], PAPER)
        iris = at + ring
        style = rng.random()
        pen.fill(page, [iris], INK if style < 0.4 else int(rng.uniform(90, 230)))
        if style >= 0.4:
            spoke = circle(36) * (rx, ry) * 0.6
            pen.lines(page, np.stack([at + spoke * 0.5, at + spoke], 1), 0.5)
            pen.fill(page, [at + ring * 0.45])
            pen.contour(page, iris, rng.uniform(1, 2.5), rng)
        for size, glint in ((0.35, (-0.25 * rx, -0.3 * ry)), (0.15, (0.25 * rx, 0.35 * ry))):
            pen.fill(page, [at + glint + ring * size], PAPER)
        x, y = at
        upper, lower = (
            np.stack([x + rx * 1.3 * u, y - s * ry * open_ * (1 - u * u) + 0.1 * ry * u], 1)
            for s in (1.1, -0.9)
        )
        brow = upper - (0, ry * rng.uniform(0.5, 0.9))
        pen.strokes(page, upper[None], rng.uniform(3, 7), rng)
        pen.strokes(page, np.stack([lower, brow]), rng.uniform(1, 3), rng)


def building(page: Gray, rng: Rng) -> None:
    """Verticals, lines to a vanishing point, and windows on the wall between."""
    side, width = side_of(page), float(rng.choice((0.5, 1, 1, 1.5, 2)))
    vanish = np.array([rng.choice((-0.6, 1.6)) * side, rng.uniform(0.2, 0.9) * side])
    columns = np.cumsum(rng.uniform(0.08, 0.25, 12)) * side
    columns = columns[columns < 1.1 * side]
    rows = np.sort(rng.uniform(-0.3, 1.3, int(rng.integers(4, 14)))) * side
    # A row's height is meant at x = side / 2; nearer to the vanishing point it closes in.
    share = (columns - vanish[0]) / (side / 2 - vanish[0])
    y = vanish[1] + (rows[:, None] - vanish[1]) * share
    grid = np.stack([np.broadcast_to(columns, y.shape), y], -1).astype(np.float32)
    pen.lines(page, grid, width)
    pen.lines(page, grid[[0, -1]].transpose(1, 0, 2), width)
    corners = np.stack([grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]], 2)
    cells = corners.reshape(-1, 4, 2)
    middle = cells.mean(1, keepdims=True)
    panes = middle + (cells - middle) * rng.uniform(0.4, 0.7)
    tone = INK if rng.random() < 0.4 else int(rng.integers(120, 256))
    for pane in panes[rng.random(len(panes)) < rng.uniform(0.2, 0.8)]:
        pen.fill(page, [pane], tone)
        pen.loop(page, pane, width)


def foliage(page: Gray, rng: Rng) -> None:
    """Tufts of grass or leaves: many short strokes, alike in direction."""
    side, n = side_of(page), int(rng.integers(25, 90))
    root = rng.uniform(0, 1, (n, 1, 2)) * side * (1, rng.uniform(0.3, 1)) + (0, 0.2 * side)
    angle = -np.pi / 2 + rng.normal(0, rng.uniform(0.2, 1.5), (n, 1))
    length = rng.uniform(0.04, 0.16) * side * rng.uniform(0.5, 1.3, (n, 1))
    t = np.linspace(0, 1, 9)
    way = np.cumsum(headings(angle + rng.normal(0, 0.7, (n, 1)) * t), 1)
    curves = root + way * (length / len(t))[..., None]
    if rng.random() < 0.5:
        leaves = ribbons(curves, length * rng.uniform(0.2, 0.5) * np.sin(3.14 * t))
        inside = INK if rng.random() < 0.3 else PAPER
        for leaf in leaves:
            pen.fill(page, [leaf], inside)
            pen.loop(page, leaf, 0.8)
    else:
        pen.strokes(page, curves, rng.uniform(0.8, 3.5), rng)
