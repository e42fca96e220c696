"""The fuzz targets: on each case that is kept, and for some seconds under atheris."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import skip
from fuzz.targets import CORPUS, TARGETS
from fuzz.targets import kernels as kernels_target

from sketchify_rt.codec import containers, cpu
from sketchify_rt.kernels import native

HERE = Path(__file__).parent / "fuzz" / "corpus"
CASES = [
    pytest.param(target, path, id=f"{target}-{path.name}")
    for target, folder in CORPUS.items()
    for path in sorted((HERE / folder).iterdir())
]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("target", "path"), CASES)
def test_a_case_that_is_kept(target: str, path: Path) -> None:
    data = path.read_bytes()
    assert len(data) <= 2048
    TARGETS[target](data)


def test_the_cases_reach_every_decoder() -> None:
    names = {containers.identify(path.read_bytes()) for path in (HERE / "files").iterdir()}
    assert set(containers.READABLE) <= names


@pytest.mark.parametrize("target", ["codec", "containers"])
def test_a_target_tells_what_is_wrong(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("not an error of this package")

    monkeypatch.setattr(cpu, "decode", broken)
    monkeypatch.setattr(containers, "pixels", broken)
    with pytest.raises(KeyError):
        TARGETS[target](b"")


def test_the_kernels_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    case = (HERE / "kernels" / "binarize-130x17").read_bytes()
    monkeypatch.setattr(native, "binarize", lambda source, **_: source)
    with pytest.raises(AssertionError):
        kernels_target(case)


@pytest.mark.parametrize(("target", "seconds"), [("codec", 8), ("containers", 2), ("kernels", 4)])
def test_some_seconds_of_fuzzing(target: str, seconds: int, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        skip("atheris is not installed")
    found = tmp_path / "found"
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--seconds", str(seconds), "--found", found],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.findall(r"^#(\d+)\s+DONE\s+cov: (\d+)", done.stderr, re.MULTILINE)
    (executions, covered) = map(int, runs[-1])
    assert executions > len(list((HERE / CORPUS[target]).iterdir()))
    assert covered > 20
    assert not [path for path in found.iterdir() if not path.name.startswith("slow-unit")]
