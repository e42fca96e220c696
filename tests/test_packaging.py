"""What others get: the sdist, the wheel, and the package as it is installed from that."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import skip

import sketchify_rt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STEM = f"sketchify_rt-{sketchify_rt.__version__}"


@dataclass(frozen=True)
class Dist:
    sdist: Path
    wheel: Path


def run(*words: object, **more: str) -> str:
    """Its output; a compiler is nowhere to be found."""
    result = subprocess.run(
        [str(word) for word in words],
        env={"HOME": os.environ.get("HOME", "/"), "PATH": "/nowhere", **more},
        cwd="/",  # where no source lies
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    # In the folder where `pip install --editable` compiled, so that little is compiled anew.
    folder = tmp_path_factory.mktemp("dist")
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run(
        *(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel"),
        *("--outdir", folder, ROOT),
        PATH=tools,
    )
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Dist(sdist, wheel)


@pytest.fixture(scope="module")
def python(dist: Dist, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel, and beneath it what is installed here."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    python = home / "bin/python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", dist.wheel),
        *("--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"),
    )
    (site,) = home.glob("lib/python3*/site-packages")
    here = sysconfig.get_path("purelib")
    more = [line for path in Path(here).glob("base.pth") for line in path.read_text().split()]
    (site / "beneath.pth").write_text("\n".join([here, *more]))
    return python


def test_the_sdist_has_all_that_is_in_the_repository_and_nothing_else(dist: Dist) -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        skip("git tells what is in the repository")
    names = run(
        *(shutil.which("git"), "-C", ROOT, "-c", f"safe.directory={ROOT}", "ls-files"),
        *("--cached", "--others", "--exclude-standard"),
    ).splitlines()
    expected = {
        f"{STEM}/{name}"
        for name in names
        if not name.startswith((".ci/", ".github/")) and (ROOT / name).exists()
    }
    with tarfile.open(dist.sdist) as archive:
        found = set(archive.getnames())
    assert found == expected | {f"{STEM}/PKG-INFO"}
    assert dist.sdist.stat().st_size < 8e6


def test_the_wheel_has_the_package_and_nothing_else(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as archive:
        names = set(archive.namelist())
    native = f"sketchify_rt/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "sketchify_rt").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }
    assert {name for name in names if not name.startswith(f"{STEM}.dist-info/")} == source | {
        native
    }
    assert {"sketchify_rt/py.typed", "sketchify_rt/_native.pyi"} <= names
    assert {f"sketchify_rt/models/lite.{end}" for end in ("onnx", "int8.onnx", "json")} <= names
    assert dist.wheel.stat().st_size < 5e6


def test_the_metadata_are_what_an_index_and_pip_need(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as archive:
        told = email.message_from_bytes(archive.read(f"{STEM}.dist-info/METADATA"))
        scripts = archive.read(f"{STEM}.dist-info/entry_points.txt").decode()
        assert f"{STEM}.dist-info/licenses/LICENSE" in archive.namelist()
    assert told["Name"] == "sketchify-rt"
    assert told["Version"] == sketchify_rt.__version__
    assert told["Requires-Python"] == ">=3.11"
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Description-Content-Type"] == "text/markdown"
    assert {"gpu", "pdf", "ray", "train", "video"} <= set(told.get_all("Provides-Extra", []))
    needed = [text for text in told.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert 5 < len(needed) < 12
    assert not any(heavy in " ".join(needed) for heavy in ("torch", "onnx", "nvidia", "ray"))
    assert "sketchify-rt = sketchify_rt.cli:main" in scripts


def test_what_the_wheel_installs_makes_a_sketch(python: Path, tmp_path: Path) -> None:
    where = run(python, "-c", "import sketchify_rt; print(sketchify_rt.__file__)")
    assert Path(where.strip()).is_relative_to(python.parents[1])
    page = ROOT / "samples/lake.jpg"
    run(python.parent / "sketchify-rt", "convert", page, "-o", tmp_path, "--quiet")
    assert (tmp_path / "lake.png").read_bytes().startswith(b"\x89PNG")


def test_the_types_hold_for_who_installs_it(python: Path, tmp_path: Path) -> None:
    consumer = tmp_path / "consumer.py"
    shutil.copy(Path(__file__).with_name("consumer.py"), consumer)
    mypy = (
        *(sys.executable, "-m", "mypy", "--strict", "--python-executable", python),
        *("--config-file", "", "--cache-dir", tmp_path / "cache"),
    )
    assert "no issues found in 1 source file" in run(*mypy, consumer)
