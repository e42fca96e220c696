"""The pages as `prepare` packs them: a file of pixels and a manifest that tells what is where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sketchify_rt.image import Gray
from training.errors import TrainingError

MANIFEST, PIXELS = "manifest.json", "pages.u8"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Page:
    """What the manifest tells of a page.

    name: its path below the folder of pictures, with slashes; source: what it was taken from, such
    as a book; split: one of SPLITS, the same for all pages of a source; height, width: pixels;
    offset: of its first byte in PIXELS; sha256: of its pixels, row by row, in hexadecimal.
    """

    name: str
    source: str
    split: str
    height: int
    width: int
    offset: int
    sha256: str

    @property
    def size(self) -> int:
        """Pixels, which are bytes."""
        return self.height * self.width


@dataclass(frozen=True)
class Pages:
    """Gray pages. One that is given no `sources` and `hashes` does without the former.

    names, sources: as in `Page`; images: luma, uint8 (H, W), read-only and mapped into memory;
    hashes: SHA-256 of each image's pixels.
    """

    names: tuple[str, ...]
    images: tuple[Gray, ...]
    sources: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """SHA-256 of the names, sizes and pixels of all pages, in hexadecimal."""
        hashes = self.hashes or tuple(map(sha256, self.images))
        shapes = [(image.shape[0], image.shape[1]) for image in self.images]
        return _digest(self.names, shapes, hashes)

    @classmethod
    def load(cls, folder: Path, split: str | None = None) -> Pages:
        """Open a folder that ``python -m training prepare`` wrote.

        split: one of SPLITS, whose pages may be none; None for all pages. Raises TrainingError
        where the folder holds no prepared pages, or not all of them, and for another split.
        """
        if split not in (None, *SPLITS):
            raise TrainingError(f"there is no split {split}; there are {' and '.join(SPLITS)}")
        everything = _read_manifest(folder)
        flat = _map_pixels(folder, everything)
        pages = [page for page in everything if split in (None, page.split)]
        return cls(
            tuple(page.name for page in pages),
            tuple(
                flat[page.offset : page.offset + page.size].reshape(page.height, page.width)
                for page in pages
            ),
            tuple(page.source for page in pages),
            tuple(page.sha256 for page in pages),
        )


def sha256(image: Gray) -> str:
    """Of the pixels of an image, row by row, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()


def trailer(pages: Sequence[Page]) -> bytes:
    """What stands behind the pixels of these pages, so that no other manifest is taken for theirs.

    32 bytes, the digest of `Pages`.
    """
    shapes = [(page.height, page.width) for page in pages]
    digest = _digest([page.name for page in pages], shapes, [page.sha256 for page in pages])
    return bytes.fromhex(digest)


def _digest(names: Sequence[str], shapes: Sequence[tuple[int, int]], hashes: Sequence[str]) -> str:
    rows = [
        (name, *shape, digest) for name, shape, digest in zip(names, shapes, hashes, strict=True)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _read_manifest(folder: Path) -> list[Page]:
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise TrainingError(
            f"{folder}: no prepared pages there; python -m training prepare PICTURES {folder} "
            "makes them"
        ) from error
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror}") from error
    fields = [field.name for field in dataclasses.fields(Page)]
    try:
        entries = json.loads(data)["pages"]
        return [Page(**{field: entry[field] for field in fields}) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: is no manifest of prepared pages; prepare again") from error


def _map_pixels(folder: Path, pages: Sequence[Page]) -> Gray:
    path = folder / PIXELS
    behind = trailer(pages)
    size = sum(page.size for page in pages)
    try:
        # Without the class of np.memmap, whose slices take longer to make.
        flat = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}; prepare again") from error
    if flat.size != size + len(behind) or flat[size:].tobytes() != behind:
        raise TrainingError(
            f"{path}: is not whole, or belongs to another {MANIFEST} than the one beside it; "
            "prepare again"
        )
    return flat
