"""Converts a folder of a cloud into another one, with Ray Data."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np

from sketchify_rt.batch.sources import ENDINGS
from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.cluster.pool import import_ray
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
    """Converts the images in a folder and in its subfolders. The workers read and write the files.

    The sketch of a.jpg is a.jpg.png. An existing file is replaced. Files are written atomically.
    Images of a worker that was lost are converted again, without a limit. The images go to the
    cluster that Ray is connected to, or else to one that Ray starts.

    Args:
        source: Folder, as a URI that pyarrow or fsspec supports, such as s3://bucket/pages, or as a
            path that exists on all machines.
        target: Folder for the sketches, in the same form.
        encoding: Format of the sketches; None for PNG.
        actors: Number of worker processes. Each has one GPU, or `threads` processors.
        batch_size: Number of images that a worker takes at a time.
        gpu: Whether each worker has a GPU.
        **options: Fields of `Options`. `threads` is 1 by default.

    Yields:
        A row for each image, as soon as it is done. "source": path of the image. "output": path of
        the sketch, relative to `target`. "status": "converted" or "failed". "reason": why it
        failed, or "".

    Raises:
        BackendUnavailable: Ray is not installed.
        Exception: Ray's own errors, for example if a folder cannot be read.
    """
    ray = import_ray()
    threads = options.setdefault("threads", 1)
    system, root = _filesystem(source)
    pages = ray.data.read_binary_files(
        root, filesystem=system, include_paths=True, file_extensions=sorted(ENDINGS)
    )
    rows = pages.map_batches(
        _FileActor,
        fn_constructor_args=(root, target, encoding),
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_size=batch_size,
        **({"num_gpus": 1} if gpu else {"num_cpus": threads}),
    )
    yield from rows.iter_rows()


class _FileActor(SketchActor):
    """Also writes the sketches. root, target: see `convert_dataset`."""

    def __init__(self, root: str, target: str, encoding: Encoding | None, **options: Any) -> None:
        super().__init__(encoding, **options)
        self._root = root
        self._system, self._folder = _filesystem(target)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = super().__call__(batch)
        ending = self.encoding.format
        outputs = [f"{os.path.relpath(path, self._root)}.{ending}" for path in rows["path"]]
        reasons = [
            error or self._write(output, sketch)
            for output, sketch, error in zip(outputs, rows["sketch"], rows["error"], strict=True)
        ]
        status = ["failed" if reason else "converted" for reason in reasons]
        columns = {"source": rows["path"], "output": outputs, "status": status, "reason": reasons}
        return {name: np.array(column, object) for name, column in columns.items()}

    def _write(self, output: str, sketch: bytes) -> str:
        """Writes a file atomically. Returns the reason if that fails, else ""."""
        from pyarrow import fs

        path = f"{self._folder}/{output}"
        folder = os.path.dirname(path)  # noqa: PTH120 (of a file system of pyarrow)
        # Object stores show a file when it is complete. In folders it gets its name at the end.
        stored = isinstance(self._system, (fs.S3FileSystem, fs.GcsFileSystem))
        part = path if stored else f"{folder}/.{secrets.token_hex(8)}.part"
        try:
            if not stored:
                self._system.create_dir(folder)
            with self._system.open_output_stream(part) as file:
                file.write(sketch)
            if not stored:
                self._system.move(part, path)
        except OSError as error:
            return f"{output}: cannot be written: {error}"
        return ""


def _filesystem(uri: str) -> tuple[Any, str]:
    """Returns the file system of pyarrow, or else of fsspec, and the path in it."""
    import pyarrow
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        from fsspec.core import url_to_fs

        other, path = url_to_fs(uri)
        system = fs.PyFileSystem(fs.FSSpecHandler(other))
    return system, path.rstrip("/")
