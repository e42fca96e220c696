"""Export a checkpoint to ONNX with its manifest."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sketchify_rt.kernels.reference import CELL
from sketchify_rt.models import Manifest
from training import checkpoint as checkpoints
from training.describe import describe
from training.errors import TrainingError
from training.model import UNet, flop_per_pixel

OPSET = 20
_ConvNorm = tuple[nn.Conv2d, nn.BatchNorm2d]


def export(
    checkpoint: Path,
    output: Path,
    credit: str,
    data: str,
    licence: str | None = None,
    average: Sequence[Path] = (),
) -> Manifest:
    """Write `output` (.onnx) and the manifest beside it (.json); returns the manifest.

    credit: the line that the licence of the training pages asks for. data: what they were. licence:
    of the weights, an SPDX expression, told in the ONNX file. average: further checkpoints, of runs
    that began with the same weights or with each other's; the mean of all is written (Wortsman et
    al. 2022, arXiv:2203.05482). Raises TrainingError where one is no checkpoint, has weights that
    are no finite numbers, or has another U-Net than the first.
    """
    models = [_finite(path) for path in (checkpoint, *average)]
    for path, other in zip(average, models[1:], strict=True):
        if other.config != models[0].config:
            raise TrainingError(f"{path} has a U-Net of {other.config}, not {models[0].config}")
    weights = [model.state_dict() for model in models]
    means = {
        name: torch.stack([each[name].float() for each in weights]).mean(0) for name in weights[0]
    }
    models[0].load_state_dict(means)
    training = {"data": data, **_history(checkpoints.load(checkpoint))}
    if average:
        training["averaged_with"] = [_history(checkpoints.load(path)) for path in average]
    return write(models[0], output, credit, training, licence)


def _finite(checkpoint: Path) -> UNet:
    model = checkpoints.load_model(checkpoint)
    if not all(values.isfinite().all() for values in model.state_dict().values()):
        raise TrainingError(f"{checkpoint}: has weights that are no numbers; train anew")
    return model


def _history(state: dict[str, Any]) -> dict[str, Any]:
    """Recipe, steps and minutes of a run, and in place of `recipe.initial` those of that run."""
    recipe = {name: value for name, value in state["recipe"].items() if name != "model"}
    if isinstance(recipe.get("initial"), str):  # an exported one's is told in full already
        recipe["initial"] = _history(state["initial"])
    told = {"recipe": recipe, "step": state["step"], "minutes": round(state["seconds"] / 60)}
    if "averaged_with" in state:
        told["averaged_with"] = state["averaged_with"]
    return told


def write(
    model: UNet, output: Path, credit: str, training: dict[str, Any], licence: str | None = None
) -> Manifest:
    """Write a U-Net as `export` does; `training` and `credit` are the manifest's."""
    config = model.config
    graph = halve_weights(to_onnx(inference_form(model)))
    describe(graph, config, credit, licence)
    onnx.checker.check_model(graph, full_check=True)
    content = graph.SerializeToString()
    manifest = Manifest(
        name=output.stem,
        sha256=hashlib.sha256(content).hexdigest(),
        stride=config.stride,
        halo=config.halo,
        gflop_per_megapixel=round(flop_per_pixel(config) / 1e3, 3),
        parameters=sum(p.numel() for p in model.parameters()),
        architecture=dataclasses.asdict(config),
        training=training,
        credit=credit,
        metrics={},
    )
    output.write_bytes(content)
    manifest.write(output.with_suffix(".json"))
    return manifest


def inference_form(model: UNet) -> UNet:
    """The same function in fewer operators: BatchNorm folded, the stem as a strided convolution.

    A pixel-unshuffle by u and a 3x3 convolution are one convolution of side 3u, stride u, padding
    u; the exporter would write the pixel-unshuffle as a dozen shape operators. A hint becomes a
    second channel of its input, at the size of the page: it has one value per position of the
    unshuffled page, so each pixel within a position takes an equal share of its weight.
    """
    model = copy.deepcopy(model).eval()
    blocks = [*model.down, *model.merge] if model.config.norms else []
    for block in cast("list[nn.Sequential]", blocks):
        for conv, norm in ((0, 1), (3, 4)):
            block[conv] = fuse_conv_bn_eval(*cast("_ConvNorm", (block[conv], block[norm])))
            block[norm] = nn.Identity()
    u, width, hint = model.config.unshuffle, model.config.width, model.config.hint
    entry = cast("nn.Sequential", model.down[0])
    first = cast("nn.Conv2d", entry[0])
    stem = nn.Conv2d(1 + hint, width, 3 * u, stride=u, padding=u)
    # From (feature, row within, column within, tap row, tap column) to (.., tap, within) each way.
    taps = first.weight.detach()
    pixels = taps[:, : u * u].reshape(width, u, u, 3, 3).permute(0, 3, 1, 4, 2)
    channels = [pixels.reshape(width, 1, 3 * u, 3 * u)]
    if hint:
        channels.append(taps[:, u * u :].repeat_interleave(u, 2).repeat_interleave(u, 3) / u**2)
    stem.weight = nn.Parameter(torch.cat(channels, dim=1))
    stem.bias = first.bias
    model.stem, entry[0], model.hint_scale = nn.Identity(), stem, CELL
    return model


def to_onnx(model: UNet) -> onnx.ModelProto:
    """An FP32 graph of dynamic batch, height and width."""
    stride = model.config.stride
    batch, rows, columns = (torch.export.Dim(name) for name in ("batch", "rows", "columns"))
    sizes = {"binary": 1} | ({"hint": CELL} if model.config.hint else {})
    with _quietly():
        program = torch.onnx.export(
            model,
            tuple(torch.zeros(2, 1, 4 * stride // s, 4 * stride // s) for s in sizes.values()),
            dynamo=True,
            input_names=[*sizes],
            output_names=["tones"],
            dynamic_shapes=tuple(
                {0: batch, 2: stride // s * rows, 3: stride // s * columns} for s in sizes.values()
            ),
            opset_version=OPSET,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    graph = program.model_proto
    for node in graph.graph.node:  # the exporter's notes hold paths of the exporting machine
        del node.metadata_props[:]
    del graph.graph.value_info[:]
    del graph.metadata_props[:]
    return graph


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the exporter says of packages that it does not need, and torch about torch."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", r"# The axis name: \w+ will not be used")
            yield
    finally:
        logger.setLevel(level)


def halve_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Keep the weights as FP16 and cast them up in the graph: half the file, FP32 arithmetic."""
    graph = model.graph
    casts = []
    scales = {name for node in graph.node if node.op_type == "Resize" for name in node.input}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and weight.name not in scales:
            name = weight.name
            half = numpy_helper.to_array(weight).astype("float16")
            weight.CopyFrom(numpy_helper.from_array(half, f"{name}.fp16"))
            casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model
