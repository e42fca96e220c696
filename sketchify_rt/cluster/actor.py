"""A process of a cluster that converts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sketchify_rt import inputs, stream
from sketchify_rt.batch.runner import explain
from sketchify_rt.options import MAX_WORKERS, Encoding
from sketchify_rt.sketchifier import Sketchifier

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded


class SketchActor:
    """One process of a cluster, with the model open: files in, sketches out.

    >>> import ray
    >>> from sketchify_rt.cluster import SketchActor
    >>> pages = ray.data.read_binary_files("s3://bucket/pages", include_paths=True)
    >>> sketches = pages.map_batches(
    ...     SketchActor,
    ...     fn_constructor_kwargs={"encoding": Encoding("webp"), "threads": 2, "device": "cpu"},
    ...     compute=ray.data.ActorPoolStrategy(size=8),
    ...     num_cpus=2,  # as many as threads; or num_gpus=1, and no device
    ...     batch_size=16,
    ... )
    >>> sketches.write_parquet("s3://bucket/sketches")  # `convert_dataset` makes files of them
    """

    def __init__(self, encoding: Encoding | None = None, **options: Any) -> None:
        """Open the model. encoding: of the sketches, PNG if None; options: fields of `Options`.

        Raises OptionsError, ModelError, BackendUnavailable, EngineError, DeviceMemoryError.
        """
        import cv2

        cv2.setNumThreads(1)  # its own threads would come on top of those of the options
        self.encoding = encoding or Encoding()
        self.sketchify = Sketchifier(**options)
        self.lanes = min(self.sketchify.backend.workers, MAX_WORKERS)
        self.sketchify.prepare(self.lanes)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Convert a batch of Ray Data, whose columns are NumPy arrays (N,); never raises for a row.

        batch: "bytes" has image files, "path", if there is one, their names for messages. The
        result has in the place of "bytes" the columns "sketch", the bytes of an image file or None,
        and "error", why there is none, "" where there is one. Other columns stay as they are.
        """
        names = [str(name) for name in batch.get("path", ["<bytes>"] * len(batch["bytes"]))]
        files = [
            inputs.File(name, bytes(data)) for name, data in zip(names, batch["bytes"], strict=True)
        ]
        step, size = self.convert, lambda: self.sketchify.batch
        work = stream.batches(files, size, inputs.on_device)
        results = list(stream.in_order(step, work, self.lanes, inputs.on_device))
        sketches, errors = (np.empty(len(files), object) for _ in range(2))
        for place, (name, result) in enumerate(zip(names, results, strict=True)):
            failed = isinstance(result, Exception)
            sketches[place] = None if failed else result
            errors[place] = explain(result, Path(name)) if isinstance(result, Exception) else ""
        rest = {name: column for name, column in batch.items() if name != "bytes"}
        return rest | {"sketch": sketches, "error": errors}

    def convert(
        self, images: Sequence[Loaded], encoding: Encoding | None = None
    ) -> list[bytes | Exception]:
        """See `Sketchifier.encode_batch`. From `lanes` threads at once."""
        return self.sketchify.encode_batch(images, encoding or self.encoding)
