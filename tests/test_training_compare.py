from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner

from sketchify_rt.metrics import Metrics
from training.cli import main
from training.compare import compare, differing, document, figures_table, text
from training.errors import TrainingError
from training.evaluation import NAME, Evaluation, Measured

BASE = [0.80, 0.90, 0.84, 0.92, 0.86, 0.88]


def figures(ssim: list[float]) -> dict[str, Metrics]:
    return {f"{i}.png": Metrics(5, 20, value, 0.9, 40, 2) for i, value in enumerate(ssim)}


def evaluation(name: str, ssim: list[float], **recipe: object) -> Evaluation:
    model = Measured(name, "checkpoint", "00", 9000, 83.4, 467_556, 48.768, recipe)
    return Evaluation(model, "digest", {"numpy": "2"}, {"native": figures(ssim)})


A = evaluation("a", BASE, model={"width": 32, "depth": 2}, steps=100)
# Better by about 0.01 on each page, much less than the pages differ.
B = evaluation("b", [s + d for s, d in zip(BASE, [0.01, 0.012] * 3, strict=True)],
               model={"width": 24, "depth": 2}, steps=100, ema=0.9)  # fmt: skip


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    perfect = Metrics(0, math.inf, 1, 1, 0, 0)
    figures = {"native": A.figures["native"], "256": {"x": perfect}}
    written = dataclasses.replace(A, figures=figures, baselines={"white": A.figures})
    written.write(tmp_path / NAME)
    assert Evaluation.read(tmp_path) == Evaluation.read(tmp_path / NAME) == written
    found = json.loads((tmp_path / NAME).read_text())["figures"]
    assert found["native"]["mean"]["ssim"] == pytest.approx(sum(BASE) / 6, abs=1e-4)
    low, high = found["native"]["interval"]["ssim"]
    assert 0.82 < low < sum(BASE) / 6 < high < 0.91
    assert found["256"]["mean"]["psnr"] is None  # JSON has no infinity


def test_differences_are_of_the_same_pages() -> None:
    first, second = compare({"a": A, "b": B}, "native")
    assert first.difference is None
    assert first.figures["ssim"].high > second.figures["ssim"].low  # overlap, and yet
    assert second.difference is not None
    mean, low, high = second.difference["ssim"]
    assert mean == pytest.approx(0.011)
    assert 0.0101 < low < 0.011 < high < 0.0119
    assert second.difference["mae"] == (0, 0, 0)


def test_two_perfect_pages_do_not_differ() -> None:
    perfect = dataclasses.replace(A, figures={"native": {"x": Metrics(0, math.inf, 1, 1, 0, 0)}})
    _, second = compare({"a": perfect, "b": perfect}, "native")
    assert second.difference is not None
    assert second.difference["psnr"] == (0, 0, 0)


def test_the_tables() -> None:
    white = dataclasses.replace(B, baselines={"white": {"native": figures([0.6] * 6)}})
    whole = text(compare({"a": A, "b": white}, "native"))
    first, _, second, _, third = whole.split("\n\n")
    head, rule, a, b, baseline = (
        [c.strip() for c in line.split("|")[1:-1]] for line in first.split("\n")
    )
    assert head[:5] == ["", "steps", "minutes", "M parameters", "GFLOP/MP"]
    assert all(set(cell) == {"-"} for cell in rule)
    assert a[:5] == ["a", "9,000", "83", "0.47", "48.8"]
    assert a[5] == "5.00 [5.00, 5.00]"
    assert a[7].startswith("0.867 [0.8")
    assert b[7].startswith("0.878 [0.8")
    assert baseline[:5] == ["white", "-", "-", "-", "-"]
    rows = [line.split("|")[1:-1] for line in second.split("\n")[2:]]
    assert [row[0].strip() for row in rows] == ["b", "white"]
    assert rows[0][3].strip().startswith("**+0.0110** [+0.010")
    assert rows[0][1].strip() == "+0.000 [+0.000, +0.000]"
    recipe = [[c.strip() for c in line.split("|")[1:-1]] for line in third.split("\n")]
    assert recipe[0] == ["", "a", "b"]
    assert recipe[2:] == [["model.width", "32", "24"], ["ema", "-", "0.9"]]


def test_one_run_has_a_table_and_no_differences() -> None:
    rows = compare({"a": A}, "native")
    assert text(rows).count("\n\n") == 0
    assert differing(rows) == {}
    assert document(rows, "native")["rows"][0]["difference"] is None


def test_the_table_of_one_model() -> None:
    both = dataclasses.replace(A, figures={"native": figures(BASE), "256": figures([0.5])})
    lines = figures_table(dataclasses.replace(both, baselines={"white": both.figures})).split("\n")
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["a, native", "white, native", "a, 256", "white, 256"]
    assert "0.500 [0.500, 0.500]" in lines[4]


def test_figures_of_other_pages_or_sizes_are_refused() -> None:
    with pytest.raises(TrainingError, match="b was measured on other pages than a"):
        compare({"a": A, "b": dataclasses.replace(B, pages="other")}, "native")
    with pytest.raises(TrainingError, match=r"a was not measured at size 256; .* evaluate a PAGES"):
        compare({"a": A, "b": B}, "256")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{NAME}: cannot .* evaluate {tmp_path} PAGES"):
        Evaluation.read(tmp_path)
    for content in ("{", "[]", '{"model": {}}', "null"):
        (tmp_path / NAME).write_text(content)
        with pytest.raises(TrainingError, match=f"{NAME}: not what"):
            Evaluation.read(tmp_path)


def test_the_command_takes_runs_and_files(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    A.write(tmp_path / "run" / NAME)
    B.write(tmp_path / "b.json")
    words = ["compare", str(tmp_path / "run"), str(tmp_path / "b.json")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert f"| {tmp_path / 'b'} " in result.stdout
    result = CliRunner().invoke(main, [*words, "--json"])
    found = json.loads(result.stdout)
    assert [row["name"] for row in found["rows"]] == [str(tmp_path / "run"), str(tmp_path / "b")]
    assert found["rows"][1]["difference"]["mean"]["ssim"] == 0.011
    assert found["recipe"]["ema"] == {str(tmp_path / "run"): None, str(tmp_path / "b"): 0.9}
