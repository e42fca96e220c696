"""Alpha out of every format, cut, turned and resized like its picture, and into PNG and WebP."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictures import (
    NOISE,
    RGB,
    luma_of,
    on_white,
    png_chunk,
    png_file,
    samples_of_16_bits,
    saved,
    tiff_file,
    to_8_bits,
)
from PIL import Image

from sketchify_rt import DecodeError, EncodeError, Encoding, InputError, Sketchifier, image
from sketchify_rt.backend import cpu as backend
from sketchify_rt.cli.verbs import main
from sketchify_rt.cluster import SketchActor
from sketchify_rt.codec import cpu
from sketchify_rt.codec.extras import Extras
from sketchify_rt.inputs import File, Picture
from sketchify_rt.kernels import reference
from sketchify_rt.options import Format

KEEP = Encoding(alpha="keep")
ALPHA = NOISE[..., 3]
LINES = Encoding(alpha="lines")
HOLDING: tuple[Format, ...] = ("png", "webp")


def read(data: bytes) -> np.ndarray | None:
    return cpu.decode_alpha(File("page", data))


def with_alpha(form: str, **options: Any) -> bytes:
    if form in ("WEBP", "AVIF"):
        options |= {"lossless": True, "exact": True} if form == "WEBP" else {"quality": 100}
    return saved(NOISE, form, **options)


def planes(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Gray and alpha of a result, the same by Pillow and OpenCV."""
    image = Image.open(io.BytesIO(data))
    assert image.mode == {"PNG": "LA", "WEBP": "RGBA"}[str(image.format)]
    rgba = np.asarray(image.convert("RGBA"))
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    np.testing.assert_array_equal(pixels, rgba)  # gray: no order of channels
    np.testing.assert_array_equal(rgba[..., 0], rgba[..., 1])
    return rgba[..., 0], rgba[..., 3]


@pytest.fixture(scope="module")
def sketchify() -> Sketchifier:
    return Sketchifier(mode="dodge", device="cpu", threads=1)


# Out of every format


PALETTE = Image.fromarray(RGB).quantize(16)
INDEX = np.asarray(PALETTE)
COLOURS = np.asarray(PALETTE.convert("RGB"))
ALPHAS = np.arange(0, 256, 17, dtype=np.uint8)
COLOUR, GRAY = NOISE[..., :3], NOISE[..., 0]
BOTH = Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(ALPHA)])
DEEP = samples_of_16_bits(9, 11, 4)
DEEP[..., 3].flat[:6] = 0, 128, 129, 65406, 65407, 65535
DEEP[2, 3] = DEEP[4, 5]
KEY = (DEEP[..., :3] == DEEP[4, 5, :3]).all(axis=2)
DEEP_8 = to_8_bits(DEEP)


def few_bits(bits: int) -> tuple[bytes, np.ndarray, np.ndarray]:
    """A gray PNG of so many bits a sample, of which 1 is transparent."""
    samples = np.arange(8).reshape(1, 8) % 2**bits
    packed = np.packbits((samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1, axis=None)
    key = png_chunk(b"tRNS", struct.pack(">H", 1))
    data = bytearray(png_file(packed.reshape(1, -1, 1), bits, 0, key))
    data[16:33] = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 1, bits, 0, 0, 0, 0))[8:]
    return bytes(data), samples * (255 // (2**bits - 1)), np.where(samples == 1, 0, 255)


def key_of(*values: int) -> bytes:
    return png_chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


# Files, and the colour and alpha in them.
TRANSPARENT: dict[str, tuple[bytes, np.ndarray, np.ndarray]] = {
    **{f"RGBA {form}": (with_alpha(form), COLOUR, ALPHA) for form in ("PNG", "WEBP", "TIFF")},
    **{f"gray {form}": (saved(BOTH, form), GRAY, ALPHA) for form in ("PNG", "TIFF")},
    **{
        f"an entry of a palette, {form}": (
            saved(PALETTE, form, transparency=int(INDEX[7, 9])),
            COLOURS,
            np.where(INDEX[7, 9] == INDEX, 0, 255),
        )
        for form in ("PNG", "GIF")
    },
    "a palette": (saved(PALETTE, "PNG", transparency=ALPHAS.tobytes()), COLOURS, ALPHAS[INDEX]),
    "a colour": (
        saved(RGB, "PNG", transparency=tuple(RGB[3, 4].tolist())),
        RGB,
        np.where((RGB[3, 4] == RGB).all(axis=2), 0, 255),
    ),
    **{f"gray of {bits} bits": few_bits(bits) for bits in (1, 2, 4, 8)},
    "RGBA PNG of 16 bits": (png_file(DEEP, 16, 6), DEEP_8[..., :3], DEEP_8[..., 3]),
    "gray PNG of 16 bits": (png_file(DEEP[..., 2:], 16, 4), DEEP_8[..., 2], DEEP_8[..., 3]),
    "a colour of 16 bits": (
        png_file(DEEP[..., :3], 16, 2, key_of(*DEEP[4, 5, :3])),
        DEEP_8[..., :3],
        np.where(KEY, 0, 255),
    ),
    "a gray of 16 bits": (
        png_file(DEEP[..., :1], 16, 0, key_of(DEEP[4, 5, 0])),
        DEEP_8[..., 0],
        np.where(DEEP[..., 0] == DEEP[4, 5, 0], 0, 255),
    ),
    **{
        f"TIFF of 16 bits {order}": (
            tiff_file(DEEP, 2, order=order, extra=2),
            DEEP_8[..., :3],
            DEEP_8[..., 3],
        )
        for order in "<>"
    },
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_alpha_and_luma_on_white(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, colour, plane = TRANSPARENT[name]
    np.testing.assert_array_equal(read(data), plane)
    white = on_white(colour, plane)
    luma = luma_of(white) if colour.ndim == 3 else white
    np.testing.assert_array_equal(cpu.decode(File("it", data), 10**6), luma)
    assert capfd.readouterr().err == ""


def test_avif() -> None:
    plane = cv2.resize(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, (40, 30))
    smooth = np.dstack((RGB, plane))
    found = read(saved(smooth, "AVIF", quality=100))
    assert found is not None
    assert np.abs(found.astype(int) - plane).max() <= 2


def test_lossy_webp_keeps_alpha_without_loss() -> None:
    np.testing.assert_array_equal(read(saved(NOISE, "WEBP", quality=50)), ALPHA)


def test_premultiplied_alpha_of_16_bits() -> None:
    np.testing.assert_array_equal(read(tiff_file(DEEP, 2, extra=1)), DEEP_8[..., 3])


def test_no_alpha_is_told_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("decoded")

    gray = Image.fromarray(NOISE[..., 0])
    files = [saved(RGB, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP")]
    files += [saved(RGB, "WEBP", lossless=True), saved(gray, "PNG"), saved(gray, "PPM")]
    files += [png_file(samples_of_16_bits(9, 11, 3), 16, 2), tiff_file(NOISE, 2, extra=0)]
    monkeypatch.setattr(Image.Image, "crop", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    monkeypatch.setattr(cv2, "imdecode", never)
    for data in files:
        assert read(data) is None


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "16-bit PNG", "16-bit TIFF"])
def test_alpha_turns_with_the_picture(form: str, orientation: int) -> None:
    # The picture is its own alpha, so that they can be compared.
    both = np.dstack((ALPHA,) * 3 + (ALPHA,))
    exif = Image.Exif()
    exif[274] = orientation
    if form == "16-bit TIFF":
        data = tiff_file(both.astype(np.uint16) * 257, 2, extra=2, orientation=orientation)
    elif form == "16-bit PNG":
        tags = png_chunk(b"eXIf", exif.tobytes()[6:])
        data = png_file(both.astype(np.uint16) * 257, 16, 6, tags)
    else:
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        data = saved(both, form, exif=exif, **options)
    found = read(data)
    assert found is not None
    np.testing.assert_array_equal(found, image.orient(ALPHA, orientation))
    np.testing.assert_array_equal(on_white(found, found), cpu.decode(File("it", data), 10**6))


# Into PNG and WebP


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (33, 50), (700, 900)])
def test_png_and_lossless_webp_hold_both(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(shape)
    gray, plane = rng.integers(0, 256, (2, *shape), np.uint8)
    plane[0, 0] = 7
    found = planes(cpu.encode(gray, KEEP, plane))
    np.testing.assert_array_equal(found, (gray, plane))
    seen, kept = planes(cpu.encode(gray, Encoding("webp", alpha="keep"), plane))
    np.testing.assert_array_equal(kept, plane)
    np.testing.assert_array_equal(seen[plane > 0], gray[plane > 0])


def test_lossy_webp_with_alpha() -> None:
    gray = luma_of(RGB)
    data = cpu.encode(gray, Encoding("webp", 90, alpha="keep"), ALPHA)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None and b"VP8 " in data
    np.testing.assert_array_equal(pixels[..., 3], ALPHA)
    assert np.abs(pixels[..., 0].astype(int) - gray)[ALPHA > 0].mean() < 4


def test_what_webp_cannot_hold() -> None:
    wide = np.zeros((1, 16_384), np.uint8)
    with pytest.raises(EncodeError, match="holds at most 16383 a side; use png"):
        cpu.encode(wide, Encoding("webp", alpha="keep"), wide)
    np.testing.assert_array_equal(planes(cpu.encode(wide, KEEP, wide)), (wide, wide))


# Through the engine


@pytest.mark.parametrize("form", HOLDING)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_the_sketch_is_that_of_the_picture_on_white(
    sketchify: Sketchifier, kind: str, form: Format
) -> None:
    data = with_alpha(kind)
    gray, plane = planes(sketchify.encode(data, Encoding(form, alpha="keep")))
    np.testing.assert_array_equal(plane, ALPHA)
    expected = reference.dodge(luma_of(on_white(NOISE[..., :3], ALPHA)))
    seen = plane > 0 if form == "webp" else slice(None)
    np.testing.assert_array_equal(gray[seen], expected[seen])
    white = sketchify.encode(data, Encoding(form))
    np.testing.assert_array_equal(cpu.decode(File("it", white), 10**6), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"max_side": 17},
        {"max_side": 99},
        {"square": 13},
        {"square": 90, "detail": 64},
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_alpha_is_cut_and_resized_like_the_picture(
    options: dict[str, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = with_alpha("PNG", exif=exif)
    upright = image.orient(ALPHA, orientation)
    rows, columns, height, width = image.fit(
        upright.shape, options.get("max_side"), options.get("square")
    )
    sketchify = Sketchifier(mode="dodge", device="cpu", **options)
    gray, plane = planes(sketchify.encode(data, KEEP))
    assert gray.shape == (height, width)
    np.testing.assert_array_equal(plane, image.resize(upright[rows, columns], height, width))


def test_pixels_of_every_kind(sketchify: Sketchifier) -> None:
    expected = sketchify.encode(with_alpha("PNG"), KEEP)
    extras = Extras(alpha=ALPHA)
    luma = luma_of(on_white(NOISE[..., :3], ALPHA))
    sources = [
        NOISE,
        Image.fromarray(NOISE),
        torch.from_numpy(NOISE),
        Image.open(io.BytesIO(with_alpha("PNG"))),
        File("it", with_alpha("PNG")),
        Picture("it", luma, extras),
    ]
    for source in sources:
        assert sketchify.encode(source, KEEP) == expected
        plain = Image.open(io.BytesIO(sketchify.encode(source)))
        assert plain.mode == "L"
        result = sketchify(source)
        assert np.asarray(result).ndim == 2
    kept = [*sketchify.map(sources, encoding=KEEP)]
    assert kept == [expected] * len(sources) == sketchify.encode_batch(sources, KEEP)
    premultiplied = Image.fromarray(NOISE).convert("RGBa")
    np.testing.assert_array_equal(planes(sketchify.encode(premultiplied, KEEP))[1], ALPHA)
    gray = Image.fromarray(NOISE[..., 2:].copy(), "LA").convert("La")
    np.testing.assert_array_equal(planes(sketchify.encode(gray, KEEP))[1], ALPHA)


def test_opaque_pictures_give_plain_gray_files() -> None:
    opaque = NOISE.copy()
    opaque[..., 3] = 255
    corner = opaque.copy()
    corner[29, 39, 3] = 0  # which the square does not take
    whole = Sketchifier(mode="dodge", device="cpu")
    for source in (opaque, saved(opaque, "PNG"), saved(RGB, "JPEG"), NOISE[..., 0]):
        for form in HOLDING:
            kept = whole.encode(source, Encoding(form, alpha="keep"))
            assert kept == whole.encode(source, Encoding(form))
    square = Sketchifier(mode="dodge", device="cpu", square=30)
    assert square.encode(corner, KEEP) == square.encode(corner)
    assert whole.encode(corner, KEEP) != whole.encode(corner)


def test_alpha_and_metadata_together(sketchify: Sketchifier) -> None:
    exif = Image.Exif()
    exif[315] = "Artist"
    data = with_alpha("PNG", exif=exif, dpi=(300, 300))
    for form in HOLDING:
        found = sketchify.encode(data, Encoding(form, metadata=True, alpha="keep"))
        np.testing.assert_array_equal(planes(found)[1], ALPHA)
        assert Image.open(io.BytesIO(found)).getexif()[315] == "Artist"
    jpeg = Picture("it", NOISE[..., 0], Extras(alpha=ALPHA))
    assert sketchify.encode(jpeg, Encoding("jpg", metadata=True)).startswith(b"\xff\xd8")


def test_errors_stay_with_their_image(
    sketchify: Sketchifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = np.zeros((1, 16_384, 4), np.uint8)
    odd = Picture("odd", NOISE[..., 0], Extras(alpha=ALPHA[:5]))
    form = Encoding("webp", alpha="keep")
    results = sketchify.encode_batch([NOISE, wide, odd, b"", NOISE], form)
    assert results[0] == results[4] == sketchify.encode(NOISE, form)
    kinds = [type(result) for result in results[1:4]]
    assert kinds == [EncodeError, InputError, DecodeError]
    assert "the shape (30, 40) of its picture: got (5, 40)" in str(results[2])
    image = Image.fromarray(wide[..., 0])
    image.info["dpi"] = 300, 300
    with pytest.raises(EncodeError, match="use png"):
        sketchify.encode(image, Encoding("webp", metadata=True))

    def broken(data: bytes) -> None:
        raise OSError("no such luck")

    monkeypatch.setattr(cpu, "decode_alpha", broken)
    with pytest.raises(DecodeError, match="page: its alpha cannot be read: no such luck"):
        sketchify.encode(File("page", with_alpha("PNG")), KEEP)


class Tensor:
    """RGBA on a device of which the engine knows nothing."""

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape

    def __getitem__(self, place: Any) -> Tensor:
        return Tensor(self.pixels[place])

    def __dlpack__(self, *, stream: Any = None) -> Any:
        raise BufferError("not for the host")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA


def test_on_a_device_only_images_with_alpha_come_to_the_host(
    sketchify: Sketchifier,
) -> None:
    taken: list[int] = []
    written: list[int] = []

    class Device(backend.CpuBackend):
        def place(self, pixels: Any) -> Any:
            return [image.to_luma(p.pixels) if isinstance(p, Tensor) else p for p in pixels]

        def give(self, images: Any, on_device: bool) -> Any:
            taken.append(len(images))
            return images

        def encode(self, images: Any, encoding: Encoding, threads: int) -> Any:
            written.append(len(images))
            return super().encode(images, encoding, threads)

    device = Sketchifier(mode="dodge", device="cpu", threads=1)
    device.backend = Device(device.options)
    device.backend.batch = device.batch = 4
    sources = [NOISE, saved(RGB, "JPEG"), with_alpha("WEBP"), NOISE[..., 0], with_alpha("PNG")]
    assert device.encode_batch(sources, KEEP) == sketchify.encode_batch(sources, KEEP)
    assert (taken, written) == ([2, 1], [2, 0])
    assert device.encode(Tensor(NOISE), KEEP) == sketchify.encode(NOISE, KEEP)
    assert device.encode(Tensor(NOISE)) == sketchify.encode(NOISE)
    assert device.encode_batch(sources, LINES) == sketchify.encode_batch(sources, LINES)


# Lines alone


GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "paper": (244, 233, 201)}


def over(ground: str, data: bytes) -> np.ndarray:
    """RGB of a result that Pillow lays over a plain ground."""
    lines = Image.open(io.BytesIO(data)).convert("RGBA")
    sheet = Image.new("RGBA", lines.size, GROUNDS[ground])
    sheet.alpha_composite(lines)
    assert sheet.getextrema()[3] == (255, 255)
    return np.asarray(sheet.convert("RGB"))


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("form", HOLDING)
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (16, 16), (333, 250)])
def test_lines_darken_any_ground_as_the_sketch_darkens_white(
    shape: tuple[int, int], form: Format, ground: str
) -> None:
    gray = np.random.default_rng(shape).integers(0, 256, shape, np.uint8)
    if shape == (16, 16):
        gray = np.arange(256, dtype=np.uint8).reshape(shape)
    data = cpu.encode(gray, Encoding(form, alpha="lines"))
    black, alpha = planes(data)
    np.testing.assert_array_equal(black, np.zeros(shape))
    np.testing.assert_array_equal(alpha, 255 - gray)
    colour = np.array(GROUNDS[ground])
    np.testing.assert_array_equal(over(ground, data), (gray[..., None] * colour + 127) // 255)


def test_lines_of_an_image_that_is_part_of_another() -> None:
    whole = np.random.default_rng(3).integers(0, 256, (40, 60), np.uint8)
    for form in "png", "webp":
        encoding = Encoding(form, alpha="lines")
        part = whole[5:30, 7:44]
        assert cpu.encode(part, encoding) == cpu.encode(part.copy(), encoding)
        np.testing.assert_array_equal(over("white", cpu.encode(part, encoding))[..., 0], part)


def test_the_quality_of_lines_is_that_of_their_alpha() -> None:
    noise = np.random.default_rng(4).integers(0, 256, (30, 40), np.uint8)
    sketch = cv2.resize(noise, (400, 300), interpolation=cv2.INTER_LINEAR)
    sizes, errors = [], []
    for quality in None, 80, 40:
        data = cpu.encode(sketch, Encoding("webp", quality, alpha="lines"))
        seen = over("white", data)
        assert (seen == seen[..., :1]).all()
        sizes.append(len(data))
        errors.append(np.abs(seen[..., 0].astype(int) - sketch).mean())
    assert sizes[2] < sizes[1] / 2 and sizes[2] < sizes[0] / 2
    assert errors[0] == 0 < errors[1] < 1 < errors[2] < 8


@pytest.mark.parametrize("form", HOLDING)
def test_there_are_no_lines_where_a_picture_is_transparent(
    sketchify: Sketchifier, form: Format
) -> None:
    ring = np.zeros((90, 80, 4), np.uint8)
    ring[..., :3] = np.random.default_rng(1).integers(0, 256, (90, 80, 3))
    ring[30:60, 30:50, 3] = 255
    data = sketchify.encode(ring, Encoding(form, alpha="lines"))
    np.testing.assert_array_equal(over("white", data)[..., 0], sketchify(ring))
    alpha = planes(data)[1].copy()
    assert alpha[30:60, 30:50].mean() > 10
    alpha[20:70, 20:60] = 0  # the strokes at its edge are as wide as the filter
    assert not alpha.any()


def test_lines_of_every_source_and_way(sketchify: Sketchifier) -> None:
    expected = sketchify.encode(with_alpha("PNG"), LINES)
    np.testing.assert_array_equal(over("white", expected)[..., 0], sketchify(NOISE))
    luma = luma_of(on_white(NOISE[..., :3], ALPHA))
    sources = [
        NOISE,
        Image.fromarray(NOISE),
        torch.from_numpy(NOISE),
        File("it", with_alpha("PNG")),
        Picture("it", luma, Extras(alpha=ALPHA)),
        luma,
    ]
    assert [*sketchify.map(sources, encoding=LINES)] == [expected] * len(sources)
    assert sketchify.encode_batch(sources, LINES) == [expected] * len(sources)
    actor = SketchActor(LINES, mode="dodge", device="cpu", threads=1)
    rows = actor({"bytes": np.array([with_alpha("PNG")], object)})
    assert [*rows["sketch"]] == [expected]


@pytest.mark.parametrize("form", HOLDING)
def test_lines_and_metadata_together(sketchify: Sketchifier, form: Format) -> None:
    exif = Image.Exif()
    exif[315] = "Artist"
    data = with_alpha("PNG", exif=exif, dpi=(300, 300))
    found = sketchify.encode(data, Encoding(form, metadata=True, alpha="lines"))
    np.testing.assert_array_equal(planes(found)[1], 255 - sketchify(data))
    assert Image.open(io.BytesIO(found)).getexif()[315] == "Artist"


def test_lines_on_the_command_line(sketchify: Sketchifier, tmp_path: Path) -> None:
    page, out = with_alpha("PNG"), tmp_path / "out"
    with zipfile.ZipFile(tmp_path / "book.cbz", "w") as book:
        book.writestr("1.png", page)
    (tmp_path / "a.png").write_bytes(page)
    line = ["convert", str(tmp_path / "book.cbz"), str(tmp_path / "a.png"), "-o", str(out)]
    line += ["--mode", "dodge", "--device", "cpu", "--threads", "1"]

    def call(*options: str) -> str:
        result = CliRunner().invoke(main, [*line, *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert call().startswith("converted 2, skipped 0")
    assert call("--alpha", "lines").startswith("converted 2, skipped 0")  # the journal tells
    assert call("--alpha", "lines").startswith("converted 0, skipped 2")
    expected = sketchify.encode(page, LINES)
    assert (out / "a.png").read_bytes() == expected
    with zipfile.ZipFile(out / "book.cbz") as book:
        assert book.read("1.png") == expected
