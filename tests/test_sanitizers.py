"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: what either finds, fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pybind11
import pytest
from conftest import skip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# In the place of the module that is installed.
RUN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("sketchify_rt._native", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules["sketchify_rt._native"] = module
"""
# One size of each kernel, with views and threads. The cases of the fuzzer have odd sizes.
TESTS = """
import pytest
few = "views_are_read or threads_make_no_difference and 3 or hint_of_wide_pages"
sys.exit(pytest.main([sys.argv[2], "-q", "-pno:cacheprovider", "--capture=sys", "-k", few]))
"""
FUZZ = """
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fuzz.targets import kernels
for path in sorted(Path(sys.argv[2], "fuzz/corpus/kernels").iterdir()):
    kernels(path.read_bytes())
"""
# What must be found, so that the rest means something: a row less than is written.
OVERFLOW = """
import numpy as np
from numpy.lib.stride_tricks import as_strided
page = as_strided(np.zeros(2900, np.uint8), (30, 100), (100, 1))
module.binarize(np.zeros((30, 100), np.uint8), page, 1, sys.argv[2])
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension, built with the sanitizers."""
    places = os.pathsep.join((sysconfig.get_path("scripts"), os.environ["PATH"]))
    cmake, ninja = shutil.which("cmake", path=places), shutil.which("ninja", path=places)
    if not cmake or not ninja or not shutil.which("gcc"):
        skip("cmake, ninja and gcc build the kernels with sanitizers")
    folder = tmp_path_factory.mktemp("sanitized")
    options = {
        "SKETCHIFY_SANITIZE": "ON",
        "CMAKE_BUILD_TYPE": "Debug",  # else pybind11 strips the names off
        "CMAKE_CXX_COMPILER": "g++",
        "CMAKE_MAKE_PROGRAM": ninja,
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    settings = [f"-D{name}={value}" for name, value in options.items()]
    for command in (
        [cmake, "-S", ROOT, "-B", folder, "-G", "Ninja", *settings],
        [cmake, "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("_native*.so")
    return built


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    libraries = [
        # The second, so that the first finds what throws exceptions when it starts.
        subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    return subprocess.run(
        [sys.executable, "-c", RUN + code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ
        | {
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python frees little when it ends
            "UBSAN_OPTIONS": "print_stacktrace=1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tests_of_the_kernels(module: Path) -> None:
    done = run(TESTS, module, ROOT / "tests" / "test_kernels.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_the_cases_of_the_fuzzer(module: Path) -> None:
    done = run(FUZZ, module, ROOT / "tests")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_overflow_is_found(module: Path, isa: str) -> None:
    done = run(OVERFLOW, module, isa)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert f"{isa}::binarize" in done.stderr
