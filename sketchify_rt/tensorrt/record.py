"""What is known of an engine: what it was built from and for, and where it can be used."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sketchify_rt.errors import OptionsError
from sketchify_rt.models import Manifest
from sketchify_rt.options import Options

EnginePrecision = Literal["fp16", "fp32", "int8"]

FORMAT = 2
"""Number of the format of engine files, and of the graphs that `typed_onnx` makes.

Raise it when a field of `Record` changes or an ONNX file gives another graph than before. Engines
with another number are refused and built again.
"""

_AMPERE = (8, 0)  # compute capability


@dataclass(frozen=True)
class Recipe:
    """What a build is asked for.

    Attributes:
        precision: Type that the engine computes in.
        tile: Smallest, best and largest side of a tile in pixels. Three equal sides make a static
            engine, which TensorRT optimizes for one shape.
        batch: Smallest, best and largest number of tiles in a batch.
        optimization_level: 0 to 5, TensorRT's.
        workspace: MiB that the engine may work in; None for TensorRT's default.
        version_compatible: Whether newer versions of TensorRT can run the engine.
        hardware_compatible: Whether any GPU from Ampere on can run the engine.
    """

    precision: EnginePrecision = "fp16"
    tile: tuple[int, int, int] = (512, 512, 512)
    batch: tuple[int, int, int] = (1, 16, 32)
    optimization_level: int = 3
    workspace: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False

    @property
    def static(self) -> bool:
        """Whether all tiles have one shape."""
        return self.tile[0] == self.tile[2]

    @classmethod
    def suited(
        cls,
        manifest: Manifest,
        dynamic: bool = False,
        tile: int | None = None,
        batch: tuple[int, int, int] | None = None,
        **rest: Any,
    ) -> Recipe:
        """Return a recipe with shapes that suit a model.

        Args:
            manifest: The model's.
            dynamic: Whether the engine takes tiles of any size.
            tile: Side of a tile in pixels, for a dynamic engine the largest; None for the best.
            batch: See `Recipe`; None for 1, 16, 32, and for 1, 1, 4 of a dynamic engine.
            **rest: Other attributes of the recipe.
        """
        from sketchify_rt import tiling  # NumPy, which --help does without

        if not dynamic:
            side = tile or tiling.static_side(manifest.halo, manifest.stride)
            return cls(tile=(side, side, side), batch=batch or cls.batch, **rest)
        stride, side = manifest.stride, tile or Options.tile
        best = max(stride, side * 2 // 3 // stride * stride)  # pages are mostly shorter than `side`
        return cls(tile=(stride, best, side), batch=batch or (1, 1, 4), **rest)

    def check(self, manifest: Manifest) -> None:
        """Check that an engine of a model can be built like this.

        Args:
            manifest: The model's.

        Raises:
            OptionsError: The model cannot work on such tiles, or the batch sizes do not rise.
        """
        from sketchify_rt import tiling  # NumPy, which --help does without

        if sorted(self.batch) != list(self.batch):
            raise OptionsError(
                f"batch sizes must rise from the smallest to the best to the largest, got "
                f"{', '.join(map(str, self.batch))}"
            )
        stride, side = manifest.stride, self.tile[2]
        least = tiling.min_tile(manifest.halo, stride)
        if side < least or side % stride:
            raise OptionsError(
                f"tile must be a multiple of {stride} from {least} on for {manifest.name}, got "
                f"{side}"
            )


@dataclass(frozen=True)
class Machine:
    """What an engine is bound to.

    Attributes:
        tensorrt: TensorRT's version.
        gpu: Name of the card.
        capability: Its compute capability, for example "9.0".
    """

    tensorrt: str
    gpu: str
    capability: str


@dataclass(frozen=True)
class Origin:
    """The model that an engine is built from.

    Attributes:
        name: Its name in the manifest.
        sha256: Of the ONNX file, hexadecimal.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class Check:
    """How an engine compared with the float32 model.

    Attributes:
        largest: Largest difference of a tone, in levels of 255.
        mean: Mean difference, in levels of 255.
        megapixels_s: Speed, with batches of the best size.
        crops: Number of tiles compared.
    """

    largest: float
    mean: float
    megapixels_s: float
    crops: int


@dataclass(frozen=True)
class Record:
    """What an engine was built from and for, and how it did.

    Attributes:
        origin: The model.
        recipe: What the build was asked for.
        machine: What the engine is bound to.
        check: How it compared with the model.
        built: When, UTC, ISO 8601.
        seconds: What the build and the verification took.
    """

    origin: Origin
    recipe: Recipe
    machine: Machine
    check: Check
    built: str
    seconds: float

    def to_json(self) -> bytes:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Record:
        """Return the record that `to_json` wrote."""
        fields = json.loads(text)
        recipe = fields["recipe"]
        for name in ("tile", "batch"):
            recipe[name] = tuple(recipe[name])
        return cls(
            Origin(**fields["origin"]),
            Recipe(**recipe),
            Machine(**fields["machine"]),
            Check(**fields["check"]),
            fields["built"],
            fields["seconds"],
        )

    def mismatch(self, machine: Machine, origin: Origin | None = None) -> str:
        """Return why the engine cannot be used on a machine. Nothing else decides that.

        A version compatible engine also runs in a newer TensorRT of the same major version, and in
        11 after 10; a hardware compatible one on any GPU from Ampere on. See
        https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-compatibility.html

        Args:
            machine: Where it would run.
            origin: The model it would be used for; None if that does not matter.

        Returns:
            The reasons, joined by semicolons; "" if the engine can be used.
        """
        made, reasons = self.machine, []
        if origin and origin.sha256 != self.origin.sha256:
            same = origin.name == self.origin.name
            other = "other weights" if same else f"the model {self.origin.name}"
            reasons.append(f"built from {other}, this is {origin.name}")
        if made.tensorrt != machine.tensorrt and not self._runs_in(machine.tensorrt):
            reasons.append(f"built with TensorRT {made.tensorrt}, this is {machine.tensorrt}")
        cards = made.gpu, made.capability
        ampere = min(_numbers(made.capability), _numbers(machine.capability)) >= _AMPERE
        anywhere = self.recipe.hardware_compatible and ampere
        if cards != (machine.gpu, machine.capability) and not anywhere:
            reasons.append(f"built for {_card(made)}, this is {_card(machine)}")
        return "; ".join(reasons)

    def _runs_in(self, tensorrt: str) -> bool:
        then, now = _numbers(self.machine.tensorrt), _numbers(tensorrt)
        majors = then[0] == now[0] or (then[0], now[0]) == (10, 11)
        return self.recipe.version_compatible and majors and then <= now


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _card(machine: Machine) -> str:
    return f"{machine.gpu} (compute capability {machine.capability})"
