"""A model as NVIDIA Triton Inference Server takes it: a folder of its model repository.

``NAME/config.pbtxt`` tells what goes in and comes out, by the schema `model_config.proto` of
https://github.com/triton-inference-server/common, and ``NAME/1/`` holds the model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sketchify_rt.batch import sinks
from sketchify_rt.errors import EngineError, ModelError, OptionsError, OutputError
from sketchify_rt.kernels.reference import CELL
from sketchify_rt.models import Kind, Manifest, Model
from sketchify_rt.runtime import onnx_files
from sketchify_rt.tensorrt import cache

_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}
_TYPES = {"u8": "UINT8", "f16": "FP16", "f32": "FP32"}  # OpenVINO's names and the server's


@dataclass(frozen=True)
class Tensor:
    """What goes in or comes out. kind: "UINT8", "FP16" or "FP32"; dims: of one of a batch, -1 for
    any size.
    """

    name: str
    kind: str
    dims: Sequence[int]


@dataclass(frozen=True)
class Served:
    """A model for the server.

    backend: of the server, "onnxruntime" or "tensorrt"; inputs: the binary, and the hint if the
    model takes one; max_batch: images that go together at
    most; best_batch: images that it waits for, None for as many as there are; data: the model's
    file.
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
        """The model's, as the name of a folder."""
        return re.sub(r"[^\w-]", "-", self.manifest.name) or "model"

    def config(self, delay: int) -> str:
        """The text of ``config.pbtxt``. delay: microseconds that an image may wait for others."""
        batching = f"  max_queue_delay_microseconds: {delay}\n"
        if self.best_batch is not None:
            batching = f"  preferred_batch_size: [{self.best_batch}]\n{batching}"
        parameters = "".join(
            f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
            for key, value in (("stride", self.manifest.stride), ("halo", self.manifest.halo))
        )
        inputs = "".join(f"input {_text(tensor)}" for tensor in self.inputs)
        return (
            f'name: "{self.name}"\nbackend: "{self.backend}"\nmax_batch_size: {self.max_batch}\n'
            f"{inputs}output {_text(self.output)}"
            f"dynamic_batching {{\n{batching}}}\n{parameters}"
        )


def of_onnx(model: Model, kind: Kind = "float", max_batch: int = 8) -> Served:
    """The ONNX file, for the server's ONNX Runtime backend.

    max_batch: at least 1. Raises ModelError where the file cannot be read, or is not of one image
    in, maybe with its hint, and one out, in batches of any size; and BackendUnavailable in a fork,
    see `Sketchifier`.
    """
    from sketchify_rt.runtime import openvino  # which reads the graph: slow to import

    path = model.file(kind)
    data = onnx_files.read(model, kind)
    given, made = openvino.signature(data, path)
    more = [name for name, *_ in given[1:]]
    if not given or more not in ([], ["hint"]) or len(made) != 1:
        raise ModelError(
            f"{path}: it must have one input, or that and a second input 'hint', and one output"
        )
    inputs = [_tensor(path, *each) for each in given]
    output = _tensor(path, *made[0])
    return Served(model.manifest, "onnxruntime", inputs, output, max_batch, None, data)


def of_engine(path: Path, model: Model, max_batch: int | None = None) -> Served:
    """An engine of `sketchify-rt build-engine`, for the server's TensorRT backend.

    max_batch: None for what the engine takes. Raises EngineError where there is no engine, it is
    damaged, or of another model; OptionsError where it does not take such batches.
    """
    engine = cache.read(path)
    recipe, origin = engine.record.recipe, engine.record.origin
    kind: Kind = "int8" if recipe.precision == "int8" else "float"
    if origin.sha256 != hashlib.sha256(onnx_files.read(model, kind)).hexdigest():
        raise EngineError(
            f"{path}: built from other weights of {origin.name} than {model.path}. Give the model "
            "that it was built from, or build another with `sketchify-rt build-engine`"
        )
    least, best, most = recipe.batch
    if least > 1 or (max_batch or most) > most:
        raise OptionsError(
            f"{path}: it takes {least} to {most} images together; the server needs 1 to "
            f"{max_batch or most}: `sketchify-rt build-engine --batch` builds such a one"
        )
    max_batch = max_batch or most
    side = recipe.tile[0] if recipe.static else -1
    dims = (1, side, side)
    inputs = [Tensor("binary", "UINT8", dims)]
    if model.manifest.takes_hint:
        cells = side // CELL if recipe.static else -1
        inputs.append(Tensor("hint", "UINT8", (1, cells, cells)))
    return Served(
        model.manifest,
        "tensorrt",
        inputs,
        Tensor("tones", "FP32" if recipe.precision == "fp32" else "FP16", dims),
        max_batch,
        min(best, max_batch),
        engine.plan,
    )


def write(root: Path, served: Served, delay: int = 100, overwrite: bool = False) -> Path:
    """Write the model into the repository `root`, which is made if need be; returns its folder.

    The configuration comes last, so a server never sees one without its model, and each file is
    whole or not there. Other versions of the model stay. delay: see `Served.config`. overwrite:
    replace a model of that name. Raises OutputError.
    """
    folder = root / served.name
    config, version = folder / "config.pbtxt", folder / "1"
    for path in (config, *(version / file for file in _FILES.values())):
        if path.exists() and not overwrite:
            raise OutputError(f"{path}: exists already; give --overwrite, or another folder")
    model = version / _FILES[served.backend]
    fresh = not model.exists()
    sinks.write(model, served.data)
    try:
        sinks.write(config, served.config(delay).encode())
    except BaseException:
        if fresh:
            model.unlink(missing_ok=True)
        raise
    for backend, file in _FILES.items():
        if backend != served.backend:
            try:
                (version / file).unlink(missing_ok=True)
            except OSError as error:
                raise sinks.explained(version / file, error, "cannot be removed") from error
    return folder


def _tensor(path: Path, name: str, kind: str, dims: list[int]) -> Tensor:
    if kind not in _TYPES or len(dims) != 4 or dims[0] != -1:
        raise ModelError(
            f"{path}: {name!r} is {kind} of {dims}; it must be u8, f16 or f32 of (N, 1, H, W), "
            "with N dynamic; export it with dynamic axes"
        )
    return Tensor(name, _TYPES[kind], dims[1:])


def _text(tensor: Tensor) -> str:
    name = json.dumps(tensor.name, ensure_ascii=False)
    dims = ", ".join(map(str, tensor.dims))
    return f"{{\n  name: {name}\n  data_type: TYPE_{tensor.kind}\n  dims: [{dims}]\n}}\n"
