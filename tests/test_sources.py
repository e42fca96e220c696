from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sketchify_rt.batch.sources import Sources
from sketchify_rt.errors import OptionsError
from sketchify_rt.options import Format


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def plan(*inputs: str, out: str = "out") -> dict[str, str]:
    """Stems by source; fails where one source comes twice or two share a stem."""
    sources = Sources(inputs, Path(out))
    jobs = list(sources)
    found = {str(job.source): job.stem for job in jobs}
    assert len(found) == len(jobs) == len(sources)
    assert len({job.stem.casefold() for job in jobs}) == len(jobs)
    return found


def problems(*inputs: str, out: str = "out") -> dict[str, str]:
    return {str(p.source): p.reason for p in Sources(inputs, Path(out)).problems}


def test_a_lone_folder_keeps_its_structure_in_sorted_order() -> None:
    make("in/b.png", "in/a.jpg", "in/ch 2/ä.JPG", "in/ch 1/deep/x.webp", "in/-x.jpg")
    assert list(plan("in").items()) == [
        ("in/-x.jpg", "-x"),
        ("in/a.jpg", "a"),
        ("in/b.png", "b"),
        ("in/ch 1/deep/x.webp", "ch 1/deep/x"),
        ("in/ch 2/ä.JPG", "ch 2/ä"),
    ]


def test_several_folders_lie_below_their_own_names() -> None:
    make("in/ch1/a.jpg", "in/ch2/a.jpg")
    assert plan("in/ch1", "in/ch2/") == {"in/ch1/a.jpg": "ch1/a", "in/ch2/a.jpg": "ch2/a"}
    assert plan("in/ch1", "in/ch2/..")["in/ch2/../ch2/a.jpg"] == "in/ch2/a"


def test_junk_and_other_files_in_a_folder_are_left_out() -> None:
    make("in/a.jpg", "in/notes.txt", "in/jpg", "in/.hidden.jpg", "in/._a.jpg", "in/Thumbs.db")
    make("in/desktop.ini", "in/.DS_Store", "in/__MACOSX/b.jpg", "in/@eaDir/c.jpg", "in/.git/d.png")
    assert plan("in") == {"in/a.jpg": "a"}
    assert plan("in/**") == {"in/a.jpg": "a"}


def test_a_named_pipe_is_taken_to_be_named_as_no_picture() -> None:
    make("in/a.jpg")
    os.mkfifo("in/pipe.jpg")
    assert plan("in") == {"in/a.jpg": "a", "in/pipe.jpg": "pipe"}


def test_a_named_file_is_taken_whatever_its_ending() -> None:
    make("page.v2", "._a.jpg", "in/a.jpg")
    assert plan("page.v2", "._a.jpg") == {"page.v2": "page.v2", "._a.jpg": "._a.jpg"}
    assert plan("in/a.jpg", "in") == {"in/a.jpg": "a"}  # once


def test_the_same_file_is_done_once() -> None:
    make("in/a.jpg", "in/b.jpg")
    assert plan("in/a.jpg", "./in/a.jpg", "in/../in/a.jpg") == {"in/a.jpg": "a"}
    assert plan("in", "in/b.jpg", "in/*.jpg") == {"in/b.jpg": "b", "in/a.jpg": "in/a"}


def test_links_are_followed_and_loops_survived() -> None:
    make("in/a.jpg", "far/b.jpg")
    Path("in/loop").symlink_to(".")
    Path("in/far").symlink_to("../far")
    Path("in/self.jpg").symlink_to("self.jpg")
    Path("in/broken.jpg").symlink_to("nowhere")
    expected = {
        "in/a.jpg": "a",
        "in/far/b.jpg": "far/b",
        "in/self.jpg": "self",  # to be reported, as is the next
        "in/broken.jpg": "broken",
    }
    assert plan("in") == expected
    assert plan("in/**") == expected


def test_the_output_folder_is_not_searched() -> None:
    make("in/a.jpg", "in/out/a.png", "in/sub/b.jpg")
    expected = {"in/a.jpg": "a", "in/sub/b.jpg": "sub/b"}
    assert plan("in", out="in/out") == expected
    assert plan("in/**", out="in/out") == expected
    assert plan("in/**/*.*", out="in/out") == expected
    assert "in/out/a.png" not in plan("in/*/*", out="in/out")
    assert plan("in/sub", out="in") == {"in/sub/b.jpg": "b"}
    with pytest.raises(OptionsError, match=r"\*.* searches the output folder"):
        plan("in/*", out="in")
    with pytest.raises(OptionsError, match="both an input and the output folder"):
        Sources(["in"], Path("./in/sub/.."))


def test_twins_keep_their_endings() -> None:
    make("in/a.jpg", "in/a.png", "in/b.jpg", "in/sub/a.jpg")
    assert plan("in") == {
        "in/a.jpg": "a.jpg",
        "in/a.png": "a.png",
        "in/b.jpg": "b",
        "in/sub/a.jpg": "sub/a",
    }


def test_a_file_named_like_a_twins_result_gives_way() -> None:
    make("in/a.jpg", "in/a.png", "in/a.jpg.webp")
    assert plan("in") == {
        "in/a.jpg": "a.jpg",
        "in/a.png": "a.png",
        "in/a.jpg.webp": "a.jpg.webp",
    }


def test_names_that_differ_in_case_alone_are_told_apart() -> None:
    make("in/A.png", "in/a.png", "in/X/c.jpg", "in/x/c.jpg")
    found = plan("in")  # checks that no two stems fold to one
    assert found["in/A.png"].startswith("A.png~")
    assert found["in/x/c.jpg"].startswith("x/c.jpg~")


def test_twins_across_inputs_do_not_hang_on_the_order() -> None:
    make("1/in/a.jpg", "2/in/a.jpg", "3/in/a.png", "3/in/b.png")
    orders = itertools.permutations(["1/in", "2/in", "3/in"])
    plans = [plan(*order) for order in orders]
    assert all(found == plans[0] for found in plans)
    assert plans[0]["3/in/a.png"] == "in/a.png"
    assert plans[0]["3/in/b.png"] == "in/b"
    assert plans[0]["1/in/a.jpg"].startswith("in/a.jpg~")


def test_named_files_lie_flat_unless_names_clash() -> None:
    make("ch1/001.jpg", "ch1/002.jpg", "ch2/003.jpg", "ch2/001.png")
    assert plan("ch1/001.jpg", "ch2/003.jpg") == {"ch1/001.jpg": "001", "ch2/003.jpg": "003"}
    assert plan("ch1/001.jpg", "ch1/002.jpg", "ch2/001.png") == {
        "ch1/001.jpg": "ch1/001",
        "ch1/002.jpg": "ch1/002",
        "ch2/001.png": "ch2/001",
    }


def test_patterns_keep_the_structure_below_their_fixed_part() -> None:
    make("in/ch1/a.jpg", "in/ch1/b.png", "in/ch2/sub/a.jpg", "in/c.jpg", "in/notes.txt")
    assert plan("in/**/*.jpg") == {
        "in/ch1/a.jpg": "ch1/a",
        "in/ch2/sub/a.jpg": "ch2/sub/a",
        "in/c.jpg": "c",
    }
    assert plan("in/ch?") == {
        "in/ch1/a.jpg": "ch1/a",
        "in/ch1/b.png": "ch1/b",
        "in/ch2/sub/a.jpg": "ch2/sub/a",
    }
    assert plan("in/*.*") == {"in/c.jpg": "c"}
    assert plan("in/n*.txt") == {"in/notes.txt": "notes.txt"}  # an ending spelled out is meant
    assert plan("*/ch1/*", "in/ch1/b.png") == {"in/ch1/b.png": "b", "in/ch1/a.jpg": "in/ch1/a"}
    absolute = Path.cwd() / "in"
    assert plan(f"{absolute}/ch1/[ab].*") == {
        f"{absolute}/ch1/a.jpg": "a",
        f"{absolute}/ch1/b.png": "b",
    }


def test_a_file_with_wildcards_in_its_name_is_itself() -> None:
    make("page[1].jpg", "page1.jpg")
    assert plan("page[1].jpg") == {"page[1].jpg": "page[1]"}


def test_inputs_that_give_nothing_are_named() -> None:
    make("empty/sub/notes.txt", "a.jpg")
    assert problems("empty", "gone.jpg", "*.webp", "") == {
        "empty": "the folder has no images in it",
        "gone.jpg": "no such file or folder",
        "*.webp": "no image has a name like this",
        ".": "an empty name is no input",
    }
    make("in/sub/a.jpg")
    assert problems("in", "in/sub", "in") == {}  # taken already, which is no problem
    # Not a pattern before Python 3.13, and one that finds nothing since.
    assert list(problems("**.webp")) == ["**.webp"]
    assert not Sources(["gone.jpg", "*.webp", ""], Path("out")).exist
    assert Sources(["gone.jpg", "a.jpg"], Path("out")).exist
    assert Sources(["empty"], Path("out")).exist


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make("in/a.jpg", "in/locked/b.jpg")
    scandir = os.scandir

    def refuse(folder: Path) -> object:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert plan("in") == {"in/a.jpg": "a"}
    assert problems("in") == {"in/locked": "the folder cannot be read: Permission denied"}
    assert problems("in/locked") == {"in/locked": "the folder cannot be read: Permission denied"}


def test_holds_tells_inputs_from_results() -> None:
    make("in/a.jpg", "named/b.jpg", "named/other.jpg", "globbed/c.jpg")
    sources = Sources(["in", "named/b.jpg", "globbed/*.jpg"], Path("out"))
    assert sources.holds(Path("in/a.jpg"))
    assert sources.holds(Path("in/new.png"))  # the next run would find it
    assert sources.holds(Path("named/../named/b.jpg"))
    assert sources.holds(Path("globbed/c.jpg"))
    assert not sources.holds(Path("named/other.jpg"))
    assert not sources.holds(Path("out/a.png"))


def test_names_of_results_that_are_folders_of_others_too(tmp_path: Path) -> None:
    for name in (
        "a/scan.pdf",
        "b/Scan.pdf/page-1.jpg",
        "b/other.pdf",
        "b/deep.cbz",
        "c/deep.cbz/x/y.png",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs = [str(tmp_path / name) for name in ("*/*.pdf", "*/*.cbz", "b/**/*.jpg", "c/**/*.png")]
    jobs = list(Sources(inputs, tmp_path / "out"))
    assert len(jobs) == 5
    stems = {job.source.name: job.stem for job in jobs}
    assert stems["other.pdf"].endswith("other.pdf")
    folders = {str(Path(stem).parent).casefold() for stem in stems.values()}
    for name in "scan.pdf", "other.pdf", "deep.cbz":
        assert stems[name].casefold() not in folders


def test_a_video_whose_sketches_have_another_videos_name(tmp_path: Path) -> None:
    for name in "x.avi", "X.avi.mkv", "y.avi", "y.mkv":
        (tmp_path / name).touch()
    inputs = [str(tmp_path / name) for name in ("x.avi", "X.avi.mkv", "y.avi", "y.mkv")]
    stems = [job.stem for job in Sources(inputs, tmp_path / "out")]
    assert stems[1:] == ["X.avi.mkv", "y.avi", "y.mkv"]
    assert re.fullmatch(r"x~[0-9a-f]{8}\.avi", stems[0])


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
@pytest.mark.parametrize(
    "names", [["page.jpg", "Page.{}/a.jpg"], ["sub/B.png", "SUB/b.{}/x/a.jpg"]]
)
def test_a_result_is_no_folder_of_results(names: list[str], ending: Format) -> None:
    make(*(f"in/{name.format(ending)}" for name in names))
    for inputs in itertools.permutations(["in/**/*.jpg", "in/**/*.png"]):
        jobs = list(Sources(inputs, Path("out"), ending))
        results = {f"{job.stem}.{ending}".casefold() for job in jobs}
        folders = {str(parent).casefold() for path in results for parent in Path(path).parents}
        assert len(results) == 2
        assert results.isdisjoint(folders)
    make("other/page.jpg")
    assert [job.stem for job in Sources(["other"], Path("out"), ending)] == ["page"]


def test_only_the_format_that_is_written_matters() -> None:
    make("in/page.jpg", "in/page.png/a.jpg")
    assert plan("in") == {"in/page.jpg": "page.jpg", "in/page.png/a.jpg": "page.png/a"}
    found = {str(job.source): job.stem for job in Sources(["in"], Path("out"), "webp")}
    assert found["in/page.jpg"] == "page"
    make("in/page.jpg.png/b.jpg")  # the other name is that of a folder, too
    assert re.fullmatch(r"page\.jpg~[0-9a-f]{8}", plan("in")["in/page.jpg"])


def test_names_that_differ_in_the_form_of_their_letters_alone_are_told_apart() -> None:
    make("in/\u00e9.jpg", "in/e\u0301.png")
    assert set(plan("in").values()) == {"\u00e9.jpg", "e\u0301.png"}


def test_comics_of_other_kinds_become_cbz() -> None:
    make("in/a.cbr", "in/b.CBR", "in/b.cbz", "in/c.epub", "in/d.cbr", "in/d.cbz/x.jpg")
    assert plan("in") == {
        "in/a.cbr": "a.cbz",
        "in/b.CBR": "b.CBR.cbz",
        "in/b.cbz": "b.cbz",
        "in/d.cbr": "d.cbr.cbz",
        "in/d.cbz/x.jpg": "d.cbz/x",
    }
    assert plan("in/c.epub") == plan("in/*.epub") == {"in/c.epub": "c.cbz"}
    make("c.cbr", "c.epub", "x.7z", "x.rar", "x.cb7")
    assert plan("c.cbr", "c.epub") == {"c.cbr": "c.cbr.cbz", "c.epub": "c.epub.cbz"}
    jobs = list(Sources(["x.7z", "x.rar", "x.cb7"], Path("out")))
    assert [job.stem for job in jobs] == ["x.7z.cbz", "x.rar.cbz", "x.cb7.cbz"]
    assert {job.kind for job in jobs} == {"archive"}


LONG = "x" * 300


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (f"{LONG}.jpg", "File name too long"),
        (f"{LONG}/a.jpg", "File name too long"),
        (f"{LONG}/*.jpg", "File name too long"),
        ("a\0.jpg", "no file can have this name: embedded null byte"),
        ("a\0*.jpg", "no file can have this name: embedded null byte"),
        ("loop/a.jpg", "Too many levels of symbolic links"),
        ("loop/*.jpg", "Too many levels of symbolic links"),
        ("in/a.jpg/b.jpg", "no such file or folder"),
        ("*/../../x.jpg", "a pattern cannot have .. behind a wildcard"),
        ("https://example.org/a.jpg", "is a URL, and only files are read. Download it first"),
        ("s3://bucket/*.png", "s3://bucket/*.png is a URL"),
        ("file:///home/me/a.jpg", "is a URL, and only files are read. Give its path"),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_an_input_that_cannot_be_read_stops_no_others(bad: str, reason: str, first: bool) -> None:
    make("in/a.jpg")
    Path("loop").symlink_to("loop")
    inputs = (bad, "in/a.jpg") if first else ("in/a.jpg", bad)
    assert plan(*inputs) == {"in/a.jpg": "a"}
    (told,) = problems(*inputs).values()
    assert reason in told
    assert not Sources([bad], Path("out")).exist


def test_links_to_themselves_are_told_and_the_rest_is_taken() -> None:
    make("in/a.jpg", "in/sub/b.jpg")
    for name in "in/loop", "in/self.jpg", "in/sub/loop":
        Path(name).symlink_to(Path(name).name)
    expected = {"in/a.jpg": "a", "in/sub/b.jpg": "sub/b", "in/self.jpg": "self"}
    loops = dict.fromkeys(
        ["in/loop", "in/sub/loop"], "cannot be read: Too many levels of symbolic links"
    )
    for inputs in "in", "in/**", "in/*", "in/**/*", "in/**/*.jpg":
        assert plan(inputs) == plan(inputs, out="in/out") == expected
        assert problems(inputs) == loops
    assert plan("in/self.jpg", "in/a.jpg") == {"in/self.jpg": "self", "in/a.jpg": "a"}


def dead(monkeypatch: pytest.MonkeyPatch, name: str, number: int, *, listed: bool = False) -> None:
    """Lets all calls for files of that name fail, but listings tell it is a folder if `listed`."""

    def failing(call: Callable[..., object]) -> Callable[..., object]:
        def fail(path: object, *args: object, **named: object) -> object:
            if isinstance(path, str | os.PathLike) and name in Path(path).parts:
                raise OSError(number, os.strerror(number), str(path))
            return call(path, *args, **named)

        return fail

    class Entry:
        def __init__(self, entry: os.DirEntry[str]) -> None:
            self.name, self.path, self._entry = entry.name, entry.path, entry

        def is_dir(self) -> bool:
            if self.name == name and not listed:
                raise OSError(number, os.strerror(number), self.path)
            return self._entry.is_dir()

    scandir = os.scandir

    @contextlib.contextmanager
    def entries(path: Path) -> Iterator[Iterator[Entry]]:
        with scandir(path) as found:
            yield map(Entry, found)

    for call in "stat", "lstat":
        monkeypatch.setattr(os, call, failing(getattr(os, call)))
    monkeypatch.setattr(os, "scandir", failing(entries))


@pytest.mark.parametrize("number", [errno.ENOTCONN, errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("listed", [True, False])
def test_a_dead_mount_stops_no_others(
    number: int, listed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("in/a.jpg", "in/dead/b.jpg", "in/sub/c.jpg")
    dead(monkeypatch, "dead", number, listed=listed)
    told = f"cannot be read: {os.strerror(number)}"
    found = {"in/a.jpg": "a", "in/sub/c.jpg": "sub/c"}
    for inputs in "in", "in/**", "in/**/*.jpg", "in/**/[ac].*":
        assert plan(inputs) == found
        assert problems(inputs) == {"in/dead": f"the folder {told}" if listed else told}
    assert list(problems("in/*/*.jpg")) == ["in/dead"]
    for inputs in "in/dead", "in/dead/b.jpg":
        assert plan(inputs, "in/a.jpg") == {"in/a.jpg": "a"}
        assert problems(inputs, "in/a.jpg") == {inputs: told}
    assert problems("in/dead/*.jpg", "in/a.jpg") == {"in/dead": f"the folder {told}"}
    assert problems("in/dead/*.jpg", "in/dead/*.png") == {"in/dead": f"the folder {told}"}
    assert plan("in/dead/*.jpg", "in/a.jpg") == {"in/a.jpg": "a"}


def test_patterns_follow_links_without_loops() -> None:
    make("in/a.jpg", "far/b.jpg", "far/deep/c.jpg")
    Path("in/loop").symlink_to(".")
    Path("in/far").symlink_to("../far")
    Path("far/back").symlink_to("../in")
    expected = {"in/a.jpg": "a", "in/far/b.jpg": "far/b", "in/far/deep/c.jpg": "far/deep/c"}
    for pattern in "in/**", "in/**/*.jpg", "in/**/*", "in/**/**/?.*":
        assert plan(pattern) == expected


def test_results_are_found_neither_by_patterns_nor_through_links() -> None:
    make("in/a.jpg", "in/out/sub/a.png", "in/out/sub/deep/b.png")
    Path("in/link").symlink_to("out/sub")
    for inputs in "in", "in/**", "in/**/*.*":
        assert plan(inputs, out="in/out") == {"in/a.jpg": "a"}
    assert plan("in/*/*.png", out="in/out") == {}
    assert len(plan("in/out/sub", out="in/out")) == 2  # named
    assert len(plan("in/out/sub/**/*.png", out="in/out")) == 2


def test_brackets_that_exist_are_no_wildcards() -> None:
    make("[G] Title/1.png", "[G] Title/ch [1]/2.png", "G Title/3.png", "in/x/[a] [b]/4.png")
    make("in/[G] 5.png", "in/[G] 6.png", "in/[H] 7.png", "in/ch1/8.png")
    assert plan("[G] Title/*.png") == {"[G] Title/1.png": "1"}
    assert plan("[G] Title/ch [1]/*.png") == {"[G] Title/ch [1]/2.png": "2"}
    assert plan("[G] Title/**/*.png") == {
        "[G] Title/1.png": "1",
        "[G] Title/ch [1]/2.png": "ch [1]/2",
    }
    assert plan("in/*/[a] [b]/*.png") == {"in/x/[a] [b]/4.png": "x/[a] [b]/4"}
    assert plan("in/[G] *.png") == {"in/[G] 5.png": "[G] 5", "in/[G] 6.png": "[G] 6"}
    assert plan("in/ch[12]/*.png") == {"in/ch1/8.png": "ch1/8"}  # still wildcards elsewhere


def test_files_that_are_passed_over_are_counted() -> None:
    make("in/a.jpg", "in/b.CR2", "in/c.cr2", "in/sub/d.xcf", "in/.e.cr2", "in/__MACOSX/f.cr2")
    make("in/g.txt", "in/ComicInfo.xml", "in/cr2", "in/h.pdf", "in/i.zip", "in/sub/j.rar")
    expected = {"cr2": 2, "pdf": 1, "rar": 1, "xcf": 1, "zip": 1}
    for inputs in ["in"], ["in/**"], ["in/**/*"], ["in/*", "in"], ["in", "in/sub"]:
        assert Sources(inputs, Path("out")).passed_over == expected
    sources = Sources(["in/*.pdf", "in", "in/i.zip"], Path("out"))
    assert sources.passed_over == {"cr2": 2, "rar": 1, "xcf": 1}
    assert sources.passed_over_lines() == [
        "passed over 4 files: 2 .cr2 (develop to TIFF), 1 .rar (repack as CBZ), "
        "1 .xcf (export as PNG)"
    ]
    assert Sources(["in/h.pdf"], Path("out")).passed_over_lines() == []
    (line,) = Sources(["in/s*"], Path("out")).passed_over_lines()
    assert line == "passed over 2 files: 1 .rar (repack as CBZ), 1 .xcf (export as PNG)"
    make("videos/a.mp4")
    (line,) = Sources(["videos"], Path("out")).passed_over_lines()
    assert line.endswith('1 .mp4 (name the file, or give a pattern such as "**/*.mp4")')
