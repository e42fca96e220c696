from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import io
import itertools
import pickle
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from pictures import picture

from sketchify_rt import (
    DecodeError,
    Encoding,
    InputError,
    ModelError,
    Options,
    OptionsError,
    OutputError,
    Sketchifier,
    SketchifyError,
    models,
    sketchifier,
)
from sketchify_rt import sketchify as one_call
from sketchify_rt.image import Gray, enlarge, resize
from sketchify_rt.kernels import reference
from sketchify_rt.options import (
    ARITHMETICS,
    AUTO_DETAIL,
    PRECISIONS,
    Keywords,
    Mode,
    Overrides,
    Precision,
)


@pytest.fixture(scope="module")
def sketchify() -> Sketchifier:
    return Sketchifier(threads=2)


def png(gray: Gray) -> bytes:
    return cv2.imencode(".png", gray)[1].tobytes()


def decoded(data: bytes) -> Gray:
    return np.asarray(PIL.Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_sketch_is_the_model_applied_to_the_binary(precision: Precision) -> None:
    from sketchify_rt.runtime.openvino import OpenVinoRuntime

    gray = picture(96, 120)  # multiples of the stride: no padding
    binary = reference.binarize(gray)
    sketchify = Sketchifier(precision=precision)
    assert sketchify.precision in ({precision} if precision != "auto" else {"int8", "half"})
    hint = reference.hint(binary, reference.dodge(gray))
    runtime = OpenVinoRuntime(models.load("lite"), 1, precision=sketchify.precision)
    tones = runtime(binary[None], hint[None])[0]
    np.testing.assert_array_equal(sketchify(gray), reference.compose(tones))


def test_the_classic_filters() -> None:
    gray = picture()
    np.testing.assert_array_equal(Sketchifier(mode="binary")(gray), reference.binarize(gray))
    np.testing.assert_array_equal(Sketchifier(mode="dodge")(gray), reference.dodge(gray))
    assert Sketchifier(mode="dodge").precision is None


def test_every_kind_of_input_gives_the_same_sketch(sketchify: Sketchifier, tmp_path: Path) -> None:
    gray = picture()
    path = tmp_path / "Zeichnung 絵 é.png"
    path.write_bytes(png(gray))
    expected = sketchify(gray)
    rgb = np.repeat(gray[..., None], 3, axis=2)
    for source in (path, str(path), png(gray), bytearray(png(gray)), rgb, rgb[:, ::-1][:, ::-1]):
        result = sketchify(source)
        assert isinstance(result, np.ndarray)
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)


def test_a_pil_image_comes_back_as_one(sketchify: Sketchifier) -> None:
    gray = picture()
    for mode in ("L", "RGB", "RGBA"):
        result = sketchify(PIL.Image.fromarray(gray).convert(mode))
        assert isinstance(result, PIL.Image.Image)
        assert result.mode == "L"
        np.testing.assert_array_equal(np.asarray(result), sketchify(gray))


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (7, 9), (8, 8), (257, 259)])
def test_the_size_is_the_inputs(sketchify: Sketchifier, shape: tuple[int, int]) -> None:
    assert sketchify(picture(*shape)).shape == shape


@pytest.mark.parametrize("precision", ARITHMETICS)
def test_tiles_and_threads_make_no_difference(precision: Precision) -> None:
    gray = picture(531, 403)
    whole = Sketchifier(precision=precision, threads=1)(gray)
    for tile, threads in (256, 1), (304, 2), (2048, 2):
        tiled = Sketchifier(precision=precision, tile=tile, threads=threads)
        for sketch in [tiled(gray), *tiled.map([gray] * 3, workers=2)]:
            np.testing.assert_array_equal(sketch, whole)


def test_strength(sketchify: Sketchifier) -> None:
    gray = picture()
    ink = 255 - sketchify(gray).astype(int)
    double = 255 - Sketchifier(strength=2)(gray).astype(int)
    np.testing.assert_array_equal(double, np.minimum(255, 2 * ink))
    assert (Sketchifier(strength=0)(gray) == 255).all()


def test_sizes_on_request() -> None:
    gray = picture(120, 200)
    assert Sketchifier(mode="dodge", max_side=100)(gray).shape == (60, 100)
    assert Sketchifier(mode="dodge", max_side=500)(gray).shape == (120, 200)
    square = Sketchifier(mode="binary", square=64)(gray)
    assert square.shape == (64, 64)
    middle = resize(gray[:, 40:160], 64, 64)
    np.testing.assert_array_equal(square, reference.binarize(middle))


@pytest.mark.parametrize("mode", ["sketch", "dodge", "binary"])
def test_detail_draws_at_that_side_and_enlarges(mode: Mode) -> None:
    gray = picture(121, 203)
    with Sketchifier(mode=mode, precision="fp32") as one:
        native = one(gray)
        drawn = one(resize(gray, 60, 100))
        large = enlarge(drawn, 121, 203)
        if mode == "binary":
            large = np.where(large >= 128, 255, 0)
        np.testing.assert_array_equal(one(gray, detail=100), large)
        for detail in ("native", "auto", 203, 5000):
            np.testing.assert_array_equal(one(gray, detail=detail), native)
        # The size is that of max_side and square, whichever side is drawn at.
        np.testing.assert_array_equal(one(gray, detail=150, max_side=100), drawn)
        np.testing.assert_array_equal(one(gray, detail=100, max_side=100), drawn)
        square = resize(gray[:, 41:162], 64, 64)
        larger = enlarge(one(square), 150, 150)
        if mode == "binary":
            larger = np.where(larger >= 128, 255, 0)
        np.testing.assert_array_equal(one(gray, detail=64, square=150), larger)


def test_auto_detail_gives_a_large_photo_its_lines() -> None:
    photo = cv2.resize(picture(300, 400), (4 * AUTO_DETAIL, 3 * AUTO_DETAIL))
    with Sketchifier(mode="dodge") as one:
        pale, drawn = one(photo), one(photo, detail="auto")
        assert drawn.shape == photo.shape
        np.testing.assert_array_equal(drawn, one(photo, detail=AUTO_DETAIL))
    assert (255 - drawn).mean() > 2 * (255 - pale).mean()


def test_tiles_make_no_difference_to_detail() -> None:
    gray = picture(1031, 803)
    whole = Sketchifier(precision="fp32", detail=700)(gray)
    assert whole.shape == gray.shape
    np.testing.assert_array_equal(Sketchifier(precision="fp32", detail=700, tile=256)(gray), whole)


def test_convert_encodes(sketchify: Sketchifier) -> None:
    gray = picture()
    for encoding in (Encoding(), Encoding("webp")):
        data = sketchify.encode(gray, encoding)
        lossless = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("L"))
        np.testing.assert_array_equal(lossless, sketchify(gray))
    assert sketchify.encode(gray, Encoding("jpg"))[:2] == b"\xff\xd8"


def test_map_keeps_the_order(sketchify: Sketchifier) -> None:
    pages = [picture(40 + 13 * (i % 5), 50, seed=i) for i in range(12)]
    for result, page in zip(sketchify.map(iter(pages)), pages, strict=True):
        np.testing.assert_array_equal(result, sketchify(page))
    files = sketchify.map(pages, encoding=Encoding(), workers=3)
    for data, page in zip(files, pages, strict=True):
        np.testing.assert_array_equal(decoded(data), sketchify(page))


def test_map_takes_only_a_few_images_ahead() -> None:
    taken = 0

    def sources() -> Iterator[Gray]:
        nonlocal taken
        for seed in range(1000):
            taken += 1
            yield picture(20, 20, seed)

    with Sketchifier(mode="binary") as binarize:
        results = binarize.map(sources(), workers=2)
        for _ in range(3):
            next(results)
        assert taken <= 3 + 2 * 2
        results.close()  # type: ignore[attr-defined]


def test_map_works_on_several_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2, timeout=20)
    dodge = Sketchifier(mode="dodge", threads=2)
    monkeypatch.setattr(dodge.backend, "dodge", lambda images, *_: (together.wait(), images)[1])
    assert len(list(dodge.map([picture(), picture()]))) == 2


def test_map_and_errors(sketchify: Sketchifier) -> None:
    sources = [picture(seed=1), b"nonsense", picture(seed=2)]
    first, error, last = sketchify.map(sources, on_error="return")
    np.testing.assert_array_equal(first, sketchify(sources[0]))
    assert isinstance(error, DecodeError)
    np.testing.assert_array_equal(last, sketchify(sources[2]))
    results = sketchify.map(sources)
    next(results)
    with pytest.raises(DecodeError, match="<bytes>"):
        next(results)


def test_a_failed_stream_leaves_no_thread_behind(sketchify: Sketchifier) -> None:
    before = threading.active_count()
    with pytest.raises(DecodeError):
        list(sketchify.map([picture(), b"broken", picture(), picture(), picture()]))
    assert threading.active_count() == before


def test_errors_hold_nothing_that_only_the_garbage_collector_frees(tmp_path: Path) -> None:
    data = png(picture())[:-9]
    none = tmp_path / "none.png"
    sketchify = Sketchifier(mode="dodge", threads=2)

    def fail() -> None:
        for source in (data, none, 3):
            with contextlib.suppress(SketchifyError):
                sketchify(source)  # type: ignore[call-overload]
        with contextlib.suppress(SketchifyError):
            list(sketchify.map([data, picture()]))
        list(sketchify.map([data, none, picture()], on_error="return"))
        sketchify.encode_batch([data, none, picture()])

    fail()
    gc.disable()
    try:
        while gc.collect():  # what other tests left behind takes more than one round
            pass
        for _ in range(10):
            fail()
        assert gc.collect() < 50  # where each error held its frames, thousands
    finally:
        gc.enable()


def test_whatever_fails_fails_in_its_place(sketchify: Sketchifier) -> None:
    class Nameless:
        def __fspath__(self) -> str:
            raise ZeroDivisionError("no path")

    class Tensor:
        def __dlpack_device__(self) -> tuple[int, int]:
            raise ValueError("no device")

        def __dlpack__(self, *, stream: object = None) -> object:
            raise ValueError("no tensor")

    page = picture()
    expected = sketchify(page)
    results = sketchify.map([page, page, Nameless(), page, page, page])
    for _ in range(2):
        np.testing.assert_array_equal(next(results), expected)
    with pytest.raises(ZeroDivisionError):
        next(results)
    found = list(sketchify.map([page, Tensor(), page], on_error="return"))  # type: ignore[list-item]
    assert [type(result) for result in found] == [np.ndarray, InputError, np.ndarray]
    kinds = [type(result) for result in sketchify.encode_batch([Nameless(), page, Tensor()])]
    assert kinds == [ZeroDivisionError, bytes, InputError]


def test_a_bad_open_file_costs_a_stream_nothing_else(sketchify: Sketchifier) -> None:
    page = picture(40, 30)
    found = list(sketchify.map([page, io.StringIO("text"), page], on_error="return"))  # type: ignore[list-item]
    np.testing.assert_array_equal(found[0], found[2])
    assert 'must be opened for bytes, mode "rb", got str' in str(found[1])


def test_a_pipe_that_gives_little_at_a_time_is_read_whole(sketchify: Sketchifier) -> None:
    data = cv2.imencode(".png", picture(40, 30))[1].tobytes()

    class Pipe(io.RawIOBase):
        at = 0

        def read(self, size: int = -1, /) -> bytes:
            part = data[self.at : self.at + min(size, 7)]
            self.at += len(part)
            return part

    np.testing.assert_array_equal(sketchify(Pipe()), sketchify(data))


def test_map_gives_what_it_has_before_its_source_fails(sketchify: Sketchifier) -> None:
    def sources() -> Iterator[Gray]:
        yield picture(seed=1)
        yield picture(seed=2)
        raise KeyError("the third")

    results = sketchify.map(sources())
    for seed in (1, 2):
        np.testing.assert_array_equal(next(results), sketchify(picture(seed=seed)))
    with pytest.raises(KeyError, match="the third"):
        next(results)


def test_bad_arguments_of_map_and_prepare_fail_at_once(sketchify: Sketchifier) -> None:
    for workers in (0, -1, "2", True, 2.5, [1], float("nan")):
        told = re.escape(f"workers must be an integer of at least 1, got {workers!r}")
        with pytest.raises(OptionsError, match=told):
            sketchify.map([], workers=workers)  # type: ignore[arg-type]
        with pytest.raises(OptionsError, match=told):
            sketchify.prepare(workers)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="on_error must be raise or return, got 'retrun'"):
        sketchify.map([], on_error="retrun")  # type: ignore[arg-type]


def test_it_travels_to_another_process_by_its_options() -> None:
    original = Sketchifier(mode="dodge", strength=2.5)
    copy = pickle.loads(pickle.dumps(original))
    assert copy.options == original.options
    np.testing.assert_array_equal(copy(picture()), original(picture()))


@pytest.mark.parametrize("mode", ["dodge", "sketch"])
def test_one_column_of_any_strides(mode: str) -> None:
    column = picture(1, 50).T
    sketchify = Sketchifier(mode=mode)
    np.testing.assert_array_equal(sketchify(column), sketchify(column.copy(order="C")))


def test_many_threads_share_one(sketchify: Sketchifier) -> None:
    pages = [picture(40 + 8 * i, 60, seed=i) for i in range(4)]
    expected = [sketchify(page) for page in pages]
    results: dict[int, Gray] = {}

    def work(i: int) -> None:
        for _ in range(3):
            results[i] = sketchify(pages[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(results[i], expected[i])


def test_it_opens_again_after_close() -> None:
    with Sketchifier() as once:
        before = once(picture())
    np.testing.assert_array_equal(once(picture()), before)


def test_what_cannot_be_an_image_is_named(sketchify: Sketchifier, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.png: cannot be read"):
        sketchify(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read"):
        sketchify(tmp_path)
    for name in ("a\0b", "\ud800", ""):
        with pytest.raises(InputError):
            sketchify(name)
    with pytest.raises(InputError, match="no pixels"):
        sketchify(PIL.Image.new("L", (0, 5)))
    cut = PIL.Image.open(io.BytesIO(png(picture())[:-2000]))
    with pytest.raises(DecodeError, match="PIL image"):
        sketchify(cut)
    with pytest.raises(InputError, match="got int"):
        sketchify(7)  # type: ignore[call-overload]
    with pytest.raises(InputError):
        sketchify(np.zeros((4, 4), np.float32))  # type: ignore[call-overload]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    with pytest.raises(DecodeError, match=r"broken\.jpg"):
        sketchify(broken)
    with pytest.raises(DecodeError, match="max_pixels"):
        Sketchifier(max_pixels=100)(png(picture()))


def test_bad_options_fail_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionsError):
        Sketchifier(mode="pencil")
    with pytest.raises(ModelError):
        Sketchifier("heavy")
    lite = models.load("lite")
    deep = models.Model(lite.path, dataclasses.replace(lite.manifest, halo=200))
    monkeypatch.setattr(models, "load", lambda name: deep)
    with pytest.raises(OptionsError, match="tile must be at least 408 for model lite, got 300"):
        Sketchifier(tile=300)
    with pytest.raises(OptionsError, match=r"there is no option 'strenght'\. Did you mean stren"):
        Sketchifier(strenght=3)
    with pytest.raises(OptionsError, match=r"there is no option 'colour'\. Use model, device, mo"):
        Sketchifier(colour=3)
    with pytest.raises(OptionsError, match="model must be a name or a path, got 3"):
        Sketchifier(3)  # type: ignore[arg-type]


def test_options_and_keywords_that_replace_some(tmp_path: Path) -> None:
    options = Options(mode="dodge", strength=1.5, device="cpu")
    assert Sketchifier(options).options == options
    assert Sketchifier(options, strength=2).options == dataclasses.replace(options, strength=2)
    path = shutil.copy(models.load("lite").path, tmp_path / "own.onnx")
    shutil.copy(models.load("lite").path.with_suffix(".json"), tmp_path / "own.json")
    assert Options(model=Path(path)) == Options(model=str(path))
    assert Sketchifier(Options(model=Path(path))).options.model == str(path)


def test_a_format_by_its_name_is_an_encoding() -> None:
    gray = picture(60, 80)
    with Sketchifier(mode="dodge") as sketchify:
        assert sketchify.encode(gray, "webp") == sketchify.encode(gray, Encoding("webp"))
        assert sketchify.encode_batch([gray], "jpg") == [sketchify.encode(gray, Encoding("jpg"))]
        assert list(sketchify.map([gray], encoding="png")) == [sketchify.encode(gray)]
        with pytest.raises(OptionsError, match="format must be one of png, jpg, webp, got 'bmp'"):
            sketchify.encode(gray, "bmp")  # type: ignore[arg-type]
        with pytest.raises(OptionsError, match=r"encoding must be an Encoding, or .*, got 3"):
            sketchify.map([gray], encoding=3)  # type: ignore[call-overload]


def test_a_source_may_overwrite_the_buffer_that_it_gave() -> None:
    pages = [picture(40, 50, seed) for seed in range(40)]
    with Sketchifier(mode="dodge", threads=4) as sketchify:
        wanted = [sketchify(page) for page in pages]

        def reused(wrap: Callable[[Gray], Any]) -> Iterator[Any]:
            buffer = np.empty_like(pages[0])
            for page in pages:
                buffer[:] = page
                yield wrap(buffer)
                buffer[:] = 0

        for wrap in (np.asarray, torch.from_numpy, PIL.Image.fromarray):
            for sketch, expected in zip(sketchify.map(reused(wrap)), wanted, strict=True):
                np.testing.assert_array_equal(sketch, expected)


def test_memory_stays_flat() -> None:
    def resident() -> float:
        # Without what malloc keeps of freed blocks, which depends on all tests before.
        ctypes.CDLL(None).malloc_trim(0)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * 4096 / 2**20

    # Sizes change all the time, as in a real folder: runtimes like to keep something of each.
    pages = (picture(40 + 8 * (i % 23), 40 + 8 * (i % 17), i % 3) for i in range(340))
    with Sketchifier(threads=2) as sketchify:
        for page in itertools.islice(pages, 140):
            sketchify.encode(page)
        before = resident()
        for page in pages:
            sketchify.encode(page)
        # On an Intel Xeon with AMX it is 20, and over the next 2,000 pages as good as
        # nothing; without a bound on the runtime's cache 927, on a Zen 4 256.
        assert resident() - before < 48


def test_one_call_does_the_job_and_keeps_the_model_open(tmp_path: Path) -> None:
    gray = picture(60, 80)
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), gray)
    expected = Sketchifier(mode="dodge", strength=1.5)(gray)
    np.testing.assert_array_equal(one_call(path, mode="dodge", strength=1.5), expected)
    with path.open("rb") as file:
        np.testing.assert_array_equal(one_call(file, mode="dodge", strength=1.5), expected)
    first = sketchifier._kept(Options(mode="dodge"))
    one_call(gray, mode="dodge")
    assert sketchifier._kept(Options(mode="dodge")) is first
    with pytest.raises(OptionsError, match="Did you mean strength"):
        one_call(gray, strenght=2)


def test_a_call_overrides_what_needs_no_other_model() -> None:
    """One open model serves all; each call equals a Sketchifier of these options."""
    page, told = picture(200, 180, 5), {"device": "cpu", "precision": "fp32"}
    every: list[dict[str, Any]] = [
        {"strength": 2.5},
        {"hint": "6B"},
        {"mode": "dodge", "strength": 0.5},
        {"mode": "binary"},
        {"max_side": 100},
        {"square": 64},
        {"binary": "page"},
        {"detail": 100},
        {"detail": 80, "max_side": 120, "mode": "binary"},
        {"hint": np.full((9, 9), 200, np.uint8), "max_side": 90},
    ]
    with Sketchifier(**told) as one:
        plain = one(page)
        opened = one._open().painter
        for overrides in every:
            expected = Sketchifier(**told | overrides)(page)
            np.testing.assert_array_equal(one(page, **overrides), expected)
            assert not np.array_equal(expected, plain)
            (found,) = one.map([page], **overrides)
            np.testing.assert_array_equal(found, expected)
            assert one.encode(page, **overrides) == one.encode_batch([page], **overrides)[0]
        assert one._open().painter is opened
        np.testing.assert_array_equal(one(page), plain)


def test_overrides_give_way_where_they_would_contradict() -> None:
    page = picture(200, 180, 5)
    with Sketchifier(device="cpu", hint="4B", square=64) as one:
        assert one(page, max_side=50).shape[0] == 50
        assert one(page, square=None).shape == page.shape
        assert one(page, mode="dodge").shape == (64, 64)
        with pytest.raises(OptionsError, match="hint needs mode sketch"):
            one(page, mode="dodge", hint="4B")
        with pytest.raises(OptionsError, match=r"device cannot change from call to call\. Give"):
            one(page, device="cuda")  # type: ignore[call-overload]
        with pytest.raises(OptionsError, match=r"no option 'strenght'\. Did you mean strength"):
            one(page, strenght=2)  # type: ignore[call-overload]
        with pytest.raises(OptionsError, match="strength must be between 0 and 4, got 9"):
            one.encode(page, strength=9)
        with pytest.raises(OptionsError, match="there is no option 'of_gpu'"):
            one(page, of_gpu=True)  # type: ignore[call-overload]
        with pytest.raises(OptionsError, match="binary must be one of auto, page, threshold"):
            one(page, binary=np.zeros(3))  # type: ignore[call-overload]
    with Sketchifier(device="cpu", mode="dodge") as filters:
        np.testing.assert_array_equal(filters(page, mode="sketch"), Sketchifier(device="cpu")(page))
        np.testing.assert_array_equal(filters(page), Sketchifier(mode="dodge", device="cpu")(page))


def test_the_options_by_name_are_the_options() -> None:
    names = [one.name for one in dataclasses.fields(Options)]
    assert {"model", *Keywords.__annotations__, *Overrides.__annotations__} == set(names)


def test_a_sketch_is_saved_in_the_format_of_the_ending(tmp_path: Path) -> None:
    gray = picture(60, 80)
    with Sketchifier(mode="dodge") as sketchify:
        for name, form in ("a.png", "png"), ("b/c.JPEG", "jpg"), ("d.webp", "webp"):
            sketchify.save(gray, tmp_path / name)
            assert (tmp_path / name).read_bytes() == sketchify.encode(gray, form)
        sketchify.save(gray, tmp_path / "a.png", Encoding("webp"))
        assert (tmp_path / "a.png").read_bytes() == sketchify.encode(gray, "webp")
        with pytest.raises(OptionsError, match=r"e\.bmp: its ending must be .*, got '\.bmp'"):
            sketchify.save(gray, tmp_path / "e.bmp")
        with pytest.raises(OutputError, match=r"f\.png: cannot be written: File exists"):
            sketchify.save(gray, tmp_path / "a.png/f.png")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b", "d.webp"}
