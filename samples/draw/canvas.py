"""A small painting canvas: smooth outlines, soft fills, tapered lines, strokes of many kinds.

Coordinates are pixels of the finished picture, x to the right and y down. Colours are "#rrggbb" or
a `Gradient`. Everything random takes a seed, so that a picture is the same each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Points = NDArray[np.float32] | Sequence[tuple[float, float]]
Blend = Literal["over", "multiply", "screen"]

_SHIFT = 4  # fractional bits of the coordinates handed to OpenCV


def rgb(color: str) -> Array:
    """Turns "#rrggbb" into float32 (3,), 0..1."""
    return np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)


def mix(a: str, b: str, t: float) -> str:
    """The colour at `t` (0..1) of the way from `a` to `b`."""
    r = np.rint(255 * (rgb(a) * (1 - t) + rgb(b) * t)).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*r)


@dataclass(frozen=True)
class Gradient:
    """Colours spread evenly from point `start` to point `end`, constant beyond them."""

    start: tuple[float, float]
    end: tuple[float, float]
    colors: tuple[str, ...]
    radial: bool = False  # then from the middle `start` outwards, `end` lying on the rim

    def at(self, x: Array, y: Array) -> Array:
        """Colours float32 (H, W, 3) at the coordinates x (W,) and y (H,)."""
        dx, dy = self.end[0] - self.start[0], self.end[1] - self.start[1]
        u, v = x[None, :] - self.start[0], y[:, None] - self.start[1]
        t = np.hypot(u, v) / math.hypot(dx, dy) if self.radial else (u * dx + v * dy)
        if not self.radial:
            t = t / (dx * dx + dy * dy)
        stops = np.linspace(0, 1, len(self.colors))
        table = np.stack([rgb(c) for c in self.colors])
        return np.stack([np.interp(t, stops, table[:, k]) for k in range(3)], -1).astype(np.float32)


Paint = str | Gradient


def smooth(points: Points, closed: bool = False, steps: int = 14) -> Array:
    """A Catmull-Rom curve through the points, (N, 2). A point given twice is a corner."""
    p = [tuple(q) for q in np.asarray(points, np.float32)]
    p = [p[-1], *p, p[0], p[1]] if closed else [p[0], *p, p[-1]]
    out: list[Array] = []
    t = np.linspace(0, 1, steps, endpoint=False, dtype=np.float32)[:, None]
    for a, b, c, d in zip(*(np.asarray(p[i : len(p) - 3 + i]) for i in range(4)), strict=True):
        if np.array_equal(b, c):
            continue
        m, n = (c - a) / 2, (d - b) / 2
        t2, t3 = t * t, t * t * t
        out.append(
            (2 * t3 - 3 * t2 + 1) * b
            + (t3 - 2 * t2 + t) * m
            + (3 * t2 - 2 * t3) * c
            + (t3 - t2) * n
        )
    if not closed:
        out.append(np.asarray([p[-1]], np.float32))
    return np.concatenate(out).astype(np.float32)


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0, n: int = 72) -> Array:
    """The outline of an ellipse, turned by `turn` degrees clockwise, (n, 2)."""
    a = np.linspace(0, 2 * math.pi, n, endpoint=False)
    u, v = rx * np.cos(a), ry * np.sin(a)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return np.stack([x + u * c - v * s, y + u * s + v * c], -1).astype(np.float32)


def box(x0: float, y0: float, x1: float, y1: float) -> Array:
    """The four corners of an upright rectangle, (4, 2)."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float32)


def normals(curve: Array) -> Array:
    """Unit normals along a curve, (N, 2), pointing to the right of its direction on screen."""
    d = np.gradient(curve, axis=0)
    d /= np.maximum(np.hypot(d[:, :1], d[:, 1:]), 1e-6)
    return np.stack([-d[:, 1], d[:, 0]], -1)


def ribbon(curve: Array, width: Array | float) -> Array:
    """The outline of a band around `curve` (N, 2), `width` pixels across (a number or (N,))."""
    half = np.broadcast_to(np.asarray(width, np.float32) / 2, len(curve))[:, None]
    n = normals(curve) * half
    return np.concatenate([curve + n, (curve - n)[::-1]]).astype(np.float32)


def noise(height: int, width: int, cell: float, seed: int, octaves: int = 1) -> Array:
    """Smooth noise of mean 0.5, (height, width); features are about `cell` samples across."""
    rng = np.random.default_rng(seed)
    total, weight = np.zeros((height, width), np.float32), 0.0
    for k in range(octaves):
        size = cell / 2**k
        if size < 1:
            break
        h, w = math.ceil(height / size) + 3, math.ceil(width / size) + 3
        coarse = rng.random((h, w)).astype(np.float32)
        fine = cv2.resize(coarse, (math.ceil(w * size), math.ceil(h * size)), interpolation=2)
        total += fine[:height, :width] / 2**k
        weight += 1 / 2**k
    return total / np.float32(weight)


@dataclass
class Region:
    """Coverage 0..1 over a rectangle of the canvas whose upper left sample is (x, y)."""

    x: int
    y: int
    mask: Array


class Canvas:
    """Float RGB at `scale` samples a pixel; `image` reduces it to the finished picture."""

    def __init__(self, width: int, height: int, paper: Paint | None = "#ffffff", scale: int = 2):
        """`paper` fills the canvas; None leaves it transparent."""
        self.width, self.height, self.scale = width, height, scale
        self.rgb = np.zeros((height * scale, width * scale, 3), np.float32)
        self.alpha = np.zeros((height * scale, width * scale), np.float32)
        self._clip: Array | None = None
        if paper is not None:
            self.fill(box(-9, -9, width + 9, height + 9), paper)

    # -- where to paint -------------------------------------------------------------------------

    def region(self, outlines: Array | Sequence[Array], blur: float = 0) -> Region:
        """Coverage of the outlines together (even-odd), softened by a Gaussian of `blur` pixels."""
        shapes = [outlines] if isinstance(outlines, np.ndarray) else list(outlines)
        shapes = [np.asarray(s, np.float32) * self.scale - 0.5 for s in shapes]
        pad = math.ceil(3 * blur * self.scale) + 2
        every = np.concatenate(shapes)
        limit = np.array([self.rgb.shape[1], self.rgb.shape[0]])
        low = np.clip(np.floor(every.min(0)) - pad, -pad, limit + pad).astype(int)
        high = np.clip(np.ceil(every.max(0)) + pad + 1, -pad, limit + pad).astype(int)
        w, h = np.maximum(high - low, 1)
        mask = np.zeros((h, w), np.uint8)
        fixed = [np.rint((s - low) * 2**_SHIFT).astype(np.int32) for s in shapes]
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, _SHIFT)
        soft = mask.astype(np.float32) / 255
        if blur:
            soft = cv2.GaussianBlur(
                soft, (0, 0), blur * self.scale, borderType=cv2.BORDER_REPLICATE
            )
        x0, y0 = np.maximum(low, 0)
        x1, y1 = np.maximum(np.minimum(high, limit), (x0, y0))
        return Region(int(x0), int(y0), soft[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]])

    @contextmanager
    def clip(self, outlines: Array | Sequence[Array], blur: float = 0) -> Iterator[None]:
        """Inside the `with`, only what lies within the outlines is painted."""
        before, where = self._clip, self.region(outlines, blur)
        inside = np.zeros(self.alpha.shape, np.float32)
        h, w = where.mask.shape
        inside[where.y : where.y + h, where.x : where.x + w] = where.mask
        self._clip = inside if before is None else inside * before
        try:
            yield
        finally:
            self._clip = before

    # -- painting ---------------------------------------------------------------------------------

    def paint(
        self, where: Region, paint: Paint, opacity: float | Array = 1, blend: Blend = "over"
    ) -> None:
        """Paints a region. `opacity` is a number or an array of the whole canvas's samples."""
        h, w = where.mask.shape
        if not h or not w:
            return
        at = slice(where.y, where.y + h), slice(where.x, where.x + w)
        a = where.mask * (opacity[at] if isinstance(opacity, np.ndarray) else np.float32(opacity))
        if self._clip is not None:
            a = a * self._clip[at]
        if isinstance(paint, Gradient):
            x = (np.arange(where.x, where.x + w, dtype=np.float32) + 0.5) / self.scale
            y = (np.arange(where.y, where.y + h, dtype=np.float32) + 0.5) / self.scale
            color = paint.at(x, y)
        else:
            color = rgb(paint)
        below = self.rgb[at]
        a3 = a[..., None]
        if blend == "multiply":
            below *= 1 - a3 * (1 - color)
        elif blend == "screen":
            below += a3 * color * (self.alpha[at][..., None] - below)
        else:
            below *= 1 - a3
            below += a3 * color
            self.alpha[at] += a * (1 - self.alpha[at])

    def fill(
        self,
        outlines: Array | Sequence[Array],
        paint: Paint,
        opacity: float | Array = 1,
        blur: float = 0,
        blend: Blend = "over",
    ) -> None:
        """Fills outlines; see `region` and `paint`."""
        self.paint(self.region(outlines, blur), paint, opacity, blend)

    def line(
        self,
        curve: Array,
        width: float,
        paint: Paint = "#2a2228",
        opacity: float = 1,
        taper: tuple[float, float] = (0.25, 0.25),
        blend: Blend = "over",
    ) -> None:
        """A pen line along `curve` that thins out over the fractions `taper` at its two ends."""
        t = np.linspace(0, 1, len(curve), dtype=np.float32)
        w = np.full(len(curve), width, np.float32)
        if taper[0]:
            w *= np.minimum(1, 0.15 + t / taper[0])
        if taper[1]:
            w *= np.minimum(1, 0.15 + (1 - t) / taper[1])
        self.fill(ribbon(curve, w), paint, opacity, blend=blend)

    def contour(
        self, outline: Array, width: float, paint: Paint = "#2a2228", opacity: float = 1
    ) -> None:
        """A line of even width around a closed outline."""
        after = np.roll(outline, -1, 0)
        step = (after - outline) * np.float32(0.01)  # keeps the width even up to the corners
        dense = np.stack([outline, outline + step, after - step], 1).reshape(-1, 2)
        n = normals(np.concatenate([dense[-1:], dense, dense[:1]]))[1:-1] * np.float32(width / 2)
        self.fill([dense + n, dense - n], paint, opacity)

    def hatch(
        self,
        outline: Array,
        angle: float,
        spacing: float,
        paint: Paint,
        opacity: float = 0.5,
        width: float = 1.3,
        seed: int = 0,
    ) -> None:
        """Strokes drawn by hand across the outline, `angle` degrees from the horizontal."""
        rng = np.random.default_rng(seed)
        middle = (outline.min(0) + outline.max(0)) / 2
        reach = float(np.hypot(*(outline.max(0) - outline.min(0)))) / 2
        c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        along, across = np.array([c, s]), np.array([-s, c])
        t = np.linspace(-1, 1, 7)[:, None]
        with self.clip(outline):
            for k in np.arange(-reach, reach, spacing):
                k += rng.normal(0, spacing * 0.25)
                bend = across * rng.normal(0, reach * 0.02)
                reach_here = reach * rng.uniform(0.85, 1.0)
                curve = middle + across * k + along * t * reach_here + bend * (1 - t * t)
                self.line(
                    curve.astype(np.float32),
                    width * rng.uniform(0.6, 1.3),
                    paint,
                    opacity * rng.uniform(0.5, 1),
                )

    def noise(self, cell: float, seed: int, octaves: int = 1) -> Array:
        """`noise` over the samples of this canvas, `cell` in pixels."""
        return noise(*self.alpha.shape, cell * self.scale, seed, octaves)

    def streaks(self, length: float, width: float, angle: float, seed: int) -> Array:
        """Noise drawn out along `angle` degrees, as of a brush; (H, W) of samples, 0..1."""
        h, w = self.alpha.shape
        side = math.ceil(math.hypot(h, w))
        n, m = math.ceil(side / (width * self.scale)), math.ceil(side / (length * self.scale))
        coarse = np.random.default_rng(seed).random((n + 2, m + 2)).astype(np.float32)
        big = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), -angle, 1)
        turn[:, 2] -= ((side - w) / 2, (side - h) / 2)
        return np.clip(cv2.warpAffine(big, turn, (w, h), borderMode=cv2.BORDER_REFLECT), 0, 1)

    # -- the picture ------------------------------------------------------------------------------

    def image(self) -> NDArray[np.uint8]:
        """The finished picture, uint8 (H, W, 4), RGB with straight alpha."""
        size = (self.width, self.height)
        alpha = np.clip(cv2.resize(self.alpha, size, interpolation=cv2.INTER_AREA), 0, 1)
        color = cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA)
        color = np.where(alpha[..., None] > 0, color / np.maximum(alpha, 1e-4)[..., None], 0)
        out = np.dstack([np.clip(color, 0, 1), alpha])
        return np.rint(out * 255).astype(np.uint8)
