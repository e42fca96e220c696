from __future__ import annotations

import pytest
import torch

from training.export import inference_form
from training.model import UNet, flop_per_pixel
from training.recipe import UNetConfig


def test_each_step_down_doubles_the_features() -> None:
    model = UNet(UNetConfig(width=5, depth=3, unshuffle=1))
    widths = [block[0].out_channels for block in model.down]  # type: ignore[index, union-attr]
    assert widths == [5, 10, 20, 40]
    assert model(torch.zeros(1, 1, 16, 24)).shape == (1, 1, 16, 24)


def test_operations_are_counted() -> None:
    # By hand, multiply-adds per pixel of the finest level, unshuffle 1, depth 1, width w:
    # down 9w + 9w*w, bottom (18w*w + 36w*w)/4, up 2w*w, merge 18w*w + 9w*w, head w.
    w = 6
    by_hand = 2 * (9 * w + 9 * w * w + 54 * w * w / 4 + 2 * w * w + 27 * w * w + w)
    assert flop_per_pixel(UNetConfig(w, 1, 1)) == pytest.approx(by_hand)


@pytest.mark.parametrize("config", [UNetConfig(4, 2, 2), UNetConfig(3, 1, 1), UNetConfig(3, 1, 3)])
def test_the_inference_form_is_the_same_function(config: UNetConfig) -> None:
    torch.manual_seed(0)
    model = UNet(config).train()
    model(torch.rand(4, 1, 48, 48))  # BatchNorm statistics that are not those of a new model
    model.eval()
    side = 6 * config.stride
    binary = (torch.rand(1, 1, side, side) < 0.7).float()
    torch.testing.assert_close(inference_form(model)(binary), model(binary))
