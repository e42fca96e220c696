"""TensorRT's real Python bindings, for machines without TensorRT.

The wheel of bindings is small, but needs libraries of a gigabyte. Empty ones, compiled here, let it
be imported: its classes, enums and signatures are all there; what would do any work is not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

VERSIONS = ("11.4.0.106", "10.16.1.11")

# What the bindings look for in the libraries.
_FUNCTIONS = [
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
]

# The bindings import a package of this name first, for it to load the libraries.
_LOADER = """
import ctypes
from pathlib import Path
for library in Path(__file__).parent.glob("*.so.*"):
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
"""

_DESCRIBE = """
import json, tensorrt

def told(value):
    if isinstance(value, property):
        return "property"
    return int(value) if hasattr(type(value), "__members__") else value.__doc__

def members(thing):
    names = [name for name in dir(thing) if name == "__init__" or not name.startswith("_")]
    return {name: told(getattr(thing, name)) for name in names}

classes = {n: members(c) for n, c in vars(tensorrt).items() if isinstance(c, type)}
print(json.dumps({"": members(tensorrt), **classes}))
"""

# What pybind11-stubgen's result has wrong: names that Python does not allow, a module's `bool` that
# hides the type, what pybind11 converts by itself, iteration by index, and the buffer that a
# docstring tells of.
_REPAIRS = (
    (r"\bin: ", "in_: "),
    (r"(?m)^bool: ", "bool_: "),
    (r"(channel_axis: typing\.SupportsInt)\)", r"\1 = ...)"),
    (r"typing\.SupportsInt", "int"),
    (r"(\w: Dims)(?=[,)])", r"\1 | collections.abc.Sequence[int]"),
    (
        r"(?m)^class Dims:$",
        r"\g<0>\n    def __iter__(self) -> collections.abc.Iterator[int]: ...",
    ),
    (
        r"(?m)^class IHostMemory:$",
        r"\g<0>\n    def __buffer__(self, flags: int, /) -> memoryview: ...",
    ),
)


class Unavailable(Exception):
    """The bindings cannot be had here; the message tells why."""


def install(version: str, folder: Path) -> None:
    """Puts the package `tensorrt` of a version into a folder; raises Unavailable."""
    libraries = folder / "tensorrt_libs"
    libraries.mkdir(parents=True)
    (libraries / "__init__.py").write_text(_LOADER)
    source = libraries / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS))
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        file = f"lib{name}.so.{version.partition('.')[0]}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", libraries / file]
        _run(os.environ.get("CC", "cc"), *options, source)
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--retries=0", "--timeout=20"]
    wheel = f"tensorrt-cu13-bindings=={version}"
    _run(sys.executable, "-m", "pip", "install", *options, "--target", folder, wheel)
    package = folder / "tensorrt"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from tensorrt_bindings import *\nfrom tensorrt_bindings import __version__\n"
    )


def describe(folder: Path) -> dict[str, dict[str, Any]]:
    """Of each class, and of "" for the module, the members.

    They are values of enums, "property", or what pybind11 writes into the docstring of a method:
    a line for each signature.
    """
    described: dict[str, dict[str, Any]] = json.loads(run(folder, "-c", _DESCRIBE).stdout)
    return described


def write_stubs(folder: Path) -> Path:
    """The types of `tensorrt` as .pyi files; returns the folder that they are in."""
    stubs = folder / "stubs"
    result = run(
        folder, "-m", "pybind11_stubgen", "tensorrt_bindings.tensorrt", "--output-dir", str(stubs)
    )
    assert result.returncode == 0, result.stderr
    (file,) = stubs.rglob("*.pyi")
    text = file.read_text()
    for pattern, replacement in _REPAIRS:
        text, count = re.subn(pattern, replacement, text)
        assert count, f"{pattern}: not there any more"
    (stubs / "tensorrt.pyi").write_text(text + "\n__version__: str\n")
    file.unlink()
    return stubs


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, where `tensorrt` is the one in a folder."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise Unavailable(f"no {command[0]}") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or ["it failed"]
        raise Unavailable(f"{command[-1]}: {reason[-1]}") from error
