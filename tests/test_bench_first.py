"""`bench gpu --first` on the processor: right and wrong kernels, time, what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_backend_cuda import KERNELS
from test_bench_gpu import CPU, TINY

from bench import bench_gpu
from bench.findings import Finding, Report, Table, WrongError
from bench.gpu import check_codec, check_kernels, check_runtime, first
from bench.gpu.check_kernels import Case, difference
from bench.gpu.facts import facts
from bench.gpu.first import STEPS, Budget, Step
from bench.gpu.reduce import smallest
from bench.gpu.setup import Setup
from sketchify_rt import backend
from sketchify_rt.backend.cuda import CudaBackend
from sketchify_rt.codec import cuda as codec
from sketchify_rt.options import Options

SETUP = Setup(CPU, TINY)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ran(
    steps: Sequence[Step], file: Path, budget: Budget | None = None
) -> tuple[list[str], dict[str, Any]]:
    report = Report(file, machine=facts(CPU), scale=vars(TINY))
    wrong = first.run(SETUP, steps, report, budget or Budget(1e9))
    return wrong, json.loads(file.read_text(encoding="utf-8"))["parts"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few and small cases."""
    monkeypatch.setattr(check_kernels, "SIZES", ((5, 3), (9, 70)))
    monkeypatch.setattr(check_kernels, "LARGE", ((3, 90),))
    monkeypatch.setattr(check_kernels, "MANY", ((2, 3), (4, 5)))


def install(monkeypatch: pytest.MonkeyPatch, name: str, **kernels: Any) -> None:
    """Put kernels in the place of a module, those of the reference where none is given."""
    module = SimpleNamespace(**{**vars(KERNELS), **kernels})
    monkeypatch.setitem(sys.modules, f"sketchify_rt.kernels.{name}", module)


def off_beyond(limit: int) -> Callable[..., list[torch.Tensor]]:
    """A `dodge` that is 1 off at column `limit`, in images that are as wide."""

    def dodge(
        images: Sequence[torch.Tensor], strength: float = 1.0, *, out: Any = None
    ) -> list[torch.Tensor]:
        results = KERNELS.dodge(images, strength, out=out)
        for index, result in enumerate(results):
            target = result if out is None else out[index]
            target[:, limit : limit + 1] ^= 1
        return results if out is None else list(out)

    return dodge


# Kernels


@pytest.mark.usefixtures("small")
def test_right_kernels_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("triton", "numba_cuda"):
        install(monkeypatch, name)
    wrong, parts = ran(STEPS[:2], tmp_path / "first.json")
    assert wrong == []
    for name in ("triton", "numba_cuda"):
        tables = parts[name]["tables"]
        assert [*tables] == ["dodge", "binarize", "compose"]
        assert [tables[kernel][0]["wrong"] for kernel in tables] == [0, 0, 0]
        assert [tables[kernel][0]["cases"] for kernel in tables] == [15, 12, 38]


@pytest.mark.slow
@pytest.mark.usefixtures("interpreter")
def test_the_triton_kernels_themselves_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_kernels, "SIZES", ((5, 3), (9, 70)))
    for case in (
        Case("dodge", ((5, 3), (9, 70)), strength=1.6, layout="view"),
        Case("binarize", ((9, 70),), "faint", layout="pitched"),
        Case("compose", ((67, 31),), "levels", "float16", 1.6, "view"),
    ):
        from sketchify_rt.kernels import triton

        assert difference(triton, case, CPU) is None


@pytest.mark.usefixtures("small")
def test_a_wrong_kernel_is_found_reduced_and_ends_what_needs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, "triton", dodge=off_beyond(40))
    install(monkeypatch, "numba_cuda")
    needing = [step for step in STEPS if "triton" in step.needs]
    assert {"arrays", "pipeline", "kernels"} <= {step.name for step in needing}
    wrong, parts = ran([*STEPS[:2], *needing], tmp_path / "first.json")
    assert wrong == ["triton"]
    assert parts["triton"]["error"] == "WrongError: triton: dodge differs from the reference"
    assert [*parts["triton"]["tables"]] == ["wrong"]  # binarize and compose were not run
    found, reduced = parts["triton"]["tables"]["wrong"]
    assert found["sizes"] == "5x3, 9x70"
    assert found["first"].startswith("image 1, row 0, column 40: got ")
    assert found["wrong"] == 9
    assert reduced == {
        "module": "triton",
        "case": "smallest",
        "kernel": "dodge",
        "sizes": "1x41",
        "content": "black",
        "dtype": "uint8",
        "strength": 1.0,
        "layout": "plain",
        "wrong": 1,
        "outside": 0,
        "first": "image 0, row 0, column 40: got 1, expected 0",
    }
    assert "compose" in parts["numba_cuda"]["tables"]
    for step in needing:
        why = "it needs triton, where something is wrong"
        assert parts[step.name]["not_run"] == {step.name: why}


def test_what_is_written_outside_of_a_page_is_wrong() -> None:
    def sloppy(images: Any, strength: float, *, out: Any) -> Any:
        KERNELS.dodge(images, strength, out=out)
        out[0].as_strided((1,), (1,), out[0].storage_offset() - 1).fill_(5)
        return out

    module = SimpleNamespace(dodge=sloppy)
    off = difference(module, Case("dodge", ((4, 6),), layout="view"), CPU)
    assert off is not None
    assert (off.wrong, off.outside, off.first) == (0, 1, "")


def test_a_kernel_that_raises_is_wrong_and_its_case_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(*_: Any, **__: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    install(monkeypatch, "triton", dodge=crash)
    wrong, parts = ran(STEPS[:1], tmp_path / "first.json")
    assert wrong == ["triton"]
    assert "'kernel': 'dodge', 'sizes': '1x1, 1x7, 5x3" in parts["triton"]["error"]


def test_numba_that_cannot_compile_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compose(*_: Any, **__: Any) -> Any:
        raise AttributeError("module 'numpy' has no attribute 'row_stack'")

    install(monkeypatch, "numba_cuda", compose=compose)
    wrong, parts = ran(STEPS[1:2], tmp_path / "first.json")
    assert wrong == []
    assert "has no attribute 'row_stack'" in parts["numba_cuda"]["not_run"]["numba_cuda"]


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (lambda case: case.sizes[0][0] >= 9, Case("compose", ((9, 1),), "black")),
        (lambda case: case.sizes[0][0] % 16 == 6, Case("compose", ((6, 1),), "black")),
        (lambda case: len(case.sizes) >= 2, Case("compose", ((1, 1), (1, 1)), "black")),
        (lambda case: case.strength > 1, Case("compose", ((1, 1),), "black", strength=1.6)),
        (lambda case: case.layout == "view", Case("compose", ((1, 1),), "black", layout="view")),
        (
            lambda case: case.content in ("noise", "levels") and case.sizes[-1][1] % 5 == 3,
            Case("compose", ((1, 3),), "noise"),
        ),
    ],
)
def test_the_smallest_case_that_fails(fails: Callable[[Case], bool], expected: Case) -> None:
    large = Case("compose", ((1990, 33), (30, 58), (9, 13)), "levels", "float16", 1.6, "view")
    assert fails(large)
    reduced = smallest(large, fails, lambda: False)
    assert reduced == replace(expected, dtype="float32")


def test_reducing_ends_in_time_with_what_it_has() -> None:
    calls: list[Case] = []

    def fails(case: Case) -> bool:
        calls.append(case)
        return True

    start = Case("dodge", ((64, 64),))
    assert smallest(start, fails, lambda: len(calls) == 1) == Case("dodge", ((1, 64),))
    assert len(calls) == 1


# Time and failures


def step(name: str, clock: Clock, *seconds: float, limit: float = 50) -> Step:
    """A step that gives a finding after each of `seconds`."""

    def measure(setup: Setup, budget: Budget) -> Iterator[Finding]:
        for number, each in enumerate(seconds):
            clock.now += each
            yield Table(f"table {number}", [{"figure": number}])

    return Step(name, measure, limit)


def test_steps_end_with_their_seconds_and_none_begins_after_the_last(tmp_path: Path) -> None:
    clock = Clock()
    steps = [
        step("quick", clock, 1, 1),
        step("slow", clock, 30, 30, 30),
        step("late", clock, 20, 20, 20),
        step("never", clock, 1),
    ]
    wrong, parts = ran(steps, tmp_path / "first.json", Budget(95, clock))
    assert wrong == []
    assert [len(part["tables"]) for part in parts.values()] == [2, 2, 2, 0]
    assert parts["quick"]["not_run"] == {}
    assert "the 50 seconds of this step" in parts["slow"]["not_run"]["the rest of slow, if any"]
    assert "the 33 seconds of this step" in parts["late"]["not_run"]["the rest of late, if any"]
    assert parts["never"]["not_run"] == {"never": "the 95 seconds of the run are spent"}


@pytest.mark.usefixtures("small")
def test_kernels_stop_when_the_run_is_out_of_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock()

    def dodge(*arguments: Any, **options: Any) -> Any:
        clock.now += 1
        return KERNELS.dodge(*arguments, **options)

    install(monkeypatch, "triton", dodge=dodge)
    wrong, parts = ran(STEPS[:1], tmp_path / "first.json", Budget(3, clock))
    assert wrong == []
    assert parts["triton"]["tables"] == {"dodge": [{"cases": 3, "pixels": 1935, "wrong": 0}]}
    assert [*parts["triton"]["not_run"]] == ["the rest of triton, if any"]


def test_nothing_runs_on_a_gpu_that_no_longer_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def crash(setup: Setup, budget: Budget) -> Iterator[Finding]:
        yield Table("before", [{"figure": 1}])
        raise RuntimeError("illegal address")

    assert first._dead(CPU) == ""
    monkeypatch.setattr(first, "_dead", lambda device: "the GPU no longer answers")
    file = tmp_path / "first.json"
    wrong, parts = ran([Step("crash", crash, 9), step("after", Clock(), 1)], file)
    assert wrong == ["crash"]
    assert parts["crash"]["tables"] == {"before": [{"figure": 1}]}
    assert parts["after"]["not_run"] == {"after": "the GPU no longer answers"}


def test_the_file_names_the_step_in_which_the_process_ended(tmp_path: Path) -> None:
    file = tmp_path / "first.json"
    report = Report(file, machine=facts(CPU))
    with report.part("hangs"):
        parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
    assert parts == {"hangs": {"tables": {}, "not_run": {}}}


# The other checks


class Painter:
    """A runtime that computes with the module it is compared with, and then changes the tones."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.change = change

    def __call__(self, model: Any, device: torch.device, precision: str) -> Any:
        exact = check_runtime.unet.load(model, torch.float32)
        return lambda *tiles: self.change(exact(*tiles).detach())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tones: tones + 2 / 255, "half: expected at most 1.0 levels"),
        (lambda tones: tones + 0.5 / 255, "fp32: expected at most 0.01 levels"),
        (lambda tones: tones * float("nan"), "half: expected"),
        (lambda tones: tones + torch.rand(()) * 1e-4, "'same': False"),
    ],
    ids=["two levels", "half a level", "not a number", "changing"],
)
def test_wrong_tones_are_found(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[torch.Tensor], torch.Tensor], why: str
) -> None:
    monkeypatch.setattr(check_runtime, "PAGES", ((1, 9, 12),))
    monkeypatch.setattr(check_runtime, "TorchRuntime", Painter(change))
    with pytest.raises(WrongError, match=why):
        list(check_runtime.measure(SETUP))


def test_a_decoder_whose_pixels_depend_on_the_batch_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def decoder(setup: Setup) -> Any:
        def decoded(files: Sequence[bytes]) -> list[torch.Tensor]:
            planes = [torch.from_numpy(check_codec._opencv(data).copy()) for data in files]
            if len(files) > 1:
                planes[-1][0, :2] ^= 1
            return planes

        return decoded

    monkeypatch.setattr(check_codec, "_dali", decoder)
    monkeypatch.setattr(check_codec, "missing", lambda: ["nvidia-nvimgcodec-cu13"])
    findings = check_codec.decode(SETUP)
    assert "nvidia-nvimgcodec-cu13" in next(findings).what
    (row,) = next(findings).rows
    assert row["apart"] == 4  # two pixels in each of two batches
    assert row["largest_level"] == 1
    with pytest.raises(WrongError, match="expected 0 apart"):
        next(findings)


def test_missing_codecs_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    packages = ["nvidia-dali-cuda130", "nvidia-nvimgcodec-cu13"]
    for module in (codec, check_codec):
        monkeypatch.setattr(module, "missing", lambda: packages)
    steps = [step for step in STEPS if step.name in ("decode", "encode", "pipeline", "codec")]
    wrong, parts = ran(steps, tmp_path / "first.json")
    assert wrong == []
    assert all(part["tables"] == {} for part in parts.values())
    assert [*parts["decode"]["not_run"]] == [f"decode with {package}" for package in packages]
    assert [*parts["encode"]["not_run"]] == ["encode with nvidia-nvimgcodec-cu13"]
    for name in ("pipeline", "codec"):
        assert parts[name]["not_run"] == {name: f"not installed: {', '.join(packages)}"}


def test_a_pipeline_that_fails_is_wrong_unless_something_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (arrays,) = (step for step in STEPS if step.name == "arrays")

    def failing(error: Exception) -> Callable[[Options], Any]:
        def select(options: Options) -> Any:
            raise error

        return select

    for error, expected in (
        (backend.BackendUnavailable("cuda: no onnx"), []),
        (RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED"), ["arrays"]),
    ):
        monkeypatch.setattr(backend, "select", failing(error))
        wrong, parts = ran([arrays], tmp_path / "first.json")
        assert wrong == expected
        assert str(error) in parts["arrays"]["not_run"]["arrays, sketch, equal"]


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_steps_run_and_the_file_is_small(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("triton", "numba_cuda"):
        install(monkeypatch, name)
    monkeypatch.setattr(check_runtime, "PAGES", ((1, 9, 12), (2, 8, 16)))
    monkeypatch.setattr(backend, "select", lambda options: CudaBackend(options, CPU, KERNELS))
    file = tmp_path / "first.json"
    steps = [step for step in STEPS if step.name != "kernels"]  # 10 s; see test_bench_gpu.py
    wrong, parts = ran(steps, file)
    assert wrong == [], {name: part.get("error") for name, part in parts.items()}
    assert [*parts] == [step.name for step in steps]
    assert file.stat().st_size < 20_000
    for name, rows in (
        ("numba_cuda", 3),
        ("runtime", 2),
        ("limits", 1),
        ("arrays", 1),
        ("unet", 2),
    ):
        assert len(parts[name]["tables"]) == rows, name
    arrays = parts["arrays"]["tables"]["arrays"]
    runs = [(row["mode"], row["sizes"]) for row in arrays]
    assert len(set(runs)) == 4
    assert all(row["images_s"] > 0 and row["upload"] > 0 for row in arrays)
    assert all(row["same"] for row in parts["runtime"]["tables"]["torch runtime, half"])
    if "nvidia-dali-cuda130" not in codec.missing():
        (row,) = parts["decode"]["tables"]["decode"]
        assert (row["decoder"], row["apart"], row["largest_level"]) == ("DALI", 0, 0)
    if "nvidia-nvimgcodec-cu13" not in codec.missing():
        assert [row["threads"] for row in parts["encode"]["tables"]["encode"]] == [4, 8, 15]
        (row,) = parts["encode"]["tables"]["encoded"]
        assert row["mean_level"] == pytest.approx(row["opencv_level"], abs=0.5)


# The command


def test_the_exit_code_is_0_only_if_nothing_was_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(setup: Setup, budget: Budget) -> Iterator[Finding]:
        yield Table("before", [{"figure": 1}])
        raise WrongError("two and two are five")

    limits: list[float | None] = []
    monkeypatch.setattr(
        first.faulthandler, "dump_traceback_later", lambda limit, **_: limits.append(limit)
    )
    monkeypatch.setattr(
        first.faulthandler, "cancel_dump_traceback_later", lambda: limits.append(None)
    )
    fine, file = step("fine", Clock(), 1), tmp_path / "first.json"
    started = first.time.monotonic() - 100
    for steps, code, told in (
        ([fine], 0, "nothing was wrong"),
        ([Step("broken", broken, 9), fine], 1, "wrong: broken"),
    ):
        monkeypatch.setattr(first, "STEPS", steps)
        assert first.main(CPU, 0.3, file, started) == code
        assert capsys.readouterr().out.endswith(f"written to {file}\n{told}\n")
        parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
        assert parts["fine"]["tables"] == {"table 0": [{"figure": 0}]}
        limit, cancelled = limits
        assert limit == pytest.approx(135, abs=20)
        assert cancelled is None
        limits.clear()


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs an NVIDIA GPU") as error:
        bench_gpu.main(["--first"])
    assert isinstance(error.value.code, str)  # Python prints it and exits with 1


def test_it_takes_no_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        bench_gpu.main(["--first", "unet"])
    assert error.value.code == 2
    assert "--first takes no parts, got unet" in capsys.readouterr().err


def test_it_starts_without_what_a_card_does_not_need() -> None:
    code = """
import importlib, sys
for name in ("openvino", "isal", "platformdirs", "filelock", "matplotlib", "sketchify_rt._native"):
    sys.modules[name] = None
from bench.gpu import first
for name in ("check_runtime", "check_codec", "limits", "pipeline", "kernels", "unet", "codec"):
    importlib.import_module(f"bench.gpu.{name}")
assert importlib.import_module("sketchify_rt.backend.cuda")
"""
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_checks_need_no_pillow_or_onnx() -> None:
    code = """
import sys
sys.modules |= {"PIL": None, "onnx": None}
from pathlib import Path
import torch
from bench.findings import Report
from bench.gpu import first
from bench.gpu.setup import Scale, Setup
steps = [step for step in first.STEPS if step.name in ("runtime", "decode", "arrays")]
report = Report(Path(sys.argv[1]))
print(first.run(Setup(torch.device("cpu"), Scale()), steps, report, first.Budget(99)))
"""
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code, "/dev/null"], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\n[]\n")
    assert "check_runtime: ModuleNotFoundError: " in done.stdout
    assert "check_codec: ModuleNotFoundError: " in done.stdout


@pytest.mark.gpu
@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("default")
def test_gpu_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(first, "STEPS", STEPS[:3])  # the rest takes minutes; see test_gpu_quick
    file = tmp_path / "results.json"
    with pytest.raises(SystemExit) as error:
        bench_gpu.main(["--first", "--json", str(file)])
    parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
    assert {name: part["error"] for name, part in parts.items() if "error" in part} == {}
    assert error.value.code == 0
    assert file.stat().st_size < 20_000
