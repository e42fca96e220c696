"""A manga page without words: a city at night, a pair of eyes, a cat on a sill, a flight."""

# An outline reads better in rows than with one point a line.
# fmt: off
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.draw.canvas import Array, Canvas, Gradient, box, ellipse, ribbon, smooth
from samples.draw.portrait import eye

INK = "#16141a"
FUR = ("#f8f8f8", "#b8b8be", "#62626a")
GREY_IRIS = ("#1c1c22", "#6c6c72", "#d8d8d8")


def _dots(c: Canvas, outline: Array, pitch: float, dark: Gradient | float, seed: int = 0) -> None:
    """Screentone at 45 degrees: dots whose area follows `dark`, 0..1 (or a grey gradient)."""
    s = c.scale
    h, w = c.alpha.shape
    y, x = (np.mgrid[0:h, 0:w] / s).astype(np.float32)
    u, v = (x + y) * np.float32(np.pi / pitch), (x - y) * np.float32(np.pi / pitch)
    cell = (np.cos(u) + np.cos(v)) / 4 + 0.5  # 1 in the middle of a dot
    if isinstance(dark, Gradient):
        grid = np.arange(w, dtype=np.float32) / s, np.arange(h, dtype=np.float32) / s
        level: Array | float = 1 - dark.at(*grid)[..., 0]
    else:
        level = dark
    c.fill(outline, INK, np.clip((cell - 1 + level) * 9 + 0.5, 0, 1))


def _balloon(c: Canvas, x: float, y: float, rx: float, ry: float,
        tail: tuple[float, float]) -> None:
    """An empty speech balloon whose tail points at `tail`."""
    t = np.array([tail[0] - x, tail[1] - y])
    a = np.arctan2(t[1] / ry, t[0] / rx)
    foot = [(x + rx * 0.96 * np.cos(a + d), y + ry * 0.96 * np.sin(a + d)) for d in (-0.2, 0.2)]
    spike = np.array([foot[0], tail, foot[1]], np.float32)
    body = ellipse(x, y, rx, ry)
    c.contour(spike, 3.4, INK)
    c.contour(body, 3.4, INK)
    c.fill(body, "#ffffff")
    c.fill(spike, "#ffffff")
    for k in range(3):  # where the words would stand
        wide = rx * (0.5 - 0.1 * abs(k - 1))
        px = x + (k - 1) * rx * 0.36
        c.line(np.array([(px, y - wide * 0.8), (px, y + wide * 0.8)], np.float32), 2.2, "#c8c8c8",
            taper=(0, 0))


def _city(c: Canvas) -> None:
    """Rooftops and lit windows under a moon."""
    c.fill(box(0, 0, 900, 420), Gradient((0, 0), (0, 420), ("#1c1c26", "#3c3c48", "#8c8c94")))
    rng = np.random.default_rng(1)
    for _ in range(150):
        x, y, r = rng.uniform(0, 900), rng.uniform(0, 260), rng.uniform(0.6, 1.9)
        c.fill(ellipse(x, y, r, r, 0, 10), "#ffffff", rng.uniform(0.5, 1))
    c.fill(ellipse(660, 128, 150, 150), "#e8e8f0", 0.22, blur=34)
    moon = ellipse(660, 128, 74, 74)
    c.fill(moon, Gradient((636, 100), (720, 190), ("#ffffff", "#f4f4f4", "#b8b8c0")))
    with c.clip(moon):
        for x, y, r in ((640, 150, 20), (684, 110, 13), (690, 160, 16), (634, 96, 9),
                (660, 176, 10)):
            c.fill(ellipse(x, y, r, r * 0.9), "#9c9ca8", 0.4, blur=2)
            c.line(ellipse(x, y, r, r * 0.9)[30:64], 1.6, "#74747c", 0.7)
    c.contour(moon, 2, INK)
    for x, y, reach in ((560, 176, 130), (760, 84, 110), (130, 90, 160), (300, 190, 120)):
        cloud = smooth([(x - reach, y), (x - reach * 0.5, y - 18), (x - reach * 0.1, y - 10),
            (x + reach * 0.3, y - 24), (x + reach, y + 2), (x + reach * 0.4, y + 8),
            (x - reach * 0.4, y + 10)], closed=True)
        c.fill(cloud, Gradient((0, y - 24), (0, y + 12), ("#d8d8e0", "#5c5c68")), 0.75)
        c.line(cloud[:70], 1.6, INK, 0.6)
    for depth in range(3):
        x = -30.0
        shade = ("#74747e", "#4c4c56", "#26262e")[depth]
        lit = ("#a0a0a8", "#7c7c86", "#4c4c56")[depth]
        while x < 910:
            w, top = rng.uniform(54, 116), rng.uniform((150, 210, 290)[depth],
                (270, 320, 360)[depth])
            front = box(x, top, x + w * 0.74, 440)
            side = np.array([(x + w * 0.74, top), (x + w, top + 13), (x + w, 440),
                (x + w * 0.74, 440)], np.float32)
            c.fill(front, Gradient((0, top), (0, 420), (shade, lit)))
            c.fill(side, Gradient((0, top), (0, 420), (lit, "#b4b4bc")))
            c.hatch(front, 90 + rng.normal(0, 1), 6, INK, 0.3, seed=int(x) + 60)
            for wy in np.arange(top + 14, 430, 17):
                for wx in np.arange(x + 8, x + w * 0.74 - 10, 14):
                    pane = box(wx, wy, wx + 8, wy + 10)
                    c.fill(pane, "#fdfdf6" if rng.random() < 0.4 else "#1c1c24", 0.95)
                for wx in (x + w * 0.8, x + w * 0.9):
                    c.fill(box(wx, wy + 7, wx + 4, wy + 15), "#30303a", 0.7)
            c.contour(front, 2.2, INK)
            c.contour(side, 2.2, INK)
            if rng.random() < 0.5:  # an aerial or a water tank
                ax = x + w * 0.3
                c.line(np.array([(ax, top), (ax, top - 34)], np.float32), 2.4, INK, taper=(0, 0))
                for dy in (12, 20, 28):
                    c.line(np.array([(ax - 9, top - dy), (ax + 9, top - dy - 2)], np.float32), 1.8,
                        INK, taper=(0, 0))
            else:
                tank = box(x + w * 0.2, top - 24, x + w * 0.5, top)
                c.fill(tank, Gradient((x + w * 0.2, 0), (x + w * 0.5, 0), (lit, shade)))
                c.contour(tank, 2, INK)
            x += w + rng.uniform(-8, 10)


def _eyes(c: Canvas) -> None:
    """A face close up, light from the left, in tones and pen strokes."""
    c.fill(box(20, 430, 480, 820), Gradient((20, 430), (480, 820),
        ("#ffffff", "#f0f0f0", "#c8c8cc")))
    c.fill(smooth([(300, 430), (330, 600), (300, 720), (340, 830), (520, 830), (520, 430)],
        closed=True), "#8c8c94", 0.4, blur=16)
    _dots(c, smooth([(360, 430), (390, 600), (350, 700), (400, 840), (520, 840), (520, 430)],
        closed=True), 8, 0.3)
    eye(c, 136, 616, 74, -1, GREY_IRIS, gaze=0.1)
    eye(c, 362, 616, 74, 1, GREY_IRIS, gaze=0.02)
    for points in ([(50, 530), (110, 498), (206, 536)], [(296, 536), (380, 496), (452, 524)]):
        for k in range(9):
            c.line(smooth(points) + np.float32((0.6 * k, 1.5 * k - 7)), 3.2, INK, 0.75,
                taper=(0.4, 0.4))
    c.line(smooth([(262, 640), (272, 706), (246, 722)]), 3.4, INK, taper=(0.8, 0.3))
    c.fill(smooth([(270, 640), (286, 706), (252, 724), (262, 690)], closed=True), "#8c8c94", 0.5,
        blur=4)
    for x in (120, 368):
        for k in range(8):
            c.line(smooth([(x - 30 + 10 * k, 716), (x - 38 + 10 * k, 730),
                (x - 44 + 10 * k, 746)]), 2, INK, 0.6)
    c.line(smooth([(190, 786), (236, 780), (290, 790)]), 4, INK)
    c.line(smooth([(216, 808), (240, 813), (266, 808)]), 2.4, INK, 0.7)
    rng = np.random.default_rng(4)
    for k in range(12):  # strands over the brow
        x = 20 + 40 * k + rng.normal(0, 8)
        strand = smooth([(x, 410), (x + rng.normal(0, 14), 470),
            (x + 24 + rng.normal(0, 14), rng.uniform(510, 600))])
        t = np.linspace(0, 1, len(strand), dtype=np.float32)
        shape = ribbon(strand, 44 * (1 - t) ** 0.8)
        c.fill(shape, Gradient((x, 420), (x, 590), ("#2c2c34", "#5c5c66", "#8c8c94")))
        with c.clip(shape):
            for _ in range(9):
                c.line(strand + np.float32((rng.normal(0, 12), 0)), 1.8,
                    "#d8d8dc" if rng.random() < 0.4 else INK, 0.7, taper=(0.5, 0.4))
        c.contour(shape, 2.2, INK)


def _cat_head(c: Canvas, x: float, y: float, size: float, seed: int) -> None:
    """A tabby's head about (x, y); at size 1 it is 190 pixels wide."""
    rng = np.random.default_rng(seed)

    def at(*points: tuple[float, float]) -> Array:
        return np.array([(x + size * px, y + size * py) for px, py in points], np.float32)

    def stroke(width: float, *points: tuple[float, float]) -> None:
        c.line(smooth(at(*points)), size * width, INK, taper=(0.1, 0.8))

    outline = smooth(at((-92, 20), (-94, -20), (-82, -92), (-82, -92), (-44, -56), (2, -62),
        (42, -54), (84, -94), (84, -94), (92, -20), (90, 24), (56, 68), (0, 82), (-58, 66)),
        closed=True)
    low, high = outline.min(0), outline.max(0)
    c.fill(outline, Gradient((x - 58 * size, y - 60 * size), tuple(high), FUR, radial=True))
    with c.clip(outline):
        for _ in range(700):
            px, py = rng.uniform(low, high)
            dx, dy = (px - x) * 0.09, rng.uniform(7, 13) * size
            dark = rng.random() < 0.3 + 0.5 * (px - low[0]) / (high[0] - low[0])
            hair = smooth([(px, py), (px + dx * 0.4, py + dy * 0.5), (px + dx, py + dy)], steps=4)
            c.line(hair, 1.6, "#3c3c44" if dark else "#ffffff", 0.5)
        for side in (-1, 1):
            for px in (0, 26):
                stripe = at((side * px, -66), (side * px * 0.85, -40), (side * px * 0.6, -14))
                c.line(smooth(stripe), 9 * size, "#3c3c44", 0.85, taper=(0, 0.9))
            for py in (16, 42):
                stripe = at((side * 98, py), (side * 72, py + 3), (side * 50, py - 3))
                c.line(smooth(stripe), 9 * size, "#3c3c44", 0.85, taper=(0, 0.9))
            ear = at((side * 74, -70), (side * 48, -46), (side * 78, -30))
            c.fill(ear, "#74747c", 0.9)
            c.hatch(ear, 60 * side, 4, INK, 0.7, seed=seed)
        c.fill(ellipse(x, y + 50 * size, 40 * size, 26 * size), "#ffffff", 0.85, blur=6 * size)
    c.contour(outline, 3, INK)
    for side in (-1, 1):
        ball = ellipse(x + 40 * side * size, y + 4 * size, 23 * size, 20 * size)
        c.fill(ball, "#f4f4e8")
        c.fill(ellipse(x + 40 * side * size, y + 4 * size, 9 * size, 18 * size), INK)
        c.fill(ellipse(x + (40 * side - 6) * size, y - 3 * size, 5 * size, 5 * size), "#ffffff")
        c.contour(ball, 3.6 * size, INK)
        stroke(2.8, (0, 44), (side * 8, 54), (side * 22, 51))
        for k in range(3):
            stroke(1.9, (side * 30, 44 + 6 * k), (side * 78, 34 + 12 * k),
                (side * 124, 38 + 19 * k))
    nose = at((-11, 33), (-11, 33), (11, 33), (11, 33), (0, 44))
    c.fill(smooth(nose, closed=True), "#4c4c54")


def _cat(c: Canvas) -> None:
    """A tabby on a window sill, rain on the pane behind."""
    c.fill(box(470, 370, 900, 820), Gradient((480, 400), (880, 820),
        ("#b8b8c0", "#e8e8ec", "#94949c")))
    rng = np.random.default_rng(6)
    for _ in range(130):
        x, y, r = rng.uniform(480, 890), rng.uniform(380, 750), rng.uniform(14, 46)
        drop = np.array([(x, y), (x - r * 0.2, y + r * 0.5), (x - r * 0.4, y + r)], np.float32)
        c.line(drop, 1.8, "#4c4c58", 0.6, taper=(0.5, 0.3))
    for x0, x1 in ((498, 520), (690, 706), (860, 884)):
        c.fill(box(x0, 370, x1, 760), Gradient((x0, 0), (x1, 0), ("#fafafa", "#8c8c94")))
        c.contour(box(x0, 360, x1, 770), 2.4, INK)
    c.fill(box(460, 742, 900, 830), Gradient((0, 742), (0, 830), ("#f4f4f4", "#b0b0b8", "#74747c")))
    for y in (744, 762, 790):
        c.line(np.array([(460, y), (900, y)], np.float32), 2.6, INK, taper=(0, 0))
    for _ in range(60):
        x, y = rng.uniform(480, 880), rng.uniform(766, 820)
        c.line(smooth([(x - 40, y), (x, y + 1), (x + 50, y)]), 1.5, INK, 0.45)
    c.fill(ellipse(730, 756, 160, 20), INK, 0.5, blur=8)
    body = smooth([(654, 752), (640, 660), (664, 570), (724, 540), (790, 580), (836, 670),
        (830, 752), (830, 752), (654, 752)], closed=True)
    low, high = body.min(0), body.max(0)
    c.fill(body, Gradient((650, 560), tuple(high), FUR, radial=True))
    with c.clip(body):
        for _ in range(700):
            x, y = rng.uniform(low, high)
            dx, dy = (x - (low[0] + high[0]) / 2) * 0.09, rng.uniform(7, 13)
            dark = rng.random() < 0.3 + 0.5 * (x - low[0]) / (high[0] - low[0])
            hair = smooth([(x, y), (x + dx * 0.4, y + dy * 0.5), (x + dx, y + dy)], steps=4)
            c.line(hair, 1.6, "#3c3c44" if dark else "#ffffff", 0.5)
        for k in range(5):
            y = 592 + 32 * k
            for stripe in ([(850, y), (800, y + 14), (762, y + 6)],
                    [(640, y + 20), (668, y + 30), (694, y + 24)]):
                c.line(smooth(stripe), 12, "#3c3c44", 0.85, taper=(0, 0.9))
        c.fill(ellipse(728, 640, 34, 60), "#ffffff", 0.6, blur=10)
        c.fill(box(600, 540, 790, 622), INK, 0.28, blur=12)
    c.contour(body, 3, INK)
    for side in (-1, 1):
        paw = smooth([(728 + side * px, py) for px, py in ((24, 690), (44, 716), (44, 748),
            (22, 754), (4, 746), (4, 710))], closed=True)
        c.fill(paw, Gradient((690, 690), (770, 760), ("#ffffff", "#c8c8ce")))
        c.contour(paw, 2.6, INK)
        for dx in (16, 28):
            toe = np.array([(728 + side * dx, 736), (728 + side * dx, 750)], np.float32)
            c.line(toe, 2, INK, taper=(0, 0.4))
    tail = smooth([(826, 742), (780, 764), (690, 772), (610, 764), (570, 738), (584, 712)])
    c.line(tail, 33, INK, taper=(0, 0.12))
    c.line(tail, 27, "#b4b4bc", taper=(0, 0.12))
    for k in range(5, len(tail) - 4, 9):
        c.line(tail[k : k + 4], 26, "#4c4c54", 0.9, taper=(0, 0))
    c.hatch(ribbon(tail, 24), 80, 5, INK, 0.4, seed=2)
    _cat_head(c, 688, 540, 1.0, 12)


def _flight(c: Canvas) -> None:
    """The cat as a pilot; speed lines and screentone run towards the plane."""
    c.fill(box(0, 790, 900, 1280), "#ffffff")
    tone = Gradient((470, 1020), (30, 1290), ("#ffffff", "#ffffff", "#b0b0b0", "#707070"),
        radial=True)
    _dots(c, box(0, 790, 900, 1280), 9, tone)
    rng = np.random.default_rng(9)
    cx, cy = 470, 1020
    for _ in range(480):
        a, r0 = rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 1.45)
        p = np.array([cx + 330 * r0 * np.cos(a), cy + 178 * r0 * np.sin(a)])
        q = np.array([cx + 860 * np.cos(a), cy + 640 * np.sin(a)])
        n = np.array([-(q - p)[1], (q - p)[0]]) / np.hypot(*(q - p)) * rng.uniform(0.8, 4)
        c.fill(np.array([p, q + n, q - n], np.float32), INK, rng.uniform(0.7, 1))
    for x, y, r in ((90, 1250, 74), (190, 1270, 60), (280, 1290, 56), (800, 1250, 70),
            (700, 1280, 60), (880, 1220, 60)):
        puff = ellipse(x, y, r, r * 0.8)
        c.fill(puff, Gradient((x - r, y - r), (x + r, y + r), ("#ffffff", "#f0f0f0", "#84848c")))
        c.contour(puff, 3, INK)
        c.hatch(ellipse(x + r * 0.35, y + r * 0.3, r * 0.5, r * 0.4), -40, 6, INK, 0.5, seed=x)

    def at(*points: tuple[float, float]) -> Array:
        lift, s = np.radians(-9), 1.06
        return np.array(
            [(450 + s * (x * np.cos(lift) - y * np.sin(lift)),
                1050 + s * (x * np.sin(lift) + y * np.cos(lift))) for x, y in points],
            np.float32,
        )

    def part(colors: tuple[str, ...], *points: tuple[float, float], soft: bool = True) -> Array:
        shape = smooth(at(*points), closed=True) if soft else at(*points)
        low, high = shape.min(0), shape.max(0)
        c.fill(shape, Gradient((low[0], low[1]), (low[0] + 20, high[1]), colors))
        c.contour(shape, 3.4, INK)
        return shape

    light, mid = ("#ffffff", "#d8d8de", "#8c8c96"), ("#c4c4cc", "#74747e", "#3c3c46")
    part(mid, (-20, -30), (-20, -30), (70, -150), (92, -160), (160, -158), (160, -158), (120, -30),
        (120, -30))
    part(mid, (-318, -14), (-318, -14), (-352, -118), (-330, -134), (-284, -128), (-216, -40),
        (-216, -40))
    scarf = smooth(at((-10, -78), (-90, -106), (-160, -86), (-236, -120)))
    c.line(scarf, 27, INK, taper=(0.2, 0))
    c.line(scarf, 21, "#e8e8ec", taper=(0.2, 0))
    for k in range(8, len(scarf) - 3, 9):
        c.line(scarf[k : k + 4], 20, "#54545e", 0.9, taper=(0, 0))
    _cat_head(c, *at((14, -112))[0].tolist(), 0.64, 30)
    hull = part(light, (-322, -24), (-180, -48), (-60, -66), (70, -70), (150, -66), (206, -46),
        (226, 0), (206, 44), (150, 64), (40, 68), (-100, 44), (-220, 14), (-322, -6))
    with c.clip(hull):
        c.fill(smooth(at((-330, 0), (-100, 10), (100, 26), (240, 14), (240, 90), (-330, 90)),
            closed=True), "#54545e", 0.55, blur=9)
        c.fill(at((132, -90), (250, -90), (250, 90), (132, 90)), INK, 0.62, blur=1)
        c.fill(smooth(at((130, -40), (180, -44), (222, -20), (222, -8), (180, -28), (130, -24)),
            closed=True), "#ffffff", 0.6, blur=3)
        c.hatch(at((-300, 4), (130, 24), (130, 74), (-300, 30)), 58, 6.5, INK, 0.6, seed=21)
        for x in (-240, -160, -80, 60, 130):
            c.line(smooth(at((x, -80), (x + 10, 0), (x, 80))), 2, INK, 0.8, taper=(0, 0))
            for k in range(9):
                rivet = at((x + 12, -56 + 14 * k))[0]
                c.fill(ellipse(*rivet, 1.9, 1.9, 0, 10), INK, 0.75)
        c.fill(at((-120, -20), (124, -26), (124, -12), (-120, -8)), INK, 0.85)
    part(("#f8f8f8", "#9c9ca8", "#f0f0f0"), (62, -70), (62, -70), (72, -116), (72, -116),
        (92, -112), (104, -68), (104, -68))
    wing = part(light, (-64, 22), (-64, 22), (126, 22), (126, 22), (84, 110), (40, 178), (0, 192),
        (-120, 190), (-146, 176), (-110, 110))
    with c.clip(wing):
        for k in range(7):
            rib = at((-56 + 30 * k, 16), (-120 + 27 * k, 200))
            c.line(rib, 1.8, INK, 0.6, taper=(0, 0))
        c.hatch(at((-70, 14), (-10, 14), (-90, 200), (-160, 200)), 30, 6, INK, 0.55, seed=22)
        star = [(-14 + r * np.cos(a), 108 + r * 0.8 * np.sin(a)) for a,
            r in zip(np.radians(np.arange(-90, 270, 36)), (40, 16) * 5, strict=True)]
        c.fill(at(*star), INK, 0.9)
    part(mid, (-336, -14), (-336, -14), (-250, -12), (-250, -12), (-282, 38), (-350, 44),
        (-372, 34))
    spinner = part(("#ffffff", "#a0a0aa", "#3c3c46"), (222, -24), (222, -24), (252, -12), (264, 0),
        (252, 12), (222, 24), (222, 24))
    disc = smooth(at((236, -150), (250, 0), (236, 150), (222, 0)), closed=True)
    c.fill(disc, "#8c8c96", 0.4)
    for reach in (1.0, 0.93, 0.82):
        arc = smooth(at((232, -150 * reach), (254, -60 * reach), (256, 60 * reach),
            (236, 150 * reach)))
        c.line(arc, 2.2, INK, 0.8)
    c.contour(spinner, 3, INK)
    for k in range(9):  # wind along the hull
        y = -150 + 40 * k
        c.line(at((-400 - 14 * (k % 3), y), (-250 + 30 * (k % 2), y + 2)), 3, INK, 0.8)


def draw() -> NDArray[np.uint8]:
    """900x1280, RGBA without transparency, all of it grey."""
    c = Canvas(900, 1280, "#ffffff")
    panels = (
        (_city, [(30, 30), (870, 30), (870, 372), (30, 424)]),
        (_eyes, [(30, 442), (486, 414), (462, 800), (30, 822)]),
        (_cat, [(504, 413), (870, 390), (870, 780), (480, 799)]),
        (_flight, [(30, 840), (870, 798), (870, 1250), (30, 1250)]),
    )
    for scene, corners in panels:
        frame = np.array(corners, np.float32)
        with c.clip(frame):
            scene(c)
        c.contour(frame, 5, INK)
    _balloon(c, 180, 130, 84, 96, (300, 250))
    _balloon(c, 826, 452, 40, 48, (786, 520))
    _balloon(c, 250, 884, 62, 54, (378, 922))
    return c.image()
