from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from pictures import picture

from sketchify_rt.errors import OptionsError, OutputError
from sketchify_rt.image import Gray
from training import duplicates
from training import prepare as preparing
from training.cli import main
from training.errors import TrainingError
from training.pages import MANIFEST, PIXELS, Pages
from training.prepare import prepare
from training.splits import sources_of, validation


def save(path: Path, image: Gray, *options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image, options)


def reasons(folder: Path) -> dict[str, str]:
    document = json.loads((folder / MANIFEST).read_text())
    return {entry["name"]: entry["reason"] for entry in document["left_out"]}


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, words)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three pages of two books, and what lies about."""
    save(tmp_path / "source/b/1.png", picture(300, 260, 1))
    save(tmp_path / "source/a/2.png", picture(256, 400, 2))
    save(tmp_path / "source/a/1.png", picture(310, 330, 3))
    for junk in ("Thumbs.db", "desktop.ini", "a/._1.png", ".hidden/1.png", "notes.txt"):
        path = tmp_path / "source" / junk
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"junk")
    return tmp_path / "source"


def test_pages_are_what_the_files_hold(source: Path, tmp_path: Path) -> None:
    pages, left_out = prepare(source, tmp_path / "ready", val=["b/*"])
    assert left_out == []
    loaded = Pages.load(tmp_path / "ready")
    images = picture(310, 330, 3), picture(256, 400, 2), picture(300, 260, 1)
    assert loaded.names == ("a/1.png", "a/2.png", "b/1.png")
    assert loaded.sources == ("a", "a", "b")
    for image, expected, page in zip(loaded.images, images, pages, strict=True):
        assert type(image) is np.ndarray
        assert not image.flags.writeable
        np.testing.assert_array_equal(image, expected)
        assert loaded.hashes[pages.index(page)] == hashlib.sha256(expected.tobytes()).hexdigest()
        assert (page.height, page.width) == expected.shape
    assert [page.offset for page in pages] == [0, 310 * 330, 310 * 330 + 256 * 400]
    assert Pages.load(tmp_path / "ready", "train").names == ("a/1.png", "a/2.png")
    assert Pages.load(tmp_path / "ready", "val").names == ("b/1.png",)


def test_luma_is_that_of_the_engine(tmp_path: Path) -> None:
    colour = np.dstack([picture(280, 270, seed) for seed in range(3)])
    save(tmp_path / "source/1.png", colour)
    prepare(tmp_path / "source", tmp_path / "ready")
    (image,) = Pages.load(tmp_path / "ready").images
    np.testing.assert_array_equal(image, cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY))


def test_the_same_folder_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    outputs = tmp_path / "one", source / "two"  # the second not taken for a picture's folder
    for output in (*outputs, outputs[1]):
        prepare(source, output)
        assert {path.name for path in output.iterdir()} == {MANIFEST, PIXELS}
    for name in (MANIFEST, PIXELS):
        assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()


def test_what_cannot_be_used_is_named(source: Path, tmp_path: Path) -> None:
    (source / "a/empty.jpg").touch()
    (source / "a/text.png").write_text("no picture")
    (source / "a/whole.jpg").symlink_to("nowhere.jpg")
    save(source / "a/small.png", picture(255, 900))
    save(source / "a/blank.png", np.full((400, 300), 190, np.uint8))
    save(source / "a/ramp.jpg", np.tile(np.arange(256, dtype=np.uint8), (300, 1)))
    result = run(source, tmp_path / "ready", "--val-share", "0")
    assert result.exit_code == 0
    said = dict(line.split(": ", 1) for line in result.stderr.splitlines()[:-1])
    assert said == reasons(tmp_path / "ready")
    assert said == {
        "a/blank.png": "is blank: 0.00% of it are lines",
        "a/empty.jpg": "is empty",
        "a/ramp.jpg": "is blank: 0.00% of it are lines",
        "a/small.png": "is 900 x 255 pixels; 256 a side are needed",
        "a/text.png": said["a/text.png"],
        "a/whole.jpg": "cannot be read: No such file or directory",
    }
    assert "is not an image this program reads" in said["a/text.png"]
    assert result.stderr.splitlines()[-1].startswith("no page to validate on;")
    assert result.stdout == (
        "3 pages to train on, 0 to validate on, of 2 sources, "
        f"in {tmp_path / 'ready'}; 6 left out\n"
    )
    assert len(Pages.load(tmp_path / "ready")) == 3


def test_a_page_with_little_on_it_is_not_blank(tmp_path: Path) -> None:
    drawn = np.full((600, 500), 255, np.uint8)
    cv2.line(drawn, (20, 300), (480, 310), 0, 3)
    save(tmp_path / "source/line.png", drawn)
    assert len(prepare(tmp_path / "source", tmp_path / "ready").pages) == 1


def test_nothing_of_use_is_an_error_and_leaves_what_was_there(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "ready")
    before = {path: path.read_bytes() for path in (tmp_path / "ready").iterdir()}
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/1.png").write_bytes(b"")
    result = run(tmp_path / "bad", tmp_path / "ready")
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path / 'bad'}: no picture there can be used\n  1.png: is empty\n"
    )
    assert {path: path.read_bytes() for path in (tmp_path / "ready").iterdir()} == before


def test_an_empty_folder_leaves_none_behind(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run(tmp_path / "empty", tmp_path / "ready")
    assert result.exit_code == 1
    assert "no picture there can be used" in result.stderr
    assert not (tmp_path / "ready").exists()


def test_duplicates_are_found_and_the_largest_is_kept(source: Path, tmp_path: Path) -> None:
    largest = picture(600, 520, 7)
    half = cv2.resize(largest, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    save(source / "a/half.jpg", half, cv2.IMWRITE_JPEG_QUALITY, 60)
    save(source / "m/largest.png", largest)
    save(source / "m/paler.png", np.asarray(largest * 0.9 + 10, np.uint8))
    save(source / "z/copy.png", largest)
    prepare(source, tmp_path / "ready")
    assert reasons(tmp_path / "ready") == {
        "a/half.jpg": "is nearly the same picture as m/largest.png",
        "m/paler.png": "is nearly the same picture as m/largest.png",
        "z/copy.png": "has the pixels of m/largest.png",
    }
    pages = Pages.load(tmp_path / "ready")  # behind what was left out as well
    assert pages.names == ("a/1.png", "a/2.png", "b/1.png", "m/largest.png")
    for image, seed in zip(pages.images, (3, 2, 1, 7), strict=True):
        np.testing.assert_array_equal(image, picture(*image.shape, seed))


def test_a_duplicate_never_stands_in_both_splits(source: Path, tmp_path: Path) -> None:
    save(source / "b/again.jpg", picture(310, 330, 3), cv2.IMWRITE_JPEG_QUALITY, 60)
    larger = cv2.resize(picture(256, 400, 2), None, fx=1.5, fy=1.5)
    save(source / "b/larger.png", larger)
    prepare(source, tmp_path / "ready", val=["b/*"])
    assert Pages.load(tmp_path / "ready", "train").names == ("a/1.png",)
    assert Pages.load(tmp_path / "ready", "val").names == ("b/1.png", "b/larger.png")
    assert reasons(tmp_path / "ready") == {
        "a/2.png": "is nearly the same picture as b/larger.png",
        "b/again.jpg": "is nearly the same picture as a/1.png",
    }


def test_what_is_kept_is_apart_and_what_is_not_is_near() -> None:
    def bits(count: int) -> np.ndarray:
        return np.packbits(np.arange(256) < count)

    at = duplicates.SAME
    prints = [bits(0), bits(at), bits(2 * at), bits(3 * at + 1), bits(200)]
    # A chain: the second is near the first and the third, but these are not near each other.
    assert duplicates.kept(prints, [9, 8, 8, 9, 9]) == [0, 0, 2, 3, 4]
    assert duplicates.kept(prints, [9, 10, 9, 9, 9]) == [1, 1, 1, 3, 4]
    assert duplicates.kept([], []) == []


def test_a_fingerprint_is_that_of_the_cosine_coefficients() -> None:
    gray = picture(128, 192, 4)
    small = gray.reshape(64, 2, 64, 3).mean((1, 3)).round()
    n = np.arange(64)
    basis = np.cos(np.pi * np.outer(np.arange(16), 2 * n + 1) / 128)
    lowest = (basis @ small @ basis.T) * np.outer(*[np.where(np.arange(16), 1, 0.5**0.5)] * 2)
    bits = np.unpackbits(duplicates.fingerprint(gray))
    expected = lowest.ravel()[1:] > np.median(lowest.ravel()[1:])
    assert (bits[:255] == expected).mean() > 0.98  # rounding may turn one close to the median
    assert bits[255] == 0


NAMES = ["E01.jpg", "x/E01P02.jpg", "x/y/E02.jpg"]


@pytest.mark.parametrize(
    ("pattern", "sources"),
    [
        (None, ["E01.jpg", "x", "x/y"]),
        (r"(E\d+)", ["E01", "E01", "E02"]),
        (r"E\d+P?", ["E01", "E01P", "E02"]),
        (r"E\d+P(\d+)|E\d+", ["E01", "02", "E02"]),
    ],
)
def test_sources(pattern: str | None, sources: list[str]) -> None:
    assert sources_of(NAMES, pattern) == dict(zip(NAMES, sources, strict=True))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--source", "("], "'(' is no regular expression"),
        (
            ["--source", "b/"],
            "finds no source in the name of 2 of 3 pictures, the first of them a/1",
        ),
        (["--val", "c/*"], "no picture has a name like c/*"),
        (["--val-share", "1.5"], "1.5 is not in the range"),
    ],
)
def test_wrong_options(source: Path, tmp_path: Path, options: list[str], said: str) -> None:
    result = run(source, tmp_path / "ready", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not (tmp_path / "ready").exists()


def test_the_share_is_of_sources_and_none_ever_moves() -> None:
    books = {f"{book}/{page}.png": f"{book}" for book in range(2000) for page in range(2)}
    chosen = validation(books, 0.1, [])
    assert 160 < len(chosen) < 240  # 200 expected, 13 the standard deviation
    fewer = {name: book for name, book in books.items() if int(book) % 3}
    assert validation(fewer, 0.1, []) == chosen & set(fewer.values())
    assert chosen < validation(books, 0.2, [])
    assert validation(books, 0, []) == set()
    assert validation(books, 1, []) == set(books.values())
    # Known values: another hash would move the sources of all who have prepared before.
    episodes = {f"E{n:02}": f"E{n:02}" for n in range(40)}
    assert sorted(validation(episodes, 0.1, [])) == ["E03", "E12", "E17"]
    with pytest.raises(OptionsError, match=r"0 to 1, not 1\.1"):
        validation(books, 1.1, [])


def test_an_unlucky_share_is_told(source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "ready", "--val-share", "1")
    assert result.stderr == (
        "more to validate on than to train on; --source and --val choose others\n"
    )
    assert run(source, tmp_path / "ready", "--val", "*").stderr == ""


def test_globs_choose_whole_sources_and_no_others() -> None:
    sources = {"a/1.png": "one", "a/2.png": "two", "b/c/3.png": "one", "b/4.png": "three"}
    assert validation(sources, 1, ["b/*3.png"]) == {"one"}
    assert validation(sources, 1, ["a/2*", "b/4*"]) == {"two", "three"}


def test_a_kill_leaves_nothing_that_loads(source: Path, tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from training import prepare
calls = []
def die(gray):
    calls.append(gray)
    if len(calls) == 2:
        os.kill(os.getpid(), 9)
    return fingerprint(gray)
fingerprint, prepare.fingerprint = prepare.fingerprint, die
prepare.prepare(Path(sys.argv[1]), Path(sys.argv[2]))
"""
    root = Path(__file__).parents[1]
    process = subprocess.run([sys.executable, "-c", code, source, tmp_path / "ready"], cwd=root)
    assert process.returncode == -9
    assert (tmp_path / "ready" / f"{PIXELS}.part").exists()
    with pytest.raises(TrainingError, match="no prepared pages there; python -m training prepare"):
        Pages.load(tmp_path / "ready")
    prepare(source, tmp_path / "ready")
    assert len(Pages.load(tmp_path / "ready")) == 3
    assert {path.name for path in (tmp_path / "ready").iterdir()} == {MANIFEST, PIXELS}


def test_an_interruption_leaves_the_pages_that_were_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, tmp_path / "ready")
    digest = Pages.load(tmp_path / "ready").digest
    save(source / "c/1.png", picture(300, 300, 8))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing, "trailer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "ready")
    assert {path.name for path in (tmp_path / "ready").iterdir()} == {MANIFEST, PIXELS}
    assert Pages.load(tmp_path / "ready").digest == digest


def test_new_pixels_beside_an_old_manifest_are_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, tmp_path / "ready")
    save(source / "b/1.png", picture(300, 260, 9))  # of the same size
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == MANIFEST:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="ready: cannot be written: No space left on device"):
        prepare(source, tmp_path / "ready")
    with pytest.raises(TrainingError, match=r"pages\.u8: .* belongs to another manifest\.json"):
        Pages.load(tmp_path / "ready")


def test_damage_is_told(source: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    prepare(source, ready)
    with pytest.raises(TrainingError, match="no split test; there are train and val"):
        Pages.load(ready, "test")
    whole = (ready / PIXELS).read_bytes()
    for damaged in (whole[:-1], whole[1:], whole + b"\0", b""):
        (ready / PIXELS).write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"pages\.u8: .*; prepare again"):
            Pages.load(ready)
    (ready / PIXELS).unlink()
    with pytest.raises(TrainingError, match=r"pages\.u8: cannot be read: .*; prepare again"):
        Pages.load(ready)
    (ready / PIXELS).write_bytes(whole)
    Pages.load(ready)
    for damaged in (b"", b"[]", b'{"pages": [{"name": "a"}]}', b"\xff"):
        (ready / MANIFEST).write_bytes(damaged)
        with pytest.raises(TrainingError, match=r"manifest\.json: is no manifest"):
            Pages.load(ready)


def test_the_digest_is_of_names_sizes_and_pixels(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "ready", val=["b/*"])
    loaded = Pages.load(tmp_path / "ready")
    assert loaded.digest == Pages(loaded.names, loaded.images).digest
    digests = {
        loaded.digest,
        Pages.load(tmp_path / "ready", "train").digest,
        Pages(("x", *loaded.names[1:]), loaded.images).digest,
        Pages(loaded.names, (loaded.images[0].reshape(330, 310), *loaded.images[1:])).digest,
        Pages(loaded.names, (loaded.images[0] ^ 1, *loaded.images[1:])).digest,
    }
    assert len(digests) == 5
    assert not Pages((), ())


def test_what_is_raised_on_purpose_is_told_in_a_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["evaluate", "lite", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {tmp_path}: no prepared pages there; python -m training prepare PICTURES "
        f"{tmp_path} makes them\n"
    )
    result = run(tmp_path, tmp_path)
    assert result.exit_code == 2
    assert "is both an input and the output folder" in result.stderr


def test_prepare_does_not_import_torch() -> None:
    code = "import sys, training.prepare, training.cli.prepare; print('torch' in sys.modules)"
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
