"""Draw and encode the first cases of the fuzzer: `python -m tests.fuzz.draw`."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

import pictures

HERE = Path(__file__).parent / "corpus"
RGB = pictures.RGB[:9, :13]
NOISE = pictures.NOISE[:9, :13]
DEEP = pictures.samples_of_16_bits(5, 7, 3)


def whole() -> Iterator[tuple[str, bytes]]:
    """A file of every kind that the codec tells apart."""
    image = Image.fromarray(RGB)
    gray, alpha = image.convert("L"), Image.fromarray(NOISE)
    saved = pictures.saved
    yield "gray.jpg", saved(gray, "JPEG", quality=60)
    yield "colour.jpg", saved(image, "JPEG", quality=60)
    yield "progressive.jpg", saved(image, "JPEG", quality=60, progressive=True)
    yield "restart.jpg", saved(image, "JPEG", quality=60, restart_marker_blocks=1)
    yield "cmyk.jpg", saved(image.convert("CMYK"), "JPEG", quality=60)
    yield "turned.jpg", pictures.with_orientation("JPEG", RGB, 6)
    yield "gray.png", saved(gray, "PNG")
    yield "colour.png", saved(image, "PNG")
    yield "alpha.png", saved(alpha, "PNG")
    yield "gray-alpha.png", saved(alpha.convert("LA"), "PNG")
    yield "palette.png", saved(image.quantize(5), "PNG", transparency=b"\0\x80\xff")
    yield "bits.png", saved(gray.convert("1"), "PNG")
    yield "key.png", saved(gray, "PNG", transparency=128)
    yield "turned.png", pictures.with_orientation("PNG", RGB, 8)
    yield "deep.png", pictures.png_file(DEEP, 16, 2)
    yield "deep-gray.png", pictures.png_file(DEEP[..., :1], 16, 0)
    frames = [image, image.rotate(90), image.rotate(180)]
    yield "animated.png", saved(image, "PNG", save_all=True, append_images=frames[1:])
    yield "animated.gif", saved(image, "GIF", save_all=True, append_images=frames[1:])
    yield "animated.webp", saved(image, "WEBP", save_all=True, append_images=frames[1:])
    yield "one.gif", saved(image.quantize(5), "GIF", transparency=1)
    yield "lossy.webp", saved(image, "WEBP", quality=40)
    yield "lossless.webp", saved(alpha, "WEBP", lossless=True)
    yield "lossy-alpha.webp", saved(alpha, "WEBP", quality=40)
    yield "turned.webp", pictures.with_orientation("WEBP", RGB, 3)
    yield "colour.bmp", saved(image, "BMP")
    yield "palette.bmp", saved(image.quantize(5), "BMP")
    yield "bits.bmp", saved(gray.convert("1"), "BMP")
    yield "alpha.bmp", saved(alpha, "BMP")
    yield "colour.avif", saved(image, "AVIF", quality=40)
    yield "colour.heic", pictures.heic(image, quality=40)
    yield "alpha.heic", pictures.heic(alpha, quality=40)
    yield "colour.jxl", pictures.jxl(image)
    yield "boxes.jxl", pictures.jxl(alpha, use_container=True)
    yield "jpeg.jxl", pictures.jxl_of_jpeg(saved(image, "JPEG", quality=60))
    planes = [*np.moveaxis(NOISE, 2, 0)]
    yield "alpha.psd", pictures.psd_file(planes, 3, layers=-1)
    yield "packed.psd", pictures.psd_file(planes[:3], 3, pack=True)
    yield "cmyk.psd", pictures.psd_file(planes, 4, resources={1005: bytes(16), 1039: b"icc"})
    yield "palette.psd", pictures.psd_file(planes[:1], 2, palette=bytes(range(256)) * 3)
    yield "deep.psb", pictures.psd_file([DEEP[..., 0]], 1, bits=16, version=2, pack=True)
    yield "bits.psd", pictures.psd_file([NOISE[..., 0] >> 7], 0, bits=1)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd"):
        yield f"{compression}.tif", saved(image, "TIFF", compression=compression)
    yield "group4.tif", saved(gray.convert("1"), "TIFF", compression="group4")
    yield "palette.tif", saved(image.quantize(5), "TIFF")
    yield "cmyk.tif", saved(image.convert("CMYK"), "TIFF")
    yield "float.tif", saved(gray.convert("F"), "TIFF")
    yield "deep.tif", pictures.tiff_file(DEEP, 2)
    yield "deep-white-is-zero.tif", pictures.tiff_file(DEEP[..., 0], 0, order=">")
    yield "planes.tif", pictures.tiff_file(RGB, 2, planar=2)
    yield "premultiplied.tif", pictures.tiff_file(NOISE, 2, extra=1, orientation=5)
    yield "colour.ppm", saved(image, "PPM")
    yield "deep.ppm", pictures.ppm_of_16_bits(DEEP)
    yield "bits.pbm", b"P4 # bits\n9 3\n" + bytes(6)
    yield "plain.pbm", b"P1 3 2 1 0 1 # a remark\n0 1 0"
    yield "plain.pgm", b"P2 3 2 100 0 50 100 1000000000000 7 -3"
    yield "plain.ppm", b"P3 2 1 255 1 2 3 4 5 6"


def damaged(files: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """Cut, claiming too much, or of kinds that are not read."""
    for name in ("colour.jpg", "colour.png", "lossy.webp", "raw.tif", "one.gif", "colour.bmp"):
        yield f"cut-{name}", files[name][: len(files[name]) * 2 // 3]
    header = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
    png = files["colour.png"]
    yield "bomb.png", png[:8] + pictures.png_chunk(b"IHDR", header) + png[33:]
    yield "bomb.webp", pictures.bomb("WEBP")
    yield "size-0.bmp", files["colour.bmp"][:18] + bytes(8) + files["colour.bmp"][26:]
    yield "empty", b""
    yield "page.html", b"<!doctype html><title>404</title>"
    yield "drawing.svg", b"<?xml?><!-- a --><!-- b --><svg/>"
    yield "heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


def calls() -> Iterator[tuple[str, bytes]]:
    """Calls of kernels, as `targets.kernels` reads them: what the vectors and threads divide."""
    pixels = NOISE.tobytes()[:200]
    for which, name in enumerate(("binarize", "dodge", "compose")):
        for height, width in ((1, 1), (2, 65), (130, 17), (5, 513), (67, 1025)):
            threads, offset, step, flip = height % 5, width % 9, height % 3, width % 4
            head = struct.pack(
                "<BHHBBBBB", which, height - 1, width - 1, threads, 64, offset, step, flip
            )
            yield f"{name}-{height}x{width}", head + pixels
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45, 1e38, 0.5], np.float32).tobytes()
    yield "compose-special", struct.pack("<BHHBBBBB", 2, 20, 40, 1, 255, 0, 0, 3) + special


def main() -> None:
    files = dict(whole())
    files |= dict(damaged(files))
    for folder, cases in (("files", files), ("kernels", dict(calls()))):
        (HERE / folder).mkdir(parents=True, exist_ok=True)
        for name, data in cases.items():
            if len(data) > 2048:
                raise ValueError(f"{name} has {len(data)} bytes; a case has at most 2048")
            (HERE / folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
