"""The benchmark on processors: every part runs, on next to nothing, and is reported."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from bench import bench_all, bench_report, harness
from bench.cpu import processes
from bench.cpu.scale import Scale
from bench.findings import Report

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TINY = Scale(
    seconds=0,
    unet_seconds=0,
    rest=0,
    rounds=1,
    height=80,
    width=88,
    compiling=False,
    paper=(2, 1),
    pages=2,
    dodge_pages=3,
    megapixels=(0.002, 0.004),
    files=(1, 3),
    batch=(1, 2),
    starts=1,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("results") / "2026-01-31-processor.json"
    bench_all.run(TINY, bench_all.PARTS, Report(file, machine=harness.machine()))
    return file


def test_the_middle_half_counts() -> None:
    assert harness.midmean([100, 1, 2, 3, 0, 4, 2, 2]) == 2.25  # of 2, 2, 2, 3
    assert harness.midmean([5]) == 5


def test_every_part_measures(results: Path) -> None:
    parts = json.loads(results.read_text(encoding="utf-8"))["parts"]
    assert list(parts) == list(bench_all.PARTS)
    for name, part in parts.items():
        assert "error" not in part, (name, part)
        assert set(part["not_run"]) <= ({"rembg"} if name == "cold" else set()), (name, part)
    assert results.stat().st_size < 20_000

    tables, _ = bench_report.load(results)
    ways = {(row["precision"], row["way"]) for row in tables["unet"]}
    assert {("fp32", "ONNX Runtime"), ("fp32", "the paper's U-Net, PyTorch")} <= ways
    for rows in tables.values():
        for row in rows:
            numbers = [value for value in row.values() if isinstance(value, int | float)]
            assert min(numbers) > 0 or "us_each" in row, row
    pixels = tables["pixels, sketch"]
    assert [row["megapixels"] for row in pixels] == [0.002, 0.004]
    # The file has six digits of a number, and this is the small difference of two of them.
    rounded = sum(0.5 * 10 ** (math.floor(math.log10(row["seconds"])) - 5) for row in pixels)
    scale = 1e9 / (63**2 - 45**2)
    assert pixels[1]["us_each"] == pytest.approx(
        (pixels[1]["seconds"] - pixels[0]["seconds"]) * scale, rel=1e-5, abs=rounded * scale
    )


def test_pages_and_plots_are_made_of_it(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    for page in "README.md", "docs/speed.md":
        (tmp_path / page).write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    bench_report.main([str(results)])
    text = (tmp_path / "docs/speed.md").read_text(encoding="utf-8")
    tables, machine = bench_report.load(results)
    assert str(machine["date"]) in text
    assert text.count("<!-- bench: ") == text.count("<!-- end -->")
    for name, rows in tables.items():
        assert f"<!-- bench: {name} -->\n{bench_report.markdown(rows)}\n<!-- end -->" in text
    headline = bench_report.markdown(bench_report.headline(tables))
    assert headline in (tmp_path / "README.md").read_text(encoding="utf-8")
    for plot in "filters", "unet", "growth":
        drawn = (tmp_path / f"docs/speed/{plot}.svg").read_text(encoding="utf-8")
        assert "<svg" in drawn
        bench_report.PLOTS[plot](tables, tmp_path / "again.svg")
        assert (tmp_path / "again.svg").read_text(encoding="utf-8") == drawn


def rows(*others: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {"a": list(others)}


def test_tables_are_filled_in() -> None:
    text = "x\n<!-- bench: a -->\nold\n<!-- end -->\ny\n<!-- bench: machine -->\n<!-- end -->\n"
    made = bench_report.filled(text, rows({"way": "w", "ms": 1.23456}), {"cpu": "c", "cores": 2})
    table = "| way | ms |\n| --- | ---: |\n| w | 1.23 |"
    assert made == (
        f"x\n<!-- bench: a -->\n{table}\n<!-- end -->\ny\n"
        "<!-- bench: machine -->\ncpu c; cores 2\n<!-- end -->\n"
    )
    assert bench_report.filled(made, rows({"way": "w", "ms": 1.23456}), {"cpu": "c"}) != made
    with pytest.raises(KeyError):
        bench_report.filled("<!-- bench: b -->\n<!-- end -->", rows({"ms": 1}), {})


def test_the_newest_whole_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no results"):
        bench_report.newest(tmp_path)
    for name, table in ("2026-01-01-a", "cold"), ("2026-01-02-a", "cold"), ("2026-01-03-a", "unet"):
        document = {"machine": {}, "parts": {table: {"tables": {table: []}}}}
        (tmp_path / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
    assert bench_report.newest(tmp_path).stem == "2026-01-02-a"


def test_what_a_process_spends_is_its_own() -> None:
    python = processes.CONVERT[0]
    small = processes.run([python, "-c", "pass"])
    large = processes.run([python, "-c", "x = b'1' * 200_000_000; [0 for _ in range(3_000_000)]"])
    assert large.mib > small.mib + 150
    assert large.seconds > small.seconds
    with pytest.raises(RuntimeError, match="ended with 3: oh"):
        processes.run([python, "-c", "import sys; print('oh', file=sys.stderr); sys.exit(3)"])
