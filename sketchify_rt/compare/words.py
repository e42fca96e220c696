"""The words of the sheet, which are the same in PNG and in HTML."""

from __future__ import annotations

from dataclasses import astuple
from math import isinf

from sketchify_rt.metrics import Metrics

TITLE = "From picture to sketch"
LEGEND = (
    "Figures and differences compare the sketch with the dodge filter, at full size: "
    "orange where the sketch is too dark, blue where it is too pale."
)
NO_TONES = "Black and white: the dodge filter is the page itself, without tones to compare with."

# In the order of the fields of `Metrics`: how a figure is shown, and what it means.
_FIGURES = {
    "MAE": ("{:.2f}", "mean absolute error, in levels of 255; 0 is best"),
    "PSNR": ("{:.1f} dB", "peak signal-to-noise ratio; higher is better"),
    "SSIM": ("{:.3f}", "structural similarity; 1 is best"),
    "ink F1": ("{:.3f}", "share of the ink in the right place, to one pixel; 1 is best"),
    "dark MAE": ("{:.1f}", "mean absolute error where the dodge filter is dark; 0 is best"),
    "tone": ("{:.1f}", "distance between the histograms of tones, in levels; 0 is best"),
}
MEANINGS = {name: meaning for name, (_, meaning) in _FIGURES.items()}


def figures(metrics: Metrics) -> dict[str, str]:
    """Formats metrics for the sheet.

    Args:
        metrics: Metrics of one picture.

    Returns:
        Text of each figure by its name, in the order of `MEANINGS`.
    """
    return {
        name: "equal" if isinf(value) else form.format(value)
        for (name, (form, _)), value in zip(_FIGURES.items(), astuple(metrics), strict=True)
    }
