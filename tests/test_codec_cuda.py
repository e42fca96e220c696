"""The codec of a GPU, with DALI on the processor but for the tests marked `gpu`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import needs
from pictures import FILES, NOISE, RGB, RNG, bomb, luma_of, png_file, saved, with_orientation
from PIL import Image

from sketchify_rt import packages
from sketchify_rt.codec import cpu, cuda, dali
from sketchify_rt.codec.cuda import Codec
from sketchify_rt.codec.header import File, probe
from sketchify_rt.errors import BackendUnavailable, DecodeError, EncodeError
from sketchify_rt.options import Encoding

pytestmark = pytest.mark.slow

MAX_PIXELS = 10**6
CPU = torch.device("cpu")

WIDE = cv2.resize(RGB, (331, 101))
PALETTE = Image.fromarray(RGB).quantize(16)
PLAIN = {
    "baseline": saved(RGB, "JPEG"),
    "progressive": saved(WIDE, "JPEG", progressive=True),
    "4:4:4": saved(WIDE, "JPEG", subsampling=0),
    "4:2:2": saved(WIDE, "JPEG", subsampling=1),
    "4:2:0": saved(WIDE, "JPEG", subsampling=2, quality=95),
    "gray": saved(luma_of(WIDE), "JPEG"),
    "one pixel": saved(RGB[:1, :1], "JPEG"),
    "tall": saved(np.ascontiguousarray(WIDE.transpose(1, 0, 2)), "JPEG"),
    **{
        f"orientation {number}": with_orientation("JPEG", WIDE[:64], number)
        for number in range(1, 9)
    },
}
JPEG_OF_RGB = saved(RGB, "JPEG", subsampling=0, keep_rgb=True)
OTHERS = {
    **{name: data for name, data in FILES.items() if name not in ("JPEG", "progressive JPEG")},
    "JPEG of RGB": JPEG_OF_RGB,
    "gray PNG": saved(luma_of(RGB), "PNG"),
    "RGBA PNG": saved(NOISE, "PNG"),
    "PNG of a palette with transparency": saved(PALETTE, "PNG", transparency=3),
    "gray PNG of 16 bits": png_file(RNG.integers(0, 65536, (5, 7, 1), np.uint16), 16, 0),
    "PNG on its side": with_orientation("PNG", RGB, 6),
    "lossy WebP with alpha": saved(NOISE, "WEBP", quality=80),
    "WebP on its side": with_orientation("WEBP", RGB, 8),
}
HUFFMAN = PLAIN["4:2:0"].index(b"\xff\xc4")
BAD = {
    "empty": b"",
    "garbage": RNG.bytes(500),
    "text": b"just some text",
    "another format": b"%PDF-1.7",
    "truncated JPEG": PLAIN["4:2:0"][:900],
    "truncated PNG": OTHERS["RGBA PNG"][:900],
    "PNG with a wrong checksum": OTHERS["RGBA PNG"][:60] + b"!" + OTHERS["RGBA PNG"][61:],
    "JPEG of too many pixels": bomb("JPEG"),
    "PNG of too many pixels": bomb("PNG"),
    "WebP of too many pixels": bomb("WEBP"),
    # well-formed until it is decoded
    "JPEG with a broken table": (
        PLAIN["4:2:0"][: HUFFMAN + 5] + b"\xff" * 16 + PLAIN["4:2:0"][HUFFMAN + 21 :]
    ),
}
NAMED = {**PLAIN, **OTHERS, **BAD}


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(CPU, 2)


@pytest.fixture
def decoder() -> dali.JpegDecoder:
    needs("nvidia.dali")
    return dali.JpegDecoder(CPU, 2)


def on_cpu(name: str) -> np.ndarray | DecodeError:
    try:
        return cpu.decode(File(name, NAMED[name]), MAX_PIXELS)
    except DecodeError as error:
        return error


def close_luma(luma: np.ndarray, expected: np.ndarray) -> bool:
    """At most 3 levels apart, and at most 1 on 98 % of the pixels.

    No decoder can be held to less than 1: a float IDCT that rounds perfectly is 1 level off
    libjpeg's integer one on 1 to 2 % of the pixels. NVIDIA's tests of nvJPEG allow 3 levels.
    """
    apart = np.abs(luma.astype(int) - expected)
    return bool(apart.max() <= 3 and (apart <= 1).mean() >= 0.98)


@pytest.mark.parametrize(
    ("levels", "share", "close"),
    [(0, 1, True), (1, 1, True), (3, 0.02, True), (2, 0.03, False), (4, 0.001, False)],
)
def test_how_close_luma_has_to_be(levels: int, share: float, close: bool) -> None:
    expected = np.full(1000, 100, np.uint8)
    for sign in (-1, 1):
        luma = expected.copy()
        luma[: round(1000 * share)] += np.uint8(sign * levels % 256)
        assert close_luma(luma, expected) == close


def check(codec: Codec, names: Sequence[str], device: torch.device = CPU) -> None:
    """The codec's answers are those of cpu.py, where a GPU decodes by `close_luma`."""
    needs("isal")
    results = codec.decode([File(name, NAMED[name]) for name in names], MAX_PIXELS)
    assert len(results) == len(names)
    for name, result in zip(names, results, strict=True):
        expected = on_cpu(name)
        if isinstance(expected, DecodeError):
            assert isinstance(result, DecodeError), name
            assert (result.source, result.reason) == (name, expected.reason)
            continue
        assert isinstance(result, torch.Tensor), (name, result)
        assert result.device.type == device.type
        assert result.dtype == torch.uint8
        assert result.stride(0) % 16 == result.data_ptr() % 16 == 0
        assert tuple(result.shape) == expected.shape, name
        luma = result.cpu().numpy()
        if device.type == "cuda" and name in PLAIN:
            assert close_luma(luma, expected), name
        else:
            np.testing.assert_array_equal(luma, expected, name)


def test_every_kind_in_one_batch(codec: Codec) -> None:
    check(codec, [*PLAIN, *OTHERS])


def test_only_what_dali_reads_alike_is_left_to_it() -> None:
    assert all(probe(data).plain for data in PLAIN.values())
    for data in (JPEG_OF_RGB, FILES["CMYK JPEG"]):
        assert not probe(data).plain


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_file_in_the_middle(codec: Codec, bad: str) -> None:
    assert isinstance(on_cpu(bad), DecodeError)
    check(codec, ["tall", "RGBA PNG", "baseline", bad, "gray", "4:4:4", "lossless WebP"])
    check(codec, [bad])


def test_bad_files_and_good_ones_mixed(codec: Codec) -> None:
    rng = np.random.default_rng(3)
    names = [*NAMED]
    for count in (1, 2, 7, 30):
        check(codec, [str(name) for name in rng.choice(names, count)])


def test_dali_fails_on_the_bad_file_alone(decoder: dali.JpegDecoder) -> None:
    files = [*PLAIN.values()]
    files.insert(5, BAD["JPEG with a broken table"])
    luma = decoder(files, [1] * len(files))
    assert [index for index, plane in enumerate(luma) if plane is None] == [5]


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_the_device_is_waited_for_between_a_failed_batch_and_the_next(
    decoder: dali.JpegDecoder, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    log: list[str] = []
    bad = BAD["JPEG with a broken table"]

    class Context:
        cuda_stream = SimpleNamespace(synchronize=lambda: log.append("wait"))

        def __enter__(self) -> None:
            log.append("decode")

        def __exit__(self, *_: object) -> None: ...

    def image(files: Sequence[bytes]) -> Any:
        if bad in files:
            raise error("no room, or a file that is broken")
        plane = torch.zeros(30, 40, 1, dtype=torch.uint8)
        return SimpleNamespace(tensors=[SimpleNamespace(torch=lambda: plane)] * len(files))

    monkeypatch.setattr(decoder, "_context", Context())
    monkeypatch.setattr(decoder, "_image", image)
    monkeypatch.setattr(decoder, "_as_batch", lambda files: [file.tobytes() for file in files])
    if error is MemoryError:
        with pytest.raises(MemoryError):
            decoder([bad, PLAIN["gray"]], [1, 1])
        assert log == ["decode", "wait"]
        return
    luma = decoder([PLAIN["gray"], bad], [1, 1])
    assert [plane is None for plane in luma] == [False, True]
    # Both, the good one alone, the bad one alone.
    assert log == ["decode", "wait", "decode", "decode", "wait"]


def test_many_threads_at_once(codec: Codec) -> None:
    names = [[*PLAIN, *BAD], [*OTHERS, *PLAIN], [*BAD, *OTHERS]] * 3
    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lambda some: check(codec, some), names):
            pass


def test_limit_is_inclusive(codec: Codec) -> None:
    for name in ("baseline", "PNG"):
        (luma,) = codec.decode([File(name, NAMED[name])], 1200)
        assert isinstance(luma, torch.Tensor)
        (error,) = codec.decode([File(name, NAMED[name])], 1199)
        assert isinstance(error, DecodeError)
        assert "40 x 30 = 1200 pixels, over the limit of 1199" in str(error)


def test_nothing(codec: Codec) -> None:
    assert codec.decode([], MAX_PIXELS) == []
    for form in ("png", "jpg", "webp"):
        assert codec.encode([], Encoding(form)) == []


def test_images_stay_when_the_codec_goes() -> None:
    codec = Codec(CPU, 1)
    luma = codec.decode([File("page", PLAIN["4:4:4"])] * 3, MAX_PIXELS)
    kept = [image.clone() for image in luma]
    codec.decode([File("page", PLAIN["tall"])] * 3, MAX_PIXELS)
    del codec
    assert all(torch.equal(image, copy) for image, copy in zip(luma, kept, strict=True))


def test_without_nvidias_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "installed", lambda name: False)
    monkeypatch.setattr(cuda, "JpegDecoder", None)
    assert cuda.missing() == ["nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13"]
    check(Codec(CPU, 2), [*NAMED])


def test_dali_that_does_not_work_is_not_the_files_fault(
    decoder: dali.JpegDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dali, "_TINY", b"\xff\xd8")
    with pytest.raises(BackendUnavailable, match="cpu: DALI decodes no JPEG"):
        Codec(CPU, 1).decode([File("page", PLAIN["gray"])], MAX_PIXELS)
    with pytest.raises(BackendUnavailable, match="cpu: DALI decodes no JPEG"):
        decoder([BAD["JPEG with a broken table"]] * 3, [1] * 3)


def test_out_of_memory_is_not_the_files_fault(
    decoder: dali.JpegDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Any) -> None:
        raise MemoryError("can't allocate")

    monkeypatch.setattr(decoder, "_image", full)
    with pytest.raises(MemoryError):
        decoder([PLAIN["gray"]] * 2, [1] * 2)


def test_dali_is_imported_when_first_needed() -> None:
    code = """
import sys
import torch
from sketchify_rt.codec.cuda import Codec
from sketchify_rt.codec.header import File
codec = Codec(torch.device("cpu"), 1)
codec.decode([File("page", b"P5 1 1 255 x")], 9)
print(*({"nvidia.dali", "nvidia.nvimgcodec"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("\n", "")


# Encoding


def pages(*shapes: tuple[int, int]) -> list[np.ndarray]:
    return [cv2.resize(RGB[..., 0], shape[::-1]) for shape in shapes]


PAGES = pages((1, 1), (3, 5), (64, 64), (517, 301), (2, 1000), (33, 40))
ENCODINGS = [
    Encoding(),
    Encoding("webp"),
    Encoding("webp", 80),
    Encoding("jpg"),
    Encoding("jpg", 30),
    Encoding(alpha="lines"),
    Encoding("webp", 80, alpha="lines"),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_files_are_those_of_the_cpu(codec: Codec, encoding: Encoding) -> None:
    images = [torch.from_numpy(page) for page in PAGES]
    images.append(images[3][10:200, 7:90])  # strided
    files = codec.encode(images, encoding)
    assert files == [cpu.encode(image.numpy(), encoding) for image in images]


@pytest.mark.parametrize(("form", "limit"), [("webp", 16383), ("jpg", 65500)])
def test_image_that_the_format_cannot_hold(codec: Codec, form: Any, limit: int) -> None:
    images = [torch.zeros(shape, dtype=torch.uint8) for shape in ((2, 3), (1, limit + 1), (4, 5))]
    first, error, last = codec.encode(images, Encoding(form))
    assert isinstance(error, EncodeError)
    assert f"at most {limit} a side; use png" in str(error)
    assert isinstance(first, bytes)
    assert isinstance(last, bytes)


def test_nvimagecodec_writes_readable_jpeg() -> None:
    needs("nvidia.nvimgcodec")
    files = cuda.JpegEncoder(CPU, 2)([torch.from_numpy(page) for page in PAGES], 95)
    close_to_pages(files, 95)


def close_to_pages(files: Sequence[object], quality: int) -> None:
    """As close to PAGES as the files that OpenCV writes, and of one channel."""
    for page, data in zip(PAGES, files, strict=True):
        assert isinstance(data, bytes)
        with_opencv = cpu.encode(page, Encoding("jpg", quality))
        luma, expected = (
            cpu.decode(File("page", file), MAX_PIXELS) for file in (data, with_opencv)
        )
        assert probe(data).channels == 1
        assert luma.shape == page.shape
        assert np.abs(luma.astype(int) - expected).max() <= 3


def test_what_nvimagecodec_refuses_is_written_by_the_cpu(
    codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fussy:
        def __init__(self, device: torch.device, threads: int) -> None: ...

        def __call__(self, images: Sequence[torch.Tensor], quality: int) -> list[bytes | None]:
            assert quality == 95
            return [b"file" if image.numel() > 100 else None for image in images]

    monkeypatch.setattr(cuda, "JpegEncoder", Fussy)
    monkeypatch.setattr(codec, "_has_nvimagecodec", True)
    large, small = torch.zeros(20, 20, dtype=torch.uint8), torch.zeros(2, 3, dtype=torch.uint8)
    huge = torch.zeros(1, 65501, dtype=torch.uint8)
    written = cpu.encode(small.numpy(), Encoding("jpg"))
    files = codec.encode([large, small, huge, large], Encoding("jpg"))
    assert [files[0], files[1], files[3]] == [b"file", written, b"file"]
    assert isinstance(files[2], EncodeError)


# On a GPU


@pytest.fixture(scope="module")
def card() -> Codec:
    return Codec(torch.device("cuda"), 4)


@pytest.mark.gpu
def test_gpu_decodes_every_kind_in_one_batch(card: Codec) -> None:
    needs("nvidia.dali")
    check(card, [*NAMED], torch.device("cuda"))


@pytest.mark.gpu
@pytest.mark.parametrize("bad", BAD)
def test_gpu_one_bad_file_in_the_middle(card: Codec, bad: str) -> None:
    needs("nvidia.dali")
    check(card, ["tall", "RGBA PNG", "baseline", bad, "gray", "4:4:4"], torch.device("cuda"))


@pytest.mark.gpu
def test_gpu_pixels_do_not_depend_on_the_other_files_of_a_batch(card: Codec) -> None:
    needs("nvidia.dali")
    # The hardware engine takes baseline files only; CUDA cores decode the progressive one.
    names = [name for name in PLAIN if name != "one pixel"] * 3
    together = card.decode([File(name, PLAIN[name]) for name in names], MAX_PIXELS)
    for name, plane in zip(names, together, strict=True):
        (alone,) = card.decode([File(name, PLAIN[name])], MAX_PIXELS)
        assert isinstance(alone, torch.Tensor) and isinstance(plane, torch.Tensor)
        assert torch.equal(plane, alone), name


@pytest.mark.gpu
def test_gpu_lanes_with_streams_of_their_own(card: Codec) -> None:
    needs("nvidia.dali")
    rng = np.random.default_rng(4)
    order = [[str(name) for name in rng.permutation([*NAMED])] for _ in range(12)]

    def lane(names: Sequence[str]) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            check(card, names, torch.device("cuda"))

    with ThreadPoolExecutor(3) as pool:
        for _ in pool.map(lane, order):
            pass


@pytest.mark.gpu
@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_gpu_encodes(card: Codec, encoding: Encoding) -> None:
    if encoding.format == "png":
        needs("isal")
    with torch.cuda.stream(torch.cuda.Stream()):
        wide = [torch.from_numpy(np.pad(page, ((0, 1), (0, 3)))).cuda() for page in PAGES]
        strided = [image[:-1, :-3] for image in wide]
        files = card.encode(strided, encoding)
    if encoding.format == "jpg":
        close_to_pages(files, encoding.quality or 95)
    else:
        assert files == [cpu.encode(page, encoding) for page in PAGES]


@pytest.mark.gpu
def test_gpu_encodes_jpeg_itself(card: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("nvidia.nvimgcodec")
    monkeypatch.setattr(cpu, "encode", None)
    images = [torch.from_numpy(page).cuda() for page in PAGES if min(page.shape) >= 8]
    assert all(isinstance(file, bytes) for file in card.encode(images, Encoding("jpg")))
