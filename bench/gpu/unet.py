"""The U-Net in images a second, and as a share of what the card reaches on matrix products.

Two models: "lite", and one of 31 million random weights, which is bound by arithmetic. Two batches
each: of equal tiles, as images of any size are cut, and of whole pages; images_s counts tiles or
pages. tflop_s counts the convolutions of the architecture, a multiply-add as two, however they are
computed; matmul_share is its share of the measured FP16 matmul rate; to_eager how many times as
fast as torch eager.

  eager          training.model.UNet as one would run it: FP16, channels last, random weights
  compiled       the same under torch.compile
  ours eager     the module of runtime/torch.py without a graph
  CUDA graph     runtime/torch.py as the pipeline runs it
  ours compiled  the same with the option `compile`, of "lite"
  TensorRT       an engine of "lite", given by --engine or from the cache

All take uint8 pages on the device, "lite" with their hints, and give FP16 tones. Before, the
difference of FP16 from float32 in levels of 255 on a page, by the runtime.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from bench import harness
from bench.bench_kernels import inputs
from bench.findings import Finding, NotRun, Table, reason
from bench.gpu.setup import Setup
from bench.gpu.timing import DeviceTimer, Run, compared, release
from sketchify_rt import Options, SketchifyError, models
from sketchify_rt.image import CELL
from sketchify_rt.models import Model
from sketchify_rt.runtime.torch import TorchRuntime
from sketchify_rt.runtime.unet import load
from training.model import UNet
from training.recipe import UNetConfig

Step = Callable[..., object]
"""Of a batch of binaries, and their hints if the model takes them."""

_CALLS = 3  # before measuring: a shape's second use is captured, its third replayed


def measure(setup: Setup) -> Iterator[Finding]:
    """Both models."""
    yield from lite(setup)
    with tempfile.TemporaryDirectory() as folder:
        try:
            large = random_model(setup, Path(folder) / "large.onnx")
        except ImportError as error:
            yield NotRun("the U-Net of 31 million weights", reason(error))
            return
        yield from _model(setup, large, setup.scale.large_pixels)


def lite(setup: Setup) -> Iterator[Finding]:
    """The model "lite" alone."""
    if not setup.scale.compiling:
        yield NotRun("torch.compile", "left out of a short run")
    yield from _model(setup, models.load("lite"), setup.scale.lite_pixels)


def untrained(config: UNetConfig) -> UNet:
    """Random weights that keep values at their size from layer to layer, as training does.

    With torch's own they would fade towards zeros, on which a card is faster than on any picture.
    """
    torch.manual_seed(0)
    network = UNet(config)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def random_model(setup: Setup, path: Path) -> Model:
    """An untrained U-Net at `path`, exported as a trained one is. Raises ImportError."""
    from training.export import write  # needs onnx and onnxscript

    config = UNetConfig(setup.scale.large_width, setup.scale.large_depth, unshuffle=1)
    write(untrained(config), path, credit="nobody", training={})
    return models.load(str(path))


def _model(setup: Setup, model: Model, most: int) -> Iterator[Finding]:
    name, scale = model.manifest.name, setup.scale
    whole = [
        torch.from_numpy(plane).to(setup.device)
        for plane in inputs(model, scale.height, scale.width)
    ]
    yield _difference(setup, model, whole)
    sides = scale.tile, scale.tile // CELL
    part = [plane[:side, :side] for plane, side in zip(whole, sides, strict=False)]
    rows: list[harness.Row] = []
    for kind, planes in ("tiles", part), ("pages", whole):
        batch = _batch(planes, most)
        made, missing = _measured(setup, model, batch)
        rows += [{"batch": f"{len(batch[0])} {kind}", **row} for row in made]
        yield from (NotRun(f"{name}, {way}, {kind}", why) for way, why in missing.items())
        release(setup.device)
    yield Table(name, rows)


def _batch(planes: list[Tensor], most: int) -> list[Tensor]:
    """A power of two of shifted copies, at most `most` pixels together unless one has more."""
    count = 1 << (max(1, most // planes[0].numel()).bit_length() - 1)
    shifts = [[(37 * n, 53 * n) for n in range(count)], [(5 * n, 7 * n) for n in range(count)]]
    return [
        torch.stack([plane.roll(shift, (0, 1)) for shift in of_plane])
        for plane, of_plane in zip(planes, shifts, strict=False)
    ]


def _difference(setup: Setup, model: Model, planes: list[Tensor]) -> Table:
    tones = [
        TorchRuntime(model, setup.device, precision=precision)(*(x[None] for x in planes)).float()
        for precision in ("half", "fp32")
    ]
    levels = (tones[0] - tones[1]).abs() * 255
    row = {"largest_level": float(levels.max()), "mean_level": float(levels.mean())}
    return Table(f"{model.manifest.name}, FP16 from float32", [row])


def _measured(
    setup: Setup, model: Model, batch: list[Tensor]
) -> tuple[list[harness.Row], dict[str, str]]:
    candidates, missing = _candidates(setup, model)
    bound = {way: _bound(step, batch) for way, step in candidates.items()}
    with torch.no_grad():
        timer = DeviceTimer(setup.device)
        times, failed = compared(bound, setup, calls=_CALLS, timer=timer)
    gflop = model.manifest.gflop_per_megapixel * batch[0].numel() / 1e6
    limits = setup.limits
    rows: list[harness.Row] = [
        {
            "way": way,
            "images_s": len(batch[0]) / ms * 1e3,
            "ms": ms,
            "tflop_s": gflop / ms,
            "matmul_share": None if limits is None else gflop * 1e12 / ms / limits.flop,
            "to_eager": times["eager"] / ms if "eager" in times else None,
        }
        for way, ms in times.items()
    ]
    return rows, missing | failed


def _candidates(setup: Setup, model: Model) -> tuple[dict[str, Step], dict[str, str]]:
    device, half = setup.device, setup.half
    plain = untrained(UNetConfig(**model.manifest.architecture)).eval().to(device, half)
    plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def by(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *batch: network(*((x.to(half) / 255)[:, None] for x in batch))[:, 0]

    ways: dict[str, Step] = {
        "eager": by(plain),
        "ours eager": load(model, half).to(device),
        "CUDA graph": TorchRuntime(model, device),
    }
    missing: dict[str, str] = {}
    if setup.scale.compiling:
        ways["compiled"] = torch.compile(by(plain), dynamic=False)
        if model.manifest.name == "lite":
            ways["ours compiled"] = TorchRuntime(model, device, compile=True)
    if model.manifest.name == "lite":
        try:
            ways["TensorRT"] = _engine(setup, model)
        except SketchifyError as error:
            missing["TensorRT"] = reason(error)
    return ways, missing


def _engine(setup: Setup, model: Model) -> Step:
    from sketchify_rt.tensorrt import engines

    path = None if setup.engine is None else str(setup.engine)
    runtime = engines.open_runtime(model, Options(engine=path), setup.device, 1)
    together = runtime.most[0]

    def step(*batch: Tensor) -> object:
        parts = (torch.split(x, together) for x in batch)
        return [runtime(*part) for part in zip(*parts, strict=True)]

    return step


def _bound(step: Step, batch: list[Tensor]) -> Run:
    return lambda: step(*batch)
