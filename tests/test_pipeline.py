"""The engine on a device that takes several images together, as a GPU does, but a made-up one."""

from __future__ import annotations

import dataclasses
import gc
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import cv2
import numpy as np
import pytest
from pictures import picture

import sketchify_rt
from sketchify_rt import (
    BackendUnavailable,
    DecodeError,
    DeviceMemoryError,
    Encoding,
    InputError,
    ModelError,
    Sketchifier,
    backend,
)
from sketchify_rt.backend.cpu import CpuBackend
from sketchify_rt.image import Gray
from sketchify_rt.kernels import reference
from sketchify_rt.options import Mode, Options


class FullError(Exception):
    pass


class Tensor:
    """What speaks DLPack, on a device of which the engine knows nothing."""

    def __init__(self, pixels: Gray) -> None:
        self.pixels = pixels
        self.shape = pixels.shape

    def __dlpack__(self, *, stream: Any = None) -> Any:
        raise BufferError("not for the host")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0  # kDLCUDA


class Batches(CpuBackend):
    """Notes what it is asked to do at once; has room for `room` pixels."""

    name = "made-up"
    workers = 2
    most_workers = 2

    def __init__(self, options: Options, pixels: int | None = None, room: int = 2**40) -> None:
        super().__init__(options)
        self.workers = self.most_workers = 2
        self.batch = 4
        self.pixels = pixels
        self.room = room
        self.sizes: list[int] = []
        self.lanes: list[bool] = []
        self.downloads = 0
        self.log: list[str] = []

    @contextmanager
    def lane(self, beside: bool) -> Iterator[None]:  # type: ignore[override]
        self.lanes.append(beside)
        yield

    def place(self, pixels: Sequence[Any]) -> list[Any]:
        return [image.pixels if isinstance(image, Tensor) else image for image in pixels]

    def give(self, images: Sequence[Gray], on_device: bool) -> Sequence[Gray]:
        self.downloads += not on_device
        return images

    def dodge(self, images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        self.log.append(f"try {len(images)}")
        if sum(image.size for image in images) > self.room:
            raise FullError("no room")
        self.sizes.append(len(images))
        if any((image == 13).all() for image in images):
            raise ZeroDivisionError("thirteen")
        return super().dodge(images, strength, threads)

    def exhausted(self, error: BaseException) -> bool:
        return isinstance(error, FullError)

    def release(self, *, close: bool = False) -> None:
        # By then nothing may hold the images of the failed attempt.
        assert sys.exception() is None
        self.log.append("close" if close else "release")


def page(seed: int, height: int = 20, width: int = 30) -> Gray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)


def engine(monkeypatch: pytest.MonkeyPatch, **made: Any) -> tuple[Sketchifier, Batches]:
    monkeypatch.setattr(backend, "select", lambda options: Batches(options, **made))
    sketchify = Sketchifier(mode="dodge")
    assert isinstance(sketchify.backend, Batches)
    return sketchify, sketchify.backend


def check(results: Sequence[Any], pages: Sequence[Gray]) -> None:
    for result, gray in zip(results, pages, strict=True):
        np.testing.assert_array_equal(result, reference.dodge(gray))


def test_a_stream_is_carried_in_batches_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    pages = [page(i) for i in range(10)]
    check(list(sketchify.map(pages)), pages)
    assert sorted(device.sizes) == [2, 4, 4]
    assert len(sketchify.encode_batch(iter(pages))) == 10
    assert device.sizes[3:] == [4, 4, 2]
    del device.lanes[3:]
    assert device.lanes == [True] * 3
    check([sketchify(pages[0])], pages[:1])
    assert device.lanes[3:] == [False]


def test_batches_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    together = threading.Barrier(2, timeout=20)
    plain = device.dodge

    def dodge(images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        together.wait()
        return plain(images, strength, threads)

    monkeypatch.setattr(device, "dodge", dodge)
    pages = [page(i) for i in range(8)]
    check(list(sketchify.map(pages, workers=9)), pages)


def test_one_bad_image_costs_its_batch_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sketchify, _ = engine(monkeypatch)
    good = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(good):
        path.write_bytes(sketchify.backend.encode([page(i)], Encoding(), 1)[0])  # type: ignore[arg-type]
    sources = [good[0], tmp_path / "none.png", b"nonsense", good[1], page(7), good[2]]
    results = sketchify.encode_batch(sources[:4]) + sketchify.encode_batch(sources[4:])
    kinds = [type(result) for result in results]
    assert kinds == [bytes, InputError, DecodeError, bytes, bytes, bytes]
    for i, place in enumerate((0, 3, 5)):
        assert results[place] == sketchify.encode(page(i))


def test_an_error_nobody_foresaw_stays_with_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    thirteen = np.full((9, 9), 13, np.uint8)
    results = sketchify.encode_batch([page(0), page(1), thirteen, page(2)])
    assert "release" not in device.log  # memory was not full
    assert [type(result) for result in results] == [bytes, bytes, ZeroDivisionError, bytes]
    stream = sketchify.map([page(0), thirteen], on_error="return")
    check([next(stream)], [page(0)])
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_a_device_that_is_lost_is_not_tried_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    tries: list[int] = []

    def lost(images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        tries.append(len(images))
        raise BackendUnavailable("gone")

    monkeypatch.setattr(device, "dodge", lost)
    results = sketchify.encode_batch([page(i) for i in range(4)])
    assert [type(result) for result in results] == [BackendUnavailable] * 4
    assert len({id(result) for result in results}) == 4
    assert tries == [4]


def test_memory_that_is_full_lowers_the_pixels_for_a_while_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sketchify, device = engine(monkeypatch, room=1500)
    pages = [page(i) for i in range(12)]  # of 600 pixels
    with caplog.at_level(logging.WARNING):
        check(list(sketchify.map(pages, workers=1)), pages)
    assert set(device.sizes) == {2}
    assert [record.getMessage() for record in caplog.records] == [
        "made-up is out of memory: going on with 0.0012 megapixels at a time"
    ]
    assert device.log[:4] == ["try 4", "release", "try 2", "try 2"]
    assert device.log.count("release") == 1
    # There is room again: two large pages cost the others nothing for good.
    device.room = 2**40
    device.sizes.clear()
    check(list(sketchify.map(pages * 10, workers=1)), pages * 10)
    assert device.sizes[0] == 2
    assert device.sizes[-1] == 4


def test_an_image_that_does_not_fit_alone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch, room=1500)
    data = sketchify.backend.encode([page(1, 50, 50)], Encoding(), 1)[0]
    assert isinstance(data, bytes)
    results = sketchify.encode_batch([page(0), data, page(2)])
    assert [type(result) for result in results] == [bytes, DeviceMemoryError, bytes]
    assert "<bytes>: does not fit into the memory of made-up" in str(results[1])
    # Three pages, the first, the other two, the large one, the last.
    tries = ["try 3", "release", "try 1", "try 2", "release", "try 1", "release", "try 1"]
    assert device.log == tries
    with pytest.raises(DeviceMemoryError):
        sketchify(data)
    device.room = 2**40
    check([sketchify(data)], [page(1, 50, 50)])


def test_pixels_at_a_time_are_bounded_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketchify, device = engine(monkeypatch, pixels=1300)
    files = [
        sketchify.backend.encode([page(i, *size)], Encoding(kind), 1)[0]  # type: ignore[arg-type]
        for i, (size, kind) in enumerate(
            [((20, 30), "png"), ((20, 30), "jpg"), ((20, 30), "webp"), ((90, 90), "png")]
        )
    ]
    assert len(sketchify.encode_batch(files)) == 4  # type: ignore[arg-type]
    assert device.sizes == [2, 1, 1]


def test_a_tensor_stays_on_its_device_and_on_the_callers_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketchify, device = engine(monkeypatch)
    pages = [page(i) for i in range(5)]
    check([sketchify(Tensor(pages[0]))], pages[:1])
    sources = [pages[0], pages[1], Tensor(pages[2]), pages[3], Tensor(pages[4])]
    device.lanes.clear()
    device.downloads = 0
    check(list(sketchify.map(sources)), pages)
    assert sorted(device.lanes) == [False, False, True, True]
    assert device.downloads == 2
    (error,) = CpuBackend(Options()).place([Tensor(pages[0])])
    assert isinstance(error, InputError) and "on a GPU or another" in str(error)


def test_a_model_that_cannot_be_opened_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    tries = []

    def fail(*arguments: object) -> None:
        tries.append(arguments)
        raise ModelError("no model")

    monkeypatch.setattr(sketchify, "_open", fail)
    with pytest.raises(ModelError):
        sketchify.encode_batch([page(i) for i in range(4)])
    assert len(tries) == 1
    assert device.sizes == []


def test_an_image_that_does_not_fit_is_tried_with_smaller_tiles(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gray = page(1, 700, 600)
    wanted = Sketchifier(device="cpu", precision="fp32")(gray)
    tight = Sketchifier(device="cpu", precision="fp32", tile=640)
    opened = tight._open()
    assert opened.painter is not None
    infer, sides = opened.painter.runtime.infer, []
    log: list[str] = []
    monkeypatch.setattr(tight.backend, "release", lambda: log.append("release"))

    def full_from(most: int) -> None:
        def limited(tiles: Any, hints: Any) -> Any:
            sides.append(max(tiles.shape[1:]))
            log.append("run")
            if sides[-1] > most:
                raise MemoryError("std::bad_alloc")
            return infer(tiles, hints)

        runtime = dataclasses.replace(opened.painter.runtime, infer=limited)
        painter = dataclasses.replace(opened.painter, runtime=runtime)
        tight._opened[1] = dataclasses.replace(opened, painter=painter)

    full_from(400)
    np.testing.assert_allclose(tight(gray).astype(int), wanted, atol=1)
    assert "cpu is out of memory: going on with tiles of 320" in caplog.text
    assert log[:3] == ["run", "release", "run"]
    assert log.count("release") == 1
    assert sides[0] == 600
    assert max(sides[1:]) <= 320
    np.testing.assert_allclose(tight(gray).astype(int), wanted, atol=1)
    assert max(sides[1:]) <= 320  # from now on
    full_from(0)
    with pytest.raises(DeviceMemoryError, match="Give a smaller tile"):
        tight(gray)


def test_close_waits_for_calls_in_flight_and_opens_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketchify, device = engine(monkeypatch)
    begun, go_on = threading.Event(), threading.Event()
    plain, opened = device.dodge, []

    def slow(images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        begun.set()
        assert go_on.wait(20)
        return plain(images, strength, threads)

    def counted(workers: int, options: Options) -> Any:
        opened.append(workers)
        return make(workers, options)

    make = sketchify._make
    monkeypatch.setattr(sketchify, "_make", counted)
    monkeypatch.setattr(device, "dodge", slow)
    with ThreadPoolExecutor() as pool:
        call = pool.submit(sketchify, page(0))
        assert begun.wait(20)
        sketchify.close()
        assert device.log == []
        go_on.set()
        check([call.result(20)], [page(0)])
    assert device.log == ["try 1", "close"]
    assert opened == [1]
    assert sketchify._opened == {}
    sketchify.close()
    assert device.log[2:] == ["close"]


def test_close_waits_for_no_error_that_somebody_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    sketchify, device = engine(monkeypatch)
    with pytest.raises(ZeroDivisionError) as kept:
        sketchify(np.full((9, 9), 13, np.uint8))
    never_begun = sketchify.map([page(0)])
    sketchify.close()
    assert device.log == ["try 1", "close"]
    del kept, never_begun
    gc.collect()
    assert device.log == ["try 1", "close"]  # and the garbage collector closes nothing


def test_a_filter_that_does_not_fit_leaves_the_tiles_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sketchify = Sketchifier(device="cpu", precision="fp32")
    sketchify(page(0))

    def full(images: Sequence[Gray], strength: float, threads: int) -> list[Gray]:
        raise MemoryError

    monkeypatch.setattr(sketchify.backend, "dodge", full)
    with pytest.raises(DeviceMemoryError):
        sketchify(page(0), mode="dodge")
    assert sketchify._limits.tile == sketchify.options.tile


def test_a_stream_has_as_many_workers_as_suit_its_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    class Opened(Exception):
        pass

    def opened(self: Sketchifier, workers: int, options: Options) -> None:
        raise Opened(workers)

    monkeypatch.setattr(Sketchifier, "_make", opened)
    for mode in "dodge", "sketch":
        sketchify = Sketchifier(mode=mode, device="cpu", threads=64)  # type: ignore[arg-type]
        with pytest.raises(Opened, match="64"):
            sketchify.map([], mode="dodge")
        with pytest.raises(Opened, match="8"):
            sketchify.map([], mode="sketch")


def test_a_stream_leaves_the_threads_of_single_calls_as_they_were() -> None:
    with Sketchifier(mode="dodge", threads=4, device="cpu") as sketchify:
        asked: list[int] = []
        plain = sketchify.backend.dodge
        sketchify.backend.dodge = (  # type: ignore[method-assign]
            lambda images, strength, threads: (
                asked.append(threads),
                plain(images, strength, threads),
            )[1]
        )
        sketchify(page(0))
        assert len(list(sketchify.map([page(0)] * 3, workers=4))) == 3
        sketchify(page(0))
        sketchify.prepare(2)
        sketchify(page(0))
        assert asked == [4, 1, 1, 1, 4, 2]


def test_where_threads_are_not_split_one_opened_model_serves_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Batches, "splits_threads", False)
    sketchify, _ = engine(monkeypatch)
    one = sketchify._open()
    three = sketchify._open(3)
    assert three is not one
    assert sketchify._open() is sketchify._open(2) is three
    assert list(sketchify._opened) == [3]


def counted(work: Callable[[], object]) -> tuple[int, int]:
    """Number of calls within the package, and how deep they go.

    Comprehensions are no calls, nor is a generator that goes on.
    """
    package = str(Path(sketchify_rt.__file__).parent)
    total = depth = deepest = 0
    begun: list[FrameType] = []

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal total, depth, deepest
        code = frame.f_code
        if not code.co_filename.startswith(package) or code.co_name in ("<listcomp>", "<genexpr>"):
            return
        if event == "call":
            depth += 1
            deepest = max(deepest, depth)
            total += not any(frame is other for other in begun)
            if code.co_flags & inspect.CO_GENERATOR:
                begun.append(frame)
        elif event == "return":
            depth -= 1

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return total, deepest


@pytest.mark.parametrize(("mode", "most"), [("dodge", 35), ("binary", 35), ("sketch", 63)])
def test_the_way_of_a_jpeg_is_short(tmp_path: Path, mode: Mode, most: int) -> None:
    path = tmp_path / "page.jpg"
    cv2.imwrite(str(path), picture(300, 200, 1))
    with Sketchifier(mode=mode, device="cpu", threads=1) as sketchify:
        sketchify(path)
        total, deepest = counted(lambda: sketchify(path))
    assert total <= most
    assert deepest <= 10
