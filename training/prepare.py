"""Pack a folder of pictures into a file that training reads without decoding."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sketchify_rt.batch.sources import Sources
from sketchify_rt.codec import cpu as codec
from sketchify_rt.codec.header import File
from sketchify_rt.errors import DecodeError, OutputError
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native
from sketchify_rt.options import MAX_PIXELS
from training.duplicates import fingerprint, kept
from training.errors import TrainingError
from training.pages import MANIFEST, PIXELS, Page, sha256, trailer
from training.splits import sources_of, validation

MIN_SIDE = 256  # pixels: a crop of the recipes
# Share of black in the binary. Paper, ramps and solid grays have none, noise of 2 levels at JPEG 60
# has 0.05 %, a page's number alone 0.02 %; one line of text 0.2 %, the emptiest of 169 pages 1.1 %.
MIN_INK = 0.001


class LeftOut(NamedTuple):
    """A picture, or a folder that cannot be read, and why nothing of it is among the pages."""

    name: str
    reason: str


class Prepared(NamedTuple):
    """What `prepare` wrote: the pages, by name, and what it left out."""

    pages: list[Page]
    left_out: list[LeftOut]


def prepare(
    source: Path,
    output: Path,
    *,
    pattern: str | None = None,
    val_share: float = 0.1,
    val: Sequence[str] = (),
) -> Prepared:
    """Decode the pictures in and below `source` to luma and pack them into the folder `output`.

    Left out are files that cannot be decoded, pictures smaller than MIN_SIDE or with less ink than
    MIN_INK, and all but the largest of those that are the same. pattern: see `sources_of`;
    val_share, val: see `validation`. What `output` held is replaced at the end, not before.

    Raises TrainingError where no picture is left, OptionsError, and OutputError.
    """
    found = Sources([str(source)], output)
    left_out = [LeftOut(str(problem.source), problem.reason) for problem in found.problems]
    files = {job.source.relative_to(source).as_posix(): job.source for job in found}
    files = dict(sorted(files.items()))
    if not files:
        raise _nothing(source, left_out)
    sources = sources_of(files, pattern)
    held_out = validation(sources, val_share, val)

    manifest, pixels = output / MANIFEST, output / PIXELS
    parts = [path.with_name(f"{path.name}.part") for path in (manifest, pixels)]
    try:
        output.mkdir(parents=True, exist_ok=True)
        with parts[1].open("w+b") as file:
            pages = _pack(files, file, left_out)
            pages = [
                dataclasses.replace(
                    page,
                    source=sources[page.name],
                    split="val" if sources[page.name] in held_out else "train",
                )
                for page in pages
            ]
            if not pages:
                raise _nothing(source, left_out)
            file.write(trailer(pages))
        document = {
            "pages": [dataclasses.asdict(page) for page in pages],
            "left_out": [{"name": name, "reason": reason} for name, reason in left_out],
            "options": {"source": pattern, "val_share": val_share, "val": list(val)},
        }
        parts[0].write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        # In between, and if the second fails, the trailer tells that they are no pair.
        parts[1].replace(pixels)
        parts[0].replace(manifest)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror}") from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink()
    return Prepared(pages, left_out)


def _nothing(source: Path, left_out: Sequence[LeftOut]) -> TrainingError:
    reasons = "".join(f"\n  {name}: {reason}" for name, reason in left_out)
    return TrainingError(f"{source}: no picture there can be used{reasons}")


def _pack(files: Mapping[str, Path], file: IO[bytes], left_out: list[LeftOut]) -> list[Page]:
    """Write what can be used of `files` to `file`; pages without source and split."""
    pages: list[Page] = []
    prints: list[NDArray[np.uint8]] = []
    for name, path in tqdm(files.items(), unit="picture", disable=None):
        try:
            gray = _read(path, name)
        except DecodeError as error:
            left_out.append(LeftOut(name, error.reason))
            continue
        height, width = gray.shape
        pages.append(Page(name, "", "", height, width, file.tell(), sha256(gray)))
        prints.append(fingerprint(gray))
        file.write(gray.data)
    originals = kept(prints, [page.size for page in pages])
    for page, original in zip(pages, (pages[index] for index in originals), strict=True):
        if page is not original:
            same = page.sha256 == original.sha256
            how = "has the pixels of" if same else "is nearly the same picture as"
            left_out.append(LeftOut(page.name, f"{how} {original.name}"))
    left_out.sort()
    return _close_gaps(file, [pages[index] for index in sorted(set(originals))])


def _read(path: Path, name: str) -> Gray:
    """A page; DecodeError where there is none that can be used."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(name, f"cannot be read: {error.strerror}") from error
    gray = np.ascontiguousarray(codec.decode(File(name, data), MAX_PIXELS))
    if min(gray.shape) < MIN_SIDE:
        height, width = gray.shape
        raise DecodeError(name, f"is {width} x {height} pixels; {MIN_SIDE} a side are needed")
    ink = float((native.binarize(gray) == 0).mean())
    if ink < MIN_INK:
        raise DecodeError(name, f"is blank: {ink:.2%} of it are lines")
    return gray


def _close_gaps(file: IO[bytes], pages: list[Page]) -> list[Page]:
    """Move the pages of a file, in its order, to where the one before ends; cut off the rest."""
    end = 0
    moved = []
    for page in pages:
        if page.offset != end:
            file.seek(page.offset)
            pixels = file.read(page.size)
            file.seek(end)
            file.write(pixels)
        moved.append(dataclasses.replace(page, offset=end))
        end += page.size
    file.truncate(end)
    file.seek(end)
    return moved
