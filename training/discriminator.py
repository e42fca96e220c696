"""The adversary of `--adversarial`: a PatchGAN that tells painted tones from the filter's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from training import distributed


class PatchGan(nn.Sequential):
    """The 70x70 discriminator of Isola et al. 2017 (arXiv:1611.07004), `width` features at first.

    Input float (N, 2, H, W): the binary page and tones, 0..1. Output (N, 1, H/8 - 2, W/8 - 2):
    a score of each patch, high for tones of the filter.
    """

    def __init__(self, width: int = 32) -> None:
        layers: list[nn.Module] = [nn.Conv2d(2, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for inputs, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
            layers += [
                nn.Conv2d(inputs, 2 * inputs, 4, stride, 1, bias=False),
                nn.BatchNorm2d(2 * inputs),
                nn.LeakyReLU(0.2),
            ]
        super().__init__(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


class Adversary:
    """A discriminator and its optimizer, trained by the hinge loss (Lim and Ye 2017)."""

    def __init__(self, learning_rate: float, device: torch.device) -> None:
        self._model = PatchGan().to(device)
        self._parallel = distributed.parallel(self._model, device)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(), learning_rate, betas=(0.5, 0.999)
        )

    def loss(self, binary: Tensor, tones: Tensor) -> Tensor:
        """How well the adversary tells the tones from the filter's; gradients reach only these."""
        self._model.requires_grad_(False)
        score: Tensor = self._model(torch.cat([binary, tones], dim=1)).mean()
        self._model.requires_grad_(True)
        return -score

    def learn(self, binary: Tensor, tones: Tensor, target: Tensor) -> None:
        """One step of its own."""
        pairs = torch.cat([binary, tones.detach()], dim=1), torch.cat([binary, target], dim=1)
        painted, filtered = self._parallel(torch.cat(pairs)).chunk(2)
        loss = functional.relu(1 + painted).mean() + functional.relu(1 - filtered).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Model and optimizer."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """What `state_dict` gave."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
