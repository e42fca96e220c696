"""HEIC and JPEG XL, whose decoders are extras."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pictures import (
    FILES,
    NOISE,
    RGB,
    XMP_TURNED,
    exif_turned,
    heic,
    jxl,
    jxl_of_jpeg,
    luma_of,
    on_white,
    samples_of_16_bits,
    saved,
    to_8_bits,
    with_orientation,
)
from PIL import Image, ImageCms

from sketchify_rt.cli.verbs import main
from sketchify_rt.codec import boxes, cpu, extras, formats, icc
from sketchify_rt.codec.header import File, probe
from sketchify_rt.errors import DecodeError
from sketchify_rt.options import Encoding

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXACT: dict[str, Any] = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}
MODULES = {"HEIC": "pillow_heif.as_plugin", "JPEG XL": "pillow_jxl"}
EXTRAS = {"HEIC": "heic", "JPEG XL": "jxl"}

with_heic = pytest.mark.skipif("HEIC" not in FILES, reason="pillow-heif is not installed")
with_jxl = pytest.mark.skipif("JPEG XL" not in FILES, reason="pillow-jxl-plugin is not installed")
BOTH = [pytest.param("HEIC", marks=with_heic), pytest.param("JPEG XL", marks=with_jxl)]


def file(form: str, image: Image.Image | np.ndarray, **options: Any) -> bytes:
    """Without loss."""
    return heic(image, **EXACT, **options) if form == "HEIC" else jxl(image, **options)


def decoded(data: bytes) -> np.ndarray:
    return cpu.decode(File("page", data), 10**6)


def reason(data: bytes, max_pixels: int = 10**6) -> str:
    with pytest.raises(DecodeError) as caught:
        cpu.decode(File("page", data), max_pixels)
    return caught.value.reason


@pytest.mark.parametrize("form", BOTH)
def test_colour_gray_and_alpha(form: str) -> None:
    assert probe(file(form, RGB)).format == form
    np.testing.assert_array_equal(decoded(file(form, RGB)), luma_of(RGB))
    gray, alpha = NOISE[..., 0], NOISE[..., 3]
    np.testing.assert_array_equal(decoded(file(form, gray)), gray)
    # On white it is rounded before it becomes luma.
    rgba = file(form, NOISE)
    expected = luma_of(on_white(NOISE[..., :3], alpha))
    assert np.abs(decoded(rgba).astype(int) - expected).max() <= 1
    found = cpu.decode_alpha(File("page", rgba))
    assert found is not None
    np.testing.assert_array_equal(found, alpha)
    assert cpu.decode_alpha(File("page", file(form, RGB))) is None


@with_heic
def test_heic_of_10_bits() -> None:
    from pillow_heif import encode

    samples = samples_of_16_bits(30, 40, 3)
    target = io.BytesIO()
    encode("RGB;16", (40, 30), samples.tobytes(), target, **EXACT)
    luma = decoded(target.getvalue())
    assert np.abs(luma.astype(int) - luma_of(to_8_bits(samples))).max() <= 2


@with_jxl
def test_jpeg_xl_of_16_bits() -> None:
    samples = samples_of_16_bits(30, 40)
    np.testing.assert_array_equal(decoded(jxl(samples)), to_8_bits(samples))


@with_jxl
def test_jpeg_xl_of_floats_is_refused() -> None:
    floats = jxl(Image.fromarray(np.ones((3, 4), np.float32)))
    why = "floating point; save it with 8 bits a sample"
    assert reason(floats) == f"cannot be read as JPEG XL: {why}"


# Orientation, which HEIC has in its boxes irot and imir, and JPEG XL in its codestream


@with_heic
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once(orientation: int) -> None:
    tags = Image.Exif()
    tags[274] = orientation
    data = heic(RGB, **EXACT, exif=tags.tobytes())  # from which the boxes are made
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    expected = decoded(with_orientation("WEBP", RGB, orientation))
    np.testing.assert_array_equal(decoded(data), expected)
    assert probe(data).orientation == 1


@with_heic
@pytest.mark.parametrize("kind", [1, 3, 4, 9])
def test_orientation_of_exif_alone_does_not_turn_heic(kind: int) -> None:
    # ISO/IEC 23008-12, 6.5.10: irot and imir count; that of EXIF is only told.
    unit = exif_turned(3, ">").replace(
        struct.pack(">HHIH", 274, 3, 1, 6), struct.pack(">HHIH", 296, 3, 1, 2)
    )
    image = Image.fromarray(RGB)
    image.info["exif"] = unit
    data = heic(image, **EXACT)
    assert data.count(unit[6:]) == 1
    turned = data.replace(unit[6:], exif_turned(kind, ">")[6:])
    np.testing.assert_array_equal(decoded(turned), luma_of(RGB))


@with_heic
def test_xmp_does_not_turn_heic() -> None:
    data = heic(RGB, **EXACT, xmp=XMP_TURNED.replace(b'"6"', b"'6'"))
    assert b"Orientation='6'" in data
    np.testing.assert_array_equal(decoded(data), luma_of(RGB))


@with_jxl
def test_a_jpeg_in_jpeg_xl_is_the_jpeg() -> None:
    tags = Image.Exif()
    tags[274], tags[315] = 6, "someone"
    jpeg = saved(RGB, "JPEG", exif=tags, dpi=(300, 200), icc_profile=SRGB)
    packed = jxl_of_jpeg(jpeg)
    assert b"jbrd" in packed
    np.testing.assert_array_equal(decoded(packed), decoded(jpeg))
    assert decoded(packed).shape == (40, 30)
    encoding = Encoding(metadata=True, alpha="keep")
    found, expected = (extras.read(File("", data), encoding) for data in (packed, jpeg))
    assert found == expected or found.metadata == expected.metadata
    assert found.metadata.dpi == (200, 300)
    assert found.metadata.profile == SRGB
    assert found.alpha is None


@with_jxl
def test_a_jpeg_of_another_size_in_jpeg_xl_is_refused() -> None:
    import pillow_jxl

    # At the lowest quality libjxl halves the picture, and says so of the JPEG, but not of itself.
    halved = pillow_jxl.Encoder("RGB", quality=0, num_threads=0)
    data = bytes(halved(FILES["JPEG"], 40, 30, jpeg_encode=True))
    assert "a JPEG of another size in it" in reason(data)


@with_jxl
def test_the_codestream_turns_jpeg_xl_and_exif_does_not() -> None:
    jpeg = with_orientation("JPEG", RGB, 6)
    packed = jxl_of_jpeg(jpeg)
    kept = [
        packed[place.start - 8 : place.stop]
        for kind, place in boxes.walk(packed, ())
        if kind not in (b"jbrd", b"brob")
    ]
    pixels = b"".join(kept)  # no way back to the JPEG
    assert decoded(pixels).shape == (40, 30)
    assert np.abs(decoded(pixels).astype(int) - decoded(jpeg)).mean() < 2
    exif = exif_turned(3, "<")[6:]
    assert decoded(jxl(RGB, exif=exif)).shape == (30, 40)


# The header


@with_jxl
@pytest.mark.parametrize(
    "size", [(1, 1), (40, 30), (31, 17), (256, 256), (64, 48), (160, 90), (513, 3), (9, 2000)]
)
def test_size_of_jpeg_xl(size: tuple[int, int]) -> None:
    for container in (False, True):
        found = probe(jxl(Image.new("L", size), use_container=container))
        assert (found.width, found.height) == size
        assert not found.animated


def codestream(*fields: tuple[int, int]) -> bytes:
    """Fields of values and bits, the lowest first."""
    number = at = 0
    for value, bits in fields:
        number |= value << at
        at += bits
    return b"\xff\x0a" + number.to_bytes(16, "little")


def test_size_and_animation_in_a_codestream() -> None:
    large = ((0, 1), (3, 2), (99_999, 30), (0, 3), (2, 2), (70_000, 18))  # 30 bits; 18
    found = probe(codestream(*large))
    assert (found.width, found.height, found.animated) == (70_001, 100_000, False)
    assert "over the limit" in reason(codestream(*large))
    wide = ((1, 1), (8, 5), (5, 3))  # 72 rows, 16:9
    assert (probe(codestream(*wide)).width, probe(codestream(*wide)).height) == (128, 72)
    # not all by default, more fields, orientation, no size for viewers, no preview, an animation
    for animated in (0, 1):
        more = ((0, 1), (1, 1), (5, 3), (0, 1), (0, 1), (animated, 1))
        assert probe(codestream(*wide, *more)).animated == bool(animated)
        viewed = (*more[:3], (1, 1), *wide, (0, 1), (animated, 1))
        assert probe(codestream(*wide, *viewed)).animated == bool(animated)


@pytest.mark.parametrize("form", BOTH)
def test_limit_of_pixels_is_known_before_decoding(form: str) -> None:
    assert "is 40 x 30 = 1200 pixels, over the limit of 1199" in reason(FILES[form], 1199)


@pytest.mark.parametrize("form", BOTH)
def test_a_cut_file_says_so(form: str) -> None:
    data = FILES[form] if form == "HEIC" else jxl(RGB, use_container=True)
    assert "it is truncated, the file ends after 400 bytes" in reason(data[:400])


@pytest.mark.parametrize("form", BOTH)
@pytest.mark.parametrize(
    "behind", [b"SEFT", b"MotionPhoto_Data and more", bytes(30), bytes(range(256)), b"\0\0\2\0sefd"]
)
def test_bytes_behind_the_boxes_are_passed_over(form: str, behind: bytes) -> None:
    data = FILES[form] if form == "HEIC" else jxl(RGB, use_container=True)
    np.testing.assert_array_equal(decoded(data + behind), decoded(data))


def test_a_broken_box_is_told() -> None:
    assert "corrupt data" in reason(b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x04jxlc" + bytes(30))
    large = struct.pack(">I4sQ", 1, b"jxlc", 16 + 16) + codestream((1, 1), (8, 5), (1, 3))[:16]
    found = probe(b"\0\0\0\x0cJXL \r\n\x87\n" + large)  # its length in 8 bytes
    assert (found.problem, found.width, found.height) == ("", 72, 72)


# Metadata


@pytest.mark.parametrize("form", BOTH)
def test_metadata_is_kept(form: str) -> None:
    tags = Image.Exif()
    tags[315] = "someone"
    options = {"exif": tags.tobytes()}
    if form == "HEIC":
        options["icc_profile"] = SRGB
    found = extras.read(File("", file(form, RGB, **options)), Encoding(metadata=True)).metadata
    assert found.exif.fields[0, 315].data == b"someone\0"
    if form == "HEIC":
        assert found.profile == SRGB
    assert icc.space(found.profile) == "RGB"


# Without the extras


@pytest.mark.parametrize("form", BOTH)
def test_without_the_extra_the_message_says_what_to_install(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, MODULES[form], None)
    why = reason(FILES[form])
    assert why.startswith(f"cannot be read as {form}: a package is missing (")
    assert why.endswith(f"To fix: pip install 'sketchify-rt[{EXTRAS[form]}]'")


@pytest.mark.parametrize("form", BOTH)
def test_a_run_tries_again_what_an_extra_that_is_new_can_read(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = EXTRAS[form]
    pages = tmp_path / "in"
    pages.mkdir()
    (pages / f"page.{ending}").write_bytes(FILES[form])
    words = ["convert", str(pages), "-o", str(tmp_path / "out"), "--mode", "dodge"]

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, MODULES[form], None)
        patch.setattr(formats, "installed", list)
        for _ in range(2):
            result = CliRunner().invoke(main, words)
            assert result.exit_code == 1
            assert f"pip install 'sketchify-rt[{ending}]'" in result.stderr
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/page.png").is_file()


def test_installed_names_the_extras() -> None:
    assert formats.installed() == [EXTRAS[form] for form in EXTRAS if form in FILES]
