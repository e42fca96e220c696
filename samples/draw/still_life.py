"""Fruit, a cup and a bottle on a wooden table, with a cloth."""

# An outline reads better in rows than with one point a line.
# fmt: off
from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.draw.canvas import Array, Canvas, Gradient, box, ellipse, mix, noise, smooth

INK = "#2e2228"
EDGE = 590  # y where the table meets the wall


def _room(c: Canvas) -> None:
    """A plaster wall with window light, and the table's boards."""
    wall = box(-9, -9, 769, EDGE)
    c.fill(wall, Gradient((0, 0), (760, 590), ("#e4d4bc", "#c4b0a0", "#8e8088")))
    beam = np.array([(-20, 40), (300, -40), (700, 420), (420, 560)], np.float32)
    c.fill(beam, "#fff0cc", 0.42, blur=9)
    with c.clip(beam, blur=9):  # the shadow of the window's bars
        for a, b in (((90, -10), (560, 500)), ((-40, 190), (600, 150)), ((90, 330), (740, 300))):
            c.line(np.array([a, b], np.float32), 15, "#b09c90", 0.6, taper=(0, 0))
    mottle = np.clip((c.noise(34, 1, 2) - 0.45) * 2.5, 0, 1)
    c.fill(wall, "#8a7470", 0.16 * mottle, blend="multiply")
    rng = np.random.default_rng(2)
    for _ in range(9):
        x, y = rng.uniform(0, 760), rng.uniform(0, 560)
        crack = smooth([(x, y), (x + rng.normal(0, 14), y + 12), (x + rng.normal(0, 22), y + 30)])
        c.line(crack, 1.5, "#6a5654", 0.5, taper=(0.5, 0.5))
    table = box(-9, EDGE, 769, 1009)
    c.fill(table, Gradient((0, EDGE), (0, 1000), ("#8a5c40", "#b07a50", "#7c4e38")))
    with c.clip(table):
        for k in range(6):
            y0 = EDGE + 16 * k + 11 * k * k
            y1 = EDGE + 16 * (k + 1) + 11 * (k + 1) ** 2
            c.fill(box(-9, y0, 769, y1), mix("#d8a070", "#5a3428", rng.random()), 0.3)
            for _ in range(20 + 12 * k):  # grain, wider in the nearer boards
                x, y, r = rng.uniform(-60, 760), rng.uniform(y0 + 2, y1 - 2), rng.uniform(40, 190)
                bow = rng.normal(0, 1.5 + 0.7 * k)
                grain = smooth([(x, y), (x + r * 0.4, y + bow), (x + r * 0.7, y - bow), (x + r, y)])
                c.line(grain, rng.uniform(1, 2.6), "#4a2a22" if rng.random() < 0.75 else "#e8bc88",
                    0.45, taper=(0.5, 0.5))
            if k in (2, 4):
                x, y = rng.uniform(80, 680), (y0 + y1) / 2
                for ring in range(5):
                    c.contour(ellipse(x, y, 8 + 9 * ring, 3 + 3.4 * ring), 1.4, "#3c201c",
                        opacity=0.6)
            c.line(np.array([(-9, y1), (769, y1)], np.float32), 2.6, INK, 0.85, taper=(0, 0))
    c.fill(box(-9, EDGE - 3, 769, EDGE + 16), "#d8a878", 0.8)
    c.line(np.array([(-9, EDGE - 3), (769, EDGE - 3)], np.float32), 2.6, INK, taper=(0, 0))
    c.line(np.array([(-9, EDGE + 16), (769, EDGE + 16)], np.float32), 2, INK, 0.8, taper=(0, 0))


def _cloth(c: Canvas) -> None:
    """A cloth with stripes, shaded by the slope of its folds."""
    outline = smooth([(30, 700), (30, 700), (180, 660), (400, 668), (620, 650), (735, 690),
        (735, 690), (700, 780), (745, 850), (660, 905), (560, 868), (470, 930), (350, 890),
        (250, 950), (150, 890), (60, 912), (10, 820)], closed=True)
    c.fill(outline + np.float32((8, 16)), "#2a1a1c", 0.6, blur=9)
    c.fill(outline, Gradient((30, 650), (735, 930), ("#fbf6ee", "#eee6e0", "#cfc4cc")))
    h, w = c.alpha.shape
    y, x = (np.mgrid[0:h, 0:w] / c.scale).astype(np.float32)
    n = noise(h, w, 150 * c.scale, 13) - 0.5
    deep = np.clip((y - 690) / 190, 0, 1)
    phase = (x + 0.35 * (y - 700) * np.sin(x / 190) + 90 * n) / 34
    folds = np.sin(phase) * (0.25 + deep) + 0.4 * np.sin(2.3 * phase + 1) * deep
    slope = cv2.GaussianBlur(np.gradient(folds, axis=1), (0, 0), 2) * 17
    with c.clip(outline):
        for k in range(3):
            band = smooth([(-10, 716 + 92 * k), (200, 690 + 84 * k), (420, 704 + 80 * k),
                (770, 676 + 88 * k)])
            for dy, wide in ((0, 13), (17, 5)):
                c.line(band + np.float32((0, dy)) + np.stack([0 * band[:, 0],
                    4 * np.sin(band[:, 0] / 22)], -1).astype(np.float32), wide, "#4a7a9c", 0.85,
                    taper=(0, 0))
        c.fill(outline, "#6a5c7c", np.clip(slope, 0, 1) * 0.62, blend="multiply")
        c.fill(outline, "#ffffff", np.clip(-slope, 0, 1) * 0.6, blend="screen")
        weave = np.clip((c.streaks(9, 1.6, 12, 3) - 0.62) * 4, 0, 1)
        c.fill(outline, "#5c5068", 0.3 * weave * (0.3 + np.clip(slope, 0, 1)), blend="multiply")
        rng = np.random.default_rng(6)
        for k in range(17):
            px = 40 + 42 * k
            fold = smooth([(px, 790), (px + rng.normal(4, 12), 850), (px + rng.normal(0, 16), 930)])
            c.line(fold, 2.2, INK, 0.5, taper=(0.8, 0.2))
    c.contour(outline, 2.6, INK)


def _cast(c: Canvas, x: float, y: float, rx: float, ry: float) -> None:
    """A shadow on the table, to the right of what stands at (x, y)."""
    c.fill(ellipse(x + rx * 0.55, y, rx * 1.5, ry), "#3a2838", 0.5, blur=9, blend="multiply")
    c.fill(ellipse(x + rx * 0.1, y, rx * 0.95, ry * 0.6), "#2a1a28", 0.7, blur=4, blend="multiply")
    c.hatch(ellipse(x + rx * 0.6, y, rx * 1.4, ry * 0.9), -24, 6, "#2a1a28", 0.4, seed=int(x))


def _fruit(c: Canvas, outline: Array, colors: tuple[str, str, str], seed: int,
        freckles: int = 60) -> None:
    """Anything round: light, body and shade colours; hatching follows the dark side."""
    low, high = outline.min(0), outline.max(0)
    (x, y), r = (low + high) / 2, float((high - low).max() / 2)
    light = (x - 0.38 * r, y - 0.42 * r)
    c.fill(outline, Gradient(light, (x + 0.75 * r, y + 0.8 * r),
        (colors[0], colors[1], colors[1], colors[2]), radial=True))
    rng = np.random.default_rng(seed)
    with c.clip(outline):
        for _ in range(freckles * 3):  # strokes along the meridians
            u, v0 = rng.uniform(-1, 1), rng.uniform(-0.9, 0.5)
            v = np.linspace(v0, v0 + rng.uniform(0.15, 0.5), 6)
            side = u * np.sqrt(np.clip(1 - v * v, 0, 1))
            arc = np.stack([x + side * r, y + v * r], -1).astype(np.float32)
            tone = colors[2] if rng.random() < 0.62 else colors[0]
            c.line(arc, rng.uniform(1, 2.4), tone, 0.35, taper=(0.5, 0.5))
        crescent = [ellipse(x, y, r * 1.4, r * 1.4),
            ellipse(x - 0.3 * r, y - 0.3 * r, r * 1.02, r * 1.02)]
        with c.clip(crescent, blur=r * 0.09):
            c.fill(outline, colors[2], 0.5)
            c.hatch(outline, 58, 6.5, mix(colors[2], INK, 0.75), 0.65, width=1.7, seed=seed)
            c.hatch(outline, 24, 9, mix(colors[2], INK, 0.75), 0.4, seed=seed + 1)
        c.fill(ellipse(x + 0.5 * r, y + 0.62 * r, r * 0.34, r * 0.1, -38),
            mix(colors[1], "#fff0d8", 0.55), 0.5, blur=r * 0.06)
        for _ in range(freckles):
            px, py = rng.normal(x, r * 0.5), rng.normal(y, r * 0.5)
            c.fill(ellipse(px, py, 1.5, 1.3, 0, 10), mix(colors[0], "#ffffff", 0.5), 0.7)
    with c.clip(outline):
        gleam = max(light[0], x - 0.62 * float(high[0] - low[0]) / 2), y - 0.3 * r
        c.fill(ellipse(*gleam, r * 0.16, r * 0.1, -35), "#ffffff", 0.85, blur=r * 0.03)
    c.contour(outline, 2.8, INK)


def _apple(x: float, y: float, r: float) -> Array:
    """The outline of an apple, dimples above and below."""
    a = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    above = np.exp(-(((a - 1.5 * np.pi) / 0.32) ** 2))
    below = np.exp(-(((a - 0.5 * np.pi) / 0.3) ** 2))
    rr = r * (1 - 0.13 * above - 0.06 * below)
    return np.stack([x + 1.04 * rr * np.cos(a), y + 0.96 * rr * np.sin(a)], -1).astype(np.float32)


def _stalk(c: Canvas, x: float, y: float, leaf: bool) -> None:
    c.fill(ellipse(x, y + 5, 19, 7), INK, 0.5, blur=4)
    c.line(smooth([(x, y + 6), (x + 3, y - 14), (x + 14, y - 32)]), 7, INK, taper=(0, 0))
    c.line(smooth([(x, y + 5), (x + 3, y - 14), (x + 13, y - 30)]), 3.6, "#8a6440", taper=(0, 0))
    if leaf:
        shape = smooth([(x + 6, y - 14), (x + 6, y - 14), (x + 36, y - 44), (x + 82, y - 40),
            (x + 82, y - 40), (x + 58, y - 10)], closed=True)
        c.fill(shape, Gradient((x, y - 44), (x + 60, y), ("#b4d070", "#5c9048", "#2c5434")))
        with c.clip(shape):
            for k in range(6):
                c.line(smooth([(x + 16 + 11 * k, y - 20 - 3 * k), (x + 26 + 11 * k, y - 36),
                    (x + 34 + 11 * k, y - 46)]), 1.6, "#24442c", 0.7)
                c.line(smooth([(x + 16 + 11 * k, y - 20 - 3 * k), (x + 30 + 11 * k, y - 18),
                    (x + 44 + 11 * k, y - 8)]), 1.6, "#24442c", 0.7)
        c.line(smooth([(x + 6, y - 14), (x + 40, y - 28), (x + 80, y - 40)]), 2, INK, 0.8)
        c.contour(shape, 2.2, INK)


def _bottle(c: Canvas) -> None:
    """Green glass with a cork, a label and the window's reflection."""
    half = np.array([(16, 176), (16, 176), (19, 182), (17, 230), (20, 300), (52, 360), (68, 420),
        (70, 560), (70, 690), (62, 708), (40, 714), (0, 716)], np.float32)
    x = 196
    outline = smooth(np.concatenate([[(x + a, b) for a, b in half],
        [(x - a, b) for a, b in half[::-1]]]), closed=True)
    cork = box(x - 13, 150, x + 13, 180)
    c.fill(cork, Gradient((x - 13, 0), (x + 13, 0), ("#e4c498", "#9a7450")))
    c.hatch(cork, 80, 4, INK, 0.5, seed=3)
    c.contour(cork, 2.2, INK)
    c.fill(outline, Gradient((x - 70, 0), (x + 70, 0),
        ("#24483c", "#4e8a68", "#8cc094", "#3c7458", "#1c3c34", "#38685a")))
    with c.clip(outline):
        c.fill(box(x - 80, 470, x + 80, 730), "#10302c", 0.5, blur=10)
        c.line(smooth([(x - 70, 470), (x, 482), (x + 70, 470)]), 3, "#a8dcb4", 0.8,
            taper=(0.1, 0.1))
        c.fill(smooth([(x - 56, 400), (x - 40, 372), (x - 40, 372), (x - 40, 680), (x - 40, 680),
            (x - 56, 670)], closed=True), "#eafff0", 0.6, blur=2)
        c.fill(box(x - 9, 200, x - 4, 300), "#eafff0", 0.7, blur=1)
        c.hatch(box(x + 26, 350, x + 74, 720), 84, 6.5, "#0c2420", 0.6, seed=5)
        c.hatch(box(x - 72, 380, x - 58, 710), 86, 5, "#0c2420", 0.5, seed=6)
        label = smooth([(x - 70, 510), (x, 524), (x + 70, 510), (x + 70, 510), (x + 70, 626),
            (x + 70, 626), (x, 640), (x - 70, 626), (x - 70, 626)], closed=True)
        c.fill(label, Gradient((x - 70, 0), (x + 70, 0),
            ("#d4bc94", "#faf0d4", "#f0dcb4", "#8a7460")))
        with c.clip(label):
            c.hatch(box(x + 34, 500, x + 74, 650), 70, 6, "#5a4438", 0.5, seed=9)
        c.contour(label, 2, INK)
        for dy in (12, 98):
            c.line(smooth([(x - 70, 510 + dy), (x, 524 + dy), (x + 70, 510 + dy)]), 2, "#7c3c34",
                taper=(0, 0))
        for k in range(7):
            a = np.radians(-90 + (k - 3) * 26)
            c.fill(ellipse(x - 6 + 24 * np.cos(a), 582 + 24 * np.sin(a), 9, 4, np.degrees(a)),
                "#7c3c34")
        c.fill(ellipse(x - 6, 580, 9, 9), "#c08a44")
    c.contour(outline, 3, INK)
    for y in (186, 198):
        c.line(smooth([(x - 18, y), (x, y + 4), (x + 18, y)]), 2, INK, 0.8, taper=(0, 0))


def _cup(c: Canvas) -> None:
    """Porcelain with a blue pattern, tea and steam."""
    x, y = 560, 560
    for wide, paint in ((30, INK), (24, "#e8e4ea"), (0, "")):
        if wide:
            c.line(smooth([(x + 92, y + 34), (x + 156, y + 20), (x + 164, y + 76),
                (x + 112, y + 116), (x + 50, y + 130)]), wide, paint, taper=(0, 0))
    c.line(smooth([(x + 92, y + 30), (x + 152, y + 16), (x + 156, y + 66)]), 6, "#9c94ac", 0.8)
    body = smooth([(x - 104, y), (x - 104, y), (x - 98, y + 80), (x - 66, y + 150),
        (x - 40, y + 168), (x - 40, y + 168), (x, y + 173), (x + 40, y + 168), (x + 40, y + 168),
        (x + 66, y + 150), (x + 98, y + 80), (x + 104, y), (x + 104, y)], closed=True)
    c.fill(body, Gradient((x - 104, 0), (x + 104, 0),
        ("#d8d4dc", "#ffffff", "#f4f0f0", "#c0b8c8", "#887e98", "#b0a8b8")))
    with c.clip(body):
        for dy in (34, 100):
            c.line(smooth([(x - 106, y + dy - 10), (x - 50, y + dy + 10), (x + 50, y + dy + 10),
                (x + 106, y + dy - 10)]), 4, "#3c5c9c", 0.9, taper=(0, 0))
        for k in range(9):
            u = -0.92 + 0.23 * k
            px, py, r = x + 100 * np.sin(u * 1.5), y + 78 - 12 * u * u, 13 * np.cos(u * 1.35)
            for a in range(0, 360, 60):
                q = np.radians(a)
                c.fill(ellipse(px + r * 0.8 * np.cos(q), py + 11 * np.sin(q), max(r * 0.55, 1), 6,
                    a), "#4a6cb0", 0.9)
            c.fill(ellipse(px, py, max(r * 0.4, 1), 4), "#f0c860")
        c.hatch(box(x + 30, y, x + 106, y + 170), 74, 6.5, "#4a4460", 0.6, width=1.6, seed=6)
        c.hatch(box(x + 60, y, x + 106, y + 170), 28, 8, "#4a4460", 0.5, seed=7)
        c.fill(box(x - 80, y, x - 66, y + 150), "#ffffff", 0.8, blur=4)
    c.contour(body, 2.8, INK)
    rim, tea = ellipse(x, y, 104, 30), ellipse(x, y + 7, 92, 22)
    c.fill(rim, Gradient((x - 104, 0), (x + 104, 0), ("#a8a0b4", "#e8e4ea", "#ffffff")))
    with c.clip(rim):
        c.fill(tea, Gradient((x - 92, 0), (x + 92, y), ("#5c2c1c", "#a85c2c", "#d8944c")))
        c.line(smooth([(x - 70, y + 14), (x - 20, y + 24), (x + 30, y + 24)]), 3, "#f4c88a", 0.8)
        c.contour(tea, 1.8, INK, opacity=0.8)
    c.contour(rim, 2.8, INK)
    for k, dx in enumerate((-34, 6, 42)):
        steam = smooth([(x + dx, y - 14), (x + dx + 16, y - 60), (x + dx - 14, y - 116),
            (x + dx + 14, y - 180 + 14 * k)])
        c.line(steam, 13, "#fffaf0", 0.28, taper=(0.4, 0.6))
        c.line(steam + np.float32((5, 0)), 2, "#fffdf8", 0.7, taper=(0.4, 0.6))


def draw() -> NDArray[np.uint8]:
    """760x1000, RGBA without transparency."""
    c = Canvas(760, 1000)
    _room(c)
    _cast(c, 196, 704, 90, 24)
    _bottle(c)
    _cloth(c)
    _cast(c, 560, 728, 110, 24)
    _cup(c)
    _cast(c, 392, 782, 92, 24)
    pear = smooth([(392, 540), (424, 556), (434, 610), (480, 670), (478, 744), (430, 790),
        (360, 790), (310, 746), (306, 672), (350, 612), (360, 556)], closed=True)
    _fruit(c, pear, ("#f8f0a0", "#c4c050", "#5c6c2c"), 21, 90)
    _stalk(c, 392, 544, leaf=False)
    for x, y, r, colors, seed, leaf in (
        (232, 786, 82, ("#ffb48c", "#d03c38", "#5c1424"), 31, True),
        (512, 828, 74, ("#ffe0a0", "#f09030", "#8c3c18"), 41, False),
        (96, 838, 62, ("#ffd8a8", "#c85c3c", "#5c1c24"), 51, False),
    ):
        _cast(c, x, y + r * 0.86, r, r * 0.26)
        round_ = ellipse(x, y, r, r * 0.96) if seed == 41 else _apple(x, y, r)
        _fruit(c, round_, colors, seed)
        if seed == 41:
            c.fill(ellipse(x + 8, y - 48, 8, 5), "#5c6c2c")
        else:
            _stalk(c, x, y - r * 0.8, leaf)
    rng = np.random.default_rng(77)
    for k in range(13):  # grapes
        x, y = 622 + 25 * (k % 4) + rng.normal(0, 4), 826 + 24 * (k // 4) + rng.normal(0, 3)
        _fruit(c, ellipse(x, y, 20, 21), ("#c8b0e0", "#6c4888", "#241438"), 90 + k, 3)
    c.line(smooth([(650, 812), (640, 780), (668, 756)]), 6, INK, taper=(0, 0))
    return c.image()
