"""The code, and the fake that it is tested with, against TensorRT's real Python bindings."""

from __future__ import annotations

import enum
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
import tensorrt_bindings
from conftest import skip

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CLASSES = {
    name: value
    for name, value in vars(fake_tensorrt).items()
    if isinstance(value, type)
    and value.__module__ == fake_tensorrt.__name__
    and not name.startswith("_")
}

# The right of each line is what mypy must find on its left.
WRONG = """
from sketchify_rt.tensorrt.library import trt
def wrong(
    config: trt.IBuilderConfig, builder: trt.Builder, context: trt.IExecutionContext
) -> None:
    trt.IOptimisationProfile  # attr-defined
    trt.BuilderFlag.FP61  # attr-defined
    config.set_builder_flag(trt.BuilderFlag.TF32)  # attr-defined
    config.builder_optimisation_level = 3  # attr-defined
    config.builder_optimization_level = "3"  # assignment
    config.set_timing_cache(config.create_timing_cache(b""), ignore=True)  # call-arg
    builder.create_network(trt.BuilderFlag.TF32)  # arg-type
    number: int = context.execute_async_v3(0).real + context.infer_shapes()  # operator
    config.create_timing_cache("text")  # arg-type
"""

# Other packages are left out: with their types this takes three times as long.
SETTINGS = """
[mypy]
strict = true
warn_unused_ignores = false
disallow_subclassing_any = false
disallow_untyped_decorators = false
warn_return_any = false
follow_imports = skip
mypy_path = {stubs}
[mypy-sketchify_rt.*]
follow_imports = silent
[mypy-tensorrt]
ignore_errors = true
"""


@pytest.fixture(scope="module", params=tensorrt_bindings.VERSIONS)
def bindings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real bindings."""
    folder = tmp_path_factory.mktemp("tensorrt")
    try:
        tensorrt_bindings.install(request.param, folder)
    except tensorrt_bindings.Unavailable as error:
        skip(f"TensorRT's bindings cannot be installed: {error}")
    return folder


@pytest.fixture(scope="module")
def described(bindings: Path) -> dict[str, dict[str, Any]]:
    return tensorrt_bindings.describe(bindings)


def test_our_modules_import_with_them(bindings: Path) -> None:
    names = "\n".join(f"import sketchify_rt.tensorrt.{name}" for name in fake_tensorrt.MODULES)
    result = tensorrt_bindings.run(bindings, "-c", names)
    assert result.returncode == 0, result.stderr


def test_without_a_library_behind_them_they_are_refused(bindings: Path) -> None:
    code = """
from sketchify_rt.errors import BackendUnavailable
from sketchify_rt.tensorrt.library import LOG, checked, trt
for make in trt.Runtime, trt.Builder:
    try:
        checked(lambda: make(LOG))
    except BackendUnavailable as error:
        print(error)
"""
    result = tensorrt_bindings.run(bindings, "-c", code)
    assert result.stdout.count("does not work here: pybind11::init()") == 2, result.stderr


def test_they_take_tuples_for_shapes(bindings: Path) -> None:
    code = """
import tensorrt
tensor = tensorrt.PluginTensorDesc()
tensor.dims = (1, 2, 3)
print(tuple(tensor.dims))
"""
    assert tensorrt_bindings.run(bindings, "-c", code).stdout == "(1, 2, 3)\n"


def test_their_types_fit_our_code(bindings: Path) -> None:
    stubs = tensorrt_bindings.write_stubs(bindings)
    wrong = bindings / "wrong.py"
    wrong.write_text(WRONG)
    settings = bindings / "mypy.ini"
    settings.write_text(SETTINGS.format(stubs=stubs))
    options = ["--config-file", settings, "--cache-dir", bindings / "mypy", "--no-error-summary"]
    files = [ROOT / "sketchify_rt" / "tensorrt" / f"{name}.py" for name in fake_tensorrt.MODULES]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--hide-error-context", *files, wrong],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    found = [line for line in result.stdout.splitlines() if ": note: " not in line]
    expected = [
        (str(number), line.partition("  # ")[2])
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "  # " in line
    ]
    pattern = rf"{re.escape(str(wrong))}:(\d+): error: .*\[([a-z-]+)\]"
    assert [re.findall(pattern, line) for line in found] == [[error] for error in expected], (
        result.stdout + result.stderr
    )


def test_the_fake_is_of_their_version(bindings: Path) -> None:
    assert fake_tensorrt.__version__ == tensorrt_bindings.VERSIONS[0]
    version = tensorrt_bindings.run(bindings, "-c", "import tensorrt; print(tensorrt.__version__)")
    assert version.stdout.strip() in tensorrt_bindings.VERSIONS


def test_the_fake_has_their_types_by_the_same_names(described: dict[str, dict[str, Any]]) -> None:
    names = {n: int(v) for n, v in vars(fake_tensorrt).items() if isinstance(v, enum.Enum)}
    assert set(names) == {"float16", "float32", "uint8"}
    assert {name: described[""].get(name) for name in names} == names


@pytest.mark.parametrize("name", CLASSES)
def test_what_the_fake_has_they_have(name: str, described: dict[str, dict[str, Any]]) -> None:
    real = described[name]
    for member, value in public_members(CLASSES[name]):
        assert member in real, f"{name}.{member}"
        where = f"{name}.{member}: {real[member]}"
        if isinstance(value, enum.Enum):
            assert isinstance(real[member], int), where  # which differs between versions
        elif inspect.isfunction(value):
            mine = [*inspect.signature(value).parameters][1:]
            assert any(fits(mine, theirs) for theirs in signatures(member, real[member])), where
        elif value is property:
            assert real[member] == "property", where


def test_a_fake_that_drifts_is_found() -> None:
    members = dict(public_members(fake_tensorrt.OnnxParser))
    assert list(members) == ["parse", "num_errors", "get_error", "__init__"]
    assert members["num_errors"] is property
    assert dict(public_members(fake_tensorrt.IBuilderConfig))["progress_monitor"] is property
    told = """set_it(*args, **kwargs)
Overloaded function.

1. set_it(self: t.A, pool: t.Pool, size: typing.SupportsInt = 0) -> None

2. set_it(self: t.A, shape: tuple[int, int], by: dict[str, int] = {}, strategy: t.S = <S.A: 0>) -> x
"""
    first, second = signatures("set_it", told)
    assert first == [("pool", False), ("size", True)]
    assert second == [("shape", False), ("by", True), ("strategy", True)]
    assert fits(["pool"], first)
    assert fits(["pool", "size"], first)
    assert not fits(["size", "pool"], first)
    assert not fits(["pool", "length"], first)
    assert not fits(["pool", "size", "more"], first)
    assert not fits([], first)


def public_members(fake: type) -> Iterator[tuple[str, Any]]:
    """Names and what they are; of attributes that are set on `self`, `property`."""
    for name, value in vars(fake).items():
        if not name.startswith("_"):
            yield name, property if isinstance(value, property) else value
    if fake in (fake_tensorrt.Builder, fake_tensorrt.OnnxParser, fake_tensorrt.Runtime):
        yield "__init__", fake.__init__  # the others are not for us to make
    for name in re.findall(r"self\.([a-z]\w*)(?:: .*)? = ", inspect.getsource(fake)):
        yield name, property


def signatures(name: str, docstring: str) -> list[list[tuple[str, bool]]]:
    """Of each signature, the parameters after `self`, and whether they have a default."""
    found = []
    for text in re.findall(rf"(?m)^(?:\d+\. )?{name}\((self: .*)\) -> ", docstring):
        flat = text
        while flat != (flat := re.sub(r"\[[^][]*\]|<[^<>]*>|\{[^{}]*\}", "", flat)):
            pass  # what has commas of its own
        parameters = flat.split(", ")[1:]
        found.append([(p.partition(":")[0], " = " in p) for p in parameters])
    return found


def fits(mine: list[str], theirs: list[tuple[str, bool]]) -> bool:
    """Whether a call that mine takes, theirs takes too."""
    names = [name for name, _ in theirs]
    return names[: len(mine)] == mine and all(default for _, default in theirs[len(mine) :])
