"""Options of a conversion: frozen, typed, checked once."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeGuard, get_args

from sketchify_rt import processors
from sketchify_rt.errors import OptionsError

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

Mode = Literal["sketch", "dodge", "binary"]
Arithmetic = Literal["fp32", "half", "int8"]
Precision = Literal["auto", Arithmetic]
Runtime = Literal["auto", "openvino", "torch", "tensorrt"]
Format = Literal["png", "jpg", "webp"]
Alpha = Literal["white", "keep", "lines"]
Binary = Literal["auto", "page", "threshold"]
Detail = Literal["native", "auto"] | int
Blacks = Literal["keep", "hollow"]
Levels = Literal["auto", "off"]
LookName = Literal["exact", "natural", "dark", "chalk", "color"]

MODES: tuple[Mode, ...] = get_args(Mode)
ARITHMETICS: tuple[Arithmetic, ...] = get_args(Arithmetic)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
FORMATS: tuple[Format, ...] = get_args(Format)
ALPHAS: tuple[Alpha, ...] = get_args(Alpha)
BLACKS: tuple[Blacks, ...] = get_args(Blacks)
LEVELS: tuple[Levels, ...] = get_args(Levels)

# Pillow's own bomb limit is 89 Mpx; pages scanned at 1200 dpi pass that, so ours is a little wider.
MAX_PIXELS = 256 * 2**20

# Images in work at once in "sketch" mode; beyond it threads share an image, because each image in
# work has buffers of its own in the U-Net, see `Options.tile`.
MAX_WORKERS = 8
MAX_THREADS = 1024  # more than any machine of today has processors
MAX_SQUARE = 2**14  # a square of this side has MAX_PIXELS

# Longest side in pixels for detail "auto". Chosen by eye from six pictures of 12 megapixels: lines
# drawn at 1000 are thick and shaded, at 2000 thin and pale.
AUTO_DETAIL = 1500

# Names of hints.
PENCILS = {"4H": 0.15, "2H": 0.25, "HB": 0.35, "2B": 0.48, "4B": 0.6, "6B": 0.8, "8B": 1.0}


@dataclass(frozen=True)
class Painted:
    """A hint that a person painted. `inputs.hint` makes one of a picture or an array.

    Attributes:
        height: Rows.
        width: Columns.
        levels: One byte for each pixel, row by row: 0 where the page decides, else from 1, white,
            to 255, ink.
    """

    height: int
    width: int
    levels: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"a picture of {self.width} x {self.height}"

    @property
    def digest(self) -> str:
        """SHA-256 of the size and the levels, for a journal."""
        return hashlib.sha256(f"{self.width} x {self.height} ".encode() + self.levels).hexdigest()


Hint = Literal["auto", "none"] | float | Painted

if TYPE_CHECKING:
    HintInput = Hint | str | os.PathLike[str] | PIL.Image.Image | NDArray[np.uint8]


@dataclass(frozen=True)
class Look:
    """What becomes of a sketch, see `looks`. The defaults change nothing.

    Attributes:
        blacks, paper, levels: See `Options`.
        gamma: Exponent of the ink, above 0: below 1 the pencil is darker.
        ground: Level of the paper.
        ink: Level of the darkest ink.
        colours: Lay the sketch over the colours of its picture, see `colour`.
    """

    blacks: Blacks = "hollow"
    paper: float = 0.0
    levels: Levels = "off"
    gamma: float = 1.0
    ground: int = 255
    ink: int = 0
    colours: bool = False


# Chosen by eye from forty pictures of seven kinds.
LOOKS: dict[LookName, Look] = {
    "exact": Look(),
    "natural": Look("keep", 0.15, "auto"),
    "dark": Look("keep", 0.15, "auto", gamma=0.6),
    "chalk": Look("hollow", 0.15, "auto", gamma=0.8, ground=40, ink=245),
    "color": Look("keep", 0.15, "auto", colours=True),
}


@dataclass(frozen=True)
class Options:
    """Options of a `Sketchifier`.

    Attributes:
        model: Name of a shipped model, or path of an ONNX file with its manifest beside it.
        device: "auto", "cpu", "cuda" or "cuda:N". Only "auto" falls back to another device, and
            says so.
        mode: "sketch" paints tones with the U-Net. "dodge" and "binary" are the classic filters
            alone.
        precision: Arithmetic of the U-Net. "fp32" is float32 everywhere; results are equal up to
            the rounding of sums. "half" is floats of 16 bits: FP16 on a GPU, bfloat16 on a CPU with
            instructions for it, else float32. "int8" is the model's quantized form, if it has one;
            a GPU needs a TensorRT engine for it. "auto" is the precision of `engine` if one is
            given; else "int8" on a CPU with dot products of 8-bit integers (VNNI), if the model
            has that form; else "half".
            Measured with "lite", in levels of 255 from float32: bfloat16 is 2 to 3 times as fast,
            and moves a tone by 0.03 on average, by 10 at most. INT8 is 3.5 to 4.4 times as fast,
            and moves a tone by 0.34 on average, a few by up to 141.
        threads: Most processor threads to use, 1..MAX_THREADS. None: all that the process may use.
        strength: Line strength, 0..4: ink is multiplied by it. 1 leaves the model's tones. Applies
            to "sketch" and "dodge".
        binary: What the U-Net paints. "threshold" is the adaptive threshold of each image. "page"
            is the image itself, divided by one level, for pages that are black and white already.
            "auto" tells these apart; for a model without a hint it is "threshold".
        hint: How dark the U-Net paints strokes, for models that take a hint. "auto" follows the
            tones of each image, and is a 4B pencil for black and white pages. "none" leaves it to
            the U-Net. A number is one darkness for the whole image, from 0, white, to 1, ink. A
            painted hint is stretched over each image, and cut by `square` like a picture. Needs
            mode "sketch".
            `Sketchifier` also takes the name of a pencil, "4H" to "8B", see `PENCILS`; the path of
            a picture, or a PIL image: dark where strokes should be dark, transparent where the
            image decides; or an array, uint8 (H, W): 255 is darkest, 0 is where the image decides.
        max_side: Images are reduced so that the longer side has at most this many pixels, at least
            1. None: never.
        square: The middle square of a landscape, or the top square of a portrait, is cut and
            resized to this side in pixels, 1..MAX_SQUARE (the 2017 recipe has 256). None: the
            image stays whole.
        detail: The longer side in pixels that images are drawn at, at least 64. The filters have
            fixed radii, so a large photo drawn at its own size is almost white. Larger images are
            reduced, drawn, and the sketch is enlarged to the size that it has without this option;
            smaller ones are not changed. "auto" is AUTO_DETAIL. "native" draws every image at the
            size of its sketch. None: "native" for the look "exact", "auto" for all others.
        look: What becomes of a sketch. "exact": nothing. "natural": crisp lines, black areas that
            stay black, clean paper, for pages and photos alike. "dark": the same with a darker
            pencil. "chalk": white lines on a dark ground. "color": as "natural", over the picture's
            own colours, coarse and light, which are laid under it on the host; sketches are RGB,
            also of gray pictures, and tensors of a device and videos are refused. All but "exact"
            need mode "sketch" or "dodge", and so do the three options beneath.
        blacks: "keep": areas that are black in the picture are black in the sketch. "hollow": the
            filters decide, which leave an outline, or blotches of noise. None: as the look has it.
        paper: How much of the faintest ink is dropped, from 0, nothing, to 1: ink below half of
            black fades. None: as the look has it.
        levels: "auto": ink is multiplied by up to 2.5, so that the darkest strokes of each image
            are almost black. "off": it stays. None: as the look has it.
        tile: Longest side of the tiles in pixels that the U-Net takes, at least 256. It sets the
            peak memory of each image in work. Measured for the default with "lite": 360 MiB in
            float32, 190 in bfloat16, 110 in INT8, which is at most 170 bytes per pixel of a tile.
        max_pixels: Images of more pixels are refused before they are decoded; at least 1.
        batch: Most images that a GPU takes together, 1..1024. A CPU takes one in each thread.
        device_memory: Most memory of a GPU to use, about, in MiB, at least 512. None: three
            quarters of what is free when the GPU is opened.
        compile: On a GPU, torch.compile fuses the U-Net: a minute at the start, faster from there.
            Needs precision "auto" or "half", and torch as the runtime.
        runtime: What runs the U-Net: "openvino" on a CPU, "torch" or "tensorrt" on a GPU. "auto" on
            a GPU is a TensorRT engine that `sketchify-rt build-engine` made for this model on this
            machine, or else torch, with a note. "tensorrt" builds an engine that is missing or
            outdated, which takes minutes.
        engine: File of the TensorRT engine to use. None: those in the cache.
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
    detail: Detail | None = None
    look: LookName = "exact"
    blacks: Blacks | None = None
    paper: float | None = None
    levels: Levels | None = None
    tile: int = 1536
    max_pixels: int = MAX_PIXELS
    batch: int = 16
    device_memory: int | None = None
    compile: bool = False
    runtime: Runtime = "auto"
    engine: str | None = None

    def __post_init__(self) -> None:
        """Checks each option, and that they agree. Raises OptionsError."""
        for name in "model", "engine":
            value = getattr(self, name)
            if isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))  # frozen: only here
            elif not isinstance(value, str) and (name, value) != ("engine", None):
                raise OptionsError(f"{name} must be a name or a path, got {value!r}")
        for name, known in _CHOICES.items():
            _check_choice(name, getattr(self, name), known)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", str(self.device)):
            raise OptionsError(f"device must be auto, cpu, cuda or cuda:N, got {self.device!r}")
        if not _is_number(self.strength) or not 0 <= self.strength <= 4:
            raise OptionsError(f"strength must be between 0 and 4, got {self.strength!r}")
        for name, (least, most) in _RANGES.items():
            if (value := getattr(self, name)) is not None or name not in _OPTIONAL:
                _check_integer(name, value, least, most)
        if self.detail not in (None, "native", "auto") and not (
            _is_integer(self.detail) and self.detail >= 64
        ):
            raise OptionsError(
                f"detail must be native, auto, or an integer of at least 64, got {self.detail!r}"
            )
        _check_bool("compile", self.compile)
        if self.binary != "auto" and self.mode != "sketch":
            raise OptionsError(f"binary needs mode sketch, got mode {self.mode}. Leave binary out")
        self._check_look()
        check_hint_use(check_hint(self.hint), self, takes_hint=self.mode == "sketch")
        if self.square is not None and self.max_side is not None:
            raise OptionsError("square and max_side both set the size. Give one of them")
        self._check_runtime()

    def _check_look(self) -> None:
        for name, known in ("blacks", BLACKS), ("levels", LEVELS):
            if (value := getattr(self, name)) is not None:
                _check_choice(name, value, known)
        if self.paper is not None and not (_is_number(self.paper) and 0 <= self.paper <= 1):
            raise OptionsError(f"paper must be between 0 and 1, got {self.paper!r}")
        changed = [name for name in _OF_LOOK if getattr(self, name) != getattr(Options, name)]
        if changed and self.mode == "binary":
            raise OptionsError(
                f"{changed[0]} needs mode sketch or dodge, got mode binary. Leave {changed[0]} out"
            )

    def _check_runtime(self) -> None:
        if self.compile and self.precision not in ("auto", "half"):
            raise OptionsError(
                f"compile needs precision auto or half, got {self.precision}. Leave one of them out"
            )
        if self.engine == "":
            raise OptionsError("engine must be the file of an engine, got an empty path")
        if self.engine is not None and self.runtime not in ("auto", "tensorrt"):
            raise OptionsError(f"engine needs runtime auto or tensorrt, got {self.runtime}")
        if self.compile and (self.engine is not None or self.runtime not in ("auto", "torch")):
            got = "an engine" if self.engine is not None else self.runtime
            raise OptionsError(f"compile needs runtime auto or torch, got {got}")
        if self.runtime == "torch" and self.precision == "int8":
            raise OptionsError(
                "precision int8 needs runtime tensorrt, or device cpu, got runtime torch"
            )
        if self.of_gpu and self.device == "cpu":
            what = "engine" if self.engine is not None else f"runtime {self.runtime}"
            raise OptionsError(f"{what} needs a GPU, got device cpu")
        if self.runtime == "openvino" and self.device.startswith("cuda"):
            raise OptionsError(f"runtime openvino needs device cpu or auto, got {self.device}")

    @property
    def of_gpu(self) -> bool:
        """Whether the U-Net is to run on a GPU and nowhere else."""
        return self.runtime in ("torch", "tensorrt") or self.engine is not None

    @property
    def max_detail(self) -> int | None:
        """The longest side in pixels that images are drawn at; None for any."""
        detail = self.detail or ("native" if self.look == "exact" else "auto")
        if detail == "native":
            return None
        return AUTO_DETAIL if detail == "auto" else detail

    @property
    def whole_look(self) -> Look:
        """The look, with what is given beneath it."""
        told = {name: getattr(self, name) for name in _OF_LOOK[1:]}
        given = {name: value for name, value in told.items() if value is not None}
        return replace(LOOKS[self.look], **given)

    @property
    def thread_count(self) -> int:
        """`threads`, or the number of processors that this process may use."""
        return self.threads if self.threads is not None else processors.count()

    @property
    def worker_count(self) -> int:
        """Images in work at once on a CPU: one a thread, at most MAX_WORKERS sketches.

        The filters alone are light, and take all threads.
        """
        threads = self.thread_count
        return min(threads, MAX_WORKERS) if self.mode == "sketch" else threads


_CHOICES: dict[str, tuple[str, ...]] = {
    "mode": MODES,
    "precision": PRECISIONS,
    "runtime": RUNTIMES,
    "binary": get_args(Binary),
    "look": tuple(LOOKS),
}
_OF_LOOK = ("look", "blacks", "paper", "levels")
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
_OPTIONAL = {"threads", "max_side", "square", "device_memory"}


class Overrides(TypedDict, total=False):
    """Options of one call, see `Options`: none of them needs another model."""

    mode: Mode
    strength: float
    binary: Binary
    hint: HintInput
    max_side: int | None
    square: int | None
    detail: Detail | None
    look: LookName
    blacks: Blacks | None
    paper: float | None
    levels: Levels | None


class Keywords(Overrides, total=False):
    """Options by their names, see `Options`; `model` is apart."""

    device: str
    precision: Precision
    threads: int | None
    tile: int
    max_pixels: int
    batch: int
    device_memory: int | None
    compile: bool
    runtime: Runtime
    engine: str | os.PathLike[str] | None


def from_keywords(options: Mapping[str, Any]) -> Options:
    """Returns the options of these names. Raises OptionsError for a name that does not exist."""
    check_names(options, [one.name for one in fields(Options)])
    return Options(**options)


def check_names(options: Iterable[str], known: Collection[str]) -> None:
    """Raises OptionsError for a name that is not known, with the one that is most like it."""
    for name in options:
        if name not in known:
            similar = get_close_matches(name, known, 1)
            expected = f"Did you mean {similar[0]}?" if similar else f"Use {', '.join(known)}"
            raise OptionsError(f"there is no option {name!r}. {expected}")


def overridden(options: Options, overrides: Mapping[str, Any]) -> Options:
    """Returns the options of one call.

    Args:
        options: Of the `Sketchifier`.
        overrides: Fields of `Overrides`. What would contradict them is left out: `square` gives way
            to a `max_side`, and `max_side` to a `square`; `hint`, `binary` and the look to a mode
            without, where pictures are still drawn at the look's `detail`.

    Raises:
        OptionsError: An override does not exist, or may not have that value.
    """
    known = [one.name for one in fields(Options)]
    if fixed := [name for name in overrides if name in known and name not in PER_CALL]:
        raise OptionsError(
            f"{fixed[0]} cannot change from call to call. Give it to another Sketchifier"
        )
    check_names(overrides, PER_CALL)
    implied: Overrides = {}
    if overrides.get("max_side") is not None:
        implied["square"] = None
    elif overrides.get("square") is not None:
        implied["max_side"] = None
    if overrides.get("mode", "sketch") != "sketch":
        implied["hint"] = implied["binary"] = "auto"
    if overrides.get("mode") == "binary":
        implied |= {"look": "exact", "blacks": None, "paper": None, "levels": None}
        implied["detail"] = options.detail or options.max_detail or "native"  # of its sketch
    return replace(options, **{**implied, **overrides})


PER_CALL = tuple(Overrides.__annotations__)


def check_hint(hint: Hint) -> Hint:
    """Returns the hint. Raises OptionsError for what is no hint."""
    if not tells(hint) or isinstance(hint, Painted):
        return hint
    if isinstance(hint, str) or not _is_number(hint) or not 0 <= hint <= 1:
        raise OptionsError(f"hint must be auto, none, or between 0 and 1, got {hint!r}")
    return hint


def tells(hint: Hint | Path) -> bool:
    """Whether the hint needs a model that takes hints."""
    return hint not in ("auto", "none")


def check_hint_use(hint: Hint | Path, options: Options, takes_hint: bool) -> None:
    """Raises OptionsError where a hint needs another mode or model."""
    if not tells(hint) or takes_hint:
        return
    if options.mode != "sketch":
        raise OptionsError(f"hint needs mode sketch, got mode {options.mode}. Leave hint out")
    raise OptionsError(
        f"model {options.model} takes no hint, got {hint}. "
        "Leave hint and pencil out, or give another model"
    )


def check_workers(workers: int) -> int:
    """Returns the number of workers. Raises OptionsError for what is no integer of at least 1."""
    _check_integer("workers", workers, 1, _ANY)
    return workers


def as_encoding(encoding: Encoding | Format | None) -> Encoding:
    """Returns the encoding of that name; PNG for None. Raises OptionsError for other values."""
    if encoding is None or isinstance(encoding, str):
        return Encoding(encoding or "png")
    if not isinstance(encoding, Encoding):
        raise OptionsError(
            f"encoding must be an Encoding, or one of {', '.join(FORMATS)}, got {encoding!r}"
        )
    return encoding


def check_encoding(encoding: Encoding, options: Options) -> None:
    """Raises OptionsError where an encoding cannot have the look."""
    if encoding.alpha == "lines" and options.whole_look.colours:
        raise OptionsError(
            "alpha lines gives black lines without colours, got look color. Leave one of them out"
        )


def encoding_of(path: Path) -> Encoding:
    """Returns the encoding of the path's ending. Raises OptionsError where there is none."""
    ending = path.suffix.lower().removeprefix(".")
    form = "jpg" if ending == "jpeg" else ending
    if form not in FORMATS:
        raise OptionsError(
            f"{path}: its ending must be .png, .jpg, .jpeg or .webp, got {path.suffix!r}"
        )
    return Encoding(form)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


def _check_choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:  # an array would be compared by element
        raise OptionsError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise OptionsError(f"{name} must be True or False, got {value!r}")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if not _is_integer(value) or not least <= value <= most:
        expected = f"of at least {least}" if most == _ANY else f"from {least} to {most}"
        raise OptionsError(f"{name} must be an integer {expected}, got {value!r}")


@dataclass(frozen=True)
class Encoding:
    """How a sketch becomes the bytes of a file.

    Attributes:
        format: "png" is lossless, "jpg" is lossy, "webp" is lossless unless it has a quality.
        quality: 1..100 for "jpg", 95 where it is None, and for lossy "webp". None: lossless.
        metadata: Keep the source's EXIF, colour profile and resolution in dots per inch, changed to
            be true of the sketch: upright, gray unless the look is "color", of its size. Broken
            metadata, thumbnails, maker's notes, XMP and comments are left out.
        alpha: "white" puts transparent pictures on white. "keep" gives their sketch the same
            transparency; opaque pictures give files without alpha. "lines" gives black lines on a
            transparent ground, to be laid over anything: black everywhere, with 255 - sketch as its
            alpha, so that over white it is the sketch, exactly unless "webp" has a quality. "jpg"
            holds neither of these two.
    """

    format: Format = "png"
    quality: int | None = None
    metadata: bool = False
    alpha: Alpha = "white"

    def __post_init__(self) -> None:
        """Checks each field, and that they agree. Raises OptionsError."""
        _check_choice("format", self.format, FORMATS)
        _check_choice("alpha", self.alpha, ALPHAS)
        _check_bool("metadata", self.metadata)
        if self.quality is not None:
            if self.format == "png":
                raise OptionsError("quality needs format jpg or webp, got png, which is lossless")
            _check_integer("quality", self.quality, 1, 100)
        if self.alpha != "white" and self.format == "jpg":
            raise OptionsError(f"alpha {self.alpha} needs format png or webp, got jpg")

    @property
    def plain(self) -> bool:
        """Whether nothing of a source but its picture is kept."""
        return not self.metadata and self.alpha != "keep"
