"""What both forms of the sheet say."""

from __future__ import annotations

from math import isinf

from sketchify_rt.metrics import Metrics

TITLE = "From picture to sketch"
LEGEND = (
    "Figures and differences are of the sketch against the dodge filter, at full size: "
    "orange where the sketch is too dark, blue where it is too pale."
)
NO_TONES = "Black and white: its dodge filter is the page itself, with no tones to compare with."

MEANINGS = {
    "MAE": "mean absolute error, in levels of 255; 0 is best",
    "PSNR": "peak signal-to-noise ratio, in dB; more is better",
    "SSIM": "structural similarity; 1 is best",
    "ink F1": "how much of the ink is where it is to be, to one pixel; 1 is best",
    "dark MAE": "mean absolute error where the dodge filter is dark, in levels; 0 is best",
    "tone": "how far apart the shares of tones are, in levels; 0 is best",
}


def figures(metrics: Metrics) -> tuple[tuple[str, str], ...]:
    """Name and value of each figure, as they are shown, in the order of `MEANINGS`."""
    values = (
        f"{metrics.mae:.2f}",
        "equal" if isinf(metrics.psnr) else f"{metrics.psnr:.1f} dB",
        f"{metrics.ssim:.3f}",
        f"{metrics.ink_f1:.3f}",
        f"{metrics.dark_mae:.1f}",
        f"{metrics.tone:.1f}",
    )
    return tuple(zip(MEANINGS, values, strict=True))
