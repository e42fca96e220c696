from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jobs
import numpy as np
import pytest

from sketchify_rt.batch import runner
from sketchify_rt.batch.archives import Page
from sketchify_rt.batch.budget import MIB, Budget
from sketchify_rt.batch.interruption import deferred
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.resume import Convert, Existing
from sketchify_rt.batch.runner import Care, Outcome, Report, run
from sketchify_rt.batch.staging import Staged
from sketchify_rt.errors import BackendUnavailable, DecodeError, InputError, OutputError
from sketchify_rt.inputs import File, Loaded
from sketchify_rt.options import Encoding


class Engine:
    """Gives back the name of the image, or raises what it is told to."""

    batch = 1

    def __init__(self, **errors: Exception) -> None:
        self.errors = errors
        self.prepared: list[int] = []
        self.converted: list[str] = []

    def prepare(self, workers: int) -> None:
        self.prepared.append(workers)

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        results: list[bytes | Exception] = []
        for image in images:
            assert isinstance(image, File)
            try:
                results.append(self.encode(Path(image.name), encoding))
            except Exception as error:
                results.append(error)
        return results

    def encode(self, image: Path, encoding: Encoding) -> bytes:
        self.converted.append(image.stem)
        if error := self.errors.get(image.stem):
            raise error
        return f"{image.stem} as {encoding.format}".encode()


@pytest.fixture(autouse=True)
def here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("here"))
    Path("in").mkdir()


def items(names: Sequence[str]) -> list[Item]:
    """Images that are there, to become files in the output folder."""
    for name in names:
        Path(f"in/{name}.jpg").write_text(name)
    return [Item(i, Path(f"in/{name}.jpg"), f"{name}.png") for i, name in enumerate(names)]


def convert(
    engine: Engine,
    names: Sequence[str],
    folder: Path,
    *,
    workers: int = 2,
    existing: Existing = "refuse",
    **options: object,
) -> Report:
    with opened(folder, existing) as to:
        return run(engine, items(names), to, Encoding(), workers=workers, **options)  # type: ignore[arg-type]


@contextlib.contextmanager
def opened(folder: Path, existing: Existing = "refuse") -> Iterator[Output]:
    """An output folder without a journal."""
    with contextlib.closing(jobs.output(folder, existing=existing, journal=False)) as to:
        to.open()
        yield to


def reasons(report: Report) -> dict[str, str]:
    return {str(outcome.source): outcome.reason for outcome in report.failed}


def results(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_all_are_converted_and_told_of(tmp_path: Path) -> None:
    engine, told = Engine(), list[Outcome]()
    names = [f"p{i}" for i in range(50)]
    report = convert(engine, names, tmp_path, progress=told.append)
    assert (report.converted, report.skipped, report.failed, report.not_done) == (50, 0, [], 0)
    assert report.seconds > 0
    assert report.images_per_second == pytest.approx(50 / report.seconds)
    assert (tmp_path / "p7.png").read_bytes() == b"p7 as png"
    assert sorted(outcome.index for outcome in told) == list(range(50))
    assert {outcome.output for outcome in told} == {tmp_path / f"{name}.png" for name in names}


@pytest.mark.parametrize(("asked", "images", "used"), [(8, 3, 8), (2, 5, 2), (4, 0, 4), (0, 2, 1)])
def test_the_engine_is_prepared_once(tmp_path: Path, asked: int, images: int, used: int) -> None:
    engine = Engine()
    convert(engine, "abcdefgh"[:images], tmp_path, workers=asked)
    assert engine.prepared == [used]


def test_an_engine_that_cannot_be_prepared_stops_all(tmp_path: Path) -> None:
    class Unavailable(Engine):
        def prepare(self, workers: int) -> None:
            raise BackendUnavailable("no such device")

    with pytest.raises(BackendUnavailable):
        convert(Unavailable(), ["a"], tmp_path)


def test_images_are_worked_on_at_the_same_time(tmp_path: Path) -> None:
    meeting = threading.Barrier(3, timeout=60)

    class Meeting(Engine):
        def encode(self, image: Path, encoding: Encoding) -> bytes:
            meeting.wait()  # raises BrokenBarrierError where not three come together
            return b"x"

    assert convert(Meeting(), "abcdef", tmp_path, workers=3).converted == 6


def test_jobs_are_taken_no_more_than_a_few_ahead(tmp_path: Path) -> None:
    taken, done, ahead = 0, 0, []

    class Many:
        def __len__(self) -> int:
            return 200

        def __iter__(self) -> Iterator[Item]:
            nonlocal taken
            for item in items([str(i) for i in range(200)]):
                taken += 1
                yield item

    def progress(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        ahead.append(taken - done)

    with opened(tmp_path) as to:
        report = run(Engine(), Many(), to, Encoding(), workers=2, progress=progress)
    assert report.converted == 200
    assert max(ahead) <= 3


def test_bad_files_are_named_in_the_order_of_the_jobs_and_the_rest_converted(
    tmp_path: Path,
) -> None:
    engine = Engine(
        a=DecodeError("in/a.jpg", "the file is cut short"),
        b=InputError("in/b.jpg: cannot be read (No such file)"),
        d=MemoryError(),
        e=ZeroDivisionError("oops"),
        f=PermissionError(13, "Permission denied", "in/f.jpg"),
    )
    report = convert(engine, "fedcba", tmp_path)
    assert list(reasons(report).items()) == [
        ("in/f.jpg", "cannot be read: Permission denied"),
        ("in/e.jpg", "ZeroDivisionError: oops"),
        (
            "in/d.jpg",
            "not enough memory; give fewer --threads, a smaller --tile or a --max-side",
        ),
        ("in/b.jpg", "cannot be read (No such file)"),
        ("in/a.jpg", "the file is cut short"),
    ]
    assert (report.converted, report.not_done, report.stopped) == (1, 0, "")
    assert results(tmp_path) == ["c.png"]


def test_a_batch_is_carried_together_and_its_bad_ones_named(tmp_path: Path) -> None:
    sizes = []

    class Batches(Engine):
        batch = 4

        def encode_batch(
            self, images: Sequence[Loaded], encoding: Encoding
        ) -> Sequence[bytes | Exception]:
            sizes.append(len(images))
            return super().encode_batch(images, encoding)

    (tmp_path / "p2.png").write_bytes(b"old")
    engine = Batches(p5=DecodeError("in/p5.jpg", "cut short"))
    report = convert(engine, [f"p{i}" for i in range(10)], tmp_path, workers=1)
    assert sizes == [3, 4, 2]
    assert (report.converted, report.not_done) == (8, 0)
    assert list(reasons(report)) == ["in/p2.jpg", "in/p5.jpg"]
    assert (tmp_path / "p9.png").read_bytes() == b"p9 as png"


def test_an_engine_that_breaks_costs_its_batch_alone(tmp_path: Path) -> None:
    class Breaks(Engine):
        batch = 2

        def encode_batch(
            self, images: Sequence[Loaded], encoding: Encoding
        ) -> Sequence[bytes | Exception]:
            if isinstance(images[0], File) and images[0].data == b"c":
                raise ZeroDivisionError("oops")
            return super().encode_batch(images, encoding)

    report = convert(Breaks(), "abcdef", tmp_path)
    assert reasons(report) == dict.fromkeys(["in/c.jpg", "in/d.jpg"], "ZeroDivisionError: oops")
    assert report.converted == 4


def test_debug_gives_the_traceback_of_the_unforeseen(tmp_path: Path) -> None:
    engine = Engine(a=ZeroDivisionError("oops"), b=DecodeError("in/b.jpg", "cut short"))
    report = convert(engine, ["a", "b"], tmp_path, care=Care(debug=True))
    assert "Traceback" in reasons(report)["in/a.jpg"]
    assert "test_runner.py" in reasons(report)["in/a.jpg"]
    assert reasons(report)["in/b.jpg"] == "cut short"


def test_results_that_exist(tmp_path: Path) -> None:
    convert(Engine(), ["a"], tmp_path)
    refused, skipped, replaced = Engine(), Engine(), Engine()
    report = convert(refused, ["a", "b"], tmp_path)
    assert "exists already" in reasons(report)["in/a.jpg"]
    assert refused.converted == ["b"]
    report = convert(skipped, ["a", "b", "c"], tmp_path, existing="skip")
    assert (report.skipped, report.converted, skipped.converted) == (2, 1, ["c"])
    (tmp_path / "a.png").write_bytes(b"old")
    report = convert(replaced, ["a"], tmp_path, existing="overwrite")
    assert (tmp_path / "a.png").read_bytes() == b"a as png"


def test_a_full_disk_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def publish(self: Staged, path: Path, replace: bool) -> None:
        if path.stem == "p3":
            error = OutputError(f"{path}: cannot be written: No space left on device")
            error.errno = errno.ENOSPC
            raise error

    monkeypatch.setattr(Staged, "publish", publish)
    engine = Engine()
    report = convert(engine, [f"p{i}" for i in range(100)], tmp_path, workers=1)
    assert report.stopped == "the disk is full"
    assert list(reasons(report)) == ["in/p3.jpg"]
    assert len(engine.converted) == report.converted + 1 <= 6
    assert report.converted + 1 + report.not_done == 100
    assert not report.interrupted


def test_a_failure_that_cannot_be_noted_costs_its_image_alone(tmp_path: Path) -> None:
    class Gone:  # an archive that was cut short meanwhile
        whole = Item(1, Path("in/book.cbz"), "book.cbz")

        def put(self, page: Page, data: bytes | None, reason: str, lasting: bool) -> None:
            raise InputError("in/book.cbz: was cut short while it was open")

    todo = items("abc")
    todo[1].book, todo[1].decision = (Gone(), None), Convert()  # type: ignore[assignment]
    engine = Engine(b=DecodeError("in/b.jpg", "cut short"))
    with opened(tmp_path) as to:
        report = run(engine, todo, to, Encoding(), workers=2)
    assert reasons(report) == {"in/b.jpg": "cut short"}
    assert (report.converted, report.not_done, report.stopped) == (2, 0, "")


def press_ctrl_c() -> None:
    """Interrupts the main thread, even where it waits for a lock."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the run has seen an interruption, and begins to wait for the images in work."""
    event = threading.Event()

    def waiting(futures: Any, timeout: float) -> Any:
        event.set()
        return futures_wait(futures, timeout)

    futures_wait = runner.wait
    monkeypatch.setattr(runner, "wait", waiting)
    return event


def test_an_interruption_finishes_what_was_begun(tmp_path: Path, seen: threading.Event) -> None:
    class Interrupted(Engine):
        def encode(self, image: Path, encoding: Encoding) -> bytes:
            data = super().encode(image, encoding)
            if image.stem == "p4":
                press_ctrl_c()
                assert seen.wait(60)
            return data

    engine = Interrupted()
    report = convert(engine, [f"p{i}" for i in range(100)], tmp_path)
    assert report.interrupted
    assert report.stopped == "interrupted"
    assert report.converted == len(engine.converted) < 50
    assert report.converted + report.not_done == 100
    assert results(tmp_path) == sorted(f"{name}.png" for name in engine.converted)


def test_a_second_interruption_waits_for_nothing(tmp_path: Path, seen: threading.Event) -> None:
    go_on = threading.Event()

    class Slow(Engine):
        def encode(self, image: Path, encoding: Encoding) -> bytes:
            data = super().encode(image, encoding)
            if image.stem == "p4":
                press_ctrl_c()
                assert seen.wait(60)
                press_ctrl_c()
                assert go_on.wait(60)
            return data

    engine = Slow()
    begun = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        convert(engine, [f"p{i}" for i in range(100)], tmp_path)
    assert time.perf_counter() - begun < 30
    assert "p4.png" not in results(tmp_path)
    go_on.set()
    assert len(engine.converted) < 50


def test_a_file_decoded_beforehand_reaches_the_engine_as_pixels(tmp_path: Path) -> None:
    class Pixels(Engine):
        def encode_batch(
            self, images: Sequence[Loaded], encoding: Encoding
        ) -> Sequence[bytes | Exception]:
            return [bytes(image) for image in images]  # type: ignore[arg-type]

    def decode(image: Loaded) -> Loaded:
        assert isinstance(image, File)
        if image.data == b"b":
            raise DecodeError(image.name, "crashed the decoder")
        return np.frombuffer(image.data * 2, np.uint8)

    report = convert(Pixels(), "abc", tmp_path, care=Care(decode=decode))
    assert reasons(report) == {"in/b.jpg": "crashed the decoder"}
    assert (tmp_path / "a.png").read_bytes() == b"aa"
    assert (tmp_path / "c.png").read_bytes() == b"cc"


def test_images_in_work_share_their_memory(tmp_path: Path) -> None:
    held: list[int] = []

    class Large(Engine):
        def encode(self, image: Path, encoding: Encoding) -> bytes:
            held.append(budget.size - budget._free)
            time.sleep(0.01)
            return b"x"

    sizes = dict.fromkeys("abcdefgh", 400_000) | {"d": 2 * MIB}
    budget = Budget(MIB)
    todo = items(list(sizes))
    for name, size in sizes.items():
        Path(f"in/{name}.jpg").write_bytes(b"\xff\xd8\xff".ljust(size))
    with opened(tmp_path) as to:
        report = run(Large(), todo, to, Encoding(), workers=8, care=Care(budget))
        record = to.journal.get(b"d.png")
        assert record and record.lasting  # would fail again
    assert report.converted == 7
    assert reasons(report) == {
        "in/d.jpg": "needs about 2 MiB of memory, and the limit for all images together is 1 MiB. "
        "Raise --memory"
    }
    assert max(held) == 800_000
    assert budget._free == MIB


def test_an_interruption_is_deferred_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    noted: list[int] = []
    with deferred(lambda: noted.append(1)):
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == [1]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert noted == [1]
    assert signal.getsignal(signal.SIGINT) is before
    with ThreadPoolExecutor(1) as pool, deferred(lambda: None):
        assert pool.submit(lambda: deferred(lambda: None).__enter__()).result() is None
