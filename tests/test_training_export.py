from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from pictures import picture

from sketchify_rt import Sketchifier, models
from training import checkpoint
from training.cli import main
from training.evaluate import predictor
from training.initial import begin_with
from training.model import UNet
from training.recipe import RECIPES, Recipe, UNetConfig
from training.state import State


def command(*words: object) -> str:
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.slow
def test_from_pages_to_a_model_that_the_engine_runs(tmp_path: Path) -> None:
    source, ready, run = (tmp_path / name for name in ("pages", "ready", "run"))
    source.mkdir()
    cv2.imwrite(str(source / "1.png"), picture(280, 260, 1))
    command("prepare", source, ready, "--val-share", 0)
    words = ["--steps", "3", "--device", "cpu", "--workers", "0", "--validate-every", "0"]
    sets = ["--set", "model.width=4", "--set", "batch=2", "--set", "crop=64"]
    command("fit", ready, run, *words, *sets)
    exported = tmp_path / "tiny.onnx"
    about = ["--data", "blobs", "--credit", "nobody"]
    command("export", run, exported, *about, "--licence", "MIT")
    told = {entry.key: entry.value for entry in onnx.load(exported).metadata_props}
    assert (told["model_license"], told["credit"], told["stride"]) == ("MIT", "nobody", "8")

    manifest = models.load(str(exported)).manifest
    config = UNetConfig(width=4, hint=True)
    assert (manifest.name, manifest.credit) == ("tiny", "nobody")
    assert (manifest.stride, manifest.halo) == (config.stride, config.halo)
    assert manifest.architecture == dataclasses.asdict(config)
    chosen = dataclasses.replace(RECIPES["lite"](1), model=config, steps=3, batch=2, crop=64)
    recipe = dataclasses.asdict(chosen)
    del recipe["model"]
    assert manifest.training.pop("minutes") < 60
    assert manifest.training == {"data": "blobs", "recipe": recipe, "step": 3}
    assert exported.stat().st_size < 2.5 * manifest.parameters + 10_000  # two bytes a weight

    later = tmp_path / "later"
    command("fit", ready, later, *words, *sets, "--initial", run)
    command("export", later, tmp_path / "later.onnx", *about)
    initial = models.load(str(tmp_path / "later.onnx")).manifest.training["recipe"]["initial"]
    assert (initial["step"], initial["recipe"]) == (3, recipe)  # and no path

    on = tmp_path / "on"
    command("fit", ready, on, *words, *sets, "--initial", exported)
    command("export", on, tmp_path / "on.onnx", *about)
    initial = models.load(str(tmp_path / "on.onnx")).manifest.training["recipe"]["initial"]
    assert initial == {"recipe": recipe, "step": 3, "minutes": 0}

    gray = picture(100, 131, 9)  # no multiples of the stride
    from_onnx, from_torch = predictor(str(exported))(gray), predictor(str(run))(gray)
    assert np.ptp(from_torch) > 20  # a picture
    assert np.abs(from_onnx.astype(int) - from_torch).max() <= 1  # FP16 weights
    np.testing.assert_array_equal(from_onnx, Sketchifier(str(exported), precision="fp32")(gray))


@pytest.mark.slow
def test_the_mean_of_two_runs_is_exported(tmp_path: Path) -> None:
    config = UNetConfig(width=3, depth=1, norms=False)
    weights = []
    for seed, run in enumerate(("a", "b")):
        state = State(Recipe(config, seed=seed, steps=4 + seed), "", torch.device("cpu")).snapshot()
        (tmp_path / run).mkdir()
        checkpoint.save(tmp_path / run / checkpoint.NAME, state)
        weights.append(state["average"])
    model = tmp_path / "both.onnx"
    runs = ["export", tmp_path / "a", model, "--average", tmp_path / "b"]
    command(*runs, "--data", "", "--credit", "")
    network = UNet(config)
    history = begin_with(network, str(model))
    for name, values in network.state_dict().items():
        torch.testing.assert_close(
            values, (weights[0][name] + weights[1][name]) / 2, atol=1e-3, rtol=0
        )
    assert history["recipe"]["steps"] == 4
    assert [run["recipe"]["steps"] for run in history["averaged_with"]] == [5]

    later = tmp_path / "later"
    later.mkdir()
    on = State(Recipe(config, initial=str(model)), "", torch.device("cpu")).snapshot()
    checkpoint.save(later / checkpoint.NAME, on)
    command("export", later, tmp_path / "later.onnx", "--data", "", "--credit", "")
    initial = models.load(str(tmp_path / "later.onnx")).manifest.training["recipe"]["initial"]
    assert [run["recipe"]["steps"] for run in initial["averaged_with"]] == [5]

    other = State(Recipe(UNetConfig(4, 1, norms=False)), "", torch.device("cpu")).snapshot()
    checkpoint.save(tmp_path / "b" / checkpoint.NAME, other)
    result = CliRunner().invoke(main, [str(w) for w in (*runs, "--data", "", "--credit", "")])
    assert result.exit_code == 1
    assert "b has a U-Net of" in result.output


def test_an_export_has_the_name_of_an_onnx_file(tmp_path: Path) -> None:
    words = ["export", str(tmp_path), "model.bin", "--data", "", "--credit", ""]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert "does not end in .onnx" in result.output


def test_weights_that_are_no_numbers_are_not_exported(tmp_path: Path) -> None:
    state = State(Recipe(UNetConfig(width=2)), "", torch.device("cpu")).snapshot()
    state["average"]["head.0.bias"].fill_(float("nan"))
    checkpoint.save(tmp_path / checkpoint.NAME, state)
    result = CliRunner().invoke(
        main, ["export", str(tmp_path), str(tmp_path / "a.onnx"), "--data", "", "--credit", ""]
    )
    assert result.exit_code == 1
    assert "has weights that are no numbers" in result.output
    assert not (tmp_path / "a.onnx").exists()
