"""What is known of a TensorRT engine: of what and for what it was built, and whether that fits."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, astuple, dataclass
from typing import Any, Literal, get_args

from sketchify_rt.errors import OptionsError
from sketchify_rt.models import Manifest

EnginePrecision = Literal["fp16", "fp32", "int8"]

EXPORT_FORMAT = 1
"""Number of the graphs that `onnx_typed` makes. Raise it if an ONNX file gives another graph than
before, or if the fields of a record change: engines with another number are refused and rebuilt."""

_AMPERE = (8, 0)  # compute capability


@dataclass(frozen=True)
class Recipe:
    """What is asked of a build.

    tile: least, best and longest side in pixels; three equal ones make a static engine. batch:
    least, best and largest number of tiles. optimization_level: 0..5, TensorRT's. workspace: MiB
    that a layer may work in, None for TensorRT's default. version_compatible, hardware_compatible:
    see `unfit`.
    """

    precision: EnginePrecision = "fp16"
    tile: tuple[int, int, int] = (512, 512, 512)
    batch: tuple[int, int, int] = (1, 16, 32)
    optimization_level: int = 3
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    def __post_init__(self) -> None:
        """Raises OptionsError naming what is out of its range."""
        if self.precision not in get_args(EnginePrecision):
            known = ", ".join(get_args(EnginePrecision))
            raise OptionsError(f"precision is {self.precision!r}; an engine's is one of {known}")
        for name in ("tile", "batch"):
            least, best, most = getattr(self, name)
            if not 1 <= least <= best <= most:
                raise OptionsError(
                    f"{name} is {least}, {best}, {most}; it must be the least, the best and the "
                    "most, from 1"
                )
        if not 0 <= self.optimization_level <= 5:
            raise OptionsError(f"optimization_level is {self.optimization_level}; it may be 0 to 5")
        if self.workspace is not None and self.workspace < 1:
            raise OptionsError(f"workspace is {self.workspace}; it must be at least 1 MiB")

    @property
    def static(self) -> bool:
        """Whether all tiles have one shape."""
        return self.tile[0] == self.tile[2]


@dataclass(frozen=True)
class Machine:
    """What a plan is bound to: TensorRT's version and the card. capability: as "9.0"."""

    tensorrt: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class Origin:
    """The model an engine is built from. sha256: of the ONNX file, hexadecimal."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Check:
    """How an engine did beside the float32 model.

    largest, mean: difference in levels of 255. megapixels_s: with batches of the best size. crops:
    number of tiles.
    """

    largest: float
    mean: float
    megapixels_s: float
    crops: int


@dataclass(frozen=True)
class Record:
    """All that is known of an engine.

    format: see `EXPORT_FORMAT`. plan: its file. built: UTC, ISO 8601. seconds: building.
    """

    format: int
    key: str
    origin: Origin
    recipe: Recipe
    machine: Machine
    plan: str
    plan_sha256: str
    plan_bytes: int
    built: str
    seconds: float
    check: Check


def check(recipe: Recipe, manifest: Manifest) -> None:
    """Raises OptionsError where a model cannot work on tiles of these sides."""
    from sketchify_rt import tiling  # NumPy, which --help does without

    stride = manifest.stride
    least = 2 * tiling.padded(manifest.halo, stride) + stride
    smallest, _, longest = recipe.tile
    if longest < least or any(side % stride for side in recipe.tile):
        raise OptionsError(
            f"tile is {longest}; {manifest.name} needs a multiple of {stride} from {least}"
        )
    if not recipe.static and smallest > stride:
        raise OptionsError(f"the least tile is {smallest}; of a dynamic engine it is {stride}")


def write(record: Record) -> bytes:
    """Return the record as JSON."""
    return json.dumps(asdict(record), indent=2).encode() + b"\n"


def read(text: bytes) -> Record:
    """Return the record that `write` gave.

    Raises:
        ValueError: It is damaged, or of another version of sketchify-rt. The message says so.
    """
    try:
        fields = json.loads(text)
        found = fields.get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"is damaged: expected a JSON object ({error})") from error
    if found != EXPORT_FORMAT:
        got = "no export format" if found is None else f"export format {found}"
        raise ValueError(
            f"is of another version of sketchify-rt: got {got}, expected {EXPORT_FORMAT}"
        )
    try:
        record = _record(fields)
        plan = plan_name(record.plan_sha256)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"is damaged: {error}") from error
    if record.key != key(record.origin, record.recipe, record.machine):
        raise ValueError("is damaged: its key is not that of its model, recipe and machine")
    numbers = record.plan_bytes, record.seconds, *astuple(record.check)
    if not isinstance(record.built, str) or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError("is damaged: one of its values has the wrong type")
    if record.plan != plan:  # never a path out of the folder
        raise ValueError(f"is damaged: the plan's name is {record.plan!r}")
    return record


def key(origin: Origin, recipe: Recipe, machine: Machine) -> str:
    """Return the SHA-256, hexadecimal, of all that decides what a build gives."""
    parts = [EXPORT_FORMAT, origin.sha256, asdict(recipe), asdict(machine)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan_name(sha256: str) -> str:
    """Return the file name of the plan with that SHA-256.

    Raises:
        ValueError: It is no SHA-256.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise ValueError(f"plan_sha256 is {sha256!r}")
    return f"{sha256[:16]}.plan"


def unfit(record: Record, origin: Origin, precision: str, machine: Machine) -> str | None:
    """Return why an engine cannot be used for this model on this machine; None if it can.

    A version compatible engine also runs in a newer TensorRT of the same major version, and in 11
    after 10; a hardware compatible one on any GPU from Ampere on. See
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
    """
    return "; ".join(objections(record, origin, precision, machine)) or None


def stale(record: Record, machine: Machine) -> str | None:
    """Return why an engine cannot be used on this machine, whatever the model; None if it can."""
    return unfit(record, record.origin, record.recipe.precision, machine)


def objections(record: Record, origin: Origin, precision: str, machine: Machine) -> list[str]:
    """Return the reasons of `unfit`, one by one."""
    made, by, recipe = record.machine, record.origin, record.recipe
    reasons = []
    if by.sha256 != origin.sha256:
        other = f"the model {by.name}, not {origin.name}"
        same = f"other weights of {by.name}"
        reasons.append(f"built of {same if by.name == origin.name else other}")
    if recipe.precision != precision:
        reasons.append(f"built for {recipe.precision}, not {precision}")
    if made.tensorrt != machine.tensorrt and not _serves(recipe, made.tensorrt, machine.tensorrt):
        reasons.append(f"built with TensorRT {made.tensorrt}, this is {machine.tensorrt}")
    ampere = min(_numbers(made.capability), _numbers(machine.capability)) >= _AMPERE
    same_gpu = (made.gpu, made.capability) == (machine.gpu, machine.capability)
    if not same_gpu and not (recipe.hardware_compatible and ampere):
        reasons.append(f"built for {_card(made)}, this is {_card(machine)}")
    return reasons


def _record(fields: dict[str, Any]) -> Record:
    """Raises what Python raises if the fields are not those of a record."""
    recipe: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields["recipe"].items()
    }
    parts = {
        "origin": Origin(**fields["origin"]),
        "recipe": Recipe(**recipe),
        "machine": Machine(**fields["machine"]),
        "check": Check(**fields["check"]),
    }
    return Record(**{**fields, **parts})


def _serves(recipe: Recipe, made: str, here: str) -> bool:
    """Whether a newer TensorRT takes a plan of an older one."""
    then, now = _numbers(made), _numbers(here)
    majors = then[:1] == now[:1] or (then[:1], now[:1]) == ((10,), (11,))
    return recipe.version_compatible and majors and then <= now


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _card(machine: Machine) -> str:
    return f"{machine.gpu} (compute capability {machine.capability})"
