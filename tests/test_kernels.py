from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import noise

from sketchify_rt.errors import BackendUnavailable
from sketchify_rt.kernels import native, reference

Gray = NDArray[np.uint8]

# Vectors are 16 to 64 pixels, strips 512 to 1024; rows go in pairs, threads take bands of 64.
SMALL = sorted(
    {
        *itertools.product(range(1, 41, 3), range(1, 41)),
        *itertools.product(range(1, 24), (1, 2, 5, 16, 33)),
    }
)
LARGE = [(3, 509), (4, 510), (5, 511), (6, 512), (7, 513), (40, 1020), (9, 1021), (3, 1022)]
LARGE += [
    (8, 1023),
    (2, 1024),
    (5, 1025),
    (130, 1534),
    (11, 2045),
    (300, 127),
    (1001, 3),
    (257, 129),
]


def opencv_binarize(gray: Gray) -> Gray:
    threshold = cv2.adaptiveThreshold(
        gray, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 9, 2
    )
    return cv2.medianBlur(threshold, 3)  # type: ignore[return-value]


def opencv_dodge(gray: Gray) -> Gray:
    return cv2.divide(gray, cv2.GaussianBlur(gray, (21, 21), 0), scale=256)  # type: ignore[return-value]


def pictures() -> Iterator[tuple[str, Gray]]:
    y, x = np.mgrid[0:131, 0:177]
    yield "gradient", (x + y).astype(np.uint8)
    yield "slope", (x // 3 + y // 2).astype(np.uint8)
    yield "checker", ((x + y) % 2 * 255).astype(np.uint8)
    yield "tiles", ((x // 8 + y // 8) % 2 * 200 + 20).astype(np.uint8)
    yield "waves", (127.5 + 127.5 * np.sin(x * y / 300)).astype(np.uint8)
    for level in (0, 1, 2, 127, 253, 254, 255):
        yield f"constant {level}", np.full((29, 70), level, np.uint8)
    text = np.full((131, 177), 255, np.uint8)
    for i, line in enumerate(("sketchify", "0123456789", "AaBbCcDd")):
        cv2.putText(text, line, (2, 35 + 40 * i), cv2.FONT_HERSHEY_COMPLEX, 1, 10 + 40 * i)
    yield "text", text
    yield "soft text", cv2.GaussianBlur(text, (5, 5), 0).astype(np.uint8)
    dot = np.zeros((60, 60), np.uint8)
    dot[30, 30] = 255  # the blur is 0 at some of its neighbours and not at others
    dot[10, 10] = 9
    yield "dots", dot


@pytest.mark.parametrize("gray", [pytest.param(g, id=name) for name, g in pictures()])
def test_reference_is_opencv_on_pictures(gray: Gray) -> None:
    np.testing.assert_array_equal(reference.binarize(gray), opencv_binarize(gray))
    np.testing.assert_array_equal(reference.dodge(gray), opencv_dodge(gray))


def test_reference_is_opencv_at_all_sizes() -> None:
    for height, width in [*SMALL, (300, 311), (97, 1025)]:
        gray = noise(height, width)
        np.testing.assert_array_equal(reference.binarize(gray), opencv_binarize(gray))
        np.testing.assert_array_equal(reference.dodge(gray), opencv_dodge(gray))


def test_opencv_kernels_are_the_whole_numbers_we_use() -> None:
    nine = cv2.getGaussianKernel(9, 0, cv2.CV_32F)
    np.testing.assert_array_equal(nine.ravel() * 256, reference.GAUSS_9)
    impulse = np.zeros((41, 41), np.uint8)
    impulse[20] = 255  # a row: the blur along it changes nothing
    column = cv2.GaussianBlur(impulse, (21, 21), 0)[10:31, 20]
    np.testing.assert_array_equal(column, np.array(reference.GAUSS_21) * 255 + 128 >> 8)


def tones_of(gray: Gray) -> NDArray[np.float32]:
    return (gray / np.float32(230) - np.float32(0.05)).astype(np.float32)


def test_every_isa_is_the_reference_at_all_sizes(isa: str) -> None:
    for height, width in [*SMALL, *LARGE]:
        gray = noise(height, width, seed=1)
        tones, message = tones_of(gray), f"{height} x {width}"
        binary, dodge = native.binarize(gray), native.dodge(gray, 1.3)
        sketch = native.compose(tones, 0.7)
        np.testing.assert_array_equal(binary, reference.binarize(gray), message)
        np.testing.assert_array_equal(dodge, reference.dodge(gray, 1.3), message)
        np.testing.assert_array_equal(sketch, reference.compose(tones, 0.7), message)
        hint = native.hint(binary, dodge)
        np.testing.assert_array_equal(hint, reference.hint(binary, dodge), message)


@pytest.mark.parametrize("gray", [pytest.param(g, id=name) for name, g in pictures()])
def test_every_isa_is_the_reference_on_pictures(isa: str, gray: Gray) -> None:
    np.testing.assert_array_equal(native.binarize(gray), reference.binarize(gray))
    np.testing.assert_array_equal(native.dodge(gray), reference.dodge(gray))
    for binary in gray, reference.binarize(gray):  # `gray` is black where it is 0
        hint = native.hint(binary, gray)
        np.testing.assert_array_equal(hint, reference.hint(binary, gray))


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_threads_make_no_difference(isa: str, threads: int) -> None:
    for height in (1, 63, 128, 129, 700):
        gray = noise(height, 83)
        tones = tones_of(gray)
        np.testing.assert_array_equal(
            native.binarize(gray, threads=threads), reference.binarize(gray)
        )
        np.testing.assert_array_equal(native.dodge(gray, threads=threads), reference.dodge(gray))
        np.testing.assert_array_equal(
            native.compose(tones, threads=threads), reference.compose(tones)
        )
        binary = reference.binarize(gray)
        np.testing.assert_array_equal(
            native.hint(binary, gray, threads=threads), reference.hint(binary, gray)
        )


@pytest.mark.parametrize("black", [0, 12, 200, 255])
def test_every_isa_gives_the_look_of_the_reference(isa: str, black: int) -> None:
    tables = np.random.default_rng(black)
    shade, table = (tables.integers(0, 256, size, np.uint8) for size in (48, 256))
    for height, width in [*SMALL, *LARGE]:
        gray, sketch = noise(height, width, seed=1), noise(height, width, seed=2)
        expected = reference.look(sketch, gray, black, shade, table)
        looked = native.look(sketch.copy(), gray, black, shade, table)
        np.testing.assert_array_equal(looked, expected, f"{height} x {width}")
    for threads in 2, 7:  # in place, of a crop, of a picture in columns
        page, gray = np.full((800, 200), 77, np.uint8), noise(700, 249)[:, ::3]
        page[20:720, 30:113] = sketch = noise(700, 83, seed=2)
        looked = native.look(page[20:720, 30:113], gray, black, shade, table, threads=threads)
        expected = reference.look(sketch, gray, black, shade, table)
        np.testing.assert_array_equal(looked, expected)
        assert (
            (page[:20] == 77).all() and (page[:, :30] == 77).all() and (page[:, 113:] == 77).all()
        )


def test_views_are_read_and_written_in_place(isa: str) -> None:
    gray, tones = noise(150, 211), tones_of(noise(150, 211))
    views: list[tuple[slice, slice]] = [
        (slice(3, 140), slice(5, 206)),  # a crop
        (slice(None, None, 2), slice(1, None)),  # every other row
        (slice(None, None, -1), slice(None)),  # upside down
        (slice(None), slice(None, None, 3)),  # columns apart
    ]
    for view in views:
        np.testing.assert_array_equal(native.binarize(gray[view]), reference.binarize(gray[view]))
        np.testing.assert_array_equal(native.dodge(gray[view]), reference.dodge(gray[view]))
        np.testing.assert_array_equal(native.compose(tones[view]), reference.compose(tones[view]))
        for binary, other in ((gray[view], gray[view].copy()), (gray[view].copy(), gray[view])):
            np.testing.assert_array_equal(
                native.hint(binary % 2, other), reference.hint(binary % 2, other)
            )

    for column in (gray[:1].T, gray[:, ::7][:1, :1], gray[:, 3:4]):  # single columns
        np.testing.assert_array_equal(native.binarize(column), reference.binarize(column))
        np.testing.assert_array_equal(native.dodge(column), reference.dodge(column))

    for name, source in ("binarize", gray), ("dodge", gray), ("compose", tones):
        page = np.full((200, 300), 77, np.uint8)
        out = page[20:170:1, 30:241]
        assert getattr(native, name)(source, threads=2, out=out) is out
        np.testing.assert_array_equal(out, getattr(reference, name)(source))
        out[...] = 77
        assert (page == 77).all(), f"{name} wrote beside its view"


def test_concurrent_calls(isa: str) -> None:
    pages = [noise(500 + i, 301) for i in range(8)]
    expected = [reference.dodge(page) for page in pages]
    hints = [reference.hint(page % 2, page) for page in pages]

    def convert(i: int) -> bool:
        page, threads = pages[i % 8], 1 + i % 4
        return np.array_equal(
            native.dodge(page, threads=threads), expected[i % 8]
        ) and np.array_equal(native.hint(page % 2, page, threads=threads), hints[i % 8])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(convert, range(200)))


def test_a_forked_process_has_threads_of_its_own() -> None:
    code = """
import os, signal
import numpy as np
from sketchify_rt.kernels import native
gray = np.arange(500 * 300, dtype=np.uint32).astype(np.uint8).reshape(500, 300)
before = native.binarize(gray, threads=3)
child = os.fork()
if child == 0:
    signal.alarm(20)  # rather than hang
    os._exit(0 if np.array_equal(native.binarize(gray, threads=3), before) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code).returncode == 0


def test_divide_of_all_pairs_there_can_be(isa: str) -> None:
    # 256 blocks, each of another level, with one pixel in the middle. It is a 73rd of its own blur,
    # so that bright on black does not occur; what does occur is all there.
    for middle in range(256):
        gray = np.tile(np.arange(256, dtype=np.uint8).repeat(23), (21, 1))
        gray[10, 11::23] = middle
        sums = reference._blur(gray.astype(np.int32), reference.GAUSS_21, "reflect")[10, 11::23]
        blurred = (sums + 32768) >> 16
        assert (np.diff(blurred) <= 1).all()
        assert blurred[0] <= 4
        assert blurred[-1] >= 251
        np.testing.assert_array_equal(native.dodge(gray), reference.dodge(gray))


@pytest.mark.parametrize("strength", [0, 1 / 256, 0.35, 1, 1.5, 4])
def test_compose_of_all_levels_and_specials(isa: str, strength: float) -> None:
    halves = (np.arange(511, dtype=np.float32) / 2 / 255).astype(np.float32)  # ties included
    nearby = np.concatenate([halves, np.nextafter(halves, 2), np.nextafter(halves, -1)])
    special = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e38, -1e38, 1.0000001]
    tones = np.concatenate([nearby, special]).astype(np.float32)[None]
    result = native.compose(tones, strength)
    np.testing.assert_array_equal(result, reference.compose(tones, strength))
    if strength == 1:
        np.testing.assert_array_equal(result[0, :511:2], np.arange(256))
        np.testing.assert_array_equal(result[0, -9:], [0, 0, 255, 0, 0, 0, 255, 0, 255])
    if strength == 0:
        assert (result == 255).all()


def test_hint_of_wide_pages(isa: str) -> None:
    for height, width in [(9, 4088), (17, 4097), (3, 4190), (100, 8300)]:  # strips are 512 cells
        tones = noise(height, width)
        binary = noise(height, width, seed=1) % 2
        np.testing.assert_array_equal(native.hint(binary, tones), reference.hint(binary, tones))


def test_hint_of_plain_pages(isa: str) -> None:
    black, white = np.zeros((100, 203), np.uint8), np.full((100, 203), 255, np.uint8)
    for binary, tones, level in (
        (white, black, 0),  # no black pixel
        (black, black, 255),
        (black, white, 1),
        (black, white - 55, 56),  # 1 + 254 * 55 / 255 = 55.8
    ):
        expected = np.full((13, 26), level, np.uint8)
        np.testing.assert_array_equal(native.hint(binary, tones), expected)
        np.testing.assert_array_equal(reference.hint(binary, tones), expected)


def test_hint_of_single_pixels(isa: str) -> None:
    binary, tones = np.full((233, 239), 255, np.uint8), np.full((233, 239), 255, np.uint8)
    binary[0, 0] = tones[0, 0] = 0
    hint = native.hint(binary, tones, threads=3)
    np.testing.assert_array_equal(hint, np.full((30, 30), 255))  # the mean of the page is its own
    binary[-1, -1] = 0
    hint = native.hint(binary, tones, threads=3)
    np.testing.assert_array_equal(hint, reference.hint(binary, tones))
    # Beside 64719 shares of the page's mean, 128, each has 32 * 32.
    assert (hint[0, 0], hint[15, 15], hint[-1, -1]) == (130, 128, 126)


def test_hint_of_a_page_of_100_megapixels(isa: str) -> None:
    # One row in memory, and a darkness of 2.55e10.
    page = np.broadcast_to(np.zeros(10_000, np.uint8), (10_000, 10_000))
    np.testing.assert_array_equal(native.hint(page, page, threads=2), np.full((1250, 1250), 255))


def test_strength_of_dodge_is_that_of_compose() -> None:
    gray = noise(90, 141)
    plain = native.dodge(gray)
    for strength in (0.0, 0.35, 2.0, 4.0):
        expected = reference.compose((plain / 255).astype(np.float32), strength)
        np.testing.assert_array_equal(native.dodge(gray, strength), expected)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_environment_forces_an_isa(isa: str) -> None:
    code = "from sketchify_rt.kernels import native; print(native.isa())"
    assert run_python(code, SKETCHIFY_ISA=isa).stdout == f"{isa}\n"
    assert run_python(code, SKETCHIFY_ISA="").stdout == f"{native.isas()[-1]}\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other processors have no VNNI")
@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="only Linux lists what there is")
def test_vnni_is_what_the_system_says() -> None:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert native.vnni() == bool({"avx512_vnni", "avx_vnni"} & set(text.split()))


def test_an_isa_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKETCHIFY_ISA", "mmx")
    native.isa.cache_clear()
    try:
        with pytest.raises(
            BackendUnavailable, match=r"SKETCHIFY_ISA .* got 'mmx', expected baseline"
        ):
            native.binarize(noise(3, 3))
    finally:
        native.isa.cache_clear()


@pytest.mark.parametrize(
    ("source", "out"),
    [
        (np.zeros((3, 4), np.int16), (3, 4)),
        (np.zeros((3, 4, 1), np.uint8), (3, 4)),
        (np.zeros((0, 4), np.uint8), (0, 4)),
        (noise(3, 4), (4, 3)),
        (noise(3, 4), (3, 4, 1)),
    ],
)
def test_nothing_outside_of_an_array_is_read_or_written(source: Gray, out: tuple[int, ...]) -> None:
    page = np.full(out, 77, np.uint8)
    for kernel in native.binarize, native.dodge:
        with pytest.raises((TypeError, ValueError)):
            kernel(source, out=page)
    assert (page == 77).all()
    if source.ndim == 2:
        with pytest.raises((TypeError, ValueError)):
            native.hint(source, np.zeros(out, np.uint8))


def test_threads_are_used_and_bounded() -> None:
    code = """
import os
import numpy as np
from sketchify_rt.kernels import native
def threads():
    return len(os.listdir("/proc/self/task"))
gray = np.zeros((2000, 500), np.uint8)
before = threads()
counts = []
for wanted in (1, 3, 2, 3):
    native.dodge(gray, threads=wanted)
    counts.append(threads() - before)
print(*counts)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "2", "2", "2"]
