"""A process of a cluster that converts images."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from sketchify_rt import inputs, stream
from sketchify_rt.batch.runner import explain
from sketchify_rt.options import MAX_WORKERS, Encoding, check_encoding
from sketchify_rt.sketchifier import Sketchifier

if TYPE_CHECKING:
    from sketchify_rt.options import Keywords


class SketchActor:
    """Converts batches of Ray Data: image files in, sketches out. Keeps the model open.

    Attributes:
        encoding: Format of the sketches.
        sketchify: The `Sketchifier` in use.
        lanes: Number of threads that may convert at the same time, 1..8.

    Examples:
        >>> import ray
        >>> from sketchify_rt import Encoding
        >>> from sketchify_rt.cluster import SketchActor
        >>> pages = ray.data.read_binary_files("s3://bucket/pages", include_paths=True)
        >>> sketches = pages.map_batches(
        ...     SketchActor,
        ...     fn_constructor_kwargs={"encoding": Encoding("webp"), "threads": 2, "device": "cpu"},
        ...     compute=ray.data.ActorPoolStrategy(size=8),
        ...     num_cpus=2,  # as many as threads; or num_gpus=1, and no device
        ...     batch_size=16,
        ... )
        >>> sketches.write_parquet("s3://bucket/sketches")  # `convert_dataset` writes image files
    """

    def __init__(
        self,
        encoding: Encoding | None = None,
        model: str | os.PathLike[str] = "lite",
        **options: Unpack[Keywords],
    ) -> None:
        """Opens the model.

        Args:
            encoding: Format of the sketches; None for PNG.
            model: Name of a shipped model, or path of an ONNX file.
            **options: Fields of `Options`.

        Raises:
            OptionsError: An option does not exist, or may not have that value, or not with the
                encoding.
            ModelError: The model cannot be read.
            BackendUnavailable: The device or the runtime cannot be used.
            EngineError: The TensorRT engine cannot be used.
            DeviceMemoryError: The model does not fit into the memory of the GPU.
        """
        import cv2

        cv2.setNumThreads(1)  # the threads of OpenCV would run beside those of the options
        self.encoding = encoding or Encoding()
        self.sketchify = Sketchifier(model, **options)
        check_encoding(self.encoding, self.sketchify.options)
        self.lanes = min(self.sketchify.backend.workers, MAX_WORKERS)
        self.sketchify.prepare(self.lanes)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Converts a batch. A row that fails has an error; nothing is raised for it.

        Args:
            batch: Columns, NumPy arrays (N,). "bytes" holds image files. "path", if present, holds
                their names for messages.

        Returns:
            The columns of `batch`, with "sketch" and "error" in place of "bytes". "sketch" holds
            the bytes of an image file, or None. "error" holds the reason of a failure, or "".
        """
        names = [str(name) for name in batch.get("path", ["<bytes>"] * len(batch["bytes"]))]
        files = [
            inputs.File(name, bytes(data)) for name, data in zip(names, batch["bytes"], strict=True)
        ]
        encode = functools.partial(self.sketchify.encode_batch, encoding=self.encoding)
        work = stream.batches(files, lambda: self.sketchify.batch, inputs.on_device)
        results = list(stream.in_order(encode, work, self.lanes, inputs.on_device))
        errors = [
            explain(result, Path(name)) if isinstance(result, Exception) else ""
            for name, result in zip(names, results, strict=True)
        ]
        sketches = [
            None if error else result for result, error in zip(results, errors, strict=True)
        ]
        rest = {name: column for name, column in batch.items() if name != "bytes"}
        return rest | {"sketch": np.array(sketches, object), "error": np.array(errors, object)}
