"""Models that take a hint: from the option to the second input of the runtime, on the CPU."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner
from pictures import picture

from sketchify_rt import (
    ModelError,
    Options,
    OptionsError,
    Sketchifier,
    SketchTransform,
    bilevel,
    hints,
    inputs,
    models,
)
from sketchify_rt.batch.resume import Settings
from sketchify_rt.cli import common, info
from sketchify_rt.cli.verbs import main
from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.image import Gray, fit, resize
from sketchify_rt.kernels import reference
from sketchify_rt.options import AUTO_DETAIL, PENCILS, Arithmetic, Detail, Encoding
from sketchify_rt.runtime.openvino import OpenVinoRuntime
from training.evaluate import painter
from training.export import write
from training.model import UNet
from training.recipe import UNetConfig

PAGE = picture(531, 405)
CELLS = (67, 51)


SMALL = UNetConfig(width=4, depth=1, norms=False, hint=True)  # of stride 8
DEEP = UNetConfig(width=4, depth=3, norms=False, hint=True)  # of stride 16
PLAIN = UNetConfig(width=4, depth=1, norms=False)


def random(config: UNetConfig) -> UNet:
    """Of large weights, so that a hint moves tones by many levels."""
    torch.manual_seed(0)
    model = UNet(config)
    if config.hint:
        model.down[0][0].weight.data[:, -1].mul_(20)
    model.head[0].weight.data.mul_(10)
    return model


def export(path: Path, config: UNetConfig) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about torch
        write(random(config), path, "nobody", {})
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return export(tmp_path_factory.mktemp("model") / "hinted.onnx", SMALL)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> str:
    """For it a page of 51 columns of cells has one more beyond its edge."""
    return export(tmp_path_factory.mktemp("model") / "deep.onnx", DEEP)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Takes no hint."""
    return export(tmp_path_factory.mktemp("model") / "plain.onnx", PLAIN)


def auto(gray: Gray) -> Gray:
    return reference.hint(reference.binarize(gray), reference.dodge(gray))


def seen(sketchify: Sketchifier) -> list[tuple[Gray, Gray]]:
    """What the runtime gets, from now on."""
    opened = sketchify._open()
    assert opened.painter is not None
    infer, calls = opened.painter.runtime.infer, []

    def noted(binary: Gray, hint: Gray) -> Any:
        calls.append((binary.copy(), hint.copy()))
        return infer(binary, hint)

    runtime = dataclasses.replace(opened.painter.runtime, infer=noted)
    painter = dataclasses.replace(opened.painter, runtime=runtime)
    sketchify._opened[1] = dataclasses.replace(opened, painter=painter)
    return calls


def test_the_manifest_tells_whether_a_model_takes_a_hint(model: str) -> None:
    manifest = models.load(model).manifest
    assert manifest.takes_hint
    assert not dataclasses.replace(manifest, architecture={"width": 4}).takes_hint


def test_the_runtime_gets_the_plane_of_the_whole_page_cut_like_its_tiles(model: str) -> None:
    plane = auto(PAGE)
    assert plane.shape == CELLS
    sketchify = Sketchifier(model, device="cpu", tile=256, threads=1)
    calls = seen(sketchify)
    sketchify(PAGE)
    places = []
    for binary, hint in calls:
        assert binary.shape == (1, 8 * hint.shape[1], 8 * hint.shape[2])
        rows, columns = hint.shape[1:]
        places += [
            (y, x)
            for y in range(CELLS[0] - rows + 1)
            for x in range(CELLS[1] - columns + 1)
            if (plane[y : y + rows, x : x + columns] == hint[0]).all()
        ]
    assert len(calls) == 6
    assert len(set(places)) == 6  # each tile has a part of the plane, and another one
    assert (0, 0) in places


def test_beyond_the_page_the_last_cells_are_repeated(deep: str) -> None:
    sketchify = Sketchifier(deep, device="cpu", threads=1)
    calls = seen(sketchify)
    sketchify(PAGE)
    ((binary, hint),) = calls
    assert binary.shape == (1, 544, 416)
    np.testing.assert_array_equal(hint[0], np.pad(auto(PAGE), ((0, 1), (0, 1)), mode="edge"))


@pytest.mark.parametrize("precision", ["fp32", "half"])
@pytest.mark.parametrize("name", ["model", "deep"])
def test_tiled_equals_whole(
    request: pytest.FixtureRequest, name: str, precision: Arithmetic
) -> None:
    path = request.getfixturevalue(name)
    whole = Sketchifier(path, device="cpu", precision=precision, threads=1)(PAGE)
    for tile, threads in (256, 1), (304, 2):
        tiled = Sketchifier(path, device="cpu", precision=precision, tile=tile, threads=threads)
        for sketch in [tiled(PAGE), *tiled.map([PAGE] * 3, workers=2)]:
            np.testing.assert_array_equal(sketch, whole)


@pytest.mark.parametrize(
    ("hint", "level"),
    [("none", 0), (0, 1), (0.35, 90), (1, 255), *((PENCILS[name], None) for name in PENCILS)],
)
def test_a_constant_hint_is_one_level_everywhere(model: str, hint: Any, level: int | None) -> None:
    level = round(1 + 254 * hint) if level is None else level
    sketchify = Sketchifier(model, device="cpu", threads=1, hint=hint)
    ((_, plane),) = (calls := seen(sketchify), sketchify(PAGE))[0]
    assert plane.shape == (1, *CELLS)
    assert (plane == level).all()
    runtime = OpenVinoRuntime(models.load(model), 1)
    binary = np.pad(reference.binarize(PAGE), ((0, 5), (0, 3)), mode="edge")[None]
    tones = runtime(binary, plane)[0, : PAGE.shape[0], : PAGE.shape[1]]
    np.testing.assert_array_equal(sketchify(PAGE), reference.compose(tones))
    assert len(calls) == 2


@pytest.mark.parametrize(("name", "config"), [("model", SMALL), ("deep", DEEP)])
def test_the_engine_paints_what_training_evaluates(
    request: pytest.FixtureRequest, name: str, config: UNetConfig
) -> None:
    expected = painter(random(config))(PAGE).astype(int)
    sketch = Sketchifier(request.getfixturevalue(name), device="cpu", precision="fp32")(PAGE)
    assert np.abs(sketch - expected).max() <= 1  # weights of FP16


def test_hints_make_different_sketches(model: str) -> None:
    hints: list[Any] = ["auto", "none", 0.15, 1.0]
    sketches = [Sketchifier(model, device="cpu", hint=hint)(PAGE) for hint in hints]
    assert len({sketch.tobytes() for sketch in sketches}) == len(hints)
    np.testing.assert_array_equal(Sketchifier(model, device="cpu")(PAGE), sketches[0])


def test_the_plane_is_of_the_picture_as_it_is_sketched(model: str) -> None:
    sketchify = Sketchifier(model, device="cpu", square=64)
    calls = seen(sketchify)
    sketchify(PAGE)
    square = resize(PAGE[:405], 64, 64)
    np.testing.assert_array_equal(calls[0][1][0], auto(square))


def test_the_option_travels(model: str) -> None:
    original = Sketchifier(model, device="cpu", hint=0.6)
    copy = pickle.loads(pickle.dumps(original))
    assert copy.options == original.options
    np.testing.assert_array_equal(copy(PAGE), original(PAGE))
    np.testing.assert_array_equal(SketchTransform(model=model, hint=0.6)(PAGE), original(PAGE))
    (file,) = SketchActor(model=model, device="cpu", hint=0.6).sketchify.encode_batch([PAGE])
    assert file == original.encode(PAGE)


def test_a_model_without_a_hint_takes_none(plain: str) -> None:
    expected = painter(random(PLAIN))(PAGE).astype(int)
    for hint in ("auto", "none"):
        sketch = Sketchifier(plain, device="cpu", precision="fp32", hint=hint)(PAGE)
        assert np.abs(sketch - expected).max() <= 1
    for hint in (0, 0.35):
        with pytest.raises(OptionsError, match=rf"plain\.onnx takes no hint, got {hint}\. Leave"):
            Sketchifier(plain, device="cpu", hint=hint)


@pytest.mark.parametrize("hint", ["HB", "", -0.1, 1.01, float("nan"), None, True, [0.5]])
def test_a_hint_that_is_none_is_named(hint: Any) -> None:
    with pytest.raises(OptionsError, match="hint must be auto, none, or between 0 and 1, got "):
        Options(hint=hint)


@pytest.mark.parametrize("mode", ["dodge", "binary"])
def test_the_filters_take_no_hint(mode: Any) -> None:
    assert Options(mode=mode, hint="none").hint == "none"
    with pytest.raises(OptionsError, match=f"hint needs mode sketch, got mode {mode}"):
        Options(mode=mode, hint=0.5)


@pytest.mark.parametrize("lies", [True, False])
def test_a_manifest_that_does_not_fit_its_file_is_told(model: str, plain: str, lies: bool) -> None:
    # A manifest with a hint for a file without, and the other way round.
    true = models.load(plain if lies else model)
    manifest = dataclasses.replace(true.manifest, architecture={"hint": lies})
    inputs = (1, "binary and hint") if lies else (2, "binary")
    with pytest.raises(ModelError, match="got {} inputs, expected {}\\.".format(*inputs)):
        OpenVinoRuntime(dataclasses.replace(true, manifest=manifest), threads=1, precision="fp32")


def test_info_tells_which_models_take_a_hint(model: str, plain: str) -> None:
    for name, told in (model, "yes"), (plain, "no"):
        assert any(f" takes a hint: {told}" in line for line in info._model_text(info._model(name)))


def digest(options: Options) -> str:
    return Settings(options, Encoding(), 150).digest()


def test_the_journal_knows_the_hint(model: str, plain: str) -> None:
    hints: list[Any] = ["auto", "none", 0.35, 0.6]
    assert len({digest(Options(model, hint=hint)) for hint in hints}) == len(hints)
    # Of what makes no difference it knows nothing.
    assert digest(Options(plain, hint="none")) == digest(Options(plain))
    assert digest(Options(mode="dodge", hint="none")) == digest(Options(mode="dodge"))


def test_the_journal_knows_the_detail() -> None:
    details: list[Detail] = ["native", "auto", 800]
    assert len({digest(Options(mode="dodge", detail=detail)) for detail in details}) == 3
    auto = Options(mode="dodge", detail="auto")
    assert digest(auto) == digest(dataclasses.replace(auto, detail=AUTO_DETAIL))


@pytest.fixture
def convert(
    model: str, plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("page.png", PAGE)
    for folder in Path(model).parent, Path(plain).parent:
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def call(*words: str, verb: str = "convert", output: str = "out") -> Any:
        given = [verb, "page.png", "-o", output, "--model", "hinted.onnx", "--device", "cpu"]
        return CliRunner().invoke(main, [*given, *words])

    return call


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ([], "auto"),
        (["--hint", "auto"], "auto"),
        (["--hint", "none"], "none"),
        (["--hint", "0.6"], 0.6),
        (["--pencil", "4B"], 0.6),
        (["--pencil", "8B"], 1.0),
    ],
)
def test_the_command_takes_a_hint_or_a_pencil(
    convert: Callable[..., Any], model: str, words: list[str], hint: Any
) -> None:
    result = convert(*words)
    assert result.exit_code == 0, result.output
    sketch = cv2.imread("out/page.png", cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sketch, Sketchifier(model, device="cpu", hint=hint)(PAGE))


def test_the_command_makes_anew_what_had_another_hint(convert: Callable[..., Any]) -> None:
    counts = []
    for words in [], ["--hint", "auto"], ["--pencil", "HB"], ["--hint", "0.35"]:
        told = json.loads(convert(*words, "--json").stdout)
        counts.append((told["converted"], told["skipped"]))
    assert counts == [(1, 0), (0, 1), (1, 0), (0, 1)]


@pytest.mark.parametrize("verb", ["convert", "compare"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--hint 0.5 --pencil HB", "--hint and --pencil cannot be used together"),
        ("--hint auto --pencil HB", "--hint and --pencil cannot be used together"),
        ("--hint 1.5", "hint must be auto, none, or between 0 and 1, got 1.5"),
        (
            "--hint dark.png",
            "hint must be auto, none, between 0 and 1, a pencil (4H, 2H, HB, 2B, 4B, 6B, 8B)",
        ),
        ("--hint page.png extra.png", "--hint FILE needs exactly one INPUT, a file"),
        ("--hint page.png --model plain.onnx", "takes no hint, got a picture of 405 x 531"),
        ("--pencil 3B", "'3B' is not one of '4H', '2H', 'HB', '2B', '4B', '6B', '8B'"),
        ("--pencil HB --model plain.onnx", "model plain.onnx takes no hint, got 0.35"),
    ],
)
def test_the_commands_refuse_in_words(
    convert: Callable[..., Any], verb: str, words: str, told: str
) -> None:
    result = convert(*words.split(), verb=verb, output="out.png")
    assert result.exit_code == 2
    assert told in " ".join(result.output.split())


PAINT = np.zeros((40, 30), np.uint8)
PAINT[:20, :15], PAINT[20:, 15:] = 255, 90


def test_an_array_is_a_plane_of_any_size(model: str) -> None:
    page, rows, columns = auto(PAGE), *CELLS
    sketchify = Sketchifier(model, device="cpu", hint=PAINT)
    calls = seen(sketchify)
    sketch = sketchify(PAGE)
    plane = calls[0][1][0]
    assert (plane[:33, :25] == 255).all()
    assert (plane[34:, 26:] == 90).all()
    np.testing.assert_array_equal(plane[:33, 26:], page[:33, 26:])
    np.testing.assert_array_equal(plane[34:, :25], page[34:, :25])
    assert plane.shape == (rows, columns)

    tiled = Sketchifier(model, device="cpu", hint=PAINT, tile=256)
    np.testing.assert_array_equal(tiled(PAGE), sketch)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(tiled))(PAGE), sketch)
    assert tiled.options != Sketchifier(model, device="cpu", hint=PAINT.T.copy()).options


def test_what_is_painted_keeps_its_level_where_cells_are_larger_or_smaller() -> None:
    def plane(levels: Any, *shape: int, square: int | None = None) -> list[list[int]]:
        painted = inputs.hint(np.array(levels, np.uint8))
        return hints.plane(painted, shape, square).tolist()

    # A cell of which half is painted has the mean of that half, to a level; of less, the page's.
    # `resize` looks half a cell beyond: weights 1 3 3 1 in the first row here.
    assert plane([[200, 0, 10, 30]], 8, 16) == [[162, 22]]
    assert plane([[200, 0, 0, 0], [0, 0, 90, 90], [0, 0, 90, 90]], 8, 16) == [[0, 91]]
    assert plane([[7, 0]], 16, 32) == [[7, 7, 0, 0]] * 2
    assert plane([[7, 9]], 15, 9) == [[7, 9]] * 2
    assert plane([[255, 255]], 1, 1) == [[255]]
    # The middle square of a landscape.
    assert plane([[1, 2, 3], [1, 2, 3]], 8, 8, square=8) == [[2]]


def test_a_picture_is_dark_where_strokes_are_and_transparent_where_the_page_decides(
    tmp_path: Path,
) -> None:
    gray = np.array([[0, 255, 128], [10, 0, 200]], np.uint8)
    alpha = np.array([[255, 255, 255], [0, 100, 255]], np.uint8)
    picture = PIL.Image.fromarray(np.dstack([gray] * 3 + [alpha]))
    picture.save(tmp_path / "hint.png")
    for source in (picture, tmp_path / "hint.png", str(tmp_path / "hint.png")):
        hint = inputs.hint(source)
        assert (hint.height, hint.width) == (2, 3)
        assert list(hint.levels) == [255, 1, 128, 0, 0, 56]
    PIL.Image.fromarray(gray).save(tmp_path / "hint.png")
    assert list(inputs.hint(tmp_path / "hint.png").levels) == [255, 1, 128, 245, 255, 56]


@pytest.mark.parametrize("wrong", [np.zeros((2, 3)), np.zeros((2, 3, 3), np.uint8), PAINT[:0]])
def test_another_array_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionsError, match=r"an array of uint8 \(H, W\).*, got (float64|uint8) "):
        Sketchifier(hint=wrong)


@pytest.mark.parametrize("names", [["a.png", "a.png"], ["*.png"], ["."], []])
def test_a_picture_is_for_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").touch()
    painted = inputs.hint(PAINT)
    with pytest.raises(click.UsageError, match="--hint FILE needs exactly one INPUT"):
        common.check_painted(painted, names)
    common.check_painted(0.5, names)
    for name in "a.png", "-":
        common.check_painted(painted, [name])


def test_the_command_takes_a_picture(convert: Callable[..., Any], model: str) -> None:
    levels = np.where(PAINT, 255 - PAINT, 0)
    PIL.Image.fromarray(np.dstack([levels] * 3 + [255 * (PAINT > 0)]).astype(np.uint8)).save(
        "h.png"
    )
    hint = inputs.hint("h.png")
    for hints_, made in (["h.png"], 1), (["./h.png"], 0), (["auto"], 1):
        told = json.loads(convert("--hint", *hints_, "--json").stdout)
        assert told["converted"] == made
        if hints_ == ["h.png"]:
            sketch = cv2.imread("out/page.png", cv2.IMREAD_UNCHANGED)
            expected = Sketchifier(model, device="cpu", hint=hint)(PAGE)
            np.testing.assert_array_equal(sketch, expected)
            assert (sketch != Sketchifier(model, device="cpu")(PAGE)).any()


def test_a_sheet_tells_its_hint(convert: Callable[..., Any]) -> None:
    for words, told in ([], "strength 1. "), (["--pencil", "4B"], "strength 1, hint 0.6. "):
        result = convert(*words, "--overwrite", verb="compare", output="sheet.html")
        assert result.exit_code == 0, result.output
        assert told in Path("sheet.html").read_text()


def test_a_pencil_has_a_name_in_python() -> None:
    assert Sketchifier(hint="4B").options.hint == PENCILS["4B"] == 0.6
    with pytest.raises(OptionsError, match=r"a pencil \(4H, 2H, HB, .*\), or a pictur"):
        Sketchifier(hint="9B")


def test_a_page_is_told_before_it_is_reduced(model: str) -> None:
    diagonal = np.add.outer(np.arange(640), np.arange(480)) // 2
    page = np.where(diagonal % 2, 255, 0).astype(np.uint8)
    reduced = resize(page, *fit(page.shape, 600, None)[2:])
    assert bilevel.level(reduced) is None  # reducing makes tones of thin lines
    sketchify = Sketchifier(model=model, max_side=600, precision="fp32")
    calls = seen(sketchify)
    sketchify(page)
    (binary, _), *_ = calls
    np.testing.assert_array_equal(
        binary[0, : reduced.shape[0], : reduced.shape[1]], bilevel.binarize(reduced, 128)
    )
