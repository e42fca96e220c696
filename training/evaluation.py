"""What was measured: `evaluate` writes it, `compare` reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sketchify_rt.metrics import Metrics
from training.bootstrap import Estimate, estimate
from training.errors import TrainingError

NAME = "evaluation.json"  # in the folder of a run

Size = Literal["native", "256"]
"""Whole pages as they are, or as the recipe of 2017 had them: the middle square of a landscape and
the top square of a portrait, resized to a side of 256 pixels before anything else is done."""

SIZES: tuple[Size, ...] = get_args(Size)
FIGURES = tuple(f.name for f in fields(Metrics))

Figures = Mapping[Size, Mapping[str, Metrics]]
"""By size and name of the page."""


@dataclass(frozen=True)
class Measured:
    """The model that was measured.

    name: as it was given. kind: "checkpoint", "onnx", or "int8", the INT8 form of an ONNX file.
    sha256: of the file. step: of the optimizer, the last, and minutes: of training, both None where
    they are not known. gflop_per_megapixel: of the convolutions, a multiply-add being two.
    recipe: fields of `training.recipe.Recipe`, or what the manifest of an ONNX file tells of them.
    """

    name: str
    kind: Literal["checkpoint", "onnx", "int8"]
    sha256: str
    step: int | None
    minutes: float | None
    parameters: int
    gflop_per_megapixel: float
    recipe: dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """Figures of a model, and of the baselines that were measured along with it.

    pages: digest of the pages. versions: of the packages that computed.
    """

    model: Measured
    pages: str
    versions: dict[str, str]
    figures: Figures
    baselines: dict[str, Figures] = field(default_factory=dict)

    def of(self, names: Collection[str]) -> Evaluation:
        """The same of these pages alone."""

        def some(figures: Figures) -> Figures:
            return {
                size: {name: row for name, row in rows.items() if name in names}
                for size, rows in figures.items()
            }

        baselines = {name: some(figures) for name, figures in self.baselines.items()}
        return replace(self, figures=some(self.figures), baselines=baselines)

    def write(self, path: Path) -> None:
        """Write as JSON, with means and intervals; a figure that is no finite number is null."""
        document = {
            "model": asdict(self.model),
            "pages": self.pages,
            "versions": self.versions,
            "figures": _document(self.figures),
            "baselines": {name: _document(figures) for name, figures in self.baselines.items()},
        }
        text = json.dumps(document, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """What `write` wrote; `path` may be the folder of a run.

        Raises TrainingError where there is none, or it is something else.
        """
        file = path / NAME if path.is_dir() else path
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
            return cls(
                Measured(**document["model"]),
                document["pages"],
                document["versions"],
                _figures(document["figures"]),
                {name: _figures(each) for name, each in document["baselines"].items()},
            )
        except OSError as error:
            raise TrainingError(
                f"{file}: cannot be read ({error.strerror}); "
                f"`python -m training evaluate {path} PAGES` writes it for a run"
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TrainingError(
                f"{file}: not what `python -m training evaluate` writes ({error!r})"
            ) from error


def estimates(pages: Iterable[Metrics]) -> dict[str, Estimate]:
    """The mean over pages and its interval, by name of the figure."""
    columns = zip(*map(astuple, pages), strict=True)
    return dict(zip(FIGURES, map(estimate, columns), strict=True))


def differences(ours: Sequence[Metrics], theirs: Sequence[Metrics]) -> list[Metrics]:
    """Ours less theirs, page by page; two infinite figures differ by 0."""
    return [
        Metrics(*(0.0 if a == b else a - b for a, b in zip(astuple(x), astuple(y), strict=True)))
        for x, y in zip(ours, theirs, strict=True)
    ]


def summary(figures: Mapping[str, Estimate]) -> dict[str, Any]:
    """Means and intervals as JSON can hold them."""
    return {
        "mean": {name: _finite(e.mean) for name, e in figures.items()},
        "interval": {name: [_finite(e.low), _finite(e.high)] for name, e in figures.items()},
    }


def _finite(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def _document(figures: Figures) -> dict[str, Any]:
    return {
        size: summary(estimates(pages.values()))
        | {
            "pages": {
                page: {name: _finite(value, 6) for name, value in asdict(metrics).items()}
                for page, metrics in pages.items()
            }
        }
        for size, pages in figures.items()
    }


def _figures(document: dict[Size, Any]) -> Figures:
    return {
        size: {
            page: Metrics(**{k: math.inf if v is None else v for k, v in metrics.items()})
            for page, metrics in entry["pages"].items()
        }
        for size, entry in document.items()
    }
