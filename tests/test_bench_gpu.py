"""The GPU's benchmark: without a GPU every part runs on the processor, on next to nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_backend_cuda import KERNELS

from bench import bench_gpu
from bench.bench_kernels import page
from bench.findings import NotRun, Report, Table, results_file
from bench.gpu import timing
from bench.gpu import ways as rivals
from bench.gpu.facts import facts
from bench.gpu.setup import Scale, Setup
from bench.gpu.torch_filters import FILTERS
from sketchify_rt import backend
from sketchify_rt.backend.cuda import CudaBackend
from sketchify_rt.kernels import reference
from sketchify_rt.options import Options

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TINY = Scale(
    seconds=0,
    rounds=1,
    copy_bytes=2**16,
    matmul=64,
    pages=2,
    height=40,
    width=50,
    compiling=False,
    lite_pixels=2**12,
    large_pixels=2**12,
    tile=32,
    large_width=2,
    large_depth=1,
    files=3,
    images=5,
    agreeing=2,
)


def measured(*parts: str, file: Path) -> dict[str, Any]:
    bench_gpu.run(Setup(CPU, TINY), parts, Report(file, machine=facts(CPU), scale=vars(TINY)))
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document


@pytest.mark.usefixtures("interpreter")
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_every_part_runs_and_the_file_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    select = backend.select

    def selected(options: Options) -> Any:
        exact = options.precision == "fp32"  # what is compared with
        return select(options) if exact else CudaBackend(options, CPU, KERNELS)

    monkeypatch.setattr(backend, "select", selected)
    monkeypatch.setattr(rivals, "KERNELS", ("triton",))  # numba's simulator takes minutes
    file = tmp_path / "new" / "results.json"
    document = measured(*bench_gpu.PARTS, file=file)
    assert file.stat().st_size < 20_000
    assert {"cpu", "torch", "commit", "card", "date"} <= document["machine"].keys()
    assert document["scale"]["pages"] == 2
    assert [*document["parts"]] == ["limits", *bench_gpu.PARTS]
    for name, part in document["parts"].items():
        assert "error" not in part, f"{name}: {part['error']}"
        assert part["seconds"] >= 0

    def table(part: str, name: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = document["parts"][part]["tables"][name]
        return rows

    (limits,) = table("limits", "limits")
    assert limits.keys() == {"copy_tb_s", "matmul_tflop_s"}
    for kind in "equal", "ragged":
        ways = {(row["filter"], row["way"]) for row in table("kernels", kind)}
        assert {(name, way) for name in FILTERS for way in ("triton", "torch FP16")} <= ways
    off = {(row["filter"], row["way"]): row["largest"] for row in table("kernels", "differences")}
    assert [off[name, "triton"] for name in FILTERS] == [0, 0, 0]
    for model in "lite", "large":
        ways = {row["way"] for row in table("unet", model)}
        assert ways == {"eager", "ours eager", "CUDA graph"}
        assert [row["largest_level"] for row in table("unet", f"{model}, FP16 from float32")] == [0]
    stages = [row["stage"] for row in table("codec", "codec")]
    assert stages == ["decode JPEG", "encode JPEG", "encode PNG"]
    runs = [(row["mode"], row["sizes"]) for row in table("pipeline", "pipeline")]
    assert len(set(runs)) == 4
    assert [(row["mode"], row["sizes"]) for row in table("pipeline", "arrays")] == runs
    agreement = table("agreement", "agreement with the CPU backend")
    assert len(agreement) == 6
    assert all(row["within_1"] == 100 for row in agreement if row["mode"] != "sketch")
    assert all((row["mean"] == 0) == (row["equal"] == 100) for row in agreement)
    assert all(row["mean"] <= row["largest"] for row in agreement)
    assert "torch.compile" in document["parts"]["kernels"]["not_run"]


def test_a_part_that_fails_is_recorded_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half_way(setup: Setup) -> Iterator[Table]:
        yield Table("first", [{"figure": 1.23456789}])
        raise RuntimeError("no more " + "x" * 1000)

    def nothing(setup: Setup) -> Iterator[NotRun]:
        yield NotRun("this", "not there")

    monkeypatch.setitem(sys.modules, "bench.gpu.broken", SimpleNamespace(measure=half_way))
    monkeypatch.setitem(sys.modules, "bench.gpu.fine", SimpleNamespace(measure=nothing))
    parts = measured("broken", "missing", "fine", file=tmp_path / "results.json")["parts"]
    assert parts["broken"]["tables"] == {"first": [{"figure": 1.23457}]}
    assert parts["broken"]["error"].startswith("RuntimeError: no more")
    assert len(parts["broken"]["error"]) == 300
    assert "No module named 'bench.gpu.missing'" in parts["missing"]["error"]
    assert parts["fine"]["not_run"] == {"this": "not there"}
    assert "error" not in parts["fine"]
    assert "not run: this: not there" in capsys.readouterr().out


def test_the_device_spins_until_the_host_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    leads = []

    def between(run: timing.Run, lead: float) -> tuple[float, bool]:
        leads.append(lead)
        return 7.0, run is list and lead > 0.001

    monkeypatch.setattr(timing, "_between_events", between)
    timer = timing.DeviceTimer(torch.device("cuda"))
    assert timer(list) == timer(list) == 7
    assert leads == [0.0005, 0.002, 0.002]
    leads.clear()
    assert timer(dict) == timer(dict) == 7  # which waits for the device
    assert leads == [0.0005, 0.002, 0.008, 0.032, 0.128, 0, 0]


def test_what_fails_is_left_out_of_a_comparison() -> None:
    def broken() -> None:
        raise ValueError("odd")

    times, missing = timing.compared({"fine": list, "broken": broken}, Setup(CPU, TINY))
    assert times.keys() == {"fine"}
    assert missing == {"broken": "ValueError: odd"}


@pytest.mark.parametrize("name", FILTERS)
def test_the_filters_of_torch_are_the_reference(name: str) -> None:
    gray = page(200, 300, None)
    source = (gray / 255).astype(np.float32) if name == "compose" else gray
    expected = getattr(reference, name)(source).astype(np.int32)
    for dtype, share in (torch.float32, 0), (torch.float16, 0.05):
        result = FILTERS[name]().to(dtype)(torch.from_numpy(source)[None, None])
        off = np.abs(result[0, 0].numpy() - expected)
        assert result.dtype == torch.uint8
        assert np.mean(off > 0) <= share


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU") as error:
        bench_gpu.main([])
    assert isinstance(error.value.code, str)  # Python prints it and exits with 1


def test_the_file_is_named_by_date_and_card() -> None:
    machine = {"date": "2026-01-31T10:00:00+00:00", "card": "NVIDIA H200 (SXM)"}
    assert results_file(machine, "card").name == "2026-01-31-nvidia-h200-sxm.json"
    assert results_file(machine, "card", "quick").name == "2026-01-31-nvidia-h200-sxm-quick.json"


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        bench_gpu.main(["kernel"])
    assert error.value.code == 2
    assert "unknown: kernel" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")
def test_gpu_quick(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    bench_gpu.main(["--quick", "--json", str(file)])
    parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
    assert [*parts] == ["limits", *bench_gpu.PARTS]
    assert {name: part["error"] for name, part in parts.items() if "error" in part} == {}
