"""A small TensorRT for tests without one: the part of its Python API that this project uses.

It really computes, with ONNX Runtime on the CPU: a plan is a header and the ONNX it was made of,
and addresses are of host memory. It refuses what the real one refuses, in the same way: None, False
or an exception, with an ERROR to the logger. A test may ask for failures, see `fail`.
tests/test_tensorrt_bindings.py holds names, values and parameters against the real bindings.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError

from sketchify_rt import tensorrt as wing

__version__ = "11.4.0.106"

# Steps that fail from now on: builder, runtime, network, config, parse, profile, set_shape,
# add_profile, timing_cache, build, memory, deserialize, room, context, device_memory,
# set_input_shape, infer_shapes, address, consumed, enqueue; and what comes out wrong: nan, off.
fail: set[str] = set()
on_step: Callable[[], None] | None = None  # called in the build, after each step but the last

# Of ours, in sketchify_rt.tensorrt: those that use TensorRT.
MODULES = sorted(
    path.stem
    for path in Path(*wing.__path__).glob("*.py")
    if re.search(r"\btrt\b|tensorrt\.session import", path.read_text("utf-8"))
)

_MAGIC = b"fake plan\n"
_CACHE = b"fake timing cache "
_BYTES_PER_PIXEL = 8  # of device memory, for the largest input
_STEPS = 3  # of each phase of a build


def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this module `tensorrt`, for one test; modules of ours that use it are imported anew.

    Returns the module, with no failures asked for.
    """
    fake = sys.modules[__name__]
    monkeypatch.setattr(fake, "fail", set())
    monkeypatch.setattr(fake, "on_step", None)
    forget(monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", fake)
    return fake


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of ours that use TensorRT are imported anew, in this test and after it."""
    for module in MODULES:
        # Set before it is taken away, so that what the test imports goes too.
        for table, name in (
            (sys.modules, f"{wing.__name__}.{module}"),
            (vars(wing), module),
        ):
            monkeypatch.setitem(table, name, ModuleType(name))
            del table[name]


def header(plan: bytes) -> dict[str, Any]:
    """How a plan was built: tensorrt, profile, flags, level, workspace, hardware, strongly_typed.

    entries: of the timing cache, before the build.
    """
    fields: dict[str, Any] = json.loads(plan.removeprefix(_MAGIC).partition(b"\n")[0])
    return fields


class _Enum(enum.Enum):
    """Not an integer, but made into one, as pybind11's are."""

    def __int__(self) -> int:
        return int(self.value)


class DataType(_Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5


float32, float16, uint8 = DataType.FLOAT, DataType.HALF, DataType.UINT8

_TYPES = {
    onnx.TensorProto.FLOAT: (DataType.FLOAT, np.float32),
    onnx.TensorProto.FLOAT16: (DataType.HALF, np.float16),
    onnx.TensorProto.UINT8: (DataType.UINT8, np.uint8),
}


class NetworkDefinitionCreationFlag(_Enum):
    STRONGLY_TYPED = 0


class BuilderFlag(_Enum):
    TF32 = 6
    VERSION_COMPATIBLE = 12


class HardwareCompatibilityLevel(_Enum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class MemoryPoolType(_Enum):
    WORKSPACE = 0


class ExecutionContextAllocationStrategy(_Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ErrorCode(_Enum):
    MODEL_DESERIALIZE_FAILED = 3
    UNSUPPORTED_NODE = 8
    UNSUPPORTED_NODE_DATATYPE = 11


class ILogger:
    class Severity(_Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        self._made = True  # the real one also needs its constructor called

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class _Logs:
    def __init__(self, logger: ILogger) -> None:
        assert logger._made
        self._logger = logger

    def _error(self, message: str) -> None:
        self._logger.log(ILogger.ERROR, message)

    def _fails(self, step: str, message: str) -> bool:
        if step in fail:
            self._error(message)
        return step in fail


class IHostMemory(bytes):
    pass


class ITimingCache(_Logs):
    """Keeps the number of builds that it has seen."""

    def __init__(self, logger: ILogger, entries: int) -> None:
        super().__init__(logger)
        self._entries = entries

    def serialize(self) -> IHostMemory | None:
        if self._fails("memory", "no host memory for the timing cache"):
            return None
        return IHostMemory(_CACHE + f"{__version__} {self._entries}".encode())


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(
        self,
        input: str,  # noqa: A002
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        ordered = all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        if "set_shape" in fail or not ordered:
            raise ValueError("Shape provided for opt is inconsistent with other shapes.")
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IProgressMonitor:
    def __init__(self) -> None:
        self._made = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IBuilderConfig(_Logs):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: IProgressMonitor | None = None
        self._profiles: list[IOptimizationProfile] = []
        self._pools: dict[MemoryPoolType, int] = {}
        self._flags = {BuilderFlag.TF32}
        self._cache: ITimingCache | None = None

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        if self._fails("add_profile", "invalid profile") or not profile._shapes:
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        if self._fails("timing_cache", "no memory for a timing cache"):
            return None
        if not serialized_timing_cache:
            return ITimingCache(self._logger, 0)
        version, _, entries = serialized_timing_cache.removeprefix(_CACHE).partition(b" ")
        if not serialized_timing_cache.startswith(_CACHE) or not entries.isdigit():
            self._error("the timing cache is corrupt")
            return None
        # One of another version is told only where it is put to use.
        return ITimingCache(self._logger, int(entries) if version.decode() == __version__ else -1)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache._entries < 0 and not ignore_mismatch:
            self._error("the timing cache was made by another version or for another device")
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class ITensor:
    def __init__(self, name: str) -> None:
        self.name = name


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags = flags
        self._model = onnx.ModelProto()

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    def get_input(self, index: int) -> ITensor:
        return ITensor(self._model.graph.input[index].name)


class ParserError:
    def __init__(
        self, code: ErrorCode, desc: str, node: int = -1, name: str = "", operator: str = ""
    ) -> None:
        self._code, self._desc = code, desc
        self._node, self._name, self._operator = node, name, operator

    def code(self) -> ErrorCode:
        return self._code

    def desc(self) -> str:
        return self._desc

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


class OnnxParser(_Logs):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        super().__init__(logger)
        self._network = network
        self._errors: list[ParserError] = []

    def parse(self, model: bytes, path: str | None = None) -> bool:
        if "parse" in fail:
            unsupported, mixed = ErrorCode.UNSUPPORTED_NODE, ErrorCode.UNSUPPORTED_NODE_DATATYPE
            self._errors = [
                ParserError(unsupported, "no importer for Foo", 3, "/down/foo", "Foo"),
                ParserError(mixed, "HALF times FLOAT", 5, "/up/mul", "Mul"),
            ]
        else:
            try:
                self._network._model = onnx.load_model_from_string(model)
            except DecodeError:
                failed = ErrorCode.MODEL_DESERIALIZE_FAILED
                self._errors = [ParserError(failed, "failed to parse the model")]
        for error in self._errors:
            self._error(error.desc())
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class Builder(_Logs):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        if self._fails("builder", "CUDA initialization failure with error: 35"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        if self._fails("network", "no memory for a network"):
            return None
        return INetworkDefinition(flags)

    def create_builder_config(self) -> IBuilderConfig | None:
        return None if self._fails("config", "no memory") else IBuilderConfig(self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile | None:
        return None if self._fails("profile", "no memory") else IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        self._logger.log(ILogger.WARNING, "a tactic was skipped")
        profile = config._profiles[0]._shapes if config._profiles else {}
        for tensor in network._model.graph.input:
            if -1 in _shape(tensor) and tensor.name not in profile:
                self._error(f"{tensor.name}: dynamic, but not in an optimization profile")
                return None
        # The real one reports from threads of its own, too.
        with ThreadPoolExecutor(1) as pool:
            if not pool.submit(_report, config.progress_monitor).result():
                self._error("the build was cancelled")
                return None
        if self._fails("build", "Could not find any implementation for node conv1: out of memory"):
            return None
        entries = 0
        if config._cache:
            entries = config._cache._entries
            config._cache._entries += 1
        fields = {
            "tensorrt": __version__,
            "profile": profile,
            "flags": sorted(flag.name for flag in config._flags),
            "level": config.builder_optimization_level,
            "workspace": config._pools.get(MemoryPoolType.WORKSPACE),
            "hardware": config.hardware_compatibility_level.name,
            "entries": entries,
            "strongly_typed": bool(
                network._flags >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1
            ),
        }
        body = json.dumps(fields).encode() + b"\n" + network._model.SerializeToString()
        return IHostMemory(_MAGIC + body + hashlib.sha256(body).digest())


def _report(monitor: IProgressMonitor | None) -> bool:
    """A phase within a phase; False where it was cancelled.

    An exception out of the monitor would end the real process: here it fails the test.
    """
    if monitor is None:
        return True
    assert monitor._made
    monitor.phase_start("Build", None, _STEPS)  # type: ignore[arg-type]  # the real one's type, too
    going = True
    for step in range(_STEPS):
        monitor.phase_start(f"Layer {step}", "Build", 1)
        going = going and monitor.step_complete(f"Layer {step}", 0)
        monitor.phase_finish(f"Layer {step}")
        going = going and monitor.step_complete("Build", step)
        if not going:
            break
        if on_step and step < _STEPS - 1:
            on_step()
    monitor.phase_finish("Build")
    return going


class Runtime(_Logs):
    def __init__(self, logger: ILogger) -> None:
        super().__init__(logger)
        # Without a driver the real one logs this, is there nevertheless, and ends the process when
        # it is put to use.
        self._broken = self._fails("runtime", "CUDA initialization failure with error: 35")
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        assert not self._broken, "this would have been a segmentation fault"
        plan = bytes(serialized_engine)
        if self._fails("deserialize", "Serialization: Version tag does not match"):
            return None
        if self._fails("room", "cudaMalloc: out of memory"):
            return None
        body, digest = plan[len(_MAGIC) : -32], plan[-32:]
        if not plan.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
            self._error("Magic tag does not match: a corrupt plan, or of another version")
            return None
        fields = header(plan)
        # Another version can run it where it holds the lean runtime of its own.
        code = "VERSION_COMPATIBLE" in fields["flags"]
        if code and not self.engine_host_code_allowed:
            self._error("the plan contains host code, which is not allowed")
            return None
        if fields["tensorrt"] != __version__ and not code:
            self._error(f"the plan is of TensorRT {fields['tensorrt']}, this is {__version__}")
            return None
        return ICudaEngine(self._logger, fields["profile"], body.partition(b"\n")[2])


class ICudaEngine(_Logs):
    def __init__(self, logger: ILogger, profile: dict[str, Any], model: bytes) -> None:
        super().__init__(logger)
        self._profile = profile
        import onnxruntime  # here: the tests on a GPU are collected without it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        graph = onnx.load_model_from_string(model).graph
        self._inputs = {tensor.name: tensor for tensor in graph.input}
        self._tensors = self._inputs | {tensor.name: tensor for tensor in graph.output}

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> DataType:
        return _TYPES[self._tensors[name].type.tensor_type.elem_type][0]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return [tuple(shape) for shape in self._profile[name]]

    @property
    def device_memory_size_v2(self) -> int:
        return sum(_BYTES_PER_PIXEL * math.prod(shapes[2]) for shapes in self._profile.values())

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> IExecutionContext | None:
        if self._fails("context", "Requested amount of GPU memory could not be allocated"):
            return None
        return IExecutionContext(self._logger, self, strategy)


class IExecutionContext(_Logs):
    def __init__(
        self,
        logger: ILogger,
        engine: ICudaEngine,
        strategy: ExecutionContextAllocationStrategy,
    ) -> None:
        super().__init__(logger)
        self._engine = engine
        self._memory = strategy is not ExecutionContextAllocationStrategy.USER_MANAGED
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_device_memory(self, memory: int, size: int) -> None:
        needed = self._engine.device_memory_size_v2
        self._memory = not memory % 256 and size >= needed and "device_memory" not in fail
        if not self._memory:
            self._error(f"memory at {memory:#x} of {size} bytes: {needed} are needed, aligned")

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        low, _, high = self._engine.get_tensor_profile_shape(name, 0)
        fits = len(shape) == len(low) and all(
            a <= b <= c for a, b, c in zip(low, shape, high, strict=True)
        )
        if not fits or "set_input_shape" in fail:
            self._error(f"{name}: {tuple(shape)} is outside of the profile, {low} to {high}")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        names = list(self._engine._inputs)
        return names if "infer_shapes" in fail else [n for n in names if n not in self._shapes]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self._fails("address", f"{name}: bad address") or name not in self._engine._tensors:
            return False
        self._addresses[name] = memory
        return True

    def set_input_consumed_event(self, event: int) -> bool:
        return not self._fails("consumed", "bad event")

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._fails("enqueue", "an illegal memory access was encountered"):
            return False
        engine = self._engine
        unset = {*self.infer_shapes(), *(engine._tensors.keys() - self._addresses.keys())}
        if unset or not self._memory:
            self._error(f"not set: {', '.join(sorted(unset)) or 'device memory'}")
            return False
        feeds = {name: self._array(name, shape) for name, shape in self._shapes.items()}
        outputs = [name for name in engine._tensors if name not in feeds]
        for name, value in zip(outputs, engine._session.run(outputs, feeds), strict=True):
            if "nan" in fail:
                value = np.full_like(value, np.nan)
            elif "off" in fail:
                value = 1 - value
            self._array(name, value.shape)[...] = value
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = _TYPES[self._engine._tensors[name].type.tensor_type.elem_type][1]
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raw = (ctypes.c_uint8 * size).from_address(self._addresses[name])
        return np.frombuffer(raw, dtype).reshape(shape)


def _shape(tensor: onnx.ValueInfoProto) -> tuple[int, ...]:
    sides = tensor.type.tensor_type.shape.dim
    return tuple(side.dim_value if side.HasField("dim_value") else -1 for side in sides)
