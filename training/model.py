"""The U-Net that paints pencil tones into a binary page."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sketchify_rt.kernels.reference import CELL
from training.recipe import UNetConfig


def _double_conv(inputs: int, outputs: int, norms: bool) -> nn.Sequential:
    # Two times convolution, BatchNorm, ReLU. BatchNorm folds into the convolution on export and
    # is safe in FP16; grouped convolutions are avoided for TensorRT's sake.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norms),
        nn.BatchNorm2d(outputs) if norms else nn.Identity(),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=not norms),
        nn.BatchNorm2d(outputs) if norms else nn.Identity(),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv:1505.04597) from binary page to pencil tones.

    Input (N, 1, H, W) float, 0 for ink and 1 for paper; H and W multiples of ``config.stride``.
    With a hint also (N, 1, H / 8, W / 8) float, 0 for "not known", else how dark strokes are, up to
    1. Output of the shape of the first, tones in 0..1.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        features = [config.width * 2**level for level in range(config.depth + 1)]
        pixels = config.unshuffle**2
        self.stem: nn.Module = nn.PixelUnshuffle(config.unshuffle)
        self.hint_scale = CELL // config.unshuffle  # from cells to positions of the stem
        self.down = nn.ModuleList(
            _double_conv(inputs, outputs, config.norms)
            for inputs, outputs in zip([pixels + config.hint, *features], features, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        # Kernel 2, stride 2: each output pixel comes from one tap, so no checkerboard can form.
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * f, f, 2, stride=2) for f in features[:-1])
        self.merge = nn.ModuleList(_double_conv(2 * f, f, config.norms) for f in features[:-1])
        self.head = nn.Sequential(
            nn.Conv2d(config.width, pixels, 1), nn.PixelShuffle(config.unshuffle), nn.Sigmoid()
        )

    def forward(self, binary: Tensor, hint: Tensor | None = None) -> Tensor:
        """Paint tones; shapes and ranges as in the class. A hint that is None is not known."""
        x = self.stem(binary)
        if self.config.hint:
            if hint is None:
                hint = x.new_zeros(x.shape[0], 1, binary.shape[2] // CELL, binary.shape[3] // CELL)
            # Nearest: a cell covers whole positions of the first convolution, so tiles that begin
            # with a cell see the same values as the whole page.
            planes = functional.interpolate(hint, scale_factor=float(self.hint_scale))
            x = torch.cat([x, planes], dim=1)
        skips = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for level in reversed(range(self.config.depth)):
            x = self.merge[level](torch.cat([self.up[level](x), skips[level]], dim=1))
        tones: Tensor = self.head(x)
        return tones


def flop_per_pixel(config: UNetConfig) -> float:
    """Floating-point operations of the convolutions per input pixel (a multiply-add is two)."""
    with torch.device("meta"):  # shapes alone: no numbers, none taken from the generator
        model = UNet(config).eval()
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.ConvTranspose2d):  # kernel equals stride: one tap per output
            total += 2 * output.numel() * module.in_channels
        elif isinstance(module, nn.Conv2d):
            taps = module.kernel_size[0] * module.kernel_size[1]
            total += 2 * output.numel() * module.in_channels * taps

    for module in model.modules():
        module.register_forward_hook(count)
    side = config.stride
    with torch.no_grad():
        model(torch.zeros(1, 1, side, side, device="meta"))
    return total / side**2
