"""What is known of a TensorRT engine: of what and for what it was built, and whether that fits."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from sketchify_rt import __version__
from sketchify_rt.errors import OptionsError
from sketchify_rt.models import Manifest

EnginePrecision = Literal["fp16", "fp32", "int8"]

_SUM = re.compile(rb'"record_sha256": "([^"]*)"')
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
    """What a plan is bound to. capability: compute capability, as "9.0"."""

    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class Origin:
    """What an engine is made of.

    name: the model's. sha256: of the ONNX with its external data. package: version of this package,
    which makes of it the ONNX that TensorRT gets. hint: whether the model takes one.
    """

    name: str
    sha256: str
    package: str
    hint: bool = False


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
    """All that is known of an engine. plan: its file. built: UTC, ISO 8601. seconds: building."""

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
    """A record as JSON, with its own SHA-256 in it."""
    blank = json.dumps({"record_sha256": "", **asdict(record)}, indent=2).encode() + b"\n"
    return blank.replace(b'"record_sha256": ""', b'"record_sha256": "%b"' % _sum(blank).encode(), 1)


def read(text: bytes) -> Record:
    """The record that was written. Raises ValueError in words where it is not just that."""
    found = _SUM.search(text)
    if found is None or found[1].decode("latin-1") != _sum(text):
        raise ValueError("is damaged: its SHA-256 is not the one in it")
    try:
        return _record(json.loads(text))
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"is of another version of sketchify-rt ({error})") from error


def key(origin: Origin, recipe: Recipe, machine: Machine) -> str:
    """SHA-256, hexadecimal, of all that decides what a build gives."""
    parts = [asdict(part) for part in (origin, recipe, machine)]
    if not origin.hint:  # so engines from before there were hints keep their keys
        del parts[0]["hint"]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def unfit(
    record: Record, origin: Origin, precision: str, machine: Machine, strict: bool = True
) -> str | None:
    """Why an engine is not to be used for this model on this machine, in words; None where it is.

    A newer TensorRT of the same major version, and 11 after 10, takes a version compatible engine,
    any GPU from Ampere on a hardware compatible one, see
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html
    strict: no other versions of CUDA, the driver and this package either than it was built with. It
    would work, but another build may be better: so it is for the cache, where one is built at once.
    Not strict is for an engine that the user chose, maybe shipped to many machines.
    """
    return "; ".join(objections(record, origin, precision, machine, strict)) or None


def stale(record: Record, machine: Machine) -> str | None:
    """`unfit`, whatever the model: why an engine is not taken from the cache on this machine."""
    origin = replace(record.origin, package=__version__)
    return unfit(record, origin, record.recipe.precision, machine)


def objections(
    record: Record, origin: Origin, precision: str, machine: Machine, strict: bool
) -> list[str]:
    """What `unfit` tells, one by one."""
    made, by, recipe = record.machine, record.origin, record.recipe
    reasons = []
    if by.sha256 != origin.sha256:
        other = f"the model {by.name}, not {origin.name}"
        same = f"other weights of {by.name}"
        reasons.append(f"built of {same if by.name == origin.name else other}")
    if by.hint != origin.hint:
        made_for, takes = ("with", "none") if by.hint else ("without", "one")
        reasons.append(f"built for a model {made_for} a hint, {origin.name} takes {takes}")
    if recipe.precision != precision:
        reasons.append(f"built for {recipe.precision}, not {precision}")
    if made.tensorrt != machine.tensorrt and not _serves(recipe, made.tensorrt, machine.tensorrt):
        reasons.append(f"built with TensorRT {made.tensorrt}, this is {machine.tensorrt}")
    ampere = min(_numbers(made.capability), _numbers(machine.capability)) >= _AMPERE
    same_gpu = (made.gpu, made.capability) == (machine.gpu, machine.capability)
    if not same_gpu and not (recipe.hardware_compatible and ampere):
        reasons.append(f"built for {_card(made)}, this is {_card(machine)}")
    if strict:
        versions = (
            ("CUDA", made.cuda, machine.cuda),
            ("driver", made.driver, machine.driver),
            ("sketchify-rt", by.package, origin.package),
        )
        reasons += [
            f"built with {what} {then}, this is {now}"
            for what, then, now in versions
            if then != now
        ]
    return reasons


def _record(fields: dict[str, Any]) -> Record:
    """Raises ValueError where a record of this version has other fields, types or values."""
    del fields["record_sha256"]
    fields["origin"] = {"hint": False, **fields["origin"]}  # records from before have none
    record: Record = _typed(Record, fields, "it")
    if not re.fullmatch(r"[0-9a-f]{64}", record.plan_sha256):
        raise ValueError(f"plan_sha256 is {record.plan_sha256!r}")
    if record.plan != f"{record.plan_sha256[:16]}.plan":  # never a path out of the folder
        raise ValueError(f"plan is {record.plan!r}")
    return record


def _typed(kind: Any, value: Any, name: str) -> Any:
    """What JSON has for a type of the dataclasses above, as that type; name: for messages."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != kinds.keys():
            raise ValueError(f"{name} has not the fields {', '.join(kinds)}")
        return kind(**{key: _typed(kinds[key], value[key], key) for key in kinds})
    if get_origin(kind) is tuple:
        if isinstance(value, list):
            return tuple(_typed(*each, name) for each in zip(get_args(kind), value, strict=True))
    elif get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
    elif kind is float:
        if type(value) in (int, float) and math.isfinite(value):
            return float(value)
    elif type(value) in (get_args(kind) or (kind,)):
        return value
    raise ValueError(f"{name} is {value!r}")


def _sum(text: bytes) -> str:
    """Of a record's file, as if it had none in it."""
    return hashlib.sha256(_SUM.sub(b'"record_sha256": ""', text, count=1)).hexdigest()


def _serves(recipe: Recipe, made: str, here: str) -> bool:
    """Whether a newer TensorRT takes a plan of an older one."""
    then, now = _numbers(made), _numbers(here)
    majors = then[:1] == now[:1] or (then[:1], now[:1]) == ((10,), (11,))
    return recipe.version_compatible and majors and then <= now


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _card(machine: Machine) -> str:
    return f"{machine.gpu} (compute capability {machine.capability})"
