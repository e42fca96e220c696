from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sketchify_rt import Sketchifier, models
from sketchify_rt.image import Gray
from sketchify_rt.kernels import native, reference
from training import metrics
from training.checkpoint import load_model
from training.cli import main
from training.data import Crops
from training.evaluate import blurred_binary, evaluate, predictor, white
from training.export import inference_form
from training.fit import FitOptions, fit
from training.losses import sketch_loss, ssim_map
from training.model import UNet, flop_per_pixel
from training.pages import Pages
from training.recipe import UNetConfig

TINY = UNetConfig(width=4, depth=2, unshuffle=2)


def page(height: int, width: int, seed: int) -> Gray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 5)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pages, prepared by the command."""
    root = tmp_path_factory.mktemp("pages")
    source = root / "source" / "episode"
    source.mkdir(parents=True)
    for i, (height, width) in enumerate([(300, 260), (256, 400), (90, 300)]):
        cv2.imwrite(str(source / f"{i}.png"), page(height, width, i))
    result = CliRunner().invoke(main, ["prepare", str(root / "source"), str(root / "ready")])
    assert result.exit_code == 0, result.output
    return root / "ready"


def test_prepare_packs_what_the_files_hold(folder: Path) -> None:
    pages = Pages.load(folder)
    assert pages.names == ("episode/0.png", "episode/1.png", "episode/2.png")
    for i, image in enumerate(pages.images):
        np.testing.assert_array_equal(image, page(*image.shape, i))


def test_crops_are_pairs_of_the_filters_and_depend_on_the_step_alone(folder: Path) -> None:
    crops = Crops(Pages.load(folder), batch=4, seed=7)
    inputs, targets = crops[3]
    assert inputs.shape == targets.shape == (4, 1, 256, 256)
    assert set(inputs.unique().tolist()) == {0.0, 1.0}
    again = Crops(Pages.load(folder), batch=4, seed=7)
    assert torch.equal(again[3][1], targets)
    assert not torch.equal(crops[4][1], targets)
    # An untouched crop: a page of exactly the crop's size, some turn or mirror of it.
    only = Pages(("only",), (page(256, 256, 5),))
    (target,) = Crops(only, batch=1, seed=0)[0][1]
    dodge = reference.dodge(page(256, 256, 5))
    turns = [np.rot90(side, k) for side in (dodge, dodge[:, ::-1]) for k in range(4)]
    assert any(np.array_equal(target[0].numpy() * 255, turn) for turn in turns)


def test_pages_smaller_than_a_crop_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 256"):
        Crops(Pages(("small",), (page(100, 300, 0),)), batch=1, seed=0)


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


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        UNetConfig(depth=0)


def test_similarity_and_loss() -> None:
    a = torch.rand(2, 1, 40, 50)
    assert ssim_map(a, a).mean() == pytest.approx(1)
    assert ssim_map(a, a).shape == (2, 1, 30, 40)
    assert torch.equal(ssim_map(a, 1 - a, every=2), ssim_map(a, 1 - a)[..., ::2, ::2])
    assert ssim_map(a, 1 - a).mean() < 0
    assert sketch_loss(a, a) == pytest.approx(0, abs=1e-5)
    assert sketch_loss(a, 1 - a) > 0.5


def test_metrics_of_cases_with_known_answers() -> None:
    white_page = np.full((40, 50), 255, np.uint8)
    line = white_page.copy()
    line[20] = 100
    same = metrics.measure(line, line)
    assert same == metrics.Metrics(0, float("inf"), pytest.approx(1), 1, 0, 0)  # type: ignore[arg-type]
    blank = metrics.measure(white_page, line)
    assert (blank.mae, blank.tone) == pytest.approx((155 / 40, 155 / 40))
    assert blank.dark_mae == 155
    assert blank.ink_f1 == 0
    assert blank.psnr == pytest.approx(10 * np.log10(255**2 / (155**2 / 40)), rel=1e-5)
    for shift, f1 in ((1, 1), (2, 0)):  # one pixel off is found, two are not
        assert metrics.measure(np.roll(line, shift, axis=0), line).ink_f1 == f1
    assert metrics.mean([same, blank]).mae == blank.mae / 2


def test_similarity_agrees_with_the_definition_pixel_by_pixel() -> None:
    a, b = page(30, 30, 1), page(30, 30, 2)
    positions = np.arange(-5, 6)
    kernel = np.exp(-(positions**2) / 4.5)
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    wide_a, wide_b = (np.pad(x.astype(float), 5, mode="reflect") for x in (a, b))
    values = []
    for y in range(30):
        for x in range(30):
            p, q = wide_a[y : y + 11, x : x + 11], wide_b[y : y + 11, x : x + 11]
            mp, mq = (window * p).sum(), (window * q).sum()
            vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
            c = (window * (p - mp) * (q - mq)).sum()
            values.append(
                (2 * mp * mq + 6.5025)
                * (2 * c + 58.5225)
                / ((mp**2 + mq**2 + 6.5025) * (vp + vq + 58.5225))
            )
    assert metrics.measure(a, b).ssim == pytest.approx(np.mean(values), abs=1e-6)


def test_fit_learns_stops_and_resumes_to_the_same_weights(folder: Path, tmp_path: Path) -> None:
    options = FitOptions(folder, tmp_path / "whole", steps=4, batch=2, checkpoint_every=2)
    whole = load_model(fit(TINY, options))
    log = (tmp_path / "whole" / "log.jsonl").read_text()
    entries = [json.loads(line) for line in log.splitlines()]
    assert entries[-1]["step"] == 4

    class Stop(Exception):
        pass

    halved = dataclasses.replace(options, output=tmp_path / "halved")
    taken = Crops.__getitem__

    def stop_at_three(crops: Crops, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        if step == 3:
            raise Stop
        return taken(crops, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Crops, "__getitem__", stop_at_three)
        with pytest.raises(Stop):
            fit(TINY, halved)
    resumed = load_model(fit(TINY, halved))
    for name, weight in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], weight), name
    with pytest.raises(ValueError, match="other config;"):
        fit(UNetConfig(width=5), halved)
    index = json.loads((folder / "pages.json").read_text())
    (tmp_path / "fewer").mkdir()
    (tmp_path / "fewer" / "pages.json").write_text(json.dumps(index[:2]))
    (tmp_path / "fewer" / "pages.u8").write_bytes((folder / "pages.u8").read_bytes())
    with pytest.raises(ValueError, match="other pages;"):
        fit(TINY, dataclasses.replace(halved, pages=tmp_path / "fewer"))


def test_a_resumed_log_has_each_step_once(folder: Path, tmp_path: Path) -> None:
    options = FitOptions(folder, tmp_path, steps=2, batch=1)
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n{"step": 2}\n')  # of a run that was killed
    fit(TINY, options)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == [2]


def test_the_inference_form_is_the_same_function() -> None:
    torch.manual_seed(0)
    for config in (TINY, UNetConfig(3, 1, 1), UNetConfig(3, 1, 3)):
        model = UNet(config).train()
        model(torch.rand(4, 1, 48, 48))  # BatchNorm statistics that are not those of a new model
        model.eval()
        side = 6 * config.stride
        binary = (torch.rand(1, 1, side, side) < 0.7).float()
        torch.testing.assert_close(inference_form(model)(binary), model(binary))


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_from_pages_to_a_model_that_the_engine_runs(folder: Path, tmp_path: Path) -> None:
    def command(*words: object) -> str:
        result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    command("fit", folder, tmp_path / "run", "--steps", 3, "--batch", 2, "--width", 4)
    checkpoint, exported = tmp_path / "run" / "checkpoint.pt", tmp_path / "tiny.onnx"
    command("export", checkpoint, exported, "--data", "noise", "--credit", "nobody")
    manifest = models.load(str(exported)).manifest
    config = UNetConfig(width=4)
    assert (manifest.name, manifest.credit) == ("tiny", "nobody")
    assert (manifest.stride, manifest.halo) == (config.stride, config.halo)
    assert manifest.training == {"data": "noise", "step": 3, "batch": 2, "seed": 0}
    assert exported.stat().st_size < 2.5 * manifest.parameters + 10_000  # two bytes a weight

    gray = page(100, 131, 9)  # no multiples of the stride
    from_onnx, from_torch = predictor(str(exported))(gray), predictor(str(checkpoint))(gray)
    assert np.abs(from_onnx.astype(int) - from_torch).max() <= 1  # FP16 weights
    np.testing.assert_array_equal(from_onnx, Sketchifier(str(exported), precision="fp32")(gray))

    output = command(
        "evaluate", exported, folder, "--baselines", "--record", "--json", tmp_path / "all.json"
    )
    assert "white: " in output
    assert "blurred: " in output
    figures = json.loads((tmp_path / "all.json").read_text())[str(exported)]
    recorded = models.load(str(exported)).manifest.metrics
    assert recorded["mae"] == pytest.approx(np.mean([f["mae"] for f in figures.values()]), abs=1e-3)


def test_baselines() -> None:
    gray = page(120, 100, 3)
    assert (white(gray) == 255).all()
    binary = native.binarize(gray)
    flat = cv2.erode(binary, np.ones((3, 3))) == cv2.dilate(binary, np.ones((3, 3)))
    expected = np.where(binary == 255, 255, np.rint(255 - 0.35 * 255))
    np.testing.assert_array_equal(blurred_binary(gray)[flat], expected[flat])
    (figures,) = evaluate(native.dodge, Pages(("page",), (gray,)))
    assert figures.mae == 0
