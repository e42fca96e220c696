"""What a training run is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    width: features at the finest level, at least 1; each step down doubles them.
    depth: steps down, at least 1; each halves height and width.
    unshuffle: factor of the pixel-unshuffle stem, 1 for none. The first convolution then works on
        ``unshuffle**2`` times fewer positions, which is where a U-Net spends most of its time.
    """

    width: int = 32
    depth: int = 2
    unshuffle: int = 2

    def __post_init__(self) -> None:
        for name in ("width", "depth", "unshuffle"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def stride(self) -> int:
        """Height and width of the input must be multiples of this many pixels."""
        return int(self.unshuffle * 2**self.depth)

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
