from __future__ import annotations

import io
from dataclasses import astuple
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sketchify_rt import Sketchifier
from sketchify_rt.cli.compare import _made_by
from sketchify_rt.cli.verbs import main
from sketchify_rt.compare import figure, png, words
from sketchify_rt.compare.figure import Figure
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.metrics import measure

WHOLE = (1000, 1000)  # a box that reduces nothing here
SAMPLE = Path(__file__).parents[1] / "samples" / "portrait.webp"


def page(height: int = 90, width: int = 120) -> Gray:
    noise = np.random.default_rng(1).integers(0, 256, (height, width), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def paint(gray: Gray, mode: str = "sketch", strength: float = 1) -> Gray:
    if mode != "sketch":
        assert strength == 1
        return native.dodge(gray) if mode == "dodge" else native.binarize(gray)
    return np.asarray(cv2.blur(gray, (3, 3)), np.uint8)


def row(gray: Gray, box: figure.Box = WHOLE) -> Figure:
    return figure.draw("a <page> & more", gray, paint, box)


def test_the_panels_are_what_their_titles_say() -> None:
    gray = page()
    drawn = figure.draw("page", gray, paint, WHOLE, threshold=100)
    level, otsu = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    wanted = {
        "fixed threshold": np.where(gray > 100, 255, 0),
        "Otsu's threshold": otsu,
        "adaptive threshold": native.binarize(gray),
        "dodge filter": native.dodge(gray),
    }
    assert [*drawn.panels] == ["original", *wanted, "sketch", "difference"]
    for title, picture in (wanted | {"original": gray, "sketch": paint(gray)}).items():
        np.testing.assert_array_equal(drawn.panels[title].picture, picture)
    assert drawn.panels["fixed threshold"].note == "white above 100"
    assert drawn.panels["Otsu's threshold"].note == f"white above {level:.0f}"
    assert (drawn.height, drawn.width) == (90, 120)


def test_figures_are_of_full_size_and_panels_are_not() -> None:
    gray = page()
    small = row(gray, (45, 1000))
    assert small.metrics == row(gray).metrics == measure(paint(gray), native.dodge(gray))
    assert len(small.panels) == 7
    assert {panel.picture.shape[:2] for panel in small.panels.values()} == {(45, 60)}
    average = cv2.resize(paint(gray), (60, 45), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(small.panels["sketch"].picture, average)


def test_difference_is_white_orange_and_blue() -> None:
    gray = page()
    assert (figure.difference(gray, gray) == 255).all()
    sketch = np.array([[100, 0, 100, 255, 100]], np.uint8)
    target = np.array([[100, 255, 151, 0, 49]], np.uint8)
    assert figure.difference(sketch, target).tolist() == [
        [
            [255, 255, 255],
            list(figure.TOO_DARK),
            [238, 191, 153],  # 102 of 255 of the way to orange
            list(figure.TOO_PALE),
            [153, 199, 224],
        ]
    ]


def test_a_black_and_white_page_is_not_compared() -> None:
    black_and_white = native.binarize(page())
    np.testing.assert_array_equal(native.dodge(black_and_white), black_and_white)  # the reason
    drawn = row(black_and_white)
    assert drawn.metrics is None
    assert [*drawn.panels][-1] == "sketch"
    _, file = cv2.imencode(".jpg", black_and_white, [cv2.IMWRITE_JPEG_QUALITY, 75])
    traces = np.asarray(cv2.imdecode(file, cv2.IMREAD_GRAYSCALE), np.uint8)
    assert len(np.unique(traces)) > 2
    assert not figure.in_tones(traces)
    one_in_hundred = np.zeros((10, 10), np.uint8)
    one_in_hundred[3, 3] = 32
    assert figure.in_tones(one_in_hundred)


def test_figures_are_named_in_their_own_order() -> None:
    gray = page()
    values = measure(paint(gray), native.dodge(gray))
    for (name, shown), value in zip(words.figures(values).items(), astuple(values), strict=True):
        assert float(shown.removesuffix(" dB")) == pytest.approx(value, abs=0.051), name
    same = measure(gray, gray)
    assert words.figures(same)["PSNR"] == "equal"


def test_png_shows_the_panels_side_by_side() -> None:
    drawn = figure.draw("page", page(600, 400), paint, png.BOX)
    sheet = np.asarray(Image.open(io.BytesIO(png.sheet([drawn, drawn], "by hand"))))
    height, width = drawn.panels["sketch"].picture.shape
    assert (height, width) == (460, 307)
    assert sheet.shape[1] == 2416
    row_height = (sheet.shape[0] - 124) // 2
    for number in range(2):
        for column, panel in enumerate(drawn.panels.values()):
            # The head, the rows above, the text above the pictures; the margin, the columns.
            top, left = 124 + number * row_height + 100, 40 + column * 336
            shown = sheet[top : top + height, left : left + width]
            wanted = panel.picture if panel.picture.ndim == 3 else panel.picture[..., None]
            np.testing.assert_array_equal(shown, np.broadcast_to(wanted, shown.shape))


def test_png_of_long_names_and_strange_shapes() -> None:
    names = ("x" * 500, "漫画/\ud800.png", "")
    shapes = ((1, 3000), (3000, 1), (300, 300))
    rows = [
        figure.draw(name, native.binarize(page(*shape)), paint, png.BOX)
        for name, shape in zip(names, shapes, strict=True)
    ]
    sheet = Image.open(io.BytesIO(png.sheet(rows, "by hand")))
    assert sheet.width == 2416
    assert sheet.height <= 124 + 3 * 620


def compare(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


def opened(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.png"
    cv2.imwrite(str(path), page())
    return path


def test_detail_holds_for_the_sketch_and_the_filters() -> None:
    gray = page()
    with Sketchifier(device="cpu", detail=64, strength=2) as sketchify:
        drawn = figure.draw("page", gray, sketchify, WHOLE)
        told = _made_by(sketchify)
        for title, options in {
            "sketch": {},
            "adaptive threshold": {"mode": "binary"},
            "dodge filter": {"mode": "dodge", "strength": 1},
        }.items():
            expected = sketchify(gray, **options)
            np.testing.assert_array_equal(drawn.panels[title].picture, expected)
            assert not np.array_equal(expected, sketchify(gray, **options, detail="native"))
    assert told.endswith(", line strength 2, detail 64")


def test_what_fails_is_named_and_the_rest_goes_on(small: Path, tmp_path: Path) -> None:
    (damaged := tmp_path / "damaged.png").write_bytes(small.read_bytes()[:200])
    sheet = tmp_path / "new" / "sheet.png"
    result = compare(damaged, small, tmp_path / "gone.png", tmp_path, "-o", sheet)
    assert result.exit_code == 1, result.output
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        str(damaged),
        str(tmp_path / "gone.png"),
        str(tmp_path),
    ]
    assert result.stdout == f"compared 1, failed 3, in {sheet}\n"
    assert opened(sheet).width == 2416
    assert [path.name for path in sheet.parent.iterdir()] == ["sheet.png"]

    result = compare(damaged, "-o", tmp_path / "other" / "sheet.png")
    assert (result.exit_code, result.stdout) == (
        1,
        "compared 0, failed 1, no sheet written\n",
    )
    assert list((tmp_path / "other").iterdir()) == []


def test_a_sheet_that_is_there_stays_unless_told_otherwise(small: Path, tmp_path: Path) -> None:
    (sheet := tmp_path / "sheet.png").write_bytes(b"mine")
    result = compare(small, "-o", sheet)
    assert result.exit_code == 2
    assert f"{sheet}: exists already; give --overwrite" in result.stderr
    assert compare(small, "-o", sheet, "--skip-existing").exit_code == 0
    assert sheet.read_bytes() == b"mine"
    assert compare(small, "-o", sheet, "--overwrite").exit_code == 0
    assert opened(sheet).format == "PNG"

    before = small.read_bytes()
    result = compare(small, "-o", small, "--overwrite")
    assert result.exit_code == 2
    assert "would overwrite an input file" in result.stderr
    assert small.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["page.png", "-o", "sheet.pdf"], "must end in .png or .html"),
        (["page.png", "-o", "sheet.png"], "page.png: no such file"),
        (["page.png"] * 33 + ["-o", "sheet.png"], "got 33, a sheet has at most 32"),
        (
            ["page.png", "-o", "sheet.png", "--overwrite", "--skip-existing"],
            "cannot be used together",
        ),
        ([str(SAMPLE), "-o", "sheet.png", "--model", "none"], "none"),
    ],
)
def test_refusals_tell_what_to_do(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = compare(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert list(tmp_path.iterdir()) == []
