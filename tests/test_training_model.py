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


HINTED = [UNetConfig(4, 2, 2, hint=True), UNetConfig(3, 1, 4, hint=True)]


@pytest.mark.parametrize(
    "config", [UNetConfig(4, 2, 2), UNetConfig(3, 1, 1), UNetConfig(3, 1, 3), *HINTED]
)
def test_the_inference_form_is_the_same_function(config: UNetConfig) -> None:
    torch.manual_seed(0)
    model = UNet(config).train()
    model(torch.rand(4, 1, 48, 48))  # BatchNorm statistics that are not those of a new model
    model.eval()
    side = 6 * config.stride
    binary = (torch.rand(1, 1, side, side) < 0.7).float()
    hints = [torch.rand(1, 1, side // 8, side // 8)] if config.hint else []
    torch.testing.assert_close(inference_form(model)(binary, *hints), model(binary, *hints))


@pytest.mark.parametrize("config", HINTED)
def test_a_cell_of_the_hint_reaches_no_further_than_a_pixel(config: UNetConfig) -> None:
    torch.manual_seed(0)
    model = UNet(config).eval()
    side = 8 * config.stride + 2 * config.halo // 8 * 8
    binary, hint = torch.ones(1, 1, side, side), torch.full((1, 1, side // 8, side // 8), 0.3)
    changed = hint.clone()
    changed[..., side // 16, side // 16] = 1
    off = (model(binary, changed) - model(binary, hint)).abs()[0, 0] > 0
    rows, columns = off.nonzero(as_tuple=True)
    cell = side // 16 * 8
    for places in rows, columns:
        assert cell - config.halo <= places.min() < cell
        assert cell + 8 <= places.max() < cell + 8 + config.halo


def test_a_hint_that_is_not_given_is_not_known() -> None:
    torch.manual_seed(0)
    model = UNet(HINTED[0]).eval()
    binary = (torch.rand(2, 1, 16, 24) < 0.7).float()
    torch.testing.assert_close(model(binary), model(binary, torch.zeros(2, 1, 2, 3)))
    assert not torch.allclose(model(binary), model(binary, torch.ones(2, 1, 2, 3)))


def test_the_stem_must_divide_a_cell() -> None:
    with pytest.raises(ValueError, match="unshuffle must divide 8 with a hint, got 3"):
        UNetConfig(unshuffle=3, hint=True)
    assert (UNetConfig(4, 1, 2).stride, UNetConfig(4, 1, 2, hint=True).stride) == (4, 8)
