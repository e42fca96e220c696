"""What a conversion can be told: frozen, typed, validated once at the door."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

from sketchify_rt import processors
from sketchify_rt.errors import OptionsError

Mode = Literal["sketch", "dodge", "binary"]
Arithmetic = Literal["fp32", "half", "int8"]
Precision = Literal["auto", Arithmetic]
Runtime = Literal["auto", "openvino", "torch", "tensorrt"]
Format = Literal["png", "jpg", "webp"]
Alpha = Literal["white", "keep"]
Binary = Literal["auto", "page", "threshold"]

MODES: tuple[Mode, ...] = get_args(Mode)
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
FORMATS: tuple[Format, ...] = get_args(Format)
ALPHAS: tuple[Alpha, ...] = get_args(Alpha)

# Pillow's own bomb limit is 89 Mpx; pages scanned at 1200 dpi pass that, so ours is a little wider.
MAX_PIXELS = 256 * 2**20

# Images in work at once in "sketch" mode; beyond it threads share an image, because each image in
# work has buffers of its own in the U-Net, see `Options.tile`.
MAX_WORKERS = 8
MAX_THREADS = 1024  # more than any machine of today has processors
MAX_SQUARE = 2**14  # a square of this side has MAX_PIXELS

# Names of hints.
PENCILS = {"4H": 0.15, "2H": 0.25, "HB": 0.35, "2B": 0.48, "4B": 0.6, "6B": 0.8, "8B": 1.0}


@dataclass(frozen=True)
class Painted:
    """A hint that a person painted, as `inputs.hint` makes it of a picture or an array.

    height, width: in pixels. levels: a byte for each pixel, row by row: 0 where the page decides,
    else from 1, white, to 255, ink.
    """

    height: int
    width: int
    levels: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"a picture of {self.width} x {self.height}"

    @property
    def digest(self) -> str:
        """Of all of it, for a journal."""
        return hashlib.sha256(f"{self.width} x {self.height} ".encode() + self.levels).hexdigest()


Hint = Literal["auto", "none"] | float | Painted


@dataclass(frozen=True)
class Options:
    """Options of a `Sketchifier`.

    model: name of a shipped model, or path of an ONNX file with its manifest beside it.
    device: "auto", "cpu", "cuda" or "cuda:N". Only "auto" falls back to another, and says so.
    mode: "sketch" paints tones with the U-Net; "dodge" and "binary" are the classic filters alone.
    precision: arithmetic of the U-Net. "fp32" is float32 everywhere, equal up to the rounding of
        sums. "half" is floats of 16 bits: FP16 on a GPU, bfloat16 on a CPU with instructions for
        it, else float32. "int8" is the model's quantized form, if it has one; on a GPU by a
        TensorRT engine. "auto" is "int8" where a CPU has dot products of 8-bit integers (VNNI) and
        the model that form, the one of `engine` if given, else "half".
        Measured on "lite", in levels of 255 from float32: in bfloat16, 2 to 3 times as fast, a tone
        moves by at most 10, 0.03 on average; in INT8, 3.5 to 4.4 times, by 0.34 on average, and a
        few by up to 141.
    threads: processor threads used at most, 1..MAX_THREADS; None for all this process may run on.
    strength: line strength, 0..4. 1 leaves the model's tones; ink is multiplied by it.
        Applies to "sketch" and "dodge".
    binary: what the U-Net paints. "threshold" is the adaptive threshold of each image. "page" is
        the image itself, divided by one level, for pages that are black and white already. "auto"
        tells these apart; for a model without a hint it is "threshold".
    hint: how dark the U-Net paints strokes, unless the model takes no hint. "auto" follows the
        tones of each image, and is a pencil of 4B for black and white pages. "none" leaves it to
        the U-Net. A number is one darkness for the whole image, from 0, white, to 1, ink. A painted
        one is stretched over each image as it is sketched, cut by `square` like a picture of its
        own. `Sketchifier` also takes the name of a pencil, "4H" to "8B", see `PENCILS`; the path of
        a picture or a PIL image, dark where strokes should be dark, transparent where the image
        decides; or an array, uint8 (H, W), 255 the darkest, 0 where the image decides. Needs mode
        "sketch".
    max_side: reduce images whose longer side is over this many pixels, at least 1; None never.
    square: cut the middle square of a landscape, the top square of a portrait, and resize it to
        this side in pixels, 1..MAX_SQUARE (the 2017 recipe has 256); None keeps the image whole.
    tile: images higher or wider than this many pixels go through the U-Net in tiles of at most
        this side, at least 256. Sets the peak memory for each image in work: measured for the
        default with "lite", 360 MiB in float32, 190 in bfloat16, 110 in INT8, that is at most 170
        bytes per pixel of a tile.
    max_pixels: refuse to decode images of more pixels than this, at least 1.
    batch: images that a GPU takes together, 1..1024; fewer where they would not fit. A CPU takes
        one at a time in each thread.
    device_memory: MiB of a GPU's memory used at most, about, at least 512; None for three quarters
        of what is free when it is opened.
    compile: on a GPU, let torch.compile fuse the U-Net: a minute at the start, faster from there.
        Only with precision "auto" or "half", since it keeps to no other, and not with TensorRT.
    runtime: what runs the U-Net: "openvino" on a CPU; "torch" or "tensorrt" on a GPU. "auto" takes
        on a GPU a TensorRT engine that `sketchify-rt build-engine` made for this model and this
        machine, and torch, with a note, where there is none; "tensorrt" builds what is missing or
        outdated, which takes minutes.
    engine: folder of a TensorRT engine to use, and no other; None for those in the cache.
    """

    model: str = "lite"
    device: str = "auto"
    mode: Mode = "sketch"
    precision: Precision = "auto"
    threads: int | None = None
    strength: float = 1.0
    binary: Binary = "auto"
    hint: Hint = "auto"
    max_side: int | None = None
    square: int | None = None
    tile: int = 1536
    max_pixels: int = MAX_PIXELS
    batch: int = 16
    device_memory: int | None = None
    compile: bool = False
    runtime: Runtime = "auto"
    engine: str | None = None

    def __post_init__(self) -> None:
        """Raises OptionsError naming the option, its value and what it may be."""
        for name in "model", "engine":
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))  # frozen: only here
            elif not isinstance(value, str) and (name, value) != ("engine", None):
                raise OptionsError(f"{name} must be a name or a path: got {value!r}")
        for name, known in ("mode", MODES), ("precision", PRECISIONS), ("runtime", RUNTIMES):
            if getattr(self, name) not in known:
                value = getattr(self, name)
                raise OptionsError(f"{name} is {value!r}; it may be one of {', '.join(known)}")
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(self.device)):
            raise OptionsError(f"device must be auto, cpu, cuda or cuda:N: got {self.device!r}")
        if not _is_number(self.strength) or not 0 <= self.strength <= 4:
            raise OptionsError(f"strength is {self.strength!r}; it may be 0 to 4")
        if self.binary not in get_args(Binary):
            raise OptionsError(
                f"binary must be one of {', '.join(get_args(Binary))}: got {self.binary!r}"
            )
        if self.binary != "auto" and self.mode != "sketch":
            raise OptionsError(f"binary needs mode sketch: got mode {self.mode}; leave binary out")
        self._check_hint()
        if self.square is not None and self.max_side is not None:
            raise OptionsError("square and max_side both set the size; give one of them")
        if not isinstance(self.compile, bool):
            raise OptionsError(f"compile is {self.compile!r}; it may be True or False")
        if self.compile and self.precision not in ("auto", "half"):
            raise OptionsError("compile rounds products as it likes; give precision auto or half")
        self._check_runtime()
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if not _is_integer(value) or not least <= value <= most:
                raise OptionsError(f"{name} is {value!r}; it may be {least} to {most}")

    def _check_hint(self) -> None:
        if tells(check_hint(self.hint)) and self.mode != "sketch":
            raise OptionsError(f"hint needs mode sketch: got mode {self.mode}; leave hint out")

    def _check_runtime(self) -> None:
        if self.engine == "":
            raise OptionsError("engine is empty; give the folder of an engine")
        if self.engine is not None and self.runtime not in ("auto", "tensorrt"):
            raise OptionsError(f"engine is TensorRT's, runtime {self.runtime}; give one of them")
        if self.compile and (self.engine is not None or self.runtime not in ("auto", "torch")):
            raise OptionsError("compile is torch's; give runtime auto or torch with it")
        if self.runtime == "torch" and self.precision == "int8":
            raise OptionsError("runtime torch has no int8; give runtime tensorrt, or device cpu")
        if self.of_gpu and self.device == "cpu":
            what = "engine" if self.engine is not None else f"runtime {self.runtime}"
            raise OptionsError(f"{what} needs a GPU, and device is cpu")
        if self.runtime == "openvino" and self.device.startswith("cuda"):
            raise OptionsError(f"runtime openvino is the CPU's, and device is {self.device}")

    @property
    def of_gpu(self) -> bool:
        """Whether the U-Net is to run on a GPU and nowhere else."""
        return self.runtime in ("torch", "tensorrt") or self.engine is not None

    @property
    def thread_count(self) -> int:
        """`threads`, or the number of processors this process may run on."""
        if self.threads is not None:
            return self.threads
        return processors.count()

    @property
    def worker_count(self) -> int:
        """Images in work at once on a CPU: one a thread, at most MAX_WORKERS sketches.

        The filters alone are light, and take all threads.
        """
        threads = self.thread_count
        return min(threads, MAX_WORKERS) if self.mode == "sketch" else threads


_ANY = 2**62
_RANGES = {
    "threads": (1, MAX_THREADS),
    "max_side": (1, _ANY),
    "square": (1, MAX_SQUARE),
    "tile": (256, _ANY),
    "max_pixels": (1, _ANY),
    "batch": (1, 1024),
    "device_memory": (512, _ANY),
}
_OPTIONAL = {"engine", "threads", "max_side", "square", "device_memory"}


def from_keywords(options: dict[str, Any]) -> Options:
    """Returns the options of these names. Raises OptionsError for a name that is none."""
    known = [one.name for one in fields(Options)]
    for name in options:
        if name not in known:
            similar = get_close_matches(name, known, 1)
            meant = f"did you mean {similar[0]}?" if similar else f"it has {', '.join(known)}"
            raise OptionsError(f"there is no option {name!r}; {meant}")
    return Options(**options)


def check_hint(hint: Hint) -> Hint:
    """The same hint; raises OptionsError for what is none."""
    if not tells(hint) or isinstance(hint, Painted):
        return hint
    if isinstance(hint, str) or not _is_number(hint) or not 0 <= hint <= 1:
        raise OptionsError(f"hint must be auto, none, or 0 to 1: got {hint!r}")
    return hint


def tells(hint: Hint) -> bool:
    """Whether it is for models that take a hint alone."""
    return hint not in ("auto", "none")


def check_workers(workers: int) -> int:
    """The same number of workers; raises OptionsError for what is no integer of at least 1."""
    if not _is_integer(workers) or workers < 1:
        raise OptionsError(f"workers is {workers!r}; it may be an integer of at least 1")
    return workers


def as_encoding(encoding: Encoding | Format | None) -> Encoding:
    """Returns the encoding of that name; PNG for None. Raises OptionsError for what is none."""
    if encoding is None or isinstance(encoding, str):
        return Encoding(encoding or "png")
    if not isinstance(encoding, Encoding):
        raise OptionsError(
            f"encoding must be an Encoding, or one of {', '.join(FORMATS)}: got {encoding!r}"
        )
    return encoding


def encoding_of(path: Path) -> Encoding:
    """Returns the encoding of the path's ending. Raises OptionsError where there is none."""
    ending = path.suffix.lower().removeprefix(".")
    form = "jpg" if ending == "jpeg" else ending
    if form not in FORMATS:
        raise OptionsError(
            f"{path}: its ending must be .png, .jpg, .jpeg or .webp: got {path.suffix!r}"
        )
    return Encoding(form)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


@dataclass(frozen=True)
class Encoding:
    """How a result becomes bytes.

    format: "png" and "webp" are lossless unless `quality` is given for "webp"; "jpg" is lossy.
    quality: 1..100 for "jpg" (95 where it is None) and lossy "webp"; None for lossless.
    metadata: keep the source's EXIF, colour profile and resolution in dots per inch, made true of
        the sketch: upright, in gray, at its size. What is broken is left out, and so are
        thumbnails, maker's notes, XMP and comments.
    alpha: "white" puts transparent pictures on white; "keep" gives their sketch the same
        transparency, which "jpg" cannot hold. Opaque ones give plain gray files.
    """

    format: Format = "png"
    quality: int | None = None
    metadata: bool = False
    alpha: Alpha = "white"

    def __post_init__(self) -> None:
        """Raises OptionsError naming the option, its value and what it may be."""
        if self.format not in FORMATS:
            raise OptionsError(f"format is {self.format!r}; it may be one of {', '.join(FORMATS)}")
        if self.quality is not None:
            if self.format == "png":
                raise OptionsError("png is lossless and takes no quality; use jpg or webp")
            if not _is_integer(self.quality) or not 1 <= self.quality <= 100:
                raise OptionsError(f"quality is {self.quality!r}; it may be 1 to 100")
        if not isinstance(self.metadata, bool):
            raise OptionsError(f"metadata is {self.metadata!r}; it may be True or False")
        if self.alpha not in ALPHAS:
            raise OptionsError(f"alpha is {self.alpha!r}; it may be one of {', '.join(ALPHAS)}")
        if self.alpha == "keep" and self.format == "jpg":
            raise OptionsError("jpg holds no alpha; use png or webp")

    @property
    def plain(self) -> bool:
        """Whether nothing of a source but its picture is kept."""
        return not self.metadata and self.alpha == "white"
