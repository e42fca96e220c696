from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from sketchify_rt.errors import ModelError
from training import checkpoint
from training.errors import TrainingError
from training.export import write
from training.initial import begin_with
from training.model import UNet
from training.recipe import Recipe, UNetConfig
from training.state import State

pytestmark = pytest.mark.slow

SMALL = UNetConfig(width=4, depth=1, unshuffle=2)
FREE = dataclasses.replace(SMALL, norms=False)


def pages(config: UNetConfig) -> torch.Tensor:
    return (torch.rand(2, 1, 4 * config.stride, 6 * config.stride) < 0.7).float()


def used(config: UNetConfig) -> UNet:
    """Weights that are those of no new model."""
    torch.manual_seed(0)
    model = UNet(config).train()
    for _ in range(3):
        model(pages(config))
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.uniform_(weight, -0.2, 0.2)
        if name == "head.0.weight":
            weight.data.mul_(10)
    return model.eval()


def exported(model: UNet, path: Path) -> str:
    told = {"data": "", "recipe": {"steps": 5}, "step": 5, "minutes": 2}
    write(model, path, "", told)
    return str(path)


@pytest.mark.parametrize("config", [SMALL, FREE, UNetConfig(3, 2, 3), UNetConfig(6, 1, 1)])
def test_an_exported_model_goes_on_as_the_same_function(config: UNetConfig, tmp_path: Path) -> None:
    model = used(config)
    later = UNet(dataclasses.replace(config, norms=False))
    history = begin_with(later, exported(model, tmp_path / "a.onnx"))
    assert history == {"recipe": {"steps": 5}, "step": 5, "seconds": 120}
    binary = pages(config)
    assert model(binary).std() > 0.01
    torch.testing.assert_close(later(binary), model(binary), atol=2e-3, rtol=0)  # FP16 weights


def test_a_shipped_model_goes_on() -> None:
    begin_with(UNet(UNetConfig(norms=False, hint=True)), "lite")


def test_an_exported_model_with_a_hint_goes_on_as_the_same_function(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, hint=True)
    model, later = used(config), UNet(dataclasses.replace(config, norms=False))
    begin_with(later, exported(model, tmp_path / "a.onnx"))
    binary = pages(config)
    hint = torch.rand(2, 1, binary.shape[2] // 8, binary.shape[3] // 8)
    assert not torch.allclose(model(binary, hint), model(binary), atol=5e-3)
    torch.testing.assert_close(later(binary, hint), model(binary, hint), atol=2e-3, rtol=0)


@pytest.mark.parametrize("larger", [{}, {"width": 8}])
def test_a_hint_changes_nothing_at_first(larger: dict[str, int], tmp_path: Path) -> None:
    model = used(FREE)
    later = UNet(dataclasses.replace(FREE, hint=True, **larger))
    begin_with(later, exported(model, tmp_path / "a.onnx"))
    binary = pages(later.config)
    hint = torch.rand(2, 1, binary.shape[2] // 8, binary.shape[3] // 8)
    torch.testing.assert_close(later(binary, hint), model(binary), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "larger", [{"width": 8}, {"width": 12}, {"depth": 2}, {"depth": 3}, {"width": 8, "depth": 3}]
)
def test_a_larger_network_computes_the_same_and_then_learns_more(
    larger: dict[str, int], tmp_path: Path
) -> None:
    source = exported(used(FREE), tmp_path / "a.onnx")
    model, large = UNet(FREE), UNet(dataclasses.replace(FREE, **larger))
    begin_with(model, source)
    begin_with(large, source)
    binary = pages(large.config)
    tones = large(binary)
    torch.testing.assert_close(tones, model(binary), atol=1e-6, rtol=1e-5)
    # No two features are alike for ever: one step away, none of the weights are.
    optimizer = torch.optim.SGD(large.parameters(), 1.0)
    for _ in range(2):
        optimizer.zero_grad()
        (large(binary) - 0.5).square().mean().backward()
        optimizer.step()
    for name, weight in large.named_parameters():
        if weight.dim() == 4 and not name.startswith("head"):
            features = weight.transpose(0, 1) if name.startswith("up") else weight
            rows = features.flatten(1).unique(dim=0)
            assert len(rows) == len(features), name


def test_what_does_not_grow_is_refused(tmp_path: Path) -> None:
    source = exported(used(FREE), tmp_path / "a.onnx")
    for other in (
        dataclasses.replace(FREE, width=6),
        dataclasses.replace(FREE, width=2),
        dataclasses.replace(FREE, unshuffle=1),
    ):
        with pytest.raises(TrainingError, match="does not grow into"):
            begin_with(UNet(other), source)
    with pytest.raises(TrainingError, match=r"BatchNorm does not grow, nor lose it; export it"):
        begin_with(UNet(dataclasses.replace(FREE, norms=True)), source)
    state = State(Recipe(SMALL, crop=64), "", torch.device("cpu")).snapshot()
    checkpoint.save(tmp_path / checkpoint.NAME, state)
    with pytest.raises(TrainingError, match="export it, and take"):
        begin_with(UNet(dataclasses.replace(SMALL, width=8)), str(tmp_path))
    with pytest.raises(ModelError, match="no such model file"):
        begin_with(UNet(FREE), "gone.onnx")
