from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import GPU
from pictures import picture
from test_backend_cuda import opened

from sketchify_rt import Encoding, Options, OptionsError, Sketchifier, looks, sketchify, tensors
from sketchify_rt.backend.cpu import CpuBackend
from sketchify_rt.batch.resume import Settings
from sketchify_rt.cli import convert
from sketchify_rt.cli.compare import _made_by, _row
from sketchify_rt.image import Gray
from sketchify_rt.integrations.transform import SketchTransform
from sketchify_rt.options import AUTO_DETAIL, LOOKS, Look

RNG = np.random.default_rng(4)
EVERY = [
    *LOOKS.values(),
    Look(paper=1.0),
    Look(levels="auto"),
    Look("keep"),
    Look("keep", 0.4, "off", 0.5, 40, 245),
]
SIZES = [(1, 1), (4, 1), (1, 4), (33, 47), (301, 515)]


def apply(sketch: Gray, gray: Gray, look: Look) -> Gray:
    return CpuBackend(Options()).look(sketch, gray, look)


def reference(sketch: Gray, gray: Gray, look: Look) -> Gray:
    """The same pixel by pixel, as the docstrings tell it, in floats."""
    gain, ink = 1.0, 255.0 - sketch
    if look.levels == "auto":
        rows = ink[:: looks.STEP]
        strokes = np.sort(rows[rows >= 25 - 1])[::-1]
        if strokes.size:
            darkest = strokes[max(0, int(np.ceil(0.05 * strokes.size)) - 1)]
            gain = min(max(1.0, 225 / darkest), 2.5)
    if look.blacks == "keep":
        black = looks.first_black(np.bincount(gray[:: looks.STEP].ravel(), minlength=256))
        light = np.clip((gray.astype(float) - black) / 32, 0, None)
        ink = np.maximum(ink, 255 - np.rint(np.minimum(255, 255 - 231 / gain * (1 - light))))
    if look.paper:
        share = np.clip(ink / (128 * look.paper), 0, 1)
        ink = ink * (3 * share**2 - 2 * share**3)
    ink = 255 * (np.minimum(255, ink * gain) / 255) ** look.gamma
    return np.rint(look.ground + (look.ink - look.ground) * ink / 255).astype(np.uint8)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("look", EVERY, ids=str)
def test_looks_equal_their_reference(look: Look, shape: tuple[int, int]) -> None:
    sketch = RNG.integers(100, 256, shape, np.uint8)
    gray = RNG.integers(0, 120, shape, np.uint8)
    expected = reference(sketch, gray, look)
    on_torch = tensors.look(torch.tensor(sketch), torch.tensor(gray), look)
    found = apply(sketch.copy(), gray, look)
    assert np.abs(found.astype(int) - expected).max() <= 1  # floats of 32 bits
    np.testing.assert_array_equal(on_torch.numpy(), found)


def test_bands_on_a_device_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch, gray = RNG.integers(0, 256, (2, 33, 47), np.uint8)
    expected = apply(sketch.copy(), gray, LOOKS["natural"])
    monkeypatch.setattr(tensors, "_INDEXED", 100)
    found = tensors.look(torch.tensor(sketch), torch.tensor(gray), LOOKS["natural"])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_the_backend_of_a_gpu_has_looks() -> None:
    """With the kernels of the reference, where there is no GPU."""
    on_gpu = opened(torch.device("cuda" if GPU else "cpu"), mode="dodge")
    page = picture(90, 121, 5)
    (gray,) = on_gpu.place([page])
    sketches = on_gpu.dodge([gray], 1.0, 1)
    looked = on_gpu.look(sketches[0], gray, LOOKS["natural"])
    expected = sketchify(page, mode="dodge", device="cpu", look="natural")
    np.testing.assert_array_equal(on_gpu.give([looked], False)[0], expected)


def test_each_knob_has_its_values() -> None:
    ramp, white = np.arange(256, dtype=np.uint8)[None], np.full((1, 256), 255, np.uint8)
    np.testing.assert_array_equal(apply(ramp.copy(), white, Look()), ramp)
    faded = apply(ramp.copy(), white, Look(paper=0.5))[0]
    assert faded[:192].tolist() == ramp[0, :192].tolist()  # ink from 64 stays
    assert faded[223] == 255 - 16 and faded[247] == 255 and (np.diff(faded.astype(int)) >= 0).all()
    kept = apply(white.copy(), ramp, Look("keep"))[0]
    assert (kept[:13] == 24).all() and kept[28] == 140 and (kept[44:] == 255).all()
    pale = np.full((1, 256), 165, np.uint8)  # ink 90
    assert (apply(pale, white, Look(levels="auto")) == 30).all()
    pale = np.full((1, 256), 195, np.uint8)  # ink 60, of which 2.5 times is 150
    assert (apply(pale, white, Look(levels="auto")) == 105).all()
    assert apply(white.copy(), white, LOOKS["natural"]).min() == 255
    assert set(apply(white.copy(), white, LOOKS["chalk"])[0]) == {40}
    dark = apply(ramp.copy(), white, LOOKS["dark"])
    assert dark.sum() < apply(ramp.copy(), white, LOOKS["natural"]).sum()


def test_the_ink_of_a_scan_is_black_and_the_shadow_of_a_painting_is_not() -> None:
    scan = np.where(np.arange(400) < 80, 30, 240)
    assert looks.first_black(np.bincount(scan, minlength=256)) == 42
    painting = np.linspace(30, 240, 400).astype(int)
    assert looks.first_black(np.bincount(painting, minlength=256)) == 12


@pytest.mark.parametrize("mode", ["sketch", "dodge"])
def test_a_call_has_a_look(mode: Any) -> None:
    page = picture(90, 121, 5)
    with Sketchifier(device="cpu", mode=mode, precision="fp32") as one:
        exact = one(page)
        for look in "natural", "dark", "chalk":
            expected = apply(exact.copy(), page, LOOKS[look])  # type: ignore[index]
            assert not np.array_equal(expected, exact)
            np.testing.assert_array_equal(one(page, look=look), expected)
            (mapped,) = one.map([page], look=look)
            np.testing.assert_array_equal(mapped, expected)
        hollow = apply(exact.copy(), page, Look("hollow", 0.15, "off"))
        given = one(page, look="natural", blacks="hollow", levels="off")
        np.testing.assert_array_equal(given, hollow)
        np.testing.assert_array_equal(one(page), exact)  # in place, but not of anything that stays
        np.testing.assert_array_equal(one(page, look="exact"), exact)


def exact_binary(page: Gray) -> Gray:
    return sketchify(page, mode="binary", device="cpu")


def test_the_picture_of_the_caller_stays() -> None:
    page = picture(90, 121, 5)
    before = page.copy()
    sketchify(page, mode="dodge", device="cpu", look="chalk", blacks="keep")
    np.testing.assert_array_equal(page, before)


@pytest.mark.parametrize(
    ("options", "side"),
    [
        ({}, None),
        ({"look": "natural"}, AUTO_DETAIL),
        ({"look": "chalk", "detail": "native"}, None),
        ({"look": "dark", "detail": 900}, 900),
        ({"paper": 0.5}, None),
    ],
)
def test_looks_imply_a_detail(options: dict[str, Any], side: int | None) -> None:
    assert Options(**options).max_detail == side


def test_a_look_is_drawn_at_the_detail_and_enlarged() -> None:
    page = picture(400, 300, 5)
    with Sketchifier(device="cpu", mode="dodge", look="natural", detail=100) as one:
        small = one.backend.resize(page, 100, 75)
        drawn = one(small)
        np.testing.assert_array_equal(one(page), one.backend.enlarge(drawn, 400, 300))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"look": "oil"}, "look must be one of exact, natural, dark, chalk, color, got 'oil'"),
        ({"blacks": "grey"}, "blacks must be one of keep, hollow, got 'grey'"),
        ({"levels": True}, "levels must be one of auto, off, got True"),
        ({"paper": 1.5}, "paper must be between 0 and 1, got 1.5"),
        ({"paper": "0"}, "paper must be between 0 and 1, got '0'"),
        (
            {"look": "dark", "mode": "binary"},
            r"look needs mode sketch or dodge, got mode binary\. Leave look out",
        ),
        ({"paper": 0.1, "mode": "binary"}, "paper needs mode sketch or dodge, got mode binary"),
    ],
)
def test_bad_looks_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Options(**options)


def test_a_mode_without_looks_takes_the_place_of_one() -> None:
    page = picture(90, 121, 5)
    with Sketchifier(device="cpu", mode="dodge", look="natural", paper=0.3) as one:
        np.testing.assert_array_equal(one(page, mode="binary"), exact_binary(page))
        with pytest.raises(OptionsError, match="look needs mode sketch or dodge"):
            one(page, mode="binary", look="chalk")


def test_the_journal_knows_the_look() -> None:
    def digest(**options: Any) -> str:
        chosen = Options(mode="dodge", detail="native", **options)
        return Settings(chosen, Encoding(), 150).digest()

    different: list[dict[str, Any]] = [
        {},
        {"look": "natural"},
        {"look": "dark"},
        {"look": "chalk"},
        {"look": "natural", "paper": 0.5},
        {"look": "natural", "levels": "off"},
        {"look": "natural", "blacks": "hollow"},
        {"blacks": "keep"},
    ]
    assert len({digest(**options) for options in different}) == len(different)
    assert digest() == digest(levels="off", paper=0)


def test_another_look_converts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = picture(90, 121, 5)
    Path("a.png").write_bytes(sketchify_png(page))

    def run(*arguments: str) -> str:
        told = ["a.png", "-o", "out", "--mode", "dodge", "--device", "cpu", *arguments]
        found = CliRunner().invoke(convert.command, told)
        assert found.exit_code == 0, found.output
        return found.output

    run()
    first = Path("out/a.png").read_bytes()
    run("--look", "natural", "--paper", "0.3", "--blacks", "hollow", "--levels", "off")
    second = Path("out/a.png").read_bytes()
    with Sketchifier(mode="dodge", device="cpu") as one:
        assert first == one.encode("a.png")
        told: dict[str, Any] = {"look": "natural", "paper": 0.3, "blacks": "hollow"}
        assert second == one.encode("a.png", **told, levels="off")
    status = Path("out/a.png").stat()
    run("--look", "natural", "--paper", "0.3", "--blacks", "hollow", "--levels", "off")
    assert Path("out/a.png").stat() == status  # it was done


def sketchify_png(page: Gray) -> bytes:
    from sketchify_rt.codec.png import write

    return write(page)


def test_a_comparison_has_the_look_and_the_filters_have_none(tmp_path: Path) -> None:
    page, path = picture(90, 121, 5), tmp_path / "a.png"
    path.write_bytes(sketchify_png(page))
    with Sketchifier(device="cpu", look="natural", detail=80, precision="fp32") as one:
        figure = _row(str(path), one, (1000, 1000), 127)
        sketch, dodge = one(page), one(page, mode="dodge", look="exact")
        np.testing.assert_array_equal(figure.panels["sketch"].picture, sketch)
        np.testing.assert_array_equal(figure.panels["dodge filter"].picture, dodge)
        assert _made_by(one).endswith(", detail 80, look natural")


def test_a_transform_has_the_look() -> None:
    page = picture(90, 121, 5)
    expected = sketchify(page, mode="dodge", device="cpu", look="chalk")
    np.testing.assert_array_equal(SketchTransform(mode="dodge", look="chalk")(page), expected)
