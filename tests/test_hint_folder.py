"""A folder of hints, and images with a hint of their own."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner
from pictures import picture

from sketchify_rt import Encoding, Sketchifier, inputs
from sketchify_rt.batch.budget import needed
from sketchify_rt.batch.hints import HintFolder
from sketchify_rt.batch.journal import Journal
from sketchify_rt.cli.verbs import main
from sketchify_rt.errors import DecodeError, InputError, OptionsError
from sketchify_rt.image import Gray

PAGE = picture(120, 90)
DARK, LIGHT = np.full((3, 4), 0, np.uint8), np.full((3, 4), 200, np.uint8)


@pytest.fixture(scope="module")
def sketchify() -> Sketchifier:
    return Sketchifier(device="cpu", threads=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four inputs, two of them with hints of other endings."""
    monkeypatch.chdir(tmp_path)
    for path in "in/a.png", "in/ch1/b.png", "in/ch1/c.png", "in/d.v2.png":
        draw(path, PAGE)
    draw("hints/a.webp", DARK)
    draw("hints/ch1/b.JPG", LIGHT)
    return tmp_path


def draw(path: str, pixels: Gray) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(path, pixels)


def convert(*words: str, code: int = 0) -> Any:
    given = ["convert", "in", "-o", "out", "--device", "cpu", "--threads", "2", "--json", *words]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def sketch(path: str) -> Gray:
    return np.asarray(cv2.imread(path, cv2.IMREAD_UNCHANGED), np.uint8)


def test_an_image_may_have_a_hint_of_its_own(sketchify: Sketchifier, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "page.png"), PAGE)
    cv2.imwrite(str(tmp_path / "hint.png"), DARK)
    dark = Sketchifier(device="cpu", threads=1, hint=tmp_path / "hint.png")(PAGE)
    auto = sketchify(PAGE)
    assert abs(dark.astype(int) - auto).mean() > 2
    for source in tmp_path / "page.png", PAGE, PIL.Image.fromarray(PAGE):
        for hint in tmp_path / "hint.png", PIL.Image.fromarray(DARK), 1.0:
            np.testing.assert_array_equal(sketchify(inputs.hinted(source, hint)), dark)
    # Beside others, and whatever the hint of all images.
    for engine in sketchify, Sketchifier(device="cpu", threads=2, hint=0.2):
        mixed = [PAGE, inputs.hinted(PAGE, 1.0), inputs.hinted(PAGE, "auto"), PAGE]
        made = list(engine.map(mixed))
        np.testing.assert_array_equal(made[1], dark)
        np.testing.assert_array_equal(made[2], auto)
        np.testing.assert_array_equal(made[3], engine(PAGE))
    image = inputs.hinted(PAGE, PIL.Image.fromarray(DARK))
    np.testing.assert_array_equal(sketchify(pickle.loads(pickle.dumps(image))), dark)


def test_an_image_with_a_hint_keeps_what_it_has_besides(sketchify: Sketchifier) -> None:
    clear = np.dstack([PAGE] * 3 + [PAGE])
    encoding = Encoding(alpha="keep")
    for source in clear, PIL.Image.fromarray(clear):
        made = sketchify.encode(inputs.hinted(source, 0.5), encoding)
        with PIL.Image.open(io.BytesIO(made)) as image:
            np.testing.assert_array_equal(np.asarray(image)[..., -1], PAGE)
        with PIL.Image.open(io.BytesIO(sketchify.encode(inputs.hinted(source, 0.5)))) as image:
            assert image.mode == "L"


def test_a_hint_that_cannot_be_is_refused_for_its_image_alone() -> None:
    with pytest.raises(OptionsError, match=r"hint must be auto, none, or between 0 and 1, got 2"):
        inputs.hinted(PAGE, 2)
    with pytest.raises(OptionsError, match=r"or a picture that can be read: nowhere\.png"):
        inputs.hinted(PAGE, "nowhere.png")
    with Sketchifier(mode="dodge", device="cpu") as engine:
        good, bad = engine.map([PAGE, inputs.hinted(PAGE, 0.5)], on_error="return")
        np.testing.assert_array_equal(good, engine(PAGE))
        assert isinstance(bad, OptionsError)
        assert "hint needs mode sketch, got mode dodge" in str(bad)


def test_inputs_have_the_hints_of_their_names(folder: Path, sketchify: Sketchifier) -> None:
    assert convert("--hint", "hints")["converted"] == 4
    for name, hint in ("a", DARK), ("ch1/b", LIGHT), ("ch1/c", "auto"), ("d.v2", "auto"):
        told = hint if isinstance(hint, str) else PIL.Image.fromarray(hint)
        expected = sketchify(inputs.hinted(PAGE, told))
        np.testing.assert_array_equal(sketch(f"out/{name}.png"), expected)


def test_the_journal_knows_each_hint(folder: Path) -> None:
    def counts(*words: str) -> tuple[int, int]:
        told = convert(*words)
        return told["converted"], told["skipped"]

    assert counts("--hint", "hints") == (4, 0)
    assert counts("--hint", "hints") == (0, 4)
    draw("hints/a.webp", LIGHT)
    os.utime("hints/a.webp", ns=(1, 1))
    assert counts("--hint", "hints/") == (1, 3)
    draw("hints/ch1/c.png", DARK)  # a new one
    assert counts("--hint", "hints") == (1, 3)
    Path("hints/ch1/b.JPG").unlink()
    assert counts("--hint", "hints") == (1, 3)
    assert counts() == (2, 2)  # without hints: a and c
    assert counts("--hint", "hints") == (2, 2)
    with closing(Journal(Path("out"))) as journal:
        journal.open()
        rows = [journal.get(f"{name}.png".encode()) for name in ("a", "ch1/b", "ch1/c", "d.v2")]
    light, none, dark, also_none = (row and row.settings for row in rows)
    assert none == also_none
    assert len({light, dark, none}) == 3


def test_a_bad_hint_is_the_failure_of_its_input(folder: Path) -> None:
    Path("hints/ch1/b.JPG").write_bytes(b"no picture")
    draw("hints/ch1/c.png", DARK)
    draw("hints/ch1/c.bmp", DARK)
    told = convert("--hint", "hints", code=1)
    assert told["converted"] == 2
    failures = {Path(failed["source"]).name: failed["reason"] for failed in told["failures"]}
    assert set(failures) == {"b.png", "c.png"}
    assert failures["b.png"].startswith("its hint cannot be read: hints/ch1/b")
    assert failures["b.png"].endswith(". Replace the hint, or remove it to use auto")
    assert failures["c.png"] == (
        "hints/ch1: there must be one hint for it: got c.bmp and c.png; keep one"
    )
    # Once mended, they are done.
    draw("hints/ch1/b.JPG", LIGHT)
    Path("hints/ch1/c.bmp").unlink()
    told = convert("--hint", "hints")
    assert (told["converted"], told["skipped"]) == (2, 2)


def test_pages_of_archives_have_hints_where_they_become_files(
    folder: Path, sketchify: Sketchifier
) -> None:
    with zipfile.ZipFile("in/book.cbz", "w") as book:
        book.write("in/a.png", "1.png")
    draw("hints/book.cbz/1.png", DARK)
    told = convert("--hint", "hints", code=1)
    assert told["converted"] == 4
    assert told["failures"][0]["reason"] == (
        "a folder of hints supports pictures, pages of PDF files and, with --unpack, pages of "
        "archives. Remove hints/book.cbz"
    )
    convert("--hint", "hints", "--unpack")
    expected = sketchify(inputs.hinted(PAGE, 1.0))
    np.testing.assert_array_equal(sketch("out/book.cbz/1.png"), expected)


def test_a_video_takes_no_hints_of_a_folder(folder: Path) -> None:
    Path("film.mp4").write_bytes(b"")
    draw("hints/film.mp4.png", DARK)
    told = convert("film.mp4", "--hint", "hints", code=1)
    assert [failed["source"] for failed in told["failures"]] == ["film.mp4"]
    assert "Remove hints/film.mp4" in told["failures"][0]["reason"]


def test_files_decoded_elsewhere_keep_their_hint(folder: Path, sketchify: Sketchifier) -> None:
    assert convert("--hint", "hints", "--isolate")["converted"] == 4
    expected = sketchify(inputs.hinted(PAGE, 1.0))
    np.testing.assert_array_equal(sketch("out/a.png"), expected)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in", "-o", "out", "--hint", "nowhere"], "a picture that can be read: nowhere: cannot"),
        (["in", "-o", "out", "--hint", "hints", "--mode", "dodge"], "hint needs mode sketch"),
        (["in", "hints", "-o", "out", "--hint", "hints"], "hints is in an input folder"),
        (["-", "-o", "-", "--hint", "hints"], "--hint FOLDER cannot be used for one picture"),
    ],
)
def test_a_folder_is_refused_in_words(folder: Path, words: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["convert", *words])
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


def test_a_sheet_takes_no_folder(folder: Path) -> None:
    result = CliRunner().invoke(main, ["compare", "in/a.png", "-o", "s.png", "--hint", "hints"])
    assert result.exit_code == 2
    assert "--hint FOLDER is only for convert" in result.output


def test_hints_are_pictures_that_are_not_hidden(tmp_path: Path) -> None:
    for name in "a.txt", ".b.png", "c", "d.Png", "e.tar.png":
        (tmp_path / name).touch()
    found = HintFolder(tmp_path)
    assert [found.find(stem) for stem in ("a", ".b", "b", "c", "x/y")] == [None] * 5
    assert found.find("d") == tmp_path / "d.Png"
    assert found.find("e.tar") == tmp_path / "e.tar.png"
    assert found.find("a/b") is None
    assert found.find("d.Png/b") is None  # below a file


def test_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(folder: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(Path, "iterdir", deny)
    with pytest.raises(InputError, match=r"ch1: the hints cannot be read \(Permission"):
        HintFolder(tmp_path).find("ch1/a")


def test_a_hint_counts_in_the_budget(tmp_path: Path) -> None:
    file = inputs.File("", b"none")
    painted = inputs.hint(np.full((100, 200), 9, np.uint8))
    more = needed(inputs.hinted(file, painted), Encoding()) - needed(file, Encoding())
    assert more == 2 * 100 * 200


def test_a_damaged_hint_of_python_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "h.png").write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"h\.png"):
        inputs.painted(tmp_path / "h.png")


def test_a_hinted_array_may_be_overwritten_by_who_gave_it() -> None:
    pages = [picture(40, 50, seed) for seed in range(6)]
    with Sketchifier(mode="dodge", threads=2, device="cpu") as sketchify:
        wanted = [sketchify(page) for page in pages]
        buffer = np.empty_like(pages[0])

        def reused() -> Iterator[Any]:
            for page in pages:
                buffer[:] = page
                yield inputs.hinted(buffer, "auto")
                buffer[:] = 0

        for sketch, expected in zip(sketchify.map(reused()), wanted, strict=True):
            np.testing.assert_array_equal(sketch, expected)
