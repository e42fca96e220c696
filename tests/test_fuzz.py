"""The fuzz targets: on the kept files, and for some seconds under atheris.

test_sanitizers.py runs the kept cases of the kernels.
"""

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

from sketchify_rt.codec import cpu, formats, header
from sketchify_rt.kernels import native

HERE = Path(__file__).parent / "fuzz" / "corpus"
FILES = sorted((HERE / "files").iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_that_is_kept(path: Path) -> None:
    data = path.read_bytes()
    assert len(data) <= 2048
    for target, folder in CORPUS.items():
        if folder == "files":
            TARGETS[target](data)


def test_the_cases_reach_every_decoder() -> None:
    names = {formats.identify(path.read_bytes()) for path in FILES}
    assert set(formats.READABLE) <= names


@pytest.mark.parametrize("target", ["codec", "containers"])
def test_a_target_tells_what_is_wrong(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("not an error of this package")

    monkeypatch.setattr(cpu, "decode", broken)
    monkeypatch.setattr(header, "probe", broken)
    with pytest.raises(KeyError):
        TARGETS[target](b"")


def test_the_kernels_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    case = (HERE / "kernels" / "binarize-130x17").read_bytes()
    monkeypatch.setattr(native, "binarize", lambda source, **_: source)
    with pytest.raises(AssertionError):
        kernels_target(case)


@pytest.mark.slow
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
    assert covered > 10
    assert not [path for path in found.iterdir() if not path.name.startswith("slow-unit")]
