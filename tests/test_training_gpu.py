"""Training on a card. A file of its own: to collect it takes none of what training needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import needs


@pytest.mark.gpu
@pytest.mark.parametrize("adversarial", [0, 0.01])
def test_on_a_gpu(tmp_path: Path, adversarial: float) -> None:
    needs("click", "tensorboard", "tqdm", "sketchify_rt._native")
    from test_training_fit import RECIPE, log, options, prepared

    from training import checkpoint
    from training.fit import fit
    from training.recipe import LossWeights

    recipe = dataclasses.replace(
        RECIPE, steps=80, learning_rate=5e-3, loss=LossWeights(adversarial=adversarial)
    )
    pages = prepared(tmp_path / "pages")
    output = tmp_path / "run"
    where = options(pages, output, device="auto", workers=2, validate_every=40)
    assert fit(recipe, where) == 80
    losses = [entry["loss/absolute"] for entry in log(output) if "loss" in entry]
    assert np.mean(losses[-2:]) < 0.6 * losses[0]
    weights = checkpoint.load(output)["average"]
    assert all(weight.device.type == "cpu" for weight in weights.values())
    assert fit(recipe, where) == 80
