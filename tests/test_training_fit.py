from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from pictures import picture
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sketchify_rt.errors import OptionsError
from training import checkpoint
from training.cli import main
from training.data import Batches
from training.errors import TrainingError
from training.fit import FitOptions, fit
from training.prepare import prepare
from training.recipe import LossWeights, Recipe, UNetConfig

pytestmark = pytest.mark.slow

TINY = UNetConfig(width=4, depth=1, unshuffle=2)
RECIPE = Recipe(TINY, steps=6, batch=2, crop=64, warmup=2)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared(tmp_path_factory.mktemp("pages"))


def prepared(root: Path) -> Path:
    """Three prepared pages, one of them for validation."""
    import cv2

    for name, seed in (("a/1", 1), ("a/2", 2), ("b/1", 3)):
        path = root / "source" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(300, 280, seed))
    prepare(root / "source", root / "ready", val=["b/*"])
    return root / "ready"


def options(pages: Path, output: Path, **changes: Any) -> FitOptions:
    return FitOptions(
        pages, output, **{"device": "cpu", "workers": 0, "checkpoint_every": 2, **changes}
    )


def log(output: Path) -> list[dict[str, float]]:
    lines = (output / "log.jsonl").read_text().splitlines()
    times = ("seconds", "waiting")
    return [{k: v for k, v in json.loads(line).items() if k not in times} for line in lines]


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, whatever of tensors, dicts and lists they are made of."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def states(*outputs: Path) -> list[dict[str, Any]]:
    found = [checkpoint.load(output) for output in outputs]
    return [{k: v for k, v in state.items() if k != "seconds"} for state in found]


HINTED = {"model": dataclasses.replace(TINY, hint=True), "pages": 0.5}


@pytest.mark.parametrize(
    "changes", [{}, {"loss": LossWeights(adversarial=0.01)}, HINTED], ids=["", "adversary", "hint"]
)
def test_a_run_stopped_anywhere_goes_on_to_the_same_weights(
    pages: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(RECIPE, **changes)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fit(recipe, options(pages, whole, validate_every=3)) == 6

    class Crash(Exception):
        pass

    taken = Batches.__getitem__
    for crash_at in (3, 5):

        def crash(batches: Batches, step: int, crash_at: int = crash_at) -> Any:
            if step == crash_at:
                raise Crash
            return taken(batches, step)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Batches, "__getitem__", crash)
            with pytest.raises(Crash):
                fit(recipe, options(pages, parts, validate_every=3))
        assert checkpoint.load(parts)["step"] == crash_at - 1  # one interval is lost at most
    assert fit(recipe, options(pages, parts, validate_every=3)) == 6
    assert same(*states(whole, parts))
    assert log(parts) == log(whole)
    assert fit(recipe, options(pages, parts)) == 6  # nothing is left to do


def test_killed_in_the_middle_it_goes_on_to_the_same_weights(pages: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "training", "fit", str(pages)]
    rest = ["--steps", "60", "--checkpoint-every", "7", "--validate-every", "0", "--device", "cpu"]
    for change in ("model.width=4", "model.depth=1", "crop=64", "batch=2"):
        rest += ["--set", change]
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    with subprocess.Popen([*words, str(parts), *rest], stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 120
        while not (parts / "log.jsonl").exists() or len(log(parts)) < 2:  # step 20
            assert running.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    assert 0 < checkpoint.load(parts)["step"] < 60
    for output in (parts, whole):
        subprocess.run([*words, str(output), *rest], check=True, capture_output=True)
    assert same(*states(whole, parts))
    assert log(parts) == log(whole)
    assert len(log(whole)) == 6


def test_a_signal_to_all_processes_ends_the_run_with_a_checkpoint(
    pages: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "training", "fit", str(pages), str(tmp_path), "--device", "cpu"]
    words += ["--workers", "2", "--steps", "5000", "--validate-every", "0"]
    for change in ("model.width=4", "model.depth=1", "crop=64", "batch=2"):
        words += ["--set", change]
    with subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        until = time.monotonic() + 120
        while not (tmp_path / "log.jsonl").exists() or not log(tmp_path):
            assert running.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGTERM)
        told = running.communicate()[1]
    assert running.returncode == 130
    assert "Traceback" not in told
    assert f"stopped after step {checkpoint.load(tmp_path)['step']} of 5000" in told
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)  # nothing of it is left


def test_a_worker_that_was_killed_is_told(pages: Path, tmp_path: Path) -> None:
    taken = Batches.__getitem__

    def die(batches: Batches, step: int) -> Any:
        if step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return taken(batches, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__getitem__", die)
        with pytest.raises(TrainingError, match="a process that makes batches ended"):
            fit(RECIPE, options(pages, tmp_path, workers=1, validate_every=0))
    assert fit(RECIPE, options(pages, tmp_path, validate_every=0)) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_ends_after_the_step_and_says_how_to_go_on(
    pages: Path, tmp_path: Path, number: signal.Signals
) -> None:
    taken = Batches.__getitem__

    def ask(batches: Batches, step: int) -> Any:
        if step == 2:
            os.kill(os.getpid(), number)
        return taken(batches, step)

    words = ["fit", str(pages), str(tmp_path), "--steps", "5", "--device", "cpu", "--workers", "0"]
    for change in ("model.width=4", "model.depth=1", "crop=64", "batch=2"):
        words += ["--set", change]
    before = signal.getsignal(number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__getitem__", ask)
        result = CliRunner().invoke(main, words)
    assert result.exit_code == 130
    assert "stopped after step 3 of 5; the same command goes on" in result.output
    assert checkpoint.load(tmp_path)["step"] == 3
    assert signal.getsignal(number) is before
    assert CliRunner().invoke(main, words).exit_code == 0
    assert checkpoint.load(tmp_path)["step"] == 5


def test_it_learns_one_batch_by_heart(pages: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        UNetConfig(width=12, depth=2, unshuffle=2),
        LossWeights(dark=0, similarity=0, tone=0),
        steps=600,
        batch=1,
        crop=48,
        data="plain",
        learning_rate=1e-2,
        mixed=False,
        ema=0,
    )
    taken = Batches.__getitem__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__getitem__", lambda batches, step: taken(batches, 0))
        fit(recipe, options(pages, tmp_path, validate_every=0, checkpoint_every=600))
    losses = [entry["loss"] for entry in log(tmp_path)]
    assert losses[-1] * 255 < 1  # levels
    assert losses[-1] < losses[0] / 20


def test_the_loss_goes_down(pages: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=150, data="plain", learning_rate=1e-2)
    fit(recipe, options(pages, tmp_path, validate_every=0, checkpoint_every=150))
    losses = [entry["loss/absolute"] for entry in log(tmp_path)]
    assert np.mean(losses[-5:]) < 0.6 * losses[0]


def test_the_folder_of_a_run_tells_all_of_it(pages: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=20)
    fit(recipe, options(pages, tmp_path, validate_every=10))
    described = json.loads((tmp_path / "recipe.json").read_text())
    assert described["loss"] == dataclasses.asdict(recipe.loss)
    assert described["parameters"] == sum(
        p.numel() for p in checkpoint.load_model(tmp_path).parameters()
    )
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged] == [10, 10, 20, 20]
    for entry in logged[::2]:
        parts = [value for name, value in entry.items() if name.startswith("loss/")]
        assert sum(parts) == pytest.approx(entry["loss"], rel=1e-5)
        assert 0 <= entry["waiting"] <= 1
    assert 0 < logged[1]["val/ssim"] < 1
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    curve = [(event.step, event.value) for event in board.Scalars("val/ssim")]
    assert curve == [(e["step"], pytest.approx(e["val/ssim"])) for e in logged[1::2]]
    assert board.Images("crops")[-1].step == 20
    assert (tmp_path / "crops.png").stat().st_size > 1000


def test_a_log_that_was_damaged_hinders_nothing(pages: Path, tmp_path: Path) -> None:
    fit(RECIPE, options(pages, tmp_path, validate_every=0))
    before = log(tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('garbage\n{"loss": 1}\n{"step": 99}\n{"step": 3, "lo')
    fit(RECIPE, options(pages, tmp_path, validate_every=0))
    assert log(tmp_path) == before


def test_the_averaged_weights_are_the_ones_used(pages: Path, tmp_path: Path) -> None:
    found = {}
    for ema in (0.0, 0.99):
        output = tmp_path / str(ema)
        fit(dataclasses.replace(RECIPE, ema=ema), options(pages, output, validate_every=0))
        state = checkpoint.load(output)
        found[ema] = state
        assert same(dict(checkpoint.load_model(output).state_dict()), dict(state["average"]))
    assert same(dict(found[0.0]["average"]), dict(found[0.0]["model"]))
    assert same(dict(found[0.0]["model"]), dict(found[0.99]["model"]))
    assert not same(dict(found[0.99]["average"]), dict(found[0.99]["model"]))


def test_a_run_begins_with_the_weights_of_another(pages: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    fit(RECIPE, options(pages, first, validate_every=0))
    still = dataclasses.replace(RECIPE, initial=str(first), learning_rate=0, steps=1, seed=5)
    fit(still, options(pages, second, validate_every=0))
    before, after = (checkpoint.load(run)["average"] for run in (first, second))
    weights = [name for name in before if name.endswith(("weight", "bias"))]
    assert len(weights) > 5
    assert all(torch.equal(before[name], after[name]) for name in weights)
    other = dataclasses.replace(still, model=UNetConfig(5, 1, 2))
    with pytest.raises(TrainingError, match="give its shape with --set model"):
        fit(other, options(pages, tmp_path / "third", validate_every=0))


def test_the_command_knows_whether_a_run_has_norms(pages: Path, tmp_path: Path) -> None:
    free = dataclasses.replace(TINY, norms=False)
    for name, model in ("with", TINY), ("without", free):
        first, second = tmp_path / name, tmp_path / f"{name}, on"
        fit(dataclasses.replace(RECIPE, model=model), options(pages, first, validate_every=0))
        words = ["fit", str(pages), str(second), "--initial", str(first), "--steps", "1"]
        words += ["--validate-every", "0", "--workers", "0", "--device", "cpu"]
        for change in "batch=2", "crop=64", "model.width=4", "model.depth=1":
            words += ["--set", change]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 0, result.output
        hinted = dataclasses.replace(model, hint=True)  # as the recipe has it
        assert checkpoint.load(second)["recipe"]["model"] == dataclasses.asdict(hinted)


def test_what_cannot_go_on_is_refused(pages: Path, tmp_path: Path) -> None:
    fit(RECIPE, options(pages, tmp_path, validate_every=0))
    with pytest.raises(TrainingError, match=r"with steps 6, not 9; seed 0, not 1; choose"):
        fit(dataclasses.replace(RECIPE, steps=9, seed=1), options(pages, tmp_path))
    with pytest.raises(TrainingError, match=r"with model\.width 4, not 5; choose"):
        fit(dataclasses.replace(RECIPE, model=UNetConfig(5, 1, 2)), options(pages, tmp_path))
    with pytest.raises(TrainingError, match="holds the pages"):
        fit(RECIPE, options(pages, pages))
    with pytest.raises(OptionsError, match="--device cuda:77: torch cannot use it"):
        fit(RECIPE, options(pages, tmp_path, device="cuda:77"))
    with pytest.raises(TrainingError, match="nowhere: there is no checkpoint"):
        fit(dataclasses.replace(RECIPE, initial="nowhere"), options(pages, tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: no checkpoint, or"):
        fit(RECIPE, options(pages, tmp_path))


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_kept(
    pages: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, steps=40, learning_rate=1e30, clip=0, warmup=0)
    with pytest.raises(TrainingError, match=r"at step \d+ the loss is .*; try a lower learning_ra"):
        fit(recipe, options(pages, tmp_path, validate_every=0, checkpoint_every=1))
    state = checkpoint.load(tmp_path)
    assert all(weight.isfinite().all() for weight in state["average"].values())


def test_two_processes_end_with_the_same_weights(pages: Path, tmp_path: Path) -> None:
    words = ["-m", "training", "fit", str(pages), str(tmp_path), "--steps", "6", "--device", "cpu"]
    for change in ("model.width=4", "model.depth=1", "crop=64", "batch=4", "loss.adversarial=0.01"):
        words += ["--set", change]
    words += ["--workers", "0", "--validate-every", "3"]
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
    ]
    subprocess.run([*launcher, *words], check=True, capture_output=True, timeout=200)
    assert checkpoint.load(tmp_path)["step"] == 6
    assert [entry["step"] for entry in log(tmp_path)] == [3, 6, 6]
