"""Look color: the picture's colours under the sketch, from every source to every result."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from conftest import GPU
from numpy.lib.stride_tricks import sliding_window_view
from pictures import FILES, NOISE, RGB, on_white, saved, with_orientation
from test_backend_cuda import opened
from test_metadata import SRGB
from test_pdf import RED, one_page

from sketchify_rt import Encoding, InputError, Options, OptionsError, Sketchifier, SketchTransform
from sketchify_rt.batch.api import convert_folder
from sketchify_rt.batch.budget import COLOURS, Budget, needed
from sketchify_rt.batch.decoders import Decoders
from sketchify_rt.batch.resume import Settings
from sketchify_rt.cli.verbs import main
from sketchify_rt.cluster import SketchActor
from sketchify_rt.codec import cpu, icc
from sketchify_rt.codec.extras import Extras
from sketchify_rt.colour import lay, wash
from sketchify_rt.image import fit, to_luma, to_rgb
from sketchify_rt.inputs import File, Picture, hinted
from sketchify_rt.options import Format, check_encoding

RNG = np.random.default_rng(9)
DODGE: dict[str, Any] = {"mode": "dodge", "device": "cpu", "threads": 1}


def page(height: int = 61, width: int = 83) -> np.ndarray:
    """A picture in colour."""
    return cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (width, height))


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


def coloured(rgb: np.ndarray, **options: Any) -> np.ndarray:
    """What look color makes of a picture: the sketch of look natural over its wash."""
    sketch = Sketchifier(**DODGE)(rgb, look="natural", **options)
    rows, columns, *_ = fit(rgb.shape[:2], options.get("max_side"), options.get("square"))
    return lay(sketch, wash(to_rgb(rgb)[rows, columns], *sketch.shape))


@pytest.fixture
def colour() -> Sketchifier:
    return Sketchifier(**DODGE, look="color")


# The wash, and the sketch over it


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (33, 47), (120, 31)])
def test_a_wash_is_the_median_vivid_and_light(shape: tuple[int, int]) -> None:
    rgb = page(*shape)
    padded = np.pad(rgb, ((2, 2), (2, 2), (0, 0)), "edge")
    median = np.median(sliding_window_view(padded, (5, 5), axis=(0, 1)), axis=(3, 4))
    mean = median.mean(axis=2, keepdims=True)
    expected = np.clip(255 - 0.65 * (255 - (mean + 1.5 * (median - mean))), 0, 255)
    found = wash(rgb, *shape)
    assert found.dtype == np.uint8 and found.shape == rgb.shape
    assert np.abs(found - expected).max() <= 1
    white = np.full_like(rgb, 255)
    np.testing.assert_array_equal(wash(white, *shape), white)


def test_a_wash_is_coarse() -> None:
    coarse = page(500, 300)
    blocks = np.repeat(np.repeat(coarse, 4, axis=0), 4, axis=1)
    np.testing.assert_array_equal(wash(blocks, 2000, 1200), wash(coarse, 500, 300))
    assert wash(blocks, 4000, 2400).shape == coarse.shape
    thin = np.full((1500, 1500, 3), 200, np.uint8)
    expected = wash(thin, 1500, 1500)
    thin[700:704] = 0  # an ink line, which is left to the pencil
    np.testing.assert_array_equal(wash(thin, 1500, 1500), expected)
    assert wash(thin, 100, 50).shape == (100, 50, 3)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (33, 47), (301, 1515)])
def test_a_sketch_is_laid_over_its_wash(shape: tuple[int, int]) -> None:
    sketch, under = RNG.integers(0, 256, shape, np.uint8), page(*shape)
    expected = np.rint(under * (sketch[..., None] / 255))
    assert np.abs(lay(sketch, under).astype(int) - expected).max() <= 1
    white = np.full_like(sketch, 255)
    np.testing.assert_array_equal(lay(white, under), under)
    assert lay(np.zeros_like(sketch), under).max() == 0
    half = under[: -(-shape[0] // 2), : -(-shape[1] // 2)]
    np.testing.assert_array_equal(lay(white, half), cv2.resize(half, shape[::-1]))


# Sources


def test_all_sources_give_the_same(colour: Sketchifier, tmp_path: Path) -> None:
    rgb = page()
    expected, data, path = coloured(rgb), saved(rgb, "PNG"), tmp_path / "a.png"
    path.write_bytes(data)
    assert expected.shape == rgb.shape and np.ptp(expected, axis=2).max() > 60
    picture = Picture("a", to_luma(rgb), Extras(colours=rgb))
    tensor, window = torch.as_tensor(rgb), np.pad(rgb, ((2, 1), (3, 0), (0, 0)))[2:-1, 3:]
    for source in (rgb, window, data, path, io.BytesIO(data), File("a", data), picture, tensor):
        found = colour(source)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    drawn = colour(PIL.Image.fromarray(rgb))
    assert drawn.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(drawn), expected)
    for own in rgb, path:
        np.testing.assert_array_equal(
            Sketchifier(device="cpu", look="color")(hinted(own, "auto")),
            Sketchifier(device="cpu")(own, look="color"),
        )


@pytest.mark.parametrize("form", FILES)
def test_colours_of_every_format_have_its_luma(form: str) -> None:
    file = File("a", FILES[form])
    luma, colours = cpu.decode(file, 10**6), cpu.decode_colours(file)
    assert colours.dtype == np.uint8 and colours.shape == (*luma.shape, 3)
    of_jpeg = 2 if "JPEG" in form and form != "JPEG in TIFF" else 0  # the stored plane
    assert np.abs(to_luma(colours).astype(int) - luma).max() <= of_jpeg
    if form in ("PNG", "BMP", "PPM", "TIFF", "raw TIFF", "PSD"):
        np.testing.assert_array_equal(colours, RGB)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB", "I;16"]
)
def test_colours_of_pil_images_have_their_luma(colour: Sketchifier, mode: str) -> None:
    gray = mode[0] in "1LI" and mode != "LAB"
    shades = RGB[..., 0].astype(np.uint16) * 257
    image = PIL.Image.fromarray(shades if mode == "I;16" else RGB)
    if mode == "La":
        image = image.convert("LA")
    if mode == "LAB":
        image = PIL.Image.merge("LAB", image.split())
    elif mode != "I;16":
        image = image.convert(mode)
    colours = cpu.from_pil(image, take=to_rgb)
    np.testing.assert_array_equal(to_luma(colours), cpu.from_pil(image))
    assert bool(np.ptp(colours, axis=2).max() == 0) == gray
    np.testing.assert_array_equal(np.asarray(colour(image)), coloured(colours))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_colours_are_upright(colour: Sketchifier, form: str, orientation: int) -> None:
    data = with_orientation(form, RGB, orientation)
    turned = {3: np.rot90(RGB, 2), 6: np.rot90(RGB, -1), 7: np.rot90(RGB, 2).swapaxes(0, 1)}
    found = cpu.decode_colours(File("a", data))
    assert np.abs(found.astype(int) - turned[orientation]).mean() <= (4 if form == "JPEG" else 0)
    assert colour(data).shape == found.shape
    from_pil = cpu.from_pil(PIL.Image.open(io.BytesIO(data)), take=to_rgb)
    assert np.abs(found.astype(int) - from_pil).max() <= (2 if form == "JPEG" else 0)


def test_transparent_colours_are_on_white(colour: Sketchifier) -> None:
    expected = on_white(NOISE[..., :3], NOISE[..., 3])
    np.testing.assert_array_equal(to_rgb(NOISE), expected)
    np.testing.assert_array_equal(cpu.decode_colours(File("a", saved(NOISE, "PNG"))), expected)
    np.testing.assert_array_equal(colour(NOISE), coloured(expected))


def test_a_gray_picture_gives_equal_channels(colour: Sketchifier) -> None:
    gray = page()[..., 0]
    expected = coloured(np.repeat(gray[..., None], 3, axis=2))
    assert np.ptp(expected, axis=2).max() == 0
    data = saved(gray, "PNG")
    for source in (gray, gray[..., None], data, Picture("a", gray)):
        np.testing.assert_array_equal(colour(source), expected)
    assert colour(PIL.Image.fromarray(gray)).mode == "RGB"
    np.testing.assert_array_equal(decoded(colour.encode(data)), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"max_side": 41},
        {"square": 40},
        {"square": 120},
        {"detail": 64},
        {"max_side": 80, "detail": 64},
        {"paper": 0.5, "blacks": "hollow", "levels": "off"},
    ],
    ids=str,
)
def test_colours_fit_the_sketch(colour: Sketchifier, options: dict[str, Any]) -> None:
    rgb = page(91, 133)
    found = colour(rgb, **options)
    np.testing.assert_array_equal(found, coloured(rgb, **options))
    assert found.shape[:2] == colour(rgb, look="natural", **options).shape


def test_colours_of_another_shape_are_refused(colour: Sketchifier) -> None:
    wrong = Picture("a", page()[..., 0], Extras(colours=page(3, 4)))
    with pytest.raises(InputError, match=r"colours must have the shape \(61, 83\)"):
        colour(wrong)


# Calls


def test_a_call_has_colours(colour: Sketchifier) -> None:
    rgb, gray = page(), Sketchifier(**DODGE)
    before = rgb.copy()
    expected, plain = coloured(rgb), gray(rgb)
    np.testing.assert_array_equal(gray(rgb, look="color"), expected)
    np.testing.assert_array_equal(gray(rgb), plain)
    np.testing.assert_array_equal(colour(rgb, look="exact"), plain)
    assert colour(rgb, mode="binary").ndim == 2
    for found in colour.map([rgb, rgb]):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(rgb, before)


def test_a_bad_file_costs_only_itself(colour: Sketchifier) -> None:
    good, bad = saved(page(), "PNG"), b"no picture"
    results = colour.encode_batch([good, bad, good])
    assert isinstance(results[1], Exception)
    assert results[0] == results[2] == colour.encode(good)


def test_colours_that_cannot_be_read_are_told(
    colour: Sketchifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: File) -> np.ndarray:
        raise ValueError("out of pencils")

    monkeypatch.setattr(cpu, "decode_colours", broken)
    with pytest.raises(Exception, match="a: its colours cannot be read: out of pencils"):
        colour(File("a", saved(page(), "PNG")))


def test_a_tensor_of_a_device_is_refused(colour: Sketchifier) -> None:
    tensor = torch.zeros((5, 6, 3), dtype=torch.uint8, device="meta")
    tensor.__dlpack_device__ = lambda: (2, 0)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="look color does not support tensors of a device"):
        colour(tensor)


def test_a_gpu_leaves_colours_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernels of the reference, where there is no GPU."""
    rgb = page()
    one = Sketchifier(**DODGE, look="color")
    on_gpu = opened(torch.device("cuda" if GPU else "cpu"), mode="dodge")
    monkeypatch.setattr(one, "backend", on_gpu)
    np.testing.assert_array_equal(one(rgb), coloured(rgb))
    np.testing.assert_array_equal(one(Picture("a", rgb[..., 0])), coloured(rgb[..., 0]))
    np.testing.assert_array_equal(decoded(one.encode(saved(rgb, "PNG"))), coloured(rgb))


# Files


@pytest.mark.parametrize("form", ["png", "webp"])
def test_files_without_loss_hold_the_colours(colour: Sketchifier, form: Format) -> None:
    rgb = page()
    np.testing.assert_array_equal(decoded(colour.encode(rgb, form)), coloured(rgb))


@pytest.mark.parametrize("encoding", [Encoding("jpg"), Encoding("jpg", 80), Encoding("webp", 90)])
def test_files_with_loss_are_near(colour: Sketchifier, encoding: Encoding) -> None:
    rgb = page()
    data = colour.encode(rgb, encoding)
    assert np.abs(decoded(data).astype(int) - coloured(rgb)).mean() < 4
    if encoding.format == "jpg":  # chroma in full
        assert PIL.Image.open(io.BytesIO(data)).layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("form", ["png", "webp"])
@pytest.mark.parametrize("square", [None, 24])
def test_alpha_is_kept_beside_colours(
    colour: Sketchifier, form: Format, square: int | None
) -> None:
    keep, data = Encoding(form, alpha="keep"), saved(NOISE, "PNG")
    expected = coloured(to_rgb(NOISE), square=square)
    alpha = decoded(colour.encode(data, keep, look="exact", square=square))[..., -1]
    assert alpha.min() < 255
    for source in data, NOISE, PIL.Image.fromarray(NOISE):
        found = decoded(colour.encode(source, keep, square=square))
        np.testing.assert_array_equal(found[..., 3], alpha)
        shown = alpha > 0 if form == "webp" else np.full(alpha.shape, True)
        np.testing.assert_array_equal(found[shown][:, :3], expected[shown])
    opaque = decoded(colour.encode(saved(RGB, "PNG"), keep))
    np.testing.assert_array_equal(opaque, coloured(RGB))


@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_a_profile_of_colours_is_kept(colour: Sketchifier, form: Format) -> None:
    keep = Encoding(form, metadata=True)
    data = saved(RGB, "PNG", icc_profile=SRGB, dpi=(300, 300))
    found = PIL.Image.open(io.BytesIO(colour.encode(data, keep)))
    assert found.info["icc_profile"] == SRGB and found.mode == "RGB"
    gray = saved(RGB[..., 0], "PNG", icc_profile=icc.gray(SRGB))
    assert "icc_profile" not in PIL.Image.open(io.BytesIO(colour.encode(gray, keep))).info


@pytest.mark.parametrize("how", ["encode", "map", "encode_batch", "actor", "job"])
def test_lines_have_no_colours(colour: Sketchifier, how: str, tmp_path: Path) -> None:
    lines, rgb = Encoding(alpha="lines"), page()
    (tmp_path / "a.png").write_bytes(saved(rgb, "PNG"))
    calls = {
        "encode": lambda: colour.encode(rgb, lines),
        "map": lambda: colour.map([rgb], encoding=lines),
        "encode_batch": lambda: colour.encode_batch([rgb], lines),
        "actor": lambda: SketchActor(lines, **DODGE, look="color"),
        "job": lambda: convert_folder(tmp_path, tmp_path / "out", colour.options, lines),
    }
    with pytest.raises(OptionsError, match=r"alpha lines gives black lines .* got look color"):
        calls[how]()
    check_encoding(lines, Options(look="natural"))
    assert not (tmp_path / "out").exists()


# Jobs


def test_a_job_has_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(saved(page(), "PNG"))

    def run(out: str, *arguments: str) -> bytes:
        told = ["convert", "a.png", "-o", out, "--mode", "dodge", "--device", "cpu", *arguments]
        found = CliRunner().invoke(main, told)
        assert found.exit_code == 0, found.output
        return Path(out, "a.png").read_bytes()

    expected = Sketchifier(**DODGE, look="color").encode("a.png")
    natural = run("out", "--look", "natural")
    assert run("out", "--look", "color") == expected != natural  # the journal tells them apart
    status = Path("out/a.png").stat()
    assert run("out", "--look", "color") == expected and Path("out/a.png").stat() == status
    assert run("isolated", "--look", "color", "--isolate") == expected


def test_the_journal_knows_colours() -> None:
    def digest(**options: Any) -> str:
        return Settings(Options(mode="dodge", **options), Encoding(), 150).digest()

    assert digest(look="color") != digest(look="natural")


@pytest.mark.parametrize("encoding", [Encoding(), Encoding(alpha="keep", metadata=True)])
def test_decoders_carry_colours(colour: Sketchifier, encoding: Encoding) -> None:
    file = File("a", saved(NOISE, "PNG"))
    with Decoders(1, 60, 10**6, encoding=encoding, colours=True) as pool:
        found = pool.decode(file)
    assert isinstance(found, Picture) and found.extras is not None
    np.testing.assert_array_equal(found.extras.colours, to_rgb(NOISE))
    assert colour.encode(found, encoding) == colour.encode(file, encoding)
    plain = Encoding()
    assert colour.encode(found, look="natural") == colour.encode(file, plain, look="natural")


@pytest.mark.parametrize("isolate", [False, True])
def test_pages_of_pdf_files_are_in_colour(tmp_path: Path, isolate: bool) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(one_page(RED))
    options = Options(**DODGE, look="color")
    report = convert_folder(path, tmp_path / "out", options, isolate=isolate, dpi=72)
    assert report.converted == 1
    drawn = np.full((36, 72, 3), 255, np.uint8)
    drawn[18:, :18] = 255, 0, 0
    found = decoded((tmp_path / "out/a.pdf/page-1.png").read_bytes())
    np.testing.assert_array_equal(found, coloured(drawn))


def test_colours_take_memory() -> None:
    file, rgb = File("a", saved(RGB, "PNG")), page()
    for image, pixels in ((file, RGB.size // 3), (rgb, rgb.size // 3)):
        plain, more = needed(image, Encoding()), Budget(colours=True).needed(image, Encoding())
        assert more - plain == COLOURS * pixels


def test_videos_and_sheets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b.mp4").write_text("a video")
    Path("c.png").write_bytes(saved(page(), "PNG"))
    options = Options(**DODGE, look="color")
    report = convert_folder(["b.mp4", "c.png"], "out", options)
    assert report.converted == 1
    assert report.failed[0].reason.startswith("--look color does not support videos. Convert it")
    told = CliRunner().invoke(main, ["compare", "c.png", "-o", "sheet.png", "--look", "color"])
    assert told.exit_code == 2 and "compare does not support look color" in told.output


@pytest.mark.slow  # needs the extra `video`
def test_a_video_is_refused(tmp_path: Path) -> None:
    from sketchify_rt.batch.video import convert_video

    sketchify = Sketchifier(mode="dodge", device="cpu", look="color")
    with sketchify, pytest.raises(OptionsError, match="look color does not support videos"):
        convert_video(sketchify, tmp_path / "b.mp4", tmp_path / "d.mp4")


# A step of a pipeline


def test_a_transform_keeps_the_channels() -> None:
    step, rgb = SketchTransform(mode="dodge", look="color"), page()
    expected, gray = coloured(rgb), coloured(rgb[..., 0])[..., 0]
    np.testing.assert_array_equal(step(rgb), expected)
    np.testing.assert_array_equal(step(rgb[..., 0]), gray)
    np.testing.assert_array_equal(step(rgb[..., :1]), gray[..., None])
    clear = np.dstack((rgb, np.full(rgb.shape[:2], 255, np.uint8)))
    np.testing.assert_array_equal(step(clear)[..., :3], expected)
    assert (step(clear)[..., 3] == 255).all()
    tensor = torch.as_tensor(rgb).permute(2, 0, 1)
    np.testing.assert_array_equal(step(tensor).permute(1, 2, 0), expected)
    np.testing.assert_array_equal(step(tensor[None, :1])[0, 0], gray)
    for mode, back in (("RGB", "RGB"), ("RGBA", "RGBA"), ("L", "L"), ("P", "RGB")):
        image = PIL.Image.fromarray(rgb).convert(mode)
        found = step(image)
        assert found.mode == back
        of = image.convert("L" if mode == "L" else "RGB")
        shown = np.asarray(found.convert("RGB"))
        np.testing.assert_array_equal(shown, coloured(np.asarray(of)))
