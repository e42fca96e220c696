from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch

from sketchify_rt import Sketchifier, inputs
from sketchify_rt.batch import budget
from sketchify_rt.codec import header
from sketchify_rt.errors import DecodeError, InputError
from sketchify_rt.inputs import (
    MAX_FILE,
    File,
    Picture,
    alpha_of,
    is_pil,
    load,
    on_device,
    read,
    within,
)
from sketchify_rt.options import Encoding

GRAY = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def file(kind: str, height: int, width: int) -> File:
    return File("page", cv2.imencode(f".{kind}", np.zeros((height, width), np.uint8))[1].tobytes())


def test_files_are_read_and_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"whatever")
    assert load(path) == load(str(path)) == File(str(path), b"whatever")
    assert load(bytearray(b"more")) == load(memoryview(b"more")) == File("<bytes>", b"more")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pipe", "is a named pipe. Give a picture file"),
        ("/dev/zero", "is a device. Give a picture file"),
        ("socket", r"cannot be read \(No such device or address\)"),
        ("folder.png", r"cannot be read \(Is a directory\)"),
        ("loop", r"cannot be read \(Too many levels of symbolic links\)"),
        ("gone.png", r"cannot be read \(No such file or directory\)"),
        ("a\0b", r"cannot be read \(embedded null byte\)"),
        ("", "path is empty"),
        ("huge.png", "has 10.0 GiB, and a picture file may have 4. .* reduce it"),
    ],
)
def test_what_is_no_picture_file_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("folder.png").mkdir()
    Path("loop").symlink_to("loop")
    with Path("huge.png").open("wb") as huge:
        huge.truncate(10 * 2**30)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("socket")
        with pytest.raises(InputError, match=rf"^({name}: )?{why}"):
            load(name)


def test_of_what_begins_like_no_picture_no_more_is_read(tmp_path: Path) -> None:
    path = tmp_path / "disk.png"
    with path.open("wb") as disk:
        disk.truncate(MAX_FILE)  # would not fit
    assert load(path) == File(str(path), bytes(1024))


class Stream(io.RawIOBase):
    """Gives the bytes, then zeros without an end; counts what was read."""

    def __init__(self, data: bytes) -> None:
        self.data, self.given = data, 0

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        data = self.data[self.given :][:size].ljust(size, b"\0")
        self.given += size
        return data


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 5000])
def test_a_stream_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE", 5000)
    monkeypatch.setattr(inputs, "_CHUNK", 100)
    data = (file("png", 9, 9).data + bytes(5000))[:size]
    assert read(io.BytesIO(data), "pipe") == File("pipe", data)


def test_of_a_stream_no_more_is_read_than_a_picture_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "MAX_FILE", 3000)
    monkeypatch.setattr(inputs, "_CHUNK", 1000)
    picture = Stream(file("png", 9, 9).data)
    with pytest.raises(InputError, match=r"^pipe: has more than 0 GiB, and a picture .* reduce it"):
        read(picture, "pipe")  # type: ignore[arg-type]
    assert picture.given == inputs.MAX_FILE + 1
    other = Stream(b"no picture")
    assert len(read(other, "pipe").data) == other.given == 1024  # type: ignore[arg-type]


def test_a_stream_that_breaks_is_told() -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(InputError, match=r"^pipe: cannot be read \(Input/output error\)"):
        read(Broken(), "pipe")


def test_pixels_of_the_host_become_luma() -> None:
    rgb = np.repeat(GRAY[..., None], 3, axis=2)
    for source in (GRAY, rgb, PIL.Image.fromarray(rgb), torch.from_numpy(GRAY)):
        np.testing.assert_array_equal(load(source), GRAY)
    with pytest.raises(InputError, match="cannot be shared"):
        load(torch.zeros(3, 3, requires_grad=True))
    with pytest.raises(InputError, match="must be"):
        load(torch.zeros(3, 3))


def test_what_is_loaded_already_stays_as_it_is() -> None:
    for source in (File("a", b"whatever"), Picture("b", GRAY)):
        assert load(source) is source


def test_pixels_bring_what_is_asked_for() -> None:
    rgba = np.dstack((GRAY, GRAY, GRAY, GRAY))
    keep = Encoding(alpha="keep")
    for source in (rgba, torch.from_numpy(rgba), PIL.Image.fromarray(rgba)):
        picture = load(source, keep)
        assert isinstance(picture, Picture) and picture.extras is not None
        np.testing.assert_array_equal(picture.luma, load(rgba))
        np.testing.assert_array_equal(picture.extras.alpha, GRAY)
        for plain in (None, Encoding()):
            assert isinstance(load(source, plain), np.ndarray)
    assert isinstance(load(rgba[..., :3], keep), np.ndarray)
    assert alpha_of(rgba[..., :3]) is None and alpha_of(GRAY) is None and alpha_of(b"") is None


def test_what_is_what() -> None:
    assert is_pil(PIL.Image.fromarray(GRAY)) and not is_pil(GRAY)
    assert not any(map(on_device, (GRAY, torch.from_numpy(GRAY), "page.png", b"", None)))


@pytest.mark.gpu
def test_a_tensor_of_a_gpu_is_left_as_it_is() -> None:
    tensor = torch.from_numpy(GRAY).cuda()
    assert on_device(tensor)
    assert load(tensor) is tensor


def test_runs_are_within_the_bound_by_header() -> None:
    images = [file("png", 10, 10), file("jpg", 10, 10), file("webp", 10, 10), GRAY, InputError("x")]
    images += [file("png", 50, 50), File("broken", b"\xff\xd8\xff"), file("png", 1, 1)]
    images += [Picture("decoded", GRAY)]
    assert [len(run) for run in within(images, 200)] == [2, 1, 1, 1, 1, 2, 1]
    assert [image for run in within(images, 200) for image in run] == images
    assert within(images, None) == [images]


def test_a_pil_image_whose_file_was_closed_tells_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(GRAY).save(path)
    with PIL.Image.open(path) as late:
        pass
    with pytest.raises(DecodeError, match=r"a\.png: its file was closed .*; call load\(\) before"):
        load(late)
    with PIL.Image.open(path) as early:
        early.load()
    np.testing.assert_array_equal(load(early), GRAY)  # type: ignore[arg-type]


def test_open_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"whatever")
    with path.open("rb") as file:
        assert load(file) == File(str(path), b"whatever")
    assert load(io.BytesIO(b"more")) == File("<file>", b"more")
    with pytest.raises(InputError, match=r"a\.png: cannot be read \(.*closed file"):
        load(file)
    with path.open() as text, pytest.raises(InputError, match='bytes, mode "rb", got str'):
        load(text)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("encoding", [None, Encoding(), Encoding(metadata=True, alpha="keep")])
def test_a_header_is_parsed_once(
    monkeypatch: pytest.MonkeyPatch, kind: str, encoding: Encoding | None
) -> None:
    calls: list[bytes] = []
    probe = header.probe
    monkeypatch.setattr(header, "probe", lambda data: calls.append(data) or probe(data))
    page = file(kind, 20, 30)
    keep = encoding or Encoding()
    assert budget.needed(page, keep) > 600
    assert within([page], 1) == [[page]]
    sketchify = Sketchifier(mode="dodge", device="cpu")
    result = sketchify.encode(page, encoding) if encoding else sketchify(page)
    assert len(result) and len(calls) == 1
    assert sketchify(page.data).shape == (20, 30)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "data", [b"", b"text", b"\xff\xd8\xff", b"GIF89a", b"II*\0", b"P5 x", b"BM"]
)
def test_a_damaged_header_is_told_and_counts_no_pixels(data: bytes) -> None:
    found = header.probe(data)
    assert found.pixels == 0
    assert bool(found.problem) == (found.format is not None)


def test_an_error_of_pillow_without_words_is_named_by_its_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = PIL.Image.fromarray(GRAY).convert("RGB")

    def broken(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("sketchify_rt.codec.cpu.from_pil", broken)
    with pytest.raises(DecodeError, match=r"<PIL image>: cannot be read: AssertionError"):
        load(image)
