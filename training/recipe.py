"""What a training run is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from sketchify_rt.kernels.reference import CELL

Data = Literal["augmented", "plain", "squares"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    width: features at the finest level, at least 1; each step down doubles them.
    depth: steps down, at least 1; each halves height and width.
    unshuffle: factor of the pixel-unshuffle stem, 1 for none. The first convolution then works on
        ``unshuffle**2`` times fewer positions, which is where a U-Net spends most of its time.
    norms: whether BatchNorm follows each convolution, rather than the convolution having a bias,
        into which exported models have it folded. Training on from those, a step takes a fifth
        less time.
    hint: whether the U-Net takes a hint beside the binary, see `kernels.reference.hint`. Then
        ``unshuffle`` must divide 8, the side of a cell.
    """

    width: int = 32
    depth: int = 2
    unshuffle: int = 2
    norms: bool = True
    hint: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "depth", "unshuffle"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.hint and CELL % self.unshuffle:
            raise ValueError(f"unshuffle must divide {CELL} with a hint, got {self.unshuffle}")

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this many pixels."""
        pixels = int(self.unshuffle * 2**self.depth)
        return math.lcm(pixels, CELL) if self.hint else pixels

    @property
    def halo(self) -> int:
        """Distance in pixels beyond which no input pixel can change an output pixel.

        Interval arithmetic from the output back to the input, over every position within one
        stride, because pooling makes the reach depend on it.
        """
        return max(self._reach(p) for p in range(self.stride))

    def _reach(self, pixel: int) -> int:
        lo = hi = pixel // self.unshuffle
        spans = []  # what each level's encoder must give, finest first
        for _ in range(self.depth):
            lo, hi = lo - 2, hi + 2  # the decoder's two 3x3 convolutions
            spans.append((lo, hi))
            lo, hi = lo // 2, hi // 2  # upsampling by 2
        for skip_lo, skip_hi in reversed(spans):
            lo, hi = lo - 2, hi + 2  # the encoder's two 3x3 convolutions
            lo, hi = min(2 * lo, skip_lo), max(2 * hi + 1, skip_hi)  # pooling, and the skip
        lo, hi = self.unshuffle * (lo - 2), self.unshuffle * (hi + 3) - 1
        return max(pixel - lo, hi - pixel)


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms of `training.losses`, each at least 0; 0 leaves a term out.

    adversarial: of a PatchGAN discriminator (see `training.discriminator`).
    """

    absolute: float = 1.0
    dark: float = 6.0
    similarity: float = 0.75
    tone: float = 1.0
    adversarial: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf:
                raise ValueError(f"loss.{name} must be at least 0, not {value}")
        if not any(asdict(self).values()):
            raise ValueError("one weight of the loss must be more than 0")


@dataclass(frozen=True)
class Recipe:
    """All that the weights depend on, but for the pages.

    Attributes:
        model: Shape of the U-Net.
        loss: Weights of the loss.
        steps: Of the optimizer.
        batch: Crops of a step, over all processes.
        crop: Their side in pixels, a multiple of the model's stride.
        data: "augmented", all of `training.augment` and `training.scenes`; "plain", crops of the
            pages, scaled, turned and mirrored; "squares", each page once an epoch, cut to its top
            or middle square and reduced to `crop`.
        augmented: Share of the crops that "augmented" changes, 0..1; the others are plain ones at
            the pages' own scale.
        ink: Share of the changed crops of pages that become ink drawings, 0..0.9.
        pages: Share of the changed crops that become black and white pages, drawn with a pencil of
            one darkness, 0..1; for a model that takes a hint.
        no_hint: Share of the crops without a hint, 0..1, if the model takes one.
        mean_hint: Share of the crops whose hint is the crop's mean everywhere, 0..1. The others
            have the map.
        learning_rate: Of AdamW, at its highest.
        warmup: Steps in which the learning rate rises to that; then a cosine falls to 0.
        schedule: "constant" for no fall.
        weight_decay: Of AdamW.
        clip: Longest gradient, in the Euclidean norm; 0 for any.
        ema: Share of the averaged weights that a step keeps; 0 keeps no average.
        mixed: Convolutions in bfloat16, about twice as fast as float32 on a CPU with AVX-512 BF16;
            weights, BatchNorm statistics and loss stay float32.
        seed: Of weights and crops.
        initial: Run or checkpoint whose averaged weights the run begins with, rather than random
            ones, or an exported model, by the path of its .onnx file or the name of a shipped one.

    Raises ValueError naming the field and what it may be.
    """

    model: UNetConfig = UNetConfig()
    loss: LossWeights = LossWeights()
    steps: int = 20_000
    batch: int = 8
    crop: int = 256
    data: Data = "augmented"
    augmented: float = 1.0
    ink: float = 0.15
    pages: float = 0.0
    no_hint: float = 0.3
    mean_hint: float = 0.2
    learning_rate: float = 2e-3
    warmup: int = 200
    schedule: Schedule = "cosine"
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.999
    mixed: bool = True
    seed: int = 0
    initial: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.crop % self.model.stride:
            raise ValueError(f"crop must be a multiple of {self.model.stride}, not {self.crop}")
        if self.loss.similarity and self.crop < 44:  # the window, at a quarter of the size
            raise ValueError(f"crop must be at least 44 for loss.similarity, not {self.crop}")
        for name in ("learning_rate", "warmup", "weight_decay", "clip", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, not {getattr(self, name)}")
        if not 0 <= self.augmented <= 1:
            raise ValueError(f"augmented must be 0 to 1, not {self.augmented}")
        if not 0 <= self.ink <= 0.9:
            raise ValueError(f"ink must be 0 to 0.9, not {self.ink}")
        if not 0 <= self.pages <= 1 or (self.pages and not self.model.hint):
            raise ValueError(f"pages must be 0 to 1, and 0 without a hint, got {self.pages}")
        if min(self.no_hint, self.mean_hint) < 0 or self.no_hint + self.mean_hint > 1:
            raise ValueError(
                "no_hint and mean_hint must be at least 0 and together at most 1, got "
                f"{self.no_hint} and {self.mean_hint}"
            )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must be at least 0 and under 1, not {self.ema}")
        for name, known in ("data", get_args(Data)), ("schedule", get_args(Schedule)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}")

    def learning_rate_at(self, step: int) -> float:
        """Of the step, counted from 0."""
        warmup = min(self.warmup, self.steps // 2)
        if step < warmup:
            return self.learning_rate * (step + 1) / (warmup + 1)
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - warmup) / (self.steps - warmup)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


def lite(pages: int) -> Recipe:
    """The shipped model: at most 50 GFLOP per megapixel."""
    return _shipped(UNetConfig(hint=True))


def full(pages: int) -> Recipe:
    """The width of the U-Net paper behind a pixel-unshuffle stem, for a GPU."""
    return replace(_shipped(UNetConfig(width=64, depth=3, unshuffle=2, hint=True)), batch=16)


def _shipped(model: UNetConfig) -> Recipe:
    # The receptive field reaches 47 pixels: 57 % of a crop's pixels have all of it within a crop of
    # 384 pixels, 40 % within one of 256.
    return Recipe(
        model,
        LossWeights(similarity=1.0, tone=2.0),
        batch=4,
        crop=384,
        augmented=0.35,
        ink=0.45,
        pages=0.25,
        no_hint=0.25,
        mean_hint=0.15,
        learning_rate=1.2e-3,
    )


def blog_2017(pages: int) -> Recipe:
    """What the blog post of 2017 did: squares of 256, minibatch 16, 80 epochs, a plain U-Net."""
    return Recipe(
        UNetConfig(width=64, depth=4, unshuffle=1),
        LossWeights(dark=0, similarity=0, tone=0),
        steps=max(1, 80 * pages // 16),
        batch=16,
        data="squares",
        learning_rate=1e-4,
        warmup=0,
        schedule="constant",
        weight_decay=0,
        clip=0,
        ema=0,
    )


RECIPES: dict[str, Callable[[int], Recipe]] = {"lite": lite, "full": full, "2017": blog_2017}
"""By name, for a number of pages."""


def changed(recipe: Recipe, change: str) -> Recipe:
    """`recipe` with one field as `change` says: "steps=1000", "loss.dark=0", "model.width=24".

    Raises ValueError where there is no such field or it may not have that value.
    """
    field, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"{change!r} must be FIELD=VALUE, as in steps=1000 or loss.dark=0")
    new: Recipe = _changed(recipe, field, field.split("."), value)
    return new


def _changed(owner: Any, field: str, path: list[str], value: str) -> Any:
    name, *rest = path
    known = [one.name for one in fields(owner)]
    if name not in known:
        raise ValueError(f"there is no field {field!r}; there are {', '.join(known)}")
    old = getattr(owner, name)
    if is_dataclass(old) != bool(rest):
        inner = [f"{name}.{one.name}" for one in fields(old)] if is_dataclass(old) else [name]
        raise ValueError(f"there is no field {field!r} to set; there is {', '.join(inner)}")
    new = _changed(old, field, rest, value) if rest else _converted(field, old, value)
    return replace(owner, **{name: new})


def _converted(field: str, old: object, value: str) -> object:
    if isinstance(old, bool):
        if value.lower() not in ("true", "false"):
            raise ValueError(f"{field} must be true or false, not {value!r}")
        return value.lower() == "true"
    if isinstance(old, int | float):
        try:
            return type(old)(value)
        except ValueError as error:
            kind = "whole number" if isinstance(old, int) else "number"
            raise ValueError(f"{field} must be a {kind}, not {value!r}") from error
    return value
