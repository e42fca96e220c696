"""Build a TensorRT engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from sketchify_rt import files
from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.kernels.reference import CELL
from sketchify_rt.runtime.engine_record import Recipe
from sketchify_rt.runtime.tensorrt_log import LOG, Log, checked, trt

log = logging.getLogger("sketchify_rt")

INPUT, HINT = "binary", "hint"


@dataclass(frozen=True)
class Progress:
    """How far a build is: `step` of `steps` in a phase, `seconds` after it began.

    Phases lie in each other, the innermost is told; nobody knows beforehand how many there will be.
    """

    phase: str
    step: int
    steps: int
    seconds: float


def build(
    graph: bytes,
    recipe: Recipe,
    *,
    timing_cache: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Event | None = None,
) -> bytes:
    """The plan of a typed ONNX file, see `onnx_typed`, on the current CUDA device.

    Takes seconds to minutes, in the calling thread.

    timing_cache: file that keeps what kernels took, so that the next build is faster; written, if
        the build succeeds, whatever becomes of the plan.
    progress: called now and then, from any thread; there may be minutes between two calls. What it
        raises ends the build.
    cancelled: ends the build where it is set, at the next step.

    Raises EngineError, BackendUnavailable where TensorRT's builder is not there or does not work,
    and concurrent.futures.CancelledError.
    """
    if not hasattr(trt, "Builder"):
        raise BackendUnavailable(
            f"{trt.__name__} is the lean runtime, which cannot build engines: install TensorRT "
            "itself; see docs/engines.md"
        )
    said = LOG
    builder = checked(lambda: trt.Builder(said), said)
    monitor = _Monitor(progress, cancelled or Event())
    # TensorRT 11 knows no other networks; 10 makes them so where asked to.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    if network is None or config is None or profile is None:
        raise _failure("TensorRT cannot begin a build", said)
    _parse(graph, network, said)
    _configure(config, recipe)
    names = [network.get_input(index).name for index in range(network.num_inputs)]
    _give_shapes(config, profile, recipe, HINT in names, said)
    if timing_cache is not None:
        _load(timing_cache, config, said)
    config.progress_monitor = monitor
    said.words(of_all=True)  # of what has not failed
    plan = builder.build_serialized_network(network, config)
    monitor.check()
    if plan is None:
        raise _failure("TensorRT cannot build the engine", said)
    if timing_cache is not None:
        _save(timing_cache, config, said)
    return bytes(plan)


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its types are not always there
    """Tells a callback how far the build is. TensorRT calls it from any thread."""

    def __init__(self, tell: Callable[[Progress], None] | None, cancelled: Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._tell = tell
        self._cancelled = cancelled
        self._begun = time.perf_counter()
        self._steps: dict[str, int] = {}
        self._error: BaseException | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        self._report(phase_name, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self._report(phase_name, step + 1)
        return self._error is None and not self._cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        self._steps.pop(phase_name, None)

    def check(self) -> None:
        """Raises what the callback raised, or CancelledError."""
        if self._error is not None:
            raise self._error
        if self._cancelled.is_set():
            raise CancelledError("the build of the engine was cancelled")

    def _report(self, phase: str, step: int) -> None:
        if self._tell is None or self._error is not None:
            return
        seconds = time.perf_counter() - self._begun
        try:
            self._tell(Progress(phase, step, self._steps.get(phase, step), seconds))
        except BaseException as error:  # which must not go on into C++
            self._error = error


def _parse(graph: bytes, network: trt.INetworkDefinition, said: Log) -> None:
    parser = trt.OnnxParser(network, said)
    if parser.parse(graph):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [
        f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): "
        f"{error.code().name}: {error.desc()}"
        for error in errors
    ]
    raise EngineError(
        "TensorRT cannot read the network; what it lacks may be in a newer version of TensorRT: "
        + ("; ".join(told) or said.words(of_all=True) or "it does not say why")
    )


def _configure(config: trt.IBuilderConfig, recipe: Recipe) -> None:
    config.builder_optimization_level = recipe.optimization_level
    if recipe.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace << 20)
    if recipe.precision == "fp32":  # not with the 10 bits of TF32
        config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.version_compatible:
        # Puts this version's lean runtime into the plan, for newer versions to run it with: without
        # that, EXCLUDE_LEAN_RUNTIME, they would have to be given that library.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _give_shapes(
    config: trt.IBuilderConfig,
    profile: trt.IOptimizationProfile,
    recipe: Recipe,
    hint: bool,
    said: Log,
) -> None:
    least, best, most = (
        (count, 1, side, side) for count, side in zip(recipe.batch, recipe.tile, strict=True)
    )
    try:
        profile.set_shape(INPUT, least, best, most)
        if hint:  # a byte for each cell; tiles are whole cells
            cells = [(n, 1, h // CELL, w // CELL) for n, _, h, w in (least, best, most)]
            profile.set_shape(HINT, *cells)
        index = config.add_optimization_profile(profile)
    except (ValueError, RuntimeError) as error:
        raise _failure(f"TensorRT refuses the shapes {least} to {most}: {error}", said) from error
    if index < 0:
        raise _failure(f"TensorRT refuses the shapes {least} to {most}", said)


def _load(path: Path, config: trt.IBuilderConfig, said: Log) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise EngineError(f"{path}: the timing cache cannot be read: {error}") from error
    if data and not _use(data, config):
        log.warning("%s: this timing cache is begun anew: %s", path, said.words(of_all=True))
        data = b""
    if not data and not _use(data, config):
        raise _failure("TensorRT gives no timing cache", said)


def _use(data: bytes, config: trt.IBuilderConfig) -> bool:
    """Whether TensorRT takes the contents of a timing cache; none are an empty one."""
    cache = config.create_timing_cache(data)
    return cache is not None and config.set_timing_cache(cache, ignore_mismatch=False)


def _save(path: Path, config: trt.IBuilderConfig, said: Log) -> None:
    """Replaces the file at once. The engine is worth more: a failure is only told."""
    cache = config.get_timing_cache()
    data = None if cache is None else cache.serialize()
    if data is None:
        log.warning(
            "%s: TensorRT gives no timing cache to write: %s", path, said.words(of_all=True)
        )
        return
    try:
        files.atomic_write(path, bytes(data))
    except OSError as error:
        log.warning("%s: the timing cache cannot be written: %s", path, error)


def _failure(what: str, said: Log) -> EngineError:
    words = said.words(of_all=True) or "it does not say why"
    if "memory" in words.lower():
        remedy = "free the GPU, or give a smaller --batch, --tile or --workspace"
    elif "implementation" in words:  # none of a layer: mostly for want of workspace
        remedy = "give more --workspace, another --opt-level, or --precision fp32"
    else:
        remedy = "see docs/engines.md"
    return EngineError(f"{what}: {words}; {remedy}")
