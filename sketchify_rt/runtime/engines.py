"""TensorRT engines of a model on this machine: build and verify, find, or refuse in words.

Importing this module raises BackendUnavailable where TensorRT is not installed.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shlex
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event

import torch

from sketchify_rt import tiling
from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.models import Kind, Model
from sketchify_rt.options import Options, Precision
from sketchify_rt.runtime import engine_cache, engine_record, onnx_files, onnx_typed
from sketchify_rt.runtime.engine_cache import Engine
from sketchify_rt.runtime.engine_record import EnginePrecision, Machine, Origin, Recipe
from sketchify_rt.runtime.tensorrt import TensorRTRuntime, on
from sketchify_rt.runtime.tensorrt_builder import Progress, build
from sketchify_rt.runtime.tensorrt_log import trt
from sketchify_rt.runtime.verify import verify

log = logging.getLogger("sketchify_rt")

_TELL = 30  # seconds between two lines in the log while an engine is built


def machine(index: int = 0) -> Machine:
    """What an engine built here, on the GPU of that number, is bound to.

    Raises BackendUnavailable where there is no such GPU.
    """
    if index >= torch.cuda.device_count():
        raise BackendUnavailable(f"TensorRT needs an NVIDIA GPU, and there is no cuda:{index}")
    card = torch.cuda.get_device_properties(index)
    return Machine(
        tensorrt=trt.__version__,
        gpu=card.name,
        capability=f"{card.major}.{card.minor}",
    )


def make(
    model: Model,
    recipe: Recipe,
    device: torch.device,
    *,
    folder: Path | None = None,
    force: bool = False,
    bounds: tuple[float, float] | None = None,
    timing_cache: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Event | None = None,
) -> Engine:
    """The engine of that recipe for this machine, built and verified unless it is there.

    folder: where it is or will be, None for the cache. force: build also where it is there. bounds:
    see `verify`. timing_cache: TensorRT's measurements, read and written; None for a file in the
    cache. progress: is told phase by phase. cancelled: set it to end the build.

    One process builds, others that want the same wait for it. What was there before stays until the
    new engine has passed its verification. Raises ModelError, OptionsError, BackendUnavailable,
    EngineError, DeviceMemoryError, OutputError, and concurrent.futures.CancelledError.
    """
    where = machine(device.index or 0)
    origin = _origin(model, recipe.precision)
    engine_record.check(recipe, model.manifest)
    root = engine_cache.root()
    if folder is None:
        folder = root / engine_cache.folder_name(origin, recipe, where)
    cancelled = cancelled or Event()
    with engine_cache.locked(folder, lambda: _go_on(cancelled)), on(device):
        if not force and (engine := _there(folder, origin, recipe, where)):
            return engine
        start = time.monotonic()
        plan = build(
            _graph(model, recipe.precision),
            recipe,
            timing_cache=timing_cache or root / _timing_name(where),
            progress=progress,
            cancelled=cancelled,
        )
        if progress:
            progress(Progress("Verification", 0, 1, time.monotonic() - start))
        check = verify(
            TensorRTRuntime(
                plan,
                f"the new engine of {origin.name}",
                device,
                host_code=recipe.version_compatible,
            ),
            model,
            recipe.precision,
            device,
            bounds,
            lambda: _go_on(cancelled),
        )
        _go_on(cancelled)
        seconds = time.monotonic() - start
        return engine_cache.store(folder, plan, origin, recipe, where, seconds, check)


def open_runtime(
    model: Model,
    options: Options,
    device: torch.device,
    workers: int,
    memory: int | None = None,
) -> TensorRTRuntime:
    """An engine that runs, as the options say, in that many bytes of the device.

    `options.engine` is used or refused. Else it is one from the cache; where that has none, or one
    that is of no use any more, it is built if the options ask for TensorRT by name. Raises
    EngineError, whose words tell how to build one, and what `make` raises.
    """
    if options.engine is not None:
        engine = _given(Path(options.engine), model, options, device)
        return _load(engine, device, workers, memory)
    precision = _asked(options.precision, "fp16")
    origin = _origin(model, precision)
    found, why = engine_cache.find(
        engine_cache.root(), origin, precision, machine(device.index or 0)
    )
    try:
        if found is None:
            raise EngineError(
                f"no TensorRT engine of {options.model} for this machine"
                f"{f' ({why})' if why else ''}; {_command(options.model, precision)} builds one"
            )
        return _load(found, device, workers, memory)
    except EngineError as error:
        if options.runtime != "tensorrt":
            raise
        log.warning("%s: which is done now, and takes minutes", error)
        recipe = recipe_of(model, precision)
        engine = make(model, recipe, device, force=found is not None, progress=_logged())
        return _load(engine, device, workers, memory)


def recipe_of(model: Model, precision: EnginePrecision = "fp16") -> Recipe:
    """What is built unless it is said otherwise: of one shape of tile."""
    side = tiling.static_side(model.manifest.halo, model.manifest.stride)
    return Recipe(precision, tile=(side, side, side))


def _load(
    engine: Engine, device: torch.device, workers: int, memory: int | None
) -> TensorRTRuntime:
    code = engine.record.recipe.version_compatible
    return TensorRTRuntime(engine.plan(), str(engine.folder), device, workers, code, memory)


def _given(folder: Path, model: Model, options: Options, device: torch.device) -> Engine:
    engine = engine_cache.read(folder)
    made = engine.record.recipe.precision
    asked = _asked(options.precision, made)
    origin = _origin(model, made)
    why = engine_record.unfit(engine.record, origin, asked, machine(device.index or 0))
    if why:
        how = f" --output {shlex.quote(str(folder))} --force"
        raise EngineError(
            f"{folder}: {why}; {_command(options.model, asked, how)} builds such a one"
        )
    return engine


def _asked(precision: Precision, auto: EnginePrecision) -> EnginePrecision:
    if precision == "auto":
        return auto
    return "fp16" if precision == "half" else precision


def _go_on(cancelled: Event) -> None:
    if cancelled.is_set():
        raise CancelledError("the build of the engine was cancelled")


def _there(folder: Path, origin: Origin, recipe: Recipe, where: Machine) -> Engine | None:
    """What `make` is asked for, where it has been made already."""
    try:
        engine = engine_cache.read(folder)
        engine.plan()
    except EngineError:
        return None
    return engine if engine.record.key == engine_record.key(origin, recipe, where) else None


def _command(model: str, precision: str, how: str = "") -> str:
    form = "" if precision == "fp16" else f" --precision {precision}"
    return f"`sketchify-rt build-engine {shlex.quote(model)}{form}{how}`"


def _origin(model: Model, precision: EnginePrecision) -> Origin:
    data = onnx_files.read(model, _kind(precision))
    return Origin(model.manifest.name, hashlib.sha256(data).hexdigest())


def _graph(model: Model, precision: EnginePrecision) -> bytes:
    kind = _kind(precision)
    return onnx_typed.typed(onnx_files.read(model, kind), precision, str(model.file(kind)))


def _kind(precision: EnginePrecision) -> Kind:
    return "int8" if precision == "int8" else "float"


def _timing_name(where: Machine) -> str:
    # Of one card and one version of TensorRT: it refuses the measurements of others.
    card = re.sub(r"[^a-z0-9]+", "-", where.gpu.lower()).strip("-")
    return f"{card}-tensorrt-{where.tensorrt}.timing"


def _logged() -> Callable[[Progress], None]:
    last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last > _TELL:
            last = time.monotonic()
            log.warning("building an engine for %.0f s: %s", progress.seconds, progress.phase)

    return tell
