"""TensorRT engines of a model on this machine: find one, or build and verify it.

Importing this module raises BackendUnavailable where TensorRT is not installed.
"""

from __future__ import annotations

import datetime
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

from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.models import Kind, Model
from sketchify_rt.options import Options
from sketchify_rt.runtime import onnx_files
from sketchify_rt.tensorrt import cache, typed_onnx
from sketchify_rt.tensorrt.build import Progress, build
from sketchify_rt.tensorrt.cache import Damaged, Engine
from sketchify_rt.tensorrt.library import trt
from sketchify_rt.tensorrt.record import EnginePrecision, Machine, Origin, Recipe, Record
from sketchify_rt.tensorrt.session import TensorRTRuntime, on
from sketchify_rt.tensorrt.verify import verify

log = logging.getLogger("sketchify_rt")

_LOG_EVERY = 30  # seconds between two lines in the log while an engine is built


def this_machine(index: int = 0) -> Machine:
    """Return what an engine is bound to that is built here.

    Args:
        index: Number of the GPU.

    Raises:
        BackendUnavailable: There is no such GPU.
    """
    if index >= torch.cuda.device_count():
        raise BackendUnavailable(f"TensorRT needs an NVIDIA GPU, and there is no cuda:{index}")
    card = torch.cuda.get_device_properties(index)
    return Machine(trt.__version__, card.name, f"{card.major}.{card.minor}")


def make(
    model: Model,
    recipe: Recipe,
    device: torch.device,
    *,
    path: Path | None = None,
    force: bool = False,
    bounds: tuple[float, float] | None = None,
    timing_cache: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Event | None = None,
) -> Engine:
    """Return the engine of a model by a recipe for this machine; build and verify it if need be.

    One process builds; others that want the same engine wait for it. An engine that was there
    stays until the new one has passed its verification.

    Args:
        model: What to build it from.
        recipe: What to build.
        device: The GPU to build on.
        path: The engine's file; None for one in the cache.
        force: Build even if the engine is there.
        bounds: See `verify`.
        timing_cache: File of TensorRT's measurements, read and written; None for one in the cache.
        progress: Called with each phase of the build.
        cancelled: Set it to end the build.

    Returns:
        The engine, as it is on the disk.

    Raises:
        ModelError: The model cannot be read.
        OptionsError: No engine can be built like this.
        BackendUnavailable: TensorRT cannot build here.
        EngineError: The build or the verification failed, or `path` is another file.
        DeviceMemoryError: The GPU has no room for the engine.
        OutputError: The engine cannot be written.
        concurrent.futures.CancelledError: `cancelled` was set.
    """
    machine = this_machine(device.index or 0)
    origin, data = _source(model, recipe.precision)
    recipe.check(model.manifest)
    root = cache.root()
    path = path or root / cache.file_name(origin, recipe, machine)
    cancelled = cancelled or Event()

    def go_on() -> None:
        if cancelled.is_set():
            raise CancelledError("the build of the engine was cancelled")

    with cache.locked(path, go_on), on(device):
        if not force and path.exists():
            try:
                engine = cache.read(path)
            except Damaged:
                if path.parent != root:  # it may be another file of the user's
                    raise
            else:
                there = engine.record
                if (there.origin, there.recipe, there.machine) == (origin, recipe, machine):
                    return engine
        start = time.monotonic()
        plan = build(
            typed_onnx.typed(data, recipe.precision, str(model.file(_kind(recipe.precision)))),
            recipe,
            timing_cache=timing_cache or root / _timing_name(machine),
            progress=progress,
            cancelled=cancelled,
        )
        if progress:
            progress(Progress("Verification", 0, 1))
        runtime = TensorRTRuntime(plan, f"the new engine of {origin.name}", device)
        check = verify(runtime, model, recipe.precision, device, bounds)
        go_on()
        built = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        seconds = round(time.monotonic() - start, 1)
        record = Record(origin, recipe, machine, check, built, seconds)
        return cache.write(path, record, plan)


def open_runtime(
    model: Model,
    options: Options,
    device: torch.device,
    workers: int,
    memory: int | None = None,
) -> TensorRTRuntime:
    """Open the engine that the options ask for.

    `options.engine` is used or refused. Without it the engine is one from the cache. If the cache
    has none that can be used, it is built when `options.runtime` is "tensorrt".

    Args:
        model: The model that it must be built from.
        options: engine, model, precision and runtime are read.
        device: The GPU.
        workers: Number of calls at a time.
        memory: Bytes of the device that it may work in; None for all.

    Returns:
        The engine at work.

    Raises:
        EngineError: There is no such engine; the message tells how to build one.
        DeviceMemoryError: There is no room for it.
        ModelError: See `make`, which may also raise OptionsError, BackendUnavailable and
            OutputError.
    """
    precision: EnginePrecision | None = None
    if options.precision != "auto":
        precision = "fp16" if options.precision == "half" else options.precision
    machine = this_machine(device.index or 0)
    if options.engine is not None:
        engine = cache.read(Path(options.engine))
        made = engine.record.recipe.precision
        why = engine.record.mismatch(machine, _source(model, made)[0])
        if precision not in (None, made):
            why = f"built for {made}, not {precision}"
        if why:
            command = _command(options.model, precision or made, engine.path)
            raise EngineError(f"{engine.path}: {why}; {command} builds such an engine")
        return TensorRTRuntime(engine.plan, str(engine.path), device, workers, memory)
    precision = precision or "fp16"
    origin, _ = _source(model, precision)
    found, why = cache.find(cache.root(), origin, precision, machine)
    try:
        if found is None:
            raise EngineError(
                f"no TensorRT engine of {options.model} for this machine"
                f"{f' ({why})' if why else ''}; {_command(options.model, precision)} builds one"
            )
        return TensorRTRuntime(found.plan, str(found.path), device, workers, memory)
    except EngineError as error:
        if options.runtime != "tensorrt":
            raise
        log.warning("%s. It is built now, which takes minutes", error)
        recipe = Recipe.suited(model.manifest, precision=precision)
        engine = make(model, recipe, device, force=found is not None, progress=_logged())
        return TensorRTRuntime(engine.plan, str(engine.path), device, workers, memory)


def _command(model: str, precision: str, path: Path | None = None) -> str:
    form = "" if precision == "fp16" else f" --precision {precision}"
    where = f" --output {shlex.quote(str(path))} --force" if path else ""
    return f"`sketchify-rt build-engine {shlex.quote(model)}{form}{where}`"


def _source(model: Model, precision: EnginePrecision) -> tuple[Origin, bytes]:
    """The identity and the content of the ONNX file that an engine is built from."""
    data = onnx_files.read(model, _kind(precision))
    return Origin(model.manifest.name, hashlib.sha256(data).hexdigest()), data


def _kind(precision: EnginePrecision) -> Kind:
    return "int8" if precision == "int8" else "float"


def _timing_name(machine: Machine) -> str:
    # TensorRT refuses the measurements of another card or version.
    card = re.sub(r"[^a-z0-9]+", "-", machine.gpu.lower()).strip("-")
    return f"{card}-tensorrt-{machine.tensorrt}.timing"


def _logged() -> Callable[[Progress], None]:
    start = last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > _LOG_EVERY:
            last = now
            log.warning("building an engine for %.0f s: %s", now - start, progress.phase)

    return tell
