from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.losses import TERMS, absolute, dark, similarity, sketch_loss, ssim_map, tone
from training.recipe import LossWeights

SHAPE = (2, 1, 64, 80)


@pytest.fixture
def target() -> Tensor:
    torch.manual_seed(1)
    return torch.rand(SHAPE)


@pytest.mark.parametrize("name", TERMS)
def test_a_term_is_nothing_where_all_is_right_and_pulls_towards_it(
    name: str, target: Tensor
) -> None:
    term = TERMS[name]
    assert term(target, target) == pytest.approx(0, abs=1e-5)
    wrong = torch.rand(SHAPE, requires_grad=True)
    before = term(wrong, target)
    assert before > 0.01
    before.backward()
    assert wrong.grad is not None
    step = 0.01 * wrong.grad / wrong.grad.abs().max()
    assert term(wrong.detach() - step, target) < before


def test_terms_of_cases_with_known_answers(target: Tensor) -> None:
    white, gray, black = (torch.full(SHAPE, level) for level in (1.0, 0.5, 0.0))
    assert absolute(white, gray) == 0.5
    assert dark(gray, white) == 0  # nothing dark was asked for
    assert dark(gray, black) == 0.5
    assert dark(white, gray) == 0.25
    # The same tones in other places are no error; the fading of all is.
    odd = target[..., 1:, 1:]
    assert tone(odd.flip(2, 3), odd) == pytest.approx(0, abs=1e-6)
    assert tone(target * 0.5 + 0.5, target) == pytest.approx(0.25, abs=0.01)
    assert similarity(1 - target, target) > 1


def test_similarity_sees_what_a_single_scale_does_not(target: Tensor) -> None:
    smooth = torch.linspace(0, 1, 80).expand(SHAPE)
    stairs = (smooth * 4).floor() / 4
    single = 1 - ssim_map(stairs, smooth, every=2).mean()
    assert 0 < single != pytest.approx(float(similarity(stairs, smooth)), rel=0.1)


def test_the_loss_is_the_weighted_terms(target: Tensor) -> None:
    tones = torch.rand(SHAPE)
    weights = LossWeights(absolute=2, dark=0, similarity=0.5, tone=3)
    terms = sketch_loss(tones, target, weights)
    assert terms.keys() == {"absolute", "similarity", "tone"}
    assert terms["absolute"] == pytest.approx(2 * float(absolute(tones, target)))
    assert terms["tone"] == pytest.approx(3 * float(tone(tones, target)))


def test_the_structural_similarity() -> None:
    a = torch.rand(2, 1, 40, 50)
    assert ssim_map(a, a).mean() == pytest.approx(1)
    assert ssim_map(a, a).shape == (2, 1, 30, 40)
    assert torch.equal(ssim_map(a, 1 - a, every=2), ssim_map(a, 1 - a)[..., ::2, ::2])
    assert ssim_map(a, 1 - a).mean() < 0
