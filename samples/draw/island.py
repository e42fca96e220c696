"""A castle on an island in the air, cut out: around it the picture is transparent."""

# An outline reads better in rows than with one point a line.
# fmt: off
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.draw.canvas import Array, Canvas, Gradient, box, ellipse, mix, smooth

INK = "#2e2838"


def _rock(c: Canvas) -> None:
    """The underside: facets and cracks running down to a point."""
    outline = smooth([(64, 560), (64, 560), (96, 610), (150, 640), (180, 720), (246, 760),
        (280, 840), (330, 880), (356, 946), (356, 946), (392, 880), (440, 850), (470, 770),
        (536, 730), (566, 650), (630, 616), (658, 560), (658, 560)], closed=True)
    c.fill(outline, Gradient((90, 560), (560, 860), ("#c8a888", "#947464", "#5c4854", "#3c3044")))
    rng = np.random.default_rng(3)
    with c.clip(outline):
        for _ in range(150):
            x, y = rng.uniform(70, 650), rng.uniform(560, 900)
            lean = (360 - x) * 0.16
            w, h = rng.uniform(16, 44), rng.uniform(40, 110)
            facet = np.array([(x - w / 2, y), (x + w / 2, y - 8),
                (x + w * 0.4 + lean, y + h * 0.7), (x + lean, y + h)], np.float32)
            lit = np.clip(0.85 - x / 700 - (y - 560) / 900 + rng.normal(0, 0.16), 0, 1)
            c.fill(facet, mix("#3c2f44", "#e0c09c", lit), 0.6)
            c.line(facet[[1, 2, 3]], 2, INK, 0.6)
            if lit < 0.4:
                c.hatch(facet, 64, 5.5, "#1c1828", 0.5, seed=int(x * y))
    c.contour(outline, 3.2, INK)
    for x, y, r in ((170, 800, 22), (540, 800, 26), (236, 880, 14), (470, 900, 17), (300, 936, 10)):
        stone = smooth([(x - r, y), (x - r * 0.4, y - r * 0.6), (x + r * 0.7, y - r * 0.5),
            (x + r, y + r * 0.2), (x + r * 0.1, y + r * 1.4)], closed=True)
        c.fill(stone, Gradient((x - r, y - r), (x + r, y + r), ("#d8b898", "#84685c", "#3c3044")))
        c.hatch(smooth([(x, y - 4), (x + r, y), (x, y + r * 1.4)], closed=True), 64, 4.5, INK, 0.6,
            seed=x)
        c.contour(stone, 2.4, INK)


def _meadow(c: Canvas) -> None:
    top = smooth([(56, 560), (90, 524), (200, 500), (360, 492), (520, 500), (630, 526), (664, 560),
        (640, 590), (590, 586), (540, 612), (480, 592), (420, 620), (350, 600), (280, 624),
        (220, 598), (160, 616), (110, 588), (76, 590)], closed=True)
    c.fill(top, Gradient((90, 500), (600, 620), ("#c8dc78", "#84b050", "#44783c")))
    rng = np.random.default_rng(4)
    with c.clip(top):
        for _ in range(1300):
            x, y = rng.uniform(50, 670), rng.uniform(496, 622)
            blade = smooth([(x, y), (x + rng.normal(1, 2), y - 6), (x + rng.normal(2, 4), y - 12)],
                steps=4)
            c.line(blade, 2, mix("#2c5830", "#e4ec94", rng.random()), 0.6, taper=(0, 0.9))
        path = smooth([(340, 500), (380, 500), (392, 540), (352, 572), (392, 626), (300, 626),
            (312, 566), (350, 536)], closed=True)
        c.fill(path, Gradient((300, 500), (390, 620), ("#f0dcb0", "#c49c74")))
        c.contour(path, 1.8, INK, opacity=0.7)
        for _ in range(40):
            x, y = rng.uniform(306, 392), rng.uniform(505, 616)
            c.contour(ellipse(x, y, rng.uniform(3, 6), 2.4, 0, 14), 1.2, "#7c5c48", opacity=0.6)
    c.contour(top, 3, INK)
    stream = smooth([(560, 540), (560, 540), (596, 540), (596, 540), (612, 600), (616, 700),
        (630, 840), (630, 840), (560, 840), (560, 840), (572, 700), (570, 600)], closed=True)
    c.fill(stream, Gradient((0, 540), (0, 840), ("#5ca4d0", "#b4e0f0", "#f4fcff")))
    with c.clip(stream):
        for _ in range(46):
            x, y, h = rng.uniform(560, 630), rng.uniform(540, 800), rng.uniform(30, 110)
            c.line(smooth([(x, y), (x + 1, y + h / 2), (x + 4, y + h)]), 2.2,
                "#ffffff" if rng.random() < 0.5 else "#3c78ac", 0.7)
    c.line(stream[28:62], 2.4, INK)
    c.line(stream[84:], 2.4, INK)
    for _ in range(30):
        x, y, r = rng.normal(596, 24), rng.normal(838, 12), rng.uniform(7, 17)
        puff = ellipse(x, y, r, r * 0.8)
        c.fill(puff, Gradient((x - r, y - r), (x + r, y + r), ("#ffffff", "#f4fbff", "#a8cce0")))
        c.line(puff[36:66], 1.8, "#6c94b4", 0.8)


def _tower(c: Canvas, x: float, foot: float, top: float, r: float, spire: float, seed: int) -> None:
    """A round tower of masonry with a pointed roof, battlements where `spire` is 0."""
    rng = np.random.default_rng(seed)
    e = r * 0.22
    wall = smooth([(x - r, top), (x - r, top), (x - r, foot), (x - r, foot), (x, foot + e),
        (x + r, foot), (x + r, foot), (x + r, top), (x + r, top)], closed=True)
    c.fill(wall, Gradient((x - r, 0), (x + r, 0), ("#d8ccc0", "#fdf4e4", "#d4c4b8", "#94869a",
        "#6c6080")))
    with c.clip(wall):
        for row, y in enumerate(np.arange(top + 8, foot + e, 13)):
            for u in np.arange(-1.1, 1.1, 0.36) + 0.18 * (row % 2):
                if rng.random() < 0.42:
                    a, b = np.sin(np.clip((u, u + 0.3), -1.4, 1.4) * 1.3)
                    brick = box(x + r * a, y, x + r * b, y + 10)
                    c.fill(brick, mix("#fff8e8", "#7c6c80", rng.random()), 0.4)
                    c.line(brick[[3, 2, 1]], 1.5, INK, 0.55)
        c.hatch(box(x + r * 0.35, top, x + r, foot + e), 76, 6, INK, 0.55, width=1.6, seed=seed)
        c.fill(box(x - r, top - 10, x + r, top + 14), "#3c3450", 0.5, blur=5)
    c.contour(wall, 2.6, INK)
    for k, y in enumerate(np.arange(top + 34, foot - 34, 62)):
        px = x - r * 0.2 + r * 0.3 * (k % 2)
        window = smooth([(px - 7, y + 26), (px - 7, y + 26), (px - 7, y + 6), (px, y - 4),
            (px + 7, y + 6), (px + 7, y + 26), (px + 7, y + 26)], closed=True)
        c.fill(window, Gradient((0, y), (0, y + 26), ("#3c3048", "#f4b45c")))
        c.contour(window, 2.4, INK)
    if not spire:
        crown = [(x - r * 1.16, top + 10)]
        for k in range(5):
            a = x - r * 1.16 + k * r * 0.515
            crown += [(a, top - 16), (a + r * 0.26, top - 16), (a + r * 0.26, top - 4),
                (a + r * 0.515, top - 4)]
        shape = np.array([*crown[:-2], (x + r * 1.16, top - 16), (x + r * 1.16, top + 10)],
            np.float32)
        c.fill(shape, Gradient((x - r, 0), (x + r, 0), ("#f0e4d4", "#e4d4c4", "#74687c")))
        c.contour(shape, 2.6, INK)
        return
    q = r * 1.28
    roof = smooth([(x - q, top + 4), (x - q, top + 4), (x - r * 0.46, top - spire * 0.46),
        (x, top - spire), (x, top - spire), (x + r * 0.46, top - spire * 0.46), (x + q, top + 4),
        (x + q, top + 4), (x, top + e * 1.6)], closed=True)
    c.fill(roof, Gradient((x - q, 0), (x + q, 0), ("#7cacc8", "#5888b4", "#3c5c90", "#2c3460")))
    with c.clip(roof):
        for k, y in enumerate(np.arange(top - spire, top + e * 2, 9)):
            wide = q * (y - top + spire) / spire + 6
            for px in np.arange(x - wide + 5 * (k % 2), x + wide, 11):
                tile = smooth([(px, y), (px + 2, y + 8), (px + 9, y + 8), (px + 11, y)], steps=4)
                c.line(tile, 1.5, "#1c2444" if rng.random() < 0.8 else "#c4e4f4", 0.6, taper=(0, 0))
        c.fill(np.array([(x + r * 0.2, top + 30), (x, top - spire), (x + q, top - spire),
            (x + q, top + 30)], np.float32), "#1c1c40", 0.35, blur=4)
    c.contour(roof, 2.8, INK)
    c.line(np.array([(x, top - spire + 4), (x, top - spire - 44)], np.float32), 3.4, INK,
        taper=(0, 0))
    flag = smooth([(x, top - spire - 44), (x, top - spire - 44), (x + 20, top - spire - 48),
        (x + 48, top - spire - 36), (x + 48, top - spire - 36), (x + 24, top - spire - 30),
        (x, top - spire - 22), (x, top - spire - 22)], closed=True)
    c.fill(flag, Gradient((x, 0), (x + 48, 0), ("#f08c70", "#c43c4c", "#e4705c")))
    c.contour(flag, 2.2, INK)


def _wall(c: Canvas) -> None:
    """The curtain wall with the gate."""
    wall = box(176, 420, 544, 528)
    c.fill(wall, Gradient((176, 420), (544, 528), ("#fdf2e0", "#e0d0c0", "#a894a0")))
    rng = np.random.default_rng(8)
    with c.clip(wall):
        for row, y in enumerate(np.arange(424, 528, 14)):
            for x in np.arange(170 + 14 * (row % 2), 544, 28):
                stone = box(x, y, x + 26, y + 12)
                c.fill(stone, mix("#fffaf0", "#84707c", rng.random()), 0.35)
                c.line(stone[[3, 2, 1]], 1.5, INK, 0.45, taper=(0, 0))
    c.contour(wall, 2.8, INK)
    for x in range(180, 540, 30):
        merlon = box(x, 404, x + 18, 424)
        c.fill(merlon, Gradient((x, 404), (x + 18, 424), ("#fff6e8", "#b8a4a8")))
        c.contour(merlon, 2.4, INK)
    for grow, paint in ((10, "#b8a498"), (0, "#3c2c34")):
        gate = smooth([(324 - grow, 532), (324 - grow, 532), (324 - grow, 470), (360, 432 - grow),
            (396 + grow, 470), (396 + grow, 532), (396 + grow, 532)], closed=True)
        c.fill(gate, paint)
        c.contour(gate, 2.6, INK)
    with c.clip(gate):
        c.fill(gate, Gradient((0, 440), (0, 532), ("#1c1420", "#8c5c40")))
        for x in range(328, 396, 11):
            c.line(np.array([(x, 430), (x, 516)], np.float32), 3, "#14101c", taper=(0, 0.1))
        for y in (458, 478, 498):
            c.line(np.array([(320, y), (400, y)], np.float32), 3, "#14101c", taper=(0, 0))


def _pine(c: Canvas, x: float, y: float, h: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    c.fill(box(x - 4, y - 12, x + 4, y + 4), "#5c4034")
    for k in range(4):
        top, wide = y - h + k * h * 0.2, h * (0.15 + 0.075 * k)
        foot = top + h * 0.38
        tier = smooth([(x, top), (x, top), (x + wide * 0.4, foot - h * 0.12), (x + wide, foot),
            (x + wide, foot), (x, foot + 5), (x - wide, foot), (x - wide, foot),
            (x - wide * 0.4, foot - h * 0.12)], closed=True)
        c.fill(tier, Gradient((x - wide, top), (x + wide, foot), ("#8cc068", "#3c7c4c", "#1c4840")))
        with c.clip(tier):
            for _ in range(34):
                px, py = rng.uniform(x - wide, x + wide), rng.uniform(top, foot)
                needle = np.array([(px, py), (px + (px - x) * 0.16, py + 5),
                    (px + (px - x) * 0.3, py + 10)], np.float32)
                c.line(needle, 1.7, "#12302c" if rng.random() < 0.65 else "#c0e494", 0.65)
        c.contour(tier, 2, INK)


def _cloud(c: Canvas, x: float, y: float, size: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spots: list[Array] = [rng.normal((x, y), (58 * size, 9 * size)) for _ in range(13)]
    for px, py in sorted(spots, key=lambda s: float(s[1])):
        r = size * rng.uniform(17, 34) * np.exp(-(((px - x) / (110 * size)) ** 2))
        puff = ellipse(px, py - r * 0.4, r * 1.2, r)
        c.fill(puff, Gradient((px - r, py - r * 1.4), (px + r, py + r),
            ("#ffffff", "#f8f6fa", "#b0bcd8")))
        c.line(puff[34:66], 2.2, "#6c7898", 0.85)


def draw() -> NDArray[np.uint8]:
    """720x960, RGBA, transparent around the island."""
    c = Canvas(720, 960, None)
    _cloud(c, 590, 330, 1.0, 2)
    _cloud(c, 96, 250, 0.8, 3)
    _rock(c)
    _meadow(c)
    for k, (x, y, h) in enumerate([(140, 520, 92), (104, 544, 84), (600, 522, 80)]):
        _pine(c, x, y, h, 20 + k)
    _tower(c, 300, 440, 250, 40, 130, 1)
    _tower(c, 424, 440, 290, 36, 0, 2)
    _tower(c, 366, 440, 178, 46, 116, 3)
    _tower(c, 474, 440, 330, 30, 96, 4)
    _tower(c, 240, 440, 336, 30, 90, 5)
    _wall(c)
    _tower(c, 182, 532, 392, 42, 116, 6)
    _tower(c, 540, 532, 392, 42, 116, 7)
    for k, (x, y, h) in enumerate([(246, 552, 66), (280, 566, 52), (462, 556, 70), (498, 572, 54),
            (132, 576, 60)]):
        _pine(c, x, y, h, 30 + k)
    _cloud(c, 120, 690, 1.0, 5)
    _cloud(c, 590, 880, 0.9, 7)
    return c.image()
