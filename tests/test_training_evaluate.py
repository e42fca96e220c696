from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from pictures import picture
from PIL import Image

from sketchify_rt import Sketchifier, models
from sketchify_rt.kernels import native
from training import checkpoint
from training.bootstrap import estimate
from training.cli import main
from training.data import as_tensor
from training.errors import TrainingError
from training.evaluate import at_size, blurred_binary, describe, evaluate, predictor, white
from training.evaluation import FIGURES, NAME, SIZES, Evaluation
from training.export import export
from training.model import UNet
from training.pages import Pages
from training.prepare import prepare
from training.recipe import Recipe, UNetConfig

TINY = UNetConfig(width=4, depth=1, unshuffle=2)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five prepared pages, four of them for validation."""
    root = tmp_path_factory.mktemp("pages")
    sizes = {
        "a/1": (256, 300),
        "b/1": (350, 270),
        "b/2": (300, 411),
        "b/3": (290, 256),
        "b/4": (260, 260),
    }
    for seed, (name, (height, width)) in enumerate(sizes.items()):
        path = root / "source" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), picture(height, width, seed))
    prepare(root / "source", root / "ready", val=["b/*"])
    return root / "ready"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    states = {"average": UNet(TINY).state_dict(), "model": UNet(TINY).state_dict()}
    recipe = dataclasses.asdict(Recipe(TINY))
    path = tmp_path_factory.mktemp("weights") / "tiny.pt"
    checkpoint.save(path, {**states, "recipe": recipe, "step": 120, "seconds": 90.0, "pages": "x"})
    return path


@pytest.fixture
def run(weights: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(weights, folder / checkpoint.NAME)
    return folder


@pytest.fixture(scope="module")
def exported(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        export(weights, path, credit="nobody", data="nothing")
    return path


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, words)])


def command(*words: object) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_baselines() -> None:
    gray = picture(120, 100, 3)
    assert (white(gray) == 255).all()
    binary = native.binarize(gray)
    flat = cv2.erode(binary, np.ones((3, 3))) == cv2.dilate(binary, np.ones((3, 3)))
    expected = np.where(binary == 255, 255, np.rint(255 - 0.35 * 255))
    np.testing.assert_array_equal(blurred_binary(gray)[flat], expected[flat])


def test_a_hint_may_be_left_out() -> None:
    gray = picture(120, 100, 3)
    with_hint, without = (predictor("lite", hint=hint)(gray) for hint in (True, False))
    expected = Sketchifier(precision="fp32", binary="threshold", hint="none")(gray)
    np.testing.assert_array_equal(without, expected)
    assert not np.array_equal(with_hint, without)


def test_each_source_has_a_table(run: Path, pages: Path) -> None:
    words = (run, pages, "--size", "native", "--baselines")
    both = command(*words, "--split", "all").split("\n\n")
    assert [table.split("\n")[0] for table in both[:-1]] == ["a: 1", "b: 4"]
    assert len({table.split("\n")[-1] for table in both}) == 3
    alone = command(*words)  # the four of source b
    assert both[1] == f"b: 4\n{alone}".rstrip("\n")


@pytest.mark.parametrize("shape", [(300, 411), (411, 300), (100, 90)])
def test_squares_are_those_of_the_engine(shape: tuple[int, int]) -> None:
    page = picture(*shape, 1)
    gray = at_size(page, "256")
    assert gray.shape == (256, 256)
    with Sketchifier(mode="dodge", square=256) as dodge:
        np.testing.assert_array_equal(native.dodge(gray), dodge(page))
    np.testing.assert_array_equal(at_size(page, "native"), page)


@pytest.mark.parametrize("size", SIZES)
def test_the_filter_itself_is_without_error(pages: Path, size: str) -> None:
    shapes = []

    def dodge(gray: np.ndarray) -> np.ndarray:
        shapes.append(gray.shape)
        return native.dodge(gray)

    loaded = Pages.load(pages, "val")
    figures = evaluate(dodge, loaded, size)
    assert [row.mae for row in figures] == [0, 0, 0, 0]
    assert shapes == [image.shape if size == "native" else (256, 256) for image in loaded.images]


def test_a_checkpoint_paints_pages_of_any_size(run: Path) -> None:
    model = checkpoint.load_model(run)
    gray = picture(101, 131, 9)
    sketch = predictor(str(run))(gray)
    assert sketch.shape == (101, 131)
    # Far from the padded borders it is what the model makes of a part.
    part = as_tensor(native.binarize(gray)[None, :100, :128])
    with torch.no_grad():
        tones = model(part)[0, 0].numpy()
    far = (slice(100 - TINY.halo - 4), slice(128 - TINY.halo - 4))
    np.testing.assert_array_equal(native.compose(tones)[far], sketch[far])


def test_the_model_of_a_run_is_told(run: Path, weights: Path) -> None:
    told = describe(str(run))
    assert (told.name, told.kind, told.step, told.minutes) == (str(run), "checkpoint", 120, 1.5)
    assert told.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert told.parameters == sum(p.numel() for p in UNet(TINY).parameters())
    assert told.recipe["model"] == dataclasses.asdict(TINY)
    assert describe(str(weights)) == dataclasses.replace(told, name=str(weights))


def test_an_exported_model_is_measured_by_the_engine(exported: Path, weights: Path) -> None:
    gray = picture(100, 131, 9)
    from_onnx, from_torch = predictor(str(exported))(gray), predictor(str(weights))(gray)
    assert np.abs(from_onnx.astype(int) - from_torch).max() <= 1  # FP16 weights
    told, of_run = describe(str(exported)), describe(str(weights))
    assert told.kind == "onnx"
    assert told.sha256 == models.load(str(exported)).manifest.sha256
    for field in ("step", "parameters", "gflop_per_megapixel"):
        assert getattr(told, field) == getattr(of_run, field)
    assert told.recipe["model"] == of_run.recipe["model"]
    assert not {"step", "minutes"} & set(told.recipe)


def test_a_run_keeps_what_was_measured_of_it(run: Path, pages: Path) -> None:
    output = command(run, pages, "--baselines")
    evaluation = Evaluation.read(run)
    loaded = Pages.load(pages, "val")
    assert evaluation.model == describe(str(run))
    assert evaluation.pages == loaded.digest
    assert {"numpy", "torch"} < set(evaluation.versions)
    assert list(evaluation.baselines) == ["white", "blurred"]
    for size in SIZES:
        expected = evaluate(predictor(str(run)), loaded, size)
        measured = evaluation.figures[size]
        assert tuple(measured) == loaded.names == ("b/1.png", "b/2.png", "b/3.png", "b/4.png")
        for row, wanted in zip(measured.values(), expected, strict=True):
            assert dataclasses.astuple(row) == pytest.approx(dataclasses.astuple(wanted), abs=1e-6)
        # The document tells means and intervals to other readers.
        told = json.loads((run / NAME).read_text())["figures"][size]
        for figure in FIGURES:
            mean, low, high = estimate([getattr(row, figure) for row in expected])
            assert told["mean"][figure] == pytest.approx(mean, abs=1e-4)
            assert told["interval"][figure] == pytest.approx([low, high], abs=1e-4)
        assert f"| {run}, {size} " in output
    assert f"{estimate([r.ssim for r in evaluation.figures['256'].values()]).mean:.3f} [" in output
    with Image.open(run / "sheet.jpg") as sheet:
        assert (sheet.format, sheet.width) == ("JPEG", 5 * 324 + 4)
    before = (run / NAME).read_bytes()
    command(run, pages, "--baselines")
    assert (run / NAME).read_bytes() == before


def test_one_size_and_another_split(run: Path, pages: Path, tmp_path: Path) -> None:
    output = command(
        run, pages, "--size", "256", "--split", "train",
        "--json", tmp_path / "a.json", "--sheet", tmp_path / "a.png",
    )  # fmt: skip
    evaluation = Evaluation.read(tmp_path / "a.json")
    assert {size: list(rows) for size, rows in evaluation.figures.items()} == {"256": ["a/1.png"]}
    assert f"{run}, native" not in output
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.format == "PNG"
    assert sorted(path.name for path in run.iterdir()) == [checkpoint.NAME]


def test_means_are_recorded_in_the_manifest(exported: Path, pages: Path, tmp_path: Path) -> None:
    for path in (exported, exported.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    model = tmp_path / exported.name
    before = models.load(str(model)).manifest
    command(model, pages, "--record", "--split", "all", "--json", tmp_path / "figures.json")
    after = models.load(str(model)).manifest
    assert dataclasses.replace(after, metrics={}) == before
    figures = Evaluation.read(tmp_path / "figures.json").figures["native"].values()
    assert len(figures) == 5
    for name in FIGURES:
        mean = np.mean([getattr(row, name) for row in figures])
        assert after.metrics[name] == pytest.approx(mean, abs=1e-4)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".json", ".onnx"]


def test_what_cannot_be_measured_is_refused(run: Path, pages: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="a checkpoint has no INT8 form"):
        predictor(str(run), int8=True)
    with pytest.raises(TrainingError, match="there is no checkpoint; is "):
        predictor(str(tmp_path))
    for words, message in (
        (["--record", "--size", "256"], "at native size"),
        (["--sheet", tmp_path / "a.gif"], "does not end in .jpg or .png"),
        (["--json", tmp_path / "none" / "a.json"], "there is no such folder"),
    ):
        result = invoke(run, pages, *words)
        assert result.exit_code == 2
        assert message in result.output


def test_a_folder_without_pages_for_validation_is_measured_whole(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    cv2.imwrite(str(source / "1.png"), picture(300, 300, 5))
    prepare(source, tmp_path / "ready", val_share=0)
    command(run, tmp_path / "ready", "--size", "native")
    assert list(Evaluation.read(run).figures["native"]) == ["1.png"]
    result = invoke(run, tmp_path / "ready", "--split", "val")
    assert result.exit_code == 1
    assert "no pages to measure on in split val" in result.output
