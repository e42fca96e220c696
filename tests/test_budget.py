from __future__ import annotations

import platform
import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import until
from pictures import FILES, RGB, bomb, png_file, samples_of_16_bits, tiff_file

from sketchify_rt.batch.budget import (
    ALPHA,
    ENCODED,
    LOSSY_LINES,
    MIB,
    PER_PIXEL,
    Budget,
    needed,
)
from sketchify_rt.errors import InputError
from sketchify_rt.inputs import File, Picture
from sketchify_rt.options import Encoding

PNG = Encoding()
PIXELS = RGB.shape[0] * RGB.shape[1]
GRAY = np.zeros((30, 40), np.uint8)

KINDS = {
    "JPEG": "JPEG",
    "progressive JPEG": "JPEG",
    "CMYK JPEG": "JPEG of CMYK",
    "PNG": "PNG",
    "palette PNG": "PNG",
    "16-bit PNG": "PNG of 16 bits",
    "WEBP": "WebP",
    "lossless WebP": "WebP",
    "BMP": "BMP",
    "GIF": "GIF",
    "TIFF": "TIFF",
    "JPEG in TIFF": "TIFF",
    "16-bit TIFF": "TIFF of 16 bits",
    "AVIF": "AVIF",
    "PPM": "PNM",
    "PSD": "PSD",
    "16-bit PSD": "PSD of 16 bits",
    **{name: name for name in ("HEIC", "JPEG XL") if name in FILES},
}


@pytest.mark.parametrize("name", KINDS)
def test_a_file_needs_what_its_kind_needs_for_its_pixels(name: str) -> None:
    data = FILES[name]
    assert needed(File("a", data), PNG) == len(data) + PIXELS * PER_PIXEL[KINDS[name]]


def test_gray_of_16_bits_needs_no_more_than_of_8() -> None:
    gray = samples_of_16_bits(30, 40, 1)
    for data, kind in ((png_file(gray, 16, 0), "PNG"), (tiff_file(gray[..., 0], 1), "TIFF")):
        assert needed(File("a", data), PNG) == len(data) + PIXELS * PER_PIXEL[kind]


def test_text_needs_more_than_its_bytes() -> None:
    data = FILES["plain PPM"]
    assert needed(File("a", data), PNG) == len(data) + 30 * PER_PIXEL["PNM as text"]


def test_pixels_need_little() -> None:
    for image in (GRAY, Picture("a", GRAY)):
        assert needed(image, PNG) == PIXELS * PER_PIXEL["luma"]


def test_encoding_may_need_more_than_decoding() -> None:
    jpeg = File("a", FILES["JPEG"])
    assert needed(jpeg, Encoding("webp")) == len(jpeg.data) + PIXELS * ENCODED["webp"]
    for alpha in "keep", "lines":
        assert needed(jpeg, Encoding(alpha=alpha)) - needed(jpeg, PNG) == PIXELS * ALPHA
    lossy = needed(jpeg, Encoding("webp", 80, alpha="lines")) - needed(jpeg, Encoding("webp"))
    assert lossy == PIXELS * LOSSY_LINES
    assert needed(GRAY, Encoding("jpg")) == PIXELS * ENCODED["jpg"]


@pytest.mark.parametrize("data", [b"", b"no picture", b"BM", b"II*\0" + bytes(20), b"\xff\xd8\xff"])
def test_what_is_broken_needs_its_bytes_alone(data: bytes) -> None:
    assert needed(File("a", data), PNG) == len(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "raw TIFF", "PPM"])
def test_what_is_over_the_limit_of_pixels_is_left_to_the_decoder(form: str) -> None:
    file = File("a", bomb(form))
    budget = Budget(64 * MIB)
    with pytest.raises(InputError, match=r"^a: needs about \d+ MiB .* is 64 MiB\. Raise --memory"):
        budget.check("a", budget.needed(file, PNG))
    assert Budget(64 * MIB, max_pixels=10**8).needed(file, PNG) == len(file.data)


def test_a_budget_without_a_size_has_room_for_all() -> None:
    budget = Budget()
    assert budget.check("a", 10**15) == 10**15
    with budget.hold(10**15, lambda: 10**16), budget.hold(10**15, lambda: 10**16):
        pass


def waits_for_room(budget: Budget) -> bool:
    """Whether a thread does: it is among the waiters of the condition, which has no public name."""
    return bool(budget._freed._waiters)  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [0, 300])
def test_a_large_one_is_not_passed_by_for_ever(size: int) -> None:
    budget, read, order = Budget(400), list[str](), list[str]()

    def work(name: str, size: int, need: int) -> None:
        def load() -> int:
            read.append(name)
            return need

        with budget.hold(size, load):
            order.append(name)

    with budget.hold(1, lambda: 101):
        threads = [threading.Thread(target=work, args=("large", size, 400))]
        threads[0].start()
        until(budget._turn.locked)
        threads += [threading.Thread(target=work, args=(str(i), 1, 100)) for i in range(3)]
        for thread in threads[1:]:
            thread.start()
        until(lambda: {"0", "1", "2"} <= set(read))
        assert not order
    for thread in threads:
        thread.join()
    assert order[0] == "large"
    assert sorted(order[1:]) == ["0", "1", "2"]
    assert budget._free == 400


def test_large_files_wait_for_room_before_they_are_read() -> None:
    budget, read, go_on = Budget(1000), list[str](), threading.Event()

    def work(name: str) -> None:
        def load() -> int:
            read.append(name)
            return 900

        with budget.hold(500, load):
            assert go_on.wait(60)

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: waits_for_room(budget))
    assert len(read) == 1
    assert budget._free == 100
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(read) == ["0", "1", "2"]
    assert budget._free == 1000


def test_small_files_are_read_without_waiting() -> None:
    budget = Budget(1000)
    with budget.hold(1, lambda: 1000):
        read = threading.Event()

        def load() -> int:
            read.set()
            return 10

        def work() -> None:
            with budget.hold(1, load):
                pass

        thread = threading.Thread(target=work)
        thread.start()
        assert read.wait(60)
        until(lambda: waits_for_room(budget))
        assert thread.is_alive()
    thread.join()
    assert budget._free == 1000


def test_a_file_that_turns_out_to_need_less_gives_the_rest_back() -> None:
    budget = Budget(1000)
    with budget.hold(800, lambda: 10):
        assert budget._free == 990
    assert budget._free == 1000


@pytest.mark.parametrize("size", [0, 800])
def test_what_breaks_while_it_is_read_holds_nothing(size: int) -> None:
    def load() -> int:
        raise KeyboardInterrupt

    budget = Budget(1000)
    with pytest.raises(KeyboardInterrupt), budget.hold(size, load):
        pass
    assert budget._free == 1000
    assert not budget._turn.locked()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_go_back_to_the_system() -> None:
    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from sketchify_rt.batch import budget\n"
        "if sys.argv[1:]: budget.return_large_blocks()\n"
        "np.ones(32 * 2**20 - 8192, np.uint8)\n"  # from now on glibc keeps as much
        "before = np.ones(24 * 2**20, np.uint8)\n"
        "wall = bytes(2**16)\n"
        "del before\n"
        "print(int(Path('/proc/self/statm').read_text().split()[1]) * 4096)\n"
    )
    kept, returned = (
        int(subprocess.check_output([sys.executable, "-c", script, *arguments]))
        for arguments in ((), ("1",))
    )
    assert kept - returned > 16 * 2**20


def test_what_takes_long_to_read_lets_others_pass_where_its_need_is_known() -> None:
    budget = Budget(1000)
    reading, go_on = threading.Event(), threading.Event()

    def draw() -> int:
        reading.set()
        assert go_on.wait(60)
        return 500

    def work() -> None:
        with budget.hold(500, draw, known=True):
            assert budget._free == 500

    thread = threading.Thread(target=work)
    thread.start()
    assert reading.wait(60)
    with budget.hold(400, lambda: 400):  # as large, and does not wait
        assert budget._free == 100
    go_on.set()
    thread.join()
    assert budget._free == 1000


def test_an_error_of_such_a_read_gives_everything_back() -> None:
    budget = Budget(1000)
    with pytest.raises(InputError), budget.hold(500, lambda: _refuse(), known=True):
        pass
    assert budget._free == 1000


def _refuse() -> int:
    raise InputError("no such page")
