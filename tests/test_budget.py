from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from pictures import FILES, RGB, bomb, png_file, samples_of_16_bits, tiff_file

from sketchify_rt.batch.budget import ALPHA, ENCODED, MIB, PER_PIXEL, Budget, needed
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
    assert needed(jpeg, Encoding(alpha="keep")) - needed(jpeg, PNG) == PIXELS * ALPHA
    assert needed(GRAY, Encoding("jpg")) == PIXELS * ENCODED["jpg"]


@pytest.mark.parametrize("data", [b"", b"no picture", b"BM", b"II*\0" + bytes(20), b"\xff\xd8\xff"])
def test_what_is_broken_needs_its_bytes_alone(data: bytes) -> None:
    assert needed(File("a", data), PNG) == len(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "raw TIFF", "PPM"])
def test_what_is_over_the_limit_of_pixels_is_left_to_the_decoder(form: str) -> None:
    file = File("a", bomb(form))
    with pytest.raises(InputError, match=r"^a: needs some \d+ MiB .* 64 together; raise --memory"):
        Budget(64 * MIB).check(file, PNG)
    Budget(64 * MIB, max_pixels=10**8).check(file, PNG)
    assert needed(file, PNG, 10**8) == len(file.data)


def test_a_large_one_is_not_passed_by_for_ever() -> None:
    budget, order = Budget(4 * PIXELS * PER_PIXEL["luma"]), list[str]()

    def work(name: str, count: int) -> None:
        with budget.hold([GRAY] * count, PNG):
            order.append(name)

    with budget.hold([GRAY], PNG):
        threads = [threading.Thread(target=work, args=("large", 4))]
        threads[0].start()
        until = time.monotonic() + 60
        while not budget._turn.locked() and time.monotonic() < until:
            time.sleep(0.001)
        threads += [threading.Thread(target=work, args=(str(i), 1)) for i in range(3)]
        for thread in threads[1:]:
            thread.start()
        time.sleep(0.05)
        assert not order
    for thread in threads:
        thread.join()
    assert order[0] == "large"
    assert sorted(order[1:]) == ["0", "1", "2"]
