"""Pictures for the tests, and files of them, of every kind that the codecs read."""

from __future__ import annotations

import importlib.util
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

RNG = np.random.default_rng(11)
RGB = cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (40, 30))  # smooth, with colour
NOISE = RNG.integers(0, 256, (30, 40, 4), np.uint8)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Of all contrasts: full, faint (where ties of the mean are frequent), black and white."""
    rng = np.random.default_rng([height, width, seed])
    gray = rng.integers(0, 256, (height, width), np.uint8)
    match (height + width + seed) % 4:
        case 1:
            gray = gray % 7 + 120
        case 2:
            gray = np.where(gray > 128, 255, 0)
        case 3:
            gray = gray // 16
    return gray.astype(np.uint8)


def picture(height: int = 90, width: int = 121, seed: int = 0) -> np.ndarray:
    """Smooth blobs with an edge or two: something to draw."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 0, 255, cv2.NORM_MINMAX)
    return np.where(smooth > 128, smooth, smooth // 2).astype(np.uint8)


def luma_of(rgb: np.ndarray) -> np.ndarray:
    """OpenCV's integer formula: weights of 15 bits that sum to 32,768."""
    return ((rgb.astype(np.int64) @ [9798, 19235, 3735] + 16384) >> 15).astype(np.uint8)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Straight alpha of 8 bits, rounded to nearest."""
    if colour.ndim == 3:
        alpha = alpha[..., None]
    blend = colour.astype(np.int64) * alpha + 255 * (255 - alpha.astype(np.int64))
    return ((2 * blend + 255) // 510).astype(np.uint8)


def to_8_bits(samples: np.ndarray) -> np.ndarray:
    return np.floor(samples / 257 + 0.5).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(samples: np.ndarray, bits: int, colour: int, *before: bytes) -> bytes:
    """samples: (H, W, channels) of bytes or 16-bit values; colour: as in IHDR."""
    height, width = samples.shape[:2]
    rows = (b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in samples)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)),
            *before,
            png_chunk(b"IDAT", zlib.compress(b"".join(rows))),
            png_chunk(b"IEND", b""),
        )
    )


def tiff_file(
    samples: np.ndarray, photometric: int, *, order: str = "<", planar: int = 1, **tags: Any
) -> bytes:
    """One uncompressed strip.

    tags: `extra` samples, `orientation`, `bits` if not the dtype's, `xmp` of 4 n bytes.
    """
    height, width = samples.shape[:2]
    count = samples.shape[2] if samples.ndim == 3 else 1
    data = (np.moveaxis(samples, 2, 0) if planar == 2 else samples).astype(
        samples.dtype.newbyteorder(order)
    )
    strips = count if planar == 2 else 1
    fields: dict[int, list[int]] = {
        256: [width],
        257: [height],
        258: [tags.get("bits", samples.dtype.itemsize * 8)] * count,
        259: [1],
        262: [photometric],
        273: [0] * strips,
        **({274: [tags["orientation"]]} if "orientation" in tags else {}),
        277: [count],
        278: [height],
        279: [data.nbytes // strips] * strips,
        284: [planar],
    }
    if "extra" in tags:
        fields[338] = [tags["extra"]]
    if "xmp" in tags:
        fields[700] = list(struct.unpack(f"{order}{len(tags['xmp']) // 4}I", tags["xmp"]))
    directory = 8 + 2 + 12 * len(fields) + 4
    start = directory + sum(4 * len(values) for values in fields.values() if len(values) > 1)
    fields[273] = [start + at * (data.nbytes // strips) for at in range(strips)]
    head, tail = b"", b""
    for tag, values in fields.items():
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            offset = struct.pack(order + "I", directory + len(tail))
            packed, tail = offset, tail + packed
        kind, size = (1, 4 * len(values)) if tag == 700 else (4, len(values))
        head += struct.pack(order + "HHI", tag, kind, size) + packed
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return (
        magic
        + struct.pack(order + "IH", 8, len(fields))
        + head
        + struct.pack(order + "I", 0)
        + tail
        + data.tobytes()
    )


def psd_file(
    planes: list[np.ndarray],
    mode: int,
    *,
    bits: int = 8,
    layers: int | None = None,
    resources: dict[int, bytes] | None = None,
    palette: bytes = b"",
    pack: bool = False,
    version: int = 1,
) -> bytes:
    """planes: (H, W) as they are stored; layers: their number, negative with transparency."""
    height, width = planes[0].shape

    def section(body: bytes, size: int = 4) -> bytes:
        return len(body).to_bytes(size, "big") + body

    rows = [
        row.tobytes()
        for plane in planes
        for row in (np.packbits(plane, axis=1) if bits == 1 else plane.astype(f">u{bits // 8}"))
    ]
    pixels = b"\0\0" + b"".join(rows)
    if pack:  # pairs of bytes as they are, but for the first, which is a run of one
        packed = [
            bytes((0, row[0]))
            + b"".join(
                bytes((len(row[at : at + 2]) - 1,)) + row[at : at + 2]
                for at in range(1, len(row), 2)
            )
            for row in rows
        ]
        sizes = (len(row).to_bytes(2 * version, "big") for row in packed)
        pixels = b"\0\1" + b"".join(sizes) + b"".join(packed)
    told = b"".join(
        b"8BIM" + struct.pack(">H2x", number) + section(body) + bytes(len(body) % 2)
        for number, body in (resources or {}).items()
    )
    long = 4 * version
    about = b"" if layers is None else section(layers.to_bytes(2, "big", signed=True), long)
    return (
        struct.pack(">4sH6xHIIHH", b"8BPS", version, len(planes), height, width, bits, mode)
        + section(palette)
        + section(told)
        + section(about, long)
        + pixels
    )


def samples_of_16_bits(*shape: int) -> np.ndarray:
    samples = RNG.integers(0, 65536, shape, np.uint16)
    samples.flat[:6] = 0, 128, 129, 65406, 65407, 65535  # both sides of the first and last half
    return samples


def ppm_of_16_bits(samples: np.ndarray) -> bytes:
    kind = b"P6" if samples.ndim == 3 else b"P5"
    header = b"%s %d %d 65535\n" % (kind, samples.shape[1], samples.shape[0])
    return header + samples.astype(">u2").tobytes()


def with_orientation(form: str, rgb: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if form == "WEBP" else {"quality": 100}
    return saved(rgb, form, exif=exif, **options)


XMP_TURNED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"/>'
    b"</rdf:RDF></x:xmpmeta>"
).ljust(112)


def exif_turned(kind: int, order: str) -> bytes:
    """EXIF whose one field is orientation 6, of that type."""
    codes = {1: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f"}
    code = (codes | {12: "d", 13: "I"})[kind]
    value = struct.pack(order + code, *(6, 1)[: len(code)]).ljust(4, b"\0")
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1)
    head += struct.pack(order + "HHI", 274, kind, 1)
    if len(value) > 4:
        return b"Exif\0\0" + head + struct.pack(order + "I", 26) + bytes(4) + value
    return b"Exif\0\0" + head + value + bytes(4)


FILES: dict[str, bytes] = {
    **{form: saved(RGB, form) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "AVIF", "PPM")},
    "TIFF": saved(RGB, "TIFF", compression="tiff_lzw"),
    "raw TIFF": saved(RGB, "TIFF"),
    "JPEG in TIFF": saved(RGB, "TIFF", compression="jpeg"),
    "16-bit TIFF": tiff_file(samples_of_16_bits(30, 40, 3), 2),
    "16-bit PNG": png_file(samples_of_16_bits(30, 40, 3), 16, 2),
    "progressive JPEG": saved(RGB, "JPEG", progressive=True),
    "CMYK JPEG": saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    "lossless WebP": saved(NOISE, "WEBP", lossless=True),
    "palette PNG": saved(Image.fromarray(RGB).quantize(16), "PNG"),
    "plain PPM": b"P3 30 1 255" + b" 123" * 90,
    "PSD": psd_file([*np.moveaxis(RGB, 2, 0)], 3, pack=True),
    "16-bit PSD": psd_file([NOISE[..., 0].astype(np.uint16) * 251], 1, bits=16),
}


def heic(image: Image.Image | np.ndarray, **options: Any) -> bytes:
    from pillow_heif import from_pillow

    file, source = (
        io.BytesIO(),
        from_pillow(Image.fromarray(image) if isinstance(image, np.ndarray) else image),
    )
    source.save(file, **options)
    return file.getvalue()


def jxl(image: Image.Image | np.ndarray, **options: Any) -> bytes:
    """Without loss, if nothing else is said."""
    import pillow_jxl  # noqa: F401 (it tells Pillow of the format)

    return saved(image, "JXL", **{"lossless": True} | options)


def jxl_of_jpeg(data: bytes) -> bytes:
    """A JPEG, packed so that its bytes come back."""
    import pillow_jxl

    width, height = Image.open(io.BytesIO(data)).size
    encoder = pillow_jxl.Encoder("RGB", quality=90, num_threads=0)
    return bytes(encoder(data, width, height, jpeg_encode=True))


if importlib.util.find_spec("pillow_heif"):
    FILES["HEIC"] = heic(RGB)
if importlib.util.find_spec("pillow_jxl"):
    FILES["JPEG XL"] = jxl(RGB)


def bomb(form: str) -> bytes:
    """A small file that claims 60,000 x 50,000 pixels (16,383 a side in WebP)."""
    data = bytearray(FILES[form])
    if form == "PNG":
        body = struct.pack(">IIBBBBB", 60_000, 50_000, 8, 2, 0, 0, 0)
        data[8:33] = png_chunk(b"IHDR", body)
    elif form == "JPEG":
        frame = data.index(b"\xff\xc0")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 50_000, 60_000)
    elif form == "WEBP":
        data[26:30] = struct.pack("<HH", 16_383, 16_383)
    elif form == "BMP":
        data[18:26] = struct.pack("<ii", 60_000, 50_000)
    elif form == "GIF":
        data[6:10] = struct.pack("<HH", 60_000, 50_000)
    elif form == "PPM":
        data = bytearray(b"P6 60000 50000 255\n")
    else:
        for old, new in ((40, 60_000), (30, 50_000)):
            at = data.index(struct.pack("<HHI", 256 if old == 40 else 257, 4, 1))
            data[at + 8 : at + 12] = struct.pack("<I", new)
    return bytes(data)
