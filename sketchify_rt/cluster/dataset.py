"""A folder of a cloud -> another one, by Ray Data."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np

from sketchify_rt.batch.sources import ENDINGS
from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.cluster.connect import import_ray
from sketchify_rt.options import Encoding


def convert_dataset(
    source: str,
    target: str,
    encoding: Encoding | None = None,
    *,
    actors: int = 1,
    batch_size: int = 8,
    gpu: bool = False,
    **options: Any,
) -> Iterator[dict[str, str]]:
    """Convert the pictures in and below a folder with Ray Data, all of it in the workers.

    source, target: URIs of folders as pyarrow or fsspec know them, s3://bucket/pages, or paths that
    all machines see. The sketch of a.jpg is a.jpg.png, whole or not there; one that is there is
    replaced. actors: of one GPU each, or of `threads` processors, 1 if not given; options: fields
    of `Options`.

    Gives a row for each picture, as they come: "source", "output", below the target, "status",
    "converted" or "failed", and "reason". A picture whose worker was lost is converted again, as
    often as it takes. Ray is the one that is started, or else starts. Raises BackendUnavailable
    where it is not installed, and Ray's errors where a folder cannot be read.
    """
    ray = import_ray()
    encoding = encoding or Encoding()
    threads = options.setdefault("threads", 1)
    system, root = _filesystem(source)
    pages = ray.data.read_binary_files(
        root, filesystem=system, include_paths=True, file_extensions=sorted(ENDINGS)
    )
    rows = pages.map_batches(
        _Files,
        fn_constructor_args=(root, target, encoding),
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_size=batch_size,
        **({"num_gpus": 1} if gpu else {"num_cpus": threads}),
    )
    yield from rows.iter_rows()


class _Files(SketchActor):
    """Writes the sketches as well. root, target: as of `convert_dataset`."""

    def __init__(self, root: str, target: str, encoding: Encoding, **options: Any) -> None:
        super().__init__(encoding, **options)
        self._root = root
        self._system, self._folder = _filesystem(target)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = super().__call__(batch)
        told = [
            self._row(*row) for row in zip(rows["path"], rows["sketch"], rows["error"], strict=True)
        ]
        return {name: np.array([row[name] for row in told], object) for name in told[0]}

    def _row(self, path: str, sketch: bytes | None, reason: str) -> dict[str, str]:
        output = f"{os.path.relpath(path, self._root)}.{self.encoding.format}"
        if sketch is not None:
            try:
                self._write(f"{self._folder}/{output}", sketch)
            except OSError as error:
                reason = f"{output}: cannot be written: {error}"
        status = "failed" if reason else "converted"
        return {"source": path, "output": output, "status": status, "reason": reason}

    def _write(self, path: str, data: bytes) -> None:
        from pyarrow import fs

        # Object stores show a file when it is whole; those with folders get it by another name.
        stored = isinstance(self._system, (fs.S3FileSystem, fs.GcsFileSystem))
        part = path if stored else f"{os.path.dirname(path)}/.{secrets.token_hex(8)}.part"  # noqa: PTH120
        if not stored:
            self._system.create_dir(os.path.dirname(path))  # noqa: PTH120
        with self._system.open_output_stream(part) as file:
            file.write(data)
        if not stored:
            self._system.move(part, path)


def _filesystem(uri: str) -> tuple[Any, str]:
    """What pyarrow knows, or else fsspec, and the path there."""
    import pyarrow
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        from fsspec.core import url_to_fs

        other, path = url_to_fs(uri)
        system = fs.PyFileSystem(fs.FSSpecHandler(other))
    return system, path.rstrip("/")
