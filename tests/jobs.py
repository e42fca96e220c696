"""Output folders for tests of `sketchify_rt.batch`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sketchify_rt.batch.journal import Journal
from sketchify_rt.batch.output import Output, Settling
from sketchify_rt.batch.resume import Existing, Rules, Settings
from sketchify_rt.batch.staging import Staging
from sketchify_rt.options import Encoding, Format, Options


def output(
    root: Path,
    form: Format = "png",
    *,
    existing: Existing = "refuse",
    retry: bool = False,
    repeat: bool = True,
    strength: float = 1.0,
    limits: str = "",
    journal: bool = True,
    protected: Callable[[Path], bool] = lambda path: False,
    seconds: float = 0,
) -> Output:
    """Returns an output folder that is not yet open. strength: stands for all settings."""
    settings = Settings(Options(mode="dodge", strength=strength), Encoding(form), 200)
    book = Journal(root if journal else None)
    return Output(
        root,
        form,
        book,
        Staging(root, book.exclusive),
        settings,
        Rules(existing, retry, limits, repeat),
        protected,
        Settling(seconds),
    )
