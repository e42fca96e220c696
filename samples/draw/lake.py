"""A house by a mountain lake on a summer day."""

# An outline reads better in rows than with one point a line.
# fmt: off
from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from samples.draw.canvas import Array, Canvas, Gradient, box, ellipse, mix, noise, smooth

INK = "#2c2a36"
SHORE = 588  # y of the far shore


def _ridge(seed: int, base: float, height: float, cell: float, width: int = 1200) -> Array:
    """A mountain skyline from left to right, closed below the shore, (N, 2)."""
    x = np.arange(-20, width + 24, 4, dtype=np.float32)
    n = noise(4, len(x), cell / 4, seed, octaves=6)[1]
    y = base - height * (n - 0.5) * 2
    return np.stack([np.r_[x, width + 40, -40], np.r_[y, SHORE + 6, SHORE + 6]],
        -1).astype(np.float32)


def _sky(c: Canvas) -> None:
    c.fill(box(-9, -9, 1209, 560), Gradient((0, 0), (0, 520),
        ("#3f7fbe", "#7fb2d8", "#cfe4ea", "#fbeed8")))
    rng = np.random.default_rng(8)
    for cx, cy, size in ((250, 190, 1.15), (840, 120, 0.8), (1110, 250, 1.0), (560, 280, 0.55)):
        puffs = []
        for _ in range(46):
            u = rng.normal(0, 1)
            r = size * rng.uniform(16, 46) * np.exp(-u * u * 0.3)
            puffs.append((cx + u * 95 * size, cy - rng.uniform(0, 80) * size * np.exp(-u * u), r))
        puffs.sort(key=lambda p: p[1] + p[2])
        for x, y, r in puffs:  # from the back to the front: shade, light, rim
            puff = ellipse(x, y, r * 1.15, r * 0.95)
            c.fill(puff, Gradient((x - r, y - r), (x + r * 0.5, y + r),
                ("#ffffff", "#fbf6f0", "#b4c4d8")), 0.93, blur=1.2)
            with c.clip(puff):
                c.fill(ellipse(x - r * 0.3, y - r * 0.35, r * 0.8, r * 0.7), "#ffffff", 0.8,
                    blur=r * 0.15)
            arc = smooth([(x - r, y - r * 0.3), (x - r * 0.3, y - r * 0.98),
                (x + r * 0.7, y - r * 0.75)])
            c.line(arc, 1.6, "#8aa0bc", 0.5, taper=(0.5, 0.5))
        for _ in range(30):
            x, y = rng.normal(cx, 90 * size), cy + rng.uniform(0, 34) * size
            dash = smooth([(x - 22, y + 3), (x, y), (x + 22, y + 2)])
            c.line(dash, 2.2, "#8ea4c2", 0.4, taper=(0.5, 0.5))


def _mountains(c: Canvas) -> None:
    """Three ranges; slopes lit from the left, the nearer the darker."""
    ranges = (
        (4, 330, 190, 240, "#9db6cc", "#eef2f4", 0.55),
        (9, 430, 130, 260, "#6f8fa6", "#dfe6e4", 0.8),
        (14, 524, 60, 200, "#4f7a6c", "#a4bf94", 0.9),
    )
    for k, (seed, base, height, cell, dark, light, depth) in enumerate(ranges):
        outline = _ridge(seed, base, height, cell)
        top = outline[:, 1].min()
        h, w = c.alpha.shape
        relief = 1 - np.abs(2 * noise(h, w, 420, seed + 50, octaves=7) - 1)  # sharp crests
        relief = cv2.GaussianBlur(relief, (0, 0), 3)
        slope = np.gradient(relief, axis=1) + 0.5 * np.gradient(relief, axis=0)
        shade = np.clip(0.45 + 0.45 * slope / slope.std(), 0, 1).astype(np.float32)
        with c.clip(outline):
            c.fill(outline, Gradient((0, top), (0, SHORE),
                (light, mix(light, dark, 0.5), mix(dark, "#cfe0e4", 0.35))))
            c.fill(outline, Gradient((0, top), (0, SHORE),
                (dark, dark, mix(dark, "#cfe0e4", 0.4))), shade * depth)
            if k == 0:
                c.fill(outline, Gradient((0, top), (0, top + 160),
                    ("#ffffff", "#ffffff", "#000000")), (1 - shade) * 0.9, blend="screen")
            if k == 2:  # woods
                rng = np.random.default_rng(5)
                for _ in range(2200):
                    x, y = rng.uniform(0, 1200), rng.uniform(top, SHORE + 6)
                    s = rng.uniform(5, 12)
                    tree = np.array([(x, y - 2 * s), (x + s * 0.55, y), (x - s * 0.55, y)],
                        np.float32)
                    c.fill(tree, mix("#24503e", "#86a868", rng.random() ** 2), 0.85)
        c.line(outline[2:-4], 1.5, mix(dark, INK, 0.55), 0.8, taper=(0, 0))
        c.fill(box(-9, SHORE - 50 + 14 * k, 1209, SHORE + 8), "#f2f0e4", 0.35, blur=22)


def _leaves(c: Canvas, x: float, y: float, rx: float, ry: float, seed: int, n: int) -> None:
    """A clump of foliage: dabs, light at the upper left and dark at the lower right."""
    rng = np.random.default_rng(seed)
    c.fill(ellipse(x, y, rx * 0.9, ry * 0.9), "#23452c", blur=3)
    spots = rng.normal(0, 0.46, (n, 2))
    spots = spots[np.hypot(*spots.T) < 1.08]
    light = np.clip(0.42 - 0.55 * (spots[:, 0] * 0.6 + spots[:, 1]), 0, 1)
    for (u, v), lit in sorted(zip(spots.tolist(), light.tolist(), strict=True), key=lambda s: s[1]):
        tone = np.clip(lit + rng.normal(0, 0.14), 0, 1)
        color = mix("#1c3c2a", "#5c9a42", 2 * tone) if tone < 0.5 else mix("#5c9a42", "#d4e07a",
            2 * tone - 1)
        r = rng.uniform(3, 6.5)
        leaf = ellipse(x + u * rx, y + v * ry, r, r * 0.55, rng.uniform(-70, 40), 10)
        c.fill(leaf, color)
        if rng.random() < 0.14:
            c.contour(leaf, 1.1, INK, opacity=0.7)


def _tree(c: Canvas) -> None:
    trunk = smooth([(1010, 700), (1030, 600), (1020, 480), (1000, 380), (1000, 380), (1046, 380),
        (1046, 380), (1056, 480), (1068, 600), (1100, 706)], closed=True)
    c.fill(trunk, Gradient((1005, 0), (1080, 0), ("#a8845c", "#7a5a42", "#3c2c2c")))
    with c.clip(trunk):
        rng = np.random.default_rng(2)
        for _ in range(90):
            x, y = rng.uniform(1004, 1080), rng.uniform(380, 700)
            bark = smooth([(x, y), (x + rng.normal(2, 3), y + 22),
                (x + rng.normal(3, 4), y + rng.uniform(30, 60))])
            c.line(bark, rng.uniform(1, 3), "#2c2024" if rng.random() < 0.75 else "#d4b080", 0.5)
    c.contour(trunk, 2.4, INK)
    for points, w in (
        ([(1024, 470), (960, 420), (920, 360)], 17),
        ([(1046, 450), (1110, 400), (1150, 350)], 15),
        ([(1024, 400), (1010, 330), (1020, 260)], 20),
    ):
        c.line(smooth(points), w + 4, INK, taper=(0, 0.9))
        c.line(smooth(points), w, "#6a4c3a", taper=(0, 0.9))
    clumps = [(1130, 350, 84, 62), (930, 352, 84, 60), (1150, 250, 78, 62), (900, 262, 70, 54),
        (1040, 320, 92, 66), (960, 180, 76, 60), (1100, 160, 80, 62), (1030, 230, 96, 74),
        (1036, 116, 70, 52)]
    for k, (x, y, rx, ry) in enumerate(clumps):
        _leaves(c, x, y, rx, ry, 60 + k, 520)


def _house(c: Canvas) -> None:
    """Timber frame, shingles, a lit window and smoke from the chimney."""
    wall = np.array([(150, 560), (150, 428), (360, 428), (360, 560)], np.float32)
    gable = np.array([(360, 560), (360, 428), (422, 336), (484, 428), (484, 560)], np.float32)
    c.fill(ellipse(330, 562, 240, 14), "#22342a", 0.55, blur=6)
    for shape, colors in ((wall, ("#f6ead0", "#d8c4a0")), (gable, ("#cbb496", "#9c8474"))):
        c.fill(shape, Gradient(tuple(shape.min(0)), tuple(shape.max(0)), colors))
        with c.clip(shape):
            c.fill(shape, "#8a6a54", 0.5 * c.streaks(14, 2.5, 8, 71) ** 3, blend="multiply")
    c.fill(box(150, 424, 360, 452), "#5a4450", 0.6, blur=5, blend="multiply")
    c.hatch(gable, 62, 7, "#4a3440", 0.4, seed=3)
    beams = [((150, 494), (360, 494)), ((220, 428), (220, 560)), ((290, 428), (290, 560)),
        ((154, 428), (154, 560)), ((356, 428), (356, 560)), ((360, 494), (484, 494)),
        ((364, 428), (480, 428)), ((480, 428), (480, 560)), ((422, 340), (422, 428)),
        ((364, 494), (418, 432)), ((478, 494), (426, 432))]
    for a, b in beams:
        beam = np.array([a, b], np.float32)
        c.line(beam, 10.5, INK, taper=(0, 0))
        c.line(beam, 7.5, "#75503a", taper=(0, 0))
        c.line(beam + np.float32((-1.5, -1.5)), 1.6, "#b88a60", 0.8, taper=(0, 0))
    for x, y in ((174, 448), (306, 448), (238, 510), (406, 448)):
        pane = box(x, y, x + 32, y + 36)
        c.fill(pane, Gradient((x, y), (x + 32, y + 36), ("#fff2b8", "#f4b860", "#8a6448")))
        for bar in (box(x + 14.5, y, x + 17.5, y + 36), box(x, y + 16, x + 32, y + 19)):
            c.fill(bar, "#5a3c30")
        c.contour(np.concatenate([pane]), 3, INK)
    door = smooth([(398, 560), (398, 560), (398, 524), (412, 506), (428, 506), (442, 524),
        (442, 560), (442, 560)], closed=True)
    c.fill(door, Gradient((398, 506), (442, 560), ("#6e8a6a", "#34503c")))
    for x in (409, 420, 431):
        c.line(np.array([(x, 508), (x, 560)], np.float32), 1.4, INK, 0.7, taper=(0, 0))
    c.contour(door, 2.4, INK)
    c.fill(ellipse(435, 536, 2.6, 2.6), "#f4d48a")

    chimney = box(252, 300, 284, 372)
    c.fill(chimney, Gradient((252, 0), (284, 0), ("#b87862", "#6a4440")))
    for y in range(306, 372, 8):
        c.line(np.array([(252, y), (284, y)], np.float32), 1.3, INK, 0.6, taper=(0, 0))
        for x in range(256 + (y // 8 % 2) * 6, 284, 12):
            c.line(np.array([(x, y), (x, y + 8)], np.float32), 1.2, INK, 0.5, taper=(0, 0))
    c.contour(chimney, 2, INK)
    roof = np.array([(126, 436), (206, 330), (424, 330), (366, 436)], np.float32)
    c.fill(roof, Gradient((200, 330), (260, 440), ("#d47858", "#8c3c38")))
    rng = np.random.default_rng(7)
    with c.clip(roof):
        for row in range(13):
            y = 330 + row * 8.4
            for x in np.arange(110 + (row % 2) * 7, 440, 14):
                tile = smooth([(x, y), (x + 1, y + 7), (x + 7, y + 10), (x + 13, y + 7),
                    (x + 14, y)])
                c.fill(tile, mix("#e89a70", "#7a3034", rng.random()), 0.55)
                c.line(tile, 1.3, INK, 0.6, taper=(0, 0))
        c.fill(box(126, 330, 424, 350), "#ffd0a0", 0.35, blur=8)
    c.contour(roof, 2.6, INK)
    edge = np.array([(366, 440), (422, 334), (424, 330), (496, 442)], np.float32)
    c.line(edge, 11, INK, taper=(0, 0))
    c.line(edge, 7.5, "#8a5a42", taper=(0, 0))
    for k in range(9):
        x, y, r = 270 + 9 * k + 10 * np.sin(k), 286 - 21 * k, 10 + 3.6 * k
        puff = ellipse(x, y, r * 1.1, r)
        c.fill(puff, "#fbf4ea", 0.5 - 0.045 * k, blur=2)
        c.line(puff[30:60], 1.6, "#8a8a98", 0.5 - 0.045 * k, taper=(0.5, 0.5))


def _bank(c: Canvas) -> None:
    """The spit of land that carries the house, with bushes at the waterline."""
    land = smooth([(-40, 552), (120, 548), (340, 556), (520, 562), (640, 578), (640, 578),
        (500, 592), (300, 600), (120, 606), (-40, 612)], closed=True)
    c.fill(land, Gradient((0, 548), (0, 606), ("#9cb45c", "#5c7a40", "#3c4a34")))
    rng = np.random.default_rng(31)
    with c.clip(land):
        for _ in range(900):
            x, y = rng.uniform(-20, 640), rng.uniform(548, 606)
            blade = smooth([(x, y), (x + rng.normal(0, 2), y - 5), (x + rng.normal(0, 4), y - 10)])
            c.line(blade, 1.6, mix("#2c4428", "#dce08a", rng.random()), 0.7, taper=(0, 0.8))
    c.line(land[:60], 1.6, INK, 0.5)
    for k, (x, r) in enumerate([(40, 46), (104, 30), (520, 30), (566, 20)]):
        _leaves(c, x, 548 - r * 0.35, r, r * 0.7, 80 + k, 190)


def _water(c: Canvas) -> None:
    """The lower part mirrors the upper one, drawn out and broken by ripples."""
    s = c.scale
    h, w = c.alpha.shape
    y0 = int(590 * s)
    rows, cols = h - y0, w
    yy, xx = np.mgrid[0:rows, 0:cols].astype(np.float32)
    depth = yy / rows
    ripple = noise(rows * 4, cols, 60, 41, octaves=3)[::4][:rows] - 0.5  # flat and wide
    map_y = (y0 - 4 - yy * 1.25 + ripple * (16 + 90 * depth) * s).clip(0, y0 - 2)
    map_x = xx + (noise(rows * 4, cols, 30, 42)[::4][:rows] - 0.5) * (6 + 40 * depth) * s
    mirror = cv2.remap(c.rgb, map_x, map_y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT)
    tint = np.array([0.32, 0.55, 0.62], np.float32)
    c.rgb[y0:] = mirror * (0.8 - 0.25 * depth[..., None]) + tint * (0.12 + 0.2 * depth[..., None])
    c.alpha[y0:] = 1
    rng = np.random.default_rng(44)
    for _ in range(420):
        d = rng.random() ** 1.4
        y, x, r = 594 + 206 * d, rng.uniform(-30, 1230), (8 + 50 * d) * rng.uniform(0.4, 1.2)
        wave = smooth([(x - r, y), (x - r * 0.3, y - 1 - 2 * d), (x + r * 0.3, y + 1 + d),
            (x + r, y)])
        light = rng.random() < 0.45
        c.line(wave, 1.2 + 2.2 * d, "#f4fbf6" if light else "#25495a", 0.5 if light else 0.4,
            taper=(0.5, 0.5))


def _foreground(c: Canvas) -> None:
    """The near bank with grass, flowers, stones and a jetty."""
    rng = np.random.default_rng(51)
    planks = np.array([(560, 810), (640, 690), (716, 690), (760, 810)], np.float32)
    for x0, y0 in ((640, 690), (716, 690), (602, 748), (738, 748)):
        post = box(x0 - 6, y0 - 16, x0 + 6, y0 + 40)
        c.fill(post, Gradient((x0 - 6, 0), (x0 + 6, 0), ("#9a7c5c", "#40302c")))
        c.contour(post, 2, INK)
    c.fill(planks + np.float32((6, 12)), "#1c2c34", 0.6, blur=5)
    c.fill(planks, Gradient((0, 690), (0, 810), ("#c4a47c", "#8a6a50")))
    with c.clip(planks):
        for k in range(11):
            y = 690 + 7 * k + 0.55 * k * k
            c.fill(box(540, y, 780, y + 7 + k), mix("#d8b88c", "#6a4c3c", rng.random()), 0.4)
            c.line(np.array([(540, y), (780, y)], np.float32), 2, INK, 0.85, taper=(0, 0))
            for _ in range(8):
                x, dy = rng.uniform(560, 740), rng.uniform(2, 7 + k)
                c.line(np.array([(x, y + dy), (x + 18, y + dy), (x + 36, y + dy + 1)], np.float32),
                    1.2, "#4a342c", 0.6)
    c.contour(planks, 2.6, INK)
    for side, top in (
        (0, [(-40, 690), (120, 700), (280, 742), (420, 790), (470, 830)]),
        (1, [(820, 830), (880, 760), (980, 712), (1100, 690), (1240, 676)]),
    ):
        edge = smooth(top)
        bank = np.concatenate([edge, [(1240, 830), (800, 830)] if side else [(400, 860),
            (-40, 860)]])
        c.fill(bank.astype(np.float32), Gradient((0, 690), (0, 800),
            ("#88a04c", "#40602f", "#24391f")))
        c.line(edge, 2, INK, 0.6)
        for _ in range(2100):
            k = int(rng.integers(len(edge)))
            x, y = edge[k, 0] + rng.normal(0, 8), edge[k, 1] + rng.random() ** 1.2 * 120
            tall, lean = rng.uniform(12, 44), rng.normal(6, 9)
            blade = smooth([(x, y), (x + lean * 0.3, y - tall * 0.6), (x + lean, y - tall)],
                steps=5)
            near = (y - edge[k, 1]) / 120
            tone = rng.random()
            color = mix("#16301c", "#4c7a34",
                tone) if rng.random() < 0.35 + 0.3 * near else mix("#6c9440", "#e4e890", tone**2)
            c.line(blade, rng.uniform(1.6, 3.6), color, 0.95, taper=(0, 0.9))
        for _ in range(34):
            k = int(rng.integers(len(edge)))
            x, y, r = edge[k, 0], edge[k, 1] + rng.uniform(-24, 80), rng.uniform(4, 7)
            color = ("#fdf6f0", "#f4d060", "#e87a8c")[int(rng.integers(3))]
            for a in range(0, 360, 60):
                petal = ellipse(x + r * np.cos(np.radians(a)), y + 0.8 * r * np.sin(np.radians(a)),
                    r * 0.7, r * 0.45, a, 14)
                c.fill(petal, color)
                c.contour(petal, 1, INK, opacity=0.6)
            c.fill(ellipse(x, y, r * 0.45, r * 0.4), "#b8743c")


def draw() -> NDArray[np.uint8]:
    """1200x800, RGBA without transparency."""
    c = Canvas(1200, 800, "#88a8b8")
    _sky(c)
    _mountains(c)
    _bank(c)
    _house(c)
    _water(c)
    _tree(c)
    _foreground(c)
    return c.image()
