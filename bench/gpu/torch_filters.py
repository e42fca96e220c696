"""The filters as one would write them with torch's operators: convolutions along each axis.

In float32 they are exact where convolutions are: torch's on a card round to TF32 unless told not
to. In FP16 a blur is off by up to 1/16 level. Either way a few pixels come out on the other side of
the threshold, or divided by a blur that is off by one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sketchify_rt.kernels.reference import GAUSS_9, GAUSS_21


class Binarize(nn.Module):
    """As `kernels.reference.binarize`: uint8 (N, 1, H, W), computed in the module's dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = _Blur(GAUSS_9, "replicate")

    def forward(self, gray: Tensor) -> Tensor:
        """Uint8, 0 or 255."""
        levels = gray.to(self.blur.across.dtype)
        paper = (levels - torch.round(self.blur(levels)) > -2).to(levels.dtype)
        shares = F.avg_pool2d(F.pad(paper, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (shares > 0.5).to(torch.uint8) * 255


class Dodge(nn.Module):
    """As `kernels.reference.dodge` with strength 1: uint8 (N, 1, H, W), blurred in the dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = _Blur(GAUSS_21, "reflect")

    def forward(self, gray: Tensor) -> Tensor:
        """Uint8."""
        blur = torch.floor(self.blur(gray.to(self.blur.across.dtype)) + 0.5)
        return divide(gray, blur)


class Compose(nn.Module):
    """As `kernels.reference.compose` with strength 1: floats (N, 1, H, W), always in float32."""

    def forward(self, tones: Tensor) -> Tensor:
        """Uint8."""
        return (tones.float().nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8)


def divide(gray: Tensor, blur: Tensor) -> Tensor:
    """Uint8 over whole numbers: 256 gray / blur, rounded, which FP16 cannot hold."""
    quotient = torch.floor(gray.float() * 256 / blur + 0.5).clamp(max=255)
    return torch.where(blur > 0, quotient, 0).to(torch.uint8)


FILTERS: dict[str, type[nn.Module]] = {"binarize": Binarize, "dodge": Dodge, "compose": Compose}


class _Blur(nn.Module):
    across: Tensor
    down: Tensor

    def __init__(self, kernel: tuple[int, ...], border: str) -> None:
        super().__init__()
        weights = torch.tensor(kernel) / 256
        self.register_buffer("across", weights.view(1, 1, 1, -1))
        self.register_buffer("down", weights.view(1, 1, -1, 1))
        self.padding, self.border = 4 * (len(kernel) // 2,), border

    def forward(self, levels: Tensor) -> Tensor:
        padded = F.pad(levels, self.padding, mode=self.border)
        return F.conv2d(F.conv2d(padded, self.across), self.down)
