"""A girl with a scarf in the wind, as an illustration for a book cover might show her."""

# An outline reads better in rows than with one point a line.
# fmt: off
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from samples.draw.canvas import Array, Canvas, Gradient, Points, box, ellipse, mix, ribbon, smooth

INK = "#3a2430"
SKIN, BLUSH, SHADE = "#fde3d0", "#f2a08c", "#d99a8c"
HAIR, HAIR_DARK, HAIR_LIGHT = "#8c4a3c", "#54262c", "#f0b48c"
SCARF, SCARF_DARK = "#3f8f9a", "#1d4f63"
COAT, COAT_DARK = "#e8dcc4", "#a38f80"

HEAD = smooth(
    [(284, 380), (284, 470), (296, 560), (328, 640), (380, 702), (432, 738), (448, 738),
        (500, 704), (552, 640), (582, 560), (594, 470), (594, 380), (520, 250), (360, 250)],
    closed=True,
)


def lock(c: Canvas, points: Points, width: float, seed: int, tone: float = 0.0,
        strands: int = 10) -> None:
    """One lock of hair from root to tip: soft shading, strands, a highlight, an outline.

    tone: -1 in deep shade .. 1 in full light.
    """
    spine = smooth(points, steps=20)
    t = np.linspace(0, 1, len(spine), dtype=np.float32)
    half = width / 2 * np.interp(t, [0, 0.12, 0.45, 0.75, 1], [0.5, 0.75, 1, 0.72, 0])
    outline = ribbon(spine, half * 2)
    n = (outline[: len(spine)] - spine) / np.maximum(half, 1e-3)[:, None]
    rng = np.random.default_rng(seed)
    base = mix(HAIR, HAIR_DARK if tone < 0 else "#b06a4c", abs(tone) * 0.7)
    ends = (tuple(spine[0]), tuple(spine[-1]))
    c.fill(outline, Gradient(*ends, (mix(base, HAIR_DARK, 0.4), base, base,
        mix(base, "#c98a62", 0.5))))

    def along(u: float, start: float, end: float) -> Array:
        pick = (t >= start) & (t <= end)
        return (spine + n * (half * u)[:, None])[pick]

    with c.clip(outline):
        side = np.concatenate([along(1.1, 0, 1), along(0.25, 0, 1)[::-1]])
        c.fill(side, HAIR_DARK, 0.45, blur=width * 0.07)
        for _ in range(strands):
            u, a = rng.uniform(-0.95, 0.95), rng.uniform(-0.2, 0.5)
            dark = rng.random() < 0.6
            c.line(
                along(u, a, a + rng.uniform(0.4, 0.9)),
                rng.uniform(0.9, 2.6),
                HAIR_DARK if dark else HAIR_LIGHT,
                rng.uniform(0.25, 0.7) * (1 if dark else 0.6),
                taper=(0.5, 0.5),
            )
        if tone > -0.5:  # the band of light around the head, broken into strands
            for u in np.linspace(-0.85, 0.7, max(4, int(width / 5))):
                a = 0.33 + rng.normal(0, 0.025)
                c.line(
                    along(u, a, a + rng.uniform(0.06, 0.16)),
                    width * 0.09,
                    "#ffdcb4",
                    0.55 * rng.uniform(0.4, 1) * (1 + min(tone, 0)),
                    taper=(0.5, 0.5),
                )
    c.line(along(1, 0, 1), 2.4, INK, 0.95, taper=(0.3, 0.15))
    c.line(along(-1, 0, 1), 2.0, INK, 0.9, taper=(0.3, 0.15))


def eye(
    c: Canvas,
    x: float,
    y: float,
    size: float,
    side: int,
    iris: tuple[str, str, str] = ("#1d3a4c", "#3f9aa0", "#b4f0d8"),
    gaze: float = 0,
) -> None:
    """An eye about (x, y); `size` is half its width; side -1: the inner corner lies right, 1: left.

    iris: dark, middle and light colour.
    """
    s = size

    def at(points: Points) -> Array:
        return np.array([(x + side * px * s, y + py * s) for px, py in points], np.float32)

    upper = [(-0.95, 0.22), (-0.72, -0.38), (-0.2, -0.8), (0.35, -0.78), (0.82, -0.4), (1.02, 0.1)]
    lower = [(0.86, 0.5), (0.35, 0.83), (-0.2, 0.84), (-0.7, 0.6)]
    opening = smooth(at([*upper, upper[-1], *lower]), closed=True)
    c.fill(opening, "#fffaf6")
    cx, cy, rx, ry = x + gaze * s, y + 0.0 * s, 0.62 * s, 0.86 * s
    with c.clip(opening):
        ball = ellipse(cx, cy, rx, ry)
        c.fill(ball, Gradient((cx, cy - ry), (cx, cy + ry), (iris[0], iris[0], iris[1], iris[2])))
        with c.clip(ball):
            rng = np.random.default_rng(5)
            for a in np.linspace(0, 2 * np.pi, 54, endpoint=False):
                r0, r1 = rng.uniform(0.4, 0.6), rng.uniform(0.75, 0.95)
                ray = [(cx + rx * r * np.cos(a), cy + ry * r * np.sin(a)) for r in (r0,
                    (r0 + r1) / 2, r1)]
                tint = iris[0] if rng.random() < 0.5 else iris[2]
                c.line(smooth(ray), 0.035 * s, tint, 0.45)
            c.fill(ellipse(cx, cy + 0.5 * s, 0.42 * s, 0.26 * s), iris[2], 0.6, blur=0.07 * s)
        c.fill(ellipse(cx, cy - 0.04 * s, 0.27 * s, 0.36 * s), mix(iris[0], "#000000", 0.6))
        c.contour(ball, 0.07 * s, mix(iris[0], "#000000", 0.4))
        lid = smooth(at([(-1.1, -1), *[(px, py + 0.24) for px, py in upper], (1.1, -1)]))
        c.fill(lid, "#5a4468", 0.5, blur=0.06 * s, blend="multiply")
    c.fill(ellipse(cx - 0.24 * s, cy - 0.36 * s, 0.2 * s, 0.24 * s, 15), "#ffffff")
    c.fill(ellipse(cx + 0.27 * s, cy + 0.34 * s, 0.1 * s, 0.12 * s), "#ffffff", 0.95)
    c.fill(ellipse(cx - 0.3 * s, cy + 0.18 * s, 0.05 * s, 0.06 * s), "#ffffff", 0.9)

    top = smooth(at(upper))
    t = np.linspace(0, 1, len(top), dtype=np.float32)
    c.fill(ribbon(top, s * np.interp(t, [0, 0.3, 0.8, 1], [0.08, 0.2, 0.27, 0.12])), INK)
    for k, (px, py, ex, ey) in enumerate([(0.62, -0.6, 0.98, -0.78), (0.84, -0.38, 1.24, -0.46),
            (0.99, -0.05, 1.32, -0.12)]):
        lash = smooth(at([(px, py), ((px + ex) / 2 + 0.02, (py + ey) / 2 + 0.06), (ex, ey)]))
        c.line(lash, s * (0.16 - 0.02 * k), INK, taper=(0, 0.9))
    c.line(smooth(at([(-0.75, -0.62), (-0.2, -1.06), (0.4, -1.04), (0.85, -0.72)])), 0.045 * s,
        INK, 0.7)
    c.line(smooth(at([(0.95, 0.4), *lower[:3], (-0.5, 0.72)])), 0.055 * s, INK, 0.75,
        taper=(0.1, 0.6))


def _sky(c: Canvas) -> None:
    """Evening light, soft discs of it, and clouds far off."""
    c.fill(
        box(-9, -9, c.width + 9, c.height + 9),
        Gradient((200, 0), (520, 1200), ("#6f9fc8", "#a9c6d8", "#f4dcc0", "#f6c49a", "#e89a84")),
    )
    rng = np.random.default_rng(3)
    for _ in range(60):
        x, y = rng.uniform(-60, c.width + 60), rng.normal(900, 90)
        r = rng.uniform(30, 90)
        c.fill(ellipse(x, y, r * 1.7, r * 0.6), "#fff2e0", 0.28, blur=r * 0.16)
        c.fill(ellipse(x + 8, y + r * 0.5, r * 1.7, r * 0.4), "#d88a8c", 0.16, blur=r * 0.2)
    for _ in range(46):
        x, y, r = rng.uniform(0, c.width), rng.uniform(0, 1100), rng.uniform(8, 46)
        c.fill(ellipse(x, y, r, r), "#fff6e0", rng.uniform(0.08, 0.26), blur=8)
    for _ in range(26):  # wisps higher up
        x, y, reach = rng.uniform(0, c.width), rng.uniform(60, 620), rng.uniform(90, 240)
        wisp = smooth([(x - reach, y + 0.3 * reach), (x, y), (x + reach, y - 0.36 * reach)])
        c.fill(ribbon(wisp, rng.uniform(9, 26)), "#fff6ea", rng.uniform(0.1, 0.3), blur=8)


def _hair_behind(c: Canvas) -> None:
    """The long hair at the back, carried to the right by the wind."""
    rng = np.random.default_rng(11)
    mass = smooth(
        [(320, 300), (290, 480), (290, 640), (310, 800), (420, 860), (600, 850), (680, 760),
            (640, 560), (610, 400), (520, 240), (380, 230)],
        closed=True,
    )
    c.fill(mass, HAIR_DARK)
    for k in range(12):  # to the right, the far end lifted by the wind
        y = 330 + 34 * k
        end = (rng.uniform(760, 868), y + rng.uniform(40, 150) + 9 * k)
        way = [(450, y - 60), (600, y + 60), (690, y + 96 + rng.normal(0, 14)), end]
        lock(c, way, rng.uniform(56, 84), 100 + k, tone=-0.95 + 0.06 * k, strands=22)
    for k in range(6):  # down the left side, the outermost first
        x = 228 + 16 * k
        way = [(330, 300), (x + 6, 460), (x + 4 + 3 * k, 640), (x - 56 + 16 * k, 776 + 26 * k)]
        lock(c, way, 60, 130 + k, tone=-0.55 - 0.07 * k, strands=18)


def _coat(c: Canvas) -> None:
    """Shoulders, collar and buttons."""
    body = smooth(
        [(120, 1210), (150, 1040), (230, 950), (340, 890), (540, 890), (650, 945), (735, 1040),
            (770, 1210), (770, 1210), (120, 1210)],
        closed=True,
    )
    c.fill(body, Gradient((200, 900), (700, 1200), ("#fff6e4", COAT, "#cdb9a4")))
    with c.clip(body):
        c.fill(body, COAT_DARK, 0.6 * c.streaks(26, 2.2, 62, 21) ** 4, blend="multiply")
        for outline, deep in (
            ([(600, 900), (640, 1010), (650, 1210), (800, 1210), (780, 980)], 0.5),
            ([(330, 930), (400, 1010), (430, 1210), (480, 1210), (520, 960)], 0.42),
            ([(120, 1210), (190, 1090), (214, 1060), (206, 1130), (196, 1210)], 0.5),
        ):
            c.fill(smooth(outline, closed=True), COAT_DARK, deep, blur=12)
        for x, lean in ((246, 30), (300, 22), (610, -20), (664, -36)):
            fold = smooth([(x, 985), (x + lean * 0.4, 1060), (x - lean * 0.2, 1130), (x, 1215)])
            c.line(fold, 9, COAT_DARK, 0.35)
            c.line(fold, 2.4, INK, 0.7)
        c.hatch(np.array([(610, 960), (760, 1000), (770, 1210), (650, 1210)], np.float32), 118, 7,
            INK, 0.3, seed=4)
        front = smooth([(432, 930), (446, 1060), (442, 1215)])
        c.line(front, 2.6, INK, 0.9)
        for y in (1040, 1140):
            c.fill(ellipse(474, y + 3, 16, 16), COAT_DARK, 0.8, blur=3)
            c.fill(ellipse(470, y, 15, 15), Gradient((460, y - 12), (480, y + 12),
                ("#c98a5a", "#6a3c34")))
            c.contour(ellipse(470, y, 15, 15), 2, INK)
            c.contour(ellipse(470, y, 9, 9), 1.2, INK, opacity=0.6)
    c.contour(body, 3, INK)


def _neck_and_face(c: Canvas) -> None:
    """Skin and its shading; the features come later, over the hair's shadow."""
    neck = smooth([(392, 660), (388, 790), (360, 900), (530, 900), (494, 790), (490, 660)],
        closed=True)
    c.fill(neck, mix(SKIN, SHADE, 0.35))
    with c.clip(neck):
        c.fill(ellipse(450, 700, 110, 92), "#b8706c", 0.6, blur=9)
        c.hatch(box(380, 700, 510, 830), 28, 6, "#8a4a50", 0.4, seed=8)
    c.contour(neck, 2, INK)
    for x, side in ((280, -1), (598, 1)):
        ear = ellipse(x, 560, 24, 42, 10 * side)
        c.fill(ear, mix(SKIN, SHADE, 0.3))
        c.contour(ear, 2.2, INK)
        c.line(smooth([(x + side * 8, 536), (x - side * 6, 556), (x + side * 4, 584)]), 2.4,
            "#a85a50", 0.8)
    c.fill(HEAD, Gradient((330, 400), (570, 730), ("#fff0e0", SKIN, "#f4c8b4")))
    with c.clip(HEAD):
        c.fill(smooth([(284, 380), (280, 600), (330, 690), (440, 760), (330, 640), (312, 540)],
            closed=True), SHADE, 0.28, blur=9)
        c.fill(smooth([(600, 380), (600, 600), (540, 690), (440, 760), (530, 640), (566, 540)],
            closed=True), SHADE, 0.62, blur=11)
        for x in (338, 540):
            c.fill(ellipse(x, 622, 42, 22), BLUSH, 0.55, blur=13)
            for k in range(5):
                a = x - 22 + 10 * k
                c.line(smooth([(a + 5, 612), (a, 622), (a - 5, 632)]), 1.6, "#d0645c", 0.6)
        c.hatch(smooth([(596, 560), (570, 640), (520, 700), (470, 728), (530, 650), (566, 570)],
            closed=True), 128, 6, "#a85a54", 0.4, seed=2)
        fall = smooth([(250, 200), (276, 400), (290, 590), (318, 520), (350, 540), (380, 490),
            (410, 524), (440, 500), (470, 524), (500, 494), (530, 540), (560, 510), (592, 600),
            (610, 300)], closed=True)
        c.fill(fall, "#c4766c", 0.62, blur=5)
        c.hatch(box(290, 400, 590, 500), 8, 6, "#8a4a50", 0.3, seed=12)
    c.line(HEAD[28:-56], 2.8, INK, taper=(0.1, 0.1))


def _features(c: Canvas) -> None:
    eye(c, 366, 556, 48, -1, gaze=0.04)
    eye(c, 512, 556, 48, 1, gaze=-0.02)
    for points in ([(316, 486), (352, 466), (408, 474)], [(474, 474), (528, 464), (562, 486)]):
        c.line(smooth(points), 7, HAIR_DARK, 0.95, taper=(0.4, 0.5))
    c.fill(smooth([(440, 592), (454, 634), (438, 640), (432, 632)], closed=True), SHADE, 0.55,
        blur=3)
    c.line(smooth([(446, 622), (449, 634), (438, 638)]), 2.4, "#8a3c3c", taper=(0.5, 0.4))
    c.fill(ellipse(438, 620, 4, 7), "#ffffff", 0.9, blur=1.5)
    mouth = smooth([(408, 672), (408, 672), (424, 678), (440, 675), (458, 678), (472, 670),
        (472, 670), (458, 692), (438, 697), (420, 690)], closed=True)
    c.fill(mouth, Gradient((440, 672), (440, 698), ("#8a2c38", "#d0606a")))
    with c.clip(mouth):
        c.fill(box(400, 666, 480, 681), "#fff6f0", 0.95)
        c.fill(ellipse(440, 702, 20, 12), "#f09a94", 0.9, blur=2)
    c.contour(mouth, 1.8, INK)
    c.line(smooth([(402, 668), (410, 673), (424, 678), (440, 675), (458, 678), (470, 672),
        (478, 666)]), 2.8, INK)
    c.line(smooth([(424, 710), (438, 713), (454, 709)]), 2.2, "#b0605c", 0.8)


def _hair_in_front(c: Canvas) -> None:
    """Crown, fringe and the locks beside the face, each throwing a shadow on the skin."""
    cap = smooth([(272, 470), (264, 380), (296, 270), (372, 200), (452, 186), (536, 212),
        (596, 290), (616, 400), (604, 480), (540, 380), (440, 350), (340, 380)], closed=True)
    c.fill(cap, Gradient((440, 190), (440, 470), (HAIR, HAIR_DARK)))
    c.contour(cap, 2.6, INK)
    root = np.array([448, 204])
    crown = [
        ((300, 300), (266, 420), (276, 560), (252, 680), 62, -0.2),
        ((590, 300), (622, 420), (606, 560), (640, 690), 60, -0.3),
        ((320, 280), (284, 400), (296, 520), (312, 640), 56, 0.2),
        ((570, 280), (602, 400), (592, 520), (566, 650), 56, 0.0),
        ((340, 260), (302, 360), (306, 450), (330, 530), 62, 0.6),
        ((550, 265), (584, 370), (580, 460), (548, 535), 58, 0.2),
        ((372, 240), (338, 340), (338, 430), (376, 506), 62, 0.8),
        ((520, 250), (548, 350), (540, 430), (510, 512), 58, 0.4),
        ((410, 226), (382, 320), (384, 410), (420, 496), 60, 1.0),
        ((480, 232), (502, 320), (494, 410), (460, 490), 56, 0.7),
        ((444, 250), (428, 330), (432, 420), (452, 512), 62, 0.5),
        ((462, 250), (474, 330), (466, 420), (432, 490), 46, 0.9),
    ]
    for k, (*way, width, tone) in enumerate(crown):
        first = root + (np.array(way[0]) - root) * 0.25
        lock(c, [tuple(first), *way], width, 200 + k, tone, strands=16)
    for k, (points, width) in enumerate(
        [
            ([(446, 214), (420, 176), (450, 132), (520, 122)], 15),
            ([(458, 212), (480, 170), (520, 156), (570, 168)], 12),
            ([(270, 420), (236, 500), (246, 590), (206, 650)], 16),
            ([(612, 420), (660, 480), (690, 560), (760, 590)], 20),
        ]
    ):
        lock(c, points, width, 240 + k, 0.3, strands=4)


def _scarf(c: Canvas) -> None:
    """Two turns around the neck and an end that flies to the right."""
    flying = smooth([(560, 830), (650, 800), (740, 850), (830, 800), (900, 830), (900, 830),
        (900, 980), (900, 980), (830, 930), (740, 985), (660, 930), (560, 920)], closed=True)
    turns = [
        smooth([(288, 862), (340, 910), (440, 945), (550, 920), (618, 850), (618, 850), (640, 920),
            (560, 1000), (440, 1030), (320, 985), (262, 920)], closed=True),
        smooth([(300, 780), (360, 826), (440, 842), (520, 826), (588, 770), (588, 770), (626, 820),
            (600, 890), (520, 935), (440, 950), (350, 928), (282, 876), (270, 820)], closed=True),
    ]
    for k, shape in enumerate([flying, *turns]):
        c.fill(shape + np.float32((4, 14)), "#3c3448", 0.4, blur=10)
        low, high = shape.min(0), shape.max(0)
        c.fill(shape, Gradient(tuple(low), tuple(high), ("#74c0bc", SCARF, SCARF, SCARF_DARK)))
        with c.clip(shape):
            for s in range(5):
                y = low[1] + (high[1] - low[1]) * (0.15 + 0.2 * s)
                bow = 0 if k == 0 else 46
                fold = smooth([(low[0] + 10, y - bow), (low[0] * 0.6 + high[0] * 0.4, y + 14),
                    (low[0] * 0.3 + high[0] * 0.7, y + (-22 if k == 0 else 2)),
                    (high[0] - 4, y - bow)])
                c.line(fold, 20, SCARF_DARK, 0.42, taper=(0.4, 0.4))
                c.line(fold + np.float32((0, -11)), 7, "#b4ece0", 0.45, taper=(0.5, 0.5))
                c.line(fold, 2.2, INK, 0.75, taper=(0.5, 0.6))
            rng = np.random.default_rng(30 + k)
            for _ in range(420):  # the knit
                x, y = rng.uniform(low, high)
                v = np.array([(x - 4, y - 4), (x, y + 2), (x + 4, y - 4)], np.float32)
                c.line(v, 1.5, SCARF_DARK if rng.random() < 0.7 else "#c4f0e4",
                    rng.uniform(0.25, 0.6))
            c.fill(shape, SCARF_DARK, 0.35 * c.streaks(18, 2.5, 20, 40 + k), blend="multiply")
        c.contour(shape, 3, INK)
    for y in np.arange(832, 980, 9):
        c.line(smooth([(866, y), (878, y + 3), (890, y)]), 3, SCARF_DARK, 0.7)


def _petals(c: Canvas) -> None:
    rng = np.random.default_rng(17)
    for _ in range(30):
        x, y = rng.uniform(0, 880), rng.uniform(0, 1200)
        r, turn = rng.uniform(8, 20), rng.uniform(0, 360)
        if 250 < x < 640 and 200 < y < 900:
            continue
        a = np.radians(turn)
        u, v = np.array([np.cos(a), np.sin(a)]), np.array([-np.sin(a), np.cos(a)])
        shape = [(-1, 0), (-1, 0), (-0.3, -0.5), (0.6, -0.6), (1, -0.25), (1, -0.25), (0.75, 0)]
        shape += [(0.75, 0), (1.05, 0.2), (1.05, 0.2), (0.6, 0.5), (-0.3, 0.4)]
        petal = smooth([tuple((x, y) + r * (p * u + q * v)) for p, q in shape], closed=True)
        c.fill(petal, Gradient(tuple(petal[0]), tuple(petal[-30]),
            ("#e8808c", "#ffe4e0", "#fff4f0")))
        c.contour(petal, 1.3, "#a8505c", opacity=0.8)


def draw() -> NDArray[np.uint8]:
    """880x1200, RGBA without transparency."""
    c = Canvas(880, 1200)
    _sky(c)
    _hair_behind(c)
    _neck_and_face(c)
    _coat(c)
    _features(c)
    _hair_in_front(c)
    _scarf(c)
    _petals(c)
    return c.image()
