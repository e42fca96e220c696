from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from training.model import UNet, flop_per_pixel
from training.recipe import RECIPES, LossWeights, Recipe, UNetConfig, changed

TINY = UNetConfig(width=4, depth=2, unshuffle=2)


@pytest.mark.parametrize(
    "config", [TINY, UNetConfig(3, 1, 1), UNetConfig(2, 3, 2), UNetConfig(2, 1, 3)]
)
def test_the_halo_is_how_far_the_model_looks(config: UNetConfig) -> None:
    torch.manual_seed(0)
    model = UNet(config).double().eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 4:  # averages: nothing cancels, nothing saturates
            inputs = weight.shape[0] if name.startswith("up") else weight[0].numel()
            torch.nn.init.uniform_(weight, 0.5 / inputs, 1.5 / inputs)
    side = 2 * (config.halo + config.stride)
    side += -side % (2 * config.stride)
    reach = 0
    for place in range(side // 2, side // 2 + config.stride):
        image = torch.rand(1, 1, side, side, dtype=torch.float64, requires_grad=True)
        model(image)[0, 0, place, place].backward()
        assert image.grad is not None
        rows, columns = image.grad[0, 0].nonzero(as_tuple=True)
        reach = max(reach, int((rows - place).abs().max()), int((columns - place).abs().max()))
    # Max pooling lets only one of four through, so a single image may show a little less.
    assert config.halo - config.stride <= reach <= config.halo


def test_the_recipes_are_what_they_are_named_for() -> None:
    lite, full, blog = (RECIPES[name](152) for name in ("lite", "full", "2017"))
    assert flop_per_pixel(lite.model) <= 50_000
    assert full.model.width == blog.model.width == 64  # the paper's
    assert sum(p.numel() for p in UNet(blog.model).parameters()) == pytest.approx(31e6, rel=0.01)
    assert (blog.crop, blog.batch, blog.steps) == (256, 16, 80 * 152 // 16)
    assert blog.data == "squares"
    assert blog.loss == LossWeights(absolute=1, dark=0, similarity=0, tone=0)


def test_the_learning_rate_rises_and_falls() -> None:
    recipe = Recipe(steps=1000, warmup=99, learning_rate=1.0)
    rates = [recipe.learning_rate_at(step) for step in range(1000)]
    assert rates[:2] == pytest.approx([0.01, 0.02])
    assert max(rates) == rates[99] == 1
    assert rates[99 + 901 // 2] == pytest.approx(0.5, abs=0.01)
    assert rates[-1] == pytest.approx((1 + math.cos(math.pi * 900 / 901)) / 2)
    constant = dataclasses.replace(recipe, schedule="constant", warmup=0)
    assert {constant.learning_rate_at(step) for step in range(1000)} == {1}
    short = dataclasses.replace(recipe, steps=10)  # no warmup longer than half of it
    assert short.learning_rate_at(5) == 1


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("steps", "7", 7),
        ("learning_rate", "1e-3", 1e-3),
        ("mixed", "false", False),
        ("data", "plain", "plain"),
        ("loss.dark", "0", 0.0),
        ("model.width", "12", 12),
    ],
)
def test_one_field_is_changed(field: str, value: str, found: object) -> None:
    recipe = changed(Recipe(), f"{field}={value}")
    old, new = dataclasses.asdict(Recipe()), dataclasses.asdict(recipe)
    name, _, inner = field.partition(".")
    got = new[name][inner] if inner else new[name]
    assert got == found
    assert type(got) is type(found)
    assert [key for key in old if old[key] != new[key]] == [name]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("stepz", "7", "no field 'stepz'; there are model, loss, steps"),
        ("", "7", "no field ''"),
        ("loss", "7", "no field 'loss' to set; there is loss.absolute, loss.dark"),
        ("loss.darkness", "7", "no field 'loss.darkness'; there are absolute"),
        ("steps.dark", "7", "no field 'steps.dark' to set; there is steps"),
        ("steps", "many", "steps must be a whole number, not 'many'"),
        ("clip", "", "clip must be a number, not ''"),
        ("clip", "nan", "clip must be at least 0, not nan"),
        ("learning_rate", "inf", "learning_rate must be at least 0, not inf"),
        ("loss.dark", "nan", "loss.dark must be at least 0, not nan"),
        ("crop", "40", "at least 44"),
        ("mixed", "yes", "true or false"),
        ("steps", "0", "steps must be at least 1"),
        ("crop", "250", "multiple of 8"),
        ("ema", "1", "under 1"),
        ("clip", "-1", "clip must be at least 0"),
        ("data", "raw", "augmented, plain, squares"),
        ("ink", "1", "0 to 0.9"),
        ("loss.dark", "-1", "loss.dark must be at least 0"),
        ("model.depth", "0", "depth must be at least 1, not 0"),
    ],
)
def test_what_may_not_be_is_named(field: str, value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        changed(Recipe(), f"{field}={value}")


def test_a_change_has_a_value() -> None:
    with pytest.raises(ValueError, match="'steps' must be FIELD=VALUE"):
        changed(Recipe(), "steps")
