"""Build a plan, which is what TensorRT runs, from a typed ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from sketchify_rt import files
from sketchify_rt.errors import BackendUnavailable, EngineError
from sketchify_rt.kernels.reference import CELL
from sketchify_rt.tensorrt.library import LOG, checked, trt
from sketchify_rt.tensorrt.record import Recipe

log = logging.getLogger("sketchify_rt")


@dataclass(frozen=True)
class Progress:
    """How far a build is.

    Phases lie in each other and the innermost is told. Their number is not known beforehand.

    Attributes:
        phase: Name of the phase.
        step: Steps of it that are done.
        steps: Steps that it has.
    """

    phase: str
    step: int
    steps: int


def build(
    graph: bytes,
    recipe: Recipe,
    *,
    timing_cache: Path,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Event | None = None,
) -> bytes:
    """Build a plan on the current CUDA device. It takes seconds to minutes, in the calling thread.

    Args:
        graph: ONNX, see `typed_onnx`.
        recipe: What to build.
        timing_cache: File with TensorRT's measurements of kernels, which make the next build
            faster. It is read, and written if the build succeeds.
        progress: Called now and then, from any thread; there may be minutes between two calls.
            What it raises ends the build.
        cancelled: Ends the build at the next step once it is set.

    Returns:
        The plan.

    Raises:
        EngineError: TensorRT cannot build it.
        BackendUnavailable: TensorRT's builder is not installed, or does not work.
        concurrent.futures.CancelledError: `cancelled` was set.
    """
    if not hasattr(trt, "Builder"):
        raise BackendUnavailable(
            f"{trt.__name__} is the lean runtime, which cannot build engines. To fix: install "
            "TensorRT itself; see docs/engines.md"
        )
    builder = checked(lambda: trt.Builder(LOG))
    # TensorRT 11 knows no other networks; 10 makes them so where asked to.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    if network is None or config is None or profile is None:
        raise _failure("TensorRT cannot begin a build")
    _parse(graph, network)
    _configure(config, recipe)
    _set_shapes(network, config, profile, recipe)
    _load_timings(timing_cache, config)
    monitor = config.progress_monitor = _Monitor(progress, cancelled or Event())
    LOG.words(of_all=True)  # of what has not failed
    plan = builder.build_serialized_network(network, config)
    monitor.check()
    if plan is None:
        raise _failure("TensorRT cannot build the engine")
    _save_timings(timing_cache, config)
    return bytes(plan)


class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # its types are not always there
    """Tells a callback how far the build is. TensorRT calls it from any thread."""

    def __init__(self, tell: Callable[[Progress], None] | None, cancelled: Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._tell = tell
        self._cancelled = cancelled
        self._steps: dict[str, int] = {}
        self._error: BaseException | None = None

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        self._steps[phase_name] = num_steps
        self._report(phase_name, 0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        self._report(phase_name, step + 1)
        return self._error is None and not self._cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        pass

    def check(self) -> None:
        """Raise what the callback raised, or CancelledError."""
        if self._error is not None:
            raise self._error
        if self._cancelled.is_set():
            raise CancelledError("the build of the engine was cancelled")

    def _report(self, phase: str, step: int) -> None:
        if self._tell is None or self._error is not None:
            return
        try:
            self._tell(Progress(phase, step, self._steps[phase]))
        except BaseException as error:  # which must not go on into C++
            self._error = error


def _parse(graph: bytes, network: trt.INetworkDefinition) -> None:
    parser = trt.OnnxParser(network, LOG)
    if parser.parse(graph):
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [
        f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): "
        f"{error.code().name}: {error.desc()}"
        for error in errors
    ]
    raise EngineError(
        "TensorRT cannot read the network; a newer version of TensorRT may: "
        + ("; ".join(told) or LOG.words(of_all=True) or "it does not say why")
    )


def _configure(config: trt.IBuilderConfig, recipe: Recipe) -> None:
    config.builder_optimization_level = recipe.optimization_level
    if recipe.workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace << 20)
    if recipe.precision == "fp32":  # not with the 10 bits of TF32
        config.clear_flag(trt.BuilderFlag.TF32)
    if recipe.version_compatible:
        # Puts this version's lean runtime into the plan, for newer versions to run it with. With
        # EXCLUDE_LEAN_RUNTIME they would have to be given that library.
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _set_shapes(
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    profile: trt.IOptimizationProfile,
    recipe: Recipe,
) -> None:
    shapes = [*zip(recipe.batch, recipe.tile, strict=True)]
    try:
        for index in range(network.num_inputs):
            name = network.get_input(index).name
            unit = CELL if name == "hint" else 1  # pixels that a value of the input is for
            profile.set_shape(name, *((n, 1, side // unit, side // unit) for n, side in shapes))
        if config.add_optimization_profile(profile) < 0:
            raise ValueError("invalid profile")
    except (ValueError, RuntimeError) as error:
        raise _failure(f"TensorRT refuses the shapes {shapes} ({error})") from error


def _load_timings(path: Path, config: trt.IBuilderConfig) -> None:
    data = b""
    with suppress(OSError):  # if it cannot be written either, that is told
        data = path.read_bytes()
    for contents in dict.fromkeys((data, b"")):
        cache = config.create_timing_cache(contents)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return
        log.warning("%s: TensorRT refuses this timing cache: %s", path, LOG.words(of_all=True))


def _save_timings(path: Path, config: trt.IBuilderConfig) -> None:
    """Write the timing cache. If that fails there is a warning, since the plan is worth more."""
    cache = config.get_timing_cache()
    data = None if cache is None else cache.serialize()
    if data is None:
        log.warning("%s: TensorRT gives no timing cache: %s", path, LOG.words(of_all=True))
        return
    try:
        files.atomic_write(path, bytes(data))
    except OSError as error:
        log.warning("%s: the timing cache cannot be written (%s)", path, error.strerror)


def _failure(what: str) -> EngineError:
    words = LOG.words(of_all=True) or "it does not say why"
    if "memory" in words.lower():
        remedy = "free GPU memory, or give a smaller --batch or --tile, or a larger --workspace"
    elif "implementation" in words:  # none of a layer: mostly for want of workspace
        remedy = "give a larger --workspace, another --opt-level, or --precision fp32"
    else:
        remedy = "see docs/engines.md"
    return EngineError(f"{what}: {words}. To fix: {remedy}")
