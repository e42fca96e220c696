"""The first contact with a card: is what it computes right, and how fast is it, in four minutes.

Needs torch and OpenCV alone. Triton, numba-cuda, onnx, DALI and nvImageCodec take part if they are
installed, and are named if they are not. The steps run in order, each within its seconds and all
within `SECONDS`; what does not begin in time is recorded as not run.

Kernels are compared with the NumPy reference. The first wrong case is made as small as possible and
recorded with its first wrong pixel, and no step that needs the kernel runs. Columns are explained
at the top of check_kernels.py and the other files of this folder.
"""

from __future__ import annotations

import faulthandler
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from bench.findings import Finding, NotRun, Report, Table, WrongError, reason, results_file
from bench.gpu.check_kernels import KERNELS, Case, Difference, cases, difference
from bench.gpu.facts import facts
from bench.gpu.reduce import smallest
from bench.gpu.setup import Scale, Setup

SECONDS = 220.0
HARD_SECONDS = 235.0  # a call that hangs ends the process then
_REDUCING = 30.0  # seconds, at most, to make a failing case smaller

SCALE = Scale(rounds=5, pages=64, compiling=False, files=48, images=192, lite_pixels=2**23)


class Budget:
    """Seconds until a deadline."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._end = clock() + seconds

    @property
    def spent(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._end

    def part(self, seconds: float) -> Budget:
        """A budget of its own that begins now and ends no later than this one."""
        return Budget(min(seconds, self._end - self._clock()), self._clock)


Measure = Callable[[Setup, Budget], Iterator[Finding]]


@dataclass(frozen=True)
class Step:
    """One step of the run.

    Attributes:
        name: Of its part of the report.
        measure: Gives findings; raises an error if something is wrong.
        seconds: After these it gets no further.
        needs: Steps without which it does not run if they were wrong.
    """

    name: str
    measure: Measure
    seconds: float
    needs: tuple[str, ...] = ()


def run(setup: Setup, steps: Sequence[Step], report: Report, budget: Budget) -> list[str]:
    """Runs the steps in order.

    Args:
        setup: The device and how much is measured.
        steps: What to run.
        report: Gets the findings, and is written after each of them.
        budget: Of the whole run.

    Returns:
        The names of the steps in which something was wrong.
    """
    wrong: list[str] = []
    dead = ""
    for step in steps:
        right = False
        with report.part(step.name):
            if why := dead or _why_not(step, wrong, budget):
                report.add(NotRun(step.name, why))
            else:
                _measure(step, setup, report, budget)
            right = True
        dead = dead or _dead(setup.device)
        if not right or (dead and not why):
            wrong.append(step.name)
    return wrong


def _why_not(step: Step, wrong: Sequence[str], budget: Budget) -> str:
    if failed := [name for name in step.needs if name in wrong]:
        return f"it needs {', '.join(failed)}, where something is wrong"
    if budget.spent:
        return f"the {budget.seconds:.0f} seconds of the run are spent"
    return ""


def _measure(step: Step, setup: Setup, report: Report, budget: Budget) -> None:
    own = budget.part(step.seconds)
    for finding in step.measure(setup, budget):
        report.add(finding)
        if own.spent:
            why = f"the {own.seconds:.0f} seconds of this step are spent"
            report.add(NotRun(f"the rest of {step.name}, if any", why))
            return


def _dead(device: torch.device) -> str:
    """Why the device cannot be used any more; "" if it can."""
    try:
        if int(torch.ones(3, device=device).sum()) == 3:
            return ""
    except RuntimeError as error:
        return f"the GPU no longer answers in this process: {reason(error)}"
    return "the GPU adds 1 three times and gets something else"


def triton(setup: Setup, budget: Budget) -> Iterator[Finding]:
    """Checks the kernels in Triton. Raises WrongError if they cannot be run, too."""
    try:
        module = importlib.import_module("sketchify_rt.kernels.triton")
    except ImportError as error:
        yield NotRun("triton", reason(error))
        return
    yield from _kernels("triton", module, setup, budget)


def numba_cuda(setup: Setup, budget: Budget) -> Iterator[Finding]:
    """Checks the kernels in numba, which only take part if Triton does not work."""
    try:
        module = importlib.import_module("sketchify_rt.kernels.numba_cuda")
        # Importing is not enough: beside NumPy 2.5 numba-cuda 0.30 fails when it compiles.
        module.compose([torch.zeros(1, 1, device=setup.device)])
    except Exception as error:  # of all kinds
        yield NotRun("numba_cuda", reason(error))
        return
    yield from _kernels("numba_cuda", module, setup, budget)


def _kernels(name: str, module: object, setup: Setup, budget: Budget) -> Iterator[Finding]:
    """Compares the kernels of one module with the reference, up to the first wrong one.

    Raises:
        WrongError: A case differs; its smallest form was given before.
    """
    for kernel in KERNELS:
        done = pixels = 0
        for case in cases(kernel, (setup.scale.height, setup.scale.width)):
            if budget.spent:
                break
            if found := _difference(module, case, setup):
                yield from _smallest(name, module, case, found, setup, budget)
                raise WrongError(f"{name}: {kernel} differs from the reference")
            done += 1
            pixels += sum(height * width for height, width in case.sizes)
        yield Table(kernel, [{"cases": done, "pixels": pixels, "wrong": 0}])
        if budget.spent:
            return


def _difference(module: object, case: Case, setup: Setup) -> Difference | None:
    try:
        return difference(module, case, setup.device)
    except Exception as error:
        raise WrongError(f"{case.row}: {reason(error)}") from error


def _smallest(
    name: str, module: object, case: Case, found: Difference, setup: Setup, budget: Budget
) -> Iterator[Finding]:
    """The case as it was found, and then as small as possible."""
    differences = {case: found}

    def fails(simpler: Case) -> bool:
        off = _difference(module, simpler, setup)
        if off:
            differences[simpler] = off
        return off is not None

    def row(which: str, each: Case) -> dict[str, object]:
        return {"module": name, "case": which, **each.row, **vars(differences[each])}

    yield Table("wrong", [row("found", case)])
    limit = budget.part(_REDUCING)
    reduced = smallest(case, fails, lambda: limit.spent)
    yield Table("wrong", [row("found", case), row("smallest", reduced)])


# What these errors say is missing, not wrong.
_MISSING = ("ImportError", "ModuleNotFoundError", "BackendUnavailable")


def _part(
    name: str, function: str = "measure", *, codecs: bool = False, whole: bool = False
) -> Measure:
    """A part in a file of its own, imported when its turn comes.

    codecs: It needs one of the GPU's codecs. whole: What did not run for another reason than that
    something is missing counts as wrong.
    """

    def measure(setup: Setup, budget: Budget) -> Iterator[Finding]:
        try:
            part = importlib.import_module(f"bench.gpu.{name}")
            absent = importlib.import_module("sketchify_rt.codec.cuda").missing() if codecs else []
        except ImportError as error:
            yield NotRun(name, reason(error))
            return
        if len(absent) == 2:
            yield NotRun(name, f"not installed: {', '.join(absent)}")
            return
        failed = []
        for finding in getattr(part, function)(setup):
            yield finding
            if whole and isinstance(finding, NotRun) and not finding.why.startswith(_MISSING):
                failed.append(finding.what)
        if failed:
            raise WrongError(f"failed: {'; '.join(failed)}")

    return measure


_FILES = _part("pipeline", "of_files", codecs=True, whole=True)
STEPS = (
    Step("triton", triton, 50),
    Step("numba_cuda", numba_cuda, 40),
    Step("runtime", _part("check_runtime"), 30),
    Step("decode", _part("check_codec", "decode"), 25),
    Step("encode", _part("check_codec", "encode"), 20),
    Step("limits", _part("limits"), 10),
    Step("arrays", _part("pipeline", "of_arrays", whole=True), 30, ("triton", "runtime")),
    Step("pipeline", _FILES, 30, ("triton", "runtime", "decode", "encode")),
    Step("kernels", _part("kernels"), 30, ("triton",)),
    Step("unet", _part("unet", "lite"), 30, ("runtime",)),
    Step("codec", _part("codec", codecs=True), 20, ("decode", "encode")),
)


def main(device: torch.device, seconds: float, file: Path | None, started: float) -> int:
    """Runs all steps on a GPU and prints what came out.

    Args:
        device: The GPU.
        seconds: Of each comparison of speeds.
        file: For the results; None for a name of date and card in bench/results.
        started: When the process began, by `time.monotonic`.

    Returns:
        The exit code: 0 if nothing was wrong, else 1.
    """
    gone = time.monotonic() - started
    faulthandler.dump_traceback_later(HARD_SECONDS - gone, exit=True)
    try:
        machine = facts(device)
        file = file or results_file(machine, "card", "first")
        scale = replace(SCALE, seconds=seconds)
        report = Report(file, machine=machine, scale=vars(scale))
        with _stream(device):
            wrong = run(Setup(device, scale), STEPS, report, Budget(SECONDS - gone))
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(f"\nwritten to {file}")
    print(f"wrong: {', '.join(wrong)}" if wrong else "nothing was wrong")
    return 1 if wrong else 0


def _stream(device: torch.device) -> AbstractContextManager[object]:
    """A stream that is not the default one: CUDA graphs want it."""
    if device.type == "cpu":  # in the tests
        return nullcontext()
    return torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
