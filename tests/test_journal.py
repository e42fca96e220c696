from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sketchify_rt.batch.journal import NAME, Journal, Origin
from sketchify_rt.batch.output import FailedBefore, Output, Settling, Unsettled
from sketchify_rt.batch.sinks import Existing, Folder, write
from sketchify_rt.errors import OutputError


def opened(root: Path, settings: object = "x", limit: int = 9) -> Journal:
    journal = Journal(root / NAME, root, {"all": settings}, {"max_pixels": limit})
    journal.open()
    return journal


def source(path: Path, text: str = "pixels") -> Origin:
    path.write_text(text)
    return Origin.of(path)


def make(journal: Journal, origin: Origin, output: Path, data: bytes = b"sketch") -> None:
    write(output, data, lambda status: journal.converted(origin, output, status, 0.5))


def test_what_is_done_stays_done(tmp_path: Path) -> None:
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "out" / "sub" / "a.png"
    journal = opened(output.parents[1])
    assert not journal.done(origin, output)
    make(journal, origin, output)
    assert journal.done(origin, output)
    again = opened(output.parents[1])
    assert again.done(origin, output)
    assert again.made(output)
    run, line = map(json.loads, (output.parents[1] / NAME).read_text().splitlines()[:2])
    assert run["with"] == {"all": "x"}
    assert line["settings"] == run["settings"]
    assert line | {"settings": 0, "modified": 0, "written": 0} == {
        "source": str(tmp_path / "a.jpg"),
        "size": 6,
        "modified": 0,
        "settings": 0,
        "status": "converted",
        "output": "sub/a.png",
        "bytes": 6,
        "written": 0,
        "seconds": 0.5,
    }


def test_a_changed_input_setting_or_result_is_to_be_done_anew(tmp_path: Path) -> None:
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "a.png"
    make(opened(tmp_path), origin, output)
    assert not opened(tmp_path, "other").done(origin, output)
    assert opened(tmp_path, "other").made(output)
    assert not opened(tmp_path).done(source(tmp_path / "a.jpg", "other pixels"), output)
    moved = output.rename(tmp_path / "b.png")
    assert not opened(tmp_path).done(origin, moved)
    assert not opened(tmp_path).done(origin, output)  # it is gone
    moved.rename(output)
    assert opened(tmp_path).done(origin, output)
    output.write_bytes(b"drawn over")
    assert not opened(tmp_path).done(origin, output)
    assert not opened(tmp_path).made(output)


def test_the_line_comes_before_the_name(tmp_path: Path) -> None:
    # Killed between the two, a run would else find a file of which it knows nothing.
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "a.png"
    journal = opened(tmp_path)

    def killed(status: os.stat_result) -> None:
        journal.converted(origin, output, status, 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(output, b"x", killed)
    assert not opened(tmp_path).done(origin, output)


def test_a_line_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(3)]
    journal = opened(tmp_path)
    origins = [source(tmp_path / f"{name}.jpg") for name in names]
    for name, origin in zip(names, origins, strict=True):
        make(journal, origin, tmp_path / name)
    whole = (tmp_path / NAME).read_bytes()
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    for length in range(last, len(whole) - 1, 7):
        (tmp_path / NAME).write_bytes(whole[:length])
        found = opened(tmp_path)
        done = [found.done(o, tmp_path / name) for name, o in zip(names, origins, strict=True)]
        assert done == [True, True, False]
        make(found, origins[2], tmp_path / names[2])
        assert opened(tmp_path).done(origins[2], tmp_path / names[2])


@pytest.mark.parametrize(
    "junk", [b"\0\xff\n", b"[]\n", b"{}\n", b'{"source": 3}\n', b"null\n", b"[" * 99999 + b"\n"]
)
def test_junk_is_passed_over(tmp_path: Path, junk: bytes) -> None:
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "a.png"
    make(opened(tmp_path), origin, output)
    with (tmp_path / NAME).open("ab") as file:
        file.write(junk)
    assert opened(tmp_path).done(origin, output)


def test_names_of_any_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\n\x01\xe4")
    origin, output = source(tmp_path / f"{name}.jpg"), tmp_path / f"{name}.png"
    make(opened(tmp_path), origin, output)
    assert opened(tmp_path).done(origin, output)


def test_a_line_cut_short_by_a_full_disk_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = opened(tmp_path)
    first, second = (source(tmp_path / name) for name in ("a.png", "b.png"))
    whole = os.write
    monkeypatch.setattr(os, "write", lambda file, data: whole(file, data[:20]))
    with pytest.raises(OutputError) as caught:
        journal.failed(first, "is cut short", True, 0)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()  # there is room again
    journal.failed(second, "is empty", True, 0)
    journal.close()
    again = opened(tmp_path)
    assert (again.failure(first), again.failure(second)) == (None, "is empty")


def test_a_full_disk_that_has_room_again_costs_no_line_of_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread's line is cut short, another's does not fit at all, and the next fits."""
    journal = opened(tmp_path)
    origins = [source(tmp_path / name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    whole, left = os.write, [20, 0]

    def write_some(file: int, data: bytes) -> int:
        if not left:
            return whole(file, data)
        if not (room := left.pop(0)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(file, data[:room])

    monkeypatch.setattr(os, "write", write_some)
    for origin in origins[:2]:
        with pytest.raises(OutputError):
            make(journal, origin, tmp_path / "ab.png")
    make(journal, origins[2], tmp_path / "c.png")
    journal.close()
    again = opened(tmp_path)
    assert again.done(origins[2], tmp_path / "c.png")
    assert not (tmp_path / "ab.png").exists()


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    origins = [Origin(f"/{i}" * 50, i, i) for i in range(400)]

    def fail(part: list[Origin]) -> None:
        for origin in part:
            journal.failed(origin, "broken", True, 0)

    threads = [threading.Thread(target=fail, args=(origins[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = opened(tmp_path)
    assert all(found.failure(origin) == "broken" for origin in origins)


def test_only_lasting_failures_are_remembered_until_they_are_mended(tmp_path: Path) -> None:
    bad, gone = source(tmp_path / "bad.jpg"), source(tmp_path / "gone.jpg")
    journal = opened(tmp_path)
    journal.failed(bad, "is truncated", True, 0)
    journal.failed(gone, "cannot be read", False, 0)
    found = opened(tmp_path)
    assert found.failure(bad) == "is truncated"
    assert found.failure(gone) is None
    make(found, bad, tmp_path / "bad.png")
    assert found.failure(bad) is None
    assert opened(tmp_path).failure(bad) is None


def test_a_journal_of_no_file_is_of_this_run_alone(tmp_path: Path) -> None:
    journal = Journal(None, tmp_path, {})
    journal.open()
    origin = source(tmp_path / "a.jpg")
    make(journal, origin, tmp_path / "a.png")
    assert journal.done(origin, tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.png"]


def test_a_journal_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OutputError, match="cannot be read: Is a directory"):
        Journal(tmp_path / NAME, tmp_path, {})
    journal = opened(tmp_path / "other")
    journal._file = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OutputError, match="No space left on device; make room") as caught:
        journal.failed(source(tmp_path / "a.jpg"), "broken", True, 0)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("existing", "wanted"),
    [
        ("refuse", {"new": True, "done": False, "other": True, "foreign": None}),
        ("skip", {"new": True, "done": False, "other": False, "foreign": False}),
        ("overwrite", {"new": True, "done": True, "other": True, "foreign": True}),
    ],
)
def test_what_is_wanted(tmp_path: Path, existing: Existing, wanted: dict[str, bool | None]) -> None:
    origins = {name: source(tmp_path / f"{name}.jpg") for name in wanted}
    make(opened(tmp_path), origins["done"], tmp_path / "done.png")
    make(opened(tmp_path, "other settings"), origins["other"], tmp_path / "other.png")
    write(tmp_path / "foreign.png", b"a picture of mine")
    to = Output(Folder(tmp_path, "png", existing), opened(tmp_path))
    found: dict[str, bool | None] = {}
    for name, origin in origins.items():
        try:
            found[name] = to.wants(origin, tmp_path / f"{name}.png")
        except OutputError:
            found[name] = None
    assert found == wanted


def test_what_failed_before_is_told_again_tried_again_or_passed_over(tmp_path: Path) -> None:
    bad, path = source(tmp_path / "bad.jpg"), tmp_path / "bad.png"
    opened(tmp_path).failed(bad, "is truncated", True, 0)
    folder, journal = Folder(tmp_path, "png"), opened(tmp_path)
    with pytest.raises(FailedBefore, match=r"is truncated .*--retry-failed"):
        Output(folder, journal).wants(bad, path)
    assert Output(folder, journal, retry=True).wants(bad, path)
    assert not Output(folder, journal, failed_before="skip").wants(bad, path)
    assert Output(folder, opened(tmp_path, "other settings")).wants(bad, path)


def test_what_failed_within_other_limits_is_tried_again(tmp_path: Path) -> None:
    large, path = source(tmp_path / "large.jpg"), tmp_path / "large.png"
    opened(tmp_path).failed(large, "has 10 pixels", True, 0)
    folder = Folder(tmp_path, "png")
    with pytest.raises(FailedBefore, match="has 10 pixels"):
        Output(folder, opened(tmp_path)).wants(large, path)
    raised = opened(tmp_path, limit=10)
    assert Output(folder, raised).wants(large, path)
    raised.failed(large, "is cut short", True, 0)
    for journal in (raised, opened(tmp_path, limit=10)):
        with pytest.raises(FailedBefore, match="is cut short"):
            Output(folder, journal).wants(large, path)


@pytest.mark.parametrize("limit", [9, 10])
def test_what_is_tried_again_takes_no_other_files_place(tmp_path: Path, limit: int) -> None:
    bad, path = source(tmp_path / "bad.jpg"), tmp_path / "bad.png"
    journal = opened(tmp_path)
    journal.failed(bad, "is truncated", True, 0)
    write(path, b"a picture of mine")
    again = opened(tmp_path, limit=limit)
    with pytest.raises(OutputError, match="exists already"):
        Output(Folder(tmp_path, "png"), again, retry=limit == 9).wants(bad, path)
    assert not Output(Folder(tmp_path, "png", "skip"), again, retry=True).wants(bad, path)
    make(again, bad, path)  # as an archive is, some pages of which failed
    again.failed(bad, "a page is truncated", True, 0)
    assert Output(Folder(tmp_path, "png"), again, retry=True).wants(bad, path)
    assert Output(Folder(tmp_path, "png"), opened(tmp_path, limit=11)).wants(bad, path)


@pytest.mark.parametrize("year", [1970, 2026, 2100])  # by a clock that may be wrong
def test_a_file_is_taken_when_two_looks_find_it_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    settling = Settling(2)
    to = Output(Folder(tmp_path, "png"), Journal(None, tmp_path, {}), settling=settling)
    path = tmp_path / "a.jpg"
    looks = [(0, 10, False), (1, 10, False), (1.5, 20, False), (3, 20, False), (3.5, 20, True)]
    for now, size, taken in looks:
        path.write_bytes(bytes(size))
        os.utime(path, ((year - 1970) * 31556952,) * 2)
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        settling.look()
        with contextlib.nullcontext() if taken else pytest.raises(Unsettled):
            assert to.wants(Origin.of(path), tmp_path / "a.png")
    settling.look()
    settling.look()
    assert not settling._before  # what is asked for no more is forgotten


def test_a_second_run_into_one_folder_is_refused(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from sketchify_rt.batch.journal import Journal\n"
        "root = pathlib.Path(sys.argv[1]); Journal(root / 'j', root, {}).open()\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with first:
        assert first.stdout and first.stdout.readline() == b"open\n"
        second = Journal(tmp_path / "j", tmp_path, {})
        with pytest.raises(OutputError, match="another run converts into this folder"):
            second.open()
        first.kill()
    second.open()  # no lock outlives its process
    second.close()


def test_what_another_run_did_since_the_journal_was_read_is_known(tmp_path: Path) -> None:
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "a.png"
    waiting = Journal(tmp_path / NAME, tmp_path, {"all": "x"})
    make(first := opened(tmp_path), origin, output)
    first.close()
    assert not waiting.done(origin, output)
    waiting.open()
    assert waiting.done(origin, output)


def test_a_journal_that_is_gone_is_begun_anew(tmp_path: Path) -> None:
    origin, output = source(tmp_path / "a.jpg"), tmp_path / "out/a.png"
    journal = opened(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    journal.open()
    make(journal, origin, output)
    journal.open()  # it is there
    assert (tmp_path / "out" / NAME).read_bytes().count(b"\n") == 2
    assert opened(tmp_path / "out").done(origin, output)


def test_a_failure_is_noted_once(tmp_path: Path) -> None:
    journal, origin = opened(tmp_path), source(tmp_path / "a.jpg")
    for reason in "locked", "locked", "cut", "cut":
        journal.failed(origin, reason, False, 0)
    told = [json.loads(line).get("reason") for line in (tmp_path / NAME).read_text().splitlines()]
    assert told == [None, "locked", "cut"]
