"""Writes a model into a model repository of NVIDIA Triton Inference Server.

``NAME/1/`` holds the model. ``NAME/config.pbtxt`` describes its inputs and outputs, by the schema
`model_config.proto` of https://github.com/triton-inference-server/common.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sketchify_rt import files
from sketchify_rt.errors import EngineError, ModelError, OptionsError, OutputError
from sketchify_rt.image import CELL
from sketchify_rt.models import Kind, Manifest, Model
from sketchify_rt.runtime import onnx_files
from sketchify_rt.tensorrt import cache

_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_TYPES = {"u8": "UINT8", "f16": "FP16", "f32": "FP32"}  # names of OpenVINO and of the server


Tensor = tuple[str, str, Sequence[int]]
"""Name; "UINT8", "FP16" or "FP32"; shape without the batch, -1 for any size."""


@dataclass(frozen=True)
class Served:
    """A model for the server.

    Attributes:
        manifest: Manifest of the model.
        backend: Backend of the server: "onnxruntime" or "tensorrt".
        inputs: The binary, and the hint if the model takes one.
        output: The tones.
        max_batch: Maximum number of images of a batch.
        best_batch: Number of images that the server waits for; None for no such number.
        data: Content of the model's file.
    """

    manifest: Manifest
    backend: str
    inputs: Sequence[Tensor]
    output: Tensor
    max_batch: int
    best_batch: int | None
    data: bytes

    @property
    def name(self) -> str:
        """Name of the model, as a folder may have it."""
        return re.sub(r"[^\w-]", "-", self.manifest.name) or "model"

    def config(self, delay: int) -> str:
        """Makes the text of ``config.pbtxt``.

        Args:
            delay: Maximum time that an image waits for others, in microseconds.

        Returns:
            The text.
        """
        tensors = "".join(_text("input", *tensor) for tensor in self.inputs)
        tensors += _text("output", *self.output)
        best = f"  preferred_batch_size: [{self.best_batch}]\n" if self.best_batch else ""
        return f"""\
name: "{self.name}"
backend: "{self.backend}"
max_batch_size: {self.max_batch}
{tensors}dynamic_batching {{
{best}  max_queue_delay_microseconds: {delay}
}}
parameters {{ key: "stride" value {{ string_value: "{self.manifest.stride}" }} }}
parameters {{ key: "halo" value {{ string_value: "{self.manifest.halo}" }} }}
"""


def of_onnx(model: Model, kind: Kind = "float", max_batch: int = 8) -> Served:
    """Takes the ONNX file, for the server's ONNX Runtime backend.

    Args:
        model: The model.
        kind: "float", or "int8" for its INT8 form.
        max_batch: Maximum number of images of a batch, at least 1.

    Returns:
        The model for the server.

    Raises:
        ModelError: The file cannot be read, or its inputs and outputs are not those of a U-Net that
            takes batches of any size.
        BackendUnavailable: OpenVINO cannot be used, for example in a fork, see `Sketchifier`.
    """
    from sketchify_rt.runtime import openvino  # reads the graph; slow to import

    path = model.file(kind)
    data = onnx_files.read(model, kind)
    inputs, outputs = (
        [_tensor(path, *each) for each in tensors] for tensors in openvino.signature(data, path)
    )
    names = [name for name, *_ in (*inputs, *outputs)]
    if not inputs or len(outputs) != 1 or names[1:-1] not in ([], ["hint"]):
        raise ModelError(
            f"{path}: wrong inputs and outputs: got {', '.join(names)}, expected one input, or "
            "that and a second input 'hint', and one output"
        )
    return Served(model.manifest, "onnxruntime", inputs, outputs[0], max_batch, None, data)


def of_engine(path: Path, model: Model, max_batch: int | None = None) -> Served:
    """Takes an engine of `sketchify-rt build-engine`, for the server's TensorRT backend.

    Args:
        path: File of the engine.
        model: The model that it was built from.
        max_batch: Maximum number of images of a batch; None for that of the engine.

    Returns:
        The engine for the server.

    Raises:
        EngineError: There is no engine, or it is damaged, or was built from another model.
        OptionsError: The engine does not take such batches.
    """
    engine = cache.read(path)
    recipe, origin, manifest = engine.record.recipe, engine.record.origin, model.manifest
    weights = manifest.int8_sha256 if recipe.precision == "int8" else manifest.sha256
    if origin.sha256 != weights:
        raise EngineError(
            f"{path}: the engine has other weights: got those of {origin.name}, expected "
            f"{model.path}. Use the model that it was built from, or run "
            "`sketchify-rt build-engine` again"
        )
    least, best, most = recipe.batch
    max_batch = max_batch or most
    if least > 1 or max_batch > most:
        raise OptionsError(
            f"{path}: the engine takes batches of {least} to {most} images, expected 1 to "
            f"{max_batch}. Use another --max-batch, or build an engine with "
            "`sketchify-rt build-engine --batch`"
        )
    side = recipe.tile[0] if recipe.static else -1
    cells = side // CELL if recipe.static else -1
    tones = "FP32" if recipe.precision == "fp32" else "FP16"
    inputs: list[Tensor] = [("binary", "UINT8", (1, side, side))]
    if manifest.takes_hint:
        inputs.append(("hint", "UINT8", (1, cells, cells)))
    output = ("tones", tones, (1, side, side))
    best = min(best, max_batch)
    return Served(manifest, "tensorrt", inputs, output, max_batch, best, engine.plan)


def write(root: Path, served: Served, delay: int = 100, overwrite: bool = False) -> Path:
    """Writes a model into a model repository. Other versions of the model stay.

    Files are written atomically, the configuration last: a server sees none without its model.

    Args:
        root: Folder of the repository. It is created if it does not exist.
        served: The model.
        delay: Maximum time that an image waits for others, in microseconds.
        overwrite: Replace an existing model of that name.

    Returns:
        The model's folder.

    Raises:
        OutputError: A file exists or cannot be written.
    """
    folder = root / served.name
    config, version = folder / "config.pbtxt", folder / "1"
    models = {backend: version / name for backend, name in _FILES.items()}
    for path in (config, *models.values()):
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; give --overwrite, or another folder")
    with files.whole(config) as file:
        file.write(served.config(delay).encode())
        file.flush()
        files.write(models.pop(served.backend), served.data)
    for path in models.values():
        path.unlink(missing_ok=True)
    return folder


def _tensor(path: Path, name: str, dtype: str, dims: list[int]) -> Tensor:
    if dtype not in _TYPES or len(dims) != 4 or dims[0] != -1:
        raise ModelError(
            f"{path}: wrong tensor {name!r}: got {dtype} {dims}, expected u8, f16 or f32 "
            "(N, 1, H, W) with any N. Export the model with dynamic axes"
        )
    return name, _TYPES[dtype], dims[1:]


def _text(what: str, name: str, dtype: str, dims: Sequence[int]) -> str:
    quoted = json.dumps(name, ensure_ascii=False)
    return f"{what} {{\n  name: {quoted}\n  data_type: TYPE_{dtype}\n  dims: {list(dims)}\n}}\n"
