"""The shipped models: ONNX files, each with its manifest, and the registry that finds them.

A model is two files of one stem: ``lite.onnx`` (input "binary" and output "tones", both float32
(N, 1, H, W), 0 for ink and 1 for paper; if the model takes a hint also input "hint", float32
(N, 1, H / 8, W / 8), 0 for "not known"; weights FP16) and ``lite.json`` (the manifest). A third,
``lite.int8.onnx``, may be its INT8 form: inputs and output are the same, the convolutions stand
between QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from sketchify_rt.errors import ModelError

Kind = Literal["float", "int8"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Manifest:
    """What a runtime and a user must know of a model.

    Attributes:
        name: Registry name.
        sha256: Of the ONNX file, hexadecimal.
        stride: Height and width must be multiples of this many pixels.
        halo: Half the receptive field in pixels, rounded up: no pixel farther away changes an
            output pixel.
        gflop_per_megapixel: Of the convolutions; a multiply-add is two.
        parameters: Number of weights.
        architecture: Width, depth and unshuffle of the U-Net, and whether it takes a hint.
        training: What it was trained on (data), how (recipe, the fields of
            ``training/recipe.py``), steps of the optimizer, and minutes.
        credit: The line that the licence of the training pages asks for.
        metrics: Means over the validation pages, see ``sketchify_rt/metrics.py``; empty if they
            were not measured.
        int8_sha256, int8_metrics: Of the INT8 form; None and empty if there is none.
    """

    name: str
    sha256: str
    stride: int
    halo: int
    gflop_per_megapixel: float
    parameters: int
    architecture: dict[str, Any]
    training: dict[str, Any]
    credit: str
    metrics: dict[str, float]
    int8_sha256: str | None = None
    int8_metrics: dict[str, float] = field(default_factory=dict)

    @property
    def takes_hint(self) -> bool:
        """Whether the model has a second input, the hint."""
        return bool(self.architecture.get("hint"))

    def write(self, path: Path) -> None:
        """Writes the manifest as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Model:
    """An ONNX file and its manifest."""

    path: Path
    manifest: Manifest

    def file(self, kind: Kind = "float") -> Path:
        """Returns the path of the ONNX file, or of its INT8 form, which may not exist."""
        return self.path.with_suffix(".int8.onnx") if kind == "int8" else self.path

    def read(self, kind: Kind = "float") -> bytes:
        """Returns the bytes of the ONNX file, or of its INT8 form.

        Raises:
            ModelError: The file is not the one of the manifest, or there is no INT8 form.
        """
        path, manifest = self.file(kind), self.manifest
        sha256 = manifest.int8_sha256 if kind == "int8" else manifest.sha256
        if sha256 is None:
            raise ModelError(
                f"{self.path}: has no INT8 form. To make one: python -m training quantize"
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ModelError(
                f"{path}: is not the file of its manifest: the SHA-256 differs. "
                "Restore the file, or make it again with python -m training"
            )
        return data


def available_models() -> tuple[str, ...]:
    """Returns the names of the shipped models."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.json")))


def load(name: str) -> Model:
    """Finds a model.

    Args:
        name: Of a shipped model, or the path of an ONNX file.

    Raises:
        ModelError: There is no such model, or its manifest is missing or cannot be read.
    """
    if name.endswith(".onnx"):
        path = Path(name)
    elif name in available_models():
        path = _FOLDER / f"{name}.onnx"
    else:
        shipped = ", ".join(available_models())
        raise ModelError(
            f"model must be one of {shipped}, or the path of an .onnx file, got {name!r}"
        )
    if not path.is_file():
        raise ModelError(f"{path}: there is no such model file")
    manifest = path.with_suffix(".json")
    try:
        return Model(path, Manifest(**json.loads(manifest.read_text(encoding="utf-8"))))
    except OSError as error:
        raise ModelError(
            f"{manifest}: the manifest of {path.name} cannot be read ({error.strerror}). "
            "To write it beside the model: python -m training export"
        ) from error
    except (ValueError, TypeError) as error:
        raise ModelError(f"{manifest}: is not a manifest ({error})") from error
